"""Which part of a model's tensors belongs to which record: shown by inference, never assumed.

plan      what the engine sees                          which models
rows      any number of records, stacked                whose rows do not change with their neighbours
portions  exactly `size` records, stacked               the same, exported with a fixed batch above 1
single    one record, with an axis of 1 in front        exported for one record, or whose rows depend on each other
whole     the tensors of one record as they are         without a batch axis
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from beam_serving.errors import ModelError
from beam_serving.models.alone import AloneForm
from beam_serving.models.base import EngineModel, TensorSpec, describe, fits
from beam_serving.models.trial.compare import equal
from beam_serving.models.trial.samples import Record

_LOG = logging.getLogger(__name__)
Kind = Literal["rows", "portions", "single", "whole"]
Infer = Callable[[list[np.ndarray]], list[np.ndarray]]
"""An inference, from tensors in order to tensors in order; raises ModelError."""


class Plan(NamedTuple):
    """How records and tensors go together; `axis` is that of the records in a tensor, `size` how many there are.

    `drops` tells, by output, whether the axis of one record is left out where the plan is `single`. `freed` asks of the
    engine the form of the model whose first axis is free. Rows that are not `proven` are compared on the first batch;
    where they come in portions, a record fills one alone.
    """

    kind: Kind
    axis: int = 0
    size: int | None = None
    drops: tuple[bool, ...] = ()
    freed: bool = False
    proven: bool = True


class Axis(NamedTuple):
    """Where the records are in the inputs of a model, as far as the file says it, before anything is tried.

    `size` is the fixed number of records, None where it is free; `reason` says why there is no such axis.
    """

    axis: int | None
    size: int | None = None
    mixed: bool = False
    reason: str = ""


def axis_of(inputs: Sequence[TensorSpec], wanted: str | int) -> Axis:
    """Tell where the records are: `wanted` is "auto", "none" or the number of an axis.

    An input that is a single value has no axis for records: then the model takes one record at a time (`mixed`).
    """
    if wanted == "none":
        return Axis(None)
    axis = wanted if isinstance(wanted, int) else 0
    with_axis = [spec for spec in inputs if spec.shape is None or len(spec.shape)]
    if not with_axis:
        return Axis(None, reason="its inputs are single values")
    mixed = len(with_axis) < len(inputs)
    sizes = {spec.shape[place_of(spec.shape, axis)] for spec in with_axis if spec.shape is not None} - {None}
    if len(sizes) > 1:
        return Axis(None, reason=f"its inputs have different sizes in front, {sorted(size or 0 for size in sizes)}")
    size = next(iter(sizes), None)
    if mixed and size not in (None, 1):
        return Axis(None, reason="some of its inputs are single values")
    return Axis(axis, size, mixed)


def place_of(shape: Sequence[int | None], axis: int) -> int:
    """Return the axis of the records in a tensor, which is the last one where it has no axis of that number."""
    return min(axis, len(shape) - 1)


def record_spec(spec: TensorSpec, axis: int | None) -> TensorSpec:
    """Describe what of an input or output belongs to one record."""
    if axis is None or not spec.shape:
        return spec
    place = place_of(spec.shape, axis)
    return spec._replace(shape=(*spec.shape[:place], *spec.shape[place + 1 :]))


def stack(records: Sequence[Record], specs: Sequence[TensorSpec], axis: int | None) -> list[np.ndarray]:
    """Stack records to the tensors of a model, in the order of its inputs."""
    if axis is None:
        (record,) = records
        return [record[spec.name] for spec in specs]
    arrays = []
    for spec in specs:
        column = [record[spec.name] for record in records]
        arrays.append(column[0] if spec.shape == () else np.stack(column, min(axis, column[0].ndim)))
    return arrays


def rows_of(outputs: Sequence[np.ndarray], axis: int, count: int) -> list[np.ndarray] | None:
    """Return outputs with the axis of the records first; None where one has not exactly `count` of them."""
    moved = []
    for output in outputs:
        place = place_of(output.shape, axis) if output.ndim else 0
        if not output.ndim or output.shape[place] != count:
            return None
        moved.append(np.moveaxis(output, place, 0) if place else output)
    return moved


def keeps_rows_apart(
    together: Infer, alone: Infer, records: Sequence[Record], specs: Sequence[TensorSpec], axis: int
) -> bool:
    """Return whether each record gets from `together` what it gets `alone`.

    Raises:
        ModelError: the model failed on a record alone.
    """
    own = [rows_of(alone(stack([record], specs, axis)), axis, 1) for record in records]
    try:
        all_rows = rows_of(together(stack(records, specs, axis)), axis, len(records))
    except ModelError as err:
        _LOG.debug("fails on records together that it takes alone: %s", err)
        return False
    return all_rows is not None and all(
        mine is not None and all(equal(rows[index : index + 1], row) for rows, row in zip(all_rows, mine, strict=True))
        for index, mine in enumerate(own)
    )


def keeps_positions_apart(
    infer: Infer, records: Sequence[Record], specs: Sequence[TensorSpec], axis: int, size: int
) -> bool:
    """Return whether a record of a fixed batch gets the same at any place and beside any neighbours.

    Raises:
        ModelError: the model failed on them.
    """
    seen: dict[int, list[np.ndarray]] = {}
    # First each beside itself alone: mixed, the same neighbours might be there every time.
    uniform = [[index] * size for index in range(len(records))]
    mixed = [
        [(step * place + start) % len(records) for place in range(size)] for step, start in ((1, 0), (2, 1), (1, 2))
    ]
    for places in (*uniform, *mixed):
        rows = rows_of(infer(stack([records[index] for index in places], specs, axis)), axis, size)
        if rows is None:
            return False
        for place, index in enumerate(places):
            mine = [one[place : place + 1] for one in rows]
            if not all(equal(one, other) for one, other in zip(mine, seen.setdefault(index, mine), strict=True)):
                return False
    return True


def keeps_neighbours_out(
    infer: Infer, some: Sequence[Record], others: Sequence[Record], specs: Sequence[TensorSpec], axis: int
) -> bool:
    """Return whether records get the same, each at its place among `some`, when `others` are beside them instead.

    The batches have one size, so an engine computes them alike: also of huge numbers no rounding differs.

    Raises:
        ModelError: the model failed on them.
    """
    count = len(some)
    before = rows_of(infer(stack(some, specs, axis)), axis, count)
    for place in sorted({0, count // 2, count - 1}):
        mixed = [*others[:place], some[place], *others[place + 1 :]]
        after = rows_of(infer(stack(mixed, specs, axis)), axis, count)
        if before is None or after is None:
            return False
        mine = slice(place, place + 1)
        if not all(equal(one[mine], other[mine]) for one, other in zip(after, before, strict=True)):
            return False
    return True


class BatchedModel:
    """A model of an engine as the pipeline wants it, a `LoadedModel`: records stacked along a first axis, by name.

    Every batch is checked against the model's inputs here, so that no engine ever sees another: some of them end the
    process over it. Every output is checked to have exactly the rows of its batch before anything is cut. `alone`
    is the same model for a batch of one record, computed on more cores, where there is that form.
    """

    def __init__(
        self,
        engine: EngineModel,
        plan: Plan,
        constants: Mapping[str, np.ndarray] | None = None,
        nan: bool = True,
        own: str = "",
    ) -> None:
        self._own = own
        self.engine = engine.engine
        self._constants = constants or {}
        self._model = engine
        self._plan = plan
        axis = None if plan.kind == "whole" else plan.axis
        self._names = [spec.name for spec in engine.inputs]
        self._stacked = [spec for spec in engine.inputs if spec.name not in self._constants]
        self._ranks = [None if spec.shape is None else len(spec.shape) for spec in engine.inputs]
        self.inputs = tuple(
            record_spec(spec, axis)._replace(nan=nan or spec.dtype.kind != "f")
            for spec in engine.inputs
            if spec.name not in self._constants
        )
        self._drops = list(plan.drops) or [True] * len(engine.outputs)
        keeps = [plan.kind == "whole" or (plan.kind == "single" and not drops) for drops in self._drops]
        self.outputs = tuple(
            spec if keep else record_spec(spec, plan.axis) for spec, keep in zip(engine.outputs, keeps, strict=True)
        )
        self.class_names = engine.facts.class_names
        self.one_by_one = plan.kind in ("single", "whole") or (plan.kind == "portions" and not plan.proven)
        self.alone: AloneForm | None = None

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`."""
        rows = self._check(batch)
        if self._plan.kind == "portions":
            outputs = self._portions(batch, rows)
        elif self.one_by_one:
            outputs = self._one(batch)
        else:
            outputs = self._rows(batch, rows)
        return {spec.name: output for spec, output in zip(self.outputs, outputs, strict=True)}

    def _check(self, batch: Mapping[str, np.ndarray]) -> int:
        """Return the number of records.

        Raises:
            ModelError: an input is missing, or has not the type, shape or values that the model takes.
        """
        if missing := [spec.name for spec in self.inputs if spec.name not in batch]:
            raise ModelError(f"the batch has the inputs {sorted(batch)}, the model takes {missing[0]!r}")
        counts = set()
        for spec in self.inputs:
            array = batch[spec.name]
            if array.dtype != spec.dtype or not array.ndim or not fits(array.shape[1:], spec.shape):
                got, wanted = describe(array.dtype, array.shape[1:]), describe(spec.dtype, spec.shape)
                raise ModelError(f"input {spec.name!r} is {got}, the model takes {wanted}")
            check_values(array, spec, self._own)
            counts.add(len(array))
        if len(counts) > 1 or 0 in counts:
            raise ModelError(f"the inputs of a batch have {sorted(counts)} records, wanted is one number of them")
        rows = next(iter(counts), 1)
        if self.one_by_one and rows > 1:
            raise ModelError(f"the batch has {rows} records, the model takes one at a time")
        return rows

    def _arrays(self, batch: Mapping[str, np.ndarray], rows: slice | int, missing: int = 0) -> list[np.ndarray]:
        arrays = []
        for name, rank in zip(self._names, self._ranks, strict=True):
            if name in self._constants:
                arrays.append(self._constants[name])
                continue
            # With the dots a text stays an array, too.
            array = batch[name][rows, ...]
            if rank == 0 and isinstance(rows, slice):
                array = batch[name][0, ...]
            elif isinstance(rows, slice):
                if missing:
                    array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
                if self._plan.axis:
                    array = np.moveaxis(array, 0, min(self._plan.axis, array.ndim - 1))
            # Not ascontiguousarray, which gives a single value an axis.
            arrays.append(np.asarray(array, order="C"))
        return arrays

    def _rows(self, batch: Mapping[str, np.ndarray], rows: int) -> list[np.ndarray]:
        if not self._plan.proven and rows > 1:
            return self._first_rows(batch, rows)
        outputs = self._model.infer(self._arrays(batch, slice(None)))
        moved = rows_of(outputs, self._plan.axis, rows)
        if moved is None and not self._plan.proven:
            return self._learn_whole(outputs)
        return self._with_rows(outputs, moved, rows)

    def _first_rows(self, batch: Mapping[str, np.ndarray], rows: int) -> list[np.ndarray]:
        """Predict the first batch of several records together and one by one, to see whether they may stay together."""
        singles = [{name: array[row : row + 1] for name, array in batch.items()} for row in range(rows)]
        records = [{name: array[0, ...] for name, array in single.items()} for single in singles]
        alone = iter([self._model.infer(self._arrays(single, slice(None))) for single in singles])
        together: list[list[np.ndarray]] = []

        def infer_together(_: list[np.ndarray]) -> list[np.ndarray]:
            together.append(self._model.infer(self._arrays(batch, slice(None))))
            return together[0]

        if keeps_rows_apart(infer_together, lambda _: next(alone), records, self._stacked, self._plan.axis):
            self._plan = self._plan._replace(proven=self._has_unequal_records(batch))
            return self._with_rows(together[0], rows_of(together[0], self._plan.axis, rows), rows)
        self._serve_singly()
        _LOG.info("its rows depend on each other or cannot be told apart: records are served one at a time")
        raise ModelError("records of this model cannot be served together")

    def _serve_singly(self) -> None:
        self._plan = self._plan._replace(kind="single")
        self.one_by_one = True

    def _has_unequal_records(self, batch: Mapping[str, np.ndarray]) -> bool:
        """Return whether every input differs between records: what is equal shows nothing of its neighbours' part."""
        return all(
            any(not equal(array[row : row + 1], array[:1]) for row in range(1, len(array)))
            for array in (batch[spec.name] for spec in self.inputs)
        )

    def _learn_whole(self, outputs: list[np.ndarray]) -> list[np.ndarray]:
        """Take outputs of one record for what they are, where one of them may have no axis of one record."""
        self._serve_singly()
        rows = [
            rows_of([output], self._plan.axis, 1) if drops else None
            for drops, output in zip(self._drops, outputs, strict=True)
        ]
        self._drops = [row is not None for row in rows]
        return [output[np.newaxis] if row is None else row[0] for row, output in zip(rows, outputs, strict=True)]

    def _portions(self, batch: Mapping[str, np.ndarray], rows: int) -> list[np.ndarray]:
        size = self._plan.size or 1
        parts = []
        for start in range(0, rows, size):
            missing = max(0, start + size - rows)
            outputs = self._model.infer(self._arrays(batch, slice(start, start + size), missing))
            parts.append(self._with_rows(outputs, rows_of(outputs, self._plan.axis, size), size))
            if not self._plan.proven and not all(
                equal(part[row : row + 1], part[:1]) for part in parts[-1] for row in range(1, size)
            ):
                raise ModelError(f"{size} times the same record gives {size} results: set model: batch_axis: none")
        filled = -(-rows // size) * size - rows
        whole = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        return [column[: len(column) - filled] for column in whole]

    def _one(self, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if self._plan.kind == "whole":
            return [output[np.newaxis] for output in self._model.infer(self._arrays(batch, 0))]
        outputs = self._model.infer(self._arrays(batch, slice(0, 1)))
        if not self._plan.proven:
            return self._learn_whole(outputs)
        given = []
        for spec, output, drops in zip(self.outputs, outputs, self._drops, strict=True):
            rows = rows_of([output], self._plan.axis, 1) if drops else [output[np.newaxis]]
            if rows is None:
                raise ModelError(_wrong_rows(spec.name, output, 1))
            given += rows
        return given

    def _with_rows(self, outputs: Sequence[np.ndarray], moved: list[np.ndarray] | None, rows: int) -> list[np.ndarray]:
        if moved is not None:
            return moved
        for spec, output in zip(self.outputs, outputs, strict=True):
            if rows_of([output], self._plan.axis, rows) is None:
                raise ModelError(_wrong_rows(spec.name, output, rows))
        return []


def _wrong_rows(name: str, output: np.ndarray, rows: int) -> str:
    return f"output {name!r} of the model is {describe(output.dtype, output.shape)}, {rows} examples need {rows} rows"


def check_values(array: np.ndarray, spec: TensorSpec, own: str = "") -> None:
    """Refuse values that the engine would compute otherwise than the model's `own` framework.

    Raises:
        ModelError: there is one.
    """
    remedy = f"; model: engine: {own} takes it" if own else ""
    if spec.below is not None and array.size:
        least, most = int(array.min()), int(array.max())
        if most >= spec.below or least < -spec.below:
            value = most if most >= spec.below else least
            lowest = 0 if spec.dtype.kind == "u" else -spec.below
            raise ModelError(f"input {spec.name!r} has {value}, its engine takes {lowest} to {spec.below - 1}{remedy}")
    # A sum is finite where all are; only where it is not, each is looked at.
    if not spec.nan and not np.isfinite(np.add.reduce(array, axis=None)) and not np.isfinite(array).all():
        truth = own or "its own framework"
        raise ModelError(
            f"input {spec.name!r} has NaN or infinity, which its engine computes otherwise than {truth}{remedy}"
        )
