"""What a client with a secret puts on the stream."""

import base64
import re

import numpy as np
import pyarrow as pa
import pytest
import redis

from beam_serving.client import AsyncInputQueue, InputQueue
from beam_serving.encryption.gcm import keys_of
from beam_serving.encryption.records import Decryptor
from beam_serving.encryption.secrets import Secret
from beam_serving.encryption.strength import MAKE_ONE
from beam_serving.protocol import DEFAULT_LIMITS, decode_request
from beam_serving.records import Image
from tests.client.conftest import STREAM

SECRET = {"secret": "a secret of the tests", "salt": "and its salt"}
OPENING = Decryptor(keys_of(Secret(**SECRET)), everything=True)
FILE = b"\xff\xd8jpeg"


def test_every_way_to_queue_encrypts(url: str, valkey: redis.Redis) -> None:
    tensor = np.arange(3, dtype=np.float32)
    with InputQueue(url, **SECRET) as queue:
        queue.enqueue("one", tensor)
        queue.enqueue("named", a=tensor, b=FILE)
        queue.enqueue_image("image", FILE)
        queue.enqueue_many([("many", tensor)])
    entries = [fields for _, fields in valkey.xrange(STREAM)]
    assert not [fields for fields in entries if FILE in fields.values() or tensor.tobytes() in fields.values()]
    payloads = {
        payload.uri: payload.inputs for payload in (decode_request(one, DEFAULT_LIMITS, OPENING) for one in entries)
    }
    assert {fields[b"cipher"] for fields in entries} == {b"aes-gcm-2"}
    assert payloads[b"image"] == {"": Image(FILE)}
    assert payloads[b"named"]["b"] == Image(FILE)
    for uri, name in ((b"one", ""), (b"named", "a"), (b"many", "")):
        np.testing.assert_array_equal(payloads[uri][name], tensor)  # type: ignore[arg-type]


def test_in_the_format_of_cluster_serving_images_are_encrypted_and_nothing_else_can_be(
    url: str, valkey: redis.Redis
) -> None:
    host, port = url.removeprefix("redis://").split(":")
    with InputQueue(host=host, port=port, **SECRET) as queue:
        queue.enqueue("image", t={"b64": base64.b64encode(FILE).decode()})
        queue.enqueue_image("ours", FILE)
        with pytest.raises(
            TypeError, match="input 't' is no image, and the format of Cluster Serving encrypts no other"
        ):
            queue.enqueue("texts", t=["a", "b"])
        stream = base64.b64decode(queue.data_to_b64(t=FILE))
    entries = [fields for _, fields in valkey.xrange(STREAM)]
    assert [decode_request(one, DEFAULT_LIMITS, OPENING).inputs for one in entries] == [
        {"t": Image(FILE)},
        {"": Image(FILE)},
    ]
    (text,) = pa.ipc.open_stream(stream).read_all().column("t").to_pylist()
    assert OPENING.keys.old.open(base64.b64decode(text)) == FILE


def test_a_request_to_a_front_end_is_not_sent_in_clear() -> None:
    with (
        InputQueue("http://127.0.0.1:1", **SECRET) as queue,
        pytest.raises(TypeError, match="a request to a front end is not encrypted; leave secret and salt out"),
    ):
        queue.predict(np.zeros(1))


@pytest.mark.parametrize("kind", [InputQueue, AsyncInputQueue])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"secret": SECRET["secret"]}, "salt is missing; encryption needs both"),
        ({"secret": "secret", "salt": "salt"}, "secret has 6 characters, wanted are at least 16"),
        (
            {"secret": "a" * 40, "salt": "and its salt"},
            "secret has 1 different characters, wanted are at least 5",
        ),
        (
            {**SECRET, "salt": SECRET["secret"]},
            "secret and salt are the same, wanted are two that are made apart",
        ),
    ],
)
def test_half_a_secret_or_a_weak_one_is_refused(kind: type, given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}($|; {re.escape(MAKE_ONE)}$)"):
        kind("localhost", **given)
