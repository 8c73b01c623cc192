"""Shows results that are there, and removes them where asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import redis

from beam_serving.cli.answers import Answer, failed, json_line, queue_arguments, table
from beam_serving.cli.arguments import Command, run, with_examples
from beam_serving.cli.place import Configuration, config_option, settings_at, src_option, stream_at, stream_option
from beam_serving.cli.terminal import say
from beam_serving.client import OutputQueue
from beam_serving.client.pending_results import key_of, pattern_of
from beam_serving.client.requests import decode_uri
from beam_serving.config.redis_at import redis_at
from beam_serving.errors import ResultTimeoutError

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings

_SCAN_COUNT = 512


def main(arguments: Sequence[str]) -> int:
    """Print results and return the exit code: 1 when one is an error, or one that was named is not there.

    Raises:
        BeamServingError: Redis does not answer.
    """
    return run(_command, arguments, "beam-serving results")


@with_examples("beam_serving results", "beam_serving results cat.jpg dog.jpg --json --delete")
@click.command(
    cls=Command,
    help="Print the results that are there, of these uris or all of a stream. A result stays for data: result_ttl_s, "
    "unless it is removed.",
)
@click.argument("uris", nargs=-1, metavar="[URI]...")
@click.option("--delete", is_flag=True, help="Remove what is printed.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per result.")
@config_option
@src_option
@stream_option
def _command(
    uris: tuple[str, ...], delete: bool, as_json: bool, config: Configuration, src: Settings | None, stream: str | None
) -> int:
    settings = settings_at(config, src)
    stream, at = stream_at(stream, settings), redis_at(settings)
    with at.reachable() as client, OutputQueue(**queue_arguments(at, stream), by_label=True) as queue:
        if delete and not uris:
            answers: dict[str, Answer] = queue.dequeue()
        else:
            wanted = uris or _there(client, stream)
            found = queue.query_many(wanted, delete=delete)
            # A result may go after its key was seen: only one that was asked for by name is missed.
            answers = {uri: found.get(uri, _missing()) for uri in wanted if uris or uri in found}
    if as_json:
        for uri, answer in answers.items():
            say(json_line(uri, answer))
    else:
        say(table(answers) if answers else f"no results of {stream!r} in Redis at {at}")
    return 1 if failed(answers) else 0


def _there(client: redis.Redis, stream: str) -> list[str]:
    """Return the uris of all results that are there, in their order."""
    prefix = key_of(stream, "*")[:-1]
    keys: Any = client.scan_iter(match=pattern_of(prefix), count=_SCAN_COUNT, _type="hash")
    return sorted(decode_uri(key.removeprefix(prefix)) for key in keys)


def _missing() -> ResultTimeoutError:
    return ResultTimeoutError("there is no result")
