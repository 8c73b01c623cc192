import re
import shutil
from pathlib import Path

import pytest

from beam_serving.errors import ModelLoadError
from beam_serving.models.detect import ModelFiles, find_model
from beam_serving.models.formats import registry

WANTED = (
    "*.xml + *.bin (an OpenVINO model), *.onnx (an ONNX model), *.pb (a TensorFlow frozen graph),"
    " saved_model.pb (a TensorFlow SavedModel), *.tflite (a TensorFlow Lite model),"
    " *.keras or *.h5 or *.hdf5 (a Keras model), *.pt (a TorchScript module), *.pt2 (a program of torch.export),"
    " *.prototxt + *.caffemodel (a Caffe model), *.model (a BigDL model)"
)


def directory_of(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).write_bytes(b"anything")
    return path


def refusal(directory: Path, engine: str = "auto") -> str:
    with pytest.raises(ModelLoadError) as refused:
        find_model(directory, engine)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "model_format", "model", "weights"),
    [
        ("openvino", "openvino", "model.xml", "model.bin"),
        ("tf_frozen", "tensorflow_frozen", "frozen_graph.pb", None),
        ("torchscript", "torchscript", "model.pt", None),
        ("torchscript_scripted", "torchscript", "model.pt", None),
        ("caffe", "caffe", "graph.prototxt", "weight.caffemodel"),
        ("onnx", "onnx", "model.onnx", None),
        ("tf_saved_model", "tensorflow_saved_model", "", None),
        ("tflite", "tflite", "model.tflite", None),
        ("keras", "keras", "model.keras", None),
        ("keras_h5", "keras", "model.h5", None),
        ("bigdl", "bigdl", "model.model", None),
        ("bigdl_split", "bigdl", "model.model", "model.bin"),
    ],
)
def test_the_files_tell_the_format(digits: Path, name: str, model_format: str, model: str, weights: str | None) -> None:
    found = find_model(digits / name)

    assert found == ModelFiles(model_format, digits / name / model, weights and digits / name / weights)


def test_what_is_no_model_and_dot_files_do_not_count(tmp_path: Path) -> None:
    directory_of(tmp_path, "model.xml", "model.bin", "labels.txt", ".model.pb", ".model.bin.crc")

    assert find_model(tmp_path) == ModelFiles("openvino", tmp_path / "model.xml", tmp_path / "model.bin")


def test_the_two_files_of_a_lone_pair_may_have_different_names(tmp_path: Path) -> None:
    directory_of(tmp_path, "deploy.PROTOTXT", "weights.caffemodel")

    found = find_model(tmp_path)

    assert found == ModelFiles("caffe", tmp_path / "deploy.PROTOTXT", tmp_path / "weights.caffemodel")


def test_a_saved_model_may_lie_in_a_version_directory(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits / "tf_saved_model", tmp_path / "1")

    assert find_model(tmp_path) == ModelFiles("tensorflow_saved_model", tmp_path / "1")

    shutil.copytree(digits / "tf_saved_model", tmp_path / "2")
    message = "holds 2 models, 1/saved_model.pb and 2/saved_model.pb; wanted is a directory with one model"
    assert refusal(tmp_path) == f"{tmp_path}: {message}"


def test_the_parts_of_a_saved_model_are_no_models(digits: Path, tmp_path: Path) -> None:
    for name in ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "frozen.pb"):
        (tmp_path / name).write_bytes(b"anything")

    assert refusal(tmp_path).startswith(f"{tmp_path}: holds 2 models, saved_model.pb and frozen.pb; ")


def test_a_saved_model_without_its_graph_is_refused(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits / "tf_saved_model" / "variables", tmp_path / "variables")

    message = "holds parts of a SavedModel without its saved_model.pb; copy the whole directory"
    assert refusal(tmp_path) == f"{tmp_path}: {message}"


def test_a_bin_beside_a_model_belongs_to_bigdl(tmp_path: Path) -> None:
    directory_of(tmp_path, "lenet.model", "weights.bin", ".lenet.model.crc", ".weights.bin.crc")

    assert find_model(tmp_path) == ModelFiles("bigdl", tmp_path / "lenet.model", tmp_path / "weights.bin")


def test_a_bin_of_another_name_belongs_to_no_model_of_several(tmp_path: Path) -> None:
    directory_of(tmp_path, "a.model", "b.model", "b.bin")

    message = "holds 2 models, a.model and b.model + b.bin; wanted is a directory with one model"
    assert refusal(tmp_path) == f"{tmp_path}: {message}"


def test_every_loader_exists() -> None:
    for known in registry.formats():
        for loader in known.loaders.values():
            module, _, function = loader.partition(":")
            source = (
                Path(registry.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
            )
            wanted = rf"def {function}\(_?files: ModelFiles, options: ModelOptions\) -> \w+Model:"
            assert re.search(wanted, source), loader


def test_noop_stands_for_a_directory() -> None:
    assert find_model("noop") == ModelFiles("noop", Path("noop"))
    assert find_model("/nowhere", "noop").format == "noop"


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"

    assert refusal(missing) == f"{missing}: there is no such directory; wanted is a model directory"


def test_a_file_is_refused(tmp_path: Path) -> None:
    file = directory_of(tmp_path, "model.pt") / "model.pt"

    assert refusal(file) == f"{file}: is a file; wanted is the directory that holds the model"


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    directory_of(tmp_path, ".hidden.pb")

    assert refusal(tmp_path) == f"{tmp_path}: is empty; wanted is one model: {WANTED}"


def test_a_directory_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    directory_of(tmp_path, "README.md", "labels.txt")
    (tmp_path / "1").mkdir()

    listed = "1/, README.md, labels.txt"
    assert refusal(tmp_path) == f"{tmp_path}: holds no model, only {listed}; wanted is one model: {WANTED}"


def test_two_models_are_refused_by_name(tmp_path: Path) -> None:
    directory_of(tmp_path, "a.xml", "a.bin", "frozen.pb")

    message = "holds 2 models, a.xml + a.bin and frozen.pb; wanted is a directory with one model"
    assert refusal(tmp_path) == f"{tmp_path}: {message}"


def test_two_models_of_one_format_are_refused_by_name(tmp_path: Path) -> None:
    directory_of(tmp_path, "a.xml", "a.bin", "b.xml", "b.bin")

    message = "holds 2 models, a.xml + a.bin and b.xml + b.bin; wanted is a directory with one model"
    assert refusal(tmp_path) == f"{tmp_path}: {message}"


@pytest.mark.parametrize(
    ("names", "half", "whole"),
    [
        (("m.xml",), "m.xml", "an OpenVINO model is *.xml + *.bin"),
        (("a.xml", "a.bin", "b.xml"), "b.xml", "an OpenVINO model is *.xml + *.bin"),
        (("d.prototxt",), "d.prototxt", "a Caffe model is *.prototxt + *.caffemodel"),
        (("w.caffemodel",), "w.caffemodel", "a Caffe model is *.prototxt + *.caffemodel"),
        (
            ("d.prototxt", "train.prototxt", "d.caffemodel"),
            "train.prototxt",
            "a Caffe model is *.prototxt + *.caffemodel",
        ),
    ],
)
def test_half_a_model_is_refused(tmp_path: Path, names: tuple[str, ...], half: str, whole: str) -> None:
    directory_of(tmp_path, *names)

    assert refusal(tmp_path) == f"{tmp_path}: holds {half} without its other half; {whole}"


def test_weights_of_openvino_alone_are_refused(tmp_path: Path) -> None:
    directory_of(tmp_path, "model.bin")

    message = "holds a .bin without its .xml; an OpenVINO model is *.xml + *.bin"
    assert refusal(tmp_path) == f"{tmp_path}: {message}"


def test_an_engine_that_cannot_run_the_format_is_refused(digits: Path) -> None:
    model = digits / "caffe" / "graph.prototxt"

    message = "is a Caffe model, which engine 'torch' cannot run; wanted is auto or openvino or opencv"
    assert refusal(digits / "caffe", "torch") == f"{model}: {message}"


def test_an_unknown_engine_is_refused(digits: Path) -> None:
    message = "engine is 'tensorrt', wanted is one of auto, onnxruntime, opencv, openvino, tensorflow, torch, noop"
    assert refusal(digits / "caffe", "tensorrt") == message
