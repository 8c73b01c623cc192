"""The command line of the benchmark, and its course."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beam_serving.cli import available_cores
from beam_serving.commands.bench import workloads
from beam_serving.commands.bench.contestants import Shape, contestants
from beam_serving.commands.bench.machine import machine_facts
from beam_serving.commands.bench.processes import require_proc
from beam_serving.commands.bench.rounds import Plan, measure
from beam_serving.commands.bench.summary import plot, require_matplotlib, summarise, table
from beam_serving.embedded import embedded_redis

_CONTESTANTS = 4
_FULL = Plan(rounds=5, seconds=3.0)
_QUICK = Plan(rounds=1, seconds=0.3)
_EXAMPLES = """\
The contestants, each with the same number of threads at work:
  loop         one process without a queue, as many engine threads as workers; every ratio is to it
  loops        as many processes without a queue as workers, one engine thread each
  redis_loop   a hand-written consumer of a Redis stream, as many processes as workers
  service      this service

example:
  python -m beam_serving bench --rounds 7 --json bench.json --plot bench.png
"""


def run(arguments: Sequence[str]) -> int:
    """Runs the benchmark and gives the exit code.

    Raises:
        BeamServingError: a contestant does not start, or loses a record.
    """
    options = _parser().parse_args(arguments)
    require_proc()
    if options.plot:
        require_matplotlib()
    default = _QUICK if options.quick else _FULL
    plan = Plan(options.rounds or default.rounds, default.seconds)
    report: dict[str, Any] = {"machine": machine_facts(), "rounds": plan.rounds, "seconds": plan.seconds}
    print("\n".join(f"{name + ':':24}{value}" for name, value in report["machine"].items()), flush=True)
    names = ["real", "noop"] if options.workload == "all" else [options.workload]
    tqdm.monitor_interval = 0  # no thread of its own beside what is measured
    with tqdm(total=plan.steps(_CONTESTANTS) * len(names), unit="step") as progress:
        report["workloads"] = {name: _measured(name, options, plan, progress) for name in names}
    for about in report["workloads"].values():
        print(f"\n{about['title']}\nbatches of {about['batch_size']}, {about['workers']} workers; ratios to the loop\n")
        print(table(about["contestants"]), flush=True)
    _write(report, options)
    return 0


def _measured(name: str, options: argparse.Namespace, plan: Plan, progress: Any) -> dict[str, Any]:
    """Measures one workload; the progress bar moves with every figure taken."""

    def on_step(what: str) -> None:
        progress.set_description(f"{name}: {what}")
        progress.update()

    progress.set_description(f"{name}: starting")
    with tempfile.TemporaryDirectory(prefix="beam-serving-bench-") as path, embedded_redis() as port:
        folder = Path(path)
        workload = workloads.real(folder) if name == "real" else workloads.noop()
        shape = Shape(options.workers or available_cores(), options.batch_size or workload.batch_size)
        with contestants(workload, shape, port, folder) as all_contestants:
            figures = measure(all_contestants, plan, on_step)
    return {
        "title": workload.title,
        "batch_size": shape.batch_size,
        "workers": shape.workers,
        "contestants": summarise(figures),
    }


def _write(report: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(report, options.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="beam-serving bench",
        description="Measure this service against plain loops on this machine, by turns, with a Redis of its own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workload", choices=("real", "noop", "all"), default="all", help="(%(default)s)")
    parser.add_argument("--rounds", type=_count, help=f"rounds of all contestants ({_FULL.rounds})")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--batch-size", type=_count, help="records in a batch (real: 8, noop: 64)")
    parser.add_argument("--workers", type=_count, help="worker processes (one per core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the medians there")
    return parser


def _count(text: str) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"wants a whole number from 1, got {text!r}")
