"""The operator's commands on a service of this machine."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import redis

from beam_serving.cli.main import main
from beam_serving.transport.connection import RedisAt
from tests.service import Service, await_true, service
from tests.test_faults import TENSOR, queue_records, results


def command(name: str, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beam_serving", name, "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_status_shows_a_service_and_stop_ends_it(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    with service(at, tmp_path, {"params": {"workers": 2, "batch_size": 8}}) as running:
        queue_records(client, 1000)
        await_true(lambda: client.xlen("serving_stream") == 0, "an empty stream")
        client.xadd("image_stream", {"uri": "no image"})
        client.xadd("image_stream:rows", {"entry": "1-0"})
        client.xadd("image_stream:dead", {"uri": "a", "error": "given up by a worker that is gone"})
        await_true(lambda: client.xlen("image_stream") == 0, "an answer to the bad request")
        await_true(lambda: json.loads(command("status", config, "--json").stdout)["counts"]["served"] == 1001, "counts")
        await_true(lambda: "tested: ready, 0.0 records/s\n" in command("status", config).stdout, "a quiet second")
        shown = command("status", config)
        assert shown.returncode == 0, shown.stderr
        assert "engine noop, batch size 8\nserved 1001, errors 1, dead letters 1\n" in shown.stdout
        assert shown.stdout.count(" serving ") == 2
        assert "\nimage_stream: 1 result waits for files; the next --drain with --output writes it\n" in shown.stdout
        about = json.loads(command("status", config, "--json").stdout)
        stream = about["streams"]["serving_stream"]
        assert stream == {"queue": 0, "pending": 0, "consumers": 2, "oldest_s": None, "for_files": 0, "dead_letters": 0}
        stopped = command("stop", config)
        assert (stopped.returncode, stopped.stdout) == (0, "tested: stopped\n"), stopped.stderr
        assert running.process.wait(30) == 0
        assert "state DONE: 1001 records served, 1 of them with an error" in running.log
    assert client.xinfo_consumers("serving_stream", "serving") == []
    again = command("stop", config)
    assert (again.returncode, again.stdout) == (1, "tested: nothing runs\n")
    shown = command("status", config)
    assert shown.returncode == 1
    assert "tested: not ready" in shown.stdout
    assert "no worker runs" in shown.stdout


def test_a_service_that_was_stopped_is_started_again(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    for number in range(2):
        running = Service(at, tmp_path, {"params": {"workers": 1}})
        running.await_ready()
        queue_records(client, 1000, prefix=f"r{number}-")
        await_true(lambda wanted=1000 * (number + 1): results(client) == wanted, "all results")
        assert command("stop", tmp_path / "config.yaml").returncode == 0
        assert running.process.wait(30) == 0


def test_services_of_two_names_do_not_disturb_each_other(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    with ExitStack() as stack:
        running = {}
        for name in ("cats", "dogs"):
            (tmp_path / name).mkdir()
            config = {"name": name, "data": {"streams": [name]}, "params": {"workers": 1}}
            running[name] = stack.enter_context(service(at, tmp_path / name, config))
        cats, dogs = (tmp_path / name / "config.yaml" for name in ("cats", "dogs"))
        for name in ("cats", "dogs"):
            client.xadd(name, {"uri": "a", **TENSOR})
        for name in ("cats", "dogs"):
            await_true(lambda key=f"cluster-serving_{name}:a": client.exists(key), f"a result for {name}")

        def served() -> list[int]:
            return [one["served"] for one in json.loads(command("list", cats, "--json").stdout)]

        await_true(lambda: served() == [1, 1], "reports of what was served")
        listed = json.loads(command("list", cats, "--json").stdout)
        assert [(one["name"], one["ready"], one["workers"], one["served"]) for one in listed] == [
            ("cats", True, 1, 1),
            ("dogs", True, 1, 1),
        ]
        assert [(one["model"], one["engine"], one["streams"]) for one in listed] == [
            ("noop", "noop", ["cats"]),
            ("noop", "noop", ["dogs"]),
        ]
        title, *lines = command("list", cats).stdout.splitlines()
        assert title.split() == ["name", "state", "workers", "hosts", "records/s", "served", "engine", "model"]
        assert [line.split()[:3] for line in lines] == [["cats", "ready", "1"], ["dogs", "ready", "1"]]

        assert command("stop", cats).stdout == "cats: stopped\n"
        assert running["cats"].process.wait(30) == 0
        assert command("status", dogs).returncode == 0
        for name in ("cats", "dogs"):
            client.xadd(name, {"uri": "b", **TENSOR})
        await_true(lambda: client.exists("cluster-serving_dogs:b"), "a result of the one that goes on")
        assert client.xlen("cats") == 1
        assert [one["name"] for one in json.loads(command("list", dogs, "--json").stdout)] == ["dogs"]
    nothing = command("list", dogs)
    assert (nothing.returncode, nothing.stdout) == (0, f"no service reports in Redis at {at}\n")


def test_a_second_service_on_the_same_streams_does_not_start_unless_it_shares(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    params = {"params": {"workers": 1}}
    with service(at, folder("first"), {"name": "svc-a", **params}) as first:
        refused = Service(at, folder("second"), {"name": "svc-b", **params})
        assert refused.process.wait(30) == 2
        assert (
            "error: stream 'image_stream' and group 'serving' are served by 'svc-a' already (model noop), and 'svc-b' "
            "would take its requests"
        ) in refused.log
        with service(at, folder("shared"), {"name": "svc-c", "data": {"share": True}, **params}):
            assert first.ready()
        with service(at, folder("scaled out"), {"name": "svc-a", **params}) as scaled_out:
            # Before its own workers serve, the streams are taken for a start, which the end of no worker gives up.
            await_true(lambda: "] ready: " in scaled_out.log, "its own workers")
            # Who serves renews what is taken, long before it is forgotten.
            client.expire("serving_stream:owner:serving", 10)
            await_true(lambda: client.ttl("serving_stream:owner:serving") >= 13, "a renewal", within_s=30)
        assert first.stop() == 0
    with service(at, folder("next"), {"name": "svc-b", **params}):
        assert client.get("serving_stream:owner:serving").startswith(b"svc-b\n")  # type: ignore[union-attr]


def test_a_service_that_was_killed_does_not_lock_itself_out(at: RedisAt, tmp_path: Path) -> None:
    killed = Service(at, tmp_path, {"params": {"workers": 1}})
    killed.await_ready()
    for pid in [*killed.worker_pids(), killed.process.pid]:
        os.kill(pid, signal.SIGKILL)
    killed.process.wait()
    with service(at, tmp_path, {"params": {"workers": 1}}):
        pass


def test_a_cluster_that_the_configuration_names_in_vain_hinders_nobody(at: RedisAt, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    with service(at, tmp_path, {"params": {"workers": 1}, "flink": {"rest": "127.0.0.1:1"}}) as running:
        shown = command("status", config)
        assert shown.returncode == 0, shown.stderr
        assert "tested: ready" in shown.stdout
        assert "Flink at http://127.0.0.1:1 cannot be reached" in shown.stdout
        stopped = command("stop", config)
        assert (stopped.returncode, stopped.stdout) == (0, "tested: stopped\n"), stopped.stderr
        assert running.process.wait(30) == 0
    again = command("stop", config)
    assert again.returncode == 1
    assert again.stderr.startswith("error: Flink at http://127.0.0.1:1 cannot be reached")


def test_a_file_of_cluster_serving_is_served_as_it_is(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    text = "modelPath: noop\njobName: birds\nflinkRestUrl: 127.0.0.1:1\nmodelParallelism: 1\nredisMaxmemory: 8g\n"
    config.write_text(f"{text}redisUrl: {at}\n", encoding="utf-8")
    for stream in ("birds", "serving_stream"):
        client.xadd(stream, {"uri": "a", **TENSOR})
    ended = subprocess.run(
        [sys.executable, "-m", "beam_serving", "--config", str(config), "--drain"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "state DONE: 2 records served, 0 of them with an error" in ended.stderr
    assert f"WARNING [service] {config}:5: redisMaxmemory: this service starts no Redis" in ended.stderr
    for stream in ("birds", "serving_stream"):
        assert client.hkeys(f"cluster-serving_{stream}:a") == [b"tensor:output", b"dtype:output", b"shape:output"]


def test_commands_say_when_redis_is_away(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {path: noop}\ndata: {src: '127.0.0.1:1'}\nredis: {wait_s: 0}\n", encoding="utf-8")
    for name in ("status", "stop", "list", "restart", "results"):
        asked = command(name, config)
        assert asked.returncode == 1
        assert asked.stderr.startswith("error: Redis at 127.0.0.1:1 cannot be reached")
        assert len(asked.stderr.splitlines()) == 1


def test_a_service_whose_workers_die_again_and_again_is_stopped(at: RedisAt, tmp_path: Path) -> None:
    """Also between two starts of a worker, while only its supervisor lives."""
    (tmp_path / "dying.py").write_text(
        "import os\n\n\ndef build(pipeline, serving):\n    os._exit(7)\n", encoding="utf-8"
    )
    service = Service(at, tmp_path, {"name": "dying", "params": {"pipeline": "dying.py:build", "workers": 1}})
    try:
        await_true(lambda: "starting it again in 3.2 s" in service.log, "some deaths")
        assert main(["stop", "--config", str(tmp_path / "config.yaml")]) == 0
        assert service.process.wait(10) == 0
        assert main(["stop", "--config", str(tmp_path / "config.yaml")]) == 1
    finally:
        service.process.kill()
        service.process.wait()
    assert "asked to stop" in service.log
