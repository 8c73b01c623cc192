"""Every layer, and deep combinations, give what the real BigDL library gives.

The files under `golden` were written by BigDL 0.13 itself (see `generator`): a saved model, random inputs and the
library's output in evaluation mode.
"""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from beam_serving.models.formats.bigdl import read_bigdl

GOLDEN = Path(__file__).parent / "golden"
FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-5
INT8_CHAIN_TOLERANCE = 5e-2
"""Behind another layer an int8 layer may round a value to the neighbouring level, of 127, that differs by 1e-7."""

INT8_CHAINS = ("int8_graph", "int8_lenet")
CASES = sorted(path.stem for path in GOLDEN.glob("*.model"))


def run(model: ov.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(model, "CPU", options)
    results = compiled(inputs)
    return [np.array(results[index]) for index in range(len(compiled.outputs))]


def arrays(golden: dict[str, np.ndarray], kind: str) -> list[np.ndarray]:
    return [golden[f"{kind}{index}"] for index in range(len(golden)) if f"{kind}{index}" in golden]


def read(case: str, inputs: list[np.ndarray]) -> ov.Model:
    weights = GOLDEN / f"{case}.bin"
    shapes = tuple(array.shape[1:] for array in inputs)
    # Keras-style models say their input themselves.
    given = None if case.startswith(("keras", "deep_keras")) else shapes
    return read_bigdl(GOLDEN / f"{case}.model", weights if weights.exists() else None, given)


@pytest.mark.parametrize("case", CASES)
def test_a_model_gives_what_the_library_gives(case: str) -> None:
    with np.load(GOLDEN / f"{case}.npz") as file:
        golden = dict(file)
    inputs = arrays(golden, "input")
    results = run(read(case, inputs), inputs)
    expected = arrays(golden, "output")
    assert [result.shape for result in results] == [wanted.shape for wanted in expected]
    tolerance = INT8_CHAIN_TOLERANCE if case in INT8_CHAINS else TOLERANCE
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, wanted, atol=tolerance, rtol=tolerance)


NETWORKS = [case for case in CASES if case.startswith(("net_", "deep_", "keras_", "rnn_", "int8_"))]


@pytest.mark.parametrize("case", NETWORKS)
def test_one_example_alone_gives_its_row_of_the_batch(case: str) -> None:
    with np.load(GOLDEN / f"{case}.npz") as file:
        golden = dict(file)
    inputs = arrays(golden, "input")
    results = run(read(case, inputs), [array[:1] for array in inputs])
    tolerance = INT8_CHAIN_TOLERANCE if case in INT8_CHAINS else TOLERANCE
    for result, wanted in zip(results, arrays(golden, "output"), strict=True):
        np.testing.assert_allclose(result, wanted[:1], atol=tolerance, rtol=tolerance)


def test_all_kinds_of_golden_files_are_there() -> None:
    kinds = {case.partition("_")[0] for case in CASES}
    layers = {"act", "math", "table", "shape", "conv", "pool", "norm", "rnn", "int8", "keras", "block"}
    assert kinds == layers | {"net", "deep"}
    assert len(CASES) > 450


@pytest.mark.parametrize(("model", "weights"), [("lenet5", None), ("split_lenet5", "split_lenet5.bin")])
def test_lenet5_of_the_library(model: str, weights: str | None) -> None:
    directory = FIXTURES / "lenet5"
    with np.load(directory / "golden.npz") as golden:
        data, expected = golden["input"], golden["output"]
    path = directory / weights if weights else None
    (result,) = run(read_bigdl(directory / f"{model}.model", path, data.shape[1:]), [data])
    np.testing.assert_allclose(result, expected, atol=TOLERANCE)


@pytest.mark.parametrize(("directory", "weights"), [("digits", None), ("digits_split", "model.bin")])
def test_a_trained_classifier_recognises_digits(directory: str, weights: str | None) -> None:
    with np.load(FIXTURES / "digits_golden.npz") as golden:
        data, expected, labels = golden["input_nchw"], golden["prob"], golden["label"]
    path = FIXTURES / directory / weights if weights else None
    (result,) = run(read_bigdl(FIXTURES / directory / "model.model", path, (3, 32, 32)), [data])
    np.testing.assert_allclose(result, expected, atol=TOLERANCE)
    assert (result.argmax(1) == labels).mean() > 0.9
