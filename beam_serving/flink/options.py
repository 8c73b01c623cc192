"""The flags of Beam's Flink runner: what we set, what the operator may set, and what the cluster takes from them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_serving.config import Flink
from beam_serving.errors import ConfigError

EMBEDDED = ("[local]", "[auto]")
FLAGS = (
    "--auto_watermark_interval",
    "--checkpoint_timeout_millis",
    "--checkpointing_interval",
    "--checkpointing_mode",
    "--disable_metrics",
    "--execution_retry_delay",
    "--job_check_interval_in_secs",
    "--latency_tracking_interval",
    "--max_bundle_size",
    "--max_bundle_time_mills",
    "--min_pause_between_checkpoints",
    "--number_of_execution_retries",
    "--object_reuse",
    "--operator_chaining",
    "--shutdown_sources_after_idle_ms",
    "--state_backend",
    "--state_backend_storage_path",
)
"""Flags that Beam's Python side learns from the job server only once that runs."""


def parallelism_of(arguments: Sequence[str], flink: Flink, workers: int) -> int:
    """Gives the number of parallel tasks, each with a worker process of its own.

    Raises:
        ConfigError: the flag is no number above 0.
    """
    text = _last(arguments, "--parallelism")
    if text is None:
        return flink.parallelism or workers
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise ConfigError(f"--parallelism wants a number from 1 to 256, got {text!r}")
    return int(text)


def require_embedded(arguments: Sequence[str]) -> None:
    """Refuses what the embedded Flink does not do.

    Raises:
        ConfigError: the flags name a cluster, or workers that are not ours.
    """
    master = _last(arguments, "--flink_master")
    if master is not None and master not in EMBEDDED:
        raise ConfigError(f"--flink_master={master}: clusters are not served yet; leave the flag out")
    for flag in ("--environment_type", "--environment_config", "--job_endpoint", "--flink_submit_uber_jar"):
        if any(argument.split("=", 1)[0] == flag for argument in arguments):
            raise ConfigError(f"{flag} is set by the embedded Flink itself; leave it out")


def jar_of(arguments: Sequence[str], flink: Flink) -> str | None:
    """Gives the jar that was named: on the command line, else in the configuration."""
    return _last(arguments, "--flink_job_server_jar") or flink.job_server_jar


def launcher_of(arguments: Sequence[str]) -> str:
    """Gives the program that runs the jar."""
    return _last(arguments, "--job_server_java_launcher") or "java"


def java_of(arguments: Sequence[str], flink: Flink) -> list[str]:
    """Gives that program with its options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--job_server_jvm_properties", action="append", default=[])
    properties: list[str] = parser.parse_known_args(list(arguments))[0].job_server_jvm_properties
    return [launcher_of(arguments), flink.java_options, *properties]


def our_flags(parallelism: int, workers_at: str, job_server: str) -> list[str]:
    """Gives what we set; flags of the operator come after these and win."""
    return [
        "--runner=FlinkRunner",
        "--streaming",
        "--flink_version=1.19",
        f"--job_endpoint={job_server}",
        "--environment_type=EXTERNAL",
        f"--environment_config={workers_at}",
        f"--parallelism={parallelism}",
        # Beam's state per key group leaks at each checkpoint of the source, so there are no more groups than tasks.
        f"--max_parallelism={parallelism}",
        f"--sdk_worker_parallelism={parallelism}",
        # A bundle goes to a worker that has none; else two readers may meet in one, by the order of the start.
        "--load_balance_bundles",
        # A reader is a bundle of its own that lasts for minutes; nothing is gained by waiting for a second element.
        "--max_bundle_size=1",
        "--max_bundle_time_mills=1",
        # Without it Beam runs `pip freeze` at each start.
        "--experiments=disable_logging_submission_environment",
    ]


def _last(arguments: Sequence[str], flag: str) -> str | None:
    """Gives the value of a flag, written `--flag=value` or `--flag value`; the last one counts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value")
    value: str | None = parser.parse_known_args(list(arguments))[0].value
    return value
