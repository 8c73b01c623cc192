"""A drain that also writes files: whatever ends it, each request is in the files and has its result in Redis."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis

from beam_serving.config.schema import Data, Model, Redis, Settings
from beam_serving.errors import OutputError
from beam_serving.export.drain import export
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt
from tests.service import Service, await_true
from tests.test_faults import RECORDS, await_half, queue_records, results
from tests.test_tls import WORKER

BATCHES = {"params": {"batch_size": 8, "workers": 2, "reclaim_idle_s": 1.0}}
FILE = re.compile(r"tested-\d{8}T\d{6}Z-[0-9a-f]{8}-00000-of-00001\.(parquet|jsonl)")


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Reads all files of a folder, in which nothing else may lie."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.iterdir()):
        assert FILE.fullmatch(path.name), path
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return rows


def drain(at: RedisAt, folder: Path, config: dict[str, Any], *arguments: str) -> Service:
    """Runs a drain to its end."""
    running = Service(at, folder, config, "--drain", "--output", str(folder / "results"), *arguments)
    assert running.process.wait(120) == 0, running.log
    return running


def settings(at: RedisAt, output: Path, **redis_options: Any) -> Settings:
    data = Data(src=str(at), streams=("serving_stream",), output=str(output))
    return Settings(name="tested", model=Model(path="noop"), data=data, redis=Redis(**redis_options))


def keep(client: redis.Redis, count: int, first: int = 0) -> None:
    """Puts rows into the outbox as a drain does."""
    for number in range(first, first + count):
        row = {"entry": f"{number}-0", "key": f"cluster-serving_serving_stream:r{number}", "value": "[[7,0.5]]"}
        client.xadd("serving_stream:rows", row)


@pytest.mark.parametrize("output_format", ["parquet", "jsonl"])
def test_a_nightly_batch_is_one_command(at: RedisAt, client: redis.Redis, tmp_path: Path, output_format: str) -> None:
    queue_records(client, 2000)
    client.xadd("serving_stream", {"uri": "bad", "tensor:": b"1", "dtype:": "float32", "shape:": "2"})
    client.xadd("serving_stream", {"note": "no uri"})
    client.xadd("image_stream", {"uri": "old", "image": b"no image"})
    running = drain(
        at, tmp_path, {"params": {"batch_size": 64, "workers": 2, "top_n": 1}}, "--output-format", output_format
    )
    rows = rows_in(tmp_path / "results")
    assert Counter(row["uri"] for row in rows) == Counter(
        [*(f"r{number}" for number in range(2000)), "bad", "old", None]
    )
    errors = {row["uri"]: row["error"] for row in rows if row["status"] == "error"}
    assert errors.keys() == {"bad", "old", None}
    assert "payload is 1 bytes" in errors["bad"]
    assert "'uri' is missing" in errors[None]
    assert {row["stream"] for row in rows if row["uri"] == "old"} == {"image_stream"}
    served = next(row for row in rows if row["uri"] == "r0")
    result = served["result"] if output_format == "jsonl" else json.loads(served["result"])
    assert result == [{"class": 0, "score": 0.0}]
    assert results(client) == 2001
    assert f"wrote 2003 results to 1 file in {tmp_path}/results" in running.log
    assert client.keys("*:rows") == client.keys("*:output") == []


def test_after_the_death_of_a_worker_and_then_of_the_whole_drain_the_next_one_has_all_rows_once(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    queue_records(client)
    killed = Service(at, tmp_path, BATCHES, "--drain", "--output", str(tmp_path / "results"))
    pids: list[int] = []
    try:
        await_true(lambda: pids.extend(sorted({*killed.worker_pids()} - {*pids})) or len(pids) == 2, "two workers")
        await_half(client)
        os.kill(pids[1], signal.SIGSTOP)
        os.kill(pids[0], signal.SIGKILL)
        await_true(lambda: "starting it again" in killed.log, "a word about it")
    finally:
        # What was started again ends by itself when its parent is gone.
        killed.process.kill()
        killed.process.wait()
        for pid in pids[1:]:
            os.kill(pid, signal.SIGKILL)
    assert 0 < client.xlen("serving_stream") < RECORDS
    assert list((tmp_path / "results").iterdir()) == []
    drain(at, tmp_path, BATCHES)
    rows = rows_in(tmp_path / "results")
    assert Counter(row["uri"] for row in rows) == Counter(f"r{number}" for number in range(RECORDS))
    assert results(client) == RECORDS


def test_a_drain_without_an_output_keeps_no_rows(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    queue_records(client, 1000)
    running = Service(at, tmp_path, {"params": {"workers": 1}}, "--drain")
    assert running.process.wait(120) == 0
    assert results(client) == 1000
    assert client.keys("*:rows") == []


def test_a_drain_with_an_output_needs_the_rights_in_the_readme(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    queue_records(client, 1000)
    client.execute_command("ACL", "SETUSER", "worker", *WORKER, "~serving_stream:rows", "+xrevrange", "+xtrim")
    (tmp_path / "password").write_text("worker-secret", encoding="utf-8")
    data = {"streams": "serving_stream", "src": f"redis://worker@{at}"}
    try:
        drain(at, tmp_path, {"data": data, "redis": {"password_file": "password"}, "params": {"workers": 1}})
    finally:
        client.execute_command("ACL", "DELUSER", "worker")
    assert len(rows_in(tmp_path / "results")) == 1000


def test_rows_that_cannot_be_written_stay_for_the_next_drain(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keep(client, 10)
    with pytest.raises(OutputError) as caught:
        export(settings(at, tmp_path / "file" / "results"), [])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"results are not in files at {tmp_path}/file/results (")
    assert "Not a directory" in line
    assert line.endswith("; they are kept in Redis, and the next --drain writes them")
    assert client.xlen("serving_stream:rows") == 10
    export(settings(at, tmp_path / "results"), [])
    assert [row["uri"] for row in rows_in(tmp_path / "results")] == [f"r{number}" for number in range(10)]


@pytest.mark.every_server
def test_rows_that_are_in_files_and_not_taken_off_are_written_again_with_the_same_entry(
    at: RedisAt, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(client, 10)
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    client.execute_command("ACL", "SETUSER", "limited", "on", ">right", "~*", "+@all", "-xtrim")
    try:
        with pytest.raises(
            OutputError, match=r"^results are in files, and cannot be taken off Redis \(.*xtrim.*writes them again$"
        ):
            export(settings(at, tmp_path / "results", username="limited"), [])
    finally:
        client.execute_command("ACL", "DELUSER", "limited")
    monkeypatch.delenv(PASSWORD_VARIABLE)
    export(settings(at, tmp_path / "results"), [])
    rows = rows_in(tmp_path / "results")
    assert Counter(row["entry"] for row in rows) == Counter({f"{number}-0": 2 for number in range(10)})


def test_a_server_that_is_gone_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"results are not in files at .* \(Error 111 connecting to .*\); they are kept"
    ):
        export(settings(RedisAt("127.0.0.1", 1), tmp_path / "results"), [])


def test_without_rows_no_file_is_written(at: RedisAt, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "beam_serving")
    export(settings(at, tmp_path / "results"), [])
    assert not (tmp_path / "results").exists()
    assert caplog.messages == [f"no results to write to {tmp_path}/results"]
