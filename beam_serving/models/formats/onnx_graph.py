"""What is read from an ONNX file before an engine sees it.

`read_graph` gives the graph without its large weights, which is enough to know everything but the results.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.protowire import LENGTH, ProtoError, Span, fields, map_file

_RANDOM = frozenset(
    (
        *("Bernoulli", "BiasDropout", "Multinomial", "Sampling"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    )
)
_GRAPH_OF_MODEL, _INITIALIZER_OF_GRAPH = 7, 5
_VALUES_OF_TENSOR = frozenset((4, 5, 6, 7, 9, 10, 11))
_LARGE_BYTES = 1024
"""Smaller weights are shapes and switches, which tell something of the graph."""
_MEMORY = re.compile(r"/proc/\d+/fd/")


def read_graph(path: Path) -> ModelProto:
    """Read a model without the values of its large weights.

    Raises:
        ModelLoadError: the file cannot be read, or is no ONNX model.
    """
    try:
        model: ModelProto = ModelProto.FromString(
            b"".join(_without_weights(map_file(path), (_GRAPH_OF_MODEL, _INITIALIZER_OF_GRAPH)))
        )
    except OSError as err:
        raise ModelLoadError(f"{path}: cannot be read ({err.strerror})") from err
    except (ProtoError, DecodeError) as err:
        raise ModelLoadError(f"{path}: is damaged, or is no ONNX model: {err}") from err
    if not model.HasField("graph"):
        raise ModelLoadError(f"{path}: is no ONNX model: it holds no graph")
    return model


def read_whole(path: Path) -> ModelProto:
    """Read a model with its weights, but for those that lie in other files.

    Raises:
        ModelLoadError: see `read_graph`.
    """
    try:
        model: ModelProto = ModelProto.FromString(path.read_bytes())
    except OSError as err:
        raise ModelLoadError(f"{path}: cannot be read ({err.strerror})") from err
    except DecodeError as err:
        raise ModelLoadError(f"{path}: is damaged, or is no ONNX model: {err}") from err
    return model


def _without_weights(message: Span, way: Sequence[int]) -> Iterator[bytes]:
    """Yield the bytes of a message; `way` are the numbers of the fields that lead to its weights."""
    found = list(fields(message))
    ends = [field.offset - message.offset for field in found[1:]] + [len(message.view)]
    for field, end in zip(found, ends, strict=True):
        raw = message.view[field.offset - message.offset : end]
        if way and field.number == way[0] and field.wire_type == LENGTH:
            content = b"".join(_without_weights(field.message(), way[1:]))
            yield _varint(field.number << 3 | LENGTH) + _varint(len(content)) + content
        elif way or field.number not in _VALUES_OF_TENSOR or len(message.view) <= _LARGE_BYTES:
            yield bytes(raw)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def external_files(model: ModelProto, path: Path) -> dict[str, Path]:
    """Return the files that hold weights of a model, by the names that it has for them.

    Raises:
        ModelLoadError: one is missing, or does not lie in the directory of the model.
    """
    found: dict[str, Path] = {}
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if location not in found:
            found[location] = _external_file(tensor.name, location, path)
    return found


def _external_file(tensor: str, location: str, path: Path) -> Path:
    file, place = path.parent / location, PurePosixPath(location)
    outside = f"{path}: the weights of {tensor!r} are in {location!r}; wanted is a file in the directory of the model"
    if not place.parts or place.is_absolute() or ".." in place.parts or "\0" in location:
        raise ModelLoadError(outside)
    if not file.is_file():
        raise ModelLoadError(
            f"{path}: the weights of {tensor!r} are in {location!r}, which is missing beside the model"
        )
    if not in_memory(file, path) and not file.resolve().is_relative_to(path.parent.resolve()):
        raise ModelLoadError(f"{outside}, and no link out of it")
    return file


def in_memory(file: Path, model: Path) -> bool:
    """Return whether a file is one in memory, of the same folder as its model; see `memory_folder`."""
    homes = [_MEMORY.match(os.readlink(path)) if path.is_symlink() else None for path in (file, model)]
    return homes[0] is not None and homes[1] is not None and homes[0][0] == homes[1][0]


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def graphs(model: ModelProto) -> Iterator[GraphProto]:
    """Yield the graph of a model and the graphs inside it."""
    yield model.graph
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield from graphs_of(attribute)


def graphs_of(attribute: AttributeProto) -> list[GraphProto]:
    """Return the graphs that an attribute of a node holds."""
    # A file may leave out the type, or give another one: what is not said to be a graph is looked at all the same.
    is_graph = attribute.type == AttributeProto.GRAPH or attribute.HasField("g")
    return [*([attribute.g] if is_graph else ()), *attribute.graphs]


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Yield the nodes of a model, of the graphs inside them and of its functions."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting += [graph.node for attribute in node.attribute for graph in graphs_of(attribute)]


def random_operators(model: ModelProto) -> tuple[str, ...]:
    """Name the operators that give something else each time."""
    known = {tensor.name: tensor for graph in graphs(model) for tensor in graph.initializer}
    for node in all_nodes(model):
        if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].name == "value":
            known[node.output[0]] = node.attribute[0].t
    return tuple(sorted({node.op_type for node in all_nodes(model) if _is_random(node, known)}))


def _is_random(node: NodeProto, known: Mapping[str, TensorProto]) -> bool:
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return node.op_type in _RANDOM
    # What the graph computes, or takes as an input, may become true.
    is_training = known.get(node.input[2])
    return is_training is None or bool(np.any(numpy_helper.to_array(is_training)))
