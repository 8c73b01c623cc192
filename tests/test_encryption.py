"""Encrypted models and records through a whole service, with our clients and those of Cluster Serving."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from beam_serving.cli.commands.encrypt_model import encrypt_model
from beam_serving.client import AsyncInputQueue, InputQueue, OutputQueue, ResultError
from beam_serving.encryption.gcm import ROUNDS, key_of
from beam_serving.encryption.secrets import Secret
from beam_serving.encryption.strength import MAKE_ONE
from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load
from beam_serving.protocol import native
from beam_serving.protocol.encrypted import seal_fields
from beam_serving.transforms.image import ImageRules, tensor_of_image
from beam_serving.transport.connection import RedisAt
from tests.encryption.java import java
from tests.models.conftest import DIGITS
from tests.old_clients import ArrowClient, tensor_column
from tests.service import DIGITS as DEMO
from tests.service import Service, service

MODEL = Secret("the secret of the model", "the salt of the model")
RECORDS = Secret("the secret of the records", "the salt of the records")
IMAGE = DEMO / "images" / "digit_2.png"
NOT_OPENED = "payload cannot be decrypted: another secret or salt, or it was changed on the way"


def secret_file(folder: Path, secret: Secret) -> str:
    path = folder / f"{secret.salt}.txt"
    path.write_text(f"{secret.secret}\n{secret.salt}\n", encoding="utf-8")
    return str(path)


def plain_rows(inputs: np.ndarray) -> np.ndarray:
    """What the model gives that is not encrypted."""
    model = load(find_model(DIGITS / "openvino"))
    (rows,) = model.predict({model.inputs[0].name: inputs}).values()
    return rows


@pytest.fixture(scope="module")
def place() -> Iterator[RedisAt]:
    """A server of its own: that of the other tests is emptied, and has other services."""
    with embedded_redis() as port:
        yield RedisAt("127.0.0.1", port)


@pytest.fixture(scope="module")
def running(place: RedisAt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose model is encrypted, and that takes nothing in clear."""
    folder = tmp_path_factory.mktemp("encrypted")
    model_secret = secret_file(folder, MODEL)
    encrypt_model(DIGITS / "openvino", folder / "model", ModelOptions(), model_secret)
    config = {
        "model": {"path": "model", "encryption": "gcm", "secret_file": model_secret},
        "data": {"encryption": "all", "secret_file": secret_file(folder, RECORDS), "max_request_bytes": 100_000},
        "params": {"workers": 1, "top_n": 0},
    }
    with service(place, folder, config) as running:
        yield running


@pytest.fixture
def queue(running: Service, place: RedisAt) -> Iterator[InputQueue]:
    with InputQueue(place.host, place.port, secret=RECORDS.secret, salt=RECORDS.salt) as queue:
        yield queue


@pytest.fixture
def results(place: RedisAt) -> Iterator[OutputQueue]:
    with OutputQueue(place.host, place.port) as results:
        yield results


def refusal(results: OutputQueue, uri: str) -> str:
    with pytest.raises(ResultError) as caught:
        results.query(uri, timeout_s=30)
    return str(caught.value)


def test_encrypted_records_of_an_encrypted_model_get_the_results_of_plain_ones(
    queue: InputQueue, results: OutputQueue, running: Service
) -> None:
    with np.load(DIGITS / "golden.npz") as golden:
        inputs = golden["input_nchw"]
    queue.enqueue_many([(f"g{number}", one) for number, one in enumerate(inputs)])
    answers = results.query_many([f"g{number}" for number in range(len(inputs))], timeout_s=60)
    rows = np.array([answers[f"g{number}"] for number in range(len(inputs))])
    np.testing.assert_allclose(rows, plain_rows(inputs), atol=1e-6)
    assert "engine openvino" in running.log
    assert running.log.count("/model/model.xml (openvino") == 1


def test_an_encrypted_image_gets_the_result_of_the_plain_one(queue: InputQueue, results: OutputQueue) -> None:
    spec = load(find_model(DIGITS / "openvino")).inputs[0]
    wanted = plain_rows(tensor_of_image(IMAGE.read_bytes(), spec, ImageRules())[np.newaxis])[0]
    queue.enqueue_image("image", IMAGE)
    np.testing.assert_allclose(np.asarray(results.query("image", timeout_s=30)), wanted, atol=1e-6)
    np.testing.assert_allclose(np.asarray(queue.predict({"": IMAGE}, timeout=30)), wanted, atol=1e-6)


async def test_so_does_that_of_a_client_for_asyncio(running: Service, place: RedisAt, results: OutputQueue) -> None:
    secret = {"secret": RECORDS.secret, "salt": RECORDS.salt}
    async with AsyncInputQueue(place.host, place.port, **secret) as queue:
        await queue.enqueue("awaited", np.zeros((3, 32, 32), np.float32))
        await queue.enqueue_image("awaited image", IMAGE)
        await queue.enqueue_many([("awaited too", np.zeros((3, 32, 32), np.float32))])
    answers = results.query_many(["awaited", "awaited image", "awaited too"], timeout_s=30)
    assert [np.shape(answer) for answer in answers.values()] == [(10,)] * 3  # type: ignore[arg-type]


def test_a_request_that_cannot_be_opened_gets_an_error_and_its_neighbours_their_results(
    queue: InputQueue, results: OutputQueue, place: RedisAt
) -> None:
    client, tensor = place.client(), np.zeros((3, 32, 32), np.float32)
    key = key_of(RECORDS)

    def send(uri: str, **changed: bytes) -> None:
        fields = seal_fields(native.encode_request(uri.encode(), b"", {"": tensor}), key)
        client.xadd("serving_stream", {**fields, **{f"{name}:".encode(): value for name, value in changed.items()}})

    sealed = seal_fields(native.encode_request(b"x", b"", {"": tensor}), key)[b"tensor:"]
    queue.enqueue("before", tensor)
    with InputQueue(place.host, place.port, secret=MODEL.secret, salt=RECORDS.salt) as other:
        other.enqueue("other secret", tensor)
    with InputQueue(place.host, place.port) as plain:
        plain.enqueue("in clear", tensor)
    send("replayed", tensor=sealed)
    send("changed", tensor=bytes(len(sealed)))
    send("cut off", tensor=sealed[:20])
    send("huge", tensor=bytes(200_000))
    queue.enqueue("after", tensor)

    for uri in ("before", "after"):
        assert np.shape(results.query(uri, timeout_s=30)) == (10,)  # type: ignore[arg-type]
    assert refusal(results, "other secret") == f"request 'other secret': {NOT_OPENED}"
    assert (
        refusal(results, "in clear") == "request 'in clear': tensor is in clear, this service takes encrypted ones only"
    )
    assert refusal(results, "replayed") == f"request 'replayed': {NOT_OPENED}"
    assert refusal(results, "changed") == f"request 'changed': {NOT_OPENED}"
    assert refusal(results, "cut off").startswith("request 'cut off': payload is 20 bytes, wanted are at least 28: ")
    assert refusal(results, "huge").endswith("bytes, at most 100000 are served")


def test_the_client_with_arguments_of_cluster_serving_encrypts_images(
    running: Service, place: RedisAt, results: OutputQueue
) -> None:
    secret = {"secret": RECORDS.secret, "salt": RECORDS.salt}
    with InputQueue(host=place.host, port=place.port, **secret) as queue:
        queue.enqueue("old format", t={"path": str(IMAGE)})
        with pytest.raises(
            TypeError, match="input 't' is no image, and the format of Cluster Serving encrypts no other"
        ):
            queue.enqueue("tensor", t=np.zeros(3))
    # Their results are in their format, which is float32 too.
    assert np.shape(results.query("old format", timeout_s=30)) == (10,)  # type: ignore[arg-type]


def test_an_old_file_with_old_encrypted_files_and_an_old_client_are_served(
    at: RedisAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, secret in (("MODEL", MODEL), ("RECORD", RECORDS)):
        monkeypatch.setenv(f"BEAM_SERVING_{name}_SECRET", secret.secret)
        monkeypatch.setenv(f"BEAM_SERVING_{name}_SALT", secret.salt)
    java("cbc", MODEL.secret, MODEL.salt, DIGITS / "openvino", tmp_path / "model")
    java("gcm", RECORDS.secret, RECORDS.salt, IMAGE, tmp_path / "image")
    old = {"modelPath": "model", "redisUrl": str(at), "modelEncrypted": True, "recordEncrypted": True}
    config = {**old, "modelParallelism": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    client = ArrowClient(at.client())
    client.enqueue("encrypted", t=pa.array([base64.b64encode((tmp_path / "image").read_bytes()).decode()]))
    client.enqueue("tensor", t=tensor_column(np.zeros((3, 32, 32))))
    client.enqueue("in clear", t=pa.array([base64.b64encode(IMAGE.read_bytes()).decode()]))

    ended = run(tmp_path, "--drain")

    assert ended.returncode == 0, ended.stderr
    spec = load(find_model(DIGITS / "openvino")).inputs[0]
    wanted = plain_rows(tensor_of_image(IMAGE.read_bytes(), spec, ImageRules())[np.newaxis])[0]
    np.testing.assert_allclose(client.query("encrypted"), wanted, atol=1e-6)
    assert client.query("tensor").shape == (10,)
    assert client.query("in clear") == "NaN"
    assert client.raw("in clear")[b"error"].decode() == f"request 'in clear': input 't': {NOT_OPENED}"
    assert "modelEncrypted: the hash model_secured in Redis is not read" in ended.stderr
    assert "recordEncrypted: the key that all old servers had built in is refused" in ended.stderr
    assert "AES-CBC shows no tampering" in ended.stderr


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beam_serving", "--config", str(folder / "config.yaml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model": {"path": "model", "encryption": "gcm"}},
            "secret for decryption is missing; set BEAM_SERVING_MODEL_SECRET and BEAM_SERVING_MODEL_SALT, or "
            "model: secret_file to a file of two lines",
        ),
        (
            {"model": {"path": "model", "encryption": "gcm", "secret_file": f"{RECORDS.salt}.txt"}},
            "{folder}/model/model.onnx: cannot be decrypted: it has another secret, salt or file name",
        ),
        ({"model": {"path": "model"}}, "{folder}/model/model.onnx: is encrypted; set model: encryption: gcm"),
        (
            {"model": {"path": "noop"}, "data": {"encryption": "all"}},
            "secret for decryption is missing; set BEAM_SERVING_RECORD_SECRET and BEAM_SERVING_RECORD_SALT, or "
            "data: secret_file to a file of two lines",
        ),
        (
            {"model": {"path": "noop"}, "data": {"encryption": "all", "secret_file": "weak.txt"}},
            f"secret has 5 characters, wanted are at least 16; {MAKE_ONE}; set BEAM_SERVING_RECORD_SECRET and "
            "BEAM_SERVING_RECORD_SALT, or data: secret_file to a file of two lines; what is encrypted with it already "
            "is read with data: allow_weak_secret: true",
        ),
        (
            {"model": {"path": "model", "encryption": "gcm", "secret_file": "weak.txt"}},
            f"secret has 5 characters, wanted are at least 16; {MAKE_ONE}; set BEAM_SERVING_MODEL_SECRET and "
            "BEAM_SERVING_MODEL_SALT, or model: secret_file to a file of two lines; what is encrypted with it already "
            "is read with model: allow_weak_secret: true (--allow-weak-secret of the command model)",
        ),
    ],
)
def test_a_service_does_not_start_with_a_wrong_or_missing_secret(
    at: RedisAt, tmp_path: Path, config: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL_SECRET", "MODEL_SALT", "RECORD_SECRET", "RECORD_SALT"):
        monkeypatch.delenv(f"BEAM_SERVING_{name}", raising=False)
    secret_file(tmp_path, RECORDS)
    (tmp_path / "weak.txt").write_text("short\nand its salt\n", encoding="utf-8")
    encrypt_model(DIGITS / "onnx", tmp_path / "model", ModelOptions(), secret_file(tmp_path, MODEL))
    config = {**config, "data": {"src": str(at), **config.get("data", {})}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    ended = run(tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == f"error: {said.format(folder=tmp_path)}"


def test_requests_under_a_weak_secret_are_served_where_that_is_allowed_and_readers_of_the_file_are_told(
    at: RedisAt, tmp_path: Path
) -> None:
    weak = Secret("short", "old")
    files = {"data": secret_file(tmp_path, weak), "redis": str(tmp_path / "password")}
    (tmp_path / "password").touch()
    for file in files.values():
        Path(file).chmod(0o644)
    config = {
        "model": {"path": str(DIGITS / "openvino")},
        "data": {"src": str(at), "encryption": "all", "secret_file": files["data"], "allow_weak_secret": True},
        "redis": {"password_file": files["redis"]},
        "params": {"workers": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for version in ROUNDS:
        fields = native.encode_request(b"v%d" % version, b"", {"": np.zeros((3, 32, 32), np.float32)})
        at.client().xadd("serving_stream", seal_fields(fields, key_of(weak, version)))  # type: ignore[arg-type]

    ended = run(tmp_path, "--drain")

    assert ended.returncode == 0, ended.stderr
    with OutputQueue(at.host, at.port) as results:
        assert len(results.query_many(["v1", "v2"], timeout_s=5)) == 2
    for key, file in (("data: secret_file", files["data"]), ("redis: password_file", files["redis"])):
        assert f"{key} {file}: every user may read or write it (mode 0644); chmod 600 it" in ended.stderr
