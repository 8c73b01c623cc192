"""Each of several task managers serves its share. Behind `make test-long`; prints rates for docs/flink.md, too."""

import time
from pathlib import Path

import pytest
import redis

from beam_serving.telemetry.report import read_reports
from beam_serving.transport.connection import RedisAt
from benchmarks import workloads
from benchmarks.load import Destination, Load
from tests.flink.cluster import cluster
from tests.flink.test_cluster import FLINK, command, config
from tests.service import Service, await_true
from tests.test_faults import queue_records

RECORDS = 100_000
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("job_server_jar"), pytest.mark.timeout(900)]


def served(client: redis.Redis) -> list[int]:
    return [report.counts["served"] for report in read_reports(client, "tested")]


def test_every_worker_serves_its_share_at_each_parallelism(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    load = Load(Destination(at.port, "serving_stream", "serving", workloads.noop().requests, announces=True))
    with cluster(folder, 4) as flink:
        for parallelism in (1, 2, 3, 4):
            client.flushall()
            about = config(flink, parallelism=parallelism)
            about["params"] = {"batch_size": 256, "checkpoint_interval_s": 60.0}
            service = Service(at, tmp_path, about, FLINK)
            service.await_ready()
            queue_records(client, 1000 * parallelism, prefix="warm")
            await_true(lambda: client.xlen("serving_stream") == 0, "a warm service")
            await_true(lambda warm=1000 * parallelism: sum(served(client)) == warm, "the workers' numbers")
            before = served(client)
            assert len(before) == parallelism
            started = time.monotonic()
            load.await_drained(load.fill(RECORDS))
            rate = RECORDS / (time.monotonic() - started)
            await_true(lambda all_of=1000 * parallelism + RECORDS: sum(served(client)) == all_of, "all numbers")
            shares = [now - then for now, then in zip(served(client), before, strict=True)]
            assert sum(shares) == RECORDS
            told = ", ".join(f"{share / RECORDS:.0%}" for share in sorted(shares, reverse=True))
            print(f"\n| {parallelism} | {rate:,.0f} | {told} |")
            assert min(shares) > 0.6 * RECORDS / parallelism
            assert service.stop() == 0
            assert command("stop", tmp_path).returncode == 0
    load.close()
