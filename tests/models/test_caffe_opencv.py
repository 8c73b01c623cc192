import logging
import shutil
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load, load_engine

FLOAT32 = np.dtype(np.float32)


def rewritten(digits: Path, directory: Path, old: str, new: str) -> Path:
    shutil.copytree(digits / "caffe", directory, dirs_exist_ok=True)
    graph = directory / "graph.prototxt"
    graph.write_text(graph.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return directory


def loaded(directory: Path, **options: object) -> LoadedModel:
    return load(find_model(directory), ModelOptions(engine="opencv", **options))


def refusal(directory: Path, **options: object) -> str:
    with pytest.raises(ModelLoadError) as refused:
        loaded(directory, **options)
    return str(refused.value).removeprefix(f"{directory / 'graph.prototxt'}: ")


def test_the_batch_of_the_file_does_not_bind(digits: Path, tmp_path: Path, golden: dict[str, np.ndarray]) -> None:
    model = loaded(rewritten(digits, tmp_path, "dim: 1 dim: 3", "dim: 10 dim: 3"))

    for batch_size in (1, 3, 8):
        rows = model.predict({"data": golden["input_nchw"][:batch_size]})["prob"]
        np.testing.assert_allclose(rows, golden["prob"][:batch_size], rtol=0, atol=1e-5)


def test_a_net_with_its_batch_in_a_layer_sees_portions_of_it(
    digits: Path, tmp_path: Path, golden: dict[str, np.ndarray]
) -> None:
    flat = 'layer { name: "flat" type: "Reshape" bottom: "pool2" top: "flat"'
    flat += " reshape_param { shape { dim: 1 dim: 2048 } } }"
    old = 'layer { name: "fc" type: "InnerProduct" bottom: "pool2"'
    new = flat + '\nlayer { name: "fc" type: "InnerProduct" bottom: "flat"'
    model = loaded(rewritten(digits, tmp_path, old, new))

    rows = model.predict({"data": golden["input_nchw"][:5]})["prob"]

    np.testing.assert_allclose(rows, golden["prob"][:5], rtol=0, atol=1e-5)


def test_a_net_without_a_shape_needs_data_shape(digits: Path, tmp_path: Path, golden: dict[str, np.ndarray]) -> None:
    layer = 'type: "Input" top: "data" input_param { shape: { dim: 1 dim: 3 dim: 32 dim: 32 } }'
    directory = rewritten(digits, tmp_path, layer, 'type: "Input" top: "data"')

    assert refusal(directory) == "input 'data' has no shape in the file; set data: shape"
    model = loaded(directory, input_shape=(3, 32, 32))
    assert model.inputs == (TensorSpec("data", (3, 32, 32), FLOAT32),)
    np.testing.assert_allclose(model.predict({"data": golden["input_nchw"]})["prob"], golden["prob"], atol=1e-5)


def test_a_net_without_an_input_is_refused(digits: Path, tmp_path: Path) -> None:
    directory = rewritten(digits, tmp_path, 'type: "Input"', 'type: "Silence"')

    wanted = "wanted is a layer of the type Input (a deploy.prototxt)"
    assert refusal(directory) == f"has no input; {wanted}"


def test_a_text_that_is_no_prototxt_is_refused(digits: Path, tmp_path: Path) -> None:
    directory = rewritten(digits, tmp_path, 'name: "digits"', "name:")

    assert refusal(directory) == "is no readable prototxt: line 2: Expected identifier or number, got {."


def test_weights_of_another_net_are_refused(digits: Path, tmp_path: Path) -> None:
    directory = rewritten(digits, tmp_path, 'name: "conv1"', 'name: "another"')

    weights = directory / "weight.caffemodel"
    assert refusal(directory).startswith(f"OpenCV cannot run it with {weights}: ")


def test_inner_layers_can_be_served_as_outputs(digits: Path, golden: dict[str, np.ndarray]) -> None:
    model = loaded(digits / "caffe", output_names=("fc", "prob"))

    outputs = model.predict({"data": golden["input_nchw"]})

    assert [spec.name for spec in model.outputs] == ["fc", "prob"]
    exponentials = np.exp(outputs["fc"])
    np.testing.assert_allclose(exponentials / exponentials.sum(1, keepdims=True), outputs["prob"], atol=1e-5)


def test_an_output_that_is_no_layer_is_refused(digits: Path) -> None:
    message = refusal(digits / "caffe", output_names=("loss",))

    assert message.startswith("has no layer 'loss', its layers are conv1, bn1, ")


def test_a_batch_that_opencv_refuses_is_a_model_error(digits: Path) -> None:
    net = load_engine(find_model(digits / "caffe"), ModelOptions(), "opencv")

    with pytest.raises(ModelError, match=r"^the model failed on float32\[2, 5, 32, 32\]: .*channels"):
        net.infer([np.zeros((2, 5, 32, 32), np.float32)])


def test_a_batch_that_does_not_fit_never_reaches_opencv(digits: Path) -> None:
    message = r"^input 'data' is float32\[5, 32, 32\], the model takes float32\[3, 32, 32\]$"
    with pytest.raises(ModelError, match=message):
        loaded(digits / "caffe").predict({"data": np.zeros((2, 5, 32, 32), np.float32)})


def test_only_f32_on_cpu_is_to_be_had(digits: Path) -> None:
    message = "bf16 on cpu is asked for, OpenCV runs models in f32 on cpu only"
    assert refusal(digits / "caffe", precision="bf16") == message


def test_an_opencv_without_caffe_is_answered_with_the_one_to_install(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")

    message = "OpenCV 5 reads no Caffe: pip install 'opencv-python-headless>=4.14,<5'"
    assert refusal(digits / "caffe") == message


def test_a_net_that_the_reader_refuses_runs_in_opencv_and_the_log_says_why(
    digits: Path, tmp_path: Path, golden: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    layer = 'type: "Input" top: "data" input_param { shape: { dim: 1 dim: 3 dim: 32 dim: 32 } }'
    directory = rewritten(digits, tmp_path, layer, 'type: "Input" top: "data"')

    with caplog.at_level(logging.INFO, "beam_serving"):
        model = load(find_model(directory), ModelOptions(input_shape=(3, 32, 32)))

    reason = "layer 'input' (Input): 0 shapes for 1 tops"
    assert caplog.messages == [f"{directory / 'graph.prototxt'}: runs in opencv; {reason}"]
    assert model.engine == "opencv"
    np.testing.assert_allclose(model.predict({"data": golden["input_nchw"]})["prob"], golden["prob"], atol=1e-5)


def test_the_older_fields_for_inputs_are_read(digits: Path, tmp_path: Path) -> None:
    layer = 'layer { name: "input" type: "Input" top: "data" input_param { shape: { dim: 1 dim: 3 dim: 32 dim: 32 } } }'
    for number, older in enumerate(
        (
            'input: "data" input_dim: 1 input_dim: 3 input_dim: 32 input_dim: 32',
            'input: "data" input_shape { dim: 1 dim: 3 dim: 32 dim: 32 }',
        )
    ):
        directory = rewritten(digits, tmp_path / str(number), layer, older)
        assert older in (directory / "graph.prototxt").read_text(encoding="utf-8")
        assert loaded(directory).inputs == (TensorSpec("data", (3, 32, 32), FLOAT32),)


def test_the_demo_tells_its_images_apart() -> None:
    demo = resources.files("beam_serving") / "demo"
    with resources.as_file(demo) as directory:
        model = loaded(directory / "model")
        images = sorted((directory / "images").glob("digit_*.png"))
        pixels = [cv2.imread(str(path)).transpose(2, 0, 1).astype(np.float32) / 255 for path in images]

    best = predict_batch(model, [{"": one} for one in pixels])["prob"].argmax(1)

    assert [f"digit_{one}.png" for one in best] == [path.name for path in images]
    assert len(images) == 7
