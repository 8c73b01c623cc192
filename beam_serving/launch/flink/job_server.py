"""How Flink's job server is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beam_serving.launch.portable.jar import FLINK, guard_options
from beam_serving.launch.portable.job_server import JobServer

_SETTINGS = """\
# No restarts inside Flink: the supervisor restarts the driver, and with it all that hangs on it.
restart-strategy.type: none
rest.port: 0
"""
_EMBEDDED = """\
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
jobmanager.rpc.address: 127.0.0.1
jobmanager.bind-host: 127.0.0.1
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
web.submit.enable: false
# Nothing is handed over by the blob server, whose own clients would look for it at the host's address.
blob.offload.minsize: 2147483647
"""


def flink_server(java: Sequence[str], jar: Path, cluster: str | None = None) -> JobServer:
    """Start the job server, with a Flink inside or for a cluster."""
    guarded = [*java, *guard_options(jar)]

    def command_in(folder: Path) -> list[str]:
        # An empty folder keeps the configuration of a local installation away.
        conf = folder / "conf"
        conf.mkdir()
        settings = _SETTINGS + ("" if cluster else _EMBEDDED)
        (conf / "flink-conf.yaml").write_text(f"{settings}io.tmp.dirs: {folder}\n", encoding="utf-8")
        own = [f"-Djava.io.tmpdir={folder}", "-jar", str(jar)]
        return [*guarded, *own, "--flink-master", cluster or "[local]", "--flink-conf-dir", str(conf)]

    return JobServer(FLINK, command_in)
