"""A cluster across hosts: one is cut off from the others in the middle of the work, and comes back."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from beam_serving.launch.embedded_redis import server_binary
from beam_serving.launch.flink.rest import ClusterError, FlinkRest
from beam_serving.telemetry.report import read_reports
from beam_serving.transport.connection import RedisAt
from tests.clusters import program_of
from tests.flink.hosts import Hosts, hosts
from tests.flink.test_cluster import FLINK
from tests.service import Service, await_true, result_writes
from tests.test_faults import await_half, queue_records, results

RECORDS = 10_000
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(900)]


@contextmanager
def program(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def part(net: Hosts, host: str, name: str, folder: Path) -> list[str]:
    where = ("--host", net.address[host], "--folder", str(folder))
    command = [sys.executable, str(program_of("flink")), "--part", name, *where]
    return net.command(host, [*command, "--zookeeper", f"{net.address['jm']}:2181"])


def slots(rest: FlinkRest) -> int:
    try:
        return rest.slots()[0]
    except ClusterError:
        return 0


def workers(client: redis.Redis) -> set[str]:
    return {report.worker for report in read_reports(client, "tested") if report.states == ["serving"]}


def test_a_host_that_is_cut_off_loses_nothing_and_serves_again_when_it_is_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        net = stack.enter_context(hosts("jm", "tm1", "tm2", "redis"))
        for host, name in (("jm", "zookeeper"), ("jm", "jobmanager"), ("tm1", "taskmanager"), ("tm2", "taskmanager")):
            folder = tmp_path / "shared" if host == "jm" else tmp_path / host
            folder.mkdir(exist_ok=True)
            (folder / "jobs").mkdir(exist_ok=True)
            stack.enter_context(program(part(net, host, name, folder), tmp_path / f"{host}-{name}.out"))
        at = RedisAt(net.address["redis"])
        server = [server_binary(), "--bind", at.host, "--protected-mode", "no", "--save", "", "--dir", str(tmp_path)]
        stack.enter_context(program(net.command("redis", server), tmp_path / "redis.out"))
        rest = FlinkRest(f"{net.address['jm']}:8081")
        await_true(lambda: slots(rest) == 2, "two task managers", 90)
        section = {"rest": f"{net.address['jm']}:8081", "start_s": 90}
        params = {"batch_size": 8, "workers": 2, "reclaim_idle_s": 2.0}
        service = Service(at, tmp_path, {"params": params, "flink": section}, FLINK)
        service.await_ready()
        client = at.client()
        before = workers(client)
        writes = result_writes(client)
        queue_records(client)
        await_half(client)
        net.cut("tm2")
        cut_at = time.monotonic()
        await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream", 120)
        served_s = time.monotonic() - cut_at
        lost, doubled = RECORDS - results(client), result_writes(client) - writes - RECORDS
        assert (lost, doubled, client.xpending("serving_stream", "serving")["pending"]) == (0, 0, 0)
        # The rest of the cluster serves without it.
        await_true(lambda: slots(rest) == 1, "one task manager", 60)
        queue_records(client, 1000, prefix="without")
        await_true(lambda: results(client) == RECORDS + 1000, "results without the host", 60)
        net.heal("tm2")
        healed_at = time.monotonic()
        await_true(lambda: len(workers(client) - before) >= 2, "two new workers", 120)
        healed_s = time.monotonic() - healed_at
        queue_records(client, 1000, prefix="after")
        await_true(lambda: results(client) == RECORDS + 2000, "results after the healing", 60)
        print(f"\n| cut off a host | {RECORDS} | 1 | {lost} | {doubled} | {served_s:.1f}, {healed_s:.1f} when healed |")
        assert service.stop() == 0
