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
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from beam_serving.launch.portable.jar import guard_options
from beam_serving.launch.portable.java import LOOPBACK, Part, answer_at, run_cluster_in

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts until it is told to stop; return the exit code."""
    given = _parser().parse_args(arguments)
    if (home := flink_home()) is None:
        print("error: there is no Flink; pip install 'beam-serving[flink]' brings one", file=sys.stderr)
        return 2

    def parts_in(folder: Path) -> list[Part]:
        return [_part(name, index, home, folder, given) for name, index in _wanted(given)]

    return run_cluster_in(given.folder, given.host, parts_in, lambda parts: _slots(given, parts))


def flink_home() -> Path | None:
    """Find the folder of the installed Flink distribution."""
    found = importlib.util.find_spec("pyflink")
    for place in found.submodule_search_locations or () if found else ():
        if list(Path(place, "lib").glob("flink-dist-*.jar")):
            return Path(place)
    return None


def _part(name: str, index: int, home: Path, folder: Path, given: argparse.Namespace) -> Part:
    log = folder / f"{name}-{index}.log"
    conf = folder / f"{name}-{index}-conf"
    conf.mkdir(exist_ok=True)
    (conf / "config.yaml").write_text((HERE / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    own = _settings_of(name, given, folder)
    command = ["java", f"-Xmx{_HEAP[name]}", *_guard(name, given.host), f"-Dlog.file={log}"]
    command += [f"-Dlog4j.configurationFile={HERE / 'log4j.properties'}"]
    command += [f"--add-opens={place}=ALL-UNNAMED" for place in _OPENED]
    command += ["-cp", str(home / "lib" / "*"), _MAIN[name]]
    if name == "zookeeper":
        settings = conf / "zoo.cfg"
        settings.write_text("".join(f"{key}={value}\n" for key, value in own.items()), encoding="utf-8")
        command.append(str(settings))
    else:
        command += ["--configDir", str(conf), *(f"-D{key}={value}" for key, value in own.items())]
    return Part(name, index, command, log, log.with_suffix(".out"))


def _guard(name: str, host: str) -> list[str]:
    """Return the options by which a part's ports are its own user's and, with all parts here, this machine's.

    With parts on other hosts those are let in: by the address that was named, and at the job manager, which reaches
    itself at localhost too, by any. What Beam opens on a task manager's host for its workers is never theirs.
    """
    if host == LOOPBACK:
        return guard_options()
    return guard_options(all_ports=False) if name == "taskmanager" else []


def _settings_of(name: str, given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return what a part is told beside config.yaml."""
    host, zookeeper = given.host, given.zookeeper or f"{given.host}:{given.zookeeper_port}"
    # The job manager reaches itself at localhost too, where jobs are handed over.
    bind = host if host == LOOPBACK else "0.0.0.0"  # noqa: S104 - an address for other hosts was asked for
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
        "taskmanager.bind-host": host,
        "taskmanager.numberOfTaskSlots": given.slots,
        "taskmanager.cpu.cores": given.slots,
    }


def _slots(given: argparse.Namespace, parts: Sequence[Part]) -> str | None:
    """Tell how many slots there are, once the job manager knows all that are started here."""
    if given.part in ("zookeeper", "taskmanager"):
        return None
    wanted = given.slots * sum(part.name == "taskmanager" for part in parts)
    rest = f"http://{given.host}:{given.rest_port}"
    return f"{wanted} slots at {rest}" if answer_at(f"{rest}/overview").get("slots-total", -1) >= wanted else None


def _wanted(given: argparse.Namespace) -> list[tuple[str, int]]:
    if given.part:
        return [(given.part, 1)]
    return [("zookeeper", 1), ("jobmanager", 1), *(("taskmanager", 1 + at) for at in range(given.task_managers))]


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
