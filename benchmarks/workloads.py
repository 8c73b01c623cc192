"""What is served: a real network on photographs, or nothing on small tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from beam_serving.models.formats.registry import NOOP
from beam_serving.protocol.native import encode_request
from beam_serving.records import Image
from benchmarks.mobilenet import INPUT_SIZE, mobilenet
from benchmarks.writers import write

IMAGES = 16
_SIZE, _QUALITY = (500, 375), 90
TENSOR_BYTES = 256
_RULES: Mapping[str, Any] = {"color": "rgb", "mean": 127.5, "scale": 1 / 127.5}


@dataclass(frozen=True)
class Workload:
    """One model and its requests. `payloads` are what a request carries: JPEG files, or the bytes of float32 values."""

    name: str
    title: str
    model: str
    payloads: tuple[bytes, ...]
    data: Mapping[str, Any]
    top_n: int
    batch_size: int

    @property
    def requests(self) -> Sequence[Mapping[bytes, bytes]]:
        """The fields of each distinct request as the service's clients send them, without `uri` and `id`."""
        values = [
            np.frombuffer(payload, np.float32) if self.model == NOOP else Image(payload) for payload in self.payloads
        ]
        fields = [encode_request(b"", b"", {"": value}) for value in values]
        return [{key: value for key, value in one.items() if key not in (b"uri", b"id")} for one in fields]


def real(folder: Path) -> Workload:
    """Make the network of MobileNetV2's shape on JPEGs; its files go into `folder`."""
    model = folder / "model"
    model.mkdir()
    network = mobilenet()
    write(network, "openvino", model)
    payloads = tuple(photograph(seed) for seed in range(IMAGES))
    size_kb = round(sum(map(len, payloads)) / len(payloads) / 1000)
    image = f"JPEG {_SIZE[0]}x{_SIZE[1]} of {size_kb} kB"
    title = f"network of MobileNetV2's shape ({network.parameters / 1e6:.1f} M parameters), {image}"
    return Workload("real", title, str(model), payloads, _RULES, top_n=5, batch_size=8)


def one_format(form: str, folder: Path) -> Workload:
    """Make a workload of the network in a format, which is in the folder, on JPEGs of the network's own size."""
    payloads = tuple(photograph(seed, (INPUT_SIZE, INPUT_SIZE)) for seed in range(IMAGES))
    size_kb = round(sum(map(len, payloads)) / len(payloads) / 1000)
    title = f"network of MobileNetV2's shape in each format, JPEG {INPUT_SIZE}x{INPUT_SIZE} of {size_kb} kB"
    shape = {"shape": [3, INPUT_SIZE, INPUT_SIZE]} if form == "bigdl" else {}
    return Workload(form, title, str(folder), payloads, {**_RULES, **shape}, top_n=5, batch_size=8)


def noop(tensor_bytes: int = TENSOR_BYTES) -> Workload:
    """Make the workload of a model that computes nothing, on tensors of float32: what is left is the way there."""
    values = np.random.default_rng(0).random((IMAGES, max(1, tensor_bytes // 4)), np.float32)
    payloads = tuple(row.tobytes() for row in values)
    title = f"no model, float32[{values.shape[1]}] of {len(payloads[0])} bytes"
    return Workload("noop", title, NOOP, payloads, {}, top_n=1, batch_size=64)


def photograph(seed: int, size: tuple[int, int] = _SIZE) -> bytes:
    """Make a JPEG, `size` wide and high, that costs as much to decode as a photograph: colours, edges, fine grain."""
    width, height = size
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(colours, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        colour = [int(value) for value in random.integers(0, 256, 3)]
        start, end = ([int(random.integers(width)), int(random.integers(height))] for _ in range(2))
        cv2.circle(pixels, start, int(random.integers(10, 70)), colour, -1, cv2.LINE_AA)
        cv2.line(pixels, start, end, colour, int(random.integers(1, 5)), cv2.LINE_AA)
    grain = cv2.GaussianBlur(random.normal(0, 18, pixels.shape).astype(np.float32), (0, 0), 1.0)
    grainy = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", grainy, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(encoded)
