"""A service whose results are larger than its requests, on a server whose memory they fill."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import redis
from onnx import TensorProto, helper, numpy_helper

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.transport.connection import RedisAt
from tests.kinds import Kind
from tests.service import await_true, service
from tests.test_operating import command

pytestmark = pytest.mark.every_server
REQUESTS, LIMIT_MB, RESULT_BYTES = 60, 10, 1 << 18
PAUSED = "and results are larger than requests: reading pauses, requests stay queued"


@pytest.fixture
def limited(server_kind: Kind) -> Iterator[RedisAt]:
    """A server with little memory."""
    with embedded_redis(0, "--maxmemory", f"{LIMIT_MB}mb") as port:
        yield RedisAt("127.0.0.1", port)


def tiling_model(folder: Path) -> str:
    """Writes a model that repeats its two numbers many times."""
    times = RESULT_BYTES // 8
    graph = helper.make_graph(
        [helper.make_node("Tile", ["x", "times"], ["y"])],
        "tiling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2 * times])],
        [numpy_helper.from_array(np.array([1, times]), "times")],
    )
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    return str(folder)


def used_bytes(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def test_reading_pauses_nothing_is_lost_and_it_goes_on(limited: RedisAt, tmp_path: Path) -> None:
    client = limited.client()
    place = str(limited)
    with InputQueue(place) as queue:
        for number in range(REQUESTS):
            queue.enqueue(f"r{number}", np.full(2, number, np.float32))
    before = used_bytes(client)
    assert before < LIMIT_MB << 20
    config = {
        "model": {"path": tiling_model(tmp_path / "tiling")},
        "data": {"streams": "serving_stream"},
        "params": {"workers": 1, "batch_size": 4, "top_n": 0},
    }

    def results() -> int:
        return len(client.keys("cluster-serving_serving_stream:*"))

    with service(limited, tmp_path, config) as running:
        await_true(lambda: PAUSED in running.log, "a warning")
        # Two batches at most beyond the limit, and twice that for what is on its way.
        assert used_bytes(client) < (LIMIT_MB << 20) + 4 * 4 * RESULT_BYTES
        assert client.xlen("serving_stream") + results() == REQUESTS
        assert client.xpending("serving_stream", "serving")["pending"] == 0
        stopped = command("stop", tmp_path / "config.yaml")
        assert (stopped.returncode, stopped.stdout) == (0, "tested: stopped\n"), stopped.stderr
        assert running.process.wait(30) == 0
    # And it starts again on a server that is still full.
    with service(limited, tmp_path, config) as running, OutputQueue(place) as queue:
        await_true(lambda: running.log.count(PAUSED) == 2, "the second start's warning")
        left, paused_at = client.xlen("serving_stream"), time.monotonic()
        await_true(lambda: time.monotonic() > paused_at + 2, "two looks at the memory", 10)
        assert client.xlen("serving_stream") == left
        assert left > 0
        for number in range(REQUESTS):
            answer = queue.query(f"r{number}", timeout_s=60, delete=True)
            assert (answer == number).all()
            assert answer.nbytes == RESULT_BYTES
        assert "has memory again: reading goes on" in running.log
        assert running.log.count(PAUSED) == 2
        assert client.xlen("serving_stream") == 0


def test_results_that_nobody_fetches_stop_reading_at_their_own_bound(
    server_kind: Kind, tmp_path: Path, at: RedisAt
) -> None:
    client = at.client()
    most = 10 * RESULT_BYTES
    with InputQueue(str(at)) as queue:
        for number in range(REQUESTS):
            queue.enqueue(f"r{number}", np.full(2, number, np.float32))
    config = {
        "model": {"path": tiling_model(tmp_path / "tiling")},
        "data": {"streams": "serving_stream", "max_result_bytes": most, "group": "serving"},
        "params": {"workers": 1, "batch_size": 1, "top_n": 0},
    }
    with service(at, tmp_path, config) as running, OutputQueue(str(at)) as results:
        held = "of data: max_result_bytes 2.6 MB: reading pauses, requests stay queued"
        await_true(lambda: held in running.log, "a pause")
        shown = command("status", tmp_path / "config.yaml").stdout
        assert "MB (" in shown
        assert "%): reading pauses until some were deleted or have expired\n" in shown
        for number in range(REQUESTS):
            assert (results.query(f"r{number}", timeout_s=60, delete=True) == number).all()
        assert client.xlen("serving_stream") == 0
        await_true(lambda: "reading goes on" in running.log, "the end of the pause")
