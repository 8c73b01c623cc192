"""Where the runners listen: on this machine alone, and for the user alone whose they are.

The clusters are asked in their own tests, `tests/flink/test_cluster.py` and `tests/spark/test_cluster.py`.
"""

import os
import socket
from pathlib import Path

import pytest
import redis

from beam_serving.launch.portable.jar import FLINK, SPARK, find_or_build
from beam_serving.launch.portable.sockets import is_ours, listeners, listeners_of
from beam_serving.transport.connection import RedisAt
from tests.processes import all_listeners, assert_for_its_user_alone
from tests.service import service
from tests.spark.drains import await_readers, drain
from tests.test_faults import queue_records


def test_the_direct_runner_listens_nowhere(at: RedisAt, tmp_path: Path) -> None:
    with service(at, tmp_path, {"params": {"workers": 2}}) as running:
        assert all_listeners(running.process.pid) == {}


@pytest.mark.timeout(600)
def test_an_embedded_flink_is_for_its_user_alone(at: RedisAt, tmp_path: Path) -> None:
    find_or_build(FLINK, None)
    with service(at, tmp_path, {"params": {"workers": 2}}, "--runner=FlinkRunner") as running:
        assert_for_its_user_alone(running.process.pid, least=10)


@pytest.mark.java
@pytest.mark.timeout(600)
def test_an_embedded_spark_is_for_its_user_alone(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    find_or_build(SPARK, None)
    queue_records(client, 200_000)
    config = {"params": {"batch_size": 8}, "spark": {"master": "local[2]"}}
    with drain(at, tmp_path, config) as running:
        await_readers(client, running, 2)
        assert_for_its_user_alone(running.process.pid, least=5)


def test_a_port_is_ours_only_while_we_listen_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_ours(port)
        (own,) = [one for one in listeners_of(os.getpid()) if one.port == port]
        assert own.on_this_machine_only
        assert own.user == os.geteuid()
    assert not is_ours(port)


@pytest.mark.parametrize(("address", "alone"), [("", False), ("::", False), ("::1", True), ("127.0.0.2", True)])
def test_who_reaches_a_port_is_told_by_its_address(address: str, alone: bool) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        (found,) = [one for one in listeners() if one.port == server.getsockname()[1]]
        assert (found.on_this_machine_only, found.at_all_addresses) == (alone, not alone)
