"""What a service must bear from its models: odd shapes, files that change under it, engines that end their process."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from onnx import TensorProto, helper
from openvino import opset13 as ops

from beam_serving.client import InputQueue, OutputQueue
from beam_serving.errors import ModelLoadError
from beam_serving.models import handler_for
from beam_serving.transport.connection import RedisAt
from tests.models.onnx_files import FLOAT, INT64, STRING, node, saved
from tests.service import Service, await_true, service


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def predicted(directory: Path, examples: list[Any], **options: Any) -> list[Any]:
    handler = handler_for(directory, **options)
    return [prediction.inference for prediction in handler.run_inference(examples, handler.load_model())]


def squeezed(directory: Path) -> Path:
    nodes = [node("ReduceMean", "x", "m", axes=[0, 2, 3], keepdims=0), node("Gather", "m ix", "y", axis=0)]
    return saved(directory, nodes, [("x", FLOAT, (1, 3, 8, 8))], [("y", FLOAT, (2,))], {"ix": np.array([0, 1])})


def detections(directory: Path) -> Path:
    return saved(
        directory,
        [node("Reshape", "x s", "f"), node("TopK", "f k", "scores labels", axis=0)],
        [("x", FLOAT, (1, 1, 4, 4))],
        [("scores", FLOAT, (5,)), ("labels", INT64, (5,))],
        {"s": np.array([-1]), "k": np.array([5])},
    )


def time_first(directory: Path) -> Path:
    nodes = [node("Squeeze", "x ax", "q"), node("Transpose", "q", "y", perm=[2, 0, 1])]
    return saved(directory, nodes, [("x", FLOAT, (1, 1, 4, 6))], [("y", FLOAT, (6, 1, 4))], {"ax": np.array([1])})


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_outputs_without_a_batch_axis_are_those_of_the_own_request(tmp_path: Path, engine: str) -> None:
    def requests(*shape: int) -> list[np.ndarray]:
        return [np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1000 * row for row in range(3)]

    for image, got in zip(
        requests(3, 8, 8), predicted(squeezed(tmp_path / "a"), requests(3, 8, 8), engine=engine), strict=True
    ):
        np.testing.assert_allclose(got, image.mean((1, 2))[:2], rtol=1e-5)
    for image, got in zip(
        requests(1, 4, 4), predicted(detections(tmp_path / "b"), requests(1, 4, 4), engine=engine), strict=True
    ):
        np.testing.assert_array_equal(got["scores"], np.sort(image.ravel())[::-1][:5])
        np.testing.assert_array_equal(got["labels"], [15, 14, 13, 12, 11])
    for image, got in zip(
        requests(1, 4, 6), predicted(time_first(tmp_path / "c"), requests(1, 4, 6), engine=engine), strict=True
    ):
        np.testing.assert_array_equal(got, image.transpose(2, 0, 1))


def window(directory: Path, scaled: bool = False) -> Path:
    """Write a convolution of 5x5 over an image of any size, and its mean, times a factor for each image."""
    nodes = [
        node("Conv", "image w", "c", kernel_shape=[5, 5]),
        node("ReduceMean", "c", "m", axes=[2, 3], keepdims=0),
        node("Mul", "m scale_factor", "y") if scaled else node("Identity", "m", "y"),
    ]
    factor = [("scale_factor", FLOAT, ("N", 2))] if scaled else []
    inputs = [("image", FLOAT, ("N", 3, "H", "W")), *factor]
    return saved(
        directory, nodes, inputs, [("y", FLOAT, ("N", 2 if scaled else 1))], {"w": np.ones((1, 3, 5, 5), np.float32)}
    )


def test_a_trial_with_invented_data_keeps_no_good_model_out(tmp_path: Path) -> None:
    sizes = [np.ones((3, 8, 8), np.float32), np.ones((3, 16, 9), np.float32)]
    one, two = window(tmp_path / "one"), window(tmp_path / "two", scaled=True)
    factor = np.array([1, 2], np.float32)

    assert [float(got[0]) for got in predicted(one, sizes)] == [75, 75]
    assert [float(got[0]) for got in predicted(one, sizes, sample=(3, 20, 20))] == [75, 75]
    assert [float(got[0]) for got in predicted(one, sizes[:1], input_shape=(3, 8, 8))] == [75]
    examples = [{"image": image, "scale_factor": factor} for image in sizes]
    assert [got.tolist() for got in predicted(two, examples)] == [[75, 150]] * 2
    assert [got.tolist() for got in predicted(two, examples[:1], input_shape={"image": (3, 8, 8)})] == [[75, 150]]
    with pytest.raises(ModelLoadError, match=r"data: shape is for 1 input, the model has 2; wanted is .*image: \.\.\."):
        predicted(two, examples[:1], input_shape=(3, 8, 8))


def test_a_size_that_the_model_does_not_take_is_told_with_the_key_that_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [node("Reshape", "x to", "r"), node("MatMul", "r w", "y")]
    directory = saved(
        tmp_path,
        nodes,
        [("x", FLOAT, ("N", "W"))],
        [("y", FLOAT, ("N", 2))],
        {"to": np.array([-1, 11]), "w": np.ones((11, 2), np.float32)},
    )

    with caplog.at_level("INFO"):
        (got,) = predicted(directory, [np.ones(11, np.float32)])

    assert got.tolist() == [11, 11]
    assert "set model: sample to a file or shapes that it takes" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        rows = predicted(directory, [np.full(11, value, np.float32) for value in (1, 2)], sample=(11,))
    assert [row.tolist() for row in rows] == [[11, 11], [22, 22]]
    assert "a trial with invented data failed" not in caplog.text


def lookup(directory: Path, value: float) -> Path:
    """Write an OpenVINO model whose weights are mapped: it gives the mean of a row of equal values."""
    x = ops.parameter([-1, 4], np.float32, name="x")
    table = ops.constant(np.full((2000, 1024), value, np.float32))
    rows = ops.gather(table, ops.convert(x, "i64"), ops.constant(np.int64(0)))
    model = ov.Model([ops.reduce_mean(rows, ops.constant(np.array([2], np.int64)))], [x], "lookup")
    directory.mkdir()
    ov.save_model(model, directory / "model.xml", compress_to_fp16=False)
    return directory


def test_weights_that_change_under_a_service_change_nothing(at: RedisAt, tmp_path: Path) -> None:
    live, new = lookup(tmp_path / "live", 1.0), lookup(tmp_path / "new", 2.0)
    weights = (new / "model.bin").read_bytes()
    config = {
        "name": "safe",
        "model": {"path": str(live)},
        "params": {"workers": 2, "batch_size": 4, "top_n": 0, "reclaim_idle_s": 2},
    }

    with (
        service(at, tmp_path, config) as running,
        InputQueue(at.host, at.port) as queue,
        OutputQueue(at.host, at.port) as results,
    ):

        def answers(name: str) -> list[list[float]]:
            uris = [f"{name}{number}" for number in range(12)]
            queue.enqueue_many((uri, np.array([1, 2, 3, 1999 - row], np.float32)) for row, uri in enumerate(uris))
            return [np.ravel(got).tolist() for got in results.query_many(uris, timeout_s=60).values()]

        wanted = [[1.0] * 4] * 12
        assert answers("before") == wanted
        with (live / "model.bin").open("r+b") as file:
            file.write(weights)
        assert answers("overwritten") == wanted
        with (live / "model.bin").open("wb") as file:
            file.write(weights[:4096])
        assert answers("truncated") == wanted
        before = running.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        await_true(lambda: len(set(running.worker_pids()) - {before[0]}) == 2 and running.ready(), "a new worker")
        assert answers("restarted") == wanted
        assert running.process.poll() is None
        assert running.stop() == 0


def test_a_classifier_of_sklearn_answers_with_the_names_of_its_classes(at: RedisAt, tmp_path: Path) -> None:
    names = ["cat", "dog", "bird"]
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    directory = saved(
        tmp_path / "zipmap",
        [
            node(
                "LinearClassifier",
                "x",
                "label s",
                "ai.onnx.ml",
                coefficients=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
                intercepts=[0.0, 0, 0],
                classlabels_strings=names,
                multi_class=1,
                post_transform="SOFTMAX",
            ),
            node("ZipMap", "s", "probabilities", "ai.onnx.ml", classlabels_strings=names),
        ],
        [("x", FLOAT, ("N", 3))],
        [("label", STRING, ("N",)), helper.make_value_info("probabilities", maps)],
    )
    scores = np.array([0.5, 2.0, 1.0], np.float32)

    with service(at, tmp_path, {"model": {"path": str(directory)}, "params": {"workers": 1}}) as running:
        with InputQueue(at.host, at.port) as queue, OutputQueue(at.host, at.port, by_label=True) as results:
            queue.enqueue("one", scores)
            answer = results.query("one", timeout_s=30)
        assert running.stop() == 0

    chances = np.exp(scores) / np.exp(scores).sum()
    assert str(np.asarray(answer["label"]).item()) == "dog"
    best = answer["probabilities"]
    assert list(best) == ["dog", "bird", "cat"]
    assert list(best.values()) == pytest.approx(sorted(chances, reverse=True), abs=1e-6)


def test_an_engine_that_ends_its_process_ends_the_service_with_one_message(at: RedisAt, tmp_path: Path) -> None:
    tensor = [("t", STRING, ("N", 1))]
    directory = saved(tmp_path / "text", [node("Identity", "t", "y")], tensor, [("y", STRING, ("N", 1))])
    texts = [np.array([text], object) for text in ("hello", "a text longer than sixteen bytes")]
    assert [got.tolist() for got in predicted(directory, texts)] == [text.tolist() for text in texts]

    started = time.monotonic()
    running = Service(at, tmp_path, {"model": {"path": str(directory), "engine": "openvino"}, "params": {"workers": 2}})
    code = running.process.wait(120)

    assert code not in (0, None)
    assert time.monotonic() - started < 100
    errors = [line for line in running.log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, running.log
    assert f"{directory / 'model.onnx'}: engine openvino ended its process" in errors[0]
    # How it ends is the engine's affair: it overwrites memory that is not its own.
    assert re.search("SIGABRT|SIGSEGV", errors[0])
    assert "Traceback" not in running.log
    assert "starting it again" not in running.log
