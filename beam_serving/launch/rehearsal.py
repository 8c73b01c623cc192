"""Builds the operator's pipeline once, in a process that then ends: before a service is stopped that still serves.

`python -m beam_serving.launch.rehearsal` reads settings as JSON from standard input. It imports the code that they name
and builds the pipeline, connects to nothing and loads no model; what is wrong is its only output.
"""

from __future__ import annotations

import os
import subprocess
import sys

from beam_serving.config.schema import CODE, Settings
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.io.readers import Readers
from beam_serving.launch.own_pipeline import build_pipeline
from beam_serving.launch.stop import take_output
from beam_serving.launch.worker import EXIT_CONFIG, python_module
from beam_serving.owner import tied
from beam_serving.telemetry.logs import LogOptions, configure_logging

_WITHIN_S = 120.0


def rehearse(settings: Settings) -> None:
    """Make sure that the operator's code can be imported and builds a pipeline; do nothing where there is none.

    Raises:
        ConfigError: it cannot, or takes more than two minutes.
    """
    if not any(map(settings.own_code, CODE)):
        return
    command = python_module("beam_serving.launch.rehearsal")
    try:
        done = subprocess.run(
            command,
            input=settings.model_dump_json(),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_WITHIN_S,
            preexec_fn=tied(),
        )
    except subprocess.TimeoutExpired as err:
        raise ConfigError(f"the code that the configuration names is not imported within {_WITHIN_S:g} s") from err
    if done.returncode:
        raise ConfigError(done.stdout.strip() or f"the code that the configuration names ended with {done.returncode}")


def main() -> int:
    """Import and build; print what is wrong."""
    output = take_output()
    configure_logging(LogOptions("warning"), "rehearsal")
    settings = Settings.model_validate_json(sys.stdin.read())
    try:
        for code in filter(None, map(settings.own_code, CODE)):
            if not callable(code.load()):
                raise ConfigError(f"{code}: is no function")
        if settings.params.pipeline:
            _build(settings)
    except BeamServingError as err:
        os.write(output, str(err).encode())
        return EXIT_CONFIG
    return 0


def _build(settings: Settings) -> None:
    import apache_beam as beam

    from beam_serving.pipeline import steps

    # Measuring a batch size would load the model.
    params = settings.params.model_copy(update={"batch_size": 1})
    serving = steps(settings.model_copy(update={"params": params}), Readers(["rehearsal"]))
    build_pipeline(beam.Pipeline(), serving, settings)


if __name__ == "__main__":
    sys.exit(main())
