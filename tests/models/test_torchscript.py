import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import warm_up
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load

torch = pytest.importorskip("torch")

FLOAT32 = np.dtype(np.float32)
ROWS = np.arange(1, 29, dtype=np.float32).reshape(7, 4)


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, times: int) -> torch.Tensor:
        return x * times


def traced(directory: Path, function: Callable[..., Any], *inputs: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Function(function), inputs, strict=False).save(str(directory / "model.pt"))
    return directory


def loaded(directory: Path, **options: Any) -> LoadedModel:
    given = ModelOptions(**options)
    return load(find_model(directory, given.engine), given)


def refusal(directory: Path, **options: Any) -> str:
    with pytest.raises(ModelLoadError) as refused:
        loaded(directory, **options)
    return str(refused.value).removeprefix(f"{directory / 'model.pt'}: ")


def test_what_openvino_cannot_take_runs_in_torch_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traced(tmp_path, torch.lgamma, torch.ones(2, 4))

    with caplog.at_level(logging.INFO, "beam_serving"):
        model = loaded(tmp_path)

    reason = "No conversion rule found for operations: aten::lgamma"
    assert caplog.messages == [f"{tmp_path / 'model.pt'}: runs in torch; cannot be converted to OpenVINO: {reason}"]
    assert model.engine == "torch"
    (name,) = (spec.name for spec in model.inputs)
    expected = torch.lgamma(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(model.predict({name: ROWS})["output"], expected, rtol=1e-5)


def test_openvino_is_not_replaced_where_it_is_asked_for(tmp_path: Path) -> None:
    traced(tmp_path, torch.lgamma, torch.ones(2, 4))

    reason = "No conversion rule found for operations: aten::lgamma"
    assert refusal(tmp_path, engine="openvino") == f"cannot be converted to OpenVINO: {reason}"


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_several_inputs_and_outputs_of_several_types(tmp_path: Path, engine: str) -> None:
    function = lambda ids, scale: (ids.float() * scale, ids.sum(1))  # noqa: E731
    traced(tmp_path, function, torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4))

    model = loaded(tmp_path, engine=engine, input_names=("ids", "scale"))

    ids = ROWS.astype(np.int64)
    assert model.inputs == (TensorSpec("ids", (4,), ids.dtype), TensorSpec("scale", (4,), FLOAT32))
    outputs = model.predict({"ids": ids, "scale": ROWS})
    np.testing.assert_array_equal(outputs["output_0"], ROWS * ROWS)
    np.testing.assert_array_equal(outputs["output_1"], ids.sum(1))


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_dictionary_names_the_outputs(tmp_path: Path, engine: str) -> None:
    traced(tmp_path, lambda x: {"double": x * 2, "half": x / 2}, torch.ones(2, 4))

    model = loaded(tmp_path, engine=engine, input_names=("x",))

    outputs = model.predict({"x": ROWS})
    assert list(outputs) == ["double", "half"]
    np.testing.assert_array_equal(outputs["half"], ROWS / 2)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_module_traced_with_its_batch_in_a_constant_sees_portions_of_it(tmp_path: Path, engine: str) -> None:
    traced(tmp_path, lambda x: x.reshape(2, 2, 2).softmax(2).reshape(2, 4), torch.ones(2, 4))

    model = loaded(tmp_path, engine=engine, input_names=("x",))

    expected = torch.from_numpy(ROWS).reshape(7, 2, 2).softmax(2).reshape(7, 4).numpy()
    np.testing.assert_allclose(model.predict({"x": ROWS})["output"], expected, rtol=1e-5)


def test_a_returned_input_is_a_copy(tmp_path: Path) -> None:
    model = loaded(traced(tmp_path, lambda x: x, torch.ones(2, 4)), engine="torch", input_names=("x",))
    rows = ROWS.copy()

    output = model.predict({"x": rows})["output"]
    rows[:] = 0

    np.testing.assert_array_equal(output, ROWS)


def test_a_scripted_module_needs_a_shape_to_be_tried(digits: Path, tmp_path: Path) -> None:
    model = loaded(digits / "torchscript_scripted")
    assert model.inputs == (TensorSpec("x", (3, None, None), FLOAT32),)
    with pytest.raises(ModelLoadError) as refused:
        warm_up(model, 2)

    failure = "the model failed on a batch of float32[2, 3, 1, 1]"
    trial = f"a trial inference with zeros (x float32[2, 3, 1, 1]) failed: {failure}"
    assert str(refused.value) == f"{trial}; set input_shape: the model does not say its own"


def test_torch_needs_a_shape(digits: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model\.pt: has no input shape in the file; set input_shape$"):
        loaded(digits / "torchscript_scripted", engine="torch")


def test_a_shape_that_does_not_fit_is_refused(digits: Path) -> None:
    with pytest.raises(ModelLoadError) as refused:
        loaded(digits / "torchscript", input_shape=(3, 8, 8))

    failure = "the model failed on a batch of float32[2, 3, 8, 8]"
    reason = "RuntimeError: addmm: mat1 and mat2 shapes cannot be multiplied (2x128 and 2048x10)"
    assert str(refused.value).endswith(f"model.pt: a trial inference failed: {failure}: {reason}")


def test_an_input_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning):
        scaled = torch.jit.script(Scaled())
    scaled.save(str(tmp_path / "model.pt"))

    assert refusal(tmp_path) == "input 'times' is of the type int, wanted is Tensor"


def test_what_torch_cannot_do_is_refused(digits: Path) -> None:
    with pytest.raises(ModelLoadError, match="bf16 is asked for, torch runs this model in f32 only"):
        loaded(digits / "torchscript", engine="torch", precision="bf16")
    with pytest.raises(ModelLoadError, match=r"has no output 'a', its outputs are output$"):
        loaded(digits / "torchscript", engine="torch", output_names=("a",))


def test_without_torch_the_refusal_says_how_to_install_it(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("torchscript", "torch_engine"):
        monkeypatch.delitem(sys.modules, f"beam_serving.models.{name}", raising=False)

    with pytest.raises(ModelLoadError) as refused:
        loaded(digits / "torchscript")

    model = digits / "torchscript" / "model.pt"
    assert str(refused.value) == f"{model}: needs torch, which is missing: pip install 'beam-serving[torch]'"
