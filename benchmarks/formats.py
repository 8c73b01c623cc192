"""Every model format: what the service makes of it, against the plain loop of the format's own framework."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from beam_serving.cli.commands.bench.figures import shown
from beam_serving.cli.tables import aligned
from beam_serving.errors import BeamServingError
from beam_serving.launch.embedded_redis import private_redis
from beam_serving.launch.worker import python_module
from benchmarks import engine_loop, writers
from benchmarks.frameworks import NETWORKS
from benchmarks.processes import program_environment
from benchmarks.rounds import Figures, Plan, measure
from benchmarks.summary import summarise
from benchmarks.targets import (
    PlainLoop,
    Shape,
    Target,
    job_of,
    loop_jobs,
    programs,
    service,
)
from benchmarks.workloads import Workload, one_format
from benchmarks.writers import WRITERS

TARGETS = 5
"""`loop`, `loops`, `service`, and without decoding, on one thread, our engines `auto` and `native`."""

_SPEED = "records_per_s"


def measure_format(form: str, shape: Shape, plan: Plan, on_step: Callable[[str], object]) -> dict[str, Any]:
    """Write the network in one format and measures all targets by turns.

    Raises:
        BeamServingError: the framework cannot write it, or a target does not start.
    """
    with TemporaryDirectory(prefix="beam-serving-bench-") as path, private_redis() as port:
        folder = Path(path)
        workload = one_format(form, _written(form, folder))
        with _targets(workload, shape, port, folder) as all_targets:
            figures = measure(all_targets, plan, on_step)
    return {"title": workload.title, "framework": WRITERS[form].framework, **compared(figures)}


def compared(figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Return the summary with ratios to the faster of the two plain loops, and what `auto` gains over `native`."""
    by_loop = summarise({name: figures[name] for name in ("loop", "loops")})
    baseline = max(by_loop, key=lambda name: float(by_loop[name][_SPEED]["median"]))
    gain = summarise(figures, "native")["auto"][_SPEED] if "native" in figures else None
    return {"baseline": baseline, "targets": summarise(figures, baseline), "gain": gain}


def formats_table(about: Mapping[str, Any]) -> str:
    """Return one row per format; formats whose framework is missing stand last, with what installs it."""
    head = ["format", "own framework", "loop", "loops", "service", "served/own", "auto", "native", "gained"]
    rows = [head, *(_row(form, one) for form, one in about["measured"].items())]
    missing = [f"{form}: not installed; {remedy}" for form, remedy in about["not_installed"].items()]
    return "\n".join([aligned(rows), *missing])


def _row(form: str, about: Mapping[str, Any]) -> list[str]:
    speeds = {name: own[_SPEED] for name, own in about["targets"].items()}
    columns = [shown(speeds[name]["median"]) if name in speeds else "-" for name in ("loop", "loops", "service")]
    engines = [shown(speeds[name]["median"]) if name in speeds else "-" for name in ("auto", "native")]
    gained = f"{about['gain']['ratio']:.2f}" if about["gain"] else "-"
    return [form, about["framework"], *columns, f"{speeds['service']['ratio']:.2f}", *engines, gained]


def _written(form: str, folder: Path) -> Path:
    """Write the network in a process of its own: frameworks are large, chatty, and do not all get along."""
    written = folder / form
    written.mkdir()
    command = [*python_module(writers.__name__), form, str(written)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=program_environment())
    if ended.returncode:
        raise BeamServingError(f"the model of format {form!r} could not be written:\n{ended.stderr[-2000:]}")
    return written


@contextmanager
def _targets(workload: Workload, shape: Shape, port: int, folder: Path) -> Iterator[Sequence[Target]]:
    form = workload.name
    rival = form if form in NETWORKS else "openvino"
    job = job_of(workload, shape, folder) | {"format": rival}
    if rival != form:
        job["model"] = str(_written(rival, folder))
    native = WRITERS[form].engine
    engine = {
        "model": workload.model,
        "input_shape": workload.data.get("shape"),
        "batch_size": shape.batch_size,
        "threads": 1,
    }
    jobs = loop_jobs(job, shape)
    jobs += [(engine_loop.__name__, engine | {"engine": name}) for name in ("auto", native) if name]
    with ExitStack() as stack:
        processes = stack.enter_context(programs(jobs))
        engines = processes[1 + shape.workers :]
        yield [
            PlainLoop("loop", processes[:1]),
            PlainLoop("loops", processes[1 : 1 + shape.workers]),
            stack.enter_context(service(workload, shape, port, folder)),
            *(PlainLoop(name, [one]) for name, one in zip(("auto", "native"), engines, strict=False)),
        ]
