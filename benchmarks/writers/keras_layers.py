"""A Keras model, and what TensorFlow makes of it; channels last."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from keras import layers

from benchmarks.mobilenet import CLASSES, INPUT_SIZE, Convolution, Network


def write_keras(network: Network, folder: Path) -> None:
    """Write `model.keras`."""
    _model(network).save(folder / "model.keras")


def write_saved_model(network: Network, folder: Path) -> None:
    """Write `saved_model.pb` and its variables."""
    _model(network).export(str(folder), verbose=False)


def write_tflite(network: Network, folder: Path) -> None:
    """Write `model.tflite` in float32."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_function(network)])
    (folder / "model.tflite").write_bytes(converter.convert())


def write_frozen(network: Network, folder: Path) -> None:
    """Write `model.pb`."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    graph = convert_variables_to_constants_v2(_function(network)).graph.as_graph_def()
    (folder / "model.pb").write_bytes(graph.SerializeToString())


def _function(network: Network) -> Any:
    model = _model(network)
    spec = tf.TensorSpec([None, INPUT_SIZE, INPUT_SIZE, 3], tf.float32, "input")
    return tf.function(lambda image: model(image, training=False)).get_concrete_function(spec)


def _model(network: Network) -> Any:
    image = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="input")
    node = image
    for block in network.blocks:
        given = node
        for one in block.convolutions:
            node = _convolved(node, one)
        node = layers.Add()([given, node]) if block.residual else node
    dense = layers.Dense(CLASSES, "softmax", name="scores")
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(node)))
    dense.set_weights([network.weights, network.bias])
    return model


def _convolved(node: Any, one: Convolution) -> Any:
    padding = "same"
    if one.stride > 1:
        # SAME would pad an even size at its end only.
        node, padding = layers.ZeroPadding2D(one.padding)(node), "valid"
    if one.groups > 1:
        layer = layers.DepthwiseConv2D(one.kernel, one.stride, padding)
        filters = one.filters.transpose(2, 3, 0, 1)
    else:
        layer = layers.Conv2D(one.filters.shape[0], one.kernel, one.stride, padding)
        filters = one.filters.transpose(2, 3, 1, 0)
    node = layer(node)
    layer.set_weights([filters, one.bias])
    return layers.ReLU(6.0)(node) if one.clipped else node
