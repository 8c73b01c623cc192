"""Writes Caffe models for the tests, and runs them with our reader and with OpenCV's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import openvino as ov

from beam_serving.models.formats.caffe import read_caffe

TOLERANCE = 1e-5
_CORE = ov.Core()


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def encode_blob(array: np.ndarray, form: str = "packed") -> bytes:
    """A BlobProto; `form` is packed, unpacked, double, raw, half or legacy (a 4-D shape of 2014)."""
    values = np.ascontiguousarray(array, "<f4")
    shape = field(7, field(1, b"".join(varint(dim) for dim in array.shape)))
    if form == "unpacked":
        return shape + b"".join(varint(5 << 3 | 5) + value.tobytes() for value in values.ravel())
    if form == "double":
        return shape + field(8, values.astype("<f8").tobytes())
    if form == "raw":
        return shape + field(10, 1) + field(12, values.tobytes())
    if form == "half":
        return shape + field(10, 2) + field(12, values.astype("<f2").tobytes())
    if form == "legacy":
        dims = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(field(number, dim) for number, dim in enumerate(dims, 1))
    return shape + field(5, values.tobytes())


def encode_caffemodel(weights: Mapping[str, Sequence[np.ndarray]], form: str = "packed", old: bool = False) -> bytes:
    """A NetParameter with a layer for each name; `old` writes V1 layers."""
    name_field, blobs_field, layer_field = (4, 6, 2) if old else (1, 7, 100)
    layers = []
    for name, blobs in weights.items():
        encoded = field(name_field, name.encode())
        encoded += b"".join(field(blobs_field, encode_blob(blob, form)) for blob in blobs)
        layers.append(field(layer_field, encoded))
    return field(1, b"generated") + b"".join(layers)


def write_model(directory: Path, prototxt: str, caffemodel: bytes) -> tuple[Path, Path]:
    paths = directory / "net.prototxt", directory / "net.caffemodel"
    paths[0].write_text(prototxt)
    paths[1].write_bytes(caffemodel)
    return paths


def compiled(model: ov.Model) -> ov.CompiledModel:
    return _CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})


def run_ours(paths: tuple[Path, Path], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = read_caffe(*paths)
    results = compiled(model)(dict(inputs))
    return {output.get_any_name(): np.array(results[index]) for index, output in enumerate(model.outputs)}


def run_opencv(paths: tuple[Path, Path], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    net = cv2.dnn.readNetFromCaffe(str(paths[0]), str(paths[1]))
    net.enableFusion(False)
    for name, array in inputs.items():
        net.setInput(array, name)
    names = net.getUnconnectedOutLayersNames()
    return dict(zip(names, (np.array(output) for output in net.forward(names)), strict=True))


def input_text(name: str, shape: Sequence[int]) -> str:
    dims = " ".join(f"dim: {dim}" for dim in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def layer_text(name: str, kind: str, bottoms: str, tops: str = "", more: str = "") -> str:
    edges = "".join(f'bottom: "{bottom}" ' for bottom in bottoms.split())
    edges += "".join(f'top: "{top}" ' for top in (tops or name).split())
    return f'layer {{ name: "{name}" type: "{kind}" {edges}{more} }}\n'


def random(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


class NetWriter:
    """Writes a net layer by layer, with random weights, keeping track of how many channels a blob has."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.text = input_text("data", shape)
        self.weights: dict[str, list[np.ndarray]] = {}
        self._channels = {"data": shape[1]}

    def add(self, name: str, kind: str, bottoms: str, more: str = "", top: str = "") -> str:
        self.text += layer_text(name, kind, bottoms, top, more)
        self._channels[top or name] = self._channels[bottoms.split()[0]]
        return top or name

    def conv(self, name: str, bottom: str, outputs: int, kernel: int, more: str = "", group: int = 1) -> str:
        channels = self._channels[bottom]
        param = f"num_output: {outputs} kernel_size: {kernel} group: {group} {more}"
        self.add(name, "Convolution", bottom, f"convolution_param {{ {param} }}")
        fan = channels // group * kernel * kernel
        weights = random(outputs, channels // group, kernel, kernel, seed=len(self.weights)) * np.float32(fan**-0.5)
        self.weights[name] = [weights]
        if "bias_term: false" not in more:
            self.weights[name].append(random(outputs, seed=1) * np.float32(0.1))
        self._channels[name] = outputs
        return name

    def batch_norm(self, bottom: str) -> str:
        """BatchNorm and Scale in place."""
        channels = self._channels[bottom]
        self.add(f"bn_{bottom}", "BatchNorm", bottom, "", bottom)
        total = np.array([0.5], np.float32)
        self.weights[f"bn_{bottom}"] = [random(channels) * total, random(channels, low=0.5, high=2.0) * total, total]
        self.add(f"scale_{bottom}", "Scale", bottom, "scale_param { bias_term: true }", bottom)
        self.weights[f"scale_{bottom}"] = [random(channels, low=0.5, high=1.5), random(channels, seed=2)]
        return bottom

    def relu(self, bottom: str) -> str:
        return self.add(f"relu_{bottom}", "ReLU", bottom, "", bottom)

    def concat(self, name: str, bottoms: str) -> str:
        total = sum(self._channels[bottom] for bottom in bottoms.split())
        self.add(name, "Concat", bottoms)
        self._channels[name] = total
        return name

    def linear(self, name: str, bottom: str, inputs: int, outputs: int) -> str:
        self.add(name, "InnerProduct", bottom, f"inner_product_param {{ num_output: {outputs} }}")
        self.weights[name] = [random(outputs, inputs) * np.float32(inputs**-0.5), random(outputs, seed=3)]
        self._channels[name] = outputs
        return name

    def write(self, directory: Path) -> tuple[Path, Path]:
        return write_model(directory, self.text, encode_caffemodel(self.weights))
