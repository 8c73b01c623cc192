"""Files of torch that were made to do more than compute: none of them touches the file that it is after."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.formats.torch_archive import checked_copy
from beam_serving.models.formats.torch_export_archive import checked_copy as checked_program
from beam_serving.models.loading import load

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

CREATES = 'torch.from_file("{canary}", True, 4, dtype=6)'
"""Makes the file if there is none."""
WRITES = 'torch.save(torch.ones([1]), "{canary}")'


class Times(torch.nn.Module):
    def forward(self, x: Tensor, factor: int = 3) -> Tensor:
        return x * factor


class Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(Times(), torch.nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1


def saved(module: torch.nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), path)
    return path


def with_part(path: Path, end: str, change: Callable[[bytes], bytes]) -> None:
    """Writes an archive anew with another content of the parts whose names end so."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, change(content) if name.endswith(end) else content)


def with_code(path: Path, change: Callable[[str], str]) -> None:
    """Writes an archive anew with other code."""
    with_part(path, ".py", lambda content: change(content.decode()).encode())


def refusal(path: Path, engine: str = "torch") -> str:
    with pytest.raises(ModelLoadError) as refused:
        load(find_model(path.parent), ModelOptions(engine=engine, input_shape=(4,)))
    return str(refused.value)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize(
    ("old", "new", "operator"),
    [
        pytest.param("torch.relu(", CREATES + " + torch.relu(", "aten::from_file", id="in a method"),
        pytest.param("factor: int=3", "factor: int=int(torch.sum(" + CREATES + "))", "aten::from_file", id="default"),
        pytest.param(
            "  training : bool\n",
            "  training : bool\n  zz : Final[int] = int(torch.sum(" + CREATES + "))\n",
            "aten::from_file",
            id="constant of a class",
        ),
        pytest.param(
            "    return torch.mul(", "    " + WRITES + "\n    return torch.mul(", "aten::save", id="writes in a method"
        ),
        pytest.param(
            "torch.mul(x, factor)",
            'torch.add(x, int(torch.sum("{canary}".from_file(True, 4, dtype=6))))',
            "aten::from_file",
            id="as a method of a text",
        ),
        pytest.param(
            "torch.mul(x, factor)",
            'torch.add(x, int(torch.sum(getattr("{canary}", "from\\x5ffile")(True, 4, dtype=6))))',
            "getattr",
            id="by a hidden name",
        ),
        pytest.param(
            "factor: int=3",
            'factor: int=int(torch.sum(getattr("{canary}", "from_" "file")(True, 4, dtype=6)))',
            "getattr",
            id="by a name in parts",
        ),
        pytest.param(
            "factor: int=3",
            'factor: int=int(torch.sum((getattr\n("{canary}", "from_" "file"))(True, 4, dtype=6)))',
            "getattr",
            id="by a name in parts on another line",
        ),
        pytest.param(
            "torch.mul(x, factor)",
            'torch.add(getattr(self, "training"), int(getattr("{canary}", "from_" "file")(True, 4, dtype=6)))',
            "getattr",
            id="by a second name in parts",
        ),
        pytest.param(
            "factor: int=3", 'factor: int=int((ops).image.read_file("{canary}"))', "ops.", id="of a library in brackets"
        ),
        pytest.param("torch.mul(x, factor)", 'ops.image.read_file("{canary}")', "ops.image", id="of another library"),
    ],
)
def test_code_that_touches_files_is_refused_by_name(
    tmp_path: Path, old: str, new: str, operator: str, engine: str
) -> None:
    canary, path = tmp_path / ".canary", saved(Outer(), tmp_path / "model.pt")
    found: list[bool] = []

    def change(code: str) -> str:
        found.append(old in code)
        return code.replace(old, new.replace("{canary}", str(canary)))

    with_code(path, change)

    message = refusal(path, engine)
    assert any(found)
    assert operator in message
    assert "which is not known to compute only" in message
    assert not canary.exists()


class Odd(torch.nn.Module):
    """Has parts whose names are no names of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), Times())
        self.named = torch.nn.ModuleDict({"a-b": torch.nn.Linear(2, 2), "x y": torch.nn.Linear(2, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.named["a-b"](self.inner(x)) + self.named["x y"](x)


@pytest.mark.parametrize("how", ["script", "trace", "freeze", "quantize"])
def test_what_torch_writes_of_itself_is_let_through(tmp_path: Path, how: str) -> None:
    module: Any = torch.jit.script(Odd()) if how != "trace" else torch.jit.trace(Odd(), torch.ones(2, 2))
    if how == "freeze":
        module = torch.jit.freeze(module.eval())
    if how == "quantize":
        module = torch.jit.script(torch.ao.quantization.quantize_dynamic(Odd(), {torch.nn.Linear}))
    torch.jit.save(module, tmp_path / "model.pt")

    assert load(find_model(tmp_path), ModelOptions(engine="torch", input_shape=(2,))).outputs


class Restored(torch.nn.Module):
    """Runs code of its own while it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 1

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return (self.count, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.count = state[0]
        self.training = state[1]


def test_what_runs_while_a_file_is_read_is_looked_at_before(tmp_path: Path) -> None:
    canary, path = tmp_path / ".canary", saved(Restored(), tmp_path / "model.pt")
    assert load(find_model(tmp_path), ModelOptions(engine="torch", input_shape=(4,))).outputs
    with_code(path, lambda code: code.replace("self.count = ", f'torch.save(0, "{canary}")\n    self.count = '))

    torch.jit.load(str(path))
    assert canary.exists(), "the attack works on torch itself"
    canary.unlink()

    assert "aten::save" in refusal(path)
    assert not canary.exists()


def test_an_operator_is_found_in_the_compiled_code_too(tmp_path: Path) -> None:
    path = saved(Outer(), tmp_path / "model.pt")
    with_code(path, lambda code: code.replace("torch.mul(x, factor)", "torch.add(x, ops.prim.TimePoint())"))

    assert "has the operator prim::TimePoint, which is not known to compute only" in refusal(path)


def test_objects_of_other_classes_of_torch_are_refused(tmp_path: Path) -> None:
    path = saved(Outer(), tmp_path / "model.pt")
    outer = rb"c__torch__[\w.]*\nOuter\n"
    with_part(path, "/data.pkl", lambda content: re.sub(outer, b"c__torch__.torch.classes.c10d\nStore\n", content))

    assert "holds an object of torch.classes.c10d.Store, which may do more than compute" in refusal(path)


def test_an_object_among_the_constants_is_refused(tmp_path: Path) -> None:
    path = saved(Outer(), tmp_path / "model.pt")
    with_part(path, "/constants.pkl", lambda _: b"\x80\x02(c__torch__\nOuter\n)\x81}bt.")

    assert "holds an object with code among its constants" in refusal(path)


def two_archives(harmless: Path, evil: Path) -> bytes:
    return evil.read_bytes() + harmless.read_bytes()


def test_what_was_checked_is_what_torch_loads(tmp_path: Path) -> None:
    """Python reads the archive at the end; another reader may begin at the front."""
    canary = tmp_path / ".canary"
    (tmp_path / "a").mkdir()
    harmless, evil = saved(Outer(), tmp_path / "a" / "b.pt"), saved(Outer(), tmp_path / "a" / "a.pt")
    with_code(evil, lambda code: code.replace("torch.relu(", CREATES.format(canary=canary) + " + torch.relu("))
    path = tmp_path / "model.pt"
    path.write_bytes(two_archives(harmless, evil))

    copy = checked_copy(path)

    assert b"from_file" not in copy.read()
    assert b"from_file" in path.read_bytes()
    copy.seek(0)
    assert torch.jit.load(copy)(torch.ones(4)).tolist() == [4.0] * 4


@given(
    front=st.binary(max_size=40),
    behind=st.binary(max_size=40),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_torch_finds_in_the_copy_what_python_found_in_the_file(
    tmp_path: Path, front: bytes, behind: bytes, flips: list[tuple[float, int]]
) -> None:
    path = tmp_path / "model.pt"
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Times()), buffer)
    content = bytearray(front + buffer.getvalue() + behind)
    for place, value in flips:
        content[int(place * len(content))] = value
    path.write_bytes(content)
    try:
        copy = checked_copy(path)
    except ValueError:
        return

    with zipfile.ZipFile(path) as found, zipfile.ZipFile(copy) as written:
        parts = {name.partition("/")[2]: written.read(name) for name in written.namelist()}
        assert parts == {name.partition("/")[2]: found.read(name) for name in written.namelist()}
    copy.seek(0)
    reader = torch._C.PyTorchFileReader(copy)
    assert {name: reader.get_record(name) for name in reader.get_all_records()} == parts


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["m/data.pkl", "M/DATA.PKL"], "holds two parts of one name"),
        (["m/data.pkl", "m/data.pkl"], "holds two parts of one name"),
        (["m/data.pkl", "m/../../x"], "which is no name of a part of it"),
        (["m/data.pkl", "/etc/x"], "which is no name of a part of it"),
        (["m/data.pkl", "n/code/__torch__.py"], "holds parts in several directories"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_readers_may_differ_over_are_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for name in ["m/constants.pkl", *names]:
            archive.writestr(name, b"")

    with pytest.raises(ModelLoadError, match=reason):
        find_model(tmp_path)
    with pytest.raises(ValueError, match=reason):
        checked_copy(tmp_path / "model.pt")


def test_an_archive_that_unpacks_to_far_more_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/constants.pkl", b"")
        archive.writestr("m/data.pkl", b"")
        for place in range(3):
            archive.writestr(f"m/data/{place}", bytes(128 << 20))

    with pytest.raises(ModelLoadError, match="would unpack to 402653184 bytes"):
        find_model(tmp_path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class Sine(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(x) + torch.ones(4)

    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.export.save(torch.export.export(Sine(), (torch.ones(2, 4),)), path)
    return path


def changed_graph(program: Path, path: Path, change: Callable[[dict[str, object]], None]) -> Path:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json"):
                graph = json.loads(content)
                change(graph)
                content = json.dumps(graph).encode()
            new.writestr(name, content)
    return path


def file_of(canary: Path) -> Callable[[dict[str, object]], None]:
    def change(graph: dict[str, object]) -> None:
        nodes = graph["graph_module"]["graph"]["nodes"]  # type: ignore[index]
        node = next(node for node in nodes if node["target"] == "torch.ops.aten.ones.default")
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [
            {"name": "filename", "arg": {"as_string": str(canary)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 4}, "kind": 1},
        ]

    return change


def test_a_program_that_makes_a_file_is_refused_by_the_name_of_its_operator(program: Path, tmp_path: Path) -> None:
    canary = tmp_path / ".canary"
    path = changed_graph(program, tmp_path / "model.pt2", file_of(canary))

    torch.export.load(path).module(check_guards=False)(torch.ones(2, 4))
    assert canary.exists(), "the attack works on torch itself"
    canary.unlink()

    with pytest.raises(ModelLoadError, match=r"holds the operator 'torch\.ops\.aten\.from_file\.default'"):
        find_model(tmp_path)
    with pytest.raises(ValueError, match="from_file"):
        checked_program(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('id')",
        "Symbol('s0').__class__",
        "().__class__",
        "exec(s0)",
        "s0 if s0 else s0",
        "lambda: s0",
        "[s0 for s0 in s0]",
        "s0\nimport os",
        "9**9**9**9",
        "Pow(9,Pow(9,Pow(9,9)))",
        "Symbol('s0', positive=True).free_symbols",
        "\uff11*s0",
    ],
)
def test_a_size_that_is_more_than_arithmetic_is_refused(program: Path, tmp_path: Path, expression: str) -> None:
    def change(graph: dict[str, object]) -> None:
        graph["range_constraints_of_another"] = {"expr_str": expression}

    changed_graph(program, tmp_path / "model.pt2", change)

    with pytest.raises(ModelLoadError, match="holds the size "):
        find_model(tmp_path)


def test_a_function_as_an_argument_is_looked_at_as_one_that_is_called(program: Path, tmp_path: Path) -> None:
    def change(graph: dict[str, object]) -> None:
        nodes = graph["graph_module"]["graph"]["nodes"]  # type: ignore[index]
        nodes[0]["inputs"].append({"name": "f", "arg": {"as_operator": "torch.hub.load"}, "kind": 1})

    changed_graph(program, tmp_path / "model.pt2", change)

    with pytest.raises(ModelLoadError, match=re.escape("holds the operator 'torch.hub.load'")):
        find_model(tmp_path)


def names_in(value: object, old: str, new: str) -> object:
    """Gives JSON with another name wherever there is the old one, in texts of JSON too."""
    if isinstance(value, dict):
        return {new if name == old else name: names_in(inner, old, new) for name, inner in value.items()}
    if isinstance(value, list):
        return [names_in(inner, old, new) for inner in value]
    if isinstance(value, str) and value.startswith(("[", "{")):
        return json.dumps(names_in(json.loads(value), old, new))
    return new if value == old else value


class Named(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.ones(4))

    def forward(self, x: Tensor, *, more: Tensor) -> dict[str, Tensor]:
        return {"result": x + more + self.offset}


@pytest.mark.parametrize("old", ["offset", "more", "result", "x", "add"])
@pytest.mark.parametrize("quote", ['"', "'", "\\", "\n", "=open(", ";"])
def test_names_do_not_become_source_of_python(tmp_path: Path, old: str, quote: str) -> None:
    given = torch.export.export(Named(), (torch.ones(2, 4),), {"more": torch.ones(2, 4)})
    plain, path = tmp_path / ".plain.pt2", tmp_path / "model.pt2"
    torch.export.save(given, plain)
    with zipfile.ZipFile(plain) as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith(".json"):
                content = json.dumps(names_in(json.loads(content), old, f"training{quote}")).encode()
            after.writestr(name, content)

    with pytest.raises(ModelLoadError, match=r"which may run code of its own when it is loaded"):
        find_model(tmp_path)


def test_a_weight_whose_name_is_source_of_python_is_not_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = f'training"), open("{str(canary).replace(".", "")}", "w"), getattr(self, "training'
    given = torch.export.export(Named(), (torch.ones(2, 4),), {"more": torch.ones(2, 4)})
    torch.export.save(given, tmp_path / ".plain.pt2")
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(tmp_path / ".plain.pt2") as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith(".json"):
                content = json.dumps(names_in(json.loads(content), "offset", evil)).encode()
            after.writestr(name, content)
    with pytest.raises(RuntimeError, match="Expected a value of type 'Tensor'"):
        torch.export.load(path).module(check_guards=False)(torch.ones(2, 4), more=torch.ones(2, 4))
    assert canary.exists(), "the attack works on torch itself"
    canary.unlink()

    with pytest.raises(ModelLoadError, match=r"holds the name 'training.\), open"):
        find_model(tmp_path)
    assert not canary.exists()


def test_the_first_of_two_programs_in_one_file_is_not_loaded(program: Path, tmp_path: Path) -> None:
    evil = changed_graph(program, tmp_path / "evil", file_of(tmp_path / ".canary"))
    path = tmp_path / "model.pt2"
    path.write_bytes(two_archives(program, evil))
    evil.unlink()

    copy = checked_program(path)

    assert b"from_file" not in copy.read()
