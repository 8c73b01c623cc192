"""What Spark is told: where it is, what a drain gets of it, and the flags of the pipeline."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_serving.config.schema import Spark
from beam_serving.errors import ConfigError
from beam_serving.launch.embedded_redis import listens
from beam_serving.launch.portable.jar import guard_options
from beam_serving.launch.portable.options import ONE_BUNDLE_EACH, QUICK_START, java_of, last_value

_LOCAL = re.compile(r"local(\[\s*(?P<slots>\*|[1-9]\d{0,2})\s*(,\s*\d+\s*)?\])?")
_CLUSTER = re.compile(r"spark://[^\s,:/]+:\d{1,5}(,[^\s,:/]+:\d{1,5})*")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Master:
    """Where a drain runs: `readers` read at a time, `each` of them in one executor; `url` is Spark's own."""

    url: str
    readers: int
    each: int = 1

    @property
    def local(self) -> bool:
        """Whether Spark is inside the job server."""
        return not self.url.startswith("spark://")

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Hosts and ports of a cluster's masters."""
        pairs = (one.rsplit(":", 1) for one in self.url.removeprefix("spark://").split(","))
        return [(host, int(port)) for host, port in pairs]


def master_of(arguments: Sequence[str], spark: Spark, workers: int) -> Master:
    """Return the master that the command line names, else the configuration.

    `local[N]` has N readers, each with a worker process of its own; `local[*]` and `local` leave it to `workers`. On a
    cluster there are as many as its executors have cores for us.

    Raises:
        ConfigError: the master is of another kind, or there is no core for even one executor.
    """
    url = (last_value(arguments, "--spark_master_url") or spark.master).strip()
    if found := _LOCAL.fullmatch(url):
        slots = found["slots"]
        return Master(url, int(slots) if slots not in (None, "*") else workers)
    if _CLUSTER.fullmatch(url) is None:
        raise ConfigError(f"spark: master: wanted local[N] or spark://HOST:PORT, got {url!r}")
    executors = cores_of(spark) // spark.executor_cores
    if executors == 0:
        raise ConfigError(
            f"spark: total_executor_cores is {spark.total_executor_cores}, and each executor wants "
            f"executor_cores: {spark.executor_cores}; no executor could start"
        )
    return Master(url, executors * spark.executor_cores, spark.executor_cores)


def require_master(master: Master) -> None:
    """Check that one of a cluster's masters is there.

    Raises:
        ConfigError: none is.
    """
    if master.local or any(listens(host, port) for host, port in master.addresses):
        return
    raise ConfigError(f"spark: master: nobody answers at {master.url}; is a cluster running there?")


def cores_of(spark: Spark) -> int:
    """Return the cores of all executors together."""
    return spark.total_executor_cores or spark.num_executors * spark.executor_cores


def jar_of(arguments: Sequence[str], spark: Spark) -> str | None:
    """Return the jar that was named: on the command line, else in the configuration."""
    return last_value(arguments, "--spark_job_server_jar") or spark.job_server_jar


def command(
    arguments: Sequence[str], spark: Spark, master: Master, jar: Path, folder: Path, stays: bool = False
) -> list[str]:
    """Return the command of the job server, which is Spark's driver too; what it writes goes into the folder.

    One that `stays` keeps its executors from drain to drain.
    """
    address = _LOOPBACK if master.local else _own_address(master.addresses[0])
    properties = {
        "java.io.tmpdir": folder,
        "spark.local.dir": folder,
        "spark.ui.enabled": "false",
        # Once for each drain Beam's own part warns that its workers hang up.
        "org.slf4j.simpleLogger.defaultLogLevel": "warn",
        "org.slf4j.simpleLogger.log.org.apache.beam": "error",
        "org.slf4j.simpleLogger.showDateTime": "true",
        "spark.driver.host": address,
        "spark.driver.bindAddress": address,
        # Each reader starts from a collection of its own, of one element: more partitions would be empty ones.
        "spark.default.parallelism": 1,
    }
    if stays:
        # Beam's own switch (SparkContextFactory); else each drain is a new application, which takes 20 s on a cluster.
        properties["beam.spark.test.reuseSparkContext"] = "true"
    if not master.local:
        properties |= {
            "spark.executor.memory": spark.executor_memory,
            "spark.executor.cores": spark.executor_cores,
            "spark.executor.instances": spark.num_executors,
            "spark.cores.max": cores_of(spark),
            # Readers are dealt out once, to the executors that are there: so to all of them.
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        }
    # Executors on other hosts come to Spark's own ports; Beam's are for us alone.
    guard = guard_options(jar, all_ports=address == _LOOPBACK)
    options = [f"-Xmx{spark.driver_memory}", *guard, *(f"-D{name}={value}" for name, value in properties.items())]
    # local[N] tries a failed task no second time: its worker is gone, and the driver starts all of it again.
    url = f"local[{master.readers}]" if master.local else master.url
    return [*java_of(arguments, *options), "-jar", str(jar), "--spark-master-url", url]


def flags(name: str, master: Master, job_server: str, environment: Sequence[str]) -> list[str]:
    """Return what we set for the pipeline; flags of the operator come after these and win."""
    return [
        "--runner=SparkRunner",
        f"--job_name={name}",
        f"--spark_master_url={master.url}",
        f"--job_endpoint={job_server}",
        *environment,
        QUICK_START,
        f"--sdk_worker_parallelism={master.readers if master.local else 1}",
        # On a cluster one process serves all cores of an executor, a bundle for each at once. Of several, those that
        # live would keep a dead one in use, and each new try of its task would meet it again.
        *([ONE_BUNDLE_EACH] if master.local else []),
    ]


def _own_address(master: tuple[str, int]) -> str:
    """Return the address under which executors reach us: the one that we have on the way to the master.

    Raises:
        ConfigError: the master's host is unknown.
    """
    host, port = master
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing
            own: str = probe.getsockname()[0]
            return own
    except OSError as err:
        raise ConfigError(f"spark: master: the host {host!r} cannot be found ({err})") from err
