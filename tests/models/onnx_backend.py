"""The backend tests of ONNX through this project's loading: `python -m tests.models.onnx_backend ENGINE [COUNT]`.

Each is served in two ways: with `batch_axis: none`, whole tensors in and out, and as the model is served by default,
where its tensors may be records stacked along axis 0. Prints a line of JSON per test and way. What comes out is

right      what the test expects
framework  something else, which onnxruntime itself gives, too
random     of the expected type and shape, from a model with random operators
refused    an error with a reason, at loading or for the request
missed     refused, with whole tensors, though onnxruntime itself gives what the test expects
wrong, crashed, hung
"""

import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

WAYS = ("none", "auto")
_KINDS = ("simple", "pytorch-converted", "pytorch-operator")
_TEST_S = 60
_COARSE = 2.0**-6
"""Two steps of bfloat16, which is what the runner of ONNX allows, too."""
_MEMORY_BYTES = 4 << 30
"""Of a worker: some models make a tensor as large as a number that they take."""
_SEEDED_BY_RUN = ("bernoulli", "random", "training_dropout", "multinomial")


class Case(NamedTuple):
    """One test: a model, or the directory of one, and sets of inputs and expected outputs in the model's order."""

    name: str
    model: onnx.ModelProto
    sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


class Outcome(NamedTuple):
    """How one test went in one way; `plan` tells what a request held: rows, one record, or whole tensors."""

    name: str
    way: str
    outcome: str
    engine: str = ""
    plan: str = ""
    why: str = ""


def cases() -> list[Case]:
    """Give the tests that come with the onnx package, but those that want files from elsewhere."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            Case(f"node/{case.name}", case.model, [(list(i), list(o)) for i, o in case.data_sets], case.rtol, case.atol)
            for case in collect_testcases(None)
        ]
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for kind in _KINDS:
        found += [_stored(kind, folder) for folder in sorted((data / kind).iterdir()) if folder.is_dir()]
    return found


def _stored(kind: str, folder: Path) -> Case:
    model = onnx.load(folder / "model.onnx")
    given = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in given]
    sets = [
        ([*_values(place, "input", values)], [*_values(place, "output", model.graph.output)])
        for place in sorted(folder.glob("test_data_set_*"))
    ]
    return Case(f"{kind}/{folder.name}", model, sets, 1e-3, 1e-5)


def _values(folder: Path, what: str, infos: Sequence[Any]) -> Iterator[Any]:
    for index, info in enumerate(infos):
        content = (folder / f"{what}_{index}.pb").read_bytes()
        yield onnx.TensorProto.FromString(content) if info.type.HasField("tensor_type") else content


def plain(value: Any) -> np.ndarray | None:
    """Give a tensor in the types that this project serves; None where it is none."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if not isinstance(value, np.ndarray | np.generic):
        return None
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        return array.astype(str).astype(object)
    name = array.dtype.name
    if name.startswith(("bfloat", "float8", "float6_", "float4")):
        return array.astype(np.float32)
    if name in ("int4", "int2", "uint4", "uint2"):
        return array.astype(np.int8 if name[0] == "i" else np.uint8)
    return array


def judge(case: Case, engine: str, way: str, directory: Path) -> Outcome:
    """Serve a test in one way."""
    from beam_serving.errors import ConfigError, ModelError
    from beam_serving.models.base import ModelOptions
    from beam_serving.models.detect import find_model
    from beam_serving.models.loading import load

    (directory / "model.onnx").write_bytes(case.model.SerializeToString())
    options = ModelOptions(engine=engine, batch_axis=way, output_names=_tensor_outputs(case.model))
    served, plan = "", ""
    try:
        model = load(find_model(directory), options)
        served, plan = model.engine, _plan(model)
        for inputs, outputs in case.sets:
            given = [plain(value) for value in inputs]
            if any(value is None for value in given):
                raise ModelError("its inputs are no tensors")
            names = _input_names(case.model)
            got, wanted = _predicted(model, dict(zip(names, given, strict=False)), plan), outputs
            if got is None:
                return Outcome(case.name, way, "refused", served, plan, "its records cannot be told from the test")
            expected = dict(zip((value.name for value in case.model.graph.output), map(plain, wanted), strict=True))
            expected = {name: value for name, value in expected.items() if name in got and value is not None}
            reason = _difference(got, expected, case, outputs)
            if reason:
                return _not_expected(case, way, served, plan, reason, got, expected, given)
    except (ConfigError, ModelError) as err:
        # The paths of this run say nothing.
        why = str(err).replace(f"{directory}/", "")
        return Outcome(
            case.name, way, "missed" if way == "none" and _own_is_right(case) else "refused", served, plan, why
        )
    return Outcome(case.name, way, "right", served, plan)


def _plan(model: Any) -> str:
    from beam_serving.models.trial.batch_axis import BatchedModel

    assert isinstance(model, BatchedModel)
    return model._plan.kind


def _input_names(model: onnx.ModelProto) -> list[str]:
    given = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in given]


def _tensor_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the outputs that are tensors where some are not; as an operator would who was told to."""
    names = [value.name for value in model.graph.output if value.type.HasField("tensor_type")]
    return tuple(names) if names and len(names) < len(model.graph.output) else ()


def _predicted(model: Any, given: Mapping[str, np.ndarray], plan: str) -> dict[str, np.ndarray] | None:
    """Give the outputs for the whole tensors of a test; None where its records are not those of the model."""
    from beam_serving.models.batches import predict_batch

    if plan == "whole":
        return {name: rows[0, ...] for name, rows in predict_batch(model, [given]).items()}
    with_axis = [array for array in given.values() if array.ndim]
    counts = {len(array) for array in with_axis}
    if len(counts) != 1 or (plan == "single" and counts != {1}) or counts == {0}:
        return None
    (count,) = counts
    shapes = {spec.name: spec.shape for spec in model.inputs}
    records = [
        {name: array[row] if array.ndim and shapes[name] != array.shape else array for name, array in given.items()}
        for row in range(count)
    ]
    records = [{name: np.asarray(value, given[name].dtype) for name, value in record.items()} for record in records]
    rows = predict_batch(model, records)
    if plan != "single":
        return dict(rows)
    # An output that has no axis of one record is whole.
    return {
        name: column if drops else column[0, ...]
        for (name, column), drops in zip(rows.items(), model._drops, strict=True)
    }


def _difference(
    got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], case: Case, originals: Sequence[Any]
) -> str:
    names = [value.name for value in case.model.graph.output]
    for name, wanted in expected.items():
        original = originals[names.index(name)]
        kind = numpy_helper.to_array(original).dtype if isinstance(original, onnx.TensorProto) else original.dtype
        if reason := _unequal(got[name], wanted, case, kind.name == "bfloat16"):
            return f"{name}: {reason}"
    return ""


def _unequal(got: np.ndarray, wanted: np.ndarray, case: Case, is_coarse: bool = False) -> str:
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return f"{got.dtype}{list(got.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
    if got.dtype.kind not in "fc":
        is_equal = np.array_equal(got, wanted)
    else:
        wide = np.complex128 if got.dtype.kind == "c" else np.float64
        finite = np.abs(wanted[np.isfinite(wanted)].astype(wide))
        # A rounding error of float32 grows with the largest number that took part.
        atol = max(case.atol, 1e-5 * float(finite.max(initial=0.0)) * (64 if got.itemsize == 2 else 1))
        rtol = max(case.rtol, _COARSE if is_coarse else 1e-3)
        is_equal = np.allclose(got.astype(wide), wanted.astype(wide), rtol=rtol, atol=atol, equal_nan=True)
    return "" if is_equal else f"{got.reshape(-1)[:6].tolist()} instead of {wanted.reshape(-1)[:6].tolist()}"


def _not_expected(
    case: Case,
    way: str,
    served: str,
    plan: str,
    reason: str,
    got: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    given: Sequence[np.ndarray],
) -> Outcome:
    if any(word in case.name for word in _SEEDED_BY_RUN) and all(
        got[name].shape == value.shape and got[name].dtype == value.dtype for name, value in expected.items()
    ):
        return Outcome(case.name, way, "random", served, plan)
    own = _own_outputs(case, given)
    same = own is not None and all(
        isinstance(own[name], np.ndarray) and not _unequal(got[name], plain(own[name]), case) for name in expected
    )
    return Outcome(case.name, way, "framework" if same else "wrong", served, plan, reason)


def _own_outputs(case: Case, given: Sequence[np.ndarray]) -> dict[str, Any] | None:
    """Give what onnxruntime gives by itself, None where it cannot, or not in types that NumPy has."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), settings)
        outputs = session.run(None, dict(zip(_input_names(case.model), given, strict=False)))
    except Exception:  # noqa: BLE001 - whatever it says, it did not answer
        return None
    return dict(zip((value.name for value in session.get_outputs()), outputs, strict=True))


def _own_is_right(case: Case) -> bool:
    for inputs, outputs in case.sets:
        given = [plain(value) for value in inputs]
        own = None if any(value is None for value in given) else _own_outputs(case, given)
        if own is None:
            return False
        for value, wanted in zip(case.model.graph.output, map(plain, outputs), strict=True):
            if wanted is None or not isinstance(own[value.name], np.ndarray) or _unequal(own[value.name], wanted, case):
                return False
    return True


def _work(connection: Connection, found: Sequence[Case], engine: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    while (job := connection.recv()) is not None:
        index, way = job
        with tempfile.TemporaryDirectory() as directory:
            try:
                outcome = judge(found[index], engine, way, Path(directory))
            except Exception as err:  # noqa: BLE001 - an error of the wrong kind is as bad as a wrong result
                outcome = Outcome(found[index].name, way, "wrong", why=f"{type(err).__name__}: {err}")
        connection.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


class _Worker:
    """A child process that serves tests: what it does not survive is counted."""

    def __init__(self, found: Sequence[Case], engine: str) -> None:
        self._found = found
        self._engine = engine
        self._start()

    def _start(self) -> None:
        # A child that starts as a copy has the tests already; no framework is loaded here.
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._found, self._engine))
        self._process.start()
        theirs.close()

    def judge(self, index: int, way: str) -> Outcome:
        """Serve one test in one way."""
        self._connection.send((index, way))
        name = self._found[index].name
        try:
            if self._connection.poll(_TEST_S):
                outcome, largest_bytes = self._connection.recv()
                if largest_bytes > _MEMORY_BYTES / 4:
                    # What it goes on to hold would be missing for the tests after it.
                    self.close()
                    self._start()
                return outcome
            self._process.kill()
            outcome = Outcome(name, way, "hung")
        except EOFError:
            outcome = Outcome(name, way, "crashed")
        self._process.join()
        if outcome.outcome == "crashed":
            outcome = outcome._replace(why=f"exit code {self._process.exitcode}")
        self._start()
        return outcome

    def close(self) -> None:
        """End the child process."""
        self._connection.send(None)
        self._process.join()


def outcomes(engine: str, count: int | None = None) -> Iterator[Outcome]:
    """Serve the tests, or a sample of them that is always the same, in both ways."""
    found = cases()
    if count is not None:
        found = random.Random(1).sample(found, count)  # noqa: S311 - a choice, no secret
    worker = _Worker(found, engine)
    try:
        for index in range(len(found)):
            for way in WAYS:
                yield worker.judge(index, way)
    finally:
        worker.close()


def counted(results: Sequence[Outcome]) -> str:
    """Write how often each outcome came, by way, engine and plan."""
    counts = Counter((result.way, result.engine, result.plan, result.outcome) for result in results)
    return "\n".join(
        f"{way:5}{engine:12}{plan:9}{outcome:10}{count:6}"
        for (way, engine, plan, outcome), count in sorted(counts.items())
    )


if __name__ == "__main__":
    for result in outcomes(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None):
        print(json.dumps(result), flush=True)
