"""How a model is served: which engine gives what its own framework gives, and which part of a tensor is whose.

`probe` finds out by loading and trying the model, once; the verdict is remembered by the content of its files.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.arrangement import Port
from beam_serving.models.base import STRING, EngineModel, ModelOptions, TensorSpec
from beam_serving.models.trial.batch_axis import (
    Axis,
    Infer,
    Plan,
    axis_of,
    keeps_neighbours_out,
    keeps_positions_apart,
    keeps_rows_apart,
    place_of,
    record_spec,
    rows_of,
    stack,
)
from beam_serving.models.trial.compare import all_equal, difference, equal
from beam_serving.models.trial.samples import (
    Record,
    extremes,
    far_of,
    invented_shapes,
    many_of,
    not_finite,
    records,
    sampled,
)

_LOG = logging.getLogger(__name__)
_RECORDS = 3
_SLOW_S = 0.1
"""A model that takes longer for one inference is tried with fewer of them."""
_CROWD = 9
"""Records that are tried together: what happens from the fourth on, or between equal ones, shows only among more."""


@dataclass(frozen=True)
class Verdict:
    """How a model is served, and why.

    `inputs` and `outputs` are the model's own names and order, where the engine has others. `nan` is False where the
    engine computes NaN otherwise than the own framework does. `shapes` are those of a record that the model surely
    takes. `compared_with` is an engine, "" where there was no comparison, and `difference` the largest one as a share
    of the largest value. `notes` are for the log. `sandbox` is what the process gave up before it found that out, see
    `beam_serving.models.trial.sandbox`; "" where that is off.
    """

    engine: str
    plan: Plan
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    nan: bool = True
    shapes: Mapping[str, tuple[int, ...]] | None = None
    compared_with: str = ""
    difference: float = 0.0
    random: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sandbox: str = ""

    def encode(self) -> dict[str, Any]:
        """Return the verdict as plain values of JSON."""
        return {**asdict(self), "plan": self.plan._asdict()}

    @classmethod
    def decode(cls, plain: Mapping[str, Any]) -> "Verdict":
        """Read what `encode` gave, also after its way through JSON."""
        plan = plain["plan"]
        shapes = plain["shapes"]
        return cls(
            **{
                **plain,
                "plan": Plan(**{**plan, "drops": tuple(plan["drops"])}),
                "shapes": None if shapes is None else {name: tuple(shape) for name, shape in shapes.items()},
                **{name: tuple((place, port) for place, port in plain[name]) for name in ("inputs", "outputs")},
                **{name: tuple(plain[name]) for name in ("random", "state", "notes")},
            }
        )


class Trial(NamedTuple):
    """What a model was tried with: `sets` are lists of unequal records that it takes, harmless ones first.

    `specs` are the inputs that requests send, whole tensors. `error` is why there are no such records.
    """

    specs: tuple[TensorSpec, ...]
    sets: list[list[Record]]
    shapes: dict[str, tuple[int, ...]] | None
    error: str = ""
    single_s: float = 0.0


class Comparison(NamedTuple):
    """What two engines gave for the same records; `reason` is why they are not equal.

    `compared` counts the inferences, `shapes` are those of the outputs of single records.
    """

    reason: str
    difference: float = 0.0
    nan: bool = True
    compared: int = 0
    shapes: frozenset[tuple[tuple[int, ...], ...]] = frozenset()


def try_out(engine: EngineModel, found: Axis, options: ModelOptions) -> Trial:
    """Find records that a model takes.

    Raises:
        ModelLoadError: the operator's sample does not fit the model.
    """
    specs = tuple(spec for spec in engine.inputs if spec.name not in options.constants)
    of_records = [record_spec(spec, found.axis) for spec in specs]
    given, given_shapes = sampled(of_records, options)
    error = ""
    has_integers = any(spec.dtype.kind in "iu" for spec in specs)
    tried = [given_shapes] if given_shapes is not None else list(invented_shapes(of_records))
    for shapes, least in itertools.product(tried, (0, 1) if has_integers and not given else (0,)):
        sets = list(records(of_records, shapes, _RECORDS, least))
        if given:
            # One record alone shows nothing of neighbours.
            sets = [given] if len(given) > 1 else [[*given, *sets[0][1:]]]
        started = time.perf_counter()
        try:
            engine.infer(_tensors(engine, found, sets[0][:1], options))
        except ModelError as err:
            error = error or str(err)
            continue
        single_s = time.perf_counter() - started
        return Trial(specs, sets if single_s < _SLOW_S else sets[-1:], shapes, "", single_s)
    return Trial(specs, [], None, error)


def try_axis(engine: EngineModel, options: ModelOptions) -> tuple[Axis, Trial]:
    """Tell where the records are, as far as a trial shows it, and what the trial was.

    A fixed size in front of one input, beside a free one in front of another, may be no number of records: that of the
    layers of a recurrent state, for example. Then there is an axis only if a trial with so many records succeeds.

    Raises:
        ModelLoadError: the operator's sample does not fit the model.
    """
    specs = [spec for spec in engine.inputs if spec.name not in options.constants]
    found = axis_of(specs, options.batch_axis)
    if options.batch_axis != "auto" or found.size in (None, 1) or not _has_free_front(specs):
        return found, try_out(engine, found, options)
    none = Axis(None, reason=f"some of its inputs have {found.size} in front, others any number")
    try:
        trial = try_out(engine, found, options)
    except ModelLoadError:
        # The sample has whole tensors, then.
        return none, try_out(engine, none, options)
    return (none, try_out(engine, none, options)) if trial.shapes is None else (found, trial)


def _has_free_front(specs: Sequence[TensorSpec]) -> bool:
    return any(spec.shape and spec.shape[0] is None for spec in specs)


def _tensors(engine: EngineModel, found: Axis, some: Sequence[Record], options: ModelOptions) -> list[np.ndarray]:
    """Return tensors for the engine: records repeated to its fixed number, and the operator's constants."""
    rows = [some[place % len(some)] for place in range(found.size)] if found.axis is not None and found.size else some
    asked = [spec for spec in engine.inputs if spec.name not in options.constants]
    return _with_constants(engine, stack(rows, asked, found.axis), options)


def _with_constants(engine: EngineModel, arrays: Sequence[np.ndarray], options: ModelOptions) -> list[np.ndarray]:
    constants, rest = constant_arrays(engine.inputs, options), iter(arrays)
    return [constants[spec.name] if spec.name in constants else next(rest) for spec in engine.inputs]


def constant_arrays(inputs: Sequence[TensorSpec], options: ModelOptions) -> dict[str, np.ndarray]:
    """Return the values of `model: constants` in the types of the model's inputs.

    Raises:
        ModelLoadError: one is for no input, or does not fit it.
    """
    known = {spec.name: spec for spec in inputs}
    constants = {}
    for name, value in options.constants.items():
        if name not in known:
            raise ModelLoadError(f"model: constants names {name!r}, the inputs are {', '.join(known)}")
        spec = known[name]
        try:
            array = np.array(value, spec.dtype)
            if spec.dtype.kind in "iu" and not np.array_equal(array, np.array(value)):
                raise ValueError("it is no whole number of this type")
        except (ValueError, TypeError, OverflowError) as err:
            raise ModelLoadError(f"model: constants: {name} is {value!r}, the model takes {spec.dtype}: {err}") from err
        # A single number also stands for a tensor with one value.
        if spec.shape and array.ndim < len(spec.shape) and array.size == 1:
            array = array.reshape((1,) * len(spec.shape))
        constants[name] = array
    return constants


def plan_of(
    engine: EngineModel, found: Axis, trial: Trial, options: ModelOptions, steady: bool = True
) -> tuple[Plan, list[str]]:
    """Decide how records and tensors go together; return lines for the log, too.

    Of a model that is not `steady`, which gives something else each time, no rows can be compared.
    """
    if found.axis is None:
        notes = [f"has no batch axis ({found.reason}): a request has its whole tensors"] if found.reason else []
        return Plan("whole"), notes
    axis = found.axis
    if found.mixed:
        return Plan("single", axis, 1, _drops(engine, found, trial, options)), []
    if found.size is None:
        infer = _infer(engine, options)
        apart = steady and _shown(trial, lambda some: keeps_rows_apart(infer, infer, some, trial.specs, axis))
        if apart is None:
            return Plan("rows", axis, proven=False), []
        if apart and _in_crowds(infer, infer, trial, axis):
            return Plan("rows", axis), []
        note = "its rows depend on each other or cannot be told apart: records are served one at a time"
        return Plan("single", axis, None, _drops(engine, found, trial, options)), [note]
    if axis == 0 and steady and _freed_form(engine, found, trial, options):
        return Plan("rows", 0, freed=True), []
    if found.size == 1:
        note = (
            "some of its inputs have 1 in front, others any number: set model: batch_axis: none if that is no number "
        )
        note += "of records, but that of the steps of a sequence"
        notes = [note] if _has_free_front(trial.specs) else []
        return Plan("single", axis, 1, _drops(engine, found, trial, options)), notes
    size = found.size
    apart = steady and _shown(
        trial, lambda some: keeps_positions_apart(_infer(engine, options), some, trial.specs, axis, size)
    )
    if apart and _in_crowds(_infer(engine, options), None, trial, axis, size):
        return Plan("portions", axis, size), [f"computes batches of {size} only; larger ones are cut into portions"]
    if apart is None:
        return Plan("portions", axis, size, proven=False), [f"computes batches of {size} only"]
    note = f"its {size} rows depend on each other or on their places: a request has its whole tensors"
    return Plan("whole"), [note]


def _in_crowds(together: Infer, alone: Infer | None, trial: Trial, axis: int, count: int = _CROWD) -> bool:
    """Return whether rows stay apart among many, beside equal ones, huge ones and NaN; what fails there shows nothing.

    Without `alone`, only batches of `count` records are compared with each other.
    """
    if trial.single_s >= _SLOW_S or not trial.sets:
        return True
    many, far = many_of(trial.sets[0], count), far_of(trial.sets[0], count)
    below = far_of(trial.sets[0], count, all_below=True)
    broken = [next(not_finite(record), record) for record in far]
    specs = trial.specs
    shows: list[Callable[[], bool]] = [
        partial(keeps_neighbours_out, together, some, others, specs, axis)
        for some, others in ((far, many), (many, far), (below, many), (many, broken))
    ]
    if alone is not None:
        shows.insert(0, partial(keeps_rows_apart, together, alone, many, specs, axis))
    for show in shows:
        try:
            if not show():
                return False
        except ModelError as err:
            _LOG.debug("a trial of many records failed: %s", err)
    return True


def _infer(engine: EngineModel, options: ModelOptions) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """Return the engine's inference on what requests send: constants are put in their places."""
    return lambda arrays: engine.infer(_with_constants(engine, arrays, options))


def _shown(trial: Trial, show: Callable[[list[Record]], bool]) -> bool | None:
    """Return whether something holds for all sets of records, None where the model fails on each of them."""
    results = []
    for some in trial.sets:
        try:
            results.append(show(some))
        except ModelError as err:
            _LOG.debug("a trial failed: %s", err)
            continue
        if not results[-1]:
            return False
    return True if results else None


def _freed_form(engine: EngineModel, found: Axis, trial: Trial, options: ModelOptions) -> bool:
    """Return whether the form with a free first axis gives, for several records, what the fixed one gives for each."""
    freed = engine.freed()
    try:
        if freed is not None:
            freed.compile()
    except ModelLoadError as err:
        _LOG.debug("has no form with a free first axis: %s", err)
        return False
    if freed is None or not trial.sets or len(freed.outputs) != len(engine.outputs):
        return False
    size, fixed = found.size or 1, _infer(engine, options)

    def alone(arrays: list[np.ndarray]) -> list[np.ndarray]:
        rows = fixed([np.repeat(array, size, axis=0) for array in arrays])
        cut = rows_of(rows, 0, size)
        if cut is None:
            raise ModelError("an output has no batch axis")
        return [one[:1] for one in cut]

    free = _infer(freed, options)
    apart = _shown(trial, lambda some: keeps_rows_apart(free, alone, some, trial.specs, 0))
    if apart and size > 1:
        # As many records as the file has say nothing of other numbers of them.
        apart = _shown(trial, lambda some: keeps_rows_apart(free, free, some, trial.specs, 0))
    if apart and size > 1:
        # The fixed form itself must keep its rows apart: the free one may have lost what ties them together.
        apart = _shown(trial, lambda some: keeps_positions_apart(fixed, some, trial.specs, 0, size))
        apart = apart and _in_crowds(fixed, None, trial, 0, size)
    return bool(apart) and _in_crowds(free, alone, trial, 0)


def _drops(engine: EngineModel, found: Axis, trial: Trial, options: ModelOptions) -> tuple[bool, ...]:
    """Tell of which outputs the axis of one record is left out.

    Where the batch is fixed, of those that say that they have one row, and have. Where it is free, of those that have
    as many rows as there are records, however many.
    """
    axis = found.axis or 0
    announced = tuple(_has_one_row(spec, axis) for spec in engine.outputs)
    if not trial.sets:
        return announced
    some, is_fixed = trial.sets[0], found.size is not None
    counts = (1,) if is_fixed else (1, len(some))
    try:
        given = [(count, _infer(engine, options)(stack(some[:count], trial.specs, axis))) for count in counts]
    except ModelError as err:
        _LOG.debug("a trial failed: %s", err)
        return announced
    return tuple(
        (says_one or not is_fixed)
        and all(rows_of([outputs[place]], axis, count) is not None for count, outputs in given)
        for place, says_one in enumerate(announced)
    )


def _has_one_row(spec: TensorSpec, axis: int) -> bool:
    return bool(spec.shape) and spec.shape is not None and spec.shape[place_of(spec.shape, axis)] == 1


def is_steady(engine: EngineModel, found: Axis, trial: Trial, options: ModelOptions) -> bool:
    """Return whether a model answers the same question the same way after another one."""
    for some in trial.sets:
        try:
            first, _, second = (
                engine.infer(_tensors(engine, found, [record], options)) for record in (some[0], some[-1], some[0])
            )
        except ModelError as err:
            _LOG.debug("a trial failed: %s", err)
            continue
        if not all_equal(first, second):
            return False
    return True


def compare(
    engine: EngineModel,
    own: EngineModel,
    found: Axis,
    trial: Trial,
    options: ModelOptions,
    on_extremes: Callable[[], bool] = lambda: True,
) -> Comparison:
    """Compare an engine with the model's own framework on records that the latter takes.

    Both have the same inputs and outputs in the same order; see `arrange`. `on_extremes` is called before the largest
    numbers are tried, and says whether they are: one that is a size might take all memory.
    """
    if trial.shapes is None:
        return Comparison(f"no sample could be tried: {trial.error}")
    sent = _compare(engine, own, found, _to_compare(found, trial), options)
    if sent.reason:
        return sent
    if not sent.compared:
        return sent._replace(reason=f"{own.engine} took none of the samples")
    if (
        len(sent.shapes) == 1
        and (large := list(_extreme_records(engine, found, trial, trial.shapes)))
        and on_extremes()
    ):
        edges = _compare(engine, own, found, large, options)
        sent = edges._replace(difference=max(edges.difference, sent.difference))
    if sent.reason or _same_not_finite(engine, own, found, trial, options):
        return sent
    if sum(spec.dtype.kind == "f" for spec in trial.specs) > 1:
        # One of them may be a mask, where infinity is a value as any other.
        return sent._replace(reason=f"NaN or infinity become something else than in {own.engine}")
    return sent._replace(nan=False)


def _compare(
    engine: EngineModel, own: EngineModel, found: Axis, tried: Iterable[list[Record]], options: ModelOptions
) -> Comparison:
    largest, compared, shapes = 0.0, 0, set()
    for some in tried:
        arrays = _tensors(own, found, some, options)
        try:
            wanted = own.infer(arrays)
        except ModelError as err:
            _LOG.debug("a trial failed: %s", err)
            continue
        try:
            got = engine.infer(arrays)
        except ModelError as err:
            return Comparison(f"it fails where {own.engine} answers: {err}")
        for spec, one, other in zip(own.outputs, got, wanted, strict=True):
            off = difference(one, other)
            if not equal(one, other):
                how = "type, shape, text or whole numbers" if off == float("inf") else f"{off:.2g} of the largest value"
                return Comparison(f"output {spec.name!r} differs from that of {own.engine}: {how}", off)
            largest = max(largest, off)
        compared += 1
        shapes |= {tuple(one.shape for one in wanted)} if len(some) == 1 else set()
    return Comparison("", largest, compared=compared, shapes=frozenset(shapes))


def _to_compare(found: Axis, trial: Trial) -> Iterator[list[Record]]:
    """Yield records to compare two engines on: equal values (which of them comes first?), noise, alone and together."""
    yield [{name: np.full_like(array, "a" if array.dtype == STRING else 1) for name, array in trial.sets[0][0].items()}]
    for some in trial.sets:
        yield from ([record] for record in (some if trial.single_s < _SLOW_S else some[:2]))
        if found.axis is not None and found.size != 1 and not found.mixed:
            yield some


def _extreme_records(
    engine: EngineModel, found: Axis, trial: Trial, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[list[Record]]:
    below = {spec.name: spec.below for spec in engine.inputs}
    specs = [record_spec(spec, found.axis)._replace(below=below[spec.name]) for spec in trial.specs]
    yield from ([record] for record in extremes(specs, shapes))


def _same_not_finite(engine: EngineModel, own: EngineModel, found: Axis, trial: Trial, options: ModelOptions) -> bool:
    for record in not_finite(trial.sets[-1][0]):
        arrays = _tensors(own, found, [record], options)
        try:
            if not all_equal(engine.infer(arrays), own.infer(arrays)):
                return False
        except ModelError as err:
            _LOG.debug("a trial failed: %s", err)
            return False
    return True
