"""WriteToRedis: a result and the acknowledgement of its entry are one transaction.

One script call per batch writes the result hashes, wakes whoever waits for them (a message on the channel named like
the result's key), acknowledges the entries and takes them off the stream. A crash before it leaves the entries
pending, to be served again; a crash after it loses nothing. A worker that was only slow, and whose entries were taken
over meanwhile, writes nothing for them.

While Redis takes no writes (down, loading, a replica being promoted) the sink waits and tries again: its entries stay
pending and leased, and reading stops with it. A server without memory refuses new requests, and still takes results:
`beam_serving.io.memory` keeps these from growing without end.

With `keep_outbox` the same transaction appends each result to the outbox of its stream, from where it goes to files.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.display import DisplayDataItem
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from beam_serving.errors import ConnectError, ModelError, printable
from beam_serving.io.memory import Balance
from beam_serving.io.outbox import OUTBOX
from beam_serving.io.scripts import COMMIT, COMMIT_AND_KEEP, COMMIT_RANKED
from beam_serving.protocol import encode_ranked, encode_result
from beam_serving.protocol.limits import MOST_VALUE_BYTES, quote
from beam_serving.records import Failure, ProtocolVersion, Ranked, Result
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import of_request
from beam_serving.transport.channel import Argument, Channel, Script
from beam_serving.transport.connection import RedisAt, fatal, heals
from beam_serving.transport.keys import DEAD_LETTERS, result_key
from beam_serving.transport.retry import retry_until

_log = logging.getLogger(__name__)


class DeadLetters(NamedTuple):
    """How much `<stream>:dead` keeps: the newest within these bounds; what is dropped is counted and logged.

    Attributes:
        records: how many.
        total_bytes: of the names and values of all of them together.
        each_bytes: of those of one, besides its error; what a request had beyond that is cut off, and its field `cut`
            says how many bytes.
    """

    records: int = 10_000
    total_bytes: int = 256 << 20
    each_bytes: int = 1 << 20

    @classmethod
    def of(cls, records: int, total_mb: int) -> "DeadLetters":
        """Return the bounds that the configuration gives; one dead letter has a MiB at most.

        Args:
            records: `data: max_dead_letters`.
            total_mb: `data: max_dead_letters_mb`, in MiB.
        """
        return cls(records, total_mb << 20)


_DEAD_LETTERS = DeadLetters()
_MOST_BYTES = MOST_VALUE_BYTES
"""Of one result, and of one call of the script: half of what Redis takes of a client at once by default."""


class _Written(NamedTuple):
    """What one run of the script did: entries taken off, and what was out of the ordinary."""

    records: int
    without_memory: bool = False
    dropped: int = 0
    lost: str = ""

    @classmethod
    def of(cls, reply: int | list[Any]) -> "_Written":
        """Read the reply of COMMIT."""
        if isinstance(reply, int):
            return cls(abs(reply), reply < 0)
        records, dropped, lost = reply
        return cls(abs(records), records < 0, dropped, lost.decode("utf-8", "backslashreplace"))


class WriteToRedis(beam.PTransform):
    """Writes each `Ranked` or list of `Result` records and acknowledges their entries, at once or not at all.

    Delivery: until its result is written an entry is pending, and is delivered again where its worker ends. Results of
    entries that another consumer has taken over are not written. Writing the same result twice is harmless; see the
    module.

    Args:
        at: the server that the entries were read from.
        group: the consumer group that they were read in.
        result_ttl_s: the lifetime of a result in seconds, to the millisecond; 0 keeps it until it is deleted.
        keep_outbox: append each result to `<stream>:rows` too, in the same transaction, from where it goes to files.
        dead_letters: how much of the requests that were given up is kept, 10,000 letters and 256 MiB of each stream
            where nothing is said.
    """

    def __init__(
        self,
        at: RedisAt,
        group: str,
        result_ttl_s: float,
        keep_outbox: bool = False,
        dead_letters: DeadLetters = _DEAD_LETTERS,
    ) -> None:
        super().__init__()
        self._at = at
        self._result_ttl_s = result_ttl_s
        self._step = _CommitFn(at, group, result_ttl_s, keep_outbox, dead_letters)

    def expand(self, results: beam.PCollection[Ranked | list[Result]]) -> beam.PCollection[None]:
        return results | "Commit" >> beam.ParDo(self._step)

    def display_data(self) -> dict[str, Any]:
        return {
            "redis": DisplayDataItem(str(self._at), label="Redis server"),
            "result_ttl_s": DisplayDataItem(self._result_ttl_s, label="Lifetime of a result in seconds"),
        }


class _CommitFn(beam.DoFn):
    def __init__(
        self, at: RedisAt, group: str, result_ttl_s: float, keep_outbox: bool, dead_letters: DeadLetters
    ) -> None:
        self._at = at
        self._group = group
        self._ttl_ms = int(result_ttl_s * 1000)
        self._keep_outbox = keep_outbox
        self._dead_letters = dead_letters
        self._written = Metrics.counter("beam_serving", "results_written")

    def setup(self) -> None:
        channel = Channel(self._at.client())
        self._commit = Script(channel, COMMIT_AND_KEEP if self._keep_outbox else COMMIT)
        self._commit_ranked = Script(channel, COMMIT_RANKED)
        context = service_context()
        self._stop, self._stats, self._balance = context.stop, context.stats, context.shared(Balance)

    def process(self, results: Ranked | list[Result]) -> Iterable[None]:
        started = time.perf_counter()
        if isinstance(results, Ranked) and (mismatch := _mismatch(results)):
            _log.warning("%s", mismatch, extra=of_request())
            results = results.origins.failed(mismatch)
        if isinstance(results, Ranked):
            records = len(results.origins.ids)
            if not self._write_ranked(results):
                self._commit_apart(results.each())
        else:
            records = len(results)
            for same_lease in _by_lease(results):
                self._commit_apart(same_lease)
        self._stats.stages["write"].record(time.perf_counter() - started, records)
        return ()

    def teardown(self) -> None:
        self._commit.close()

    def _write_ranked(self, ranked: Ranked) -> bool:
        """Commit records by columns; says no where COMMIT has to judge each by itself.

        That is where a record has another owner now, and where something went wrong: whatever came of it, a second try
        that looks at each record is harmless.
        """
        if self._keep_outbox or (given := ranked_arguments(ranked, self._group, self._ttl_ms)) is None:
            return False
        try:
            written: int = self._run(self._commit_ranked, *given)
        except RedisError as err:
            _log.debug("a commit by columns failed, each record is committed by itself: %s", err)
            return False
        if not written:
            return False
        self._balance.written(written < 0, given[1], abs(written))
        self._stats.counts["served"] += abs(written)
        self._written.inc(abs(written))
        return True

    def _commit_apart(self, results: Sequence[Result]) -> None:
        """Commit results of one lease; when Redis refuses them their halves, down to the one that it refuses.

        That one's entry ends as a dead letter: tried unchanged, it would fail indefinitely.

        Raises:
            ConnectError: Redis refuses what the service itself needs.
        """
        try:
            self._write(results)
        except ResponseError as err:
            if len(results) == 1:
                self._give_up(results[0], err)
                return
            middle = len(results) // 2
            self._commit_apart(results[:middle])
            self._commit_apart(results[middle:])

    def _give_up(self, result: Result, err: ResponseError) -> None:
        """Make a dead letter of a request, with an error result where its key is not what is refused."""
        origin = result.origin
        _log.warning(
            "Redis at %s refuses the result of request %s: %s",
            self._at,
            quote(origin.uri),
            err,
            extra=of_request(origin),
        )
        reason = "the result cannot be written to Redis"
        if isinstance(err, NoPermissionError):
            # The key that is checked in its place is one that no request can have.
            origin = origin._replace(uri=b"", protocol=ProtocolVersion.NATIVE)
            reason = f"{reason}: {err}"
        try:
            self._write([Result(origin, Failure(reason, {}))])
        except ResponseError as again:
            raise ConnectError(f"Redis at {self._at}: {fatal(again) or again}") from again

    def _write(self, results: Sequence[Result]) -> None:
        """Run the script until Redis takes it; a second run after a lost reply finds nothing owned and is harmless.

        A command that is too large breaks the connection, again and again, so what is much goes in halves.

        Raises:
            ConnectError: Redis refuses us for good.
            ResponseError: the script fails on these records, and would again.
        """
        keys, arguments = commit_arguments(results, self._group, self._ttl_ms, self._dead_letters)
        if len(results) > 1 and sum(len(one) for one in arguments if isinstance(one, bytes)) > _MOST_BYTES:
            del keys, arguments
            middle = len(results) // 2
            self._write(results[:middle])
            self._write(results[middle:])
            return
        if self._keep_outbox:
            keys.append(results[0].origin.stream + OUTBOX)
        written = retry_until(
            lambda: _Written.of(self._run(self._commit, keys, arguments)),
            heals,
            report=self._report_refusal,
            stop=self._stop,
        )
        # Only the key of a result tells whether there is memory; a dead letter alone is written without asking.
        if written.records and any(result.origin.uri for result in results):
            self._balance.written(written.without_memory, arguments, len(results))
        self._count(results, written)

    def _run(self, script: Script, keys: list[bytes], arguments: list[Argument]) -> Any:
        """Run a script once.

        Raises:
            ConnectError: Redis refuses us for good.
            RedisError: it failed.
        """
        try:
            return script.run(keys, arguments)
        except RedisError as err:
            if (reason := fatal(err)) and not _is_of_a_key(err):
                raise ConnectError(f"Redis at {self._at}: {reason}") from err
            raise

    def _report_refusal(self, err: RedisError) -> None:
        _log.warning("Redis at %s takes no results (%s); trying again until it does", self._at, err)

    def _count(self, results: Sequence[Result], written: _Written) -> None:
        counts = self._stats.counts
        if written.records < len(results):
            counts["fenced"] += len(results) - written.records
            _log.warning(
                "%d of %d entries belong to another consumer now: not written",
                len(results) - written.records,
                len(results),
                extra=of_request(),
            )
        if written.dropped:
            counts["dropped"] += written.dropped
            _log.warning(
                "%d dead letters of %r were dropped, %s: data: max_dead_letters and max_dead_letters_mb bound them",
                written.dropped,
                results[0].origin.stream.decode(errors="replace"),
                written.lost or "the oldest for newer ones",
            )
        failures = [result.outcome for result in results if isinstance(result.outcome, Failure)]
        counts["errors"] += len(failures)
        counts["dead"] += sum(failure.dead_letter is not None for failure in failures)
        counts["served"] += written.records
        self._written.inc(written.records)


def _is_of_a_key(err: RedisError) -> bool:
    """Return whether the user may not touch a key of the script, of which those of results depend on requests."""
    return isinstance(err, NoPermissionError) and "key" in str(err) and "script" not in str(err)


def _mismatch(ranked: Ranked) -> str:
    """Say where an operator's step made other rows than there are records, whose answers would be those of others."""
    records, classes, scores = len(ranked.origins.ids), ranked.classes.shape, ranked.scores.shape
    if len(classes) == 2 and classes == scores and classes[0] == records:
        return ""
    return f"classes of the shape {classes} and scores of {scores} are given, wanted is ({records}, n) of both"


def _by_lease(results: Sequence[Result]) -> Iterable[list[Result]]:
    """Split results by stream and consumer: a script call can check one lease. Mostly there is one."""
    if not results:
        return ()
    first = results[0].origin
    if all(result.origin.stream == first.stream and result.origin.consumer == first.consumer for result in results):
        return [list(results)]
    leases: dict[tuple[bytes, bytes], list[Result]] = defaultdict(list)
    for result in results:
        leases[result.origin.stream, result.origin.consumer].append(result)
    return leases.values()


def commit_arguments(
    results: Sequence[Result], group: str, ttl_ms: int, dead_letters: DeadLetters = _DEAD_LETTERS
) -> tuple[list[bytes], list[Argument]]:
    """Return the keys and arguments of the script COMMIT for results of one stream and one consumer."""
    first = results[0].origin
    keys = [first.stream, first.stream + DEAD_LETTERS]
    # The entries of a read batch come in the order of their ids.
    last = results[-1].origin
    arguments: list[Argument] = [group, first.consumer, first.entry_id, last.entry_id, ttl_ms, *dead_letters]
    for result in results:
        origin, outcome = result
        keys.append(result_key(origin.protocol, origin.stream, origin.uri))
        fields = [part for pair in _encoded(result).items() for part in pair] if origin.uri else []
        dead_letter: list[bytes] = []
        if isinstance(outcome, Failure) and outcome.dead_letter is not None:
            dead_letter = [part for pair in outcome.dead_letter.items() for part in pair]
            reason = printable(outcome.reason).encode()
            dead_letter += [b"error", reason] if dead_letter else [reason]
        # Of a dead letter without fields the script takes those of the entry.
        parts = -1 if len(dead_letter) == 1 else len(dead_letter)
        arguments += [origin.entry_id, len(fields), parts, *fields, *dead_letter]
    return keys, arguments


def ranked_arguments(ranked: Ranked, group: str, ttl_ms: int) -> tuple[list[bytes], list[Argument]] | None:
    """Return the keys and arguments of the script COMMIT_RANKED; None where these results have no such form."""
    origins = ranked.origins
    columns = encode_ranked(ranked)
    if columns is None:
        return None
    keys = [origins.stream, *(result_key(origins.protocol, origins.stream, uri) for uri in origins.uris)]
    head: list[Argument] = [group, origins.consumer, ttl_ms, len(columns), *columns]
    return keys, [*head, *origins.ids, *chain.from_iterable(columns.values())]


def _encoded(result: Result) -> dict[bytes, bytes]:
    """Return the fields of a result, never none; an answer that has no form on the wire becomes an error result."""
    try:
        fields = encode_result(result)
        if (size_bytes := sum(map(len, fields.values()))) > _MOST_BYTES:
            raise ModelError(f"the answer is {size_bytes} bytes as it is sent, at most {_MOST_BYTES} fit into Redis")
        return fields
    except ModelError as err:
        uri = quote(result.origin.uri)
        _log.warning("the answer to request %s cannot be sent: %s", uri, err, extra=of_request(result.origin))
        return encode_result(Result(result.origin, Failure(str(err))))
