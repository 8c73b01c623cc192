"""Formats of TensorFlow, run by TensorFlow; its import takes seconds, so that everything that needs it stands here."""

import importlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models import handler_for
from beam_serving.models.base import STRING, LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import predict_batch, warm_up
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load

tf: Any = None
FLOAT32 = np.dtype(np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module", autouse=True)
def _frameworks() -> None:
    """Imports TensorFlow, behind the compiler of torch: the other way round, their LLVMs end the process."""
    import torch._dynamo  # noqa: F401

    globals()["tf"] = importlib.import_module("tensorflow")


def loaded(directory: Path, **options: Any) -> LoadedModel:
    given = ModelOptions(**options)
    return load(find_model(directory, given.engine), given)


def refusal(directory: Path, **options: Any) -> str:
    with pytest.raises(ModelLoadError) as refused:
        loaded(directory, **options)
    return str(refused.value)


def saved(directory: Path, function: Callable[..., Any], *specs: Any) -> Path:
    module = tf.Module()
    module.serve = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(directory), signatures=module.serve.get_concrete_function())
    return directory


@pytest.mark.parametrize(
    ("name", "input_name", "output_name"),
    [
        ("tf_frozen", "input", "Identity"),
        ("tf_saved_model", "input", "output_0"),
        ("tflite", "serving_default_input", "StatefulPartitionedCall_1"),
        ("keras_h5", "input", "output_0"),
    ],
)
def test_tensorflow_gives_the_same_probabilities_under_the_same_names(
    digits: Path, golden: dict[str, np.ndarray], name: str, input_name: str, output_name: str
) -> None:
    model = loaded(digits / name, engine="tensorflow")
    warm_up(model, 8)

    assert model.engine == "tensorflow"
    assert model.inputs == (TensorSpec(input_name, (32, 32, 3), FLOAT32),)
    assert model.outputs == (TensorSpec(output_name, (10,), FLOAT32),)
    for batch_size in (1, 3, 16, 1):
        inputs = golden["input_nhwc"][:batch_size]
        rows = predict_batch(model, [{input_name: one} for one in inputs])[output_name]
        np.testing.assert_allclose(rows, golden["prob"][:batch_size], rtol=0, atol=1e-5)


def test_a_keras_model_goes_through_openvino_and_beams_run_inference(
    digits: Path, golden: dict[str, np.ndarray]
) -> None:
    handler = handler_for(digits / "keras", engine="openvino", min_batch_size=16, max_batch_size=16)

    def has_all(rows: list[np.ndarray]) -> None:
        got, wanted = (sorted(np.round(each, 4).tolist()) for each in (np.array(rows), golden["prob"]))
        np.testing.assert_allclose(got, wanted, atol=2e-4)

    with beam.Pipeline("apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        inputs = pipeline | "Inputs" >> beam.Create(list(golden["input_nhwc"]), reshuffle=False)
        assert_that(inputs | "Infer" >> RunInference(handler), has_all)


def test_a_keras_model_of_several_inputs_and_outputs(tmp_path: Path) -> None:
    import keras

    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    both = keras.layers.Concatenate()([left, right])
    outputs = [keras.layers.Dense(2, name="a")(both), keras.layers.Activation("tanh", name="b")(left)]
    keras.Model([left, right], outputs).save(tmp_path / "model.keras")

    model = loaded(tmp_path)

    assert sorted(spec.name for spec in model.inputs) == ["left", "right"]
    given = model.predict({"left": ROWS, "right": -ROWS})
    np.testing.assert_allclose(given["output_1"], np.tanh(ROWS), atol=1e-5)
    assert given["output_0"].shape == (3, 2)


def test_texts_go_in_and_out_and_the_log_says_why_openvino_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def count(text: Any) -> dict[str, Any]:
        return {"length": tf.strings.length(text), "upper": tf.strings.upper(text)}

    directory = saved(tmp_path, count, tf.TensorSpec([None], tf.string, name="text"))
    with caplog.at_level(logging.INFO, "beam_serving"):
        model = loaded(directory)

    assert model.engine == "tensorflow"
    (message,) = [one for one in caplog.messages if "runs in" in one]
    assert message.startswith(f"{directory}: runs in tensorflow; OpenVINO cannot ")
    assert model.inputs == (TensorSpec("text", (), STRING),)
    warm_up(model, 2)
    outputs = predict_batch(model, [{"text": np.array(text, STRING)} for text in ("beam", "é")])
    assert outputs["length"].tolist() == [4, 2]
    assert outputs["upper"].tolist() == [b"BEAM", "é".encode()]


def test_integers_and_several_outputs_in_tensorflow(tmp_path: Path) -> None:
    def scale(ids: Any, by: Any) -> dict[str, Any]:
        return {"scaled": tf.cast(ids, tf.float32) * by, "sum": tf.reduce_sum(ids, 1)}

    specs = (tf.TensorSpec([None, 4], tf.int64, name="ids"), tf.TensorSpec([None, 4], tf.float32, name="by"))
    saved(tmp_path, scale, *specs)
    batch = {"ids": ROWS.astype(np.int64), "by": ROWS}

    for engine in ("openvino", "tensorflow"):
        model = loaded(tmp_path, engine=engine)
        outputs = model.predict(batch)
        assert {spec.name: spec.dtype.name for spec in model.inputs} == {"ids": "int64", "by": "float32"}
        np.testing.assert_array_equal(outputs["scaled"], ROWS * ROWS)
        np.testing.assert_array_equal(outputs["sum"], batch["ids"].sum(1))
    chosen = loaded(tmp_path, engine="tensorflow", output_names=("sum",))
    assert list(chosen.predict(batch)) == ["sum"]


def test_a_fixed_batch_is_filled_up_in_tensorflow(tmp_path: Path) -> None:
    saved(tmp_path, lambda x: {"y": x - tf.reduce_mean(x)}, tf.TensorSpec([2, 4], tf.float32, name="x"))

    rows = loaded(tmp_path, engine="tensorflow").predict({"x": ROWS})["y"]

    filled = np.concatenate([ROWS, ROWS[-1:]])
    np.testing.assert_allclose(rows, np.concatenate([filled[:2] - filled[:2].mean(), filled[2:3] - filled[2:].mean()]))


def test_what_tensorflow_cannot_do_is_refused(digits: Path, tmp_path: Path) -> None:
    model = digits / "tf_saved_model"

    asked = "bf16 on cpu is asked for, TensorFlow runs models in f32 on cpu only"
    assert refusal(model, engine="tensorflow", precision="bf16") == f"{model}: {asked}"
    shape = "input_shape is [8, 8, 3], the model takes float32[32, 32, 3]"
    assert refusal(model, engine="tensorflow", input_shape=(8, 8, 3)) == f"{model}: {shape}"
    output = "has no output 'x', its outputs are output_0"
    assert refusal(model, engine="tensorflow", output_names=("x",)) == f"{model}: {output}"
    saved(tmp_path, lambda x: {"y": x * 2}, tf.TensorSpec([], tf.float32, name="x"))
    single = "input 'x' is a single value, without a batch axis"
    assert refusal(tmp_path, engine="tensorflow") == f"{tmp_path}: {single}"


def test_a_batch_that_tensorflow_refuses_is_a_model_error(digits: Path) -> None:
    model = loaded(digits / "tf_saved_model", engine="tensorflow")

    with pytest.raises(ModelError, match=r"^the model failed on a batch of float32\[2, 5\]$"):
        model.predict({"input": np.zeros((2, 5), np.float32)})


def test_damaged_files_are_refused_by_tensorflow_alone(digits: Path, tmp_path: Path) -> None:
    for name, file in (("tf_frozen", "frozen_graph.pb"), ("tf_saved_model", "saved_model.pb")):
        shutil.copytree(digits / name, tmp_path / name)
        whole = (digits / name / file).read_bytes()
        (tmp_path / name / file).write_bytes(whole[: len(whole) // 2])
        assert "TensorFlow cannot load it: " in refusal(tmp_path / name, engine="tensorflow")
    shutil.copytree(digits / "tflite", tmp_path / "tflite")
    (tmp_path / "tflite" / "model.tflite").write_bytes((digits / "tflite" / "model.tflite").read_bytes()[:50_000])
    assert "corrupted or malformed" in refusal(tmp_path / "tflite", engine="tensorflow")


def test_a_lambda_in_a_keras_file_is_never_run(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2, name="double")])
    remedy = "build the model of Keras's own layers, or export it with model.export('directory')"
    for file in ("model.keras", "model.h5"):
        directory = tmp_path / file
        directory.mkdir()
        model.save(directory / file)
        said = f"layer 'double' (Lambda) holds Python code, which is never run; {remedy}"
        assert refusal(directory) == f"{directory / file}: {said}"


def test_weights_alone_are_no_keras_model(tmp_path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(tmp_path / "model.weights.h5")

    said = "holds weights without an architecture; save the whole model with model.save('model.keras')"
    assert refusal(tmp_path) == f"{tmp_path / 'model.weights.h5'}: {said}"
