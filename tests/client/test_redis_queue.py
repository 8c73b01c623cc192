"""The oldest client: its methods, its stream, its configuration file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import redis

from beam_serving.client import RedisQueue, ResultError
from beam_serving.errors import ConfigError
from beam_serving.records import Failure, ProtocolVersion
from tests.client.conftest import StandIn, best

PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def src(port: int, valkey: redis.Redis) -> str:
    return f"127.0.0.1:{port}"


def test_an_image_goes_out_and_its_classes_come_back(src: str, valkey: redis.Redis) -> None:
    service = StandIn(valkey, "image_stream")
    with RedisQueue(src=src) as queue:
        request_id = queue.enqueue_image("cat:1", PIXELS)
        (payload,) = service.payloads()
        assert payload.protocol == ProtocolVersion.IMAGE
        assert payload.request_id == request_id.encode()
        assert cv2.imdecode(np.frombuffer(payload.inputs[""].encoded, np.uint8), cv2.IMREAD_COLOR).shape == (8, 8, 3)
        service.answer_all(best((7, 0.75), (2, 0.125)))
        assert queue.get_result() == {"cat:1": {7: 0.75, 2: 0.125}}
        assert queue.get_results() == {}


def test_a_failed_image_has_its_error_as_a_value(src: str, valkey: redis.Redis) -> None:
    service = StandIn(valkey, "image_stream")
    with RedisQueue(src=src) as queue:
        queue.enqueue_image("cat", PIXELS)
        service.answer_all(Failure("truncated JPEG"))
        failed = queue.get_results()["cat"]
    assert isinstance(failed, ResultError)
    assert str(failed) == "truncated JPEG"


def test_redis_is_found_by_the_configuration_file(
    src: str, valkey: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(f"data:\n  src: {src}\n")
    with RedisQueue(str(tmp_path / "config.yaml")) as queue:
        queue.enqueue_image("a", PIXELS)
    monkeypatch.chdir(tmp_path)
    with RedisQueue() as queue:
        queue.enqueue_image("b", PIXELS)
    assert valkey.xlen("image_stream") == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^configuration .*nothing.yaml cannot be read: "):
        RedisQueue(str(tmp_path / "nothing.yaml"))
    (tmp_path / "bad.yaml").write_text("data: [")
    with pytest.raises(ConfigError, match=r"^configuration .*bad.yaml cannot be read: "):
        RedisQueue(str(tmp_path / "bad.yaml"))
