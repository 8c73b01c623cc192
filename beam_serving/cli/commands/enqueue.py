"""Puts image files on the queue and, where asked, waits for what becomes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from beam_serving.cli.answers import Answer, failed, json_line, queue_arguments, secret_arguments, table
from beam_serving.cli.arguments import LONGEST_S, SECONDS, Command, run, with_examples
from beam_serving.cli.place import Configuration, config_option, settings_at, src_option, stream_at, stream_option
from beam_serving.cli.terminal import say
from beam_serving.client import AsyncOutputQueue, InputQueue
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError, ClientError, ConfigError, ConnectError, ResultTimeoutError
from beam_serving.protocol.limits import DEFAULT_LIMITS


def main(arguments: Sequence[str]) -> int:
    """Queue the files and return the exit code: 1 when one of those waited for has no result.

    Raises:
        ConfigError: a file is not there, two have the same uri, or the secret is missing; nothing was queued.
        BeamServingError: Redis does not answer or has no room, or a file cannot be read.
    """
    return run(_command, arguments, "beam-serving enqueue")


@with_examples(
    "beam_serving enqueue images/*.jpg --wait",
    "beam_serving enqueue images/*.jpg --uri-prefix monday/ --wait --json",
    "beam_serving enqueue cat.jpg --src redis-host:6379 --stream serving_stream",
)
@click.command(
    cls=Command, help="Put image files on the queue of a service. The uri of a request is the name of its file."
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
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
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per result, as it comes.")
@config_option
@src_option
@stream_option
def _command(
    files: tuple[Path, ...],
    uri_prefix: str,
    wait: bool,
    timeout_s: float,
    as_json: bool,
    config: Configuration,
    src: Settings | None,
    stream: str | None,
) -> int:
    by_uri = _by_uri(files, uri_prefix)
    settings = settings_at(config, src)
    stream, at = stream_at(stream, settings), redis_at(settings)
    with at.reachable():
        queue = queue_arguments(at, stream)
    largest = max(settings.data.max_request_bytes, DEFAULT_LIMITS.max_payload_bytes)
    requests = _queued(by_uri, {**queue, **secret_arguments(settings), "max_request_bytes": largest})
    if wait:
        answers = asyncio.run(_collected(requests, queue, timeout_s, as_json))
        if not as_json:
            say(table(answers))
        return 1 if failed(answers) else 0
    if as_json:
        for uri, request_id in requests.items():
            say(json.dumps({"uri": uri, "request_id": request_id}))
    else:
        say(f"{len(requests)} requests queued on {stream!r} of Redis at {at}")
    return 0


def _by_uri(files: Sequence[Path], prefix: str) -> dict[str, Path]:
    """Return the files by the uris of their requests.

    Raises:
        ConfigError: one is no file, or has the uri of another.
    """
    found: dict[str, Path] = {}
    for path in files:
        uri = prefix + path.name
        if not path.is_file():
            raise ConfigError(f"{path}: {'is no file' if path.exists() else 'there is no such file'}")
        if uri in found:
            raise ConfigError(
                f"{path}: its uri {uri!r} is that of {found[uri]} too; queue them one after the other, "
                "each with a --uri-prefix"
            )
        found[uri] = path
    return found


def _queued(files: Mapping[str, Path], queue: Mapping[str, Any]) -> dict[str, str]:
    """Queue each file, which is read just before, and return the request ids by uri."""
    bar = tqdm(files.items(), desc="queueing", unit="", leave=False, disable=None)
    with bar, InputQueue(**queue) as requests:
        images = ((uri, _content(path)) for uri, path in bar)
        return dict(zip(files, requests.enqueue_many(images), strict=True))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise BeamServingError(f"{path}: cannot be read ({err.strerror})") from err


async def _collected(
    requests: Mapping[str, str], queue: Mapping[str, Any], timeout_s: float, as_json: bool
) -> dict[str, Answer]:
    """Wait for all results, show how many have come, and return them in the order of the requests."""
    answers: dict[str, Answer] = {}
    with tqdm(desc="waiting", total=len(requests), unit="", leave=False, disable=None) as bar:
        async with aclosing(_arriving(requests, queue, timeout_s)) as arriving:
            async for uri, answer in arriving:
                answers[uri] = answer
                bar.update()
                if as_json:
                    with tqdm.external_write_mode():
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
