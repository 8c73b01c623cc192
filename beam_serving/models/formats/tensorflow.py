"""What TensorFlow itself loads: SavedModels and frozen graphs."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import EngineModel, ModelOptions, TensorSpec, describe, select_outputs, whole_shapes
from beam_serving.models.detect import ModelFiles
from beam_serving.models.engines.tensorflow import (
    TENSORFLOW_ERRORS,
    Port,
    TensorFlowModel,
    port_of,
    prepare,
    telling_line,
)
from beam_serving.models.formats import tensorflow_saved_model as saved
from beam_serving.models.formats.tensorflow_operators import (
    Reached,
    facts_of,
    node_of,
    reached,
    reason_to_refuse,
    without_value,
)

_LOG = logging.getLogger(__name__)
_NO_OUTPUTS = ("Const", "NoOp", "Placeholder", "PlaceholderWithDefault", "Assert")
_RANKS = 7
Shape = tuple[int | None, ...] | None


def load_saved_model(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a SavedModel's signature `serving_default`, or its only one.

    Raises:
        ModelLoadError: TensorFlow cannot load it, it would do more than compute, or the options do not fit it.
    """
    path = files.model
    prepare(options, path)
    try:
        loaded = saved.load_checked(path)
        signature = saved.signature_of(dict(loaded.signatures), path)
        graph = signature.graph.as_graph_def()
    except TENSORFLOW_ERRORS as err:
        raise ModelLoadError(f"{path}: TensorFlow cannot load it: {telling_line(err)}") from err
    found = reached(graph, [node.name for node in graph.node])
    _refuse(reason_to_refuse(found), path)
    facts, keeps = facts_of(found)
    _refuse_state(keeps, path)
    if facts.state and (unbound := without_value(found, tables=False)):
        _refuse(f"keeps state in {unbound}, which is no variable of the SavedModel; export it without", path)
    inputs = saved.tensors_of(signature.structured_input_signature[1], "input", path)
    outputs = saved.tensors_of(signature.structured_outputs, "output", path)
    names = select_outputs(list(outputs), options, path)
    given = [port_of(name, shape_of(one), one.dtype, "input", path) for name, one in inputs.items()]
    taken = [port_of(name, shape_of(outputs[name]), outputs[name].dtype, "output", path) for name in names]

    def call(*tensors: tf.Tensor) -> list[tf.Tensor]:
        results = signature(**dict(zip(inputs, tensors, strict=True)))
        return [results[name] for name in names]

    # The signature alone does not keep the variables alive.
    call.owner = loaded  # type: ignore[attr-defined]
    variables = signature.variables if facts.state else ()
    return TensorFlowModel(call, _with_fixed_sizes(given, options, path), taken, facts, variables=variables)


def _with_fixed_sizes(ports: Sequence[Port], options: ModelOptions, path: Path) -> list[Port]:
    """Fix free sizes as the operator wants them; those that a signature fixes are part of its functions."""
    specs = [port.spec for port in ports]
    fixed = []
    for port, wanted in zip(ports, whole_shapes(specs, options, path), strict=True):
        shape = port.spec.shape
        if shape is not None and wanted is not None:
            if any(None not in (size, want) and size != want for size, want in zip(shape, wanted, strict=True)):
                has = describe(port.spec.dtype, shape)
                raise ModelLoadError(
                    f"{path}: data: shape wants {describe(port.spec.dtype, wanted)} for input {port.spec.name!r}, the "
                    f"signature of the SavedModel is for {has}; leave data: shape out, or export it with other sizes"
                )
            wanted = tuple(want if size is None else size for size, want in zip(shape, wanted, strict=True))
        fixed.append(port._replace(spec=port.spec._replace(shape=wanted)))
    return fixed


def load_frozen_graph(files: ModelFiles, options: ModelOptions) -> EngineModel:
    """Load a frozen `.pb`: inputs are its placeholders, outputs the nodes that no other node consumes.

    A placeholder with a default keeps it, unless `model: constants` has a value for it.

    Raises:
        ModelLoadError: TensorFlow cannot load it, it would do more than compute, or the options do not fit it.
    """
    path = files.model
    prepare(options, path)
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
        inputs, outputs = _ends(graph, options)
        function = _imported(graph)
        fetches = _fetches(function.graph, outputs, options, path)
        shapes = {name: shape_of(function.graph.as_graph_element(f"{name}:0")) for name in inputs}
    except (DecodeError, *TENSORFLOW_ERRORS) as err:
        raise ModelLoadError(f"{path}: TensorFlow cannot load it: {telling_line(err)}") from err
    found = reached(graph, [node_of(one) for one in fetches.values()])
    _refuse(reason_to_refuse(found), path)
    if named := without_value(found):
        _refuse(f"holds {named} without its value; freeze the graph, or export a SavedModel", path)
    facts, keeps = facts_of(found)
    _refuse_state((*facts.state, *keeps), path)
    frozen = _FrozenGraph(graph, inputs, fetches, found, path)
    wanted = frozen.wanted_shapes(shapes, options)
    return frozen.model(wanted)


class _FrozenGraph:
    """A graph with its ends; `model` gives it with shapes of its placeholders."""

    def __init__(
        self,
        graph: tf.compat.v1.GraphDef,
        inputs: Sequence[str],
        fetches: Mapping[str, str],
        found: Sequence[Reached],
        path: Path,
    ) -> None:
        self._graph = graph
        self._inputs = inputs
        self._fetches = fetches
        self._facts = facts_of(found)[0]
        self._path = path

    def wanted_shapes(self, shapes: Mapping[str, Shape], options: ModelOptions) -> dict[str, Shape]:
        """Return the shapes that the operator wants, else those of the file, else what the operators behind tell.

        Raises:
            ModelLoadError: the operator's shapes do not fit the graph.
        """
        dtypes = self._ports(_imported(self._graph))[0]
        specs = [TensorSpec(port.spec.name, shapes[port.spec.name], port.spec.dtype) for port in dtypes]
        wanted = dict(zip(shapes, whole_shapes(specs, options, self._path), strict=True))
        for name, shape in wanted.items():
            if shape is None and (ranks := self._ranks(name)) and len(ranks) == 1:
                wanted[name] = (None,) * ranks[0]
        if wanted != shapes:
            try:
                _imported(_reshaped(self._graph, wanted))
            except TENSORFLOW_ERRORS as err:
                asked = ", ".join(describe(spec.dtype, wanted[spec.name]) for spec in specs)
                raise ModelLoadError(
                    f"{self._path}: its operators do not take {asked}: {telling_line(err)}; change data: shape"
                ) from err
        return wanted

    def _ranks(self, name: str) -> list[int]:
        """Return the ranks of a placeholder that TensorFlow's own check of shapes lets pass.

        Some kernels end the process over a tensor of another rank, so what can be known is known before.
        """
        passed = []
        for rank in range(_RANKS):
            try:
                _imported(_reshaped(self._graph, {name: (None,) * rank}))
            except TENSORFLOW_ERRORS as err:
                _LOG.debug("%s of rank %d: %s", name, rank, telling_line(err))
                continue
            passed.append(rank)
        return passed

    def model(self, shapes: Mapping[str, Shape]) -> TensorFlowModel:
        """Return the model whose placeholders have these shapes."""
        function = _imported(_reshaped(self._graph, shapes))
        inputs, outputs = self._ports(function)
        feeds = [function.graph.as_graph_element(f"{name}:0") for name in self._inputs]
        call = function.prune(feeds, [function.graph.as_graph_element(one) for one in self._fetches.values()])

        def freed() -> EngineModel | None:
            free = {name: (None, *shape[1:]) if shape else shape for name, shape in shapes.items()}
            try:
                return self.model(free)
            except TENSORFLOW_ERRORS as err:
                _LOG.debug("%s with a free first axis: %s", self._path, telling_line(err))
                return None

        return TensorFlowModel(call, inputs, outputs, self._facts, freed=freed)

    def _ports(self, function: tf.types.experimental.ConcreteFunction) -> tuple[list[Port], list[Port]]:
        def port(name: str, tensor: str, what: str) -> Port:
            one = function.graph.as_graph_element(tensor)
            return port_of(name, shape_of(one), one.dtype, what, self._path)

        return (
            [port(name, f"{name}:0", "input") for name in self._inputs],
            [port(name, tensor, "output") for name, tensor in self._fetches.items()],
        )


def shape_of(tensor: tf.Tensor | tf.TensorSpec) -> Shape:
    """Return the shape of a tensor or a spec of TensorFlow, None where even the rank is free."""
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def _imported(graph: tf.compat.v1.GraphDef) -> tf.types.experimental.ConcreteFunction:
    return tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])


def _reshaped(graph: tf.compat.v1.GraphDef, shapes: Mapping[str, Shape]) -> tf.compat.v1.GraphDef:
    """Return the graph with these shapes of placeholders."""
    changed = type(graph)()
    changed.CopyFrom(graph)
    if changed.versions.producer < _KNOWS_SCALARS:
        changed.versions.producer = _KNOWS_SCALARS
    for node in changed.node:
        if node.name in shapes and node.op == "Placeholder":
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[node.name]).as_proto())
        # What shapes were at the time of the export no longer holds.
        if "_output_shapes" in node.attr:
            del node.attr["_output_shapes"]
    return changed


_KNOWS_SCALARS = 24
"""The version of graphs since which the shape [] of a placeholder means a single value, no longer any shape."""


def _ends(graph: tf.compat.v1.GraphDef, options: ModelOptions) -> tuple[list[str], list[str]]:
    inputs = [
        node.name
        for node in graph.node
        if node.op == "Placeholder" or (node.op == "PlaceholderWithDefault" and node.name in options.constants)
    ]
    consumed = {node_of(name) for node in graph.node for name in node.input}
    outputs = [node.name for node in graph.node if node.op not in _NO_OUTPUTS and node.name not in consumed]
    if not inputs or not outputs:
        raise ValueError(f"it has {len(inputs)} placeholders and {len(outputs)} outputs, wanted is one of each or more")
    return inputs, outputs


def _fetches(graph: tf.Graph, nodes: Sequence[str], options: ModelOptions, path: Path) -> dict[str, str]:
    """Return the tensors to fetch by the names of outputs; asked for may also be what other nodes consume."""
    known = dict(tensor for name in nodes for tensor in _tensors(graph, name))
    for asked in options.output_names:
        tensor = asked if ":" in asked else f"{asked}:0"
        if asked not in known and tensor in dict(_tensors(graph, node_of(asked))).values():
            known[asked] = tensor
    return {name: known[name] for name in select_outputs(list(known), options, path)}


def _tensors(graph: tf.Graph, node: str) -> Iterator[tuple[str, str]]:
    try:
        outputs = graph.as_graph_element(node, allow_tensor=False).outputs
    except (KeyError, ValueError):
        return
    for tensor in outputs:
        yield (node if len(outputs) == 1 else tensor.name), tensor.name


def _refuse(reason: str | None, path: Path) -> None:
    if reason:
        raise ModelLoadError(f"{path}: {reason}")


def _refuse_state(keeps: Sequence[str], path: Path) -> None:
    if keeps:
        remedy = "export it without, or with its state as inputs and outputs"
        _refuse(f"keeps state in the operator {keeps[0]}, which cannot be set back between requests; {remedy}", path)
