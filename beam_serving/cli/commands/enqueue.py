"""Puts files on the queue and, where asked, waits for what becomes of them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from beam_serving.cli.answers import Answer, failed, json_line, queue_arguments, secret_arguments, table
from beam_serving.cli.arguments import LONGEST_S, SECONDS, Command, run, with_examples
from beam_serving.cli.input_files import Inputs, NotUsableError, Row, find, rows_of
from beam_serving.cli.place import Configuration, config_option, settings_at, src_option, stream_at, stream_option
from beam_serving.cli.terminal import progress, say
from beam_serving.client import AsyncOutputQueue, InputQueue
from beam_serving.config.redis_at import redis_at
from beam_serving.errors import (
    BeamServingError,
    ClientError,
    ConfigError,
    ConnectError,
    ImageFileError,
    InputError,
    ResultTimeoutError,
)
from beam_serving.protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings

_MOST_NAMED = 5
_MOST_AT_ONCE = 128
_BYTES_AT_ONCE = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """Queue what the files hold and return the exit code: 1 when some of it was not queued, or has no good result.

    Raises:
        ConfigError: a file is not there, or the secret is missing; nothing was queued.
        BeamServingError: Redis does not answer or has no room.
    """
    return run(_command, arguments, "beam-serving enqueue")


@with_examples(
    "beam_serving enqueue images/*.jpg --wait",
    "beam_serving enqueue images/ --recursive --uri-prefix monday/ --wait --json",
    "beam_serving enqueue measured.csv --src redis-host:6379 --stream serving_stream",
    "beam_serving enqueue samples.npy --by-row --wait",
)
@click.command(
    cls=Command,
    help="Put files on the queue of a service: images, arrays of NumPy (.npy, .npz), rows of JSON lines (.jsonl) and "
    "CSV; also those in folders and of patterns in quotes. The uri of a request is the name of its file, with the "
    "folders below one that is named, and for a row with its line: rows.csv:2.",
    epilog='A line of JSON is {"uri": "a", "NAME OF AN INPUT": [1.5, 2]}, or the only input alone; uri may be left '
    'out, the value of an image is {"path": "cat.jpg"} or {"b64": "..."}, and - reads such lines from standard input. '
    "Of CSV a column uri names the requests. What cannot be sent is told, and does not stop the rest.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-r", "--recursive", is_flag=True, help="Of a folder, take what is in the folders below it, too.")
@click.option("--by-row", is_flag=True, help="Of .npy and .npz, each row along the first axis is a request.")
@click.option("--by-column", is_flag=True, help="Of CSV, each column is an input by its name, not all one tensor.")
@click.option("--uri-prefix", default="", metavar="TEXT", help="What each uri begins with.")
@click.option("--wait", is_flag=True, help="Wait for the results and print them; the exit code is 1 when one failed.")
@click.option(
    "--timeout",
    "timeout_s",
    type=SECONDS,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --wait, give up when no result came for so long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per request or, with --wait, per result.")
@config_option
@src_option
@stream_option
def _command(
    files: tuple[str, ...],
    recursive: bool,
    by_row: bool,
    by_column: bool,
    uri_prefix: str,
    wait: bool,
    timeout_s: float,
    as_json: bool,
    config: Configuration,
    src: Settings | None,
    stream: str | None,
) -> int:
    found = find(files, recursive=recursive)
    if not found.sources:
        raise ConfigError(f"{', '.join(files)}: there is nothing to send{_reasons(found.skipped)}")
    settings = settings_at(config, src)
    stream, at = stream_at(stream, settings), redis_at(settings)
    with at.reachable():
        queue = queue_arguments(at, stream)
    largest = max(settings.data.max_request_bytes, DEFAULT_LIMITS.max_payload_bytes)
    sending = _Sending(uri_prefix, wait=wait, as_json=as_json and not wait)
    rows = (row for source in found.sources for row in rows_of(source, by_row=by_row, by_column=by_column))
    total = found.requests(by_row=by_row)
    with progress(rows, doing="queueing", total=total, unit="requests") as bar:
        sending.send(bar, {**queue, **secret_arguments(settings), "max_request_bytes": largest})
    if found.skipped:
        say(f"skipped {len(found.skipped)}{_reasons(found.skipped)}", to=sys.stderr)
    failed_at_once: dict[str, Answer] = {uri: InputError(f"not queued: {why}") for uri, why in sending.failures}
    if wait:
        answers = failed_at_once | asyncio.run(_collected(sending.request_ids, queue, timeout_s, as_json))
        if as_json:
            for uri, answer in failed_at_once.items():
                say(json_line(uri, answer))
        else:
            say(table(answers))
        return 1 if failed(answers) else 0
    if not as_json:
        say(f"{sending.count} requests queued on {stream!r} of Redis at {at}")
    return 1 if sending.failures else 0


def _reasons(skipped: Sequence[tuple[str, str]]) -> str:
    """Return what was skipped by its reasons, with some names each."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in skipped:
        by_reason.setdefault(reason, []).append(path)
    return "".join(
        f"; {', '.join(paths[:_MOST_NAMED])}{', ...' * (len(paths) > _MOST_NAMED)}: {reason}"
        for reason, paths in by_reason.items()
    )


class _Sending:
    """Queues rows in chunks, and goes on behind one that cannot be sent.

    Attributes:
        count: how many were queued.
        request_ids: those of them by uri, in their order, where they are waited for.
        failures: uri and reason of those that were not.
    """

    def __init__(self, prefix: str, *, wait: bool, as_json: bool) -> None:
        self.count = 0
        self.request_ids: dict[str, str] = {}
        self.failures: list[tuple[str, str]] = []
        self._prefix, self._wait, self._as_json = prefix, wait, as_json
        self._places: dict[str, str] = {}

    def send(self, rows: Iterable[Row], queue: Mapping[str, Any]) -> None:
        """Queue rows as they are read.

        Raises:
            QueueFullError: Redis has no room.
            ConnectError: it cannot be reached, or refuses us.
        """
        with InputQueue(**queue) as requests:
            chunk: list[tuple[Row, Inputs]] = []
            size_bytes = 0
            for row in rows:
                if isinstance(row.inputs, NotUsableError):
                    self._fail(row, str(row.inputs))
                elif (place := self._places.setdefault(row.uri, row.place)) is not row.place:
                    # The result of that name is the other's.
                    self._fail(row, f"its uri {row.uri!r} is that of {place} too", row.place)
                else:
                    chunk.append((row, row.inputs))
                    size_bytes += _size_of(row.inputs)
                if len(chunk) == _MOST_AT_ONCE or size_bytes >= _BYTES_AT_ONCE:
                    self._queue(requests, chunk)
                    chunk, size_bytes = [], 0
            if chunk:
                self._queue(requests, chunk)

    def _queue(self, requests: InputQueue, rows: Sequence[tuple[Row, Inputs]]) -> None:
        """Queue rows at once or, where one of them cannot be sent, one by one."""
        try:
            ids = requests.enqueue_many([(self._prefix + row.uri, inputs) for row, inputs in rows])
        except (InputError, ImageFileError) as err:
            if len(rows) == 1:
                self._fail(rows[0][0], str(err).removesuffix("; the first 0 requests were queued"))
                return
            for one in rows:
                self._queue(requests, [one])
            return
        except BeamServingError as err:
            if not self.count:
                raise
            raise type(err)(f"{err}; {self.count} requests were queued before these") from err
        self.count += len(ids)
        for (row, _), request_id in zip(rows, ids, strict=True):
            if self._wait:
                self.request_ids[self._prefix + row.uri] = request_id
            if self._as_json:
                say(json.dumps({"uri": self._prefix + row.uri, "request_id": request_id}))

    def _fail(self, row: Row, reason: str, name: str | None = None) -> None:
        uri = name or self._prefix + row.uri
        self.failures.append((uri, reason))
        say(f"not queued: {row.place}: {reason}", to=sys.stderr)
        if self._as_json:
            say(json.dumps({"uri": uri, "error": f"not queued: {reason}"}))


def _size_of(inputs: object) -> int:
    """Return about how many bytes of a request are held; of lists a guess."""
    if isinstance(inputs, Mapping):
        return sum(map(_size_of, inputs.values()))
    if isinstance(inputs, np.ndarray):
        return inputs.nbytes
    return len(inputs) if isinstance(inputs, bytes | str) else 8 * len(inputs) if isinstance(inputs, list) else 8


async def _collected(
    requests: Mapping[str, str], queue: Mapping[str, Any], timeout_s: float, as_json: bool
) -> dict[str, Answer]:
    """Wait for all results, show how many have come, and return them in the order of the requests."""
    answers: dict[str, Answer] = {}
    with progress(doing="waiting", total=len(requests)) as bar:
        async with aclosing(_arriving(requests, queue, timeout_s)) as arriving:
            async for uri, answer in arriving:
                answers[uri] = answer
                bar.update()
                if as_json:
                    say(json_line(uri, answer), flush=True)
    return {uri: answers[uri] for uri in requests}


async def _arriving(
    requests: Mapping[str, str], queue: Mapping[str, Any], timeout_s: float
) -> AsyncGenerator[tuple[str, Answer], None]:
    """Yield each result as it comes; what has not come when none came for `timeout_s` is a ResultTimeoutError.

    Raises:
        ConnectError: Redis cannot be reached, or refuses us.
    """
    arrived: asyncio.Queue[tuple[str, Answer]] = asyncio.Queue()
    async with AsyncOutputQueue(**queue, by_label=True) as results:

        async def wait(uri: str, request_id: str) -> None:
            answer: Any
            try:
                answer = await results.query(uri, LONGEST_S, request_id=request_id)
            except ClientError as err:
                answer = err
            arrived.put_nowait((uri, answer))

        waiting = {uri: asyncio.create_task(wait(uri, request_id)) for uri, request_id in requests.items()}
        try:
            while waiting:
                uri, answer = await asyncio.wait_for(arrived.get(), timeout_s)
                if isinstance(answer, ConnectError):
                    raise answer
                del waiting[uri]
                yield uri, answer
        except TimeoutError:
            for uri in waiting:
                yield uri, ResultTimeoutError(f"no result, and none of another request for {timeout_s:g} s")
        finally:
            for task in waiting.values():
                task.cancel()
            await asyncio.gather(*waiting.values(), return_exceptions=True)
