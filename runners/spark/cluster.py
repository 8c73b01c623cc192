"""A Spark cluster on one machine: a master and some workers, started again when they die.

    python runners/spark/cluster.py --workers 2

It runs the Spark that the extra `spark` installs (pyspark) with plain Java. Ctrl-C ends all of it.

On several hosts, run the parts one by one: `--part master` and, on each other host, `--part worker` with the address of
that, `--master spark://HOST:7077`. For a part that is started by hand, `--host` is the address under which the others
reach it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from beam_serving.launch.portable.jar import guard_options
from beam_serving.launch.portable.java import LOOPBACK, Part, answer_at, run_cluster_in

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts until it is told to stop; return the exit code."""
    given = _parser().parse_args(arguments)
    if (home := spark_home()) is None:
        print("error: there is no Spark; pip install 'beam-serving[spark]' brings one", file=sys.stderr)
        return 2
    if given.part == "worker" and given.master is None:
        print("error: --part worker wants --master spark://HOST:PORT, where the master is", file=sys.stderr)
        return 2

    def parts_in(folder: Path) -> list[Part]:
        return [_part(name, index, home, folder, given) for name, index in _wanted(given)]

    return run_cluster_in(given.folder, given.host, parts_in, lambda parts: _workers(given, parts))


def spark_home() -> Path | None:
    """Find the folder of the installed Spark distribution."""
    found = importlib.util.find_spec("pyspark")
    for place in found.submodule_search_locations or () if found else ():
        if list(Path(place, "jars").glob("spark-core_*.jar")):
            return Path(place)
    return None


def _scala_of(home: Path) -> str:
    """Return the version of Scala that the distribution was built with, as 2.12."""
    (core, *_) = (home / "jars").glob("spark-core_*.jar")
    return core.name.split("_")[1].split("-")[0]


def _part(name: str, index: int, home: Path, folder: Path, given: argparse.Namespace) -> Part:
    log, own = folder / f"{name}-{index}.log", folder / f"{name}-{index}"
    own.mkdir(exist_ok=True)
    # Executors are started with it too: in their environment is where they find Spark and keep their files.
    environment = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": given.host, "SPARK_LOCAL_DIRS": str(own)}
    environment = {**os.environ, **environment, "SPARK_SCALA_VERSION": _scala_of(home)}
    # By this variable it guards the executors too, which Spark starts with options of its own.
    guard = guard_options(all_ports=given.host == LOOPBACK)
    quoted = [f'"{option}"' for option in guard]
    environment["JAVA_TOOL_OPTIONS"] = " ".join([*quoted, os.environ.get("JAVA_TOOL_OPTIONS", "")]).strip()
    command = ["java", "-Xmx512m", f"-Djava.io.tmpdir={own}"]
    command += [f"--add-opens={place}=ALL-UNNAMED" for place in _OPENED]
    if name == "worker":
        cleaning = {"enabled": "true", "interval": _CLEAN_EVERY_S, "appDataTtl": _CLEAN_EVERY_S}
        command += [f"-Dspark.worker.cleanup.{key}={value}" for key, value in cleaning.items()]
    command += ["-cp", str(home / "jars" / "*"), _MAIN[name], "--host", given.host]
    if name == "master":
        command += ["--port", str(given.port), "--webui-port", str(given.web_port)]
    else:
        command += ["--webui-port", "0", "--cores", str(given.cores), "--memory", given.memory]
        command += ["--work-dir", str(own / "work"), _master_of(given)]
    return Part(name, index, command, log, log, environment)


def _workers(given: argparse.Namespace, parts: Sequence[Part]) -> str | None:
    """Tell how many workers there are, once the master knows all that are started here."""
    if given.part:
        return None
    wanted = sum(part.name == "worker" for part in parts)
    page = f"http://{given.host}:{given.web_port}"
    known = answer_at(f"{page}/json/").get("aliveworkers", -1)
    return f"{wanted} workers at {_master_of(given)}, their page is {page}" if known >= wanted else None


def _master_of(given: argparse.Namespace) -> str:
    return given.master or f"spark://{given.host}:{given.port}"


def _wanted(given: argparse.Namespace) -> list[tuple[str, int]]:
    if given.part:
        return [(given.part, 1)]
    return [("master", 1), *(("worker", 1 + at) for at in range(given.workers))]


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
