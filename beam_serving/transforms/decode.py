"""Decode: from a stream entry to the tensors that the model takes, or to the reason why not."""

import base64
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from beam_serving.config.own_code import OwnCode
from beam_serving.encryption.records import NOT_ENCRYPTED, RecordEncryption
from beam_serving.errors import RequestError
from beam_serving.io.aside import Aside, Consumers
from beam_serving.models.base import STRING, TensorSpec, fits
from beam_serving.models.batches import stacked
from beam_serving.models.inputs import holds_all, resolve_input
from beam_serving.models.shared import SharedModel
from beam_serving.protocol import Limits, decode_request, identify
from beam_serving.protocol.columns import decode_alike
from beam_serving.protocol.limits import quote
from beam_serving.protocol.text import is_text
from beam_serving.records import (
    Block,
    Entry,
    Examples,
    Failure,
    Flush,
    Image,
    Origin,
    Origins,
    Payload,
    ProtocolVersion,
    Result,
)
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import of_request
from beam_serving.transforms.batch_buffer import Rows
from beam_serving.transforms.image import ImageRules, check_together, tensor_of_image
from beam_serving.transforms.image_cost import check_memory, takes_long
from beam_serving.transforms.own_steps import own_preprocess
from beam_serving.transforms.watchdog import Watchdog

_log = logging.getLogger(__name__)
REFUSED = "refused"
_MOST_BATCH_BYTES = 32 << 20
_TEXT_TIMES = 8
"""A text takes so many times the eight bytes of its place in an array, or more."""
_LARGE_BYTES = 8 << 20
"""A request of more is decoded in place, and not while another large one is: each may take `max_decode_mb`."""
_WIDEST_BYTES = 16
"""The most that a number takes in any type of a model."""
_NO_ROWS: Mapping[str, Rows] = {}
_Refused: TypeAlias = pvalue.TaggedOutput[Literal["refused"], list[Result]]


def tensors_for(
    payload: Payload, inputs: tuple[TensorSpec, ...], rules: ImageRules, rows: Mapping[str, Rows] = _NO_ROWS
) -> dict[str, np.ndarray]:
    """Return a request's tensors by the model's input names, in the model's shapes and types.

    Values go to the input of their name. Old clients name their columns freely, so where the names differ but the
    number is right theirs go by position; an unnamed value goes to the only input. A model that describes no inputs
    gets the tensors as they came. Images are decoded into the `rows` of their input, where it has some.

    Raises:
        RequestError: an input is missing or unknown, or a value does not fit; the message begins with the uri.
    """
    try:
        if not inputs:
            return _as_they_came(payload)
        # Values of the native form are those of the entry, which has a limit of its own.
        held = 0 if payload.protocol == ProtocolVersion.NATIVE else _bytes_of(payload)
        tensors: dict[str, np.ndarray] = {}
        matched = _matched(payload, inputs)
        if len(inputs) > 1:
            matched = list(matched)
            check_together(
                [one.encoded for spec, one in matched if isinstance(one, Image) and spec.dtype != STRING], rules
            )
        for spec, value in matched:
            tensor = _tensor(_text(value, spec, payload), spec, rules, rows.get(spec.name), held)
            tensors[spec.name] = tensor
            held += tensor.nbytes
        return tensors
    except RequestError as err:
        raise RequestError(f"request {payload.uri.decode(errors='backslashreplace')[:64]!r}: {err}") from err


def _bytes_of(payload: Payload) -> int:
    return sum(len(one.encoded) if isinstance(one, Image) else one.nbytes for one in payload.inputs.values())


def _as_they_came(payload: Payload) -> dict[str, np.ndarray]:
    tensors = {name: value for name, value in payload.inputs.items() if not isinstance(value, Image)}
    if len(tensors) < len(payload.inputs):
        raise RequestError("the model does not say what it takes, so it takes no images; set data: shape")
    return tensors


def _matched(payload: Payload, inputs: tuple[TensorSpec, ...]) -> Iterable[tuple[TensorSpec, Image | np.ndarray]]:
    given = payload.inputs
    if len(inputs) == len(given):
        if all(spec.name in given for spec in inputs):
            return [(spec, given[spec.name]) for spec in inputs]
        if payload.protocol != ProtocolVersion.NATIVE or given.keys() == {""}:
            return zip(inputs, given.values(), strict=True)
    raise RequestError(f"its inputs are {sorted(given)}, the model takes {[spec.name for spec in inputs]}")


def _text(value: Image | np.ndarray, spec: TensorSpec, payload: Payload) -> Image | np.ndarray:
    """Return text for an input that takes text, where the request has an image or a text that stands alone.

    An Arrow client's text that happens to be base64 was taken for an image: it becomes what it was. A model that
    decodes images itself gets the file as it is.
    """
    if spec.dtype != STRING:
        return value
    if isinstance(value, np.ndarray):
        of_one = _of_one(spec)
        return value.reshape(of_one) if value.ndim == 0 and is_text(value) and fits(of_one, spec.shape) else value
    as_sent = payload.protocol == ProtocolVersion.ARROW
    content = base64.b64encode(value.encoded).decode() if as_sent else value.encoded
    array = np.empty(_of_one(spec), STRING)
    array[...] = content
    return array


def _of_one(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of a tensor with one value."""
    return (1,) * len(spec.shape or ())


def _tensor(value: Image | np.ndarray, spec: TensorSpec, rules: ImageRules, rows: Rows | None, held: int) -> np.ndarray:
    if isinstance(value, Image):
        return tensor_of_image(value.encoded, spec, rules, rows, held)
    if held + _WIDEST_BYTES * value.size > rules.max_decode_bytes and STRING not in (value.dtype, spec.dtype):
        added = spec.dtype.itemsize * value.size if value.dtype != spec.dtype else 0
        check_memory(held + added, rules.max_decode_bytes, f"a tensor of {spec.dtype}")
    return resolve_input(value, spec)


class Example(NamedTuple):
    """A decoded request: `tensors` by input name of the model, without a batch axis, in the model's types."""

    origin: Origin
    tensors: Mapping[str, np.ndarray]


def _example(entry: Entry, payload: Payload, tensors: Mapping[str, np.ndarray]) -> Example:
    of = payload.uri, payload.protocol, payload.request_id
    return Example(Origin(entry.stream, entry.entry_id, *of, entry.consumer), tensors)


def resolve_columns(
    columns: Mapping[str, np.ndarray], inputs: tuple[TensorSpec, ...]
) -> Mapping[str, np.ndarray] | None:
    """Return the tensors of many native requests by the model's input names, as `tensors_for` gives those of one.

    None where a look at each request is needed: its names, its shape or its numbers may not be the model's.
    """
    if not inputs:
        return columns
    named = all(spec.name in columns for spec in inputs)
    if len(inputs) != len(columns) or not (named or columns.keys() == {""}):
        return None
    resolved: dict[str, np.ndarray] = {}
    for spec in inputs:
        rows = columns[spec.name if named else ""]
        if not fits(rows.shape[1:], spec.shape) or not holds_all(rows.dtype, spec.dtype):
            return None
        resolved[spec.name] = rows.astype(spec.dtype, copy=False)
    return resolved


def side_by_side(examples: Sequence[Example]) -> Iterable[Examples]:
    """Stack examples of one protocol version and of the same shapes."""
    alike: dict[Any, list[Example]] = {}
    for example in examples:
        shapes = tuple((name, tensor.dtype.str, tensor.shape) for name, tensor in example.tensors.items())
        alike.setdefault((example.origin.protocol, shapes), []).append(example)
    for together in alike.values():
        names = together[0].tensors
        tensors = {name: stacked([example.tensors[name] for example in together]) for name in names}
        yield Examples(Origins.of([example.origin for example in together]), tensors)


def _held_bytes(tensors: Mapping[str, np.ndarray]) -> int:
    return sum(tensor.nbytes * (_TEXT_TIMES if tensor.dtype == STRING else 1) for tensor in tensors.values())


def _rows_of(inputs: Iterable[TensorSpec], batch_size: int) -> dict[str, Rows]:
    """Return rows to the inputs that may take images of one size."""
    return {
        spec.name: Rows(tuple(size or 0 for size in spec.shape), spec.dtype, batch_size)
        for spec in inputs
        if spec.shape is not None and len(spec.shape) == 3 and None not in spec.shape
    }


class Decode(beam.PTransform):
    """Turns each `Block` into `Examples`; emits these as `examples` and, as `refused`, lists of error results.

    Native tensor requests are decoded by columns where they are alike, all others one by one; images that take long are
    set aside (`beam_serving.io.aside`) and go on with a later `Flush`.

    Tensors of free sizes are batched up to 32 MiB: before one that would be more, a `Flush` ends the batch.

    Args:
        model: the model, whose inputs say what requests become; it is loaded on the worker.
        rules: how images become tensors.
        limits: what a request may hold; one above them gets an error result.
        max_deliveries: an entry that was delivered more often is given up: its error result is also a dead letter.
        batch_size: the rows of the arrays that images of one read batch are decoded into side by side, so that they
            need not be stacked.
        encryption: whether requests are encrypted; by default they are not, and encrypted ones are refused. The secret
            is read where a worker starts.
        timeout_s: seconds; a decoding that takes longer ends the worker process, as an inference does, and its entries
            are delivered again, one by one. By default there is no limit.
        preprocess: the operator's own function of a request's inputs, before they become tensors
            (`beam_serving.transforms.own_steps`); with one, requests are decoded one by one.
    """

    def __init__(
        self,
        model: SharedModel,
        rules: ImageRules,
        limits: Limits,
        max_deliveries: int,
        batch_size: int,
        encryption: RecordEncryption = NOT_ENCRYPTED,
        timeout_s: float = math.inf,
        preprocess: OwnCode | None = None,
    ) -> None:
        super().__init__()
        self._step = _DecodeFn(model, rules, limits, max_deliveries, batch_size, encryption, timeout_s, preprocess)

    def expand(self, entries: beam.PCollection[Block | Flush]) -> Any:  # two collections, which Beam has no type for
        return entries | "Decode" >> beam.ParDo(self._step).with_outputs(REFUSED, main="examples")


class _DecodeFn(beam.DoFn):
    def __init__(
        self,
        model: SharedModel,
        rules: ImageRules,
        limits: Limits,
        max_deliveries: int,
        batch_size: int,
        encryption: RecordEncryption,
        timeout_s: float,
        preprocess: OwnCode | None,
    ) -> None:
        self._own_code = preprocess
        self._timeout_s = timeout_s
        self._encryption = encryption
        self._batch_size = batch_size
        self._model = model
        self._rules = rules
        self._limits = limits
        self._max_deliveries = max_deliveries

    def setup(self) -> None:
        self._inputs = self._model.acquire().model.inputs
        self._rows = _rows_of(self._inputs, self._batch_size)
        self._sizes_are_free = not self._inputs or any(
            spec.shape is None or None in spec.shape for spec in self._inputs
        )
        self._batch_bytes = 0
        self._watchdog = Watchdog(self._timeout_s, "decoding a request")
        self._long_watchdog = Watchdog(self._timeout_s, "decoding a request")
        self._aside: Aside | None = None
        self._preprocess = own_preprocess(self._own_code) if self._own_code else None
        self._decryptor = self._encryption.decryptor()
        context = service_context()
        self._stats, self._consumers = context.stats, context.shared(Consumers)

    def process(self, block: Block | Flush) -> Iterable[Examples | Flush | _Refused]:
        if isinstance(block, Flush):
            yield from self._in_batches(self._finished())
            for rows in self._rows.values():
                rows.end_batch()
            self._batch_bytes = 0
            yield block
        else:
            yield from self._in_batches(self._decoded(block))

    def teardown(self) -> None:
        self._watchdog.close()
        self._long_watchdog.close()

    def _in_batches(self, outcomes: Iterable[Examples | Result]) -> Iterator[Examples | Flush | _Refused]:
        refused: list[Result] = []
        for outcome in outcomes:
            if isinstance(outcome, Result):
                refused.append(outcome)
            else:
                yield from self._in_batch(outcome)
        if refused:
            yield pvalue.TaggedOutput(REFUSED, refused)

    def _finished(self) -> Iterator[Examples | Result]:
        """Yield what became of entries that were set aside."""
        for outcome in self._aside.take() if self._aside else ():
            if isinstance(outcome, Example):
                yield from side_by_side([outcome])
            elif isinstance(outcome, Result):
                yield outcome

    def _decoded(self, block: Block) -> Iterator[Examples | Result]:
        """Yield the examples of a block, those of one form together and as many at a time as a batch may hold."""
        if block.deliveries > self._max_deliveries:
            yield from map(self._give_up, block.entries(range(len(block.ids))))
            return
        alike, places = self._by_columns(block)
        yield from alike
        waiting: list[Example] = []
        waiting_bytes = 0
        for entry in block.entries(places):
            outcome = self._one(entry)
            if outcome is None:
                continue
            if isinstance(outcome, Result):
                yield outcome
                continue
            size = _held_bytes(outcome.tensors)
            if waiting and waiting_bytes + size > _MOST_BATCH_BYTES:
                yield from side_by_side(waiting)
                waiting, waiting_bytes = [], 0
            waiting.append(outcome)
            waiting_bytes += size
        yield from side_by_side(waiting)

    def _by_columns(self, block: Block) -> tuple[list[Examples], Sequence[int]]:
        """Decode what is alike, and give the places of the rest."""
        if self._decryptor is not None or self._preprocess is not None or block.deliveries > 1:
            return [], range(len(block.ids))
        started = time.perf_counter()
        groups, rest = decode_alike(block.fields, self._limits)
        examples = []
        for places, uris, request_ids, columns in groups:
            tensors = None if self._is_too_much(columns) else resolve_columns(columns, self._inputs)
            if tensors is None:
                rest = sorted([*rest, *places])
            else:
                ids = block.ids if len(places) == len(block.ids) else [block.ids[place] for place in places]
                origins = Origins(block.stream, block.consumer, ProtocolVersion.NATIVE, ids, uris, request_ids)
                examples.append(Examples(origins, tensors))
        if decoded := len(block.ids) - len(rest):
            self._stats.stages["decode"].record((time.perf_counter() - started) / decoded, decoded)
        return examples, rest

    def _is_too_much(self, columns: Mapping[str, np.ndarray]) -> bool:
        """Return whether tensors of free sizes could become more at once than a batch of them may hold."""
        return self._sizes_are_free and _WIDEST_BYTES * sum(rows.size for rows in columns.values()) > _MOST_BATCH_BYTES

    def _one(self, entry: Entry) -> "Example | Result | None":
        """Decode one entry; None where it is set aside, since its images take long."""
        if entry.unread:
            uri = entry.fields.get(b"uri")
            return self._refuse(entry, f"{f'request {quote(uri)}' if uri else 'request without uri'}: {entry.unread}")
        self._aside = self._consumers.of(entry.consumer)
        size = sum(map(len, entry.fields.values()))
        if size > _LARGE_BYTES and self._aside and self._aside.busy:
            with self._aside.large:
                return self._whatever_it_takes(entry)
        self._watchdog.since = started = time.perf_counter()
        try:
            payload = decode_request(entry.fields, self._limits, self._decryptor)
            if size <= _LARGE_BYTES and any(
                isinstance(one, Image) and takes_long(one.encoded) for one in payload.inputs.values()
            ):
                return self._long(entry)
            payload = self._preprocessed(payload)
            tensors = tensors_for(payload, self._inputs, self._rules, self._rows)
        except RequestError as err:
            return self._refuse(entry, str(err))
        finally:
            self._watchdog.since = None
        self._stats.stages["decode"].record(time.perf_counter() - started)
        return _example(entry, payload, tensors)

    def _preprocessed(self, payload: Payload) -> Payload:
        return payload if self._preprocess is None else self._preprocess(payload)

    def _long(self, entry: Entry) -> "Example | Result | None":
        if self._aside is None:
            return self._whatever_it_takes(entry)
        if self._aside.put(entry, self._whatever_it_takes):
            return None
        with self._aside.large:
            return self._whatever_it_takes(entry)

    def _whatever_it_takes(self, entry: Entry) -> "Example | Result":
        """Decode an entry that takes long; has its own watchdog, as this may be another thread."""
        started = time.perf_counter()
        try:
            with self._long_watchdog.watch():
                payload = self._preprocessed(decode_request(entry.fields, self._limits, self._decryptor))
                tensors = tensors_for(payload, self._inputs, self._rules)
        except RequestError as err:
            return self._refuse(entry, str(err))
        self._stats.stages["decode"].record(time.perf_counter() - started)
        return _example(entry, payload, tensors)

    def _in_batch(self, examples: Examples) -> Iterable[Examples | Flush]:
        """Yield examples, after the end of the batch where with these it would become too large."""
        if not self._sizes_are_free:
            yield examples
            return
        size, records = _held_bytes(examples.tensors), len(examples.origins.ids)
        step = max(1, records * _MOST_BATCH_BYTES // max(size, 1))
        for low in range(0, records, step):
            part = examples.part(low, min(low + step, records))
            part_bytes = _held_bytes(part.tensors)
            if self._batch_bytes and self._batch_bytes + part_bytes > _MOST_BATCH_BYTES:
                yield Flush()
                self._batch_bytes = 0
            self._batch_bytes += part_bytes
            yield part

    def _give_up(self, entry: Entry) -> Result:
        reason = f"given up after {entry.deliveries - 1} deliveries without a result: it may have ended its workers"
        return self._refuse(entry, reason, dead=True)

    def _refuse(self, entry: Entry, reason: str, dead: bool = False) -> Result:
        """Return the error result; a request without a usable uri can have none, so it becomes a dead letter too."""
        self._stats.counts["refused"] += 1
        identity = identify(entry.fields, self._limits)
        # Of an entry that was not read the dead letter has what Redis holds.
        held: Mapping[bytes, bytes] = {} if entry.unread else entry.fields
        dead_letter = held if dead or not identity.uri else None
        origin = Origin(
            entry.stream,
            entry.entry_id,
            identity.uri,
            identity.protocol,
            identity.request_id,
            entry.consumer,
        )
        stream = entry.stream.decode(errors="replace")
        _log.warning("refused an entry of %r: %s", stream, reason, extra=of_request(origin))
        return Result(origin, Failure(reason, dead_letter))
