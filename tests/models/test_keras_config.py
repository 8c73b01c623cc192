import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from beam_serving.models.formats.keras_config import reason_to_refuse
from beam_serving.models.formats.keras_export import EXIT_REFUSED, main

REMEDY = "build the model of Keras's own layers, or export it with model.export('directory')"


def model_of(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": {"layers": list(layers)}}


def layer(kind: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": {"name": "it", **config}}


def test_layers_of_keras_are_built(digits: Path) -> None:
    with zipfile.ZipFile(digits / "keras" / "model.keras") as archive:
        assert reason_to_refuse(json.loads(archive.read("config.json"))) is None
    assert reason_to_refuse(model_of(layer("Add", "keras.src.ops.numpy"), layer("Dense", None))) is None


@pytest.mark.parametrize(
    ("unsafe", "reason"),
    [
        (layer("Lambda"), "layer 'it' (Lambda) holds Python code, which is never run"),
        (layer("Lambda", None), "layer 'it' (Lambda) holds Python code, which is never run"),
        (layer("TorchModuleWrapper"), "layer 'it' (TorchModuleWrapper) holds a pickle, which is never run"),
        (layer("TFSMLayer"), "layer 'it' (TFSMLayer) loads another model from a path, which is never run"),
        (
            layer("Mine", "my_package.layers"),
            "Mine in 'it' is of the module 'my_package.layers', which is not Keras's own",
        ),
        (layer("get_file", "keras.utils"), "get_file in 'it' is of the module 'keras.utils', which is not Keras's own"),
        (layer("system", "os"), "system in 'it' is of the module 'os', which is not Keras's own"),
        (
            layer("Dense", activation={"class_name": "__lambda__"}),
            "layer 'it' (__lambda__) holds Python code, which is never run",
        ),
        (
            layer("Conv1D", activation="<lambda>"),
            "the activation of layer 'it' is a Python lambda, which no file of Keras holds",
        ),
        (layer("StringLookup", vocabulary="/etc/passwd"), "layer 'it' reads its vocabulary from a file"),
    ],
)
def test_what_could_run_code_is_named(unsafe: dict[str, Any], reason: str) -> None:
    assert reason_to_refuse(model_of(layer("Dense"), unsafe)) == f"{reason}; {REMEDY}"


@pytest.mark.parametrize("content", [b"", b"PK", b"\x89HDF\r\n\x1a\n" + b"x" * 100, bytes(range(256)) * 10])
def test_a_damaged_file_is_refused_before_keras_is_imported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)

    assert main(path, tmp_path) == EXIT_REFUSED
    said = "is no whole Keras file: it is damaged, incomplete or something else; save it again"
    assert (tmp_path / "refusal.txt").read_text(encoding="utf-8") == said
