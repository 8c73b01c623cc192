"""The usual way to run a model of each format in its own framework. It imports nothing of `beam_serving`.

Each function loads the model in a folder and gives what predicts a batch with `threads` threads.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]
"""From a batch of images to the scores of each."""


def openvino(folder: str, threads: int) -> Predict:
    """Return a compiled model with one request, the engine's settings being those of the service."""
    import openvino as ov

    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 0 if threads == 1 else 1,
    }
    request = ov.Core().compile_model(f"{folder}/model.xml", "CPU", properties).create_infer_request()

    def predict(batch: np.ndarray) -> np.ndarray:
        request.infer(batch, share_inputs=True)
        scores: np.ndarray = request.get_output_tensor(0).data
        return scores

    return predict


def onnx(folder: str, threads: int) -> Predict:
    """Return a session of onnxruntime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", settings, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"input": batch})[0]


def tensorflow_frozen(folder: str, threads: int) -> Predict:
    """Return the graph as a function of TensorFlow, from its placeholder to its last node."""
    tf = _tensorflow(threads)
    graph = tf.compat.v1.GraphDef()
    with open(f"{folder}/model.pb", "rb") as file:
        graph.ParseFromString(file.read())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    function = wrapped.prune("input:0", f"{graph.node[-1].name}:0")
    return lambda batch: function(tf.constant(batch)).numpy()


def tensorflow_saved_model(folder: str, threads: int) -> Predict:
    """Return the signature of a SavedModel."""
    tf = _tensorflow(threads)
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures["serving_default"]
    (output,) = signature.structured_outputs

    def predict(batch: np.ndarray) -> np.ndarray:
        # A signature does not keep its variables; `loaded` does.
        scores: np.ndarray = loaded.signatures["serving_default"](input=tf.constant(batch))[output].numpy()
        return scores

    return predict


def tflite(folder: str, threads: int) -> Predict:
    """Return the interpreter of TensorFlow Lite, resized to the batch."""
    tf = _tensorflow(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(f"{folder}/model.tflite", num_threads=threads)
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = 0

    def predict(batch: np.ndarray) -> np.ndarray:
        nonlocal rows
        if len(batch) != rows:
            interpreter.resize_tensor_input(given["index"], batch.shape)
            interpreter.allocate_tensors()
            rows = len(batch)
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        scores: np.ndarray = interpreter.get_tensor(wanted["index"])
        return scores

    return predict


def keras(folder: str, threads: int) -> Predict:
    """Return a Keras model's `predict_on_batch`, which is faster than its `predict`."""
    _tensorflow(threads)
    import keras as framework

    model = framework.saving.load_model(f"{folder}/model.keras", compile=False)
    return lambda batch: np.asarray(model.predict_on_batch(batch))


def torchscript(folder: str, threads: int) -> Predict:
    """Return a module of `torch.jit.load`."""
    import torch

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _torch(torch.jit.load(f"{folder}/model.pt").eval())


def torch_export(folder: str, threads: int) -> Predict:
    """Return the module of a program of `torch.export.load`."""
    import torch

    torch.set_num_threads(threads)
    return _torch(torch.export.load(f"{folder}/model.pt2").module())


def caffe(folder: str, threads: int) -> Predict:
    """Return a net of OpenCV."""
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromCaffe(f"{folder}/net.prototxt", f"{folder}/net.caffemodel")

    def predict(batch: np.ndarray) -> np.ndarray:
        net.setInput(batch)
        scores: np.ndarray = net.forward()
        return scores

    return predict


NETWORKS: dict[str, Callable[[str, int], Predict]] = {
    "openvino": openvino,
    "onnx": onnx,
    "tensorflow_frozen": tensorflow_frozen,
    "tensorflow_saved_model": tensorflow_saved_model,
    "tflite": tflite,
    "keras": keras,
    "torchscript": torchscript,
    "torch_export": torch_export,
    "caffe": caffe,
}
"""By the name of the format. BigDL's framework needs a JVM and is not here."""

CHANNELS_LAST = frozenset({"tensorflow_frozen", "tensorflow_saved_model", "tflite", "keras"})
"""The formats whose models take their channels last."""


def _tensorflow(threads: int) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def _torch(module: Any) -> Predict:
    import torch

    def predict(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = module(torch.from_numpy(batch)).numpy()
        return scores

    return predict
