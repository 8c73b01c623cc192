import pickle
import zipfile
from pathlib import Path

import pytest

from beam_serving.errors import ModelLoadError
from beam_serving.models.detect import find_model
from beam_serving.models.formats.torch_archive import reason_to_refuse, was_traced
from beam_serving.models.loading import load

EXPORT = "export it with torch.jit.trace(model, example).save('model.pt') or torch.jit.script(model).save('model.pt')"
DAMAGED = "is no TorchScript archive: the file is damaged, incomplete or something else; export it again"


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def refusal(tmp_path: Path, name: str, content: bytes) -> str:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ModelLoadError) as refused:
        find_model(tmp_path)
    return str(refused.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize("name", ["model.pt", "model.pth"])
def test_a_pickled_module_is_refused(digits: Path, tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, name, (digits / "pickled_module.pt").read_bytes())

    assert message == f"holds a pickled module, which runs code of its own when it is loaded; {EXPORT}"


@pytest.mark.parametrize("name", ["model.pt", "model.pth"])
def test_a_state_dict_is_refused(digits: Path, tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, name, (digits / "state_dict.pt").read_bytes())

    assert message == f"holds a state dict, weights without an architecture; load it into its model and {EXPORT}"


def test_safetensors_are_refused(digits: Path, tmp_path: Path) -> None:
    message = refusal(tmp_path, "model.safetensors", (digits / "weights.safetensors").read_bytes())

    wanted = "export the whole model, for example with torch.jit.trace(model, example).save('model.pt')"
    assert message == f"holds weights without an architecture; {wanted}"


def test_a_bare_pickle_is_refused_and_not_loaded(tmp_path: Path) -> None:
    trap = tmp_path / ".sprung"

    message = refusal(tmp_path, "model.pt", pickle.dumps(Trap(trap)))

    assert message == f"is a pickle, which runs code of its own when it is loaded; {EXPORT}"
    assert not trap.exists()


def test_a_pickle_in_a_zip_is_refused_and_not_loaded(tmp_path: Path) -> None:
    trap, file = tmp_path / ".sprung", tmp_path / "model.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Trap(trap)))

    assert str(reason_to_refuse(file)).startswith("holds a pickled module")
    assert not trap.exists()


@pytest.mark.parametrize("size", [0, 1, 100, 50_000, 116_000])
def test_an_incomplete_archive_is_refused(digits: Path, tmp_path: Path, size: int) -> None:
    whole = (digits / "torchscript" / "model.pt").read_bytes()

    assert refusal(tmp_path, "model.pt", whole[:size]) == DAMAGED


@pytest.mark.parametrize("name", ["model.pth", "model.jit", "model.torchscript"])
def test_torchscript_under_another_name_is_refused_with_the_name_wanted(
    digits: Path, tmp_path: Path, name: str
) -> None:
    message = refusal(tmp_path, name, (digits / "torchscript" / "model.pt").read_bytes())

    assert message == "is a TorchScript module under another name; rename it to *.pt"


def test_only_a_traced_module_remembers_inputs(digits: Path) -> None:
    assert was_traced(digits / "torchscript" / "model.pt")
    assert not was_traced(digits / "torchscript_scripted" / "model.pt")


@pytest.mark.torch
def test_what_no_engine_can_read_is_refused_with_one_reason(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/constants.pkl", b"")
        archive.writestr("model/data.pkl", b"")

    with pytest.raises(ModelLoadError) as refused:
        load(find_model(tmp_path))
    assert str(refused.value).count("torch cannot read it") == 1
