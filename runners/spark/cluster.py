"""A Spark cluster on one machine: a master and some workers, started again when they die.

    python runners/spark/cluster.py --workers 2

It runs the Spark that the extra `spark` installs (pyspark) with plain Java. Ctrl-C ends all of it.

On several hosts, run the parts one by one: `--part master` and, on each other host, `--part worker` with the address of
that, `--master spark://HOST:7077`. For a part that is started by hand, `--host` is the address under which the others
reach it.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

PARTS = ("master", "worker")
_MAIN = {"master": "org.apache.spark.deploy.master.Master", "worker": "org.apache.spark.deploy.worker.Worker"}
_OPENED = (
    *(f"java.base/java.{name}" for name in ("lang", "lang.invoke", "lang.reflect", "io", "net", "nio", "util")),
    *(f"java.base/java.util.{name}" for name in ("concurrent", "concurrent.atomic")),
    *(f"java.base/sun.{name}" for name in ("nio.ch", "nio.cs", "security.action", "util.calendar")),
    "java.base/jdk.internal.ref",
)
_CLEAN_EVERY_S = 60
"""An application's folder holds a copy of the job server's jar, 270 MB, and goes this long after it has ended."""
_PR_SET_PDEATHSIG = 1
_RESTART_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts until it is told to stop; gives the exit code."""
    given = _parser().parse_args(arguments)
    if (home := spark_home()) is None:
        print("error: there is no Spark; pip install 'beam-serving[spark]' brings one", file=sys.stderr)
        return 2
    if given.part == "worker" and given.master is None:
        print("error: --part worker wants --master spark://HOST:PORT, where the master is", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="beam-serving-cluster-", ignore_cleanup_errors=True) as own:
        folder = given.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        parts = [_Part(name, index, home, folder, given) for name, index in _wanted(given)]
        try:
            for part in parts:
                part.start()
            _look_after(parts, None if given.part else f"{given.host}:{given.web_port}", _master_of(given))
        except KeyboardInterrupt:
            return 0
        finally:
            for part in reversed(parts):
                part.stop()
    return 0


def spark_home() -> Path | None:
    """Finds the folder of the installed Spark distribution."""
    found = importlib.util.find_spec("pyspark")
    for place in found.submodule_search_locations or () if found else ():
        if list(Path(place, "jars").glob("spark-core_*.jar")):
            return Path(place)
    return None


def _scala_of(home: Path) -> str:
    """Gives the version of Scala that the distribution was built with, as 2.12."""
    (core, *_) = (home / "jars").glob("spark-core_*.jar")
    return core.name.split("_")[1].split("-")[0]


class _Part:
    """One Java process of the cluster, which is started again when it dies."""

    def __init__(self, name: str, index: int, home: Path, folder: Path, given: argparse.Namespace) -> None:
        self.name = name
        self._label = f"{name}-{index}"
        self._log = folder / f"{self._label}.log"
        self._folder = folder / self._label
        self._folder.mkdir(exist_ok=True)
        # Executors are started with it too: in their environment is where they find Spark and keep their files.
        own = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": given.host, "SPARK_LOCAL_DIRS": str(self._folder)}
        self._environment = {**os.environ, **own, "SPARK_SCALA_VERSION": _scala_of(home)}
        self._command = ["java", "-Xmx512m", f"-Djava.io.tmpdir={self._folder}"]
        self._command += [f"--add-opens={place}=ALL-UNNAMED" for place in _OPENED]
        if name == "worker":
            cleaning = {"enabled": "true", "interval": _CLEAN_EVERY_S, "appDataTtl": _CLEAN_EVERY_S}
            self._command += [f"-Dspark.worker.cleanup.{key}={value}" for key, value in cleaning.items()]
        self._command += ["-cp", str(home / "jars" / "*"), _MAIN[name], "--host", given.host]
        if name == "master":
            self._command += ["--port", str(given.port), "--webui-port", str(given.web_port)]
        else:
            self._command += ["--webui-port", "0", "--cores", str(given.cores), "--memory", given.memory]
            self._command += ["--work-dir", str(self._folder / "work"), _master_of(given)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        print(f"{self._label}: process {self.process.pid}, log {self._log}", flush=True)

    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _look_after(parts: Sequence[_Part], web: str | None, master: str) -> None:
    """Starts parts again when they die, and says once when the cluster takes jobs."""
    wanted = sum(part.name == "worker" for part in parts)
    said = web is None
    while True:
        time.sleep(_RESTART_S if said else 0.2)
        for part in parts:
            if part.died():
                print(f"{part.name} died: starting it again", flush=True)
                part.start()
        if not said and web is not None and _workers(web) >= wanted:
            said = True
            print(f"ready: {wanted} workers at {master}, their page is http://{web}", flush=True)


def _workers(web: str) -> int:
    """Gives the workers that the master knows, -1 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{web}/json/", timeout=2) as reply:
            return int(json.load(reply)["aliveworkers"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return -1


def _master_of(given: argparse.Namespace) -> str:
    return given.master or f"spark://{given.host}:{given.port}"


def _wanted(given: argparse.Namespace) -> list[tuple[str, int]]:
    if given.part:
        return [(given.part, 1)]
    return [("master", 1), *(("worker", 1 + at) for at in range(given.workers))]


def _die_with_parent() -> None:
    """Asks the kernel, in the child before it becomes Java, to kill it when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _interrupt(signum: int, frame: object) -> None:
    del signum, frame
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Run a Spark cluster on this machine.",
        epilog="example:\n  python runners/spark/cluster.py --workers 2 --cores 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, default=2, help="how many (%(default)s)")
    parser.add_argument("--cores", type=int, default=1, help="cores of each worker (%(default)s)")
    parser.add_argument("--memory", default="2g", help="memory of each worker (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address under which the parts are reached (%(default)s)")
    parser.add_argument("--port", type=int, default=7077, help="port of the master (%(default)s)")
    parser.add_argument("--web-port", type=int, default=8080, help="port of the master's page (%(default)s)")
    parser.add_argument("--master", help="spark://HOST:PORT of a master on another host")
    parser.add_argument("--folder", type=Path, help="where logs and files are kept; a temporary one where unset")
    parser.add_argument("--part", choices=PARTS, help="run this part alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
