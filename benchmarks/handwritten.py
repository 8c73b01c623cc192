"""What anyone would write without this package: decode, infer, rank. It and `frameworks` import nothing else of it.

The engine's settings are those of the service, so that what differs is what stands around it.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from benchmarks import frameworks

Row = tuple[np.ndarray, np.ndarray]
"""The classes and scores of one record, best first."""


class Steps:
    """Serves batches of payloads with the network in `model`, of the format `form`; or with none when it is "noop"."""

    def __init__(self, model: str, threads: int, top_n: int, form: str = "openvino") -> None:
        decode_image = _decode_image if form in frameworks.CHANNELS_LAST else _decode_channels_first
        self._decode = _decode_tensor if model == "noop" else decode_image
        network = frameworks.NETWORKS[form]
        self._predict: frameworks.Predict = _first_value if model == "noop" else network(model, threads)
        self._top_n = top_n

    def serve(self, payloads: Sequence[bytes]) -> list[Row]:
        """Return the best classes of each payload."""
        scores = self._predict(np.stack([self._decode(payload) for payload in payloads]))
        return [_best(row, self._top_n) for row in scores]


def _decode_channels_first(payload: bytes) -> np.ndarray:
    return _decode_image(payload).transpose(2, 0, 1)


def _decode_image(payload: bytes) -> np.ndarray:
    """Return float32[224, 224, 3], red first, from -1 to 1."""
    pixels = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    pixels = cv2.cvtColor(cv2.resize(pixels, (224, 224)), cv2.COLOR_BGR2RGB)
    scaled: np.ndarray = (pixels.astype(np.float32) - 127.5) * (1 / 127.5)
    return scaled


def _decode_tensor(payload: bytes) -> np.ndarray:
    return np.frombuffer(payload, np.float32)


def _first_value(batch: np.ndarray) -> np.ndarray:
    return batch[:, :1]


def _best(scores: np.ndarray, n: int) -> Row:
    best = np.argsort(-scores)[:n] if n >= scores.size else np.argpartition(-scores, n)[:n]
    best = best[np.argsort(-scores[best])]
    return best, scores[best].copy()
