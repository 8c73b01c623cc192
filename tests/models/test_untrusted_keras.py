"""Files of Keras that were made to do more than compute: none of them is given to Keras."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from beam_serving.models.formats.keras_config import reason_to_refuse
from beam_serving.models.formats.keras_export import EXIT_REFUSED, main

CONFIG = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"name": "s", "layers": [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}}]},
}


def refusal(path: Path) -> str:
    folder = path.parent / ".export"
    folder.mkdir(exist_ok=True)
    assert main(path, folder) == EXIT_REFUSED
    return (folder / "refusal.txt").read_text(encoding="utf-8")


def archive(path: Path, weights: bytes = b"", config: Any = CONFIG, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("config.json", json.dumps(config))
        if weights:
            written.writestr("model.weights.h5", weights)
        for name, content in more.items():
            written.writestr(name, content)
    return path


def hdf5(config: Any = None) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")["vars"] = np.ones(3)
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_a_zip_behind_a_file_of_hdf5_is_not_what_is_looked_at(tmp_path: Path, suffix: str) -> None:
    """Keras goes by the name of the file, and so does the look at it."""
    evil = {**CONFIG, "config": {"layers": [{"class_name": "Lambda", "config": {"name": "evil", "function": ["x"]}}]}}
    path = tmp_path / f"model{suffix}"
    path.write_bytes(hdf5(evil) + archive(tmp_path / "harmless.zip").read_bytes())
    (tmp_path / "harmless.zip").unlink()
    assert zipfile.is_zipfile(path)

    assert refusal(path).startswith("layer 'evil' (Lambda) holds Python code, which is never run")


@pytest.mark.parametrize("how", ["link", "raw", "virtual", "deep"])
@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_weights_in_another_file_are_refused(tmp_path: Path, how: str, kind: str) -> None:
    (tmp_path / ".secret").write_bytes(b"a secret of 32 bytes for a test.")
    with h5py.File(tmp_path / ".other.h5", "w") as other:
        other["vars"] = np.ones(3)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["model_config"] = json.dumps(CONFIG)
        if how == "link":
            file["w"] = h5py.ExternalLink(str(tmp_path / ".other.h5"), "/vars")
        elif how == "raw":
            file.create_dataset("w", (4,), "f8", external=[(str(tmp_path / ".secret"), 0, 32)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / ".other.h5"), "vars", (3,))
            file.create_virtual_dataset("w", layout)
        else:
            file.create_group("a/b")["w"] = h5py.ExternalLink(str(tmp_path / ".other.h5"), "/vars")
    path = tmp_path / f"model.{kind}"
    if kind == "h5":
        path.write_bytes(buffer.getvalue())
    else:
        archive(path, buffer.getvalue())

    name = "/a/b/w" if how == "deep" else "/w"
    assert refusal(path) == f"keeps {name!r} in another file; wanted is one file with all weights, save it again"


def test_a_group_that_contains_itself_is_looked_at_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Lambda", "config": {}})
        file["a/again"] = file["/"]
        file["a/soft"] = h5py.SoftLink("/nowhere")

    assert "(Lambda) holds Python code" in refusal(tmp_path / "model.h5")


@pytest.mark.parametrize(
    "layout",
    [
        {"weight_map": {"/a/vars": "../../../etc/passwd"}},
        {"weight_map": {"/a/vars": ["model_0.weights.h5", "/etc/passwd"]}},
    ],
)
def test_weights_in_parts_are_parts_of_the_file(tmp_path: Path, layout: Any) -> None:
    path = archive(tmp_path / "model.keras", **{"model.weights.json": json.dumps(layout).encode()})

    assert "wanted is a part of the file itself" in refusal(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "which is no name of a part of it"),
        ("assets/../../evil", "which is no name of a part of it"),
        ("/etc/evil", "which is no name of a part of it"),
        ("CONFIG.JSON", "holds two parts of one name"),
        ("config.json", "holds two parts of one name"),
        ("evil.py", "which no file of Keras has"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_parts_of_an_archive_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("config.json", json.dumps(CONFIG))
        written.writestr(name, b"{}")

    assert reason in refusal(path)


def entry(module: str | None, kind: Any, config: Any, **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": config, **more}


@pytest.mark.parametrize(
    "unsafe",
    [
        entry("keras.models", "load_model", {}),
        entry("keras.models", "function", "load_model"),
        entry("keras.src.models.model", "model_from_json", {}),
        entry("keras.saving", "function", "load_model"),
        entry("keras.src.saving.saving_api", "function", "load_model"),
        entry("keras.config", "function", "enable_unsafe_deserialization"),
        entry("keras.utils", "function", "get_file"),
        entry("keras.layers", "deserialize", {}),
        entry("keras.layers", "function", "deserialize"),
        entry("keras.layers", ["Dense"], {}),
        entry("keras.layers", "Dense", {"activation": entry("keras.src.utils.io_utils", "function", "print_msg")}),
        entry("os", "function", "system"),
        entry("builtins", "function", {"x": 1}),
        entry("keras.layers", "StringLookup", {"vocabulary": {"class_name": "__bytes__", "config": {"value": "/x"}}}),
        entry("keras.layers", "TextVectorization", {"vocabulary": "/etc/passwd"}),
        entry("keras.layers", "Bidirectional", {"layer": entry("keras.layers", "TFSMLayer", {"filepath": "/x"})}),
        entry("tensorflow", "__typespec__", [], spec_name="TensorSpec"),
        {"class_name": "X", "module": {"a": 1}, "config": {}},
        {"class_name": "Dense", "config": {}, "build_config": entry("os", "function", "system")},
    ],
)
def test_nothing_but_layers_and_functions_that_compute_is_built(unsafe: dict[str, Any]) -> None:
    for config in (unsafe, {**CONFIG, "config": {"layers": [unsafe]}}):
        assert reason_to_refuse(config) is not None


@pytest.mark.parametrize(
    "safe",
    [
        entry("builtins", "function", "relu"),
        entry("keras.ops", "function", "add"),
        entry("keras.src.models.functional", "Functional", {"layers": []}),
        entry("keras", "Model", {}),
        entry("keras", "DTypePolicy", {"name": "float32"}),
        entry("keras.layers", "StringLookup", {"vocabulary": ["a", "b"]}),
        {"class_name": "__keras_tensor__", "config": {"shape": [None, 2], "dtype": "float32"}},
    ],
)
def test_what_keras_writes_of_itself_is_built(safe: dict[str, Any]) -> None:
    assert reason_to_refuse(safe) is None
