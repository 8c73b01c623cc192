"""Models from the field that came out wrong once, each with its right value, as any pipeline loads them."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from beam_serving.errors import ModelLoadError, RequestError
from beam_serving.models import handler_for

CASES = Path(__file__).parent / "fixtures" / "cases"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def served(case: str, examples: Sequence[Any], **options: Any) -> list[Any]:
    handler = handler_for(CASES / case, **options)
    return [prediction.inference for prediction in handler.run_inference(examples, handler.load_model())]


def tensor_of(case: str, name: str) -> np.ndarray:
    stored = onnx.TensorProto.FromString((CASES / case / "test_data_set_0" / f"{name}.pb").read_bytes())
    return np.asarray(numpy_helper.to_array(stored))


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_outputs_without_a_batch_axis_are_those_of_the_own_record() -> None:
    records = [np.random.default_rng(seed).random((3, 4, 4)).astype(np.float32) for seed in range(3)]

    got = served("1_rows", records)

    for record, outputs in zip(records, got, strict=True):
        best = np.argsort(-record.ravel())[:5]
        np.testing.assert_array_equal(outputs["idx"], best)
        np.testing.assert_array_equal(outputs["scores"], record.ravel()[best])


def test_rows_that_depend_on_their_place_are_one_record() -> None:
    (whole,) = served("2_batchpos", [np.ones((3, 2), np.float32)])

    np.testing.assert_array_equal(whole, [[1, 2], [3, 4], [5, 6]])
    with pytest.raises(RequestError, match=r"input 'X' has shape \[2\], the model takes \[3, 2\]"):
        served("2_batchpos", [floats(1, 1)] * 3)


def test_whole_numbers_of_64_bits_are_exact() -> None:
    numbers = np.array([2**40, 2**31, -(2**33)])

    (got,) = served("3_int64", [numbers])

    np.testing.assert_array_equal(got, numbers)


@pytest.mark.torch
def test_whole_numbers_of_torch_are_exact() -> None:
    numbers = [np.array([7000, 12345, 9]), np.array([2**40 + 1, -5, 0])]

    got = served("3_int64/torch", numbers)

    for one, wanted in zip(got, numbers, strict=True):
        assert one.dtype == np.int64
        np.testing.assert_array_equal(one, wanted * 1000003 % 1009)


def test_a_text_that_ends_an_engine_is_served_by_the_models_own_framework() -> None:
    texts = np.array(["hello", "a text longer than sixteen bytes"], object)

    got = served("4_string_abort", [texts, texts[::-1], texts[:1]])

    assert [list(one) for one in got] == [list(texts), list(texts[::-1]), ["hello"]]


def test_an_engine_that_ends_its_process_is_a_refusal_that_names_it() -> None:
    started = time.monotonic()

    with pytest.raises(ModelLoadError) as refused:
        handler_for(CASES / "4_string_abort", engine="openvino").load_model()

    path = CASES / "4_string_abort" / "model.onnx"
    assert str(refused.value) == (
        f"{path}: engine openvino ended its process with SIGABRT while it loaded or tried the model, 2 times"
    )
    assert time.monotonic() - started < 60


def test_bfloat16_is_float32_outside() -> None:
    (got,) = served("5_bf16", [floats(0.5, 1, 2, 3)])

    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [0.5, 1, 2, 3])
    (rounded,) = served("5_bf16", [tensor_of("5_bf16", "input_0")[0]])
    bits = np.frombuffer(
        onnx.TensorProto.FromString((CASES / "5_bf16" / "test_data_set_0" / "output_0.pb").read_bytes()).raw_data,
        np.uint16,
    )
    wanted = (bits.astype(np.uint32) << 16).view(np.float32)[:4]
    np.testing.assert_array_equal(rounded, wanted)


@pytest.mark.torch
def test_bfloat16_of_torch_is_float32_outside() -> None:
    (got,) = served("5_bf16/torch", [floats(0.5, 1, 2, 3)], input_shape=(4,))

    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [-2.0781, 0.6406, -0.3691], atol=2e-2)


def test_float64_keeps_its_range_and_its_digits() -> None:
    numbers = np.array([123456789.123456789, 1e300, 1 / 3])

    (got,) = served("6_float64", [{"x": numbers, "y": numbers}])

    np.testing.assert_array_equal(got, numbers + numbers)


def test_whole_numbers_are_divided_as_the_models_own_framework_does() -> None:
    (got,) = served("7_int_div", [{"x": np.full((4, 5), 16, np.int8), "y": np.full((4, 5), 9, np.int8)}])
    assert got.dtype == np.int8
    np.testing.assert_array_equal(got, np.ones((4, 5)))

    left, right = tensor_of("7_int_div", "input_0"), tensor_of("7_int_div", "input_1")
    rows = served("7_int_div", [{"x": one, "y": other} for one, other in zip(left, right, strict=True)])
    np.testing.assert_array_equal(rows, tensor_of("7_int_div", "output_0"))


def test_an_operator_that_an_engine_computes_wrong_runs_in_the_models_own_framework() -> None:
    handler = handler_for(CASES / "8_maxpool_ceil")
    model = handler.load_model()

    (got,) = handler.run_inference([np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2)], model)

    assert model.engine == "onnxruntime"
    np.testing.assert_array_equal(got.inference, [[[1]]])


@pytest.mark.torch
def test_a_scripted_model_of_several_inputs_is_served_with_a_shape_for_each() -> None:
    names = ("delay_itrs", "seq_start", "seq_id", "seq_state_in")

    def example(*values: float) -> dict[str, np.ndarray]:
        return {name: floats(value) for name, value in zip(names, values, strict=True)}

    shapes = dict.fromkeys(names, (1,))
    got = served(
        "12_scripted_multi", [example(2, 1, 5, 0), example(0, 0, 7, 7), example(1, 0, 8, 8)], input_shape=shapes
    )

    assert [[float(output.item()) for output in one.values()] for one in got] == [[5, 5], [7, 7], [8, 8]]


@pytest.mark.tensorflow
def test_a_frozen_graph_without_a_shape_is_served_with_one_from_the_operator() -> None:
    got = served("13_tf_noshape", [floats(1), floats(2)], input_shape=(1,))

    np.testing.assert_allclose(np.ravel(got), [0.6826253, 1.0242343], rtol=1e-5)


@pytest.mark.tensorflow
def test_a_frozen_graph_without_a_shape_is_served_without_one_too() -> None:
    (got,) = served("13_tf_noshape_string", [np.array(["1.5", "-2e3"], object)])

    np.testing.assert_array_equal(got, floats(1.5, -2000))


def test_the_chosen_output_is_served_whatever_the_others_are() -> None:
    examples = [floats(-1, 3), floats(-1, -3), floats(3, -1)]
    weights = np.array([[0.38574114, 1.3805406], [-2.13145, -0.9928048], [0.6427745, -1.7489388]])
    wanted = np.argmax(np.array(examples) @ weights.T + [0.2496292, 0.5820278, -0.94161665], axis=1)

    both = served("15_logreg", examples)
    labels = served("15_logreg", examples, output_names=("label",))

    assert all(one.dtype == np.int64 and one.shape == () for one in labels)
    np.testing.assert_array_equal(labels, wanted)
    np.testing.assert_array_equal([one["label"] for one in both], wanted)
    np.testing.assert_array_equal([np.argmax(one["probabilities"]) for one in both], wanted)


def test_what_is_kept_of_a_case_lies_in_the_cache_alone() -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "beam_serving"

    assert list((cache / "verdicts").glob("*.json"))
    assert not [path for path in CASES.rglob(".*") if path.is_file()]
