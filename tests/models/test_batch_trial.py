"""What the trial of a model shows where its file does not say, or says wrongly, what belongs to one record."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper

from beam_serving.errors import ModelError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.batches import predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.engines.openvino import OPENVINO_ERRORS, first_reason
from beam_serving.models.loading import load
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


def _above(least: float) -> list[Any]:
    """Add to each row what the largest row has above a limit."""
    return [
        node("ReduceMax", "x", "most", axes=[0], keepdims=1),
        node("Sub", "most limit", "above"),
        node("Relu", "above", "more"),
        node("Add", "x more", "y"),
    ]


_SIZE = [node("Shape", "x", "shape"), node("Gather", "shape zero", "rows"), node("Cast", "rows", "count", to=FLOAT)]
_MEETING = {
    "large": (_above(1000), {"limit": 1000.0}, [[2e3, 1], [5, 6]]),
    "equal": (
        [
            *(node("Unsqueeze", "x first", "across"), node("Unsqueeze", "x second", "down")),
            *(node("Equal", "across down", "same"), node("Cast", "same", "is_same", to=FLOAT)),
            *(
                node("ReduceMin", "is_same", "equals", axes=[2], keepdims=0),
                node("ReduceSum", "equals second", "times"),
            ),
            node("Mul", "x times", "y"),
        ],
        {"first": [0], "second": [1]},
        [[1, 2], [1, 2], [3, 4]],
    ),
    "many": (
        [*_SIZE, node("Sub", "count three", "above"), node("Relu", "above", "more"), node("Add", "x more", "y")],
        {"zero": 0, "three": 3.0},
        [[1, 2]] * 5,
    ),
    "capacity": (
        [
            *(node("Less", "x limit", "is_low"), node("Cast", "is_low", "low", to=FLOAT)),
            *(node("ReduceMin", "low", "routed", axes=[1], keepdims=1), node("CumSum", "routed zero", "place")),
            *(node("Greater", "place one", "over"), node("Where", "over nothing x", "y")),
        ],
        {"limit": -2.0, "zero": 0, "one": 1.0, "nothing": 0.0},
        [[-3, -3], [-4, -4], [-5, -5]],
    ),
    "NaN": (
        [
            *(node("ReduceSum", "x first", "sums"), node("Mul", "sums nothing", "none"), node("Add", "x none", "y")),
        ],
        {"first": [0], "nothing": 0.0},
        [[1, 2], [np.nan, 4]],
    ),
}


@pytest.mark.parametrize("batch", ["batch", 2, 4])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("meeting", _MEETING)
def test_rows_that_meet_only_among_special_neighbours_are_told(
    tmp_path: Path, meeting: str, engine: str, batch: str | int
) -> None:
    """Neighbours that are large, equal, many or no numbers: among a few small ones these rows seem independent."""
    nodes, constants, rows = _MEETING[meeting]
    saved(tmp_path, nodes, [("x", FLOAT, [batch, 2])], [("y", FLOAT, [batch, 2])], constants)

    if batch == "batch":
        model = loaded(tmp_path, engine=engine)
        records = [{"x": np.array(row, np.float32)} for row in rows]
        alone = [predict_batch(model, [record])["y"][0] for record in records]
        np.testing.assert_array_equal(predict_batch(model, records)["y"], alone)
    else:
        # A request has the whole tensor; where the number counts alone, a fixed one is always the same.
        expected = (2,) if meeting == "many" else (batch, 2)
        assert loaded(tmp_path, engine=engine).inputs[0].shape == expected


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_rows_that_never_meet_stay_together(tmp_path: Path, engine: str) -> None:
    nodes = [node("MatMul", "x w", "h"), node("Softmax", "h", "s"), node("Sin", "x", "t"), node("Add", "s t", "y")]
    constants = {"w": RANDOM.normal(size=(4, 4))}
    saved(tmp_path, nodes, [("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])], constants)

    assert not loaded(tmp_path, engine=engine).one_by_one


def test_infinity_is_refused_where_an_engine_computes_it_otherwise(tmp_path: Path) -> None:
    """OpenVINO gives 0 for the rest of a softmax that has an infinity, onnxruntime NaN."""
    saved(tmp_path / "a", [node("Softmax", "x", "y")], [("x", FLOAT, ["b", 4])], [("y", FLOAT, ["b", 4])])
    saved(tmp_path / "b", [node("Neg", "x", "y")], [("x", FLOAT, ["b", 4])], [("y", FLOAT, ["b", 4])])
    infinite = {"x": np.array([np.inf, 1, 2, 3], np.float32)}
    softmax, negative = loaded(tmp_path / "a", engine="auto"), loaded(tmp_path / "b", engine="auto")

    assert (softmax.engine, negative.engine) == ("openvino", "openvino")
    with pytest.raises(ModelError, match="input 'x' has NaN or infinity, which its engine computes otherwise"):
        predict_batch(softmax, [infinite])
    np.testing.assert_array_equal(predict_batch(negative, [infinite])["y"][0], -infinite["x"])


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


def test_infinity_in_a_mask_is_for_the_own_framework(tmp_path: Path) -> None:
    nodes = [node("Add", "x mask", "sum"), node("Softmax", "sum", "y")]
    saved(tmp_path, nodes, [("x", FLOAT, ["b", 4]), ("mask", FLOAT, ["b", 4])], [("y", FLOAT, ["b", 4])])
    mask = np.array([0, -np.inf, 0, 0], np.float32)
    model = loaded(tmp_path, engine="auto")

    (row,) = predict_batch(model, [{"x": np.ones(4, np.float32), "mask": mask}])["y"]

    assert model.engine == "onnxruntime"
    np.testing.assert_allclose(row, [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)
