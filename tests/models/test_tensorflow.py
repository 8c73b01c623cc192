"""Formats of TensorFlow, run by TensorFlow; its import takes seconds, so that everything that needs it stands here."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.errors import ModelError
from beam_serving.models import handler_for
from beam_serving.models.base import STRING, LoadedModel, TensorSpec
from beam_serving.models.batches import predict_batch
from tests.models.tensorflow_models import frozen, lite, loaded, refusal, saved, tensorflow

tf: Any = None
FLOAT32 = np.dtype(np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module", autouse=True)
def _frameworks() -> None:
    globals()["tf"] = tensorflow()


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

    def has_all(rows: list[Any]) -> None:
        inferred = np.array([row.inference for row in rows])
        got, wanted = (sorted(np.round(each, 4).tolist()) for each in (inferred, golden["prob"]))
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

    model = loaded(tmp_path, engine="openvino")

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
        model = loaded(directory, engine="auto")

    assert model.engine == "tensorflow"
    (message,) = [one for one in caplog.messages if "runs in" in one]
    assert message.startswith(f"{directory}: runs in tensorflow; OpenVINO cannot ")
    assert model.inputs == (TensorSpec("text", (), STRING),)
    outputs = predict_batch(model, [{"text": np.array(text, STRING)} for text in ("beam", "é")])
    assert outputs["length"].tolist() == [4, 2]
    assert outputs["upper"].tolist() == ["BEAM", "é"]


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


def test_a_batch_that_depends_on_its_rows_is_served_whole(tmp_path: Path) -> None:
    saved(tmp_path, lambda x: {"y": x - tf.reduce_mean(x)}, tf.TensorSpec([2, 4], tf.float32, name="x"))

    model = loaded(tmp_path)

    assert model.inputs == (TensorSpec("x", (2, 4), FLOAT32),)
    pair = ROWS[:2]
    np.testing.assert_allclose(model.predict({"x": pair[np.newaxis]})["y"][0], pair - pair.mean())


def test_a_fixed_batch_of_independent_rows_is_filled_up(tmp_path: Path) -> None:
    saved(tmp_path, lambda x: {"y": x * 2}, tf.TensorSpec([2, 4], tf.float32, name="x"))
    np.testing.assert_array_equal(loaded(tmp_path).predict({"x": ROWS})["y"], ROWS * 2)


def test_what_tensorflow_cannot_do_is_refused(digits: Path) -> None:
    model = digits / "tf_saved_model"

    asked = "bf16 on cpu is asked for, TensorFlow runs models in f32 on cpu only"
    assert refusal(model, precision="bf16") == f"{model}: {asked}"
    shape = (
        "data: shape wants float32[?, 8, 8, 3] for input 'input', the signature of the SavedModel is for "
        "float32[?, 32, 32, 3]; leave data: shape out, or export it with other sizes"
    )
    assert refusal(model, input_shape=(8, 8, 3)) == f"{model}: {shape}"
    output = "has no output 'x', its outputs are output_0"
    assert refusal(model, output_names=("x",)) == f"{model}: {output}"


def test_a_model_may_decode_images_itself(tmp_path: Path) -> None:
    import cv2

    def decode(image: Any) -> dict[str, Any]:
        pixels = tf.io.decode_image(image[0], channels=3, expand_animations=False)
        return {"mean": tf.reduce_mean(tf.cast(pixels, tf.float32), [0, 1])[tf.newaxis]}

    model = loaded(saved(tmp_path, decode, tf.TensorSpec([1], tf.string, name="image")))
    encoded = cv2.imencode(".png", np.full((5, 7, 3), (10, 20, 30), np.uint8))[1].tobytes()

    np.testing.assert_array_equal(model.predict({"image": np.array([encoded], STRING)})["mean"], [[30, 20, 10]])
    with pytest.raises(ModelError, match=r"^the model failed on string\[1\]: .*[Uu]nknown image file format"):
        model.predict({"image": np.array(["no image"], STRING)})


def test_what_an_optimizer_left_in_a_model_does_not_matter(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    weight = tf.Variable(2.0)
    directory = saved(
        tmp_path, lambda x: {"y": x * weight}, tf.TensorSpec([None, 4], tf.float32, name="x"), weight=weight
    )
    file = directory / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    slot = model.meta_graphs[0].object_graph_def.nodes[0].slot_variables.add()
    slot.original_variable_node_id = slot.slot_variable_node_id = 1
    slot.slot_name = "momentum"
    file.write_bytes(model.SerializeToString())

    np.testing.assert_array_equal(loaded(directory).predict({"x": ROWS})["y"], ROWS * 2)


@pytest.fixture(scope="module")
def several_forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """The same function in forms whose batch is free, fixed to 1 and fixed to 3."""
    folder = tmp_path_factory.mktemp("forms")

    def serve(x: Any) -> dict[str, Any]:
        return {"best": tf.math.top_k(x, 2).values, "share": tf.nn.softmax(x), "sum": tf.reduce_sum(x, 1)}

    forms = {}
    for rows in (None, 1, 3):
        spec = tf.TensorSpec([rows, 4], tf.float32, name="x")
        forms[f"saved {rows}"] = loaded(saved(folder / f"saved{rows}", serve, spec))
        forms[f"lite {rows}"] = loaded(lite(folder / f"lite{rows}", serve, spec))

    def build(v1: Any) -> None:
        for name, one in serve(v1.placeholder(tf.float32, [1, 4], name="x")).items():
            tf.identity(one, name=name)

    forms["frozen"] = loaded(frozen(folder / "frozen", build))
    return forms


@given(
    numbers=st.lists(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), min_size=1, max_size=7),
    data=st.data(),
)
def test_a_record_gets_the_same_beside_any_others(
    several_forms: dict[str, LoadedModel], numbers: list[list[float]], data: st.DataObject
) -> None:
    model = several_forms[data.draw(st.sampled_from(sorted(several_forms)))]
    (name,) = [spec.name for spec in model.inputs]
    records = [{name: np.array(one, np.float32)} for one in numbers]
    alone = [predict_batch(model, [record]) for record in records]
    order = data.draw(st.permutations(range(len(records))))
    size = data.draw(st.integers(1, len(records)))

    for start in range(0, len(order), size):
        some = order[start : start + size]
        together = predict_batch(model, [records[index] for index in some])
        for row, index in enumerate(some):
            for output, rows in together.items():
                np.testing.assert_allclose(rows[row], alone[index][output][0], rtol=1e-5, atol=1e-6)


def test_a_keras_model_of_whole_numbers_is_compared_with_keras(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import keras

    ids = keras.Input((6,), dtype="int32", name="ids")
    embedded = keras.layers.Embedding(20, 3)(ids)
    keras.Model(ids, keras.layers.GlobalAveragePooling1D()(embedded)).save(tmp_path / "model.keras")

    model = loaded(tmp_path)

    assert model.inputs == (TensorSpec("ids", (6,), np.dtype(np.int32)),)
    assert "was not compared" not in caplog.text


def test_a_keras_model_that_takes_no_invented_data_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import keras

    values = keras.Input((None,), name="values")
    keras.Model(values, keras.layers.Reshape((5, 5))(values)).save(tmp_path / "model.keras")

    model = loaded(tmp_path)

    (said,) = {one for one in caplog.messages if "was not compared" in one}
    assert said.startswith(
        f"{tmp_path / 'model.keras'}: was not compared with Keras, which did not take invented data: "
    )
    numbers = np.arange(50, dtype=np.float32).reshape(2, 25)
    np.testing.assert_array_equal(model.predict({"values": numbers})["output_0"], numbers.reshape(2, 5, 5))


def test_the_process_that_reads_keras_files_imports_nothing_from_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 100)
    (tmp_path / "h5py.py").write_text("raise SystemExit(5)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    assert "is no whole Keras file" in refusal(tmp_path / "model")


def test_single_values_go_in_and_out(tmp_path: Path) -> None:
    def scale(x: Any, by: Any) -> dict[str, Any]:
        return {"y": x * by, "all": tf.reduce_sum(x * by)}

    saved(tmp_path, scale, tf.TensorSpec([1, 4], tf.float32, name="x"), tf.TensorSpec([], tf.float32, name="by"))

    asked = loaded(tmp_path).predict({"x": ROWS[:1], "by": np.array([3], np.float32)})
    np.testing.assert_array_equal(asked["y"], ROWS[:1] * 3)
    np.testing.assert_array_equal(asked["all"], [18])
    fixed = loaded(tmp_path, constants={"by": 2})
    assert [spec.name for spec in fixed.inputs] == ["x"]
    np.testing.assert_array_equal(fixed.predict({"x": ROWS[:1]})["y"], ROWS[:1] * 2)


def test_a_free_size_is_fixed_by_the_operator(tmp_path: Path) -> None:
    saved(tmp_path, lambda x: {"y": x * 2}, tf.TensorSpec([None, None], tf.float32, name="x"))
    assert loaded(tmp_path, input_shape=(4,)).inputs == (TensorSpec("x", (4,), FLOAT32),)


def test_a_batch_that_does_not_fit_never_reaches_tensorflow(digits: Path) -> None:
    model = loaded(digits / "tf_saved_model")

    with pytest.raises(ModelError, match=r"^input 'input' is float32\[5\], the model takes float32\[32, 32, 3\]$"):
        model.predict({"input": np.zeros((2, 5), np.float32)})


def test_what_tensorflow_alone_can_refuse_is_a_model_error_with_its_reason(tmp_path: Path) -> None:
    def serve(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(x, 100.0, "too large")]):
            return {"y": tf.identity(x)}

    model = loaded(saved(tmp_path, serve, tf.TensorSpec([None, 4], tf.float32, name="x")))

    said = r"^the model failed on float32\[1, 4\]: .*assertion failed: \[too large\]"
    with pytest.raises(ModelError, match=said):
        model.predict({"x": ROWS[:1] + 100})
    np.testing.assert_array_equal(model.predict({"x": ROWS})["y"], ROWS)


WRONG_BATCHES = """
import sys
import numpy as np
from beam_serving.errors import ModelError
from tests.models.tensorflow_models import loaded
for directory in sys.argv[1:]:
    model = loaded(directory)
    (spec,) = model.inputs
    for shape in ((2, 5), (1,), (3, 32, 32, 1), (1, 0, 32, 3), (1, 1, 1, 1, 3), (0, 32, 32, 3)):
        try:
            model.predict({spec.name: np.zeros(shape, np.float32)})
        except ModelError:
            continue
        raise SystemExit(f"{directory}: took {shape}")
print("lives")
"""


@pytest.mark.parametrize("one_dnn", ["0", "1"])
def test_no_wrong_batch_ends_the_process(digits: Path, one_dnn: str) -> None:
    command = [
        sys.executable,
        "-c",
        WRONG_BATCHES,
        *(str(digits / name) for name in ("tf_frozen", "tf_saved_model", "tflite")),
    ]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": one_dnn}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.splitlines()[-1:] == ["lives"], f"{done.returncode}: {done.stderr[-2000:]}"


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
