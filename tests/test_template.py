"""The process that workers are copies of: what it holds, what ends with it, and what serves without it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.transport.connection import RedisAt
from tests.models.onnx_files import FLOAT, node, saved
from tests.processes import descendants
from tests.service import DIGITS, Service, await_true, service
from tests.test_faults import TENSOR, await_half, queue_records, results

TWO_WORKERS = {"model": {"path": str(DIGITS / "model")}, "params": {"workers": 2, "batch_size": 8}}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])


def template_of(running: Service) -> int:
    (template,) = {parent_of(pid) for pid in running.worker_pids()}
    assert b"beam_serving.launch.template" in Path(f"/proc/{template}/cmdline").read_bytes()
    return template


def lives(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    return False


def open_files(pid: int) -> list[str]:
    return sorted(os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())


def assert_served(client: redis.Redis, uri: str) -> None:
    client.xadd("serving_stream", {"uri": uri, **TENSOR})
    await_true(lambda: client.exists(f"cluster-serving_serving_stream:{uri}"), f"a result for {uri}", 30)


def test_workers_are_copies_of_a_process_with_one_thread_and_one_socket(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, TWO_WORKERS) as running:
        template = template_of(running)
        assert parent_of(template) == running.process.pid
        assert len(running.worker_pids()) == 2
        assert len(list(Path(f"/proc/{template}/task").iterdir())) == 1
        held = [name for name in open_files(template) if name.startswith(("socket", "/"))]
        assert [name for name in held if not name.startswith("socket")] == ["/dev/null"] * 2 + [str(running.log_path)]
        assert len(held) == 4
        for pid in running.worker_pids():
            # Neither the socket of the original nor its hold on the other workers.
            assert not [name for name in open_files(pid) if "pidfd" in name]
            assert os.getsid(pid) == pid
        assert_served(client, "a")
        # What libraries log while they are imported is no affair of the operator's.
        assert all(
            re.match(r"[-\d]+ [:,\d]+ \w+ \[(service|worker \d)\] ", line) for line in running.log.splitlines()
        ), running.log


DICE = """
import random, sys
import numpy
from beam_serving.launch import template, worker
template._IMPORTS = ()
worker.main = lambda: print(sys.stdin.read(), random.random(), numpy.random.random(), flush=True) or 7
sys.exit(template.main())
"""


def test_each_copy_has_its_own_files_its_own_chance_and_tells_its_exit_code() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, subprocess.Popen([sys.executable, "-c", DICE], stdin=theirs.fileno()) as original:
        ours.send(b'{"import": ["no_such_module"]}')
        assert "No module named 'no_such_module'" in json.loads(ours.recv(4096))["ready"]
        said = []
        for number in range(3):
            told, job = os.pipe()
            output, stdout = os.pipe()
            os.write(job, b"job %d" % number)
            socket.send_fds(ours, [b'{"fork": 1}'], [told, stdout])
            message, (watched,), _, _ = socket.recv_fds(ours, 4096, 1)
            for descriptor in (told, stdout, job):
                os.close(descriptor)
            with os.fdopen(output) as text:
                said.append(text.read().split())
            pid = json.loads(message)["forked"]
            assert json.loads(ours.recv(4096)) == {"ended": pid, "code": 7}
            with pytest.raises(ProcessLookupError):
                signal.pidfd_send_signal(watched, signal.SIGTERM)
            os.close(watched)
        assert [words[:2] for words in said] == [["job", "0"], ["job", "1"], ["job", "2"]]
        assert len({number for words in said for number in words[2:]}) == 6
        ours.close()
        assert original.wait(10) == 0


def test_the_successor_of_a_killed_worker_is_a_copy_too(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    with service(at, tmp_path, TWO_WORKERS) as running:
        template, (killed, other) = template_of(running), running.worker_pids()
        os.kill(killed, signal.SIGKILL)
        await_true(lambda: len({*running.worker_pids()} - {killed, other}) == 1, "a successor")
        running.await_ready()
        assert template_of(running) == template
        assert "died (signal SIGKILL): starting it again" in running.log
        assert_served(client, "a")
        assert running.stop() == 0


def test_nothing_of_a_killed_service_is_left(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    with service(at, tmp_path, {"params": {"workers": 2, "batch_size": 8}}) as running:
        pids = descendants(running.process.pid)
        assert len(pids) == 3
        queue_records(client)
        await_half(client)
        running.process.kill()
        await_true(lambda: not any(map(lives, pids)), "the end of all processes", 20)
        # They were asked to end, not killed: what was in flight is finished.
        assert client.xpending("serving_stream", "serving")["pending"] == 0


def test_a_killed_template_takes_its_workers_with_it_and_is_replaced(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, TWO_WORKERS) as running:
        template, killed = template_of(running), running.worker_pids()
        os.kill(template, signal.SIGKILL)
        await_true(lambda: not any(map(lives, killed)), "the end of its workers")
        await_true(lambda: len({*running.worker_pids()} - {*killed}) == 2, "other workers")
        running.await_ready()
        assert template_of(running) != template
        assert "the template of the workers died" in running.log
        assert_served(client, "a")
        assert running.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_ends_them_as_one_to_the_service_does(
    at: RedisAt, client: redis.Redis, tmp_path: Path, signum: signal.Signals
) -> None:
    """As the end of a systemd unit."""
    with service(at, tmp_path, {"params": {"workers": 2, "batch_size": 8}}) as running:
        queue_records(client)
        await_half(client)
        pids = descendants(running.process.pid)
        for pid in (*pids, running.process.pid):
            os.kill(pid, signum)
        assert running.process.wait(60) == 0
        assert not any(map(lives, pids))
    assert results(client) == 10_000 - client.xlen("serving_stream")
    assert client.xpending("serving_stream", "serving")["pending"] == 0
    assert "died" not in running.log


def test_a_service_that_is_stopped_while_it_imports_leaves_nothing(at: RedisAt, tmp_path: Path) -> None:
    running = Service(at, tmp_path, TWO_WORKERS)
    found: list[int] = []
    await_true(lambda: found.extend(descendants(running.process.pid)) or found, "the template")
    assert running.stop() == 0
    assert not any(map(lives, found))


def test_what_ends_a_worker_for_good_is_told_by_the_service(at: RedisAt, tmp_path: Path) -> None:
    config = {**TWO_WORKERS, "data": {"shape": "3,32,32"}, "params": {"workers": 1}}
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n", encoding="utf-8")
    config["model"] = {"path": str(DIGITS / "model"), "labels": str(labels)}
    running = Service(at, tmp_path, config)
    assert running.process.wait(60) == 2
    assert "error: " in running.log.splitlines()[-1]
    assert "labels" in running.log.splitlines()[-1]


def test_after_some_faults_a_worker_gets_an_address_space_of_its_own(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    with service(at, tmp_path, {"params": {"workers": 1}}) as running:
        template, parents = template_of(running), []
        for _ in range(4):
            (killed,) = running.worker_pids()
            os.kill(killed, signal.SIGSEGV)
            await_true(lambda killed=killed: {*running.worker_pids()} - {killed}, "a successor")
            await_true(lambda killed=killed: killed not in running.worker_pids(), "its report")
            parents.append(parent_of(running.worker_pids()[0]))
        assert parents == [template] * 2 + [running.process.pid] * 2
        assert_served(client, "a")


def torch_model(folder: Path) -> dict[str, Any]:
    import torch

    folder.mkdir()
    torch.jit.trace(torch.nn.Linear(64, 2), torch.zeros(1, 64)).save(str(folder / "model.pt"))
    return {"path": str(folder), "engine": "torch"}


def tensorflow_model(folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec((None, 64), tf.float32)
    module.f = tf.function(lambda x: tf.matmul(x, tf.ones((64, 2))), input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures=module.f)
    return {"path": str(folder), "engine": "tensorflow"}


def onnx_model(folder: Path) -> dict[str, Any]:
    saved(folder, [node("Abs", "x", "y")], [("x", FLOAT, ("N", 64))], [("y", FLOAT, ("N", 64))])
    return {"path": str(folder), "engine": "onnxruntime"}


@pytest.mark.parametrize("model", [torch_model, tensorflow_model, onnx_model])
def test_every_engine_serves_in_a_copy(
    at: RedisAt, client: redis.Redis, tmp_path: Path, model: Callable[[Path], dict[str, Any]]
) -> None:
    config = {"model": model(tmp_path / "model"), "params": {"workers": 2, "batch_size": 4}}
    with service(at, tmp_path, config) as running:
        template_of(running)
        with InputQueue(at.host, at.port) as queue, OutputQueue(at.host, at.port) as answers:
            queue.enqueue_many((f"r{number}", np.ones(64, np.float32)) for number in range(64))
            assert len(answers.query_many([f"r{number}" for number in range(64)], timeout_s=60)) == 64
        assert running.stop() == 0


def test_where_imports_start_threads_each_worker_is_started_by_itself(
    at: RedisAt, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JE_ARROW_MALLOC_CONF", "background_thread:true")
    with service(at, tmp_path, TWO_WORKERS) as running:
        assert {parent_of(pid) for pid in running.worker_pids()} == {running.process.pid}
        assert "workers are started one by one: 2 threads: " in running.log
        assert_served(client, "a")
        killed = running.worker_pids()[0]
        os.kill(killed, signal.SIGKILL)
        await_true(lambda: killed not in running.worker_pids() and len(running.worker_pids()) == 2, "a successor")
        assert running.stop() == 0
