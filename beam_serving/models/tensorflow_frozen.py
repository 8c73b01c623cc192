"""TensorFlow's frozen graphs, read by OpenVINO: TensorFlow itself is not needed."""

from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.openvino_engine import compile_model, read_model


def load_frozen_graph(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a frozen `.pb`: inputs are its placeholders, outputs the nodes that no other node consumes."""
    return compile_model(read_model(files.model), options, files.model)
