"""A restart and a change of the configuration: requests go on as if nothing were; what cannot serve ends nothing."""

import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import yaml

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.launch.portable.jar import FLINK, SPARK, Engine
from beam_serving.transport.connection import RedisAt
from tests.jars import jar_of
from tests.processes import descendants
from tests.service import DIGITS, Service, await_true, service

PACE_S = 0.02
PATIENCE_S = 20.0
BROKEN: dict[str, dict[str, Any]] = {
    "no model": {"model": {"path": "nothing"}},
    "a model that is none": {"model": {"path": "broken"}},
    "another format": {"model": {"format": "onnx"}},
    "a shape that the model does not compute": {"data": {"shape": "3,31,31"}},
    "labels of another model": {"model": {"labels": "two.txt"}},
    "no labels": {"model": {"labels": "none.txt"}},
    "an unknown key": {"params": {"worker": 2}},
    "code that does not load": {"params": {"pipeline": "dying.py:build"}},
    "a secret that is not there": {"data": {"encryption": "gcm", "secret_file": "none.txt"}},
    "code that fails in a worker": {"params": {"pipeline": "failing.py:build"}},
}
"""Each makes every request fail, were it served."""
FAILING = """\
import sys

from beam_serving import pipeline as built_in


def build(pipeline, serving):
    if sys.modules["__main__"].__spec__.name == "beam_serving.launch.rehearsal":
        built_in.build(pipeline, serving)
    else:
        raise RuntimeError("not here")
"""


class Client:
    """One client that asks all the time, in a thread of its own."""

    def __init__(self, at: RedisAt) -> None:
        self._at = str(at)
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        image = np.zeros((3, 32, 32), np.float32)
        with InputQueue(self._at) as queue, OutputQueue(self._at) as results:
            while not self._stop.wait(PACE_S):
                began = time.perf_counter()
                uri = f"r{len(self.seconds)}"
                try:
                    queue.enqueue(uri, data=image)
                    results.query(uri, timeout_s=PATIENCE_S)
                except Exception as err:  # noqa: BLE001 - whatever it is, it is counted
                    self.failed.append(f"{uri}: {err!r}")
                self.seconds.append(time.perf_counter() - began)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def p99_ms(self, since: int = 0) -> float:
        return 1000 * statistics.quantiles(self.seconds[since:], n=100)[98]


@contextmanager
def asking(at: RedisAt) -> Iterator[Client]:
    client = Client(at)
    try:
        yield client
    finally:
        client.close()


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def changed(folder: Path, change: dict[str, Any]) -> None:
    """Writes the configuration of the service with a change."""
    path = folder / "config.yaml"
    config = yaml.safe_load((folder / "good.yaml").read_text(encoding="utf-8"))
    for section, values in change.items():
        config[section] = {**config[section], **values}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def restart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beam_serving", "restart", "--config", str(folder / "config.yaml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def folder(at: RedisAt, tmp_path: Path) -> Iterator[Path]:
    """The folder of a service of digits, with what breaks it; whatever serves in the end is stopped."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.onnx").write_bytes(b"no model at all")
    (tmp_path / "two.txt").write_text("zero\none\n", encoding="utf-8")
    (tmp_path / "dying.py").write_text("raise RuntimeError('this does not load')\n", encoding="utf-8")
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    yield tmp_path
    subprocess.run(
        [sys.executable, "-m", "beam_serving", "stop", "--config", str(tmp_path / "config.yaml")],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def start(at: RedisAt, folder: Path, *arguments: str) -> Service:
    config: dict[str, Any] = {"model": {"path": str(DIGITS / "model")}, "params": {"workers": 1, "batch_size": 4}}
    running = Service(at, folder, config, *arguments)
    (folder / "good.yaml").write_bytes((folder / "config.yaml").read_bytes())
    running.await_ready()
    return running


def pids(running: Service) -> set[int]:
    return set(running.worker_pids())


def test_a_restart_and_a_change_lose_no_request_and_let_none_fail(at: RedisAt, folder: Path) -> None:
    running = start(at, folder)
    with asking(at) as client:
        first = pids(running)
        changed(folder, {"params": {"batch_size": 2}})
        said = restart(folder, "--detach")
        assert said.returncode == 0, said.stderr
        changes, begin, *_ = said.stdout.splitlines()
        assert changes.startswith("tested: changed since its start: params.batch_size (")
        assert begin == "tested: 2 processes go on until the new ones serve, starting"
        assert said.stdout.endswith("tested: what ran before has ended\n")
        assert running.process.wait(10) == 0
        await_true(lambda: len(pids(running)) == 1, "one worker")
        second = pids(running)
        assert not first & second
        # What changes nothing is a restart all the same.
        assert restart(folder, "--detach").returncode == 0
        await_true(lambda: len(pids(running)) == 1 and not pids(running) & second, "another worker")
        assert running.ready()
        asked = len(client.seconds)
        await_true(lambda: len(client.seconds) > asked + 20, "answers of the last one")
    assert client.failed == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", [FLINK, SPARK], ids=lambda engine: engine.name)
def test_a_restart_of_an_embedded_runner_lets_no_request_fail(engine: Engine, at: RedisAt, folder: Path) -> None:
    jar_of(engine)
    arguments = [f"--runner={engine.name}Runner", *(["--every=1"] if engine is SPARK else [])]
    running = start(at, folder, *arguments)
    with asking(at) as client:
        await_true(lambda: len(client.seconds) > 5, "answers of the first one", 60)
        said = restart(folder, "--detach", *arguments)
        assert said.returncode == 0, said.stderr
        assert said.stdout.endswith("tested: what ran before has ended\n")
        assert running.process.wait(30) == 0
        asked = len(client.seconds)
        await_true(lambda: len(client.seconds) > asked + 5, "answers of the last one", 60)
    assert client.failed == []


def test_what_cannot_serve_ends_nothing(at: RedisAt, folder: Path) -> None:
    running = start(at, folder)
    before = pids(running)
    for what, change in BROKEN.items():
        changed(folder, change)
        said = restart(folder, "--detach")
        assert said.returncode in (1, 2), what
        assert said.stderr.startswith("error: "), (what, said.stderr)
        assert len(said.stderr.splitlines()) == 1, (what, said.stderr)
        assert pids(running) == before, what
        assert running.ready(), what
    assert running.stop() == 0


def test_a_service_that_shall_end_first_goes_on_where_the_new_one_cannot_load(at: RedisAt, folder: Path) -> None:
    running = start(at, folder)
    changed(folder, BROKEN["a shape that the model does not compute"])
    assert restart(folder, "--stop-first", "--detach").returncode == 2
    assert running.ready()
    assert running.stop() == 0


def test_a_hangup_in_a_handover_makes_nobody_ready(at: RedisAt, folder: Path) -> None:
    running = start(at, folder)
    changed(folder, BROKEN["code that fails in a worker"])
    command = [sys.executable, "-m", "beam_serving", "restart", "--config", str(folder / "config.yaml"), "--detach"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in descendants(process.pid):
                if b"--replace" in cmdline(pid):
                    os.kill(pid, signal.SIGHUP)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    assert process.returncode == 2
    assert running.ready()
    assert running.stop() == 0


def test_who_shares_a_name_ends_nobody(at: RedisAt, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"params": {"workers": 1}, "data": {"share": True}}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with service(at, tmp_path / "first", shared) as first:
        with service(at, tmp_path / "second", {**shared, "params": {"workers": 1, "batch_size": 3}}) as second:
            await_true(lambda: "] ready: " in second.log and len(pids(first)) == 2, "two workers")
            asked_twice = second.log.count("older configuration")
        assert asked_twice == 0
        assert first.process.poll() is None


def test_a_supervisor_that_was_killed_is_nobody_to_wait_for(at: RedisAt, folder: Path) -> None:
    running = start(at, folder)
    running.process.kill()
    running.process.wait()
    stop = [sys.executable, "-m", "beam_serving", "stop", "--config", str(folder / "config.yaml")]
    began = time.monotonic()
    ended = subprocess.run(stop, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    assert "did not end" not in ended.stderr
    assert time.monotonic() - began < 15


def test_an_older_configuration_on_the_same_host_is_asked_to_stop(at: RedisAt, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = Service(at, tmp_path / "first", {"params": {"workers": 1}})
    first.await_ready()
    with service(at, tmp_path / "second", {"params": {"workers": 1, "batch_size": 3}}) as second:
        assert first.process.wait(20) == 0
        assert "asked to stop" in first.log
        assert "serves on this host with an older configuration: asking it to stop" in second.log
        assert second.ready()


def test_the_same_configuration_twice_serves_twice(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with (
        service(at, tmp_path / "first", {"params": {"workers": 1}}) as first,
        service(at, tmp_path / "second", {"params": {"workers": 1}}) as second,
    ):
        await_true(lambda: "] ready: " in second.log, "the second one")
        await_true(lambda: len(pids(first)) == 2, "two workers")
        assert second.stop() == 0
        await_true(first.ready, "who goes on says so", 3)
        assert first.process.poll() is None


def test_another_model_under_the_same_name_is_refused_with_both(at: RedisAt, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    digits = str(DIGITS / "model")
    first = Service(at, tmp_path / "first", {"model": {"path": digits}, "params": {"workers": 1}})
    try:
        first.await_ready()
        refused = Service(at, tmp_path / "second", {"params": {"workers": 1}})
        assert refused.process.wait(60) == 2
        where = f"'tested' serves another model already: {digits} (pid {first.process.pid} on "
        assert where in refused.log
        assert "and this one would answer its requests with noop: `restart` replaces it without a gap" in refused.log
        assert first.ready()
        shared = {"params": {"workers": 1}, "data": {"share": True}}
        with service(at, tmp_path / "second", shared):
            await_true(lambda: len(pids(first)) == 2, "two workers")
    finally:
        # Who was killed is in nobody's way, though it has not said that it ended.
        first.process.kill()
        first.process.wait()
    with service(at, tmp_path / "second", {"params": {"workers": 1}}):
        pass


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_a_thousand_restarts_and_changes_fail_no_request(at: RedisAt, folder: Path) -> None:
    choice = random.Random(15)  # noqa: S311 - an order, no secrets
    start(at, folder)
    with asking(at) as client:
        await_true(lambda: len(client.seconds) > 2000, "the undisturbed", 120)
        undisturbed_ms, since = client.p99_ms(), len(client.seconds)
        for number in range(1000):
            broken = choice.random() < 1 / 3
            change = choice.choice([*BROKEN.values()]) if broken else {"params": {"batch_size": choice.randint(1, 8)}}
            changed(folder, change)
            said = restart(folder, "--detach")
            assert (said.returncode != 0) == broken, f"{number}: {change}: {said}"
            if number % 20 == 19:
                disturbed = f"{undisturbed_ms:.2f} ms undisturbed, {client.p99_ms(since):.2f} ms"
                print(
                    f"{number + 1}: {len(client.seconds)} asked, {len(client.failed)} failed, p99 {disturbed}",
                    flush=True,
                )
        assert client.failed == []
        assert client.p99_ms(since) <= 2 * undisturbed_ms
