import logging
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load
from beam_serving.models.openvino_engine import compile_model, read_model

FLOAT32 = np.dtype(np.float32)
SOURCE = Path("model.xml")
ROWS = np.arange(28, dtype=np.float32).reshape(7, 4)


def compiled(model: openvino.Model, **options: object) -> LoadedModel:
    return compile_model(model, ModelOptions(**options), SOURCE)


def refusal(model: openvino.Model, **options: object) -> str:
    with pytest.raises(ModelLoadError) as refused:
        compiled(model, **options)
    return str(refused.value)


def doubling(shape: list[int], name: str = "x") -> openvino.Model:
    x = ops.parameter(shape, np.float32, name)
    x.output(0).set_names({name})
    return openvino.Model([ops.multiply(x, np.float32(2))], [x])


def mixing(batch: int) -> openvino.Model:
    """Subtracts the mean of its batch: runs with any batch and gives other results for each."""
    x = ops.parameter([batch, 4], np.float32, "x")
    mean = ops.reduce_mean(x, np.array([0]), keep_dims=True)
    return openvino.Model([ops.subtract(x, mean)], [x])


def test_read_only_input_is_read_before_its_copy_is_gone(digits: Path, golden: dict[str, np.ndarray]) -> None:
    """What comes off the wire is read-only; the engine's copy of it was freed, and another request's data read."""
    served = load(find_model(digits / "openvino"))
    wanted = served.predict({"x": golden["input_nchw"]})["output"]

    for turn in range(200):
        row = turn % 16
        array = np.frombuffer(golden["input_nchw"][row].tobytes(), np.float32).reshape(1, 3, 32, 32)
        np.testing.assert_allclose(served.predict({"x": array})["output"], wanted[row : row + 1], atol=1e-5)


def test_a_fixed_batch_is_freed(digits: Path, golden: dict[str, np.ndarray]) -> None:
    model = read_model(digits / "openvino" / "model.xml", digits / "openvino" / "model.bin")
    model.reshape([1, 3, 32, 32])

    served = compiled(model)

    for batch_size in (1, 3, 8):
        (rows,) = served.predict({"x": golden["input_nchw"][:batch_size]}).values()
        np.testing.assert_allclose(rows, golden["prob"][:batch_size], rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_model_that_depends_on_its_batch_sees_portions_of_it(batch: int, caplog: pytest.LogCaptureFixture) -> None:
    served = compiled(mixing(batch))

    (rows,) = served.predict({"input": ROWS}).values()

    filled = np.concatenate([ROWS, ROWS[-1:], ROWS[-1:]])
    portions = [part - part.mean(0) for part in (filled[at : at + batch] for at in range(0, 7, batch))]
    np.testing.assert_allclose(rows, np.concatenate(portions)[:7], rtol=1e-6)
    warned = f"model.xml: computes batches of {batch} only; larger ones are cut into portions"
    assert caplog.messages == [warned]


def test_a_model_with_its_batch_in_a_constant_sees_portions_of_it() -> None:
    x = ops.parameter([1, 4], np.float32, "x")
    flat = ops.reshape(x, np.array([1, 4]), special_zero=False)
    served = compiled(openvino.Model([ops.softmax(flat, 1)], [x]))

    (rows,) = served.predict({"input": ROWS}).values()

    np.testing.assert_allclose(rows.sum(1), np.ones(7), rtol=1e-6)


def test_a_free_batch_is_not_touched(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        served = compiled(doubling([-1, 4]))

    assert served.inputs == (TensorSpec("x", (4,), FLOAT32),)
    np.testing.assert_array_equal(served.predict({"x": ROWS})["output"], ROWS * 2)
    assert caplog.messages == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_is_told_and_does_not_spoil_the_next_batch(threads: int) -> None:
    x = ops.parameter([-1, -1], np.float32, "x")
    x.output(0).set_names({"x"})
    pairs = ops.reshape(x, np.array([-1, 4]), special_zero=False)
    served = compiled(openvino.Model([ops.multiply(pairs, np.float32(2))], [x]), threads=threads)
    np.testing.assert_array_equal(served.predict({"x": ROWS})["output"], ROWS * 2)

    for _ in range(2):
        with pytest.raises(ModelError) as failed:
            served.predict({"x": np.ones((7, 3), np.float32)})
        assert str(failed.value) == "the model failed on a batch of float32[7, 3]"
        np.testing.assert_array_equal(served.predict({"x": ROWS + 1})["output"], (ROWS + 1) * 2)


def test_inputs_that_engines_cannot_read_in_place_are_taken() -> None:
    served = compiled(doubling([-1, 4]))
    fortran = np.asfortranarray(ROWS)
    read_only = np.frombuffer(ROWS.tobytes(), np.float32).reshape(7, 4)

    for rows in (fortran, read_only, ROWS[::-1]):
        np.testing.assert_array_equal(served.predict({"x": rows})["output"], rows * 2)


def test_names_are_those_of_the_file_or_the_options() -> None:
    x, y = ops.parameter([-1, 4], np.float32, "x"), ops.parameter([-1, 4], np.float32, "y")
    y.output(0).set_names({"serving_default_y:0"})
    total, product = ops.add(x, y), ops.multiply(x, y)
    product.output(0).set_names({"product:0", "StatefulPartitionedCall/product:0"})
    model = openvino.Model([total, product], [x, y])

    served = compiled(model)

    assert [spec.name for spec in served.inputs] == ["input_0", "serving_default_y"]
    assert [spec.name for spec in served.outputs] == ["output_0", "product"]
    assert [spec.name for spec in compiled(model, input_names=("a", "b")).inputs] == ["a", "b"]
    chosen = compiled(model, output_names=("product",))
    assert list(chosen.predict({"input_0": ROWS, "serving_default_y": ROWS})) == ["product"]
    assert refusal(model, output_names=("sum",)) == "model.xml: has no output 'sum', its outputs are output_0, product"
    assert refusal(model, input_names=("a",)) == "model.xml: input_names are ['a'], the model has 2 inputs"


def test_input_shape_stands_in_for_free_sizes() -> None:
    assert compiled(doubling([-1, -1, 4]), input_shape=(3, 4)).inputs[0].shape == (3, 4)
    message = "input_shape is [3, 5], the model takes [?,?,4] (batch axis first)"
    assert refusal(doubling([-1, -1, 4]), input_shape=(3, 5)) == f"model.xml: {message}"


def test_a_model_without_a_rank_needs_input_shape() -> None:
    x = ops.parameter(openvino.PartialShape.dynamic(), np.float32, "x")
    x.output(0).set_names({"x"})
    model = openvino.Model([ops.multiply(x, np.float32(2))], [x])

    assert refusal(model.clone()) == "model.xml: input 'x' has no shape in the file; set input_shape"
    assert compiled(model, input_shape=(4,)).inputs[0].shape == (4,)


def test_a_value_without_a_batch_axis_is_refused() -> None:
    x = ops.parameter([], np.float32, "x")
    x.output(0).set_names({"x"})
    y = ops.parameter([-1, 4], np.float32, "y")

    lonely = openvino.Model([ops.multiply(x, np.float32(2))], [x])
    assert refusal(lonely) == "model.xml: input 'x' is a single value, without a batch axis"
    summed = openvino.Model([ops.reduce_sum(y, np.array([0, 1]))], [y])
    assert refusal(summed) == "model.xml: output 'output' is a single value, without a batch axis"


def test_inputs_with_different_fixed_batches_are_refused() -> None:
    x, y = ops.parameter([1, 4], np.float32, "x"), ops.parameter([2, 4], np.float32, "y")

    message = "model.xml: its inputs have different batch sizes, [1, 2]"
    assert refusal(openvino.Model([ops.add(x, y)], [x, y])) == message


def test_precisions_and_devices_that_cannot_be_had_are_refused() -> None:
    assert refusal(doubling([-1, 4]), precision="f8") == "precision is 'f8', wanted is one of f32, bf16, int8"
    message = "precision int8 compresses weights of matrix multiplications, here 0 % of all"
    assert refusal(doubling([-1, 4]), precision="int8").startswith(f"model.xml: {message}; quantise the model before, ")
    assert refusal(doubling([-1, 4]), device="tpu").startswith("model.xml: OpenVINO cannot compile it: ")


def test_bf16_is_near_f32(digits: Path, golden: dict[str, np.ndarray]) -> None:
    model = read_model(digits / "openvino" / "model.xml", digits / "openvino" / "model.bin")

    (rows,) = compiled(model, precision="bf16").predict({"x": golden["input_nchw"]}).values()

    np.testing.assert_allclose(rows, golden["prob"], atol=0.05)
