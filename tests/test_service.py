"""The whole service against a real server: what its clients get, whatever they send."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis

from beam_serving.client import InputQueue, OutputQueue, RedisQueue, ResultError
from beam_serving.transport.connection import RedisAt
from tests.service import DIGITS, Service, await_true, service

GOLDEN = np.load(Path(__file__).parent / "models" / "fixtures" / "digits" / "golden.npz")
IMAGE = (DIGITS / "images" / "digit_2.png").read_bytes()
CONFIG = {
    "model": {"path": str(DIGITS / "model")},
    "data": {"shape": "3,32,32", "scale": 1 / 255},
    "params": {"batch_size": 8, "top_n": 2, "workers": 1},
}


@pytest.fixture(scope="module")
def digits(redis_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the digits model; its server is not emptied between these tests."""
    at = RedisAt("127.0.0.1", redis_port)
    at.client().flushall()
    with service(at, tmp_path_factory.mktemp("service"), CONFIG) as running:
        yield running


@pytest.fixture
def port(digits: Service, redis_port: int) -> int:
    del digits
    return redis_port


def test_an_image_gets_its_class(port: int) -> None:
    with InputQueue("127.0.0.1", port) as queue, OutputQueue("127.0.0.1", port) as results:
        queue.enqueue_image("two", IMAGE)
        answer = results.query("two", timeout_s=30)
    assert next(iter(answer)) == 2
    assert answer[2] > 0.99


def test_tensors_get_the_probabilities_that_the_model_was_trained_to(port: int) -> None:
    with InputQueue("127.0.0.1", port) as queue, OutputQueue("127.0.0.1", port) as results:
        queue.enqueue_many((f"t{index}", tensor) for index, tensor in enumerate(GOLDEN["input_nchw"]))
        answers = results.query_many([f"t{index}" for index in range(16)], timeout_s=30)
    for index, probabilities in enumerate(GOLDEN["prob"]):
        best = np.argsort(-probabilities)[:2]
        assert list(answers[f"t{index}"]) == list(best)
        assert list(answers[f"t{index}"].values()) == pytest.approx(probabilities[best], abs=1e-5)


def test_the_seeds_client_gets_a_dict_of_class_to_probability(port: int, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"data:\n  src: 127.0.0.1:{port}\n")
    import cv2

    with RedisQueue(str(tmp_path / "config.yaml")) as queue:
        queue.enqueue_image("seed", cv2.imdecode(np.frombuffer(IMAGE, np.uint8), cv2.IMREAD_COLOR))
        answers: dict[str, dict[int, float]] = {}
        await_true(lambda: answers.update(queue.get_result()) or answers, "the result")
    assert next(iter(answers["seed"])) == 2


def test_an_arrow_tensor_of_the_older_clients_gets_an_arrow_answer(port: int, digits: Service) -> None:
    tensor = GOLDEN["input_nchw"][0]
    kind = pa.struct(
        [
            ("indiceData", pa.list_(pa.int32())),
            ("indiceShape", pa.list_(pa.int32())),
            ("data", pa.list_(pa.float32())),
            ("shape", pa.list_(pa.int32())),
        ]
    )
    empty = {"indiceData": [], "indiceShape": [], "data": [], "shape": []}
    rows = [empty, empty, empty | {"data": tensor.ravel().tolist()}, empty | {"shape": list(tensor.shape)}]
    batch = pa.RecordBatch.from_arrays([pa.array(rows, kind)], names=["t"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    digits.client.xadd("serving_stream", {"uri": "arrow", "data": base64.b64encode(sink.getvalue().to_pybytes())})
    key = "cluster-serving_serving_stream:arrow"
    await_true(lambda: digits.client.exists(key), "the result")
    reply = pa.ipc.open_stream(base64.b64decode(digits.client.hget(key, "value"))).read_all()
    shape = [size for size in reply["shape"].to_pylist() if size is not None]
    pairs = np.array(reply["data"].to_pylist()).reshape(shape)
    assert pairs[0] == pytest.approx([GOLDEN["label"][0], GOLDEN["prob"][0].max()], abs=1e-5)


BAD = {
    "truncated": ({"image:": IMAGE[: len(IMAGE) // 2]}, "truncated PNG"),
    "text": ({"image:": b"this is no image at all"}, "this format is not supported"),
    "wrong-shape": (
        {"tensor:": np.zeros((3, 31, 32), np.float32).tobytes(), "dtype:": "float32", "shape:": "3,31,32"},
        r"has shape \[3, 31, 32\], the model takes \[3, 32, 32\]",
    ),
    "too-short": ({"tensor:": b"1234567", "dtype:": "float32", "shape:": "2"}, r"7 bytes, .*8"),
    "missing": ({"note": "nothing to serve"}, "note"),
    "empty": ({"image:": b""}, "empty"),
    "old-empty": ({"image": b""}, "empty"),
    "old-garbage": ({"image": b"%%%"}, "base64"),
    "arrow-garbage": ({"data": base64.b64encode(b"no arrow here")}, "Arrow"),
}


def test_bad_requests_get_the_reason_and_a_thousand_good_ones_their_results(port: int, digits: Service) -> None:
    client = digits.client
    pipeline = client.pipeline(transaction=False)
    bad = list(BAD)
    for number in range(1000):
        pipeline.xadd("serving_stream", {"uri": f"good{number}", "image:": IMAGE})
        if number % 100 == 50 and bad:
            uri = bad.pop()
            pipeline.xadd("serving_stream", {"uri": uri, **BAD[uri][0]})
    pipeline.execute()
    assert not bad
    with OutputQueue("127.0.0.1", port) as results:
        good = results.query_many([f"good{number}" for number in range(1000)], timeout_s=60)
    assert len(good) == 1000
    assert all(next(iter(answer)) == 2 for answer in good.values())
    for uri, (_, reason) in BAD.items():
        key = f"cluster-serving_serving_stream:{uri}"
        await_true(lambda key=key: client.exists(key), f"the result of {uri}")
        error = client.hget(key, "error").decode()
        assert error.startswith(f"request '{uri}': "), error
        assert re.search(reason, error), f"{error!r} does not say {reason!r}"
    assert client.xpending("serving_stream", "serving")["pending"] == 0


def test_an_error_is_raised_where_the_result_is_asked_for(port: int) -> None:
    with InputQueue("127.0.0.1", port) as queue, OutputQueue("127.0.0.1", port) as results:
        queue.enqueue("bad", np.zeros((1, 2), np.float32))
        with pytest.raises(ResultError, match=r"request 'bad': input 'data' has shape \[1, 2\]"):
            results.query("bad", timeout_s=30)


def test_an_entry_without_a_uri_becomes_a_dead_letter(port: int, digits: Service) -> None:
    digits.client.xadd("serving_stream", {"something": "else"})
    await_true(lambda: digits.client.xlen("serving_stream:dead"), "the dead letter")
    ((_, letter),) = digits.client.xrange("serving_stream:dead")
    assert letter[b"something"] == b"else"
    assert b"'uri' is missing" in letter[b"error"]


def test_an_entry_that_ended_its_workers_is_given_up_as_a_dead_letter(
    at: RedisAt, client: redis.Redis, tmp_path: Path
) -> None:
    client.xgroup_create("serving_stream", "serving", "0", mkstream=True)
    client.xadd("serving_stream", {"uri": "poison", "image:": IMAGE})
    ((_, ((entry_id, _),)),) = client.xreadgroup("serving", "ghost", {"serving_stream": ">"})
    client.execute_command("XCLAIM", "serving_stream", "serving", "ghost", 0, entry_id, "RETRYCOUNT", 3)
    config = {"params": {"workers": 1, "max_deliveries": 3, "reclaim_idle_s": 0.1}}
    with service(at, tmp_path, config):
        await_true(lambda: client.xlen("serving_stream:dead"), "the dead letter")
    assert b"given up after 3 deliveries" in client.hget("cluster-serving_serving_stream:poison", "error")
    assert client.xpending("serving_stream", "serving")["pending"] == 0
