"""Keras-style layers of BigDL and Analytics Zoo: each keeps the plain modules that do its work as its submodules.

Source: BigDL 0.13's `KerasLayerSerializer`; the wrapper itself computes nothing in evaluation mode.
"""

from beam_serving.models.formats.bigdl.containers import sequential
from beam_serving.models.formats.bigdl.layer import Activity, Layer, Node, UnsupportedLayerError, reshape

_WITHOUT_WORK = ("Input", "InputLayer", "Identity", "KerasIdentityWrapper")


def keras_layer(layer: Layer, x: Activity) -> Activity:
    if layer.module.submodules:
        return sequential(layer, x)
    if layer.module.kind in _WITHOUT_WORK:
        return x
    raise UnsupportedLayerError(f"layer {layer.module}: it was never built, so it holds no modules; save it after use")


def keras_reshape(layer: Layer, x: Node) -> Node:
    """View each example as `targetShape`; the module inside has no batch and would fit one batch size only."""
    target = layer.integers("targetShape")
    if target.count(-1) == 0:
        return reshape(x, [None, *target])
    return sequential(layer, x)
