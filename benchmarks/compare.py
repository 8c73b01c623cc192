"""The command line of the comparison, and the course of a run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from beam_serving.cli.arguments import Command, with_examples
from beam_serving.cli.arguments import run as run_command
from beam_serving.cli.commands.bench.plot import require_matplotlib
from beam_serving.errors import ConfigError
from beam_serving.launch.embedded_redis import private_redis
from beam_serving.models.cpu import available_cores
from benchmarks import workloads
from benchmarks.formats import TARGETS as FORMAT_TARGETS
from benchmarks.formats import formats_table, measure_format
from benchmarks.machine import machine_facts
from benchmarks.plot import plot
from benchmarks.processes import require_proc
from benchmarks.rounds import Plan, measure
from benchmarks.runners import on_spark, runners
from benchmarks.summary import BASELINE, summarise, table
from benchmarks.targets import Shape, targets
from benchmarks.writers import WRITERS

_TARGETS = 4
_FULL = Plan(rounds=5, seconds=3.0)
_QUICK = Plan(rounds=1, seconds=0.3)
_ALL = ("real", "noop", "formats")
_FORMAT_BATCH = 8
_RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner")
_HELP = """\
Measure this service against plain loops on this machine, by turns, with a Redis of its own.

\b
The targets, each with the same number of threads at work:
  loop         one process without a queue, as many engine threads as
               workers; every ratio is to it
  loops        as many processes without a queue as workers, one engine
               thread each
  redis_loop   a hand-written consumer of a Redis stream, as many processes
               as workers
  service      this service

With --runner the targets are this service on each of the runners named, and every ratio is to the first; the address
of a cluster of Flink or Spark is a runner too. On Spark the queue is drained at intervals: latencies are not measured
where it takes part, and its records/s have the start of a drain in them.

\b
With --workload formats the loops run the framework of the format, each ratio
is to the faster of the two, and two more targets infer without decoding, on
one thread:
  auto         the engine that the service takes
  native       its engine that is the format's own framework
"""


@dataclass(frozen=True)
class Options:
    """What the command line says, by the names of its options."""

    workload: str
    formats: tuple[str, ...]
    runner: tuple[str, ...]
    rounds: int | None
    seconds: int | None
    records: int | None
    quick: bool
    batch_size: int | None
    workers: int | None
    tensor_bytes: int
    json: Path | None
    plot: Path | None


def run(arguments: Sequence[str]) -> int:
    """Run the benchmark and return the exit code.

    Raises:
        ConfigError: an argument is wrong, or something is missing that the run needs.
        BeamServingError: a target does not start, or loses a record.
    """
    return run_command(_command, arguments, "python -m benchmarks")


def _some(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Read names with commas between them."""
    names = tuple(dict.fromkeys(text.split(","))) if text else ()
    for name in names:
        if param.name == "formats" and name not in WRITERS:
            raise click.BadParameter(f"has no format {name!r}, wanted are some of {', '.join(WRITERS)}", ctx, param)
        if param.name == "runner" and name not in _RUNNERS and ":" not in name:
            raise click.BadParameter(f"{name!r} is none of {', '.join(_RUNNERS)} and HOST:PORT", ctx, param)
    return names


_COUNT = click.IntRange(min=1)
_FILE = click.Path(path_type=Path)


@with_examples(
    "benchmarks --rounds 7 --json bench.json --plot bench.png",
    "benchmarks --workload formats --formats onnx,caffe",
    "benchmarks --workload noop --runner DirectRunner,FlinkRunner",
    "benchmarks --workload noop --runner DirectRunner,SparkRunner --records 100000",
)
@click.command(cls=Command, help=_HELP)
@click.option("--workload", type=click.Choice((*_ALL, "all")), default="all", show_default=True)
@click.option("--formats", callback=_some, default=",".join(WRITERS), show_default=True, metavar="A,B")
@click.option(
    "--runner",
    callback=_some,
    metavar="A,B",
    help="This service on some of DirectRunner, FlinkRunner, SparkRunner, HOST:PORT of Flink, spark://HOST:PORT.",
)
@click.option("--rounds", type=_COUNT, help=f"Rounds of all targets ({_FULL.rounds}).")
@click.option("--seconds", type=_COUNT, help=f"Seconds of each measurement ({_FULL.seconds:g}).")
@click.option("--records", type=_COUNT, help="Records of each measurement, in place of seconds.")
@click.option("--quick", is_flag=True, help="One short round, to see that it works.")
@click.option("--batch-size", type=_COUNT, help="Records in a batch (real, formats: 8, noop: 64).")
@click.option("--workers", type=_COUNT, help="Worker processes (one per core).")
@click.option(
    "--tensor-bytes",
    type=click.IntRange(min=4),
    default=workloads.TENSOR_BYTES,
    show_default=True,
    help="Bytes of float32 in a request of noop.",
)
@click.option("--json", type=_FILE, metavar="FILE", help="Write all figures of all rounds there.")
@click.option("--plot", type=_FILE, metavar="FILE.png", help="Draw the medians there.")
def _command(**given: Any) -> int:
    return _compare(Options(**given))


def _compare(options: Options) -> int:
    _require(options)
    default = _QUICK if options.quick else _FULL
    plan = replace(default, rounds=options.rounds or default.rounds, seconds=options.seconds or default.seconds)
    if any(map(on_spark, options.runner or ())):
        plan = replace(plan, in_flight=())
    report: dict[str, Any] = {"machine": machine_facts(), "rounds": plan.rounds, "seconds": plan.seconds}
    print("\n".join(f"{name + ':':24}{value}" for name, value in report["machine"].items()), flush=True)
    names = [name for name in _ALL if options.workload in (name, "all") and not (options.runner and name == "formats")]
    formats = options.formats if "formats" in names else ()
    for_formats = replace(plan, in_flight=(), warm_up_rounds=1)
    steps = plan.steps(len(options.runner or ()) or _TARGETS) * len({*names} - {"formats"})
    steps += for_formats.steps(FORMAT_TARGETS) * len(formats)
    tqdm.monitor_interval = 0  # no thread of its own beside what is measured
    with tqdm(total=steps, unit="step") as progress:
        report["workloads"] = {name: _measured(name, options, plan, progress) for name in names if name != "formats"}
        if formats:
            report["formats"] = _measured_formats(options, for_formats, progress)
    for about in report["workloads"].values():
        shape = f"batches of {about['batch_size']}, {about['workers']} workers"
        print(f"\n{about['title']}\n{shape}; ratios to {about['baseline']}\n")
        print(table(about["targets"]), flush=True)
    if about := report.get("formats"):
        print(f"\n{about['title']}\nbatches of {about['batch_size']}, {about['workers']} workers; records/s\n")
        print(formats_table(about), flush=True)
    _write(report, options)
    return 0


def _require(options: Options) -> None:
    """Raise ConfigError for what would be missing only at the end of a long run."""
    require_proc()
    if options.plot:
        require_matplotlib()
    for path in (options.json, options.plot):
        if path and not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}")


def _measured(name: str, options: Options, plan: Plan, progress: Any) -> dict[str, Any]:
    """Measure one workload; the progress bar moves with every figure taken."""
    progress.set_description(f"{name}: starting")
    with tempfile.TemporaryDirectory(prefix="beam-serving-bench-") as path, private_redis() as port:
        folder = Path(path)
        workload = workloads.real(folder) if name == "real" else workloads.noop(options.tensor_bytes)
        shape = Shape(options.workers or available_cores(), options.batch_size or workload.batch_size, options.records)
        started = (
            runners(options.runner, workload, shape, port, folder)
            if options.runner
            else targets(workload, shape, port, folder)
        )
        with started as all_targets:
            figures = measure(all_targets, plan, partial(_on_step, progress, name))
    return {
        "title": workload.title,
        "batch_size": shape.batch_size,
        "workers": shape.workers,
        "baseline": options.runner[0] if options.runner else BASELINE,
        "targets": summarise(figures, options.runner[0] if options.runner else BASELINE),
    }


def _measured_formats(options: Options, plan: Plan, progress: Any) -> dict[str, Any]:
    """Measure one format after the other; those that are not installed are listed with what installs them."""
    shape = Shape(options.workers or available_cores(), options.batch_size or _FORMAT_BATCH)
    measured: dict[str, dict[str, Any]] = {}
    for form in options.formats:
        end = progress.n + plan.steps(FORMAT_TARGETS)
        if WRITERS[form].installed:
            progress.set_description(f"{form}: writing and starting")
            measured[form] = measure_format(form, shape, plan, partial(_on_step, progress, form))
        # A format may have fewer targets.
        progress.update(end - progress.n)
    return {
        "title": "; ".join(sorted({about.pop("title") for about in measured.values()})) or "no format is installed",
        "batch_size": shape.batch_size,
        "workers": shape.workers,
        "measured": measured,
        "not_installed": {form: WRITERS[form].remedy for form in options.formats if form not in measured},
    }


def _on_step(progress: Any, name: str, what: str) -> None:
    progress.set_description(f"{name}: {what}")
    progress.update()


def _write(report: Mapping[str, Any], options: Options) -> None:
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(report, options.plot)
