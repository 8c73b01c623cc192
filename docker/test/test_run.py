"""A service run by docker-run.sh as people run it: it answers, and it ends as it should."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from engine import Engine
from serving import (
    IMAGE,
    IMAGES,
    NAME,
    RIGHT,
    SCRIPT,
    STREAM,
    answered,
    await_true,
    backlog,
    digits,
    running,
    serve_digits,
)

from beam_serving.client import InputQueue
from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.transport.connection import RedisAt


def test_the_demo_images_are_answered_and_a_stop_is_clean(engine: Engine, folder: Path, at: RedisAt) -> None:
    with running(engine, folder) as service:
        service.await_log("ready: ")
        assert digits(at) == RIGHT
        assert service.stop() == 0
        assert "state DONE" in service.log
    assert backlog(at) == (0, 0)


def test_a_stop_under_load_leaves_nothing_pending_and_loses_nothing(engine: Engine, folder: Path, at: RedisAt) -> None:
    sent, image = 50_000, IMAGES[0].read_bytes()
    with running(engine, folder, SCRIPT, "--workers", "2") as service:
        service.await_log("ready: ")
        with InputQueue(at.host, at.port, stream=STREAM) as queue:
            queue.enqueue_many((f"request-{number}", {"": image}) for number in range(sent))
        await_true(lambda: backlog(at)[0] < sent - 100, "the first results")
        assert service.stop() == 0
    queued, pending = backlog(at)
    assert pending == 0
    assert queued > 0, "it was stopped too late to show anything"
    assert answered(at) == sent - queued


def test_it_is_not_healthy_without_its_redis(engine: Engine, tmp_path: Path) -> None:
    with ExitStack() as server:
        port = server.enter_context(embedded_redis())
        serve_digits(tmp_path, RedisAt("127.0.0.1", port))
        with running(engine, tmp_path) as service:
            service.await_log("ready: ")
            server.close()
            assert not service.healthy()
            assert service.stop() == 0


@pytest.mark.parametrize("init", ["--init=true", "--init=false"])
def test_a_stop_while_it_waits_for_redis_ends_it_at_once(init: str, engine: Engine, tmp_path: Path) -> None:
    serve_digits(tmp_path, RedisAt("127.0.0.1", free_port()))
    mounts = [f"--volume={tmp_path / name}:/serving/{name}:ro" for name in ("config.yaml", "model")]
    with running(engine, tmp_path, "podman", "run", "--rm", init, f"--name={NAME}", *mounts, IMAGE) as service:
        service.await_log("does not answer yet")
        # As Ctrl-C; were the signal dropped, as the kernel does for a first process that does not handle it, 137.
        assert service.stop() == 143
