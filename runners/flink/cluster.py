"""A Flink cluster on one machine: a job manager and some task managers, started again when they die.

    python runners/flink/cluster.py --task-managers 2

It runs the Flink that the extra `flink` installs (apache-flink-libraries) with plain Java. ZooKeeper, which that brings
along, keeps the submitted jobs, so that a job manager that was killed goes on with them. Ctrl-C ends all of it.

On several hosts, run the parts one by one: `--part zookeeper`, `--part jobmanager` and, on each worker host, `--part
taskmanager`, all with the same `--zookeeper HOST:PORT` and a `--folder` that the job managers share. For a part that
is started by hand, `--host` is the address under which the others reach it.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("zookeeper", "jobmanager", "taskmanager")
_MAIN = {
    "zookeeper": "org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.ZooKeeperServerMain",
    "jobmanager": "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
    "taskmanager": "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
}
_HEAP = {"zookeeper": "128m", "jobmanager": "512m", "taskmanager": "512m"}
_OPENED = (
    *(f"java.base/java.{name}" for name in ("lang", "lang.reflect", "net", "io", "nio", "text", "time", "util")),
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
    "java.base/sun.nio.ch",
)
_PR_SET_PDEATHSIG = 1
_RESTART_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts until it is told to stop; gives the exit code."""
    given = _parser().parse_args(arguments)
    if (home := flink_home()) is None:
        print("error: there is no Flink; pip install 'beam-serving[flink]' brings one", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="beam-serving-cluster-") as own:
        folder = given.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        parts = [_Part(name, index, home, folder, given) for name, index in _wanted(given)]
        try:
            for part in parts:
                part.start()
            _look_after(parts, None if given.part in ("zookeeper", "taskmanager") else _rest(given), given.slots)
        except KeyboardInterrupt:
            return 0
        finally:
            for part in reversed(parts):
                part.stop()
    return 0


def flink_home() -> Path | None:
    """Finds the folder of the installed Flink distribution."""
    found = importlib.util.find_spec("pyflink")
    for place in found.submodule_search_locations or () if found else ():
        if list(Path(place, "lib").glob("flink-dist-*.jar")):
            return Path(place)
    return None


class _Part:
    """One Java process of the cluster, which is started again when it dies."""

    def __init__(self, name: str, index: int, home: Path, folder: Path, given: argparse.Namespace) -> None:
        self.name = name
        self._label = f"{name}-{index}"
        self._log = folder / f"{self._label}.log"
        conf = folder / f"{self._label}-conf"
        conf.mkdir(exist_ok=True)
        (conf / "config.yaml").write_text((HERE / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        own = _settings_of(name, given, folder)
        self._command = ["java", f"-Xmx{_HEAP[name]}", f"-Dlog.file={self._log}"]
        self._command += [f"-Dlog4j.configurationFile={HERE / 'log4j.properties'}"]
        self._command += [f"--add-opens={place}=ALL-UNNAMED" for place in _OPENED]
        self._command += ["-cp", str(home / "lib" / "*"), _MAIN[name]]
        if name == "zookeeper":
            settings = conf / "zoo.cfg"
            settings.write_text("".join(f"{key}={value}\n" for key, value in own.items()), encoding="utf-8")
            self._command.append(str(settings))
        else:
            self._command += ["--configDir", str(conf), *(f"-D{key}={value}" for key, value in own.items())]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.with_suffix(".out").open("ab") as out:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
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


def _settings_of(name: str, given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Gives what a part is told beside config.yaml."""
    host, zookeeper = given.host, given.zookeeper or f"{given.host}:{given.zookeeper_port}"
    # The job manager reaches itself at localhost too, where jobs are handed over.
    bind = host if host == "127.0.0.1" else "0.0.0.0"  # noqa: S104 - an address for other hosts was asked for
    if name == "zookeeper":
        data = folder / "zookeeper"
        return {
            "dataDir": data,
            "clientPort": zookeeper.rsplit(":", 1)[1],
            "clientPortAddress": host,
            "tickTime": 2000,
            "admin.enableServer": "false",
        }
    settings: dict[str, object] = {
        "high-availability.type": "zookeeper",
        "high-availability.zookeeper.quorum": zookeeper,
        "high-availability.storageDir": (folder / "jobs").absolute().as_uri(),
        "io.tmp.dirs": folder,
    }
    if name == "jobmanager":
        settings |= {"jobmanager.rpc.address": host, "jobmanager.bind-host": bind, "rest.address": host}
        return settings | {"rest.bind-address": bind, "rest.port": given.rest_port, "web.upload.dir": folder / "jars"}
    return settings | {
        "taskmanager.host": host,
        "taskmanager.bind-host": bind,
        "taskmanager.numberOfTaskSlots": given.slots,
        "taskmanager.cpu.cores": given.slots,
    }


def _look_after(parts: Sequence[_Part], rest: str | None, slots: int) -> None:
    """Starts parts again when they die, and says once when the cluster takes jobs."""
    wanted = slots * sum(part.name == "taskmanager" for part in parts)
    said = rest is None
    while True:
        time.sleep(_RESTART_S if said else 0.2)
        for part in parts:
            if part.died():
                print(f"{part.name} died: starting it again", flush=True)
                part.start()
        if not said and rest is not None and _slots(rest) >= wanted:
            said = True
            print(f"ready: {wanted} slots at http://{rest}", flush=True)


def _slots(rest: str) -> int:
    """Gives the slots that the job manager knows, -1 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{rest}/overview", timeout=2) as reply:
            return int(json.load(reply).get("slots-total", -1))
    except (urllib.error.URLError, OSError, ValueError):
        return -1


def _rest(given: argparse.Namespace) -> str:
    return f"{given.host}:{given.rest_port}"


def _wanted(given: argparse.Namespace) -> list[tuple[str, int]]:
    if given.part:
        return [(given.part, 1)]
    return [("zookeeper", 1), ("jobmanager", 1), *(("taskmanager", 1 + at) for at in range(given.task_managers))]


def _die_with_parent() -> None:
    """Asks the kernel, in the child before it becomes Java, to kill it when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _interrupt(signum: int, frame: object) -> None:
    del signum, frame
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Run a Flink cluster on this machine.",
        epilog="example:\n  python runners/flink/cluster.py --task-managers 2 --slots 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--task-managers", type=int, default=2, help="how many (%(default)s)")
    parser.add_argument("--slots", type=int, default=1, help="parallel tasks of each task manager (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address under which the parts are reached (%(default)s)")
    parser.add_argument("--rest-port", type=int, default=8081, help="port of the REST interface (%(default)s)")
    parser.add_argument("--zookeeper-port", type=int, default=2181, help="port of ZooKeeper (%(default)s)")
    parser.add_argument("--zookeeper", help="HOST:PORT of a ZooKeeper on another host")
    parser.add_argument("--folder", type=Path, help="where logs and jobs are kept; a temporary one where unset")
    parser.add_argument("--part", choices=PARTS, help="run this part alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
