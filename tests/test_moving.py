"""A user of Cluster Serving moves over: one service answers the clients of every generation."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from beam_serving.client import InputQueue, OutputQueue, RedisQueue, ResultError
from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.transport.connection import RedisAt
from tests.old_clients import ArrowClient, ImageClient, sparse_column, tensor_column
from tests.service import DIGITS, Service, await_true, service

IMAGE = (DIGITS / "images" / "digit_2.png").read_bytes()
PIXELS = cv2.imdecode(np.frombuffer(IMAGE, np.uint8), cv2.IMREAD_COLOR)
TENSOR = (PIXELS.transpose(2, 0, 1) / 255).astype(np.float32)
FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)


def eventually(query: Callable[[str], Any], uri: str, nothing_yet: Any) -> Any:
    """Asks for a result as users of the old clients do: again and again."""
    found: list[Any] = []

    def there() -> bool:
        found[:] = [query(uri)]
        return not (isinstance(found[0], type(nothing_yet)) and found[0] == nothing_yet)

    await_true(there, f"the result of {uri}")
    return found[0]


def value(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def saved(folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Sequence[Any] = ()) -> str:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(folder / "model.onnx"))
    return str(folder)


def pair_model(folder: Path) -> str:
    """Two inputs, two outputs: `doubled` of the first, `negative` of the second."""
    nodes = [helper.make_node("Add", ["x", "x"], ["doubled"]), helper.make_node("Neg", ["y"], ["negative"])]
    inputs = [value("x", TensorProto.FLOAT, "n", 2, 3), value("y", TensorProto.FLOAT, "n", 4)]
    outputs = [value("doubled", TensorProto.FLOAT, "n", 2, 3), value("negative", TensorProto.FLOAT, "n", 4)]
    return saved(folder, nodes, inputs, outputs)


def doubling_model(folder: Path) -> str:
    nodes = [helper.make_node("Add", ["x", "x"], ["doubled"])]
    tensors = [value(name, TensorProto.FLOAT, "n", 2, 3) for name in ("x", "doubled")]
    return saved(folder, nodes, tensors[:1], tensors[1:])


def text_model(folder: Path) -> str:
    """Gives the numbers of three texts, -1 for any other text."""
    node = helper.make_node(
        "LabelEncoder",
        ["text"],
        ["number"],
        domain="ai.onnx.ml",
        keys_strings=["one", "two", "cats"],
        values_floats=[1.0, 2.0, 3.0],
        default_float=-1.0,
    )
    return saved(
        folder, [node], [value("text", TensorProto.STRING, "n", 2)], [value("number", TensorProto.FLOAT, "n", 2)]
    )


def config(model: str, streams: str = "image_stream, serving_stream, mine", **params: Any) -> dict[str, Any]:
    return {
        "model": {"path": model},
        "data": {"streams": streams},
        "params": {"batch_size": 4, "workers": 1, **params},
    }


def of_digits(**params: Any) -> dict[str, Any]:
    made = config(str(DIGITS / "model"), **params)
    made["data"] |= {"shape": "3,32,32", "scale": 1 / 255}
    return made


@pytest.fixture(scope="module")
def own_server() -> Iterator[RedisAt]:
    """A server of these tests alone: the services of others read the same streams."""
    with embedded_redis() as port:
        yield RedisAt("127.0.0.1", port)


@pytest.fixture(scope="module")
def queued_before(own_server: RedisAt) -> RedisAt:
    """A server on which clients of every generation have queued before any service was there."""
    server = own_server.client()
    client = ArrowClient(server)
    assert client.group_error is not None
    client.enqueue("early arrow", t=tensor_column(TENSOR))
    # a second object finds the stream, and makes the group at its end
    assert ArrowClient(server).group_error is None
    ImageClient(server).enqueue_image("early image", IMAGE)
    assert ImageClient(server).group_error is None
    ArrowClient(server, "mine").enqueue("early mine", t=tensor_column(TENSOR))
    return own_server


@pytest.fixture(scope="module")
def digits(queued_before: RedisAt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(queued_before, tmp_path_factory.mktemp("digits"), of_digits(top_n=2)) as running:
        yield running


def test_what_was_queued_before_the_first_start_is_served(digits: Service) -> None:
    assert eventually(ArrowClient(digits.client).query, "early arrow", "[]")[0][0] == 2
    assert eventually(ArrowClient(digits.client, "mine").query, "early mine", "[]")[0][0] == 2
    assert next(iter(eventually(ImageClient(digits.client).query, "early image", {}))) == "2"


def test_the_image_generation_gets_an_object_of_strings(digits: Service) -> None:
    client = ImageClient(digits.client)
    client.enqueue_image("i:1", IMAGE)
    answer = eventually(client.query, "i:1", {})
    assert next(iter(answer)) == "2"
    assert len(answer) == 2
    assert float(answer["2"]) > 0.99
    taken = client.dequeue_raw()
    assert json.loads(taken["i"]) == answer


def test_the_arrow_generation_gets_classes_and_probabilities(digits: Service) -> None:
    for name in ("serving_stream", "mine"):
        client = ArrowClient(digits.client, name)
        client.enqueue("tensor", t=tensor_column(TENSOR))
        client.enqueue("batched", t=tensor_column(TENSOR[None]))
        client.enqueue("image", t=pa.array([base64.b64encode(IMAGE).decode()]))
        for uri in ("tensor", "batched", "image"):
            answer = eventually(client.query, uri, "[]")
            assert answer.shape == (2, 2)
            assert answer[0][0] == 2
            assert answer[0][1] > 0.99


def test_a_json_body_gets_an_arrow_answer(digits: Service) -> None:
    client = ArrowClient(digits.client)
    body = {"instances": [{"t": TENSOR.tolist()}]}
    client.send(uri="json", data=json.dumps(body), serde="stream")
    assert eventually(client.query, "json", "[]")[0][0] == 2


def test_the_oldest_client_is_served(digits: Service, own_server: RedisAt) -> None:
    with RedisQueue(src=str(own_server)) as queue:
        queue.enqueue_image("seed", PIXELS)
        found: dict[str, Any] = {}
        await_true(lambda: found.update(queue.get_result()) or "seed" in found, "the result")
    assert next(iter(found["seed"])) == 2


def test_a_failure_is_told_in_the_form_of_each(digits: Service) -> None:
    arrow, image = ArrowClient(digits.client), ImageClient(digits.client)
    arrow.enqueue("wrong shape", t=tensor_column(FLOATS))
    image.enqueue_image("no image", b"text")
    assert eventually(arrow.query, "wrong shape", "[]") == "NaN"
    assert b"has shape [2, 3], the model takes [3, 32, 32]" in arrow.raw("wrong shape")[b"error"]
    assert "this format is not supported" in eventually(image.query, "no image", {})["error"]
    assert b"this format is not supported" in image.raw("no image")[b"error"]


def test_old_code_runs_with_our_import(digits: Service, own_server: RedisAt, tmp_path: Path) -> None:
    file = tmp_path / "two.png"
    file.write_bytes(IMAGE)
    place = {"host": own_server.host, "port": str(own_server.port), "name": "mine"}
    with InputQueue(**place) as queue, OutputQueue(**place) as results:
        queue.enqueue("a:b", any_name=str(file))
        assert eventually(results.query, "a:b", "[]")[0][0] == 2
        assert queue.predict(TENSOR)[0][0] == 2
        assert queue.predict(json.dumps({"instances": [{"t": TENSOR.tolist()}]}), timeout=30)[0][0] == 2
        assert queue.predict(FLOATS) == "NaN"


def test_several_inputs_and_outputs_go_by_name_or_by_place(at: RedisAt, tmp_path: Path) -> None:
    y = np.array([0, 5, 0, 6], np.float32)
    sparse = sparse_column(np.array([[1], [3]]), np.array([5.0, 6.0]), np.array([4]))
    with service(at, tmp_path, config(pair_model(tmp_path), top_n=0)) as running:
        client = ArrowClient(running.client)
        client.enqueue("named", y=tensor_column(y), x=tensor_column(FLOATS))
        client.enqueue("placed", first=tensor_column(FLOATS), second=tensor_column(y))
        client.enqueue("sparse", x=tensor_column(FLOATS), y=sparse)
        client.enqueue("one", x=tensor_column(FLOATS))
        for uri in ("named", "placed", "sparse"):
            doubled, negative = eventually(client.query, uri, "[]")
            np.testing.assert_array_equal(doubled, FLOATS * 2)
            np.testing.assert_array_equal(negative, -y)
        assert eventually(client.query, "one", "[]") == "NaN"
        assert b"its inputs are ['x'], the model takes ['x', 'y']" in client.raw("one")[b"error"]


def test_a_list_of_texts_is_served(at: RedisAt, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with service(at, tmp_path, config(text_model(tmp_path), top_n=0)) as running:
        client = ArrowClient(running.client)
        client.enqueue("texts", text=pa.array(["two|cats"]))
        assert eventually(client.query, "texts", "[]").tolist() == [2, 3]
        client.send(uri="json", data='{"instances": [{"text": ["cats", "one"]}]}', serde="stream")
        assert eventually(client.query, "json", "[]").tolist() == [3, 1]
        with InputQueue("127.0.0.1", at.port) as queue, OutputQueue("127.0.0.1", at.port) as results:
            queue.enqueue("native", text=["one", "cats"])
            queue.enqueue("numbers", text=[1, 2])
            native: Any = results.query("native", timeout_s=30)
            assert native.tolist() == [1, 3]
            with pytest.raises(ResultError, match=r"input 'text' has type int64, the model takes string$"):
                results.query("numbers", timeout_s=30)


def distance_model(folder: Path) -> str:
    """Gives how far whole numbers are from 2^24 + 1, which float32 does not have."""
    nodes = [helper.make_node("Sub", ["id", "k"], ["d"]), helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT)]
    constants = [helper.make_tensor("k", TensorProto.INT64, [1], [2**24 + 1])]
    inputs, outputs = [value("id", TensorProto.INT64, "n", 1)], [value("y", TensorProto.FLOAT, "n", 1)]
    return saved(folder, nodes, inputs, outputs, constants)


def test_whole_numbers_reach_the_model_as_they_are(at: RedisAt, tmp_path: Path) -> None:
    with service(at, tmp_path, config(distance_model(tmp_path), top_n=0)) as running:
        body = '{"instances": [{"id": [16777217]}]}'
        ArrowClient(running.client).send(uri="json", data=body, serde="stream")
        with (
            InputQueue(host="127.0.0.1", port=at.port) as old,
            InputQueue("127.0.0.1", at.port) as queue,
            OutputQueue("127.0.0.1", at.port) as results,
        ):
            old.enqueue("old", id=np.array([2**24 + 1]))
            queue.enqueue("floats", [float(2**24 + 1)])
            queue.enqueue("native", [2**24 + 1])
            queue.enqueue("fraction", [0.5])
            for uri in ("json", "old", "floats", "native"):
                reply: Any = results.query(uri, timeout_s=30)
                assert reply.tolist() == [0]
            with pytest.raises(ResultError, match=r"input 'id' has float32 values that are no int64, such as 0.5$"):
                results.query("fraction", timeout_s=30)


@pytest.mark.parametrize(
    ("post_processing", "rows", "text"),
    [
        ("topN(2)", [[5, 10], [4, 8]], b"[[5,10.0],[4,8.0]]"),
        ("pickTopN(1)", [[0, 2, 4]], b"[[0.0,2.0,4.0]]"),
        ("none", [[0, 2, 4], [6, 8, 10]], b"[[0.0,2.0,4.0],[6.0,8.0,10.0]]"),
    ],
)
def test_post_processing_is_arrow_for_one_generation_and_lists_for_the_other(
    at: RedisAt, tmp_path: Path, post_processing: str, rows: list[Any], text: bytes
) -> None:
    made = config(doubling_model(tmp_path), post_processing=post_processing)
    picture = cv2.imencode(".png", FLOATS.astype(np.uint8))[1].tobytes()
    with service(at, tmp_path, made) as running:
        arrow, image = ArrowClient(running.client), ImageClient(running.client)
        arrow.enqueue("a", x=tensor_column(FLOATS))
        assert eventually(arrow.query, "a", "[]").tolist() == rows
        image.enqueue_image("a", picture)
        assert eventually(image.query, "a", {}) == json.loads(text)
        assert image.raw("a")[b"value"] == text
        with InputQueue("127.0.0.1", at.port) as queue, OutputQueue("127.0.0.1", at.port) as results:
            queue.enqueue("b", x=FLOATS)
            reply: Any = results.query("b", timeout_s=30)
        assert (list(reply.items()) if isinstance(reply, dict) else reply.tolist()) in (
            rows,
            [tuple(row) for row in rows],
        )
