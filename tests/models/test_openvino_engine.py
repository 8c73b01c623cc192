import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import openvino
import pytest
from hypothesis import given
from openvino import opset13 as ops

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.engines.openvino import OpenVinoModel, compile_model, read_model
from beam_serving.models.loading import load

FLOAT32 = np.dtype(np.float32)
SOURCE = Path("model.xml")
ROWS = np.arange(28, dtype=np.float32).reshape(7, 4)


def compiled(model: openvino.Model, **options: object) -> OpenVinoModel:
    return compile_model(model, ModelOptions(**options), SOURCE)


def served(model: openvino.Model, folder: Path, **options: object) -> LoadedModel:
    """Gives the model as it is served from its file."""
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return load(find_model(folder), ModelOptions(**options))


def rows_of(model: LoadedModel, rows: np.ndarray) -> np.ndarray:
    (outputs,) = predict_batch(model, [{"": row} for row in rows]).values()
    return outputs


def refusal(model: openvino.Model, **options: object) -> str:
    with pytest.raises(ModelLoadError) as refused:
        compiled(model, **options).compile()
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


def pinned(batch: int) -> openvino.Model:
    """Has its batch in a constant, and rows that do not depend on each other."""
    x = ops.parameter([batch, 4], np.float32, "x")
    flat = ops.reshape(x, np.array([batch, 4]), special_zero=False)
    return openvino.Model([ops.softmax(flat, 1)], [x])


def test_read_only_input_is_read_before_its_copy_is_gone(digits: Path, golden: dict[str, np.ndarray]) -> None:
    """What comes off the wire is read-only; the engine's copy of it was freed, and another request's data read."""
    model = load(find_model(digits / "openvino"))
    wanted = model.predict({"x": golden["input_nchw"]})["output"]

    for turn in range(200):
        row = turn % 16
        array = np.frombuffer(golden["input_nchw"][row].tobytes(), np.float32).reshape(1, 3, 32, 32)
        np.testing.assert_allclose(model.predict({"x": array})["output"], wanted[row : row + 1], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_freed(digits: Path, golden: dict[str, np.ndarray], tmp_path: Path, batch: int) -> None:
    fixed = read_model(digits / "openvino" / "model.xml", digits / "openvino" / "model.bin")
    fixed.reshape([batch, 3, 32, 32])

    model = served(fixed, tmp_path)

    assert not model.one_by_one
    assert model.inputs == (TensorSpec("x", (3, 32, 32), FLOAT32),)
    for batch_size in (1, 3, 8):
        (rows,) = model.predict({"x": golden["input_nchw"][:batch_size]}).values()
        np.testing.assert_allclose(rows, golden["prob"][:batch_size], rtol=0, atol=1e-5)


def test_a_model_whose_rows_would_depend_on_each_other_sees_one_at_a_time(tmp_path: Path) -> None:
    model = served(mixing(1), tmp_path)

    assert model.one_by_one
    np.testing.assert_array_equal(rows_of(model, ROWS), np.zeros((7, 4)))
    with pytest.raises(ModelError, match=r"^the batch has 2 records, the model takes one at a time$"):
        model.predict({"input": ROWS[:2]})


def test_a_free_batch_whose_rows_depend_on_each_other_sees_one_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = served(mixing(-1), tmp_path)

    np.testing.assert_array_equal(rows_of(model, ROWS), np.zeros((7, 4)))
    note = "its rows depend on each other or cannot be told apart: records are served one at a time"
    assert caplog.messages == [f"{tmp_path}/model.xml: {note}"]


def test_a_fixed_batch_whose_rows_depend_on_each_other_is_one_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = served(mixing(3), tmp_path)

    assert model.inputs == (TensorSpec("input", (3, 4), FLOAT32),)
    (whole,) = rows_of(model, ROWS[np.newaxis, :3])
    np.testing.assert_allclose(whole, ROWS[:3] - ROWS[:3].mean(0), rtol=1e-6)
    note = "its 3 rows depend on each other or on their places: a request has its whole tensors"
    assert caplog.messages == [f"{tmp_path}/model.xml: {note}"]


def test_one_sample_shows_nothing_of_neighbours(tmp_path: Path) -> None:
    np.savez(tmp_path / "sample.npz", input=ROWS[1])
    (tmp_path / "model").mkdir()
    assert served(mixing(-1), tmp_path / "model", sample=str(tmp_path / "sample.npz")).one_by_one


@given(batch=st.integers(2, 9))
def test_no_fixed_batch_hides_that_rows_depend_on_each_other(batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert served(mixing(batch), Path(folder)).inputs[0].shape == (batch, 4)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_model_with_its_batch_in_a_constant_sees_portions_of_it(
    tmp_path: Path, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = served(pinned(batch), tmp_path)

    rows = rows_of(model, ROWS)

    exponentials = np.exp(ROWS - ROWS.max(1, keepdims=True))
    np.testing.assert_allclose(rows, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-5)
    note = f"{tmp_path}/model.xml: computes batches of 3 only; larger ones are cut into portions"
    assert caplog.messages == ([note] if batch == 3 else [])


def test_a_free_batch_is_not_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = served(doubling([-1, 4]), tmp_path)

    assert model.inputs == (TensorSpec("x", (4,), FLOAT32),)
    np.testing.assert_array_equal(model.predict({"x": ROWS})["output"], ROWS * 2)
    assert caplog.messages == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_is_told_and_does_not_spoil_the_next_batch(threads: int) -> None:
    x = ops.parameter([-1, -1], np.float32, "x")
    x.output(0).set_names({"x"})
    pairs = ops.reshape(x, np.array([-1, 4]), special_zero=False)
    model = compiled(openvino.Model([ops.multiply(pairs, np.float32(2))], [x]), threads=threads)
    np.testing.assert_array_equal(model.infer([ROWS])[0], ROWS * 2)

    for _ in range(2):
        with pytest.raises(ModelError) as failed:
            model.infer([np.ones((7, 3), np.float32)])
        in_openvinos_words = "Non-'-1' output dimensions do not evenly divide the input dimensions"
        assert str(failed.value) == f"the model failed on float32[7, 3]: {in_openvinos_words}"
        np.testing.assert_array_equal(model.infer([ROWS + 1])[0], (ROWS + 1) * 2)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_sizes_that_do_not_fit_the_graph_are_refused(width: int) -> None:
    """The CPU plugin multiplied them all the same, with what lay behind the request in memory."""
    x = ops.parameter([-1, -1], np.float32, "x")
    weights = ops.constant(np.ones((4, 2), np.float32))
    model = compiled(openvino.Model([ops.matmul(x, weights, False, False)], [x]))

    with pytest.raises(ModelError, match=rf"^the model failed on float32\[7, {width}\]: Incompatible MatMul "):
        model.infer([np.ones((7, width), np.float32)])
    np.testing.assert_array_equal(model.infer([np.ones((7, 4), np.float32)])[0], np.full((7, 2), 4))


def test_inputs_that_engines_cannot_read_in_place_are_taken() -> None:
    model = compiled(doubling([-1, 4]))
    fortran = np.asfortranarray(ROWS)
    read_only = np.frombuffer(ROWS.tobytes(), np.float32).reshape(7, 4)

    for rows in (fortran, read_only, ROWS[::-1]):
        np.testing.assert_array_equal(model.infer([rows])[0], rows * 2)


def test_what_is_returned_belongs_to_the_caller() -> None:
    model = compiled(doubling([-1, 4]))

    first = model.infer([ROWS])[0]
    model.infer([ROWS + 1])
    first += 1

    np.testing.assert_array_equal(first, ROWS * 2 + 1)


def summing() -> openvino.Model:
    x, y = ops.parameter([-1, 4], np.float32, "x"), ops.parameter([-1, 4], np.float32, "y")
    y.output(0).set_names({"serving_default_y:0"})
    total, product = ops.add(x, y), ops.multiply(x, y)
    product.output(0).set_names({"product:0", "StatefulPartitionedCall/product:0"})
    return openvino.Model([total, product], [x, y])


def test_names_are_those_of_the_file() -> None:
    model = compiled(summing())

    assert [spec.name for spec in model.inputs] == ["input_0", "serving_default_y"]
    assert [spec.name for spec in model.outputs] == ["output_0", "product"]
    chosen = compiled(summing(), output_names=("product",))
    assert [spec.name for spec in chosen.outputs] == ["product"]
    np.testing.assert_array_equal(chosen.infer([ROWS, ROWS])[0], ROWS * ROWS)
    message = "model.xml: has no output 'sum', its outputs are output_0, product"
    assert refusal(summing(), output_names=("sum",)) == message


def test_inputs_can_be_given_other_names(tmp_path: Path) -> None:
    model = served(summing(), tmp_path, input_names=("a", "b"))

    assert [spec.name for spec in model.inputs] == ["a", "b"]
    np.testing.assert_array_equal(model.predict({"a": ROWS, "b": ROWS})["product"], ROWS * ROWS)
    with pytest.raises(ModelLoadError, match=r"input_names are \['a'\], the model has 2 inputs$"):
        served(summing(), tmp_path, input_names=("a",))


def test_data_shape_stands_in_for_free_sizes_and_replaces_others() -> None:
    assert compiled(doubling([-1, -1, 4]), input_shape=(3, 4)).inputs[0].shape == (None, 3, 4)
    assert compiled(doubling([2, -1, 4]), input_shape=(3, 5)).inputs[0].shape == (2, 3, 5)


def test_a_data_shape_that_the_model_cannot_have_is_refused() -> None:
    x = ops.parameter([-1, 4], np.float32, "x")
    x.output(0).set_names({"x"})
    model = openvino.Model([ops.matmul(x, ops.constant(np.ones((4, 2), np.float32)), False, False)], [x])

    message = "model.xml: data: shape does not fit the model, whose inputs would be x [None, 5]: "
    assert refusal(model, input_shape=(5,)).startswith(message)
    message = "model.xml: data: shape of input 'x' is [5, 4], the model takes float32[?, 4] with its batch axis"
    assert refusal(model, input_shape=(5, 4)) == message


def test_a_model_without_a_rank_needs_data_shape(tmp_path: Path) -> None:
    x = ops.parameter(openvino.PartialShape.dynamic(), np.float32, "x")
    x.output(0).set_names({"x"})
    model = openvino.Model([ops.multiply(x, np.float32(2))], [x])

    needs = "input 'x' has no shape in the file, and OpenVINO needs its number of axes; set data: shape"
    assert refusal(model) == f"model.xml: {needs}"
    np.testing.assert_array_equal(rows_of(served(model, tmp_path, input_shape=(4,)), ROWS), ROWS * 2)


def test_a_single_value_is_served(tmp_path: Path) -> None:
    model = served(doubling([]), tmp_path)

    assert model.inputs == (TensorSpec("x", (), FLOAT32),)
    np.testing.assert_array_equal(rows_of(model, np.array([1, 2, 3], np.float32)), [2, 4, 6])


def test_an_output_without_a_batch_axis_is_that_of_one_record(tmp_path: Path) -> None:
    y = ops.parameter([-1, 4], np.float32, "y")
    y.output(0).set_names({"y"})

    model = served(openvino.Model([ops.reduce_sum(y, np.array([0, 1]))], [y]), tmp_path)

    assert model.one_by_one
    np.testing.assert_array_equal(rows_of(model, ROWS), ROWS.sum(1))


def test_inputs_with_different_fixed_batches_are_one_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x, y = ops.parameter([1, 4], np.float32, "x"), ops.parameter([2, 4], np.float32, "y")
    with caplog.at_level(logging.INFO):
        model = served(openvino.Model([ops.add(x, y)], [x, y]), tmp_path)

    (whole,) = predict_batch(model, [{"input_0": ROWS[:1], "input_1": ROWS[:2]}])["output"]

    np.testing.assert_array_equal(whole, ROWS[:1] + ROWS[:2])
    reason = "its inputs have different sizes in front, [1, 2]"
    assert caplog.messages == [f"{tmp_path}/model.xml: has no batch axis ({reason}): a request has its whole tensors"]


def test_precisions_and_devices_that_cannot_be_had_are_refused() -> None:
    assert refusal(doubling([-1, 4]), precision="f8") == "precision is 'f8', wanted is one of f32, bf16, int8"
    message = "precision int8 compresses weights of matrix multiplications, here 0 % of all"
    assert refusal(doubling([-1, 4]), precision="int8").startswith(f"model.xml: {message}; quantise the model before, ")
    assert refusal(doubling([-1, 4]), device="tpu").startswith("model.xml: OpenVINO cannot compile it: ")


def test_bf16_is_near_f32(digits: Path, golden: dict[str, np.ndarray]) -> None:
    model = load(find_model(digits / "openvino"), ModelOptions(precision="bf16"))

    (rows,) = model.predict({"x": golden["input_nchw"]}).values()

    np.testing.assert_allclose(rows, golden["prob"], atol=0.05)


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_an_output_that_is_named_twice_is_refused(digits: Path, engine: str) -> None:
    with pytest.raises(ModelLoadError, match="model: outputs names one output twice: output, output"):
        load(find_model(digits / "openvino"), ModelOptions(engine=engine, output_names=("output", "output")))


def test_openvino_tells_nobody_that_it_was_imported() -> None:
    """Its package for that connects to another host, from a thread, unless that was declined."""
    program = (
        "import sys, threading, beam_serving.models.engines.openvino\n"
        "print(sys.modules['openvino_telemetry'], threading.active_count())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "None 1\n"
