"""Programs of torch.export, and what in such a file must never be loaded."""

import io
import json
import logging
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import torch
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models import handler_for
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.detect import find_model
from beam_serving.models.formats.torch_export_archive import checked_copy, reason_to_refuse
from beam_serving.models.loading import load
from tests.models.conftest import DIGITS

FLOAT32 = np.dtype(np.float32)
ROWS = np.arange(1, 29, dtype=np.float32).reshape(7, 4)
REMEDY = "export a plain model with torch.export.save, or use torch.jit.trace(model, example).save('model.pt')"
RUNS_CODE = "which may run code of its own when it is loaded"
GRAPH = "models/model.json"


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(*inputs, **named)


def exported(
    directory: Path, function: Callable[..., Any], *inputs: Any, named: Any = None, dynamic: Any = None
) -> Path:
    directory.mkdir(exist_ok=True)
    program = torch.export.export(Function(function), inputs, named, dynamic_shapes=dynamic, strict=False)
    torch.export.save(program, directory / "model.pt2")
    return directory


def loaded(directory: Path, **options: Any) -> LoadedModel:
    given = ModelOptions(**options)
    return load(find_model(directory, given.engine), given)


@pytest.fixture(scope="module")
def digits_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model, exported with a batch of any size from the module that was traced for TorchScript."""
    traced = torch.jit.load(str(DIGITS / "torchscript" / "model.pt")).eval()
    weights = {name: value for name, value in traced.state_dict().items() if value.dim()}
    layers = [value for name, value in weights.items() if name.endswith("weight")]
    channels = [len(one) for one in layers]
    assert channels == [16, 16, 32, 32, 10], list(weights)
    nn = torch.nn
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2048, 10), nn.Softmax(1)),
    ).eval()
    own = model.state_dict()
    plain = [name for name in own if own[name].dim()]
    own.update(zip(plain, weights.values(), strict=True))
    model.load_state_dict(own)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.ones(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
    directory = tmp_path_factory.mktemp("exported")
    torch.export.save(program, directory / "model.pt2")
    return directory


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_program_gives_the_same_probabilities(
    digits_program: Path, golden: dict[str, np.ndarray], engine: str
) -> None:
    model = loaded(digits_program, engine=engine)

    assert model.engine == ("openvino" if engine == "auto" else "torch")
    assert [spec[:3] for spec in model.inputs] == [("input", (3, 32, 32), FLOAT32)]
    assert model.outputs == (TensorSpec("output", (10,), FLOAT32),)
    for batch_size in (1, 3, 16):
        rows = model.predict({"input": golden["input_nchw"][:batch_size]})["output"]
        np.testing.assert_allclose(rows, golden["prob"][:batch_size], rtol=0, atol=1e-5)


def test_beams_run_inference_takes_a_program(digits_program: Path, golden: dict[str, np.ndarray]) -> None:
    def has_all(given: list[Any]) -> None:
        rows = np.array([getattr(one, "inference", one) for one in given])
        got, wanted = (sorted(np.round(each, 4).tolist()) for each in (rows, golden["prob"]))
        np.testing.assert_allclose(got, wanted, atol=2e-4)

    with beam.Pipeline("apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        inputs = pipeline | "Inputs" >> beam.Create(list(golden["input_nchw"]), reshuffle=False)
        assert_that(inputs | "Infer" >> RunInference(handler_for(digits_program)), has_all)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_program_with_a_fixed_batch_takes_any(tmp_path: Path, engine: str) -> None:
    model = loaded(exported(tmp_path / "model", lambda x: x.softmax(1), torch.ones(2, 4)), engine=engine)

    (name,) = (spec.name for spec in model.inputs)
    expected = torch.from_numpy(ROWS).softmax(1).numpy()
    np.testing.assert_allclose(model.predict({name: ROWS})["output"], expected, rtol=1e-5)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_several_inputs_by_place_and_name_and_named_outputs(tmp_path: Path, engine: str) -> None:
    def scaled(ids: Any, *, by: Any) -> dict[str, Any]:
        return {"scaled": ids.float() * by, "sum": ids.sum(1)}

    named = {"by": torch.ones(2, 4)}
    exported(tmp_path / "model", scaled, torch.ones(2, 4, dtype=torch.int64), named=named)
    model = loaded(tmp_path / "model", engine=engine, input_names=("ids", "by"))

    ids = ROWS.astype(np.int64)
    outputs = model.predict({"ids": ids, "by": ROWS})
    np.testing.assert_array_equal(outputs["scaled"], ROWS * ROWS)
    np.testing.assert_array_equal(outputs["sum"], ids.sum(1))
    chosen = loaded(tmp_path / "model", engine=engine, input_names=("ids", "by"), output_names=("sum",))
    assert list(chosen.predict({"ids": ids, "by": ROWS})) == ["sum"]


def test_what_openvino_cannot_take_runs_in_torch_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exported(tmp_path / "model", torch.lgamma, torch.ones(2, 4))
    with caplog.at_level(logging.INFO, "beam_serving"):
        model = loaded(tmp_path / "model")

    (message,) = [one for one in caplog.messages if "runs in" in one]
    assert message.startswith(f"{tmp_path / 'model' / 'model.pt2'}: runs in torch; cannot be converted to OpenVINO: ")
    (name,) = (spec.name for spec in model.inputs)
    expected = torch.lgamma(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(model.predict({name: ROWS})["output"], expected, rtol=1e-5)


def test_a_program_takes_tensors_in_lists_numbers_and_what_it_was_exported_with(tmp_path: Path) -> None:
    def several(x: Any, pair: Any, times: Any, power: Any, *, mask: Any = None) -> Any:
        return {"sum": x * times + pair[0] ** power, "rest": [pair[1], x.shape[1]]}

    free = torch.export.Dim.DYNAMIC
    rows = torch.ones(2, 4)
    shapes = {"inputs": ({0: free}, [{0: free}, {0: free}], free, None), "named": {"mask": None}}
    exported(tmp_path / "model", several, rows, [rows + 1, rows + 2], 3, 2, named={"mask": None}, dynamic=shapes)
    model = loaded(tmp_path / "model", engine="torch", constants={"inputs_2": 5})

    assert [spec[:3] for spec in model.inputs] == [
        ("inputs_0", (4,), FLOAT32),
        ("inputs_1_0", (4,), FLOAT32),
        ("inputs_1_1", (4,), FLOAT32),
    ]
    outputs = model.predict({"inputs_0": ROWS[:1], "inputs_1_0": ROWS[1:2], "inputs_1_1": ROWS[2:3]})
    assert list(outputs) == ["sum", "rest.0", "rest.1"]
    np.testing.assert_array_equal(outputs["sum"].reshape(1, 4), ROWS[:1] * 5 + ROWS[1:2] ** 2)
    np.testing.assert_array_equal(outputs["rest.1"], [4])


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_types_that_numpy_lacks_come_and_leave_as_float32(tmp_path: Path, engine: str) -> None:
    exported(tmp_path / "model", lambda x: x + 1, torch.ones(2, 4, dtype=torch.bfloat16))
    model = loaded(tmp_path / "model", engine=engine)

    assert [spec[1:3] for spec in (*model.inputs, *model.outputs)] == [((4,), FLOAT32)] * 2
    rows = np.array([[0.5, 1, 2, 3]], np.float32)
    np.testing.assert_array_equal(model.predict({model.inputs[0].name: rows})["output"], rows + 1)


def test_complex_inputs_are_refused(tmp_path: Path) -> None:
    directory = exported(tmp_path / "model", torch.abs, torch.ones(2, 4, dtype=torch.complex64))

    with pytest.raises(ModelLoadError) as refused:
        loaded(directory)

    said = "is complex64, which requests cannot send; export it with an input of another type"
    assert said in str(refused.value)


def test_a_shape_replaces_free_sizes_alone(tmp_path: Path) -> None:
    free = {"inputs": ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim("width", max=8)},)}
    directory = exported(tmp_path / "model", lambda x: x * 2, torch.ones(2, 4, 5), dynamic=free)

    assert loaded(directory, engine="torch").inputs[0].shape == (4, None)
    assert loaded(directory, engine="torch", input_shape=(4, 7)).inputs[0].shape == (4, 7)
    with pytest.raises(ModelLoadError) as refused:
        loaded(directory, engine="torch", input_shape=(3, 7))
    taken = "the program takes float32[?, 4, ?] with its batch axis; export it with dynamic_shapes"
    assert str(refused.value).endswith(f"data: shape of input 'inputs_0' is [3, 7], {taken}")


def test_sizes_that_a_program_was_not_exported_for_are_told(tmp_path: Path) -> None:
    width = torch.export.Dim("width", max=8)
    free = {"inputs": ({0: torch.export.Dim.DYNAMIC, 1: width}, {0: torch.export.Dim.DYNAMIC, 1: width})}
    rows = torch.ones(2, 5)
    model = loaded(exported(tmp_path / "model", lambda x, y: x + y, rows, rows + 1, dynamic=free), engine="torch")

    def predict(width: int, other: int) -> Any:
        return model.predict({"inputs_0": np.ones((1, width), np.float32), "inputs_1": np.ones((1, other), np.float32)})

    assert predict(8, 8)["output"].shape == (1, 8)
    with pytest.raises(ModelError, match=r"size 9 of axis 1 is not in 0 to 8"):
        predict(9, 9)
    with pytest.raises(ModelError, match=r"sizes 8 and 1 are one and the same in the program"):
        predict(8, 1)


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize(("free", "batch"), [(False, 1), (False, 2), (True, 2)])
def test_each_record_gets_what_it_gets_alone(tmp_path: Path, free: bool, batch: int, engine: str) -> None:
    dynamic = {"inputs": ({0: torch.export.Dim("batch", max=4)},)} if free else None
    directory = exported(tmp_path / "model", lambda x: x.softmax(1) * 3, torch.rand(batch, 4), dynamic=dynamic)
    model = loaded(directory, engine=engine)
    (name,) = (spec.name for spec in model.inputs)

    assert not model.one_by_one
    for numbers in ([0], [6, 1, 3], [5, 5], list(range(7))):
        together = model.predict({name: ROWS[numbers]})["output"]
        alone = [model.predict({name: ROWS[number : number + 1]})["output"][0] for number in numbers]
        np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_what_was_checked_is_what_is_loaded(digits_program: Path, tmp_path: Path) -> None:
    """A file whose readers find different parts: the one that Python finds is harmless, torch's would run code."""
    whole = (digits_program / "model.pt2").read_bytes()
    evil = changed(digits_program / "model.pt2", tmp_path / "evil.pt2", "data/constants/opaque_obj_0", lambda _: b"x")
    path = tmp_path / "model.pt2"
    path.write_bytes(evil.read_bytes() + whole)
    evil.unlink()

    copy = checked_copy(path)

    with zipfile.ZipFile(copy) as archive:
        assert not [name for name in archive.namelist() if "opaque" in name]
    assert loaded(tmp_path, engine="torch").outputs == (TensorSpec("output", (10,), FLOAT32),)


def changed(program: Path, copy: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """Copies an archive with one member changed, or added where there is none of this name."""
    done = False
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(member):
                content, done = change(content), True
            new.writestr(name, content)
        if not done:
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{member}", change(b""))
    return copy


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old.encode() in content, content[:2000]
        return content.replace(old.encode(), new.encode())

    return change


@pytest.mark.parametrize(
    ("member", "change", "reason"),
    [
        (
            GRAPH,
            lambda graph: re.sub(rb'"expr_str": "[^"]*"', b'"expr_str": "exec(chr(105))"', graph),
            f"holds the size 'exec(chr(105))', {RUNS_CODE}",
        ),
        (
            GRAPH,
            replaced('"torch.ops.aten.softmax.int"', '"torch.hub.load"'),
            f"holds the operator 'torch.hub.load', {RUNS_CODE}",
        ),
        (
            GRAPH,
            replaced('"torch.ops.aten.softmax.int"', '"_operator.methodcaller"'),
            f"holds the operator '_operator.methodcaller', {RUNS_CODE}",
        ),
        (
            GRAPH,
            replaced('{"name": "input"}', '{"name": "x=print(1)"}'),
            f"holds the name 'x=print(1)', {RUNS_CODE}",
        ),
        (
            "data/weights/model_weights_config.json",
            replaced('"use_pickle": false', '"use_pickle": true'),
            "holds pickled tensors, which run code of their own when they are loaded",
        ),
        (
            "data/constants/opaque_obj_0",
            lambda _: pickle.dumps(print),
            f"holds 'data/constants/opaque_obj_0', {RUNS_CODE}",
        ),
        (
            "data/aotinductor/model/model.so",
            lambda _: b"\x7fELF",
            f"holds 'data/aotinductor/model/model.so', {RUNS_CODE}",
        ),
    ],
)
def test_a_file_that_could_run_code_is_refused(
    digits_program: Path, tmp_path: Path, member: str, change: Callable[[bytes], bytes], reason: str
) -> None:
    path = changed(digits_program / "model.pt2", tmp_path / "model.pt2", member, change)

    with pytest.raises(ModelLoadError) as refused:
        find_model(tmp_path)

    assert str(refused.value) == f"{path}: {reason}; {REMEDY}"


def test_sample_inputs_that_are_more_than_tensors_are_never_unpickled(digits_program: Path, tmp_path: Path) -> None:
    def evil(_: bytes) -> bytes:
        buffer = io.BytesIO()
        torch.save(((Touch(tmp_path / "touched"),), {}), buffer)
        return buffer.getvalue()

    path = changed(digits_program / "model.pt2", tmp_path / "model.pt2", "data/sample_inputs/model.pt", evil)

    with pytest.raises(ModelLoadError, match="its sample inputs are a pickle of more than tensors"):
        load(find_model(path.parent))
    assert not (tmp_path / "touched").exists()


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_damaged_programs_are_refused(digits_program: Path, tmp_path: Path) -> None:
    whole = (digits_program / "model.pt2").read_bytes()
    path = tmp_path / "model.pt2"
    said = "is no archive of torch.export: the file is damaged, incomplete or something else; export it again"
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], bytes(range(256)) * 20):
        path.write_bytes(content)
        assert reason_to_refuse(path) == said
    changed(digits_program / "model.pt2", path, GRAPH, lambda _: json.dumps([1]).encode())
    with pytest.raises(ModelLoadError, match="torch cannot read it: "):
        load(find_model(tmp_path))


@pytest.mark.parametrize("model_format", ["torch_export", "torchscript"])
def test_cuda_is_used_where_it_is_and_asked_for_in_vain_elsewhere(
    digits: Path, digits_program: Path, golden: dict[str, np.ndarray], model_format: str
) -> None:
    directory = digits_program if model_format == "torch_export" else digits / "torchscript"
    if not torch.cuda.is_available():
        said = f"device cuda is asked for and torch {torch.__version__} finds no CUDA device; set device to cpu or auto"
        with pytest.raises(ModelLoadError) as refused:
            loaded(directory, device="cuda")
        assert str(refused.value).endswith(said)
    for device in ("auto", "cuda") if torch.cuda.is_available() else ("auto",):
        model = loaded(directory, device=device)
        assert model.engine == ("torch" if torch.cuda.is_available() else "openvino")
        rows = model.predict({model.inputs[0].name: golden["input_nchw"]})["output"]
        np.testing.assert_allclose(rows, golden["prob"], atol=1e-3 if torch.cuda.is_available() else 1e-5)


def test_cuda_is_for_models_of_torch(digits: Path) -> None:
    said = "device is 'cuda', which torch alone serves; wanted is a model of torch.jit or torch.export"
    with pytest.raises(ModelLoadError, match=said):
        loaded(digits / "onnx", device="cuda")
    with pytest.raises(ModelLoadError, match=said):
        loaded(digits / "torchscript", device="cuda", engine="openvino")
