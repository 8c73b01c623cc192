"""A record that is alone on the machine: predicted on all cores, to the same bits, and only where that is any good."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from beam_serving.errors import ModelLoadError
from beam_serving.models.alone import AloneForm
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.engines.openvino import OpenVinoModel, compile_model
from beam_serving.models.loading import load, widened_form
from beam_serving.models.shared import WorkerModel
from beam_serving.models.trial.batch_axis import BatchedModel, Plan
from beam_serving.models.trial.probing import Verdict
from beam_serving.telemetry.busy import BusyBytes, OwnByte
from beam_serving.telemetry.context import service_context

TWO_THREADS = ModelOptions(threads="auto", alone_threads=2, full_batch=4)
VERDICT = Verdict("openvino", Plan("rows"), shapes={"x": (4,)})


def scaling(factor: float, shape: tuple[int, ...] = (-1, 4)) -> OpenVinoModel:
    x = ops.parameter(list(shape), np.float32, "x")
    x.output(0).set_names({"x"})
    model = openvino.Model([ops.multiply(x, np.float32(factor))], [x])
    return compile_model(model, TWO_THREADS, Path("model.xml"))


def made(form: AloneForm | None) -> LoadedModel | None:
    """Return the form when it is compiled, which nothing is before somebody asks."""
    if form is None:
        return None
    lock = threading.Lock()
    assert form.ready(lock) is None
    form.wait()
    return form.ready(lock)


def alone_of(model: LoadedModel) -> LoadedModel | None:
    assert isinstance(model, BatchedModel)
    return made(model.alone)


def digits_on_all_cores(digits: Path, **options: object) -> BatchedModel:
    model = load(find_model(digits / "openvino"), replace(TWO_THREADS, **options))  # type: ignore[arg-type]
    assert isinstance(model, BatchedModel)
    return model


@pytest.mark.parametrize("options", [{}, {"input_names": ("pixels",)}, {"full_batch": 1}], ids=str)
def test_a_record_that_is_alone_gets_the_same_bits(
    digits: Path, golden: dict[str, np.ndarray], options: dict[str, object]
) -> None:
    model = digits_on_all_cores(digits, **options)
    alone = alone_of(model)
    assert alone is not None
    assert (alone.inputs, alone.outputs) == (model.inputs, model.outputs)
    for row in golden["input_nchw"]:
        batch = {model.inputs[0].name: row[np.newaxis]}
        for name, output in model.predict(batch).items():
            assert alone.predict(batch)[name].tobytes() == output.tobytes()


def test_nothing_is_compiled_twice_where_nobody_asks_for_it(digits: Path) -> None:
    assert alone_of(digits_on_all_cores(digits, alone_threads=0)) is None
    assert alone_of(digits_on_all_cores(digits, alone_threads=1)) is None


def test_a_model_with_many_weights_is_not_held_twice() -> None:
    def multiplying(rows: int) -> OpenVinoModel:
        x = ops.parameter([-1, rows], np.float32, "x")
        weights = ops.constant(np.ones((rows, 4096), np.float32))
        return compile_model(openvino.Model([ops.matmul(x, weights, False, False)], [x]), TWO_THREADS, Path("m.xml"))

    assert multiplying(4095).widened(2) is not None
    assert multiplying(4097).widened(2) is None


def test_a_model_of_free_sizes_has_no_such_form() -> None:
    assert scaling(2.0, (-1, -1)).widened(2) is None
    assert scaling(2.0, (-1, 4)).widened(2) is not None


@pytest.mark.parametrize(
    "verdict",
    [
        replace(VERDICT, state=("ReadValue",)),
        replace(VERDICT, random=("RandomUniform",)),
        replace(VERDICT, shapes=None),
        replace(VERDICT, plan=Plan("rows", proven=False)),
        replace(VERDICT, plan=Plan("rows", axis=1)),
        replace(VERDICT, plan=Plan("portions", size=4)),
        replace(VERDICT, plan=Plan("whole")),
    ],
)
def test_what_could_not_be_compared_has_no_such_form(verdict: Verdict) -> None:
    assert widened_form(scaling(2.0), TWO_THREADS, VERDICT) is not None
    assert widened_form(scaling(2.0), TWO_THREADS, verdict) is None


def test_an_engine_that_has_no_such_form_serves_as_ever(digits: Path) -> None:
    model = load(find_model(digits / "onnx"), replace(TWO_THREADS, engine="onnxruntime"))
    assert model.engine == "onnxruntime"
    assert alone_of(model) is None


def test_a_form_that_gives_other_bits_or_fails_does_not_serve() -> None:
    ordinary = BatchedModel(scaling(2.0), Plan("rows"))

    def form(factor: float, columns: int = 4) -> LoadedModel | None:
        batched = partial(BatchedModel, plan=Plan("rows"))
        return made(AloneForm(scaling(factor, (-1, columns)), batched, ordinary, {"x": (4,)}))

    same = form(2.0)
    assert same is not None
    assert same.predict({"x": np.ones((1, 4), np.float32)})["output"].tolist() == [[2.0] * 4]
    assert form(2.0000002) is None
    assert form(2.0, columns=5) is None


def test_the_form_is_compared_while_the_ordinary_one_serves() -> None:
    ordinary, lock = BatchedModel(scaling(2.0), Plan("rows")), threading.Lock()
    form = AloneForm(scaling(2.0), partial(BatchedModel, plan=Plan("rows")), ordinary, {"x": (4,)})
    with lock:
        assert form.ready(lock) is None, "who holds the model does not wait"
        assert form.ready(lock) is None
    form.wait()
    assert form.ready(lock) is not None


def test_a_form_is_not_compared_for_a_service_that_stops() -> None:
    ordinary = BatchedModel(scaling(2.0), Plan("rows"))
    form = AloneForm(scaling(2.0), partial(BatchedModel, plan=Plan("rows")), ordinary, {"x": (4,)})
    service_context().stop.set()
    try:
        assert made(form) is None
    finally:
        service_context().stop.clear()


def test_a_form_that_cannot_be_compiled_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_fails(self: OpenVinoModel) -> None:
        raise ModelLoadError("m.xml: OpenVINO cannot compile it: no memory")

    ordinary, engine = BatchedModel(scaling(2.0), Plan("rows")), scaling(2.0)
    monkeypatch.setattr(OpenVinoModel, "compile", compile_fails)
    form = AloneForm(engine, partial(BatchedModel, plan=Plan("rows")), ordinary, {"x": (4,)})
    assert made(form) is None


@pytest.fixture
def states() -> Iterator[BusyBytes]:
    opened = BusyBytes(2)
    yield opened
    opened.close()


def test_the_third_record_in_a_row_that_is_alone_is_predicted_on_all_cores(digits: Path, states: BusyBytes) -> None:
    model = digits_on_all_cores(digits)
    own, neighbour = (OwnByte.of(states.file_of(place)) for place in (0, 1))
    own.set(True)
    worker, before = WorkerModel(model, byte=own), service_context().stats.counts["alone"]

    def on_all_cores(times: int) -> list[bool]:
        return [worker.form_for(1) is not model for _ in range(times)]

    assert on_all_cores(3) == [False, False, False], "the third has the form made"
    assert model.alone is not None
    model.alone.wait()
    assert on_all_cores(2) == [True, True]
    assert worker.form_for(2) is model
    assert on_all_cores(3) == [False, False, True]
    neighbour.set(True)
    assert worker.form_for(1) is model
    neighbour.set(False)
    assert on_all_cores(3) == [False, False, True]
    assert service_context().stats.counts["alone"] - before == 4


def test_a_worker_that_sees_no_neighbours_predicts_as_ever(digits: Path) -> None:
    model = digits_on_all_cores(digits)
    for worker in (WorkerModel(model), WorkerModel(model, byte=OwnByte.of(None))):
        assert [worker.form_for(1) is model for _ in range(4)] == [True] * 4
