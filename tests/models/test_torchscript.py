import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import STRING, LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load

torch = pytest.importorskip("torch")
load_native = pytest.importorskip("beam_serving.models.formats.torchscript").load_native

FLOAT32 = np.dtype(np.float32)
ROWS = np.arange(1, 29, dtype=np.float32).reshape(7, 4)


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


class Broadcast(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.unsqueeze(1) + y


class Tokens(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(100, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.words(ids).masked_fill(mask.unsqueeze(-1), 0.0).sum(1)


class Arguments(torch.nn.Module):
    def forward(
        self,
        x: torch.Tensor,
        times: int,
        plus: float,
        negate: bool,
        how: str,
        more: int = 0,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = x * times + plus
        if negate:
            x = -x
        if how == "half":
            x = x / 2
        return x + more if mask is None else x


class Listed(torch.nn.Module):
    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        return xs[0]


class Paired(torch.nn.Module):
    def forward(self, xs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return xs[0]


class Nested(torch.nn.Module):
    def forward(
        self, x: torch.Tensor
    ) -> tuple[
        torch.Tensor,
        tuple[torch.Tensor, torch.Tensor],
        dict[str, torch.Tensor],
        torch.Tensor | None,
        int,
        list[float],
        str,
    ]:
        return x, (x * 2, x * 3), {"a": x * 4}, None, x.dim(), [0.5, 1.5], "yes"


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + 1


def traced(directory: Path, function: Callable[..., Any], *inputs: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Function(function), inputs, strict=False).save(str(directory / "model.pt"))
    return directory


def loaded(directory: Path, **options: Any) -> LoadedModel:
    wanted = ModelOptions(**options)
    return load(find_model(directory, wanted.engine), wanted)


def scripted(directory: Path, module: torch.nn.Module) -> Path:
    directory.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(directory / "model.pt"))
    return directory


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
    assert [spec[:3] for spec in model.inputs] == [("ids", (4,), ids.dtype), ("scale", (4,), FLOAT32)]
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


def test_a_scripted_module_is_served_without_a_shape(digits: Path, golden: dict[str, np.ndarray]) -> None:
    model = loaded(digits / "torchscript_scripted", engine="torch")

    assert model.inputs == (TensorSpec("x", None, FLOAT32),)
    for rows in (golden["input_nchw"][:1], golden["input_nchw"][:5]):
        np.testing.assert_allclose(model.predict({"x": rows})["output"], golden["prob"][: len(rows)], atol=1e-5)


def test_a_scripted_module_takes_a_shape(digits: Path, golden: dict[str, np.ndarray]) -> None:
    model = loaded(digits / "torchscript_scripted", engine="torch", input_shape=(3, 32, 32))

    assert model.inputs == (TensorSpec("x", (3, 32, 32), FLOAT32),)
    assert model.outputs == (TensorSpec("output", (10,), FLOAT32),)
    assert not model.one_by_one
    np.testing.assert_allclose(model.predict({"x": golden["input_nchw"]})["output"], golden["prob"], atol=1e-5)


@pytest.mark.parametrize("shape", [None, {"x": (4,), "y": (2, 4)}, ((4,), (2, 4))])
def test_a_scripted_module_with_several_inputs_takes_a_shape_for_each(tmp_path: Path, shape: Any) -> None:
    model = loaded(scripted(tmp_path, Broadcast()), engine="torch", input_shape=shape)

    wanted = [("x", None), ("y", None)] if shape is None else [("x", (4,)), ("y", (2, 4))]
    assert [spec[:2] for spec in model.inputs] == wanted
    pairs = np.stack([ROWS, -ROWS], axis=1)
    for rows in (slice(0, 1), slice(0, 3)) if shape else (slice(0, 1),):
        outputs = model.predict({"x": ROWS[rows], "y": pairs[rows]})
        np.testing.assert_array_equal(outputs["output"], np.stack([ROWS + ROWS, ROWS - ROWS], axis=1)[rows])


def test_a_shape_for_one_of_several_inputs_says_what_is_wanted(tmp_path: Path) -> None:
    said = refusal(scripted(tmp_path, Broadcast()), engine="torch", input_shape=(4,))

    assert said == "data: shape is for 1 input, the model has 2; wanted is a shape by name, as {x: ..., y: ...}"


def test_a_shape_that_does_not_fit_is_told_with_the_reason_of_torch(
    digits: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "beam_serving"):
        model = loaded(digits / "torchscript", engine="torch", input_shape=(3, 8, 8))

    reason = "RuntimeError: addmm: mat1 and mat2 shapes cannot be multiplied (2x128 and 2048x10)"
    (said,) = [one for one in caplog.messages if "trial" in one]
    assert f"the model failed on float32[2, 3, 8, 8]: {reason}" in said
    with pytest.raises(ModelError, match="mat1 and mat2 shapes cannot be multiplied"):
        model.predict({model.inputs[0].name: np.zeros((1, 3, 8, 8), np.float32)})


def test_token_ids_are_told_by_a_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "beam_serving"):
        model = loaded(scripted(tmp_path, Tokens()), engine="torch", input_shape={"ids": (5,), "mask": (5,)})

    assert [spec[:3] for spec in model.inputs] == [("ids", (5,), np.int64), ("mask", (5,), np.bool_)]
    assert any("a trial succeeded with ids int64, mask bool" in one for one in caplog.messages)


def test_numbers_and_texts_are_single_values_of_a_request(tmp_path: Path) -> None:
    model = loaded(scripted(tmp_path, Arguments()), engine="torch", input_shape={"x": (4,)})

    assert model.inputs == (
        TensorSpec("x", (4,), FLOAT32),
        TensorSpec("times", (), np.dtype(np.int64)),
        TensorSpec("plus", (), np.dtype(np.float64)),
        TensorSpec("negate", (), np.dtype(np.bool_)),
        TensorSpec("how", (), STRING),
    )
    single = {"times": np.array([3]), "plus": np.array([0.5]), "negate": np.array([True])}
    outputs = model.predict({"x": ROWS[:1], **single, "how": np.array(["half"], STRING)})
    np.testing.assert_array_equal(outputs["output"], -(ROWS[:1] * 3 + 0.5) / 2)


def test_constants_feed_numbers_and_what_has_a_default(tmp_path: Path) -> None:
    constants = {"times": 3, "plus": 0.5, "negate": False, "how": "half", "more": 7}
    model = loaded(scripted(tmp_path, Arguments()), engine="torch", input_shape={"x": (4,)}, constants=constants)

    assert model.inputs == (TensorSpec("x", (4,), FLOAT32),)
    assert not model.one_by_one
    np.testing.assert_array_equal(model.predict({"x": ROWS})["output"], (ROWS * 3 + 0.5) / 2 + 7)


@pytest.mark.parametrize("name", ["Listed", "Paired"])
def test_inputs_that_requests_cannot_send_are_refused(tmp_path: Path, name: str) -> None:
    kind = {"Listed": "List[Tensor]", "Paired": "Tuple[Tensor, Tensor]"}[name]

    said = refusal(scripted(tmp_path, globals()[name]()), engine="torch")

    remedy = "export a module whose forward takes each tensor by itself"
    assert said == f"input 'xs' is {kind}, which requests cannot send; {remedy}"


def test_nested_outputs_have_the_names_of_where_they_are(tmp_path: Path) -> None:
    module = scripted(tmp_path, Nested())
    said = refusal(module, engine="torch", input_shape=(4,))
    assert said == (
        "output 'output_3' is None; choose with model: outputs out of output_0, output_1.0, output_1.1, output_2.a, "
        "output_4, output_5, output_6"
    )

    names = ("output_0", "output_1.0", "output_1.1", "output_2.a", "output_4", "output_5", "output_6")
    model = loaded(module, engine="torch", input_shape=(4,), output_names=names)

    outputs = model.predict({"x": ROWS[:1]})
    np.testing.assert_array_equal(outputs["output_1.1"], ROWS[:1] * 3)
    np.testing.assert_array_equal(outputs["output_2.a"], ROWS[:1] * 4)
    assert [outputs[name].tolist() for name in names[4:]] == [[2], [[0.5, 1.5]], ["yes"]]


@pytest.mark.parametrize(
    "kind",
    [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.uint8, torch.int16, torch.bool],
)
def test_types_that_numpy_lacks_come_and_leave_as_float32(tmp_path: Path, kind: torch.dtype) -> None:
    plain = torch.tensor([[0.5, 1, 2, 3]]).to(kind)
    model = loaded(traced(tmp_path, torch.clone, plain), engine="torch", input_names=("x",))

    lacks = kind in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
    dtype = FLOAT32 if lacks else plain.numpy().dtype
    assert model.inputs == (TensorSpec("x", (4,), dtype),)
    assert model.outputs == (TensorSpec("output", (4,), dtype),)
    rows = np.asarray(plain.float().numpy(), dtype)
    np.testing.assert_array_equal(model.predict({"x": rows})["output"], rows)


def test_complex_numbers_are_refused_unless_they_are_not_chosen(tmp_path: Path) -> None:
    spectrum = traced(tmp_path, lambda x: (torch.fft.fft(x), torch.fft.fft(x).abs()), torch.ones(1, 4))

    said = refusal(spectrum, engine="torch")

    wanted = "is complex64, for which results have no type; choose with model: outputs out of output_1"
    assert said == f"output 'output_0' {wanted}"
    assert list(loaded(spectrum, engine="torch", output_names=("output_1",)).outputs[0][:2]) == ["output_1", (4,)]


def test_quantized_outputs_leave_as_numbers(tmp_path: Path) -> None:
    quantized = traced(tmp_path, lambda x: torch.quantize_per_tensor(x, 0.5, 0, torch.quint8), torch.ones(1, 4))

    model = loaded(quantized, engine="torch", input_names=("x",))

    np.testing.assert_array_equal(model.predict({"x": ROWS})["output"], ROWS)


def test_whole_numbers_beyond_32_bits_are_exact(tmp_path: Path) -> None:
    traced(tmp_path, lambda x: (x * 1000003) % 1009, torch.ones(2, 3, dtype=torch.int64))

    model = loaded(tmp_path)

    assert model.engine == "torch"
    rows = np.array([[7000, 12345, 9], [2**40, -5, 0]])
    np.testing.assert_array_equal(model.predict({model.inputs[0].name: rows})["output"], (rows * 1000003) % 1009)


def test_a_module_that_writes_to_its_input_does_not_change_the_request(tmp_path: Path) -> None:
    model = loaded(traced(tmp_path, lambda x: x.add_(1), torch.ones(1, 4)), engine="torch", input_names=("x",))
    rows = ROWS.copy()

    np.testing.assert_array_equal(model.predict({"x": rows})["output"], ROWS + 1)
    np.testing.assert_array_equal(rows, ROWS)


def test_an_error_inside_a_module_does_not_end_the_process(tmp_path: Path) -> None:
    """An error in an inlined function of a frozen module reads memory that freezing has freed (torch 2.15)."""
    model = load_native(find_model(scripted(tmp_path, Outer())), ModelOptions(engine="torch"))
    other = loaded(traced(tmp_path, lambda x: x * 2, torch.ones(2, 4)), engine="torch", input_names=("x",))

    for size in (4, 5, 4, 6) * 5:
        other.predict({"x": ROWS})
        if size == 4:
            model.infer([ROWS])
            continue
        with pytest.raises(ModelError, match="mat1 and mat2 shapes cannot be multiplied"):
            model.infer([np.ones((2, size), np.float32)])


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "a function of each number": lambda x: x.tanh() * 3,
    "a function of each row": lambda x: x.softmax(1),
    "the batch of the file in a constant": lambda x: x.reshape(2, 2, 2).softmax(2).reshape(2, 4),
    "rows that depend on each other": lambda x: x - x.mean(0, keepdim=True),
    "an order of rows": lambda x: x.cumsum(0),
}


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize(
    ("what", "batch"), [(what, batch) for what in FUNCTIONS for batch in (1, 2) if batch == 2 or "constant" not in what]
)
def test_each_record_gets_what_it_gets_alone(tmp_path: Path, what: str, batch: int, engine: str) -> None:
    model = loaded(traced(tmp_path, FUNCTIONS[what], torch.rand(batch, 4)), engine=engine, input_names=("x",))
    if [spec.shape for spec in model.inputs] == [(batch, 4)]:
        # A request has the whole tensor.
        return
    alone = {}
    for number, row in enumerate(ROWS):
        alone[number] = model.predict({"x": row[np.newaxis]})["output"][0]

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=1 if model.one_by_one else 9))
    def in_any_batch(numbers: list[int]) -> None:
        together = model.predict({"x": ROWS[numbers]})["output"]
        assert len(together) == len(numbers)
        for number, row in zip(numbers, together, strict=True):
            np.testing.assert_allclose(row, alone[number], rtol=1e-4, atol=1e-6)

    in_any_batch()


def test_what_torch_cannot_do_is_refused(digits: Path) -> None:
    with pytest.raises(ModelLoadError, match="bf16 is asked for, torch runs this model in f32 only"):
        loaded(digits / "torchscript", engine="torch", precision="bf16")
    with pytest.raises(ModelLoadError, match=r"has no output 'a', its outputs are output$"):
        loaded(digits / "torchscript", engine="torch", output_names=("a",))


def test_without_torch_the_refusal_says_how_to_install_it(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("formats.torchscript", "engines.torch"):
        monkeypatch.delitem(sys.modules, f"beam_serving.models.{name}", raising=False)

    with pytest.raises(ModelLoadError) as refused:
        loaded(digits / "torchscript")

    model = digits / "torchscript" / "model.pt"
    assert str(refused.value).startswith(f"{model}: needs torch, which is missing: pip install 'beam-serving[torch]'")
