"""ONNX models: several inputs and outputs, integers and texts, in OpenVINO and in onnxruntime."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import STRING, LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import predict_batch, warm_up
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def saved(directory: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, str(directory / "model.onnx"))
    return directory


def value(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def loaded(directory: Path, **options: Any) -> LoadedModel:
    given = ModelOptions(**options)
    return load(find_model(directory, given.engine), given)


def refusal(directory: Path, **options: Any) -> str:
    with pytest.raises(ModelLoadError) as refused:
        loaded(directory, **options)
    return str(refused.value).removeprefix(f"{directory / 'model.onnx'}: ")


def scaling(directory: Path, batch: int | str = "n") -> Path:
    nodes = [
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "by"], ["scaled"]),
        helper.make_node("Neg", ["ids"], ["negative"]),
    ]
    inputs = [value("ids", TensorProto.INT64, batch, 4), value("by", TensorProto.FLOAT, batch, 4)]
    outputs = [value("scaled", TensorProto.FLOAT, batch, 4), value("negative", TensorProto.INT64, batch, 4)]
    return saved(directory, nodes, inputs, outputs)


def texts(directory: Path) -> Path:
    node = helper.make_node("StringConcat", ["text", "text"], ["twice"])
    return saved(directory, [node], [value("text", TensorProto.STRING, "n")], [value("twice", TensorProto.STRING, "n")])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("batch", ["n", 2])
def test_several_inputs_and_outputs_of_several_types(tmp_path: Path, engine: str, batch: int | str) -> None:
    model = loaded(scaling(tmp_path, batch), engine=engine)

    ids = ROWS.astype(np.int64)
    assert model.engine == engine
    assert model.inputs == (TensorSpec("ids", (4,), ids.dtype), TensorSpec("by", (4,), ROWS.dtype))
    outputs = model.predict({"ids": ids, "by": ROWS})
    np.testing.assert_array_equal(outputs["scaled"], ROWS * ROWS)
    np.testing.assert_array_equal(outputs["negative"], -ids)
    chosen = loaded(tmp_path, engine=engine, input_names=("a", "b"), output_names=("negative",))
    assert list(chosen.predict({"a": ids, "b": ROWS})) == ["negative"]


def test_texts_run_in_onnxruntime_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "beam_serving"):
        model = loaded(texts(tmp_path))

    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'model.onnx'}: runs in onnxruntime; OpenVINO cannot ")
    assert model.inputs == (TensorSpec("text", (), STRING),)
    warm_up(model, 4)
    rows = predict_batch(model, [{"text": np.array(text, STRING)} for text in ("a", "é")])["twice"]
    assert rows.tolist() == ["aa", "éé"]


def test_without_onnxruntime_the_refusal_has_the_reason_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "beam_serving.models.onnxruntime_engine", raising=False)

    said = refusal(texts(tmp_path))

    assert said.startswith("OpenVINO cannot ")
    assert said.endswith("; needs onnxruntime, which is missing: pip install 'beam-serving[onnx]'")


def test_what_onnxruntime_cannot_do_is_refused(digits: Path, tmp_path: Path) -> None:
    asked = "bf16 on cpu is asked for, onnxruntime runs models in f32 on cpu only"
    assert refusal(digits / "onnx", engine="onnxruntime", precision="bf16") == asked
    output = "has no output 'x', its outputs are prob"
    assert refusal(digits / "onnx", engine="onnxruntime", output_names=("x",)) == output
    (tmp_path / "model.onnx").write_bytes((digits / "onnx" / "model.onnx").read_bytes()[:5000])
    assert refusal(tmp_path, engine="onnxruntime").startswith("onnxruntime cannot load it: [ONNXRuntimeError] : 7 : ")


def test_a_batch_that_onnxruntime_refuses_is_a_model_error(digits: Path) -> None:
    model = loaded(digits / "onnx", engine="onnxruntime")

    with pytest.raises(ModelError, match=r"^the model failed on a batch of float32\[2, 5\]$"):
        model.predict({"input": np.zeros((2, 5), np.float32)})
