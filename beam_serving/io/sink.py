"""WriteToRedis: a result and the acknowledgement of its entry are one transaction.

One script call per batch writes the result hashes, wakes whoever waits for them (a message on the channel named like
the result's key), acknowledges the entries and takes them off the stream. A crash before it leaves the entries
pending, to be served again; a crash after it loses nothing. A worker that was only slow, and whose entries were taken
over meanwhile, writes nothing for them.

While Redis takes no writes (down, loading, a replica being promoted) the sink waits and tries again: its entries stay
pending and leased, and reading stops with it. A server without memory refuses new requests, and still takes results:
`beam_serving.io.memory` keeps these from growing without end.

With `keep_rows` the same transaction appends each result to the outbox of its stream, from where it goes to files.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.display import DisplayDataItem
from redis.exceptions import RedisError

from beam_serving.connection import RedisAt, backoff, fatal
from beam_serving.errors import ConnectError, ModelError
from beam_serving.io.channel import Argument, Channel, Script
from beam_serving.io.memory import BALANCE
from beam_serving.io.outbox import ROWS
from beam_serving.io.scripts import COMMIT, COMMIT_AND_KEEP
from beam_serving.io.stop import STOP
from beam_serving.records import Failure, Result
from beam_serving.stats import stats_of_process
from beam_serving.wire import encode_result, result_key

_log = logging.getLogger(__name__)
DEAD_LETTERS = b":dead"
"""Appended to a stream's name, it names the stream that keeps what was given up."""


class WriteToRedis(beam.PTransform[Any, Any]):
    """Writes each list of `Result` records and acknowledges their entries, at once or not at all.

    Results live for `result_ttl_s` (0: until they are read). Writing the same result twice is harmless; see the module.
    """

    def __init__(self, at: RedisAt, group: str, result_ttl_s: float, keep_rows: bool = False) -> None:
        super().__init__()
        self._at = at
        self._result_ttl_s = result_ttl_s
        self._step = _CommitFn(at, group, result_ttl_s, keep_rows)

    def expand(self, results: beam.PCollection[list[Result]]) -> beam.PCollection[None]:
        return results | "Commit" >> beam.ParDo(self._step)

    def display_data(self) -> dict[str, Any]:
        return {
            "redis": DisplayDataItem(str(self._at), label="Redis server"),
            "result_ttl_s": DisplayDataItem(self._result_ttl_s, label="Lifetime of a result in seconds"),
        }


class _CommitFn(beam.DoFn):
    def __init__(self, at: RedisAt, group: str, result_ttl_s: float, keep_rows: bool) -> None:
        self._at = at
        self._group = group
        self._ttl_ms = int(result_ttl_s * 1000)
        self._keep_rows = keep_rows
        self._written = Metrics.counter("beam_serving", "results_written")

    def setup(self) -> None:
        self._commit = Script(Channel(self._at.client()), COMMIT_AND_KEEP if self._keep_rows else COMMIT)
        self._stats = stats_of_process()

    def process(self, results: list[Result]) -> Iterable[None]:
        started = time.perf_counter()
        for same_lease in _by_lease(results):
            keys, arguments = commit_arguments(same_lease, self._group, self._ttl_ms)
            if self._keep_rows:
                keys.append(same_lease[0].origin.stream + ROWS)
            written = self._write(keys, arguments)
            BALANCE.written(written < 0, arguments, len(same_lease))
            self._count(same_lease, abs(written))
        self._stats.stages["write"].record(time.perf_counter() - started, len(results))
        return ()

    def teardown(self) -> None:
        self._commit.close()

    def _write(self, keys: Sequence[bytes], arguments: Sequence[Any]) -> int:
        """Runs the script until Redis takes it; a second run after a lost reply finds nothing owned and is harmless."""
        for attempt, wait_s in enumerate(backoff()):
            try:
                return self._commit.run(keys, arguments)
            except RedisError as err:
                if reason := fatal(err):
                    raise ConnectError(f"Redis at {self._at}: {reason}") from err
                if STOP.is_set() and attempt > 0:
                    raise
                if attempt == 0:
                    _log.warning("Redis at %s takes no results (%s); trying again until it does", self._at, err)
                STOP.wait(wait_s)
        raise AssertionError("backoff never ends")

    def _count(self, results: Sequence[Result], written: int) -> None:
        counts = self._stats.counts
        if written < len(results):
            counts["fenced"] += len(results) - written
            _log.warning(
                "%d of %d entries belong to another consumer now: not written", len(results) - written, len(results)
            )
        failures = [result.outcome for result in results if isinstance(result.outcome, Failure)]
        counts["errors"] += len(failures)
        counts["dead"] += sum(failure.dead_letter is not None for failure in failures)
        counts["served"] += written
        self._written.inc(written)


def _by_lease(results: Sequence[Result]) -> Iterable[list[Result]]:
    """Splits results by stream and consumer: a script call can check one lease. Mostly there is one."""
    first = results[0].origin
    if all(result.origin.stream == first.stream and result.origin.consumer == first.consumer for result in results):
        return [list(results)]
    leases: dict[tuple[bytes, bytes], list[Result]] = defaultdict(list)
    for result in results:
        leases[result.origin.stream, result.origin.consumer].append(result)
    return leases.values()


def commit_arguments(results: Sequence[Result], group: str, ttl_ms: int) -> tuple[list[bytes], list[Argument]]:
    """Gives the keys and arguments of the script COMMIT for results of one stream and one consumer."""
    first = results[0].origin
    keys = [first.stream, first.stream + DEAD_LETTERS]
    # The entries of a poll come in the order of their ids.
    last = results[-1].origin
    arguments: list[Argument] = [group, first.consumer, first.entry_id, last.entry_id, ttl_ms]
    for result in results:
        origin, outcome = result
        keys.append(result_key(origin.generation, origin.stream, origin.uri))
        fields = [part for pair in _encoded(result).items() for part in pair] if origin.uri else []
        letter: list[bytes] = []
        if isinstance(outcome, Failure) and outcome.dead_letter is not None:
            letter = [part for pair in outcome.dead_letter.items() for part in pair]
            letter += [b"error", outcome.reason.encode()]
        arguments += [origin.entry_id, len(fields), len(letter), *fields, *letter]
    return keys, arguments


def _encoded(result: Result) -> dict[bytes, bytes]:
    """Gives the fields of a result; an answer that has no form on the wire becomes an error result."""
    try:
        return encode_result(result)
    except ModelError as err:
        _log.warning("the answer to request %r cannot be sent: %s", result.origin.uri[:100], err)
        return encode_result(Result(result.origin, Failure(str(err))))
