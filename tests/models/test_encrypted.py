"""Encrypted model folders: what they give is what the plain ones give, and nothing of them lies on a disk."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beam_serving.cli.commands.encrypt_model import encrypt_model
from beam_serving.encryption.gcm import key_of
from beam_serving.encryption.secrets import MODEL, Secret
from beam_serving.errors import ConfigError, ModelLoadError
from beam_serving.models.base import ModelOptions
from beam_serving.models.encrypted import look_at, opened_model
from beam_serving.models.handler import handler_for
from beam_serving.models.loading import load
from tests.encryption.java import java

SECRET = Secret("a secret of the tests", "and its salt")
GCM, CBC = ModelOptions(encryption="gcm"), ModelOptions(encryption="cbc")
OTHER_KEY = "cannot be decrypted: it has another secret, salt or file name"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The secret is in the environment, and temporary folders are where the test can see them."""
    monkeypatch.setenv(MODEL.secret_variable, SECRET.secret)
    monkeypatch.setenv(MODEL.salt_variable, SECRET.salt)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def encrypted(digits: Path, tmp_path: Path) -> Path:
    encrypt_model(digits / "openvino", tmp_path / "model", ModelOptions(), None)
    return tmp_path / "model"


def refusal(directory: Path, options: ModelOptions = GCM) -> str:
    with pytest.raises(ConfigError) as caught, opened_model(directory, options) as files:
        load(files, options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        *(
            (name, "auto")
            for name in ("openvino", "onnx", "tf_frozen", "tf_saved_model", "tflite", "caffe", "torchscript")
        ),
        *(("onnx", "onnxruntime"), ("caffe", "opencv"), ("torchscript", "torch")),
        *(("bigdl", "auto"), ("bigdl_split", "auto")),
    ],
)
def test_an_encrypted_model_gives_what_the_plain_one_gives(
    digits: Path, golden: dict[str, np.ndarray], tmp_path: Path, name: str, engine: str
) -> None:
    encrypt_model(digits / name, tmp_path / "model", ModelOptions(), None)
    options = {"engine": engine, "input_shape": (3, 32, 32) if name.startswith("bigdl") else None}
    inputs = list(golden["input_nhwc" if name.startswith("tf") else "input_nchw"])
    plain = handler_for(digits / name, **options)
    sealed = handler_for(tmp_path / "model", encryption="gcm", **options)
    wanted, got = ([row.inference for row in one.run_inference(inputs, one.load_model())] for one in (plain, sealed))
    np.testing.assert_array_equal(got, wanted)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_byte_of_an_encrypted_folder_is_in_clear(digits: Path, encrypted: Path) -> None:
    weights = (digits / "openvino" / "model.bin").read_bytes()
    assert sorted(path.name for path in encrypted.iterdir()) == ["model.bin", "model.xml"]
    assert weights[:64] not in (encrypted / "model.bin").read_bytes()
    assert b"<layer" not in (encrypted / "model.xml").read_bytes()


def test_what_is_decrypted_has_no_place_on_a_disk(encrypted: Path, tmp_path: Path) -> None:
    with opened_model(encrypted, GCM) as files:
        folder = files.model.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert all(os.readlink(path).startswith(f"/proc/{os.getpid()}/fd/") for path in folder.iterdir())
        assert all("memfd:" in os.readlink(os.readlink(path)) for path in folder.iterdir())
    assert not folder.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_killed_process_leaves_nothing_in_clear(encrypted: Path, tmp_path: Path) -> None:
    program = (
        "import signal; from beam_serving.models.base import ModelOptions\n"
        "from beam_serving.models.encrypted import opened_model\n"
        f"with opened_model({str(encrypted)!r}, ModelOptions(encryption='gcm')) as files:\n"
        "    print(files.model, flush=True); signal.pause()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        model = Path(process.stdout.readline().strip())
        assert b"<layer" in model.read_bytes()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert model.is_symlink()
    assert not model.exists()


def test_a_failed_load_leaves_nothing(encrypted: Path, tmp_path: Path) -> None:
    (encrypted / "model.xml").write_bytes(b"")
    assert refusal(encrypted) == f"{encrypted}/model.xml: is not encrypted with AES-GCM by beam-serving model encrypt"
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("variable", [MODEL.secret_variable, MODEL.salt_variable])
def test_another_secret_or_salt_is_told_at_once(
    encrypted: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "another one of the tests")
    assert refusal(encrypted) == f"{encrypted}/model.bin: {OTHER_KEY}"


def test_a_missing_secret_is_told(encrypted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODEL.secret_variable)
    assert refusal(encrypted).startswith("secret for decryption is missing; set BEAM_SERVING_MODEL_SECRET and ")


def test_a_changed_file_is_told(encrypted: Path) -> None:
    content = bytearray((encrypted / "model.bin").read_bytes())
    content[-100] ^= 1
    (encrypted / "model.bin").write_bytes(content)
    assert refusal(encrypted) == f"{encrypted}/model.bin: was changed or cut off after it was encrypted"


def test_files_do_not_change_places(encrypted: Path) -> None:
    (encrypted / "model.bin").rename(encrypted / "other.bin")
    assert refusal(encrypted) == f"{encrypted}/other.bin: {OTHER_KEY}"


def test_a_plain_file_among_encrypted_ones_is_refused(digits: Path, encrypted: Path) -> None:
    shutil.copy(digits / "openvino" / "model.xml", encrypted / "extra.xml")
    assert refusal(encrypted) == f"{encrypted}/extra.xml: is not encrypted with AES-GCM by beam-serving model encrypt"


def test_an_encrypted_model_without_the_setting_says_what_to_set(encrypted: Path) -> None:
    assert refusal(encrypted, ModelOptions()) == f"{encrypted}/model.bin: is encrypted; set model: encryption: gcm"


def test_messages_name_the_directory_and_not_the_folder_in_memory(digits: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.onnx").write_bytes(b"no model")
    encrypt_model(source, tmp_path / "model", ModelOptions(), None)
    assert refusal(tmp_path / "model").startswith(f"{tmp_path}/model/model.onnx: OpenVINO cannot read it: ")


def test_a_look_names_the_files_as_they_lie(encrypted: Path, digits: Path, tmp_path: Path) -> None:
    assert look_at(encrypted, GCM) == ("openvino", encrypted / "model.xml", encrypted / "model.bin")
    assert look_at(digits / "openvino", ModelOptions()) == look_at(digits / "openvino", ModelOptions())
    assert look_at("noop", GCM)[:2] == ("noop", Path("noop"))
    encrypt_model(digits / "tf_saved_model", tmp_path / "saved", ModelOptions(), None)
    assert look_at(tmp_path / "saved", GCM).model == tmp_path / "saved"


@pytest.mark.parametrize("directory", ["none", "empty"])
def test_a_directory_without_files_is_refused(directory: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = f"{tmp_path / directory}: there is no file in it; wanted is a directory with an encrypted model"
    assert refusal(tmp_path / directory) == said


def test_a_keras_file_is_refused_because_it_would_be_written_in_clear(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with (digits / "keras" / "model.keras").open("rb") as plain, (tmp_path / "model/model.keras").open("wb") as sealed:
        key_of(SECRET).seal_file(plain, sealed, "model.keras")
    assert refusal(tmp_path / "model") == (
        f"{tmp_path}/model: a Keras model is written in clear to be loaded; "
        "encrypt the directory that model.export('directory') writes"
    )


def test_the_files_of_cluster_serving_give_what_the_plain_ones_give(
    digits: Path, golden: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java("cbc", SECRET.secret, SECRET.salt, digits / "openvino", tmp_path / "old")
    handler = handler_for(tmp_path / "old", encryption="cbc")
    rows = handler.run_inference(list(golden["input_nchw"]), handler.load_model())
    np.testing.assert_allclose([row.inference for row in rows], golden["prob"], atol=2e-4)
    monkeypatch.setenv(MODEL.salt_variable, "another one")
    said = f"{tmp_path}/old/model.bin: cannot be decrypted: another secret or salt, or it was changed or cut off"
    assert refusal(tmp_path / "old", CBC) == said


def test_a_plain_model_is_no_old_encrypted_one(digits: Path) -> None:
    said = f"{digits}/openvino/model.bin: is not base64, as Cluster Serving's encrypted files are"
    assert refusal(digits / "openvino", CBC) == said


def test_other_systems_than_linux_are_refused(encrypted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ModelLoadError, match="encrypted models are served on Linux only, this is darwin"):
        look_at(encrypted, GCM)
