"""How Flink's job server is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beam_serving.portable.jar import FLINK
from beam_serving.portable.job_server import JobServer


def flink_server(java: Sequence[str], jar: Path, cluster: str | None = None) -> JobServer:
    """Starts the job server, with a Flink inside or for a cluster."""

    def command_in(folder: Path) -> list[str]:
        # An empty folder keeps the configuration of a local installation away.
        conf = folder / "conf"
        conf.mkdir()
        # No restarts inside Flink: the supervisor restarts the driver, and with it all that hangs on it.
        (conf / "flink-conf.yaml").write_text("restart-strategy.type: none\nrest.port: 0\n", encoding="utf-8")
        return [*java, "-jar", str(jar), "--flink-master", cluster or "[local]", "--flink-conf-dir", str(conf)]

    return JobServer(FLINK, command_in)
