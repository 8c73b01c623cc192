import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that

from beam_serving.errors import ConfigError, RequestError
from beam_serving.models import handler_for
from beam_serving.models.base import ModelOptions
from beam_serving.models.handler import Prediction

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
LIGHT = """
import json, sys
from beam_serving.models import {names}
{use}
heavy = ("apache_beam", "openvino", "cv2", "torch", "tensorflow")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def modules_after(names: str, use: str = "") -> list[str]:
    script = LIGHT.format(names=names, use=use)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    loaded: list[str] = json.loads(done.stdout)
    return loaded


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("openvino", {}),
        ("tf_frozen", {}),
        ("tf_saved_model", {}),
        ("tflite", {}),
        ("onnx", {}),
        ("onnx", {"engine": "onnxruntime"}),
        ("torchscript", {}),
        ("torchscript", {"engine": "torch"}),
        ("caffe", {}),
        ("caffe", {"engine": "opencv"}),
        ("bigdl", {"input_shape": (3, 32, 32)}),
        ("bigdl_split", {"input_shape": (3, 32, 32)}),
    ],
)
def test_beams_own_run_inference_takes_every_format(
    digits: Path, golden: dict[str, np.ndarray], name: str, options: dict[str, Any]
) -> None:
    inputs = golden["input_nhwc" if name in ("tf_frozen", "tf_saved_model", "tflite") else "input_nchw"]
    handler = handler_for(digits / name, max_batch_size=3, **options)

    def has_all(rows: list[Prediction]) -> None:
        given = np.array([row.inference for row in rows])
        got, wanted = (sorted(np.round(each, 4).tolist()) for each in (given, golden["prob"]))
        np.testing.assert_allclose(got, wanted, atol=2e-4)

    with beam.Pipeline(RUNNER) as pipeline:
        rows = pipeline | "Inputs" >> beam.Create(list(inputs), reshuffle=False) | "Infer" >> RunInference(handler)
        assert_that(rows, has_all)


def test_a_prediction_of_one_output_is_its_row(digits: Path, golden: dict[str, np.ndarray]) -> None:
    handler = handler_for(digits / "caffe")
    model = handler.load_model()

    rows = list(handler.run_inference([{"data": one} for one in golden["input_nchw"][:3]], model))

    assert [row.inference.shape for row in rows] == [(10,)] * 3
    assert [row.model_id for row in rows] == [str(digits / "caffe")] * 3
    np.testing.assert_array_equal([row.example["data"] for row in rows], golden["input_nchw"][:3])
    assert [int(row.inference.argmax()) for row in rows] == golden["label"][:3].tolist()


def test_a_prediction_of_several_outputs_is_a_mapping(digits: Path, golden: dict[str, np.ndarray]) -> None:
    handler = handler_for(digits / "caffe", output_names=("fc", "prob"))

    rows = list(handler.run_inference(list(golden["input_nchw"][:2]), handler.load_model()))

    assert [sorted(row.inference) for row in rows] == [["fc", "prob"]] * 2
    np.testing.assert_allclose([row["prob"] for row in rows], golden["prob"][:2], atol=1e-5)


def test_lists_and_other_widths_are_taken_where_nothing_is_lost(digits: Path, golden: dict[str, np.ndarray]) -> None:
    handler = handler_for(digits / "openvino")
    model = handler.load_model()
    (pixels,) = golden["input_nchw"][:1]

    rows = handler.run_inference([pixels.tolist(), {"x": pixels.astype(np.float64)}, pixels[np.newaxis]], model)

    for row in rows:
        np.testing.assert_allclose(row.inference, golden["prob"][0], rtol=0, atol=1e-5)


def test_an_example_that_does_not_fit_says_which_input(digits: Path) -> None:
    handler = handler_for(digits / "openvino")
    with pytest.raises(RequestError) as refused:
        list(handler.run_inference([np.zeros((3, 8, 8), np.float32)], handler.load_model()))
    assert str(refused.value) == "input 'x' has shape [3, 8, 8], the model takes [3, 32, 32]"


def test_the_handler_says_what_beam_asks() -> None:
    handler = handler_for("noop", min_batch_size=2, max_batch_size=8)

    assert handler.batch_elements_kwargs() == {"min_batch_size": 2, "max_batch_size": 8}
    assert handler.get_num_bytes([np.zeros((2, 3), np.float32), {"a": np.zeros(1, np.uint8)}]) == 25
    assert handler.get_metrics_namespace() == "beam_serving"
    assert not handler.share_model_across_processes()


def test_inference_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inference_args are \['top'\], wanted are none"):
        handler_for("noop").validate_inference_args({"top": 5})


def test_a_new_path_is_served_from_the_next_load_on(digits: Path) -> None:
    handler = handler_for("noop")

    handler.update_model_path(str(digits / "caffe"))

    assert handler.load_model().inputs[0].name == "data"


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="treads"):
        handler_for("noop", treads=2)
    assert ModelOptions() == ModelOptions(threads=1)


def test_finding_a_model_imports_neither_beam_nor_an_engine(digits: Path) -> None:
    assert modules_after("find_model", f"find_model({str(digits / 'torchscript')!r})") == []


OPEN = """
from beam_serving.models.base import ModelOptions
from beam_serving.models.opening import open_model
assert open_model({directory!r}, ModelOptions()).model.engine == {engine!r}
"""


@pytest.mark.parametrize("name", ["openvino", "caffe", "onnx", "tf_saved_model"])
def test_a_worker_imports_only_the_engine_that_serves(digits: Path, name: str) -> None:
    """The framework that it was compared with is loaded in a process of its own."""
    assert modules_after("find_model", OPEN.format(directory=str(digits / name), engine="openvino")) == ["openvino"]


def test_loading_the_model_that_computes_nothing_imports_no_engine() -> None:
    assert modules_after("find_model, load, predict_batch", "load(find_model('noop'))") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_axis": "foo"}, "batch_axis: wants auto, none or the number of an axis, from 0 (got 'foo')"),
        ({"batch_axis": -1}, "batch_axis: wants auto, none or the number of an axis, from 0 (got -1)"),
        ({"threads": -5}, "threads: wants a number from 0 to 1024 or 'auto' (got -5)"),
        ({"device": 5}, "device: wants auto, cpu or cuda (got 5)"),
        ({"allow_weak_secret": "x"}, "allow_weak_secret: wants true or false (got 'x')"),
        ({"output_names": [1, 2]}, "output_names: wants names, as a, b or [a, b] (got [1, 2])"),
        ({"precision": "f16"}, "precision: wants f32, bf16 or int8 (got 'f16')"),
        ({"full_batch": 0}, "full_batch: wants a number of rows from 1, or None (got 0)"),
        ({"constants": [1]}, "constants: wants values by input name, such as {keep_prob: 1.0, sr: 16000} (got [1])"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        handler_for("noop", **options)
    assert str(caught.value) == said


@pytest.mark.parametrize("shape", [(3, -1), (0,), "a,b", [[]], {"": (1,)}])
def test_a_shape_that_cannot_be_is_refused_at_once(shape: Any) -> None:
    with pytest.raises(ConfigError, match=r"^input_shape: wants "):
        handler_for("noop", input_shape=shape)


def test_options_are_read_as_the_configuration_reads_them() -> None:
    handler = handler_for("noop", input_shape=[3, 4], batch_axis="0", constants={"a": 1.0})
    assert handler._options == ModelOptions(input_shape=(3, 4), batch_axis=0, constants={"a": 1.0})
