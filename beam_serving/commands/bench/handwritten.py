"""What anyone would write without this package: decode, infer, rank. It imports nothing of `beam_serving`.

The engine's settings are those of the service, so that what differs is what stands around it.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]
Row = tuple[np.ndarray, np.ndarray]
"""The classes and scores of one record, best first."""


class Steps:
    """Serves batches of payloads with the network in `model`, or with none when it is "noop"."""

    def __init__(self, model: str, threads: int, top_n: int) -> None:
        self._decode = _decode_tensor if model == "noop" else _decode_image
        self._predict = _first_value if model == "noop" else _network(model, threads)
        self._top_n = top_n

    def serve(self, payloads: Sequence[bytes]) -> list[Row]:
        """Gives the best classes of each payload."""
        scores = self._predict(np.stack([self._decode(payload) for payload in payloads]))
        return [_best(row, self._top_n) for row in scores]


def _decode_image(payload: bytes) -> np.ndarray:
    """Gives float32[3, 224, 224], red first, from -1 to 1."""
    pixels = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    pixels = cv2.cvtColor(cv2.resize(pixels, (224, 224)), cv2.COLOR_BGR2RGB)
    scaled: np.ndarray = (pixels.astype(np.float32) - 127.5) * (1 / 127.5)
    return scaled.transpose(2, 0, 1)


def _decode_tensor(payload: bytes) -> np.ndarray:
    return np.frombuffer(payload, np.float32)


def _network(model: str, threads: int) -> Predict:
    import openvino

    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 0 if threads == 1 else 1,
    }
    request = openvino.Core().compile_model(f"{model}/model.xml", "CPU", properties).create_infer_request()

    def predict(batch: np.ndarray) -> np.ndarray:
        request.infer(batch, share_inputs=True)
        scores: np.ndarray = request.get_output_tensor(0).data
        return scores

    return predict


def _first_value(batch: np.ndarray) -> np.ndarray:
    return batch[:, :1]


def _best(scores: np.ndarray, n: int) -> Row:
    best = np.argsort(-scores)[:n] if n >= scores.size else np.argpartition(-scores, n)[:n]
    best = best[np.argsort(-scores[best])]
    return best, scores[best].copy()
