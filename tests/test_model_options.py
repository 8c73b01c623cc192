"""What the configuration asks of a model, served by a whole service."""

from pathlib import Path

import pytest
import redis

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.config.schema import Data, Model, Redis, Settings
from beam_serving.errors import ConfigError, ModelLoadError
from beam_serving.launch.preflight import preflight
from beam_serving.launch.start import run_pipeline
from beam_serving.transport.connection import RedisAt
from tests.service import DIGITS, service

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE = DIGITS / "images" / "digit_2.png"


def test_labels_and_a_measured_batch_size_are_served(at: RedisAt, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    config = {
        "model": {"path": str(DIGITS / "model"), "labels": "names.txt"},
        "data": {"scale": 1 / 255},
        "params": {"batch_size": "auto", "workers": 1, "top_n": 2},
    }
    with service(at, tmp_path, config) as running:
        ready = running.ready()
        with InputQueue(at.host, at.port) as queue, OutputQueue(at.host, at.port) as results:
            queue.enqueue_image("two", IMAGE)
            answer = results.query("two", timeout_s=30)
            fields = running.client.hgetall("cluster-serving_serving_stream:two")
    assert ready is not None
    assert ready["batch_size"] in (1, 2, 4, 8, 16, 32, 64)
    assert ready["engine"] == "openvino"
    assert f"batch size {ready['batch_size']}, 1 worker" in running.log
    assert "serves most, in records/s by batch size: 1: " in running.log
    assert next(iter(answer)) == 2
    assert fields[b"labels"].startswith(b'["two","')  # type: ignore[index,union-attr]


def settings(at: RedisAt, **model: str) -> Settings:
    path = str(DIGITS / "model")
    data = Data(src=str(at), streams=("stream",))
    return Settings(model=Model(path=path, **model), data=data, redis=Redis(wait_s=0.1))


def test_labels_that_cannot_be_read_are_told_before_redis_is_asked(at: RedisAt, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as labels"):
        preflight(settings(at, labels=str(tmp_path / "none")))


def test_too_few_labels_are_told_before_serving(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    del client
    (tmp_path / "names.txt").write_text("zero\none\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has 2 labels, output 'prob' has 10 classes"):
        run_pipeline(settings(at, labels=str(tmp_path / "names.txt")), ["worker"], [], drain=True)


def test_an_output_that_the_model_lacks_is_refused(at: RedisAt) -> None:
    with pytest.raises(ModelLoadError, match="has no output 'x', its outputs are prob"):
        run_pipeline(settings(at, outputs=("x",)), ["worker"], [], drain=True)  # type: ignore[arg-type]
