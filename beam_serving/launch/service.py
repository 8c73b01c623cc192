"""Serving a model from Python, as the command `serve` does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError
from beam_serving.export.destination import check_output
from beam_serving.launch.beam_flags import check_beam_flags
from beam_serving.launch.runner import Plan, Runner, Spec, all_runners, runner_named
from beam_serving.telemetry.context import service_context
from beam_serving.telemetry.logs import LogOptions, own_logging


@dataclass(frozen=True)
class Planned:
    """A service that is checked and has not started: what is wanted, and how a runner will do it."""

    spec: Spec
    runner: Runner
    plan: Plan

    def run(self) -> int:
        """Serve until the service ends; after a drain, write its results to files where that is configured.

        Returns:
            0, or 1 where a worker had to be killed.

        Raises:
            BeamServingError: it cannot start, or cannot go on for a reason that the operator must fix.
        """
        self.plan.require()
        service_context().stop.clear()  # an earlier service of this process may have been stopped
        code = self.plan.run()
        if code == 0 and self.spec.drain and self.spec.settings.data.output:
            from beam_serving.export.drain import export

            export(self.spec.settings, self.spec.arguments)
        return code


def planned(spec: Spec, runner: str) -> Planned:
    """Check what is wanted, before anything starts.

    Raises:
        ConfigError: the runner is unknown, or cannot do that.
    """
    chosen = runner_named(runner)
    _check_end(spec, chosen, runner)
    if not spec.drain:
        # Without an end there is nothing that could be written when it is reached.
        data = spec.settings.data.model_copy(update={"output": None})
        spec = replace(spec, settings=spec.settings.model_copy(update={"data": data}))
    elif spec.settings.data.output:
        check_output(spec.settings.data.output, spec.arguments)
    return Planned(spec, chosen, chosen.plan(spec))


def _check_end(spec: Spec, runner: Runner, name: str) -> None:
    """Refuse an end that the runner cannot reach, or a source without one that it cannot read."""
    if spec.drain and spec.every_s:
        raise ConfigError("--every drains the queue again and again, and --drain once; leave one out")
    if not runner.endless and not (spec.drain or spec.every_s):
        raise ConfigError(
            f"--runner={name} needs --drain, since {runner.name.removesuffix('Runner')} runs no pipeline whose source "
            "never ends; or --every SECONDS, which drains the queue in every interval"
        )
    if spec.every_s and runner.endless:
        able = ", ".join(one.name for one in all_runners() if not one.endless)
        raise ConfigError(f"--every goes with --runner={able}; {name} serves all the time")


def serve(
    settings: Settings,
    runner: str = "DirectRunner",
    *,
    workers: int | Literal["auto"] | None = None,
    drain: bool = False,
    every_s: float | None = None,
    beam_arguments: Sequence[str] = (),
    log_level: str = "info",
    log_format: str = "text",
) -> int:
    """Serve a model until SIGTERM, Ctrl-C, `beam-serving stop` or, with `drain`, until the queue is empty.

    It handles signals and the log of this process while it runs, so it is for the main thread.

    Args:
        settings: from `load_settings`, or made in code.
        runner: Beam's name of it: DirectRunner, FlinkRunner or SparkRunner.
        workers: worker processes on this machine, "auto" for one per core; None leaves it to the settings.
        drain: end when nothing is queued or pending any more.
        every_s: with SparkRunner, drain again in every interval of so many seconds.
        beam_arguments: flags of Apache Beam, as "--job_name=digits".
        log_level: debug, info, warning or error.
        log_format: text, or json.

    Returns:
        0, or 1 where a worker had to be killed.

    Raises:
        ConfigError: the settings cannot be served, or not by this runner, or this is not the main thread.
        BeamServingError: the service cannot go on for a reason that the operator must fix.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("serve handles the signals of its process, so call it in the main thread")
    log = LogOptions(log_level, log_format)
    with own_logging(log, "service"):
        spec = Spec(settings, tuple(beam_arguments), workers, drain, every_s, log)
        check_beam_flags(spec.arguments, (), runner_named(runner).flags)
        return planned(spec, runner).run()
