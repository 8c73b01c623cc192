"""`model encrypt` as a user runs it: the real command line."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from beam_serving.encryption.secrets import MODEL
from beam_serving.encryption.strength import MAKE_ONE
from beam_serving.models.base import ModelOptions
from beam_serving.models.encrypted import look_at
from tests.cli.test_model import run
from tests.encryption.java import java
from tests.models.conftest import DIGITS

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(MODEL.secret_variable, raising=False)
    monkeypatch.delenv(MODEL.salt_variable, raising=False)
    path = tmp_path / "secret.txt"
    path.write_text("a secret of the tests\nand its salt\n", encoding="utf-8")
    return path


def test_a_directory_is_encrypted_and_can_be_inspected(tmp_path: Path, secret_file: Path, capsys: Captured) -> None:
    out = tmp_path / "new" / "encrypted"
    code, said, _ = run(
        capsys, "encrypt", str(DIGITS / "tf_saved_model"), "--out", str(out), "--secret-file", str(secret_file)
    )
    assert (code, said) == (0, f"{out}: 4 files encrypted; serve it with model: encryption: gcm\n")
    assert [path.name for path in out.parent.iterdir()] == ["encrypted"]
    flags = ("--encryption", "gcm", "--secret-file", str(secret_file))
    code, said, _ = run(capsys, "inspect", str(out), *flags)
    assert code == 0
    assert "tensorflow_saved_model" in said


def test_a_directory_of_cluster_serving_is_renewed(tmp_path: Path, secret_file: Path, capsys: Captured) -> None:
    java("cbc", "short", "old", DIGITS / "openvino", tmp_path / "old")
    (tmp_path / "old.txt").write_text("short\nold", encoding="utf-8")
    arguments = ("--out", str(tmp_path / "new"), "--secret-file", str(secret_file), "--from", "cbc")
    code, _, err = run(capsys, "encrypt", str(tmp_path / "old"), *arguments)
    assert (code, err) == (
        2,
        f"error: {tmp_path}/old/model.bin: cannot be decrypted: another secret or salt, or it was changed or cut off\n",
    )
    code, said, _ = run(
        capsys, "encrypt", str(tmp_path / "old"), *arguments, "--from-secret-file", str(tmp_path / "old.txt")
    )
    assert (code, said) == (2, "")
    weak = ("--from-secret-file", str(tmp_path / "old.txt"), "--allow-weak-secret")
    code, said, _ = run(capsys, "encrypt", str(tmp_path / "old"), *arguments, *weak)
    assert (code, said) == (0, f"{tmp_path}/new: 2 files encrypted; serve it with model: encryption: gcm\n")
    options = ModelOptions(encryption="gcm", secret_file=str(secret_file))
    assert look_at(tmp_path / "new", options).format == "openvino"


def test_a_model_under_a_weak_secret_is_looked_at_where_that_is_allowed(
    tmp_path: Path, secret_file: Path, capsys: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    java("cbc", "short", "old", DIGITS / "openvino", tmp_path / "old")
    (tmp_path / "old.txt").write_text("short\nold", encoding="utf-8")
    (tmp_path / "old.txt").chmod(0o604)
    flags = (str(tmp_path / "old"), "--encryption", "cbc", "--secret-file", str(tmp_path / "old.txt"))
    code, _, err = run(capsys, "inspect", *flags)
    assert code == 2
    assert err.startswith(
        f"error: secret has 5 characters, wanted are at least 16; {MAKE_ONE}; set BEAM_SERVING_MODEL_"
    )
    assert run(capsys, "inspect", *flags, "--allow-weak-secret")[0] == 0
    said = f"--secret-file {tmp_path}/old.txt: every user may read or write it (mode 0604); chmod 600 it"
    assert said in caplog.messages


def test_mistakes_are_told_in_one_line_and_leave_nothing(tmp_path: Path, secret_file: Path, capsys: Captured) -> None:
    (tmp_path / "weak.txt").write_text("short\nand its salt", encoding="utf-8")
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    out, openvino, keras = str(tmp_path / "out"), str(DIGITS / "openvino"), str(DIGITS / "keras")
    where = "set BEAM_SERVING_MODEL_SECRET and BEAM_SERVING_MODEL_SALT, or model: secret_file to a file of two lines"
    with_secret = ("--secret-file", str(secret_file))
    for arguments, said in (
        ((openvino, "--out", out), f"secret for decryption is missing; {where}"),
        (
            (openvino, "--out", out, "--secret-file", str(tmp_path / "weak.txt")),
            f"secret has 5 characters, wanted are at least 16; {MAKE_ONE}; {where}",
        ),
        (
            (openvino, "--out", out, "--secret-file", str(tmp_path / "weak.txt"), "--allow-weak-secret"),
            f"secret has 5 characters, wanted are at least 16; {MAKE_ONE}; {where}",
        ),
        (
            (openvino, "--out", str(tmp_path / "there"), *with_secret),
            f"{tmp_path}/there exists already; name a new directory",
        ),
        (
            (openvino, "--out", str(tmp_path / "file" / "out"), *with_secret),
            f"{tmp_path}/file/out: cannot be written (File exists)",
        ),
        (
            (str(tmp_path / "none"), "--out", out, *with_secret),
            f"{tmp_path}/none: there is no such directory; wanted is a model directory",
        ),
        (
            (keras, "--out", out, *with_secret),
            f"{keras}: a Keras model is written in clear to be loaded; "
            "encrypt the directory that model.export('directory') writes",
        ),
        (
            (openvino, "--out", out, *with_secret, "--from", "gcm"),
            f"{openvino}/model.bin: is not encrypted with AES-GCM by beam-serving model encrypt",
        ),
    ):
        code, _, err = run(capsys, "encrypt", *arguments)
        assert (code, err) == (2, f"error: {said}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "secret.txt", "there", "weak.txt"]


def test_what_is_encrypted_is_not_encrypted_again_by_mistake(
    tmp_path: Path, secret_file: Path, capsys: Captured
) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert run(capsys, "encrypt", str(DIGITS / "onnx"), "--out", first, "--secret-file", str(secret_file))[0] == 0
    code, _, err = run(capsys, "encrypt", first, "--out", second, "--secret-file", str(secret_file))
    assert (code, err) == (2, f"error: {first}/model.onnx: is encrypted; set model: encryption: gcm\n")


def test_an_onnx_model_with_weights_in_another_file_is_refused(
    tmp_path: Path, secret_file: Path, capsys: Captured
) -> None:
    (tmp_path / "model").mkdir()
    model = onnx.load(DIGITS / "onnx" / "model.onnx")
    path = tmp_path / "model" / "model.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights.data", size_threshold=0)
    assert np.fromfile(tmp_path / "model" / "weights.data", np.uint8).size
    code, _, err = run(
        capsys, "encrypt", str(path.parent), "--out", str(tmp_path / "out"), "--secret-file", str(secret_file)
    )
    assert (code, err) == (
        2,
        f"error: {path.parent}/weights.data: holds weights of model.onnx, which cannot be encrypted; "
        "save it with save_as_external_data=False, or convert it to OpenVINO's own format\n",
    )


def test_the_help_has_examples(capsys: Captured) -> None:
    code, out, _ = run(capsys, "encrypt", "--help")
    assert code == 0
    assert "python -m beam_serving model encrypt my_model/ --out encrypted/" in out.replace(" \\\n    ", " ")
