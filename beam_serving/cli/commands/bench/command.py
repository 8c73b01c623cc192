"""The command line of `bench`, and the course of a run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from beam_serving.cli.answers import queue_arguments, secret_arguments
from beam_serving.cli.arguments import SECONDS, Command, json_option, run, with_examples
from beam_serving.cli.commands.bench.figures import figures, table
from beam_serving.cli.commands.bench.inputs import Inputs, inputs_of_files, inputs_of_model
from beam_serving.cli.commands.bench.load import Load, Measured, Plan
from beam_serving.cli.commands.bench.machine import here_and_now
from beam_serving.cli.commands.bench.plot import plot, require_matplotlib
from beam_serving.cli.place import Configuration, config_option, stream_at, stream_option
from beam_serving.cli.service import service_of_file
from beam_serving.cli.terminal import progress, say
from beam_serving.client import AsyncInputQueue, AsyncOutputQueue
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.launch.runner import runner_named
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.telemetry.report import ready_key
from beam_serving.transport.connection import RedisAt

_IN_FLIGHT = (1, 8, 64)
_SECONDS = 10.0
_MOST_IN_FLIGHT = 10_000
_MOST_PER_S = 100_000.0


class _Number(click.ParamType[float]):
    """A number above 0, whole or not, up to a limit."""

    def __init__(self, most: float, kind: type[int] | type[float] = int, wanted: str = "") -> None:
        self.name = "number"
        self._most = most
        self._kind = kind
        self._wanted = wanted

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        try:
            found = self._kind(str(value))
        except ValueError:
            found = 0
        if not 0 < found <= self._most:
            self.fail(f"wants {self._wanted}, got {value!r}", param, ctx)
        return found


_COUNT = _Number(float("inf"), wanted="a whole number from 1")
_MANY = _Number(_MOST_IN_FLIGHT, wanted=f"a number from 1 to {_MOST_IN_FLIGHT}")
_PER_S = _Number(_MOST_PER_S, float, f"requests each second, above 0 up to {_MOST_PER_S:g}")


@dataclass(frozen=True)
class _Starting:
    """How a service is started where none serves: not at all, or with these flags."""

    config: Configuration
    no_start: bool
    runner: str
    workers: int | None


def main(arguments: Sequence[str]) -> int:
    """Measure the service of a configuration and return the exit code: 1 when a request had no good result.

    Raises:
        ConfigError: the configuration or an input cannot be used, or nothing serves and --no-start was given.
        BeamServingError: the service cannot be started, or Redis does not answer.
    """
    return run(_command, arguments, "beam-serving bench")


@with_examples(
    "beam_serving bench --config config.yaml --input images/*.jpg",
    "beam_serving bench --in-flight 1 --in-flight 32 --seconds 30 --json > bench.json",
    "beam_serving bench --rate 100 --requests 3000 --no-start --plot bench.png",
)
@click.command(
    cls=Command,
    help="Measure a service with its own model: records/s, and latencies as percentiles.",
    epilog="A service that serves already is measured as it runs, beside whatever else it serves; else the one of the "
    "configuration is started and, at the end, stopped. Latencies are those of the Python client: from before a "
    "request is queued to its result in hand. Without --input the model's own inputs are filled with random values.",
)
@config_option
@stream_option
@click.option(
    "--input",
    "first",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="What to send by turns: image files, .npy with a tensor, .npz with tensors by input name.",
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="")
@click.option("--requests", type=_COUNT, metavar="N", help="Requests of each measurement.")
@click.option("--seconds", "span_s", type=SECONDS, metavar="S", help=f"Time of each measurement ({_SECONDS:g}).")
@click.option(
    "--in-flight",
    multiple=True,
    type=_MANY,
    metavar="K",
    help=f"Keep so many requests in flight; once for each measurement ({', '.join(map(str, _IN_FLIGHT))}).",
)
@click.option("--rate", type=_PER_S, metavar="R", help="Begin so many each second, whatever comes back.")
@click.option(
    "--timeout",
    "timeout_s",
    type=SECONDS,
    default=60.0,
    show_default=True,
    metavar="S",
    help="A request has failed after so long.",
)
@click.option("--no-start", is_flag=True, help="Measure what serves, or end with exit code 2.")
@click.option("--runner", default="DirectRunner", show_default=True, help="Of a service that is started.")
@click.option("--workers", type=_COUNT, metavar="N", help="Of a service that is started.")
@json_option
@click.option(
    "--plot", "picture", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the latencies there."
)
def _command(
    config: Configuration,
    stream: str | None,
    first: tuple[Path, ...],
    more: tuple[Path, ...],
    requests: int | None,
    span_s: float | None,
    in_flight: tuple[int, ...],
    rate: float | None,
    timeout_s: float,
    no_start: bool,
    runner: str,
    workers: int | None,
    as_json: bool,
    picture: Path | None,
) -> int:
    if more and not first:
        raise ConfigError(f"{more[0]}: name files behind --input; beam-serving bench --help has examples")
    if requests and span_s:
        raise ConfigError("--requests and --seconds are two lengths of a measurement; leave one out")
    if rate and in_flight:
        raise ConfigError("--rate and --in-flight are two ways to load a service; leave one out")
    runner_named(runner)
    span_s = span_s or _SECONDS
    if rate:
        plans = [Plan(1, rate, requests, span_s, timeout_s)]
    else:
        plans = [Plan(each, None, requests, span_s, timeout_s) for each in in_flight or _IN_FLIGHT]
    if picture:
        require_matplotlib()
        if not picture.parent.is_dir():
            raise ConfigError(f"--plot {picture}: there is no folder {picture.parent}")
    settings = config.load()
    of_files = inputs_of_files([*first, *more]) if first else None
    at, stream = redis_at(settings), stream_at(stream, settings)
    with _serving(settings, at, _Starting(config, no_start, runner, workers)) as about:
        sent = of_files or inputs_of_model(settings)
        measured = asyncio.run(_measured(settings, queue_arguments(at, stream), sent.requests, plans))
    measured_on = here_and_now()
    report = {"name": settings.name, "redis": str(at), "stream": stream, **about, "inputs": sent.title}
    report["measured_on"] = measured_on
    report["measurements"] = [figures(one) for one in measured]
    say(json.dumps(report) if as_json else table(report))
    if picture and not plot(f"{settings.name}: {settings.model.path}", measured_on, measured, picture):
        say(f"no request has a good result, so there is nothing to draw in {picture}", to=sys.stderr)
    return 1 if any(one.failures for one in measured) else 0


@contextmanager
def _serving(settings: Settings, at: RedisAt, given: _Starting) -> Iterator[Mapping[str, Any]]:
    """Yield what the service says of itself; where none serves, start the one of the configuration until the end.

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
    with progress(doing=plan.title, total=total, unit="requests") as bar:
        return await load.measure(plan, bar.update)
