"""Weights in 8 bits, and texts, in OpenVINO."""

import itertools
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import STRING, ModelOptions, TensorSpec
from beam_serving.models.batches import predict_batch, warm_up
from beam_serving.models.detect import find_model
from beam_serving.models.engines.openvino import OpenVinoModel, compile_model
from beam_serving.models.loading import load

SOURCE = Path("model.xml")


def multiplying(sizes: list[int], transpose: bool) -> openvino.Model:
    noise = np.random.default_rng(0)
    x = ops.parameter([-1, sizes[0]], np.float32, "x")
    y = x
    for size, following in itertools.pairwise(sizes):
        shape = (following, size) if transpose else (size, following)
        weights = (noise.standard_normal(shape) / size**0.5).astype(np.float32)
        y = ops.relu(ops.matmul(y, ops.constant(weights), False, transpose))
    return openvino.Model([y], [x])


def compiled(model: openvino.Model, **options: object) -> OpenVinoModel:
    return compile_model(model, ModelOptions(**options), SOURCE)


@pytest.mark.parametrize("transpose", [False, True])
def test_matrix_multiplications_keep_their_results_within_two_percent(transpose: bool) -> None:
    rows = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    exact, small = (
        compiled(multiplying([64, 96, 48], transpose), precision=precision) for precision in ("f32", "int8")
    )

    (wanted,), (given,) = (model.infer([rows]) for model in (exact, small))

    assert 0 < np.abs(given - wanted).max() < 0.02 * np.abs(wanted).max()


def test_a_column_of_zeros_stays_zero() -> None:
    x = ops.parameter([-1, 4], np.float32, "x")
    weights = np.zeros((4, 3), np.float32)
    weights[:, 1] = 1
    model = compiled(openvino.Model([ops.matmul(x, ops.constant(weights), False, False)], [x]), precision="int8")

    (rows,) = model.infer([np.ones((2, 4), np.float32)])

    np.testing.assert_allclose(rows, [[0, 4, 0]] * 2, rtol=1e-2)


def test_the_digits_keep_their_classes(digits: Path, golden: dict[str, np.ndarray]) -> None:
    model = load(find_model(digits / "openvino"), ModelOptions(precision="int8"))

    rows = model.predict({"x": golden["input_nchw"]})["output"]

    assert rows.argmax(1).tolist() == golden["prob"].argmax(1).tolist()
    np.testing.assert_allclose(rows, golden["prob"], atol=0.05)


def test_a_model_that_is_quantised_already_runs_as_it_is() -> None:
    x = ops.parameter([-1, 4], np.float32, "x")
    low, high = np.float32(0), np.float32(1)
    model = openvino.Model([ops.fake_quantize(x, low, high, low, high, 256)], [x])

    (rows,) = compiled(model, precision="int8").infer([np.full((2, 4), 0.5, np.float32)])

    np.testing.assert_allclose(rows, 0.5, atol=1 / 255)


def test_a_model_of_convolutions_is_refused_for_it_would_gain_nothing() -> None:
    x = ops.parameter([-1, 3, 8, 8], np.float32, "x")
    weights = ops.constant(np.ones((4, 3, 3, 3), np.float32))
    model = openvino.Model([ops.convolution(x, weights, [1, 1], [0, 0], [0, 0], [1, 1])], [x])

    with pytest.raises(ModelLoadError) as refused:
        compiled(model, precision="int8")

    share = "precision int8 compresses weights of matrix multiplications, here 0 % of all"
    remedy = "quantise the model before, for example with nncf, or set precision: f32"
    assert str(refused.value) == f"model.xml: {share}; {remedy}"


def test_texts_pass_through_openvino(tmp_path: Path) -> None:
    x = ops.parameter(openvino.PartialShape([-1, 2]), openvino.Type.string, name="x")
    x.output(0).set_names({"x"})
    openvino.save_model(openvino.Model([ops.result(x)], [x]), tmp_path / "model.xml")
    model = load(find_model(tmp_path))
    assert warm_up(model, 3) is None

    assert model.inputs == (TensorSpec("x", (2,), STRING),)
    (rows,) = predict_batch(model, [{"x": np.array(["a", "é"], STRING)}, {"x": np.array(["", "ccc"], STRING)}]).values()
    assert rows.tolist() == [["a", "é"], ["", "ccc"]]
