"""Flags of Beam for every engine: what we set, and what we look at of the operator's."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

JOB_VARIABLE = "BEAM_SERVING_JOB"
JOB_PARAMETER = "job"
PROOF_PARAMETER = "proof"
WORKER_PROGRAM = "beam-serving-worker"
ONE_BUNDLE_EACH = "--load_balance_bundles"
"""A bundle goes to a worker that has none; else two readers may meet in one, by the order of the start."""
QUICK_START = "--experiments=disable_logging_submission_environment"
"""Without it Beam runs `pip freeze` at each start."""


def last_value(arguments: Sequence[str], flag: str) -> str | None:
    """Return the value of a flag, written `--flag=value` or `--flag value`; the last one counts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value")
    value: str | None = parser.parse_known_args(list(arguments))[0].value
    return value


def launcher_of(arguments: Sequence[str]) -> str:
    """Return the program that runs the job server's jar."""
    return last_value(arguments, "--job_server_java_launcher") or "java"


def java_of(arguments: Sequence[str], *options: str) -> list[str]:
    """Return that program with our options, and the operator's after them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--job_server_jvm_properties", action="append", default=[])
    properties: list[str] = parser.parse_known_args(list(arguments))[0].job_server_jvm_properties
    return [launcher_of(arguments), *options, *properties]


def process_environment(command: str | None, job: str) -> list[str]:
    """Return the flags that make the hosts of a cluster start this program, or `command`, and tell it the job."""
    # Imported here: `status` looks at flags too, and the worker brings all of the models along.
    from beam_serving.launch.worker import ALLOCATOR

    program = command or str(Path(sys.executable).with_name(WORKER_PROGRAM))
    process = {"command": program, "env": {**ALLOCATOR, JOB_VARIABLE: job}}
    return ["--environment_type=PROCESS", f"--environment_config={json.dumps(process)}"]
