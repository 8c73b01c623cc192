"""What the trial of a model shows where its file does not say, or says wrongly, what belongs to one record."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper

from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.batches import predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load, probe
from beam_serving.models.openvino_engine import OPENVINO_ERRORS, first_reason
from tests.models.onnx_files import FLOAT, node, saved

RANDOM = np.random.default_rng(0)


def loaded(directory: Path, **options: Any) -> LoadedModel:
    chosen = ModelOptions(**{"engine": "onnxruntime", **options})
    return load(find_model(directory, chosen.engine), chosen)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def recurrent(directory: Path, layers: int, least: int = 1) -> Path:
    """Write a model of a step: from `x` and the state of each layer to their sum and the next state."""
    nodes = [
        node("ReduceSum", "state first", "states", keepdims=0),
        node("Gather", "x places", "needed", axis=1),
        node("ReduceSum", "needed second", "sums", keepdims=1),
        node("Add", "states sums", "y"),
        node("Neg", "state", "next"),
    ]
    inputs = [("x", FLOAT, ["batch", "samples"]), ("state", FLOAT, [layers, "batch", 3])]
    constants = {"first": [0], "second": [1], "places": [0, least - 1]}
    return saved(directory, nodes, inputs, [("y", FLOAT, None), ("next", FLOAT, None)], constants)


@pytest.mark.parametrize(("layers", "least"), [(2, 1), (3, 1), (2, 400), (2, 5000)])
def test_the_layers_of_a_state_are_no_records(tmp_path: Path, layers: int, least: int) -> None:
    """Also where invented samples are too short for the model, so that nothing can be tried (5000)."""
    model = loaded(recurrent(tmp_path, layers, least))

    assert model.one_by_one
    for length in (least, least + 7):
        x, state = normal(1, length), normal(layers, 1, 3)
        outputs = predict_batch(model, [{"x": x, "state": state}])
        np.testing.assert_allclose(outputs["y"][0], state.sum(0) + x[:, 0] + x[:, least - 1], rtol=1e-5)
        np.testing.assert_array_equal(outputs["next"][0], -state)


@pytest.mark.parametrize("is_file", [True, False])
def test_whole_tensors_of_a_sample_say_that_a_size_in_front_counts_no_records(tmp_path: Path, is_file: bool) -> None:
    sample = tmp_path / "sample.npz"
    np.savez(sample, x=normal(1, 6000), state=normal(2, 1, 3))
    shapes = {"x": (1, 6000), "state": (2, 1, 3)}

    model = loaded(recurrent(tmp_path / "model", 2, 5000), sample=str(sample) if is_file else shapes)

    assert [spec.shape for spec in model.inputs] == [(None, None), (2, None, 3)]


def test_a_fixed_number_of_records_beside_a_free_one_is_found(tmp_path: Path) -> None:
    inputs = [("x", FLOAT, ["batch", 3]), ("by", FLOAT, [2, 3])]
    saved(tmp_path, [node("Mul", "x by", "y")], inputs, [("y", FLOAT, None)])
    records = [{"x": normal(3), "by": normal(3)} for _ in range(5)]

    outputs = predict_batch(loaded(tmp_path), records)

    np.testing.assert_array_equal(outputs["y"], [record["x"] * record["by"] for record in records])


def test_steps_of_a_sequence_beside_a_state_of_one_record_are_pointed_out(tmp_path: Path) -> None:
    inputs = [("steps", FLOAT, ["steps", 3]), ("state", FLOAT, [1, 3])]
    nodes = [node("ReduceSum", "steps first", "sums", keepdims=1), node("Add", "sums state", "y")]
    saved(tmp_path, nodes, inputs, [("y", FLOAT, [1, 3])], {"first": [0]})

    verdict = probe(find_model(tmp_path), ModelOptions(engine="onnxruntime"))
    assert "set model: batch_axis: none" in verdict.notes[0]
    model = loaded(tmp_path, batch_axis="none")
    record = {"steps": normal(5, 3), "state": normal(1, 3)}
    y = predict_batch(model, [record])["y"][0]
    np.testing.assert_allclose(y, record["steps"].sum(0, keepdims=True) + record["state"], rtol=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_an_output_whose_first_axis_is_not_what_its_file_says_is_whole(tmp_path: Path, engine: str) -> None:
    """As of a recogniser of text that puts time first, and says that it has one row."""
    nodes = [node("Shape", "x", "shape"), node("Reshape", "shape minus", "same"), node("Reshape", "x same", "kept")]
    nodes += [node("Transpose", "kept", "y", perm=[1, 0, 2])]
    saved(tmp_path, nodes, [("x", FLOAT, [1, "time", 4])], [("y", FLOAT, [1, "length"])], {"minus": [-1]})
    model = loaded(tmp_path, engine=engine)

    for length in (1, 5, 9):
        x = normal(length, 4)
        np.testing.assert_array_equal(predict_batch(model, [{"x": x}])["y"][0], x[:, np.newaxis])


def test_the_reason_why_openvino_refuses_a_model_names_the_operator(tmp_path: Path) -> None:
    """OpenVINO puts the operator into a report, between where in its own source it failed, and that it did."""
    branch = helper.make_graph([node("Neg", "x", "y")], "branch", [], [helper.make_tensor_value_info("y", FLOAT, [2])])
    nodes = [
        node("Cast", "condition", "chosen", to=TensorProto.BOOL),
        node("If", "chosen", "y", then_branch=branch, else_branch=branch),
    ]
    saved(tmp_path, nodes, [("x", FLOAT, [2]), ("condition", FLOAT, [1, 1])], [("y", FLOAT, [2])])

    with pytest.raises(OPENVINO_ERRORS) as refused:
        openvino.Core().read_model(tmp_path / "model.onnx")
    assert first_reason(refused.value) == "If: Rank of If condition input must be equal to 0 or 1"


def test_the_reason_why_openvino_refuses_an_input_is_not_that_it_loads_it(tmp_path: Path) -> None:
    saved(tmp_path, [node("ReduceSum", "x", "y")], [("x", FLOAT, [2])], [("y", FLOAT, [])])
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.output[0].type.map_type.key_type = TensorProto.INT64
    model.graph.output[0].type.map_type.value_type.tensor_type.elem_type = FLOAT
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(OPENVINO_ERRORS) as refused:
        openvino.Core().read_model(tmp_path / "model.onnx")
    assert first_reason(refused.value) == "Unsupported value_info type: y"
