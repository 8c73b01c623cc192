"""A first start that tries its model for long: it is found, its streams are its, and it ends when it is asked to."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis

from beam_serving.cli.main import main
from beam_serving.io.ownership import Owner
from beam_serving.telemetry.report import LIFETIME_S, supervised_deployments
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.keys import owner_key
from tests.models.test_format_plugins import installed
from tests.service import Service, await_true

SLOW = """
import threading
from beam_serving.models.formats.registry import Format

FORMAT = Format("matrix", "a matrix of NumPy", (".npy",), {{"numpy": "matrix_format:load"}}, own="numpy")


def load(files, options):
    open({trying!r}, "w").close()
    threading.Event().wait()
"""


@contextmanager
def trying(at: RedisAt, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service whose model is being tried."""
    environment = installed(folder / "packages")
    (folder / "packages" / "matrix_format.py").write_text(SLOW.format(trying=str(folder / "trying")), encoding="utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    model = folder / "model"
    model.mkdir()
    np.save(model / "weights.npy", np.eye(2, dtype=np.float32))
    running = Service(at, folder, {"model": {"path": str(model), "sandbox": "off"}})
    try:
        await_true((folder / "trying").exists, "a trial")
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def is_gone(folder: Path) -> bool:
    """Whether no process has a file of this folder among its arguments."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in command.read_bytes() and command.parent.name != str(os.getpid()):
                return False
        except OSError:
            continue
    return True


def test_stop_ends_a_service_that_tries_its_model(
    at: RedisAt, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trying(at, tmp_path, monkeypatch) as running:
        key = owner_key("serving_stream", "serving")
        # Taken for a minute by the check before; renewed meanwhile, in the name of what is started.
        await_true(lambda: Owner.decode(client.get(key) or b"").deployment, "an owner")  # type: ignore[arg-type]
        assert client.pttl(key) > 1000 * LIFETIME_S, "no worker is there that would renew it"  # type: ignore[operator]
        assert supervised_deployments(client, "tested")
        assert main(["stop", "--config", str(tmp_path / "config.yaml")]) == 0
        assert running.process.wait(10) == 0
        assert "asked to stop: the model is not tried to the end" in running.log
    await_true(lambda: is_gone(tmp_path), "the end of the trial", 10)


def test_a_signal_ends_a_service_that_tries_its_model(
    at: RedisAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trying(at, tmp_path, monkeypatch) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
    await_true(lambda: is_gone(tmp_path), "the end of the trial", 10)
