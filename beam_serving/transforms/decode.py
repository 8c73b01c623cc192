"""Decode: from a stream entry to the tensors that the model takes, or to the reason why not."""

import base64
import logging
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from beam_serving.encryption.records import NOT_ENCRYPTED, RecordEncryption
from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec, fits
from beam_serving.models.inputs import fitted
from beam_serving.models.shared import SharedModel
from beam_serving.records import Entry, Example, Failure, Flush, Generation, Image, Origin, Payload, Result
from beam_serving.stats import stats_of_process
from beam_serving.transforms.image import ImageRules, check_together, tensor_of_image
from beam_serving.transforms.image_cost import check_memory
from beam_serving.transforms.rows import Rows
from beam_serving.transforms.watchdog import Watchdog
from beam_serving.wire import Limits, decode_request, identify
from beam_serving.wire.limits import quote
from beam_serving.wire.text import is_text

_log = logging.getLogger(__name__)
REFUSED = "refused"
_MOST_BATCH_BYTES = 32 << 20
_TEXT_TIMES = 8
"""A text takes so many times the eight bytes of its place in an array, or more."""
_WIDEST_BYTES = 16
"""The most that a number takes in any type of a model."""
_NO_ROWS: Mapping[str, Rows] = {}
_Refused: TypeAlias = pvalue.TaggedOutput[Literal["refused"], list[Result]]


def tensors_for(
    payload: Payload, inputs: tuple[TensorSpec, ...], rules: ImageRules, rows: Mapping[str, Rows] = _NO_ROWS
) -> dict[str, np.ndarray]:
    """Gives a request's tensors by the model's input names, in the model's shapes and types.

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
        held = 0 if payload.generation is Generation.NATIVE else _bytes_of(payload)
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
        if payload.generation is not Generation.NATIVE or given.keys() == {""}:
            return zip(inputs, given.values(), strict=True)
    raise RequestError(f"its inputs are {sorted(given)}, the model takes {[spec.name for spec in inputs]}")


def _text(value: Image | np.ndarray, spec: TensorSpec, payload: Payload) -> Image | np.ndarray:
    """Gives text for an input that takes text, where the request has an image or a text that stands alone.

    An Arrow client's text that happens to be base64 was taken for an image: it becomes what it was. A model that
    decodes images itself gets the file as it is.
    """
    if spec.dtype != STRING:
        return value
    if isinstance(value, np.ndarray):
        of_one = _of_one(spec)
        return value.reshape(of_one) if value.ndim == 0 and is_text(value) and fits(of_one, spec.shape) else value
    as_sent = payload.generation is Generation.ARROW
    content = base64.b64encode(value.encoded).decode() if as_sent else value.encoded
    array = np.empty(_of_one(spec), STRING)
    array[...] = content
    return array


def _of_one(spec: TensorSpec) -> tuple[int, ...]:
    """Gives the shape of a tensor with one value."""
    return (1,) * len(spec.shape or ())


def _tensor(value: Image | np.ndarray, spec: TensorSpec, rules: ImageRules, rows: Rows | None, held: int) -> np.ndarray:
    if isinstance(value, Image):
        return tensor_of_image(value.encoded, spec, rules, rows, held)
    if held + _WIDEST_BYTES * value.size > rules.max_decode_bytes and STRING not in (value.dtype, spec.dtype):
        added = spec.dtype.itemsize * value.size if value.dtype != spec.dtype else 0
        check_memory(held + added, rules.max_decode_bytes, f"a tensor of {spec.dtype}")
    return fitted(value, spec)


def _rows_of(inputs: Iterable[TensorSpec], batch_size: int) -> dict[str, Rows]:
    """Gives rows to the inputs that may take images of one size."""
    return {
        spec.name: Rows(tuple(size or 0 for size in spec.shape), spec.dtype, batch_size)
        for spec in inputs
        if spec.shape is not None and len(spec.shape) == 3 and None not in spec.shape
    }


class Decode(beam.PTransform[Any, Any]):
    """Turns each `Entry` into an `Example`; gives these as `examples` and, as `refused`, lists of error results.

    An entry that was delivered more than `max_deliveries` times is given up: its error result is also a dead letter.
    Images of one poll are decoded side by side into arrays of `batch_size` rows, so that they need not be stacked.
    The secret of encrypted records is read where a worker starts. A decoding that takes longer than `timeout_s` ends
    the worker process, as an inference does: its entries are delivered again, one by one.

    Tensors of free sizes are batched up to 32 MB: before one that would be more, a `Flush` ends the batch.
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
    ) -> None:
        super().__init__()
        self._step = _DecodeFn(model, rules, limits, max_deliveries, batch_size, encryption, timeout_s)

    def expand(self, entries: beam.PCollection[Entry | Flush]) -> Any:  # two collections, which Beam has no type for
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
    ) -> None:
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
        self._opening = self._encryption.opening()
        self._stats = stats_of_process()

    def process(self, entry: Entry | Flush) -> Iterable[Example | Flush | _Refused]:
        if isinstance(entry, Flush):
            for rows in self._rows.values():
                rows.end_batch()
            self._batch_bytes = 0
            return (entry,)
        if entry.deliveries > self._max_deliveries:
            return self._give_up(entry)
        if entry.unread:
            return self._refuse(entry, f"request {quote(entry.fields.get(b'uri', b''))}: {entry.unread}")
        self._watchdog.since = started = time.perf_counter()
        try:
            payload = decode_request(entry.fields, self._limits, self._opening)
            tensors = tensors_for(payload, self._inputs, self._rules, self._rows)
        except RequestError as err:
            return self._refuse(entry, str(err))
        finally:
            self._watchdog.since = None
        origin = Origin(
            entry.stream, entry.entry_id, payload.uri, payload.generation, payload.request_id, entry.consumer
        )
        self._stats.stages["decode"].record(time.perf_counter() - started)
        example = Example(origin, tensors)
        return self._in_batch(example) if self._sizes_are_free else (example,)

    def teardown(self) -> None:
        self._watchdog.close()

    def _in_batch(self, example: Example) -> Iterable[Example | Flush]:
        """Gives an example, after the end of the batch where this would become too large."""
        size = sum(
            tensor.nbytes * (_TEXT_TIMES if tensor.dtype == STRING else 1) for tensor in example.tensors.values()
        )
        if self._batch_bytes and self._batch_bytes + size > _MOST_BATCH_BYTES:
            self._batch_bytes = size
            return (Flush(), example)
        self._batch_bytes += size
        return (example,)

    def _give_up(self, entry: Entry) -> Iterable[_Refused]:
        reason = f"given up after {entry.deliveries - 1} deliveries without a result: it may have ended its workers"
        return self._refuse(entry, reason, dead=True)

    def _refuse(self, entry: Entry, reason: str, dead: bool = False) -> Iterable[_Refused]:
        """Gives the error result; a request without a usable uri can have none, so it becomes a dead letter too."""
        self._stats.counts["refused"] += 1
        identity = identify(entry.fields, self._limits)
        _log.warning("refused an entry of %r: %s", entry.stream.decode(errors="replace"), reason)
        # Of an entry that was not read the letter has what Redis holds.
        held: Mapping[bytes, bytes] = {} if entry.unread else entry.fields
        letter = held if dead or not identity.uri else None
        origin = Origin(
            entry.stream,
            entry.entry_id,
            identity.uri,
            identity.generation,
            identity.request_id,
            entry.consumer,
        )
        return (pvalue.TaggedOutput(REFUSED, [Result(origin, Failure(reason, letter))]),)
