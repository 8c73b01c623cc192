"""Plans: which part of a tensor belongs to which record."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from beam_serving.errors import ModelError
from beam_serving.models.base import STRING, EngineModel, Facts, TensorSpec
from beam_serving.models.batches import predict_batch
from beam_serving.models.trial.batch_axis import Axis, BatchedModel, Plan, axis_of, check_values, record_spec, rows_of

FLOAT32 = np.dtype(np.float32)
Compute = Callable[..., Sequence[np.ndarray]]


class Engine:
    """An engine that computes with NumPy and notes the shapes that it saw."""

    engine = "numpy"
    facts = Facts()

    def __init__(self, compute: Compute, *inputs: tuple[int | None, ...] | None, outputs: int = 1) -> None:
        self.inputs = tuple(TensorSpec(f"in{place}", shape, FLOAT32) for place, shape in enumerate(inputs))
        self.outputs = tuple(TensorSpec(f"out{place}", None, FLOAT32) for place in range(outputs))
        self.seen: list[tuple[int, ...]] = []
        self._compute = compute

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        self.seen.append(arrays[0].shape)
        return list(self._compute(*arrays))

    def freed(self) -> EngineModel | None:
        return None

    def compile(self) -> None:
        return None


def spec(*shape: int | None, dtype: type = np.float32) -> TensorSpec:
    return TensorSpec("x", shape, np.dtype(dtype))


def rows(*firsts: float, width: int = 2) -> dict[str, np.ndarray]:
    return {"in0": np.array([[first] * width for first in firsts], np.float32)}


def outputs_of(model: BatchedModel, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(model.predict(batch).values())


@pytest.mark.parametrize(
    ("shapes", "wanted", "axis"),
    [
        ([(None, 3)], "auto", Axis(0)),
        ([(1, 3)], "auto", Axis(0, 1)),
        ([(None, 3), (4, 2)], "auto", Axis(0, 4)),
        ([(8, None, 3)], 1, Axis(1)),
        ([(8, 5, 3), (5, 2)], 1, Axis(None, reason="its inputs have different sizes in front, [2, 5]")),
        ([(2, 3), (4, 2)], "auto", Axis(None, reason="its inputs have different sizes in front, [2, 4]")),
        ([()], "auto", Axis(None, reason="its inputs are single values")),
        ([()], "none", Axis(None)),
        ([(None, 3), ()], "auto", Axis(0, None, mixed=True)),
        ([(1, 3), ()], "auto", Axis(0, 1, mixed=True)),
        ([(4, 3), ()], "auto", Axis(None, reason="some of its inputs are single values")),
        ([None], "auto", Axis(0)),
        ([(3, 4)], "none", Axis(None)),
    ],
)
def test_the_axis_of_the_records_is_read_from_the_inputs(
    shapes: list[tuple[int | None, ...] | None], wanted: str | int, axis: Axis
) -> None:
    assert axis_of([TensorSpec("x", shape, FLOAT32) for shape in shapes], wanted) == axis


def test_what_belongs_to_a_record_is_a_tensor_without_the_axis() -> None:
    assert record_spec(spec(None, 3, 4), 0).shape == (3, 4)
    assert record_spec(spec(7, None, 4), 1).shape == (7, 4)
    assert record_spec(spec(5), 1).shape == ()
    assert record_spec(spec(5, 6), None).shape == (5, 6)
    assert record_spec(TensorSpec("x", None, FLOAT32), 0).shape is None
    assert record_spec(spec(), 0).shape == ()


def test_outputs_with_another_number_of_rows_are_no_rows() -> None:
    assert rows_of([np.zeros((3, 2)), np.zeros((2, 3))], 0, 3) is None
    assert rows_of([np.zeros(())], 0, 1) is None
    moved = rows_of([np.arange(6).reshape(2, 3)], 1, 3)
    assert moved is not None
    assert moved[0].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_rows_are_computed_at_once() -> None:
    engine = Engine(lambda x: [x * 2], (None, 2))

    (got,) = outputs_of(BatchedModel(engine, Plan("rows")), rows(1, 2, 3))

    assert got.tolist() == [[2, 2], [4, 4], [6, 6]]
    assert engine.seen == [(3, 2)]


def test_records_lie_along_the_axis_of_the_plan() -> None:
    engine = Engine(lambda x: [x + 1], (5, None, 2))
    batch = np.arange(30, dtype=np.float32).reshape(3, 5, 2)

    (got,) = outputs_of(BatchedModel(engine, Plan("rows", 1)), {"in0": batch})

    assert engine.seen == [(5, 3, 2)]
    np.testing.assert_array_equal(got, batch + 1)


def test_rows_that_an_engine_left_out_are_an_error_and_never_cut() -> None:
    engine = Engine(lambda x: [x.reshape(-1)], (None, 2))

    with pytest.raises(ModelError, match=r"output 'out0' of the model is float32\[6\], 3 examples need 3 rows"):
        BatchedModel(engine, Plan("rows")).predict(rows(1, 2, 3))


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_larger_batches_are_cut_into_portions_and_the_last_one_is_filled(count: int, calls: int) -> None:
    engine = Engine(lambda x: [x * 2, x[:, 0]], (3, 2), outputs=2)

    doubled, first = outputs_of(BatchedModel(engine, Plan("portions", 0, 3)), rows(*range(count)))

    assert engine.seen == [(3, 2)] * calls
    assert doubled.tolist() == [[2.0 * row] * 2 for row in range(count)]
    assert first.tolist() == list(range(count))


def test_one_record_has_an_axis_in_front_which_its_outputs_may_lack() -> None:
    engine = Engine(lambda x: [x, x.ravel(), x.sum()], (1, 2), outputs=3)
    model = BatchedModel(engine, Plan("single", 0, 1, (True, False, False)))

    with_axis, without, value = outputs_of(model, rows(4))

    assert model.one_by_one
    assert (with_axis.shape, without.shape, value.shape) == ((1, 2), (1, 2), (1,))
    with pytest.raises(ModelError, match="the batch has 2 records, the model takes one at a time"):
        model.predict(rows(1, 2))


def test_an_output_that_has_not_the_row_it_announced_is_an_error() -> None:
    model = BatchedModel(Engine(lambda x: [np.repeat(x, 2, 0)], (1, 2)), Plan("single", 0, 1, (True,)))

    with pytest.raises(ModelError, match=r"output 'out0' of the model is float32\[2, 2\], 1 examples need 1 rows"):
        model.predict(rows(4))


def test_whole_tensors_go_in_and_come_out_as_they_are() -> None:
    engine = Engine(lambda x, y: [x.sum(keepdims=False), x @ y], (3, 2), (2, 4), outputs=2)
    model = BatchedModel(engine, Plan("whole"))

    total, product = outputs_of(model, {"in0": np.ones((1, 3, 2), np.float32), "in1": np.ones((1, 2, 4), np.float32)})

    assert [one.shape for one in model.inputs if one.shape] == [(3, 2), (2, 4)]
    assert model.one_by_one
    assert (total.shape, product.shape) == ((1,), (1, 3, 4))
    assert engine.seen == [(3, 2)]


def test_a_single_value_comes_without_an_axis() -> None:
    engine = Engine(lambda x, y: [x * y], (None, 2), ())
    model = BatchedModel(engine, Plan("single", 0, None, (True,)))

    (got,) = outputs_of(model, {**rows(3), "in1": np.array([2], np.float32)})

    assert got.tolist() == [[6, 6]]


def test_constants_are_no_inputs_and_reach_the_engine() -> None:
    engine = Engine(lambda x, y: [x * y], (None, 2), ())
    model = BatchedModel(engine, Plan("rows"), {"in1": np.array(5, np.float32)})

    assert [one.name for one in model.inputs] == ["in0"]
    assert outputs_of(model, rows(1, 2))[0].tolist() == [[5, 5], [10, 10]]


def test_an_unproven_model_is_compared_on_its_first_batch_alone() -> None:
    engine = Engine(lambda x: [x * 2], (None, 2))
    model = BatchedModel(engine, Plan("rows", proven=False))

    for _ in range(2):
        assert outputs_of(model, rows(1, 2))[0].tolist() == [[2, 2], [4, 4]]

    assert sorted(engine.seen[:3]) == [(1, 2), (1, 2), (2, 2)]
    assert engine.seen[3:] == [(2, 2)]
    assert not model.one_by_one


def test_rows_that_the_first_batch_shows_to_depend_on_each_other_are_served_one_by_one() -> None:
    model = BatchedModel(Engine(lambda x: [x - x.mean(0)], (None, 2)), Plan("rows", proven=False))
    examples = [{"in0": np.full(2, value, np.float32)} for value in (1, 2, 3)]

    got = predict_batch(model, examples)

    assert model.one_by_one
    assert got["out0"].tolist() == [[0, 0]] * 3


def test_outputs_without_rows_are_whole_when_the_first_batch_shows_that() -> None:
    model = BatchedModel(Engine(lambda x: [x.sum(0), x], (None, 2), outputs=2), Plan("rows", proven=False))
    examples = [{"in0": np.full(2, value, np.float32)} for value in (1, 2, 3)]

    got = predict_batch(model, examples)

    assert got["out0"].tolist() == got["out1"].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert outputs_of(model, rows(7))[0].tolist() == [[7, 7]]


def test_an_input_that_is_equal_in_all_records_proves_nothing() -> None:
    model = BatchedModel(Engine(lambda x, y: [x + y - y.mean(0)], (None, 2), (None, 2)), Plan("rows", proven=False))
    same = {"in1": rows(5, 5)["in0"]}
    assert outputs_of(model, rows(1, 2) | same)[0].tolist() == [[1, 1], [2, 2]]

    with pytest.raises(ModelError, match="cannot be served together"):
        model.predict(rows(1, 2) | {"in1": rows(5, 6)["in0"]})


def test_equal_records_prove_nothing() -> None:
    model = BatchedModel(Engine(lambda x: [x - x.mean(0)], (None, 2)), Plan("rows", proven=False))

    assert outputs_of(model, rows(4, 4))[0].tolist() == [[0, 0]] * 2
    got = predict_batch(model, [{"in0": np.full(2, value, np.float32)} for value in (1, 2, 3)])

    assert got["out0"].tolist() == [[0, 0]] * 3


def test_a_first_record_shows_that_outputs_have_no_axis_of_records() -> None:
    model = BatchedModel(Engine(lambda x: [np.sort(x.ravel()), x], (None, 2), outputs=2), Plan("rows", proven=False))

    first, second = outputs_of(model, rows(1))

    assert model.one_by_one
    assert (first.shape, second.shape) == ((1, 2), (1, 2))
    assert outputs_of(model, rows(2))[0].tolist() == [[2, 2]]


def test_unproven_portions_hold_one_record_each_and_positions_that_differ_are_an_error() -> None:
    engine = Engine(lambda x: [x * 2], (3, 2))
    model = BatchedModel(engine, Plan("portions", 0, 3, proven=False))
    assert model.one_by_one
    assert outputs_of(model, rows(7))[0].tolist() == [[14, 14]]

    placed = BatchedModel(Engine(lambda x: [x * [[1], [2], [3]]], (3, 2)), Plan("portions", 0, 3, proven=False))
    with pytest.raises(ModelError, match="3 times the same record gives 3 results: set model: batch_axis: none"):
        placed.predict(rows(7))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, r"the batch has the inputs \[\], the model takes 'in0'"),
        ({"in0": np.zeros((2, 3), np.float32)}, r"input 'in0' is float32\[3\], the model takes float32\[2\]"),
        ({"in0": np.zeros((2, 2))}, r"input 'in0' is float64\[2\], the model takes float32\[2\]"),
        ({"in0": np.array(1, np.float32)}, r"input 'in0' is float32\[\], the model takes float32\[2\]"),
        ({"in0": np.zeros((0, 2), np.float32)}, r"the inputs of a batch have \[0\] records"),
    ],
)
def test_a_batch_that_does_not_fit_never_reaches_the_engine(batch: dict[str, np.ndarray], message: str) -> None:
    engine = Engine(lambda x: [x], (None, 2))

    with pytest.raises(ModelError, match=message):
        BatchedModel(engine, Plan("rows")).predict(batch)

    assert not engine.seen


def test_inputs_of_different_numbers_of_records_are_refused() -> None:
    model = BatchedModel(Engine(lambda x, y: [x], (None, 2), (None, 2)), Plan("rows"))

    with pytest.raises(ModelError, match=r"the inputs of a batch have \[1, 2\] records"):
        model.predict({**rows(1, 2), "in1": np.zeros((1, 2), np.float32)})


def test_values_that_an_engine_computes_otherwise_are_refused_with_the_engine_that_does_not() -> None:
    bounded = TensorSpec("ids", (2,), np.dtype(np.int64), below=2**31)
    check_values(np.array([[-(2**31), 2**31 - 1]]), bounded)
    with pytest.raises(ModelError, match=r"input 'ids' has 2147483648, .*model: engine: onnxruntime takes it"):
        check_values(np.array([[0, 2**31]]), bounded, "onnxruntime")

    no_nan = TensorSpec("x", (2,), FLOAT32, nan=False)
    check_values(np.array([[3e38, 3e38]], np.float32), no_nan)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ModelError, match="input 'x' has NaN or infinity"):
            check_values(np.array([[value, 1]], np.float32), no_nan, "onnxruntime")


def test_no_nan_is_said_of_floats_alone() -> None:
    engine = Engine(lambda x, y: [x], (None, 2), (None, 2))
    engine.inputs = (engine.inputs[0], TensorSpec("text", (None,), STRING))

    model = BatchedModel(engine, Plan("rows"), nan=False)

    assert [one.nan for one in model.inputs] == [False, True]


def test_single_texts_of_an_unproven_model_are_told_apart() -> None:
    engine = Engine(lambda x: [x], (None,))
    engine.inputs = (TensorSpec("in0", (None,), STRING),)
    model = BatchedModel(engine, Plan("rows", proven=False))

    for texts in (["a", "a"], ["a", "b"], ["c"]):
        assert outputs_of(model, {"in0": np.array(texts, object)})[0].tolist() == texts
    assert not model.one_by_one
