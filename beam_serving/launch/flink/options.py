"""The flags of Beam's Flink runner: what we set, what the operator may set, and what the cluster takes from them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from beam_serving.config.schema import Flink
from beam_serving.errors import ConfigError
from beam_serving.launch.portable.callers import proof, read_secret
from beam_serving.launch.portable.options import (
    JOB_PARAMETER,
    ONE_BUNDLE_EACH,
    PROOF_PARAMETER,
    QUICK_START,
    java_of,
    last_value,
    process_environment,
)
from beam_serving.launch.runner import ClusterFlag

CLUSTER_FLAG = ClusterFlag("--flink_master", "host:port of the cluster; flink: rest of the configuration where unset")
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
    """Return the number of parallel tasks, each with a worker process of its own.

    Raises:
        ConfigError: the flag is no number above 0.
    """
    text = last_value(arguments, "--parallelism")
    if text is None:
        return flink.parallelism or workers
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise ConfigError(f"--parallelism wants a number from 1 to 256, got {text!r}")
    return int(text)


def cluster_of(arguments: Sequence[str], flink: Flink) -> str | None:
    """Return the address of the cluster; None for an embedded Flink.

    Raises:
        ConfigError: there is none, and a flag asks for what only clusters do.
    """
    master = last_value(arguments, "--flink_master") or flink.rest
    if master is not None and master not in EMBEDDED:
        return master
    for flag in ("--environment_type", "--environment_config", "--job_endpoint", "--flink_submit_uber_jar"):
        if any(argument.split("=", 1)[0] == flag for argument in arguments):
            raise ConfigError(f"{flag} is set by the embedded Flink itself; leave it out, or name a cluster")
    return None


def submits_uber_jar(arguments: Sequence[str], flink: Flink) -> bool:
    """Return whether one jar goes to the cluster, instead of a job server of ours talking to it."""
    return flink.uber_jar or "--flink_submit_uber_jar" in arguments


def jar_of(arguments: Sequence[str], flink: Flink) -> str | None:
    """Return the jar that was named: on the command line, else in the configuration."""
    return last_value(arguments, "--flink_job_server_jar") or flink.job_server_jar


def java_for(arguments: Sequence[str], flink: Flink) -> list[str]:
    """Return the program that runs the jar, with its options."""
    return java_of(arguments, flink.java_options)


def embedded_flags(parallelism: int, workers_at: str, job_server: str) -> list[str]:
    """Return what we set for an embedded Flink; flags of the operator come after these and win."""
    own = [f"--job_endpoint={job_server}", "--environment_type=EXTERNAL", f"--environment_config={workers_at}"]
    return [*own, *_flags(parallelism, parallelism, "1.19")]


def cluster_flags(name: str, parallelism: int, slots_each: int, version: str, flink: Flink, job: str) -> list[str]:
    """Return what we set for a cluster whose task managers have `slots_each`; `job` is what its workers are told."""
    own = [f"--job_name={name}", *_flags(parallelism, min(parallelism, slots_each), version), *_workers(flink, job)]
    # What kills a worker heals by starting it again; what no start heals is told, and ended, by whoever submits.
    return [*own, "--number_of_execution_retries=2147483647", "--execution_retry_delay=1000"]


def _workers(flink: Flink, job: str) -> list[str]:
    if flink.worker_pool:
        params = {JOB_PARAMETER: job}
        if flink.worker_pool_secret_file:
            params[PROOF_PARAMETER] = proof(read_secret(flink.worker_pool_secret_file), job)
        pool = {"url": flink.worker_pool, "params": params}
        return ["--environment_type=EXTERNAL", f"--environment_config={json.dumps(pool)}"]
    return process_environment(flink.worker_command, job)


def _flags(parallelism: int, workers_each: int, version: str) -> list[str]:
    return [
        "--runner=FlinkRunner",
        "--streaming",
        f"--flink_version={version}",
        f"--parallelism={parallelism}",
        # Beam's state per key group leaks at each checkpoint of the source, so there are no more groups than tasks.
        f"--max_parallelism={parallelism}",
        f"--sdk_worker_parallelism={workers_each}",
        # A reader is a bundle of its own that lasts for minutes; nothing is gained by waiting for a second element.
        "--max_bundle_size=1",
        "--max_bundle_time_mills=1",
        ONE_BUNDLE_EACH,
        QUICK_START,
    ]
