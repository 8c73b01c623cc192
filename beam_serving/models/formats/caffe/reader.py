"""Reads a Caffe model, a deploy `.prototxt` with its `.caffemodel`, into a graph that OpenVINO runs."""

from pathlib import Path

import openvino as ov

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.caffe.graph import build_graph
from beam_serving.models.formats.caffe.message import TextError
from beam_serving.models.formats.caffe.net import LayerError, read_net
from beam_serving.models.formats.caffe.textformat import MAX_TEXT_BYTES, parse_text
from beam_serving.models.formats.caffe.weights import read_weights
from beam_serving.models.formats.protowire import ProtoError


def read_caffe(prototxt: Path, caffemodel: Path) -> ov.Model:
    """Build the graph: float32 inputs and outputs named as the net's blobs, the batch axis first and free.

    Outputs are the blobs that no layer consumes. The weights stay views of the mapped file, which therefore must not
    be changed in place while the model is in use.

    Raises ModelLoadError, with the file and the layer, for a file that cannot be read, a layer or an option that is
    not supported, and weights that are missing or do not fit.
    """
    try:
        if prototxt.stat().st_size > MAX_TEXT_BYTES:
            raise ModelLoadError(f"{prototxt}: larger than {MAX_TEXT_BYTES} bytes, a deploy prototxt is wanted")
        net = read_net(parse_text(prototxt.read_text("utf-8", "replace")))
        weights = read_weights(caffemodel)
        return build_graph(net, weights)
    except OSError as err:
        raise ModelLoadError(f"{err.filename}: {err.strerror}") from err
    except ProtoError as err:
        raise ModelLoadError(f"{caffemodel}: not a whole caffemodel: {err}") from err
    except (TextError, LayerError) as err:
        raise ModelLoadError(f"{prototxt}: {err}") from err
