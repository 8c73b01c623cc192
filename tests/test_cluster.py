"""A service and its clients on a Redis Cluster of three real nodes: one node has all that belongs together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from beam_serving.client import AsyncInputQueue, AsyncOutputQueue, InputQueue, OutputQueue, RedisQueue
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Data, Model, Settings
from beam_serving.errors import ConfigError
from beam_serving.protocol import result_key
from beam_serving.records import ProtocolVersion
from beam_serving.transport.address import slot_of
from tests.servers import Nodes, redis_cluster
from tests.service import DIGITS, Service, await_true, service

IMAGE = DIGITS / "images" / "digit_2.png"
STREAM = "{digits}_stream"
SLOT = slot_of(b"digits")
RECORDS = 4000
ZEROS = np.zeros(64, np.float32)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
def src(cluster: Nodes) -> str:
    """Names only nodes that do not have the stream."""
    others = [node for index, node in enumerate(cluster.nodes) if index != cluster.owner(SLOT)]
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in others)}"


def settings(src: str, name: str = "{digits}", streams: tuple[str, ...] = (STREAM,)) -> Settings:
    return Settings(name=name, model=Model(path="noop"), data=Data(src=src, streams=streams))


@pytest.fixture
def running(cluster: Nodes, src: str, tmp_path: Path) -> Iterator[Service]:
    cluster.nodes[cluster.owner(SLOT)].client.delete("beam-serving:{digits}:ready")
    config = {
        "name": "{digits}",
        "data": {"src": src, "streams": STREAM},
        "params": {"batch_size": 8, "workers": 2, "top_n": 0, "max_deliveries": 1},
    }
    with service(redis_at(settings(src)), tmp_path, config) as running:
        yield running


def results(cluster: Nodes) -> int:
    owner = cluster.nodes[cluster.owner(SLOT)].client
    return sum(1 for _ in owner.scan_iter("cluster-serving_{digits}_stream:*", count=5000))


async def test_requests_are_served_on_the_node_that_has_the_stream(cluster: Nodes, src: str, running: Service) -> None:
    with InputQueue(src, stream=STREAM) as queue, OutputQueue(src, stream=STREAM) as answers:
        queue.enqueue_many([(f"a{number}", ZEROS) for number in range(300)])
        assert len(answers.query_many([f"a{number}" for number in range(300)], timeout_s=30)) == 300
        assert len(answers.dequeue()) == 300
        assert isinstance(queue.predict({"": ZEROS}, timeout=30), np.ndarray)
    async with AsyncInputQueue(src, stream=STREAM) as queue, AsyncOutputQueue(src, stream=STREAM) as answers:
        await queue.enqueue("awaited", ZEROS)
        assert isinstance(await answers.query("awaited", timeout_s=30, delete=True), np.ndarray)
        assert await answers.dequeue() == {}
    owner = cluster.nodes[cluster.owner(SLOT)].client
    assert owner.exists("beam-serving:{digits}:ready")


def test_a_request_in_the_form_of_the_first_clients_gets_its_result_where_the_stream_is(
    cluster: Nodes, running: Service
) -> None:
    owner = cluster.nodes[cluster.owner(SLOT)].client
    owner.xadd(STREAM, {"uri": "old", "image": b"no image"})
    owner.xadd(STREAM, {"image": b"nobody waits for this"})
    await_true(lambda: owner.hget("cluster-serving_{digits}_stream:old", "error"), "an error result")
    await_true(lambda: owner.xlen(STREAM) == 0, "an empty stream")
    owner.delete("cluster-serving_{digits}_stream:old")


def test_when_its_slot_moves_each_request_still_ends_as_one_result(cluster: Nodes, src: str, running: Service) -> None:
    source = cluster.owner(SLOT)
    target = (source + 1) % 3
    with InputQueue(src, stream=STREAM) as queue, OutputQueue(src, stream=STREAM) as answers:
        assert answers.query_many(["nothing"], timeout_s=0.01) == {}  # a subscribed connection to the old node
        for pid in running.worker_pids():
            os.kill(pid, signal.SIGSTOP)
        queue.enqueue_many([(f"r{number}", ZEROS) for number in range(RECORDS)])
        for pid in running.worker_pids():
            os.kill(pid, signal.SIGCONT)
        await_true(lambda: cluster.nodes[source].client.xlen(STREAM) < RECORDS * 0.9, "some records served")
        queue.enqueue("before", ZEROS)
        cluster.move(SLOT, target)
        running.client.close()  # the connection of this test to the old node
        assert isinstance(answers.query("before", timeout_s=60), np.ndarray)
        owner = cluster.nodes[target].client
        await_true(lambda: owner.xlen(STREAM) == 0, "an empty stream")
        asked_at = time.monotonic()
        queue.enqueue("after", ZEROS)
        assert isinstance(answers.query("after", timeout_s=60), np.ndarray)
        assert time.monotonic() < asked_at + 30
    assert owner.xpending(STREAM, "serving")["pending"] == 0
    assert results(cluster) == RECORDS + 2
    await_true(lambda: owner.exists("beam-serving:{digits}:ready"), "ready again")
    owner.delete(*owner.scan_iter("cluster-serving_{digits}_stream:*", count=5000))


def test_commands_find_the_service(src: str, running: Service) -> None:
    config = str(running.log_path.with_name("config.yaml"))
    refused = f"{IMAGE.name}  error: request '{IMAGE.name}': the model does not say what it takes"
    for command, code, said in (
        ("status", 0, "{digits}: ready"),
        ("list", 0, "{digits}"),
        (f"enqueue {IMAGE} --wait", 1, refused),
        ("results --delete", 1, refused),
        ("results", 0, "no results of '{digits}_stream'"),
        ("stop", 0, "{digits}: stopped"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "beam_serving", *command.split(), "--config", config],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (code, ""), ended.stdout
        assert said in ended.stdout
    assert running.process.wait(60) == 0


def test_a_drain_keeps_its_rows_where_the_stream_is_until_they_are_in_a_file(
    cluster: Nodes, src: str, tmp_path: Path
) -> None:
    owner = cluster.nodes[cluster.owner(SLOT)].client
    for number in range(100):
        owner.xadd(STREAM, {"uri": f"n{number}", "tensor:": ZEROS.tobytes(), "dtype:": "float32", "shape:": "64"})
    config = {"name": "{digits}", "data": {"src": src, "streams": STREAM, "output_format": "jsonl"}}
    running = Service(redis_at(settings(src)), tmp_path, config, "--drain", "--output", str(tmp_path / "results"))
    assert running.process.wait(120) == 0, running.log
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.startswith("digits-")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["uri"] for line in lines} == {f"n{number}" for number in range(100)}
    assert len(lines) == 100
    assert owner.exists("{digits}_stream:rows") == 0
    owner.delete(*owner.scan_iter("cluster-serving_{digits}_stream:*", count=5000))


def test_names_in_several_slots_are_a_mistake_of_the_operator() -> None:
    wanted = (
        "on a Redis Cluster name and data: streams need one hash tag, as in name: '{digits}' and "
        "streams: '{digits}_stream', so that one node has all that is written at once; "
    )
    src = "redis+cluster://host:7000"
    with pytest.raises(ConfigError) as caught:
        redis_at(Settings(model=Model(path="noop"), data=Data(src=src)))
    assert str(caught.value) == (
        f"{wanted}'beam-serving' has another or none; clients of Cluster Serving 0.7 and 0.8 know image_stream only, "
        "and cannot be served on a cluster"
    )
    with pytest.raises(ConfigError) as caught:
        redis_at(settings(src, streams=("{digits}_a", "{other}_b")))
    assert str(caught.value) == f"{wanted}'{{other}}_b' has another or none"


def test_a_client_refuses_a_stream_that_cannot_share_a_slot_with_its_results() -> None:
    with pytest.raises(ValueError, match=r"^stream 'serving_stream' has no hash tag, wanted on a Redis Cluster is"):
        InputQueue("redis+cluster://host:7000")
    with pytest.raises(ValueError, match=r"^stream 'image_stream' has no hash tag"):
        RedisQueue(src="redis+cluster://host:7000")


@pytest.mark.parametrize("protocol", list(ProtocolVersion))
def test_results_of_a_tagged_stream_share_its_slot(protocol: ProtocolVersion) -> None:
    for uri in (b"a", b"{b}", b"}{"):
        assert slot_of(result_key(protocol, STREAM.encode(), uri)) == SLOT == slot_of(STREAM.encode() + b":dead")
