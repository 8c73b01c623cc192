"""Builds the OpenVINO graph of a net, layer by layer, and makes its batch dynamic."""

from collections.abc import Mapping

import openvino as ov
import openvino.opset13 as ops

from beam_serving.models.formats.caffe.builders import BUILDERS
from beam_serving.models.formats.caffe.layer_context import Site, Tensor, shape_of
from beam_serving.models.formats.caffe.message import Message, TextError
from beam_serving.models.formats.caffe.net import Layer, LayerError, Net, check_shape
from beam_serving.models.formats.caffe.weights import Blob

_LAYER_FIELDS = (
    *("name", "type", "bottom", "top", "blobs", "include", "exclude", "phase"),
    *("param", "blobs_lr", "weight_decay", "blob_share_mode", "propagate_down", "loss_weight", "debug_info"),
    *("engine", "forward_type", "backward_type", "forward_math", "backward_math"),
)
"""What every layer may have: how it is connected, how it was trained, and how forks run it.

Anything else belongs to a builder, or is a mistake.
"""

_PROBE_BATCHES = (3, 5)


def build_graph(net: Net, weights: Mapping[str, tuple[Blob, ...]]) -> ov.Model:
    """Build the graph; inputs and outputs are named as their blobs, and the first axis of each is free.

    Raises TextError or LayerError for a net that cannot be served.
    """
    _check_types(net)
    parameters = {name: _parameter(name, dims) for name, dims in net.inputs.items()}
    blobs: dict[str, Tensor] = {name: parameter.output(0) for name, parameter in parameters.items()}
    names: dict[str, None] = {}
    for layer in net.layers:
        tops = _tops(layer, blobs, net, weights.get(layer.name, ()))
        for bottom in layer.bottoms:
            names.pop(bottom, None)
        blobs.update(zip(layer.tops, tops, strict=True))
        names.update(dict.fromkeys(layer.tops))
    outputs = {name: blobs[name] for name in names if name not in net.silenced}
    if not outputs or not outputs.keys().isdisjoint(net.inputs):
        raise TextError(f"its outputs are {list(outputs)}, wanted blobs that nobody consumes and are not inputs")
    used = {bottom for layer in net.layers for bottom in layer.bottoms}
    results = [_result(name, tensor) for name, tensor in outputs.items()]
    return _with_free_batch(ov.Model(results, [node for name, node in parameters.items() if name in used]))


def _check_types(net: Net) -> None:
    unknown = sorted({f"{layer}" for layer in net.layers if layer.type not in BUILDERS})
    if unknown:
        raise TextError(f"{len(unknown)} layers are not supported: {', '.join(unknown)}")


def _parameter(name: str, shape: tuple[int, ...]) -> ov.op.Parameter:
    parameter = ops.parameter(list(shape), ov.Type.f32, name)
    parameter.output(0).set_names({name})
    return parameter


def _tops(layer: Layer, blobs: Mapping[str, Tensor], net: Net, learned: tuple[Blob, ...]) -> list[Tensor]:
    for bottom in layer.bottoms:
        if bottom in net.dropped and bottom not in blobs:
            raise LayerError(layer, f"its bottom '{bottom}' comes from training data; an Input layer is wanted")
        if bottom not in blobs:
            raise LayerError(layer, f"its bottom '{bottom}' is the top of no layer before it")
    for top in layer.tops:
        if layer.tops.count(top) > 1 or (top in blobs and top not in layer.bottoms):
            raise LayerError(layer, f"its top '{top}' is the top of another layer too")
    bottoms = tuple(blobs[bottom] for bottom in layer.bottoms)
    try:
        tops = BUILDERS[layer.type](Site(layer.message, bottoms, learned, len(layer.tops)))
        _check_read(layer.message)
        if len(tops) != len(layer.tops):
            raise TextError(f"{len(layer.tops)} tops, wanted {len(tops)}")
        for name, top in zip(layer.tops, tops, strict=True):
            check_shape(f"its top '{name}'", shape_of(top))
    except TextError as err:
        raise LayerError(layer, str(err)) from err
    except (RuntimeError, TypeError, ValueError, OverflowError) as err:
        raise LayerError(layer, f"OpenVINO refuses it: {_last_line(err)}") from err
    given = {bottom.get_node() for bottom in bottoms}
    for node in {top.get_node() for top in tops} - given:
        node.set_friendly_name(layer.name)
    return tops


def _check_read(message: Message) -> None:
    """Refuse fields that no builder knows: a mistyped or foreign one would silently change the results."""
    message.ignore(_LAYER_FIELDS)
    unknown = message.unread()
    if unknown:
        raise TextError(f"unknown fields {', '.join(unknown)}")


def _last_line(err: Exception) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(err).__name__


def _result(name: str, tensor: Tensor) -> ov.op.Result:
    """End the graph in a blob; a tensor that has a name already (an input, another output) gets a second node."""
    if tensor.get_names():
        tensor = ops.convert(tensor, "f32").output(0)
    tensor.set_names({name})
    return ops.result(tensor, name)


def _with_free_batch(model: ov.Model) -> ov.Model:
    """Free the first axis of every input, after a trial that each output has one row for every example."""
    declared = {tensor.get_any_name(): list(tensor.get_shape()) for tensor in model.inputs}
    for batch in _PROBE_BATCHES:
        _reshape(model, declared, batch)
        for tensor in model.outputs:
            shape = list(tensor.get_shape())
            if shape[:1] != [batch]:
                raise TextError(
                    f"output '{tensor.get_any_name()}' has the shape {shape} for {batch} examples, wanted {batch} rows"
                )
    _reshape(model, declared, -1)
    return model


def _reshape(model: ov.Model, declared: Mapping[str, list[int]], batch: int) -> None:
    try:
        model.reshape({name: ov.PartialShape([batch, *dims[1:]]) for name, dims in declared.items()})
    except RuntimeError as err:
        raise TextError(f"the net cannot run with another batch size than its own: {_last_line(err)}") from err
