"""What TensorFlow itself loads: SavedModels and frozen graphs that OpenVINO cannot take."""

from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.tensorflow_engine import TENSORFLOW_ERRORS, model_of, prepare

_SIGNATURE = "serving_default"
_NO_OUTPUTS = ("Const", "NoOp", "Placeholder", "Assert")


def load_saved_model(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a SavedModel's signature `serving_default`, or its only one."""
    path = files.model
    prepare(options, path)
    try:
        loaded = tf.saved_model.load(str(path))
    except TENSORFLOW_ERRORS as err:
        raise ModelLoadError(f"{path}: TensorFlow cannot load it: {first_line(err)}") from err
    signatures = dict(loaded.signatures)
    if len(signatures) != 1 and _SIGNATURE not in signatures:
        raise ModelLoadError(f"{path}: its signatures are {sorted(signatures)}, wanted is one or {_SIGNATURE!r}")
    signature = signatures.get(_SIGNATURE) or next(iter(signatures.values()))
    inputs = list(signature.structured_input_signature[1].items())
    names = [name for name, _ in inputs]

    def call(*tensors: Any) -> Any:
        return signature(**dict(zip(names, tensors, strict=True)))

    # The signature alone does not keep the variables alive.
    call.owner = loaded  # type: ignore[attr-defined]
    return model_of(call, inputs, signature.structured_outputs, options, path)


def load_frozen_graph(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a frozen `.pb`: inputs are its placeholders, outputs the nodes that no other node consumes."""
    path = files.model
    prepare(options, path)
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
        inputs, outputs = _ends(graph)
        wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        feeds = [wrapped.graph.as_graph_element(f"{name}:0") for name in inputs]
        fetches = {name: wrapped.graph.as_graph_element(f"{name}:0") for name in outputs}
        function = wrapped.prune(feeds, fetches)
    except (DecodeError, *TENSORFLOW_ERRORS) as err:
        raise ModelLoadError(f"{path}: TensorFlow cannot load it: {first_line(err)}") from err
    return model_of(function, list(zip(inputs, feeds, strict=True)), fetches, options, path)


def _ends(graph: Any) -> tuple[list[str], list[str]]:
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    consumed = {name.lstrip("^").partition(":")[0] for node in graph.node for name in node.input}
    outputs = [node.name for node in graph.node if node.op not in _NO_OUTPUTS and node.name not in consumed]
    if not inputs or not outputs:
        raise ValueError(f"it has {len(inputs)} placeholders and {len(outputs)} outputs, wanted is one of each or more")
    return inputs, outputs


def first_line(err: BaseException) -> str:
    """Takes the first line of what TensorFlow says, which may be pages long."""
    lines: list[str] = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(err).__name__
