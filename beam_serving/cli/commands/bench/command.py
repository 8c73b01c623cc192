"""The command line of `bench`, and the course of a run."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beam_serving.cli.answers import queue_arguments, secret_arguments
from beam_serving.cli.arguments import Parser, seconds
from beam_serving.cli.commands.bench.figures import figures, table
from beam_serving.cli.commands.bench.inputs import Inputs, inputs_of_files, inputs_of_model
from beam_serving.cli.commands.bench.load import Load, Measured, Plan
from beam_serving.cli.commands.bench.plot import plot, require_matplotlib
from beam_serving.cli.place import add_config, add_stream, stream_at
from beam_serving.cli.service import service_of_file
from beam_serving.cli.terminal import say
from beam_serving.client import AsyncInputQueue, AsyncOutputQueue
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings, load_settings
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.telemetry.report import ready_key
from beam_serving.transport.connection import RedisAt

_IN_FLIGHT = (1, 8, 64)
_SECONDS = 10.0
_MOST_IN_FLIGHT = 10_000
_MOST_PER_S = 100_000.0
_EXAMPLES = """\
A service that serves already is measured as it runs, beside whatever else it serves; else the one of the configuration
is started and, at the end, stopped. Latencies are those of the Python client: from before a request is queued to its
result in hand. Without --input the model's own inputs are filled with random values.

examples:
  python -m beam_serving bench --config config.yaml --input images/*.jpg
  python -m beam_serving bench --in-flight 1 --in-flight 32 --seconds 30 --json > bench.json
  python -m beam_serving bench --rate 100 --requests 3000 --no-start --plot bench.png
"""


def main(arguments: Sequence[str]) -> int:
    """Measure the service of a configuration and return the exit code: 1 when a request had no good result.

    Raises:
        ConfigError: the configuration or an input cannot be used, or nothing serves and --no-start was given.
        BeamServingError: the service cannot be started, or Redis does not answer.
    """
    given = _parser().parse_args(arguments)
    plans = _plans(given)
    if given.plot:
        require_matplotlib()
        if not given.plot.parent.is_dir():
            raise ConfigError(f"--plot {given.plot}: there is no folder {given.plot.parent}")
    settings = load_settings(given.config)
    of_files = inputs_of_files(given.input) if given.input else None
    at, stream = redis_at(settings), stream_at(given, settings)
    with _serving(settings, at, given) as about:
        sent = of_files or inputs_of_model(settings)
        measured = asyncio.run(_measured(settings, queue_arguments(at, stream), sent.requests, plans))
    report = {"name": settings.name, "redis": str(at), "stream": stream, **about, "inputs": sent.title}
    report["measurements"] = [figures(one) for one in measured]
    say(json.dumps(report) if given.json else table(report))
    if given.plot:
        plot(f"{settings.name}: {settings.model.path}", measured, given.plot)
    return 1 if any(one.failures for one in measured) else 0


def _plans(given: argparse.Namespace) -> list[Plan]:
    if given.rate and given.in_flight:
        raise ConfigError("--rate and --in-flight are two ways to load a service; leave one out")
    span = given.seconds or _SECONDS
    if given.rate:
        return [Plan(1, given.rate, given.requests, span, given.timeout)]
    return [Plan(each, None, given.requests, span, given.timeout) for each in given.in_flight or _IN_FLIGHT]


@contextmanager
def _serving(settings: Settings, at: RedisAt, given: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """Return what the service says of itself; where none serves, start the one of the configuration until the end.

    Raises:
        ConfigError: none serves, and none may be started.
        BeamServingError: it cannot be started.
    """
    with at.reachable() as client:
        there: Any = client.get(ready_key(settings.name))
        if there is None and given.no_start:
            raise ConfigError(
                f"no service {settings.name!r} is ready at Redis {at}; start it, or leave out --no-start, and it is "
                "started for as long as it is measured"
            )
        if there is not None:
            yield {**json.loads(there), "started": False}
            return
        flags = ["--runner", given.runner, "--log-level", "warning"]
        flags += ["--workers", str(given.workers)] if given.workers else []
        with service_of_file(given.config, at, settings.name, flags) as about:
            yield {**about, "started": True}


async def _measured(
    settings: Settings, queue: Mapping[str, Any], requests: Sequence[Inputs], plans: Sequence[Plan]
) -> list[Measured]:
    """Carry out the plans one after the other.

    Raises:
        BeamServingError: none of the inputs is served, or Redis does not answer.
    """
    largest = max(settings.data.max_request_bytes, DEFAULT_LIMITS.max_payload_bytes)
    sending = AsyncInputQueue(**queue, **secret_arguments(settings), max_request_bytes=largest)
    async with sending, AsyncOutputQueue(**queue) as results:
        load = Load(sending, results, requests)
        try:
            warm = await load.warm_up(max(len(requests), plans[0].in_flight), plans[0].timeout_s)
            if not warm.latencies_s:
                reason, _ = warm.failures.most_common(1)[0]
                raise BeamServingError(
                    f"none of {warm.failures.total()} requests is served ({reason}); --input names others"
                )
            return [await _with_progress(load, plan) for plan in plans]
        finally:
            await load.clear()


async def _with_progress(load: Load, plan: Plan) -> Measured:
    total = plan.requests or (round(plan.rate * plan.seconds) if plan.rate else None)
    with tqdm(desc=plan.title, total=total, unit=" requests", leave=False, disable=None) as bar:
        return await load.measure(plan, bar.update)


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving bench",
        description="Measure a service with its own model: records/s, and latencies as percentiles.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_config(parser)
    add_stream(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="what to send by turns: image files, .npy with a tensor, .npz with tensors by input name",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--requests", type=_count, metavar="N", help="requests of each measurement")
    length.add_argument("--seconds", type=seconds, metavar="S", help=f"time of each measurement ({_SECONDS:g})")
    defaults = ", ".join(map(str, _IN_FLIGHT))
    parser.add_argument(
        "--in-flight",
        action="append",
        type=_in_flight,
        metavar="K",
        help=f"keep so many requests in flight; once for each measurement ({defaults})",
    )
    parser.add_argument("--rate", type=_rate, metavar="R", help="begin so many each second, whatever comes back")
    parser.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="S", help="a request has failed after so long (%(default)g)"
    )
    parser.add_argument("--no-start", action="store_true", help="measure what serves, or end with exit code 2")
    parser.add_argument("--runner", default="DirectRunner", help="of a service that is started (%(default)s)")
    parser.add_argument("--workers", type=_count, metavar="N", help="of a service that is started")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the latencies there")
    return parser


def _count(text: str) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"wants a whole number from 1, got {text!r}")


def _in_flight(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= _MOST_IN_FLIGHT:
        return int(text)
    raise argparse.ArgumentTypeError(f"wants a number from 1 to {_MOST_IN_FLIGHT}, got {text!r}")


def _rate(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= _MOST_PER_S:
        raise argparse.ArgumentTypeError(f"wants requests each second, above 0 up to {_MOST_PER_S:g}, got {text!r}")
    return found
