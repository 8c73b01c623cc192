from collections.abc import Mapping

import numpy as np
import pytest

from beam_serving.errors import ModelError
from beam_serving.models.base import TensorSpec
from beam_serving.models.batches import predict_batch, warm_up
from beam_serving.models.detect import find_model
from beam_serving.models.engines.noop import NoopModel
from beam_serving.models.loading import load

FLOAT32 = np.dtype(np.float32)


class SumModel:
    """Adds up every row of its inputs; loses `missing_rows` at the end."""

    engine = "sum"
    class_names: Mapping[str, tuple[str, ...]] = {}
    one_by_one = False
    outputs: tuple[TensorSpec, ...] = (TensorSpec("sum", (), FLOAT32),)

    def __init__(self, *inputs: TensorSpec, missing_rows: int = 0) -> None:
        self.inputs = inputs
        self._missing_rows = missing_rows

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        sums = sum(rows.reshape(len(rows), -1).sum(1) for rows in batch.values())
        return {"sum": np.asarray(sums)[: len(next(iter(batch.values()))) - self._missing_rows]}


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


ONE = SumModel(TensorSpec("x", (2,), FLOAT32))
TWO = SumModel(TensorSpec("a", (2,), FLOAT32), TensorSpec("b", (None,), FLOAT32))


def refusal(model: SumModel, *examples: Mapping[str, np.ndarray]) -> str:
    with pytest.raises(ModelError) as refused:
        predict_batch(model, examples)
    return str(refused.value)


def test_row_i_belongs_to_example_i() -> None:
    outputs = predict_batch(ONE, [{"x": floats(1, 2)}, {"x": floats(3, 4)}, {"x": floats(5, 6)}])

    assert outputs["sum"].tolist() == [3, 7, 11]


def test_an_unnamed_input_is_the_models_only_input() -> None:
    assert predict_batch(ONE, [{"": floats(1, 2)}, {"x": floats(3, 4)}])["sum"].tolist() == [3, 7]


def test_several_inputs_are_told_apart_by_name() -> None:
    outputs = predict_batch(TWO, [{"b": floats(7), "a": floats(1, 2)}, {"a": floats(3, 4), "b": floats(8)}])

    assert outputs["sum"].tolist() == [10, 15]


def test_one_example_that_cannot_be_written_to_is_taken() -> None:
    example = np.frombuffer(floats(1, 2).tobytes(), np.float32)

    assert predict_batch(ONE, [{"x": example}])["sum"].tolist() == [3]


@pytest.mark.parametrize("wrong", [{"y": floats(1, 2)}, {}, {"x": floats(1, 2), "y": floats(1)}])
def test_other_inputs_than_the_models_are_refused(wrong: Mapping[str, np.ndarray]) -> None:
    message = f"an example has the inputs {sorted(wrong)}, the model takes ['x']"
    assert refusal(ONE, {"x": floats(1, 2)}, wrong) == message


def test_an_unnamed_input_is_refused_where_there_are_several() -> None:
    assert refusal(TWO, {"": floats(1, 2)}) == "an example has the inputs [''], the model takes ['a', 'b']"


def test_another_shape_than_the_models_is_refused() -> None:
    message = "input 'x' is float32[3], the model takes float32[2]"
    assert refusal(ONE, {"x": floats(1, 2)}, {"x": floats(1, 2, 3)}) == message


def test_another_type_than_the_models_is_refused() -> None:
    assert refusal(ONE, {"x": np.array([1.0, 2.0])}) == "input 'x' is float64[2], the model takes float32[2]"


def test_different_free_sizes_in_one_batch_are_refused() -> None:
    message = refusal(TWO, {"a": floats(1, 2), "b": floats(1)}, {"a": floats(1, 2), "b": floats(1, 2)})

    assert message == "input 'b' has the shapes [1] and [2] in one batch, a batch needs one"


def test_a_lost_row_is_an_error() -> None:
    model = SumModel(*ONE.inputs, missing_rows=1)

    message = "output 'sum' of the model is float32[1], 2 examples need 2 rows"
    assert refusal(model, {"x": floats(1, 2)}, {"x": floats(3, 4)}) == message


def test_warming_up_tells_why_a_model_fails() -> None:
    assert warm_up(TWO, 3) is None
    failure = "output 'sum' of the model is float32[1], 2 examples need 2 rows"
    said = warm_up(SumModel(*ONE.inputs, missing_rows=1), 2)
    assert said == f"a trial inference with zeros (x float32[2, 2]) failed: {failure}"


def test_warming_up_takes_the_shapes_that_a_model_surely_takes() -> None:
    model = KeepingModel(*TWO.inputs)
    assert warm_up(model, 2, {"b": (5,)}) is None
    assert [batch.shape for batch in model.seen] == [(2, 2), (2, 5)]


def test_warming_up_gives_one_record_to_a_model_that_takes_no_more() -> None:
    model = KeepingModel(*ONE.inputs)
    model.one_by_one = True
    assert warm_up(model, 4) is None
    assert [len(batch) for batch in model.seen] == [1]


def test_a_model_that_takes_one_record_at_a_time_gets_them_so() -> None:
    model = KeepingModel(*ONE.inputs)
    model.one_by_one = True
    outputs = predict_batch(model, [{"x": floats(1, 2)}, {"x": floats(3, 4)}])
    assert outputs["sum"].tolist() == [3, 7]
    assert [len(batch) for batch in model.seen] == [1, 1]


def test_noop_gives_the_first_value_of_each_row() -> None:
    model = load(find_model("noop"))
    assert warm_up(model, 4) is None

    outputs = predict_batch(model, [{"": np.full((2, 3), value, np.uint8)} for value in (7, 8, 9)])

    assert outputs["output"].tolist() == [[7], [8], [9]]
    assert outputs["output"].dtype == FLOAT32


def test_noop_takes_any_number_of_inputs_and_empty_ones() -> None:
    examples = [{"a": np.zeros((0, 2), np.float32), "b": floats(1)}]

    assert predict_batch(NoopModel(), examples)["output"].tolist() == [[0]]


class KeepingModel(SumModel):
    """Keeps the batches that it is given."""

    def __init__(self, *inputs: TensorSpec) -> None:
        super().__init__(*inputs)
        self.seen: list[np.ndarray] = []

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        self.seen += batch.values()
        return super().predict(batch)


@pytest.mark.parametrize(
    ("rows", "shared"), [([0, 1, 2, 3], True), ([1, 2], True), ([0, 2], False), ([1, 0], False), ([1, 1], False)]
)
def test_rows_that_lie_one_after_the_other_are_not_copied(rows: list[int], shared: bool) -> None:
    model = KeepingModel(TensorSpec("x", (2, 3), FLOAT32))
    whole = np.arange(24, dtype=np.float32).reshape(4, 2, 3).copy()
    predict_batch(model, [{"x": whole[row]} for row in rows])
    np.testing.assert_array_equal(model.seen[0], whole[rows])
    assert np.shares_memory(model.seen[0], whole) == shared


def test_rows_of_an_array_of_another_type_are_copied() -> None:
    model = KeepingModel(TensorSpec("x", (3,), FLOAT32))
    whole = np.arange(6, dtype=np.int32).reshape(2, 3).copy()
    predict_batch(model, [{"x": row.view(np.float32)} for row in whole])
    assert model.seen[0].dtype == FLOAT32
    np.testing.assert_array_equal(model.seen[0], whole.view(np.float32))
