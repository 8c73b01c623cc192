"""What a SavedModel says of itself, read before TensorFlow loads it: loading runs some of its functions.

Those fill tables and set variables up; they are looked at first, so that none of them touches anything but the model.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2, saved_object_graph_pb2

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.tensorflow_operators import Reached, node_of, reached, reason_to_refuse
from beam_serving.models.memory_folder import memory_folder

SIGNATURE = "serving_default"
_SERVE = "serve"
_RUN_AT_LOAD = ("_create_resource", "_initialize", "_destroy_resource")
_OLD_ASSETS = "saved_model_assets"
_INIT_OPS = ("saved_model_main_op", "legacy_init_op")


def load_checked(path: Path) -> Any:
    """Load a SavedModel after a look at what TensorFlow runs while it loads it.

    Raises:
        ModelLoadError: the file is damaged, or loading it would do more than set up the model.
        Exception: what TensorFlow raises where it cannot load it.
    """
    model, tags = _checked(path)
    slots = [one for meta in model.meta_graphs for one in meta.object_graph_def.nodes if one.slot_variables]
    if not slots or sys.platform != "linux":
        return tf.saved_model.load(str(path), tags)
    # What an optimizer keeps of each weight is of no use here, and TensorFlow cannot load it without Keras 2.
    for one in slots:
        one.ClearField("slot_variables")
    with memory_folder() as folder:
        with folder.create(Path("saved_model.pb")) as file:
            file.write(model.SerializeToString())
        for part in path.iterdir():
            if part.name != "saved_model.pb":
                (folder.path / part.name).symlink_to(part.absolute())
        return tf.saved_model.load(str(folder.path), tags)


def _checked(path: Path) -> tuple[saved_model_pb2.SavedModel, list[str] | None]:
    """Return the description of a SavedModel and the tags to load it with, None where there is only one choice."""
    if (path / "saved_model.cpb").exists():
        raise ModelLoadError(f"{path}: is split into parts (saved_model.cpb); wanted is a single saved_model.pb")
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as err:
        raise ModelLoadError(f"{path}: TensorFlow cannot load it: saved_model.pb is damaged ({err})") from err
    meta, tags = _meta_graph(model, path)
    for asset in _assets(meta):
        name = PurePosixPath(asset.filename)
        if name.is_absolute() or ".." in name.parts:
            raise ModelLoadError(f"{path}: its asset {asset.filename!r} lies outside of its directory")
    is_new = bool(meta.object_graph_def.nodes)
    reason = _reason_of_objects(meta) if is_new else _reason_of_graph(meta)
    if reason:
        raise ModelLoadError(f"{path}: {reason}")
    return model, tags


def _assets(meta: meta_graph_pb2.MetaGraphDef) -> list[meta_graph_pb2.AssetFileDef]:
    """Return the files that the model brings along; TensorFlow 1 has them in a collection."""
    if meta.asset_file_def or _OLD_ASSETS not in meta.collection_def:
        return list(meta.asset_file_def)
    packed = meta.collection_def[_OLD_ASSETS].any_list.value
    return [meta_graph_pb2.AssetFileDef.FromString(one.value) for one in packed]


def _meta_graph(model: saved_model_pb2.SavedModel, path: Path) -> tuple[meta_graph_pb2.MetaGraphDef, list[str] | None]:
    if len(model.meta_graphs) == 1:
        return model.meta_graphs[0], None
    for meta in model.meta_graphs:
        if set(meta.meta_info_def.tags) == {_SERVE}:
            return meta, [_SERVE]
    tags = [sorted(meta.meta_info_def.tags) for meta in model.meta_graphs]
    raise ModelLoadError(f"{path}: the tags of its graphs are {tags}, wanted is one graph, or one with the tag 'serve'")


def _reason_of_objects(meta: meta_graph_pb2.MetaGraphDef) -> str | None:
    """Look at the functions of objects that are run at load: those of tables, and of what restores itself."""
    objects, functions = meta.object_graph_def.nodes, meta.object_graph_def.concrete_functions
    run: list[str] = []
    for one in objects:
        children = {child.local_name: child.node_id for child in one.children}
        ids = [children[name] for name in _RUN_AT_LOAD if name in children]
        ids += [saveable.restore_function for saveable in one.saveable_objects.values()]
        run += [name for node in ids for name in _function_names(objects, node)]
    signatures = {function.signature.name: function.signature for function in meta.graph_def.library.function}
    assets = set()
    for name in run:
        bound = list(functions[name].bound_inputs) if name in functions else []
        arguments = [argument.name for argument in signatures[name].input_arg] if name in signatures else []
        for argument, node in zip(arguments[len(arguments) - len(bound) :], bound, strict=False):
            if objects[node].WhichOneof("kind") == "asset":
                assets.add((name, argument))
    return reason_to_refuse(reached(meta.graph_def, functions=run), assets)


def _function_names(objects: Sequence[saved_object_graph_pb2.SavedObject], node: int) -> Iterator[str]:
    one = objects[node] if 0 <= node < len(objects) else None
    if one is None:
        return
    if one.WhichOneof("kind") == "function":
        yield from one.function.concrete_functions
    elif one.WhichOneof("kind") == "bare_concrete_function":
        yield one.bare_concrete_function.concrete_function_name


def _reason_of_graph(meta: meta_graph_pb2.MetaGraphDef) -> str | None:
    """Look at what is run at load of a graph of TensorFlow 1: restoring, initial values and what fills tables."""
    roots = {node_of(meta.saver_def.restore_op_name)}
    if "__saved_model_init_op" in meta.signature_def:
        roots |= {node_of(one.name) for one in meta.signature_def["__saved_model_init_op"].outputs.values()}
    for key, collection in meta.collection_def.items():
        if key in _INIT_OPS:
            roots |= {node_of(name) for name in collection.node_list.value}
        roots |= {name for one in collection.bytes_list.value for name in _variable_nodes(one)}
    assets = {("", node_of(asset.tensor_info.name)) for asset in _assets(meta)}
    found: list[Reached] = reached(meta.graph_def, roots)
    return reason_to_refuse(found, assets, node_of(meta.saver_def.filename_tensor_name) or None)


def _variable_nodes(encoded: bytes) -> Iterator[str]:
    variable = variable_pb2.VariableDef()
    try:
        variable.ParseFromString(encoded)
    except DecodeError:
        return
    yield from map(node_of, (variable.initializer_name, variable.initial_value_name, variable.snapshot_name))


def signature_of(
    signatures: Mapping[str, tf.types.experimental.ConcreteFunction], path: Path
) -> tf.types.experimental.ConcreteFunction:
    """Choose the signature `serving_default`, or the only one.

    Raises:
        ModelLoadError: there is neither.
    """
    if len(signatures) != 1 and SIGNATURE not in signatures:
        raise ModelLoadError(f"{path}: its signatures are {sorted(signatures)}, wanted is one or {SIGNATURE!r}")
    return signatures.get(SIGNATURE) or next(iter(signatures.values()))


def tensors_of(named: object, what: str, path: Path) -> dict[str, tf.TensorSpec | tf.Tensor]:
    """Return the inputs or outputs of a signature by name, in the order of their names: the file has no other.

    Raises:
        ModelLoadError: one is no plain tensor.
    """
    tensors = named if isinstance(named, Mapping) else {}
    for name, one in tensors.items():
        if not isinstance(one, tf.TensorSpec | tf.Tensor):
            kind = type(one).__name__.removesuffix("Spec")
            raise ModelLoadError(f"{path}: {what} {name!r} is a {kind}, wanted are plain tensors; export it with those")
    if not tensors:
        raise ModelLoadError(f"{path}: its signature has no {what}s")
    return {name: tensors[name] for name in sorted(tensors, key=_in_order)}


def _in_order(name: str) -> list[tuple[bool, int, str]]:
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
