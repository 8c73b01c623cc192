"""OpenVINO's own format: a graph in XML and its weights."""

from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.openvino_engine import compile_model, read_model


def load_openvino_ir(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads `.xml` + `.bin`."""
    return compile_model(read_model(files.model, files.weights), options, files.model)
