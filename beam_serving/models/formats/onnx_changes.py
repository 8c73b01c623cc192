"""What is changed in an ONNX model before an engine gets it: outputs, shapes, and types at the borders.

`changed` does it to a model with or without the values of its weights: first to the graph alone, which tells what there
is to serve, and to the whole model only where there is something to change. Most models are loaded as they lie there.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, helper

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions, TensorSpec, whole_shapes
from beam_serving.models.formats.onnx_graph import all_nodes, graphs, graphs_of

_CAST_VERSION = 21
"""Of the standard operators, where a model has none of them."""


class Border(NamedTuple):
    """How a type that NumPy lacks comes in and goes out: as `plain`, whole numbers x with -below <= x < below."""

    plain: int
    below: int | None = None


class Port(NamedTuple):
    """An input or output of the file: `name` there, and the tensor that stands for it in the changed graph.

    `shape` is that of the whole tensor, None where the file does not say it.
    """

    name: str
    tensor: str
    shape: tuple[int | None, ...] | None
    below: int | None = None


class Changed(NamedTuple):
    """A model as an engine gets it; `is_changed` tells whether it is another one than in the file."""

    model: ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    class_names: Mapping[str, tuple[str, ...]]
    is_changed: bool


def border_of(kind: int) -> Border | None:
    """Tell how a type of ONNX crosses the border; None where it does as it is, or not at all."""
    name = type_name(kind)
    if name.startswith(("BFLOAT", "FLOAT8", "FLOAT6", "FLOAT4")):
        return Border(TensorProto.FLOAT)
    if narrow := re.fullmatch(r"(U?)INT([1-7])", name):
        unsigned, bits = bool(narrow[1]), int(narrow[2])
        return Border(TensorProto.UINT8, 1 << bits) if unsigned else Border(TensorProto.INT8, 1 << (bits - 1))
    return None


def type_name(kind: int) -> str:
    """Name a type as ONNX does; empty where this version of ONNX does not know it."""
    return next((name for name, number in TensorProto.DataType.items() if number == kind), "")


def changed(
    model: ModelProto, options: ModelOptions, path: Path, free: bool = False, types: Mapping[str, int] | None = None
) -> Changed:
    """Change a model to what is served of it, in place.

    The outputs are those of `options`, which may be tensors inside the graph. A ZipMap at an output is left out, so
    that it gives its tensor of scores. The inputs get the shapes that `options` say, with a free first axis where
    `free` is wanted. Types that NumPy lacks are cast at the borders.

    Args:
        model: with or without the values of its weights.
        options: how it is to be loaded.
        path: the file that messages name.
        free: whether first axes are to be free.
        types: those of outputs of which the file does not say the type.

    Raises:
        ModelLoadError: the model has not what the options ask for.
    """
    graph = model.graph
    names = [value.name for value in graph.output]
    is_changed = _choose_outputs(graph, options, path)
    class_names, scores = _zipped(graph)
    if is_changed or scores:
        _prune(graph, set(scores.values()) | {value.name for value in graph.output if value.name not in scores})
    given = {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in given]
    is_reshaped = _reshape(inputs, options, path, free)
    declared = {value.name: _shape_of(value) for value in graph.output}
    if is_reshaped:
        _forget_shapes(model)
        declared = {name: _shape_after(shape, free, options) for name, shape in declared.items()}
    taken = {name for node in all_nodes(model) for name in (*node.input, *node.output)} | given | {*names}
    taken |= {value.name for value in graph.input}
    ports = [_input_port(model, value, taken) for value in inputs]
    out = []
    for value in graph.output:
        name = value.name
        if name in scores:
            value.CopyFrom(ValueInfoProto(name=scores[name]))
        out.append(_output_port(model, value, name, None if name in scores else declared[name], types or {}, taken))
    is_cast = any(port.name != port.tensor for port in (*ports, *out))
    return Changed(model, tuple(ports), tuple(out), class_names, is_changed or is_reshaped or is_cast)


def _choose_outputs(graph: GraphProto, options: ModelOptions, path: Path) -> bool:
    """Make the outputs of a graph those that are asked for; tells whether they were others."""
    known = {value.name: value for value in graph.output}
    wanted = list(options.output_names or known)
    if wanted == list(known):
        return False
    inner = {value.name: value for value in (*graph.input, *graph.value_info)}
    tensors = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    if unknown := [name for name in wanted if not name or name not in tensors | inner.keys() | known.keys()]:
        raise ModelLoadError(f"{path}: has no output {unknown[0]!r}, its outputs are {', '.join(known)}")
    values = [known.get(name) or inner.get(name) or ValueInfoProto(name=name) for name in wanted]
    copies = [ValueInfoProto.FromString(value.SerializeToString()) for value in values]
    graph.ClearField("output")
    graph.output.extend(copies)
    return True


def _zipped(graph: GraphProto) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return, by output that a ZipMap makes, the names of its classes and the tensor of its scores."""
    wanted = {value.name for value in graph.output}
    class_names, scores = {}, {}
    for node in graph.node:
        if node.op_type != "ZipMap" or not wanted & {*node.output}:
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        names = [name.decode("utf-8", "replace") for name in attributes.get("classlabels_strings", [])]
        class_names[node.output[0]] = tuple(names or map(str, attributes.get("classlabels_int64s", [])))
        scores[node.output[0]] = node.input[0]
    return class_names, scores


def _prune(graph: GraphProto, wanted: set[str]) -> None:
    """Leave out the nodes that none of the wanted tensors needs: an engine may not have them."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed: set[int] = set()
    waiting = [makers[name] for name in wanted if name in makers]
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting += [makers[name] for name in _read_by(graph.node[index]) if name in makers]
    for index in reversed(range(len(graph.node))):
        if index not in needed:
            del graph.node[index]


def _read_by(node: NodeProto) -> Iterator[str]:
    """Name what a node reads, and what the graphs inside it may read of the graph around them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in graphs_of(attribute):
            yield from (value.name for value in graph.output)
            for inside in graph.node:
                yield from _read_by(inside)


def _reshape(inputs: Sequence[ValueInfoProto], options: ModelOptions, path: Path, free: bool) -> bool:
    """Give inputs the shapes that are wanted; tell whether they had others."""
    specs = [TensorSpec(value.name, _shape_of(value), np.dtype(np.float32)) for value in inputs]
    wanted = whole_shapes(specs, options, path)
    names = options.input_names or tuple(spec.name for spec in specs)
    if free:
        wanted = [
            (None, *shape[1:]) if shape and name not in options.constants else shape
            for name, shape in zip(names, wanted, strict=True)
        ]
    is_changed = False
    for value, spec, shape in zip(inputs, specs, wanted, strict=True):
        if shape is not None and shape != spec.shape:
            _set_shape(value, shape)
            is_changed = True
    return is_changed


def _shape_of(value: ValueInfoProto) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        size.dim_value if size.WhichOneof("value") == "dim_value" and size.dim_value >= 0 else None
        for size in tensor.shape.dim
    )


def _set_shape(value: ValueInfoProto, shape: Sequence[int | None]) -> None:
    tensor = value.type.tensor_type
    if len(tensor.shape.dim) != len(shape):
        tensor.ClearField("shape")
        tensor.shape.SetInParent()
        for _ in shape:
            tensor.shape.dim.add()
    for place, size in zip(tensor.shape.dim, shape, strict=True):
        if size is not None:
            place.dim_value = size
        elif place.WhichOneof("value") == "dim_value":
            place.ClearField("dim_value")


def _forget_shapes(model: ModelProto) -> None:
    """Leave out what the file says of shapes behind its inputs, which was true of other inputs."""
    for graph in graphs(model):
        graph.ClearField("value_info")
        for value in graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")


def _shape_after(
    shape: tuple[int | None, ...] | None, free: bool, options: ModelOptions
) -> tuple[int | None, ...] | None:
    if not shape:
        return shape
    return (None,) * len(shape) if options.input_shape is not None else (None, *shape[1:]) if free else shape


def _input_port(model: ModelProto, value: ValueInfoProto, taken: set[str]) -> Port:
    """Describe an input; where NumPy lacks its type it becomes one of another type and name, and a cast to the old."""
    name, tensor = value.name, value.type.tensor_type
    border = border_of(tensor.elem_type)
    if border is None or not value.type.HasField("tensor_type"):
        return Port(name, name, _shape_of(value))
    cast = helper.make_node("Cast", [_new_name(name, taken)], [name], to=tensor.elem_type)
    tensor.elem_type = border.plain
    value.name = cast.input[0]
    model.graph.node.insert(0, cast)
    _import_operators(model)
    return Port(name, value.name, _shape_of(value), border.below)


def _output_port(
    model: ModelProto,
    value: ValueInfoProto,
    name: str,
    shape: tuple[int | None, ...] | None,
    types: Mapping[str, int],
    taken: set[str],
) -> Port:
    """Describe an output that the file calls `name`; where NumPy lacks its type a cast is put behind it."""
    kind = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else types.get(name, 0)
    border = border_of(kind)
    if border is None:
        return Port(name, value.name, shape)
    cast = helper.make_node("Cast", [value.name], [_new_name(name, taken)], to=border.plain)
    model.graph.node.append(cast)
    value.CopyFrom(helper.make_tensor_value_info(cast.output[0], border.plain, None))
    _import_operators(model)
    return Port(name, value.name, shape)


def _new_name(name: str, taken: set[str]) -> str:
    new = f"{name}/plain"
    while new in taken:
        new += "_"
    taken.add(new)
    return new


def _import_operators(model: ModelProto) -> None:
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.append(OperatorSetIdProto(domain="", version=_CAST_VERSION))
