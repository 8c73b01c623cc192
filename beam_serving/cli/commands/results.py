"""Shows results that are there, and removes them where asked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import redis

from beam_serving.cli.answers import Answer, failed, json_line, queue_arguments, table
from beam_serving.cli.arguments import Parser
from beam_serving.cli.place import add_place, add_stream, settings_at, stream_at
from beam_serving.cli.terminal import say
from beam_serving.client import OutputQueue
from beam_serving.client.pending_results import key_of, pattern_of
from beam_serving.client.requests import decode_uri
from beam_serving.config.redis_at import redis_at
from beam_serving.errors import ResultTimeoutError

_SCAN_COUNT = 512


def main(arguments: Sequence[str]) -> int:
    """Prints results and gives the exit code: 1 when one is an error, or one that was named is not there.

    Raises:
        BeamServingError: Redis does not answer.
    """
    given = _parser().parse_args(arguments)
    settings = settings_at(given)
    stream, at = stream_at(given, settings), redis_at(settings)
    with at.reachable() as client, OutputQueue(**queue_arguments(at, stream), by_label=True) as queue:
        if given.delete and not given.uris:
            answers: dict[str, Answer] = queue.dequeue()
        else:
            uris = given.uris or _there(client, stream)
            found = queue.query_many(uris, delete=given.delete)
            # A result may go after its key was seen: only one that was asked for by name is missed.
            answers = {uri: found.get(uri, _missing()) for uri in uris if given.uris or uri in found}
    if given.json:
        for uri, answer in answers.items():
            say(json_line(uri, answer))
    else:
        say(table(answers) if answers else f"no results of {stream!r} in Redis at {at}")
    return 1 if failed(answers) else 0


def _there(client: redis.Redis, stream: str) -> list[str]:
    """Gives the uris of all results that are there, in their order."""
    prefix = key_of(stream, "*")[:-1]
    keys: Any = client.scan_iter(match=pattern_of(prefix), count=_SCAN_COUNT, _type="hash")
    return sorted(decode_uri(key.removeprefix(prefix)) for key in keys)


def _missing() -> ResultTimeoutError:
    return ResultTimeoutError("there is no result")


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving results",
        description="Print the results that are there, all of a stream where no uri is given.\nA result stays for "
        "data: result_ttl_s, unless it is removed.",
        epilog="examples:\n  python -m beam_serving results\n"
        "  python -m beam_serving results cat.jpg dog.jpg --json --delete",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("uris", nargs="*", metavar="URI", help="uri of a request; all whose results are there")
    parser.add_argument("--delete", action="store_true", help="remove what is printed")
    parser.add_argument("--json", action="store_true", help="print a line of JSON per result")
    add_place(parser)
    add_stream(parser)
    return parser
