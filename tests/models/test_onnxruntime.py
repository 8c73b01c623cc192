"""ONNX models in onnxruntime: whole tensors of every type and shape, what is changed in a file, what is refused."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import STRING, EngineModel, LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.engines.onnxruntime import load_onnx
from beam_serving.models.formats.onnx_graph import read_graph, read_whole
from beam_serving.models.loading import load
from beam_serving.models.memory_folder import memory_folder

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
FLOAT = TensorProto.FLOAT
LOGREG = Path(__file__).parent / "fixtures" / "logreg"


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def of_any_shape(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, None)


def saved(
    directory: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    **more: Any,
) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights, value_info=more.pop("value_info", ()))
    opsets = [helper.make_opsetid("", more.pop("opset", 21)), helper.make_opsetid("ai.onnx.ml", 3)]
    opsets += more.pop("opsets", [])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, **more), str(directory / "model.onnx"))
    return directory


def weight(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def in_file(name: str, array: np.ndarray, location: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(array, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=text)
    return tensor


def engine(directory: Path, **options: Any) -> EngineModel:
    return load_onnx(find_model(directory), ModelOptions(**options))


def loaded(directory: Path, **options: Any) -> LoadedModel:
    chosen = ModelOptions(**{"engine": "onnxruntime", **options})
    return load(find_model(directory, chosen.engine), chosen)


def refusal(directory: Path, **options: Any) -> str:
    with pytest.raises(ModelLoadError) as refused:
        engine(directory, **options)
    return str(refused.value).removeprefix(f"{directory / 'model.onnx'}: ")


def negated(directory: Path, *shape: int | str, **more: Any) -> Path:
    return saved(directory, [node("Neg", "x", "y")], [value("x", FLOAT, *shape)], [of_any_shape("y", FLOAT)], **more)


def scaling(directory: Path, batch: int | str = "n") -> Path:
    nodes = [
        node("Cast", "ids", "floats", to=FLOAT),
        node("Mul", "floats by", "scaled"),
        node("Neg", "ids", "negative"),
    ]
    inputs = [value("ids", TensorProto.INT64, batch, 4), value("by", FLOAT, batch, 4)]
    outputs = [value("scaled", FLOAT, batch, 4), value("negative", TensorProto.INT64, batch, 4)]
    return saved(directory, nodes, inputs, outputs)


def texts(directory: Path) -> Path:
    nodes = [node("StringConcat", "text text", "twice")]
    return saved(directory, nodes, [value("text", TensorProto.STRING, "n")], [value("twice", TensorProto.STRING, "n")])


@pytest.mark.parametrize("batch", ["n", 2])
def test_several_inputs_and_outputs_of_several_types(tmp_path: Path, batch: int | str) -> None:
    model = loaded(scaling(tmp_path, batch))

    ids = ROWS.astype(np.int64)
    assert model.engine == "onnxruntime"
    assert model.inputs == (TensorSpec("ids", (4,), ids.dtype), TensorSpec("by", (4,), ROWS.dtype))
    outputs = model.predict({"ids": ids, "by": ROWS})
    np.testing.assert_array_equal(outputs["scaled"], ROWS * ROWS)
    np.testing.assert_array_equal(outputs["negative"], -ids)
    chosen = loaded(tmp_path, input_names=("a", "b"), output_names=("negative",))
    assert list(chosen.predict({"a": ids, "b": ROWS})) == ["negative"]


def test_texts_run_in_onnxruntime_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "beam_serving"):
        model = loaded(texts(tmp_path), engine="auto")

    assert any(f"{tmp_path / 'model.onnx'}: runs in onnxruntime; " in message for message in caplog.messages)
    assert model.inputs == (TensorSpec("text", (), STRING),)
    rows = predict_batch(model, [{"text": np.array(text, STRING)} for text in ("a", "é\0")])["twice"]
    assert rows.tolist() == ["aa", "é\0é\0"]


def test_bytes_are_text_in_utf8_and_what_is_no_text_is_refused(tmp_path: Path) -> None:
    model = engine(texts(tmp_path))

    (twice,) = model.infer([np.array([b"a", "é".encode()], STRING)])
    assert twice.tolist() == ["aa", "éé"]
    for wrong, reason in ((7, "7 is no text"), (b"\xff", "'utf-8' codec can't decode"), ("\ud800", "surrogates")):
        with pytest.raises(ModelError, match=f"^the model failed on string\\[1\\]: .*{reason}"):
            model.infer([np.array([wrong], STRING)])


def test_without_onnxruntime_the_refusal_has_the_reason_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "beam_serving.models.engines.onnxruntime", raising=False)

    with pytest.raises(ModelLoadError, match=r"needs onnxruntime, which is missing: pip install onnxruntime"):
        loaded(texts(tmp_path), engine="auto")


@pytest.mark.parametrize("damaged", [b"", b"\x08", b"no model at all", b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_model_is_refused(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(damaged)

    assert refusal(tmp_path).startswith(("is damaged, or is no ONNX model: ", "is no ONNX model: it holds no graph"))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = negated(tmp_path, "n", 4) / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"\n\x01x", b"\n\x01\xff"))

    said = refusal(tmp_path)
    assert said.startswith("is damaged: a name in it is no UTF-8 text (")
    assert "".join(capfd.readouterr()) == ""


def test_a_model_that_was_cut_off_is_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((digits / "onnx" / "model.onnx").read_bytes()[:5000])

    assert refusal(tmp_path).startswith("is damaged, or is no ONNX model: ")
    asked = "bf16 on cpu is asked for, onnxruntime runs models in f32 on cpu only"
    assert refusal(digits / "onnx", precision="bf16") == asked


def test_a_failure_has_the_reason_of_onnxruntime_without_its_positions(tmp_path: Path) -> None:
    shapes = [value("a", FLOAT, "n"), value("b", FLOAT, "m")]
    model = engine(saved(tmp_path, [node("Add", "a b", "y")], shapes, [of_any_shape("y", FLOAT)]))

    with pytest.raises(ModelError) as failed:
        model.infer([np.zeros(2, np.float32), np.zeros(3, np.float32)])
    said = str(failed.value)
    assert said.startswith(
        "the model failed on float32[2], float32[3]: Non-zero status code returned while running Add"
    )
    assert said.endswith("Attempting to broadcast an axis by a dimension other than 1. 2 by 3")
    assert ".h:" not in said
    assert "onnxruntime::" not in said


def test_an_operator_that_onnxruntime_lacks_is_named(tmp_path: Path) -> None:
    lacking = [node("Foo", "x", "y", domain="my.ops")]
    saved(
        tmp_path, lacking, [value("x", FLOAT, "n")], [value("y", FLOAT, "n")], opsets=[helper.make_opsetid("my.ops", 1)]
    )

    assert refusal(tmp_path) == (
        "onnxruntime cannot load it: it has no operator 'Foo' of the domain 'my.ops'; "
        "export the model with operators of ONNX"
    )


def test_single_values_and_any_shape_are_told_apart(tmp_path: Path) -> None:
    nodes = [
        node("Neg", "single", "negative"),
        node("Abs", "any", "magnitude"),
        node("ReduceMax", "any", "most", keepdims=0),
    ]
    inputs = [value("single", FLOAT), of_any_shape("any", FLOAT)]
    outputs = [value("negative", FLOAT), of_any_shape("magnitude", FLOAT), value("most", FLOAT)]
    model = engine(saved(tmp_path, nodes, inputs, outputs))

    assert [spec.shape for spec in model.inputs] == [(), None]
    assert [spec.shape for spec in model.outputs] == [(), None, ()]
    negative, magnitude, most = model.infer([np.array(3, np.float32), -ROWS])
    assert negative.shape == most.shape == ()
    assert negative == -3
    np.testing.assert_array_equal(magnitude, ROWS)


@pytest.mark.parametrize("batch_axis", ["none", "auto"])
def test_single_values_of_a_request_stay_single(tmp_path: Path, batch_axis: str) -> None:
    nodes = [node("Shape", "number", "rank"), node("StringConcat", "text text", "twice")]
    inputs = [value("number", FLOAT), value("text", TensorProto.STRING)]
    outputs = [of_any_shape("rank", TensorProto.INT64), of_any_shape("twice", TensorProto.STRING)]
    model = loaded(saved(tmp_path, nodes, inputs, outputs), batch_axis=batch_axis)

    rows = predict_batch(model, [{"number": np.array(3, np.float32), "text": np.array("a", STRING)}])
    assert rows["rank"].shape == (1, 0)
    assert rows["twice"].tolist() == ["aa"]


def test_sizes_without_a_number_are_free(tmp_path: Path) -> None:
    (spec,) = engine(negated(tmp_path, "n", 3, "h", 0, -1)).inputs

    assert spec.shape == (None, 3, None, 0, None)


def test_tensors_without_elements_are_served(tmp_path: Path) -> None:
    (outputs,) = engine(negated(tmp_path, "n", 0)).infer([np.zeros((2, 0), np.float32)])

    assert outputs.shape == (2, 0)


def test_weights_that_are_also_inputs_are_no_inputs(tmp_path: Path) -> None:
    inputs = [value("w", FLOAT, 4), value("x", FLOAT, "n", 4)]
    model = engine(
        saved(tmp_path, [node("Add", "x w", "y")], inputs, [value("y", FLOAT, "n", 4)], [weight("w", ROWS[1])])
    )

    assert [spec.name for spec in model.inputs] == ["x"]
    np.testing.assert_array_equal(model.infer([ROWS])[0], ROWS + ROWS[1])


def test_outputs_are_those_of_the_file_constants_and_inputs_included(tmp_path: Path) -> None:
    outputs = [value("c", FLOAT, 4), value("y", FLOAT, "n", 4), value("x", FLOAT, "n", 4)]
    model = engine(
        saved(tmp_path, [node("Neg", "x", "y")], [value("x", FLOAT, "n", 4)], outputs, [weight("c", ROWS[1])])
    )

    assert [spec.name for spec in model.outputs] == ["c", "y", "x"]
    given = ROWS.copy()
    for array in model.infer([given]):
        array[...] = 99
    np.testing.assert_array_equal(given, ROWS)
    for array, wanted in zip(model.infer([given]), (ROWS[1], -ROWS, ROWS), strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_chosen_outputs_may_lie_inside_the_graph_and_need_nothing_behind_them(tmp_path: Path) -> None:
    nodes = [node("Neg", "x", "inner"), node("Foo", "inner", "y", domain="my.ops"), node("Abs", "x", "z")]
    outputs = [value("y", FLOAT, "n"), value("z", FLOAT, "n", 4)]
    opsets = [helper.make_opsetid("my.ops", 1)]
    saved(tmp_path, nodes, [value("x", FLOAT, "n", 4)], outputs, opsets=opsets)

    model = engine(tmp_path, output_names=("z", "inner"))
    assert [(spec.name, spec.shape) for spec in model.outputs] == [("z", (None, 4)), ("inner", (None, 4))]
    for array, wanted in zip(model.infer([ROWS]), (ROWS, -ROWS), strict=True):
        np.testing.assert_array_equal(array, wanted)
    assert refusal(tmp_path, output_names=("z", "w")) == "has no output 'w', its outputs are y, z"


def test_what_a_chosen_output_needs_in_a_branch_stays(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph([node(operator, "inner", name)], name, [], [of_any_shape(name, FLOAT)])
        for name, operator in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [
        *(node("Sqrt", "x", "inner"), node("ReduceMax", "x", "most", keepdims=0), node("Cast", "most", "is", to=9)),
        node("If", "is", "y", then_branch=branches["then"], else_branch=branches["else"]),
        node("Foo", "y", "z", domain="my.ops"),
    ]
    saved(tmp_path, nodes, [value("x", FLOAT, "n", 4)], [value("z", FLOAT)], opsets=[helper.make_opsetid("my.ops", 1)])

    np.testing.assert_array_equal(engine(tmp_path, output_names=("y",)).infer([ROWS])[0], -np.sqrt(ROWS))


NARROW = [
    *(("BFLOAT16", [0.5, 1, -2, 3.140625]), ("FLOAT8E4M3FN", [0.5, 1, -2, 3.25]), ("FLOAT8E5M2", [0.5, 1, -2, 3.5])),
    *(("FLOAT8E4M3FNUZ", [0.5, 1, -2, 3.25]), ("FLOAT8E5M2FNUZ", [0.5, 1, -2, 3.5]), ("FLOAT8E8M0", [0.5, 1, 2, 4])),
    *(("INT4", [-8, 0, 3, 7]), ("UINT4", [0, 1, 8, 15]), ("INT2", [-2, -1, 0, 1]), ("UINT2", [0, 1, 2, 3])),
]


@pytest.mark.parametrize(("kind", "values"), NARROW)
def test_types_that_numpy_lacks_come_in_and_go_out_as_wider_ones(
    tmp_path: Path, kind: str, values: list[float]
) -> None:
    number = TensorProto.DataType.Value(kind)
    wide = np.dtype(np.float32 if "FLOAT" in kind else np.uint8 if kind.startswith("U") else np.int8)
    nodes = [node("Cast", "x", "f", to=FLOAT), node("Cast", "f", "y", to=number)]
    saved(tmp_path, nodes, [value("x", number, "n")], [value("f", FLOAT, "n"), value("y", number, "n")], opset=25)
    model = engine(tmp_path)

    (given,) = model.inputs
    below = int(max(values)) + 1 if wide.kind in "iu" else None
    assert given == TensorSpec("x", (None,), wide, below)
    assert model.outputs == (TensorSpec("f", (None,), np.dtype(np.float32)), TensorSpec("y", (None,), wide))
    plain, same = model.infer([np.array(values, wide)])
    assert plain.tolist() == same.tolist() == values


def test_a_type_that_only_onnxruntime_knows_of_is_cast_too(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "b", to=TensorProto.BFLOAT16), node("Cast", "b", "y", to=FLOAT)]
    saved(tmp_path, nodes, [value("x", FLOAT, "n")], [value("y", FLOAT, "n")])

    model = engine(tmp_path, output_names=("b", "y"))
    assert [spec.dtype for spec in model.outputs] == [np.float32, np.float32]
    assert model.infer([np.array([0.5, 3], np.float32)])[0].tolist() == [0.5, 3]


def test_a_type_that_onnxruntime_cannot_cast_is_refused(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "y", to=TensorProto.FLOAT4E2M1)]
    saved(tmp_path, nodes, [value("x", FLOAT, "n")], [value("y", TensorProto.FLOAT4E2M1, "n")], opset=23)

    assert refusal(tmp_path).startswith("onnxruntime cannot load it: Could not find an implementation for Cast")


@pytest.mark.parametrize("kind", ["int64", "uint64", "float64", "int8", "uint8", "int32", "float16", "bool"])
def test_numbers_are_exact(tmp_path: Path, kind: str) -> None:
    dtype = np.dtype(kind)
    number = helper.np_dtype_to_tensor_dtype(dtype)
    model = engine(saved(tmp_path, [node("Identity", "x", "y")], [value("x", number, "n")], [value("y", number, "n")]))

    if dtype.kind == "f":
        edges = [np.finfo(dtype).min, np.finfo(dtype).max, np.finfo(dtype).tiny, 1 / 3, np.inf, np.nan]
    else:
        edges = [False, True] if kind == "bool" else [np.iinfo(dtype).min, np.iinfo(dtype).max, 1]
    given = np.array(edges, dtype)
    (same,) = model.infer([given])
    assert same.dtype == dtype
    np.testing.assert_array_equal(same, given)


def zipped(directory: Path, labels: dict[str, Any]) -> Path:
    of_classes = {
        "classlabels_ints" if "classlabels_int64s" in labels else "classlabels_strings": next(iter(labels.values()))
    }
    scores = {"coefficients": [1.0, 0, 0, 0, 1, 0, 0, 0, 1], "intercepts": [0.0] * 3, "post_transform": "SOFTMAX"}
    nodes = [
        node("LinearClassifier", "x", "label s", domain="ai.onnx.ml", **scores, **of_classes),
        node("ZipMap", "s", "probabilities", domain="ai.onnx.ml", **labels),
    ]
    key = TensorProto.INT64 if "classlabels_int64s" in labels else TensorProto.STRING
    tensor = helper.make_tensor_type_proto(FLOAT, None)
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(key, tensor))
    outputs = [value("label", key, "n"), helper.make_value_info("probabilities", maps)]
    return saved(directory, nodes, [value("x", FLOAT, "n", 3)], outputs)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"classlabels_int64s": [7, 8, -9]}, ("7", "8", "-9")),
        ({"classlabels_strings": ["cat", "dog", "Käfer"]}, ("cat", "dog", "Käfer")),
    ],
)
def test_a_zipmap_gives_its_scores_and_the_names_of_its_classes(
    tmp_path: Path, labels: dict[str, Any], names: tuple[str, ...]
) -> None:
    model = engine(zipped(tmp_path, labels))

    assert model.facts.class_names == {"probabilities": names}
    assert [(spec.name, spec.shape) for spec in model.outputs] == [("label", (None,)), ("probabilities", (None, 3))]
    label, scores = model.infer([np.eye(3, dtype=np.float32)])
    assert [str(one) for one in label] == list(names)
    assert scores.argmax(1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)
    assert engine(tmp_path, output_names=("label",)).facts.class_names == {}


def test_a_classifier_of_scikit_learn_with_a_fixed_batch_takes_any_number_of_records() -> None:
    model = loaded(LOGREG)

    records = [{"float_input": np.array(row, np.float32)} for row in ([5, 2], [1, 4], [2, 0.5], [7, 7])]
    together = predict_batch(model, records)
    assert together["label"].dtype == np.int64
    assert together["probabilities"].shape == (4, 3)
    for index, record in enumerate(records):
        alone = predict_batch(model, [record])
        assert alone["label"][0] == together["label"][index]
        np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][index], rtol=1e-6)
    assert model.class_names == {"probabilities": ("0", "1", "2")}
    assert list(predict_batch(loaded(LOGREG, output_names=("label",)), records)) == ["label"]


def test_what_is_no_tensor_is_refused_by_name_unless_it_is_not_chosen(tmp_path: Path) -> None:
    tensors = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    nodes = [node("SequenceConstruct", "x x", "s"), node("Neg", "x", "y")]
    outputs = [helper.make_value_info("s", tensors), value("y", FLOAT, "n", 4)]
    saved(tmp_path, nodes, [value("x", FLOAT, "n", 4)], outputs)

    assert refusal(tmp_path) == (
        "output 's' is seq(tensor(float)); wanted are tensors of numbers or text, choose others with model: outputs"
    )
    np.testing.assert_array_equal(engine(tmp_path, output_names=("y",)).infer([ROWS])[0], -ROWS)
    nodes = [node("SequenceLength", "s", "y")]
    saved(tmp_path, nodes, [helper.make_value_info("s", tensors)], [value("y", TensorProto.INT64)])
    assert refusal(tmp_path).startswith(
        "input 's' is seq(tensor(float)); wanted are tensors of numbers or text, export"
    )


def reshaping(directory: Path) -> Path:
    """A model that says of everything in it that it is 2 rows of 4."""
    nodes = [node("Neg", "x", "inner"), node("Abs", "inner", "y"), node("ReduceSum", "y axis", "total", keepdims=0)]
    outputs = [value("y", FLOAT, 2, 4), value("total", FLOAT, 2)]
    inner = [value("inner", FLOAT, 2, 4)]
    return saved(
        directory, nodes, [value("x", FLOAT, 2, 4)], outputs, [weight("axis", np.array([1]))], value_info=inner
    )


def test_a_fixed_first_axis_is_freed(tmp_path: Path) -> None:
    model = engine(reshaping(tmp_path))
    freed = model.freed()

    assert freed is not None
    assert [spec.shape for spec in (*model.inputs, *model.outputs)] == [(2, 4), (2, 4), (2,)]
    assert [spec.shape for spec in (*freed.inputs, *freed.outputs)] == [(None, 4), (None, 4), (None,)]
    np.testing.assert_array_equal(freed.infer([ROWS])[1], ROWS.sum(1))
    assert freed.freed() is None


def test_data_shape_replaces_sizes_that_the_file_gives(tmp_path: Path) -> None:
    model = engine(reshaping(tmp_path), input_shape=(6,))

    assert [spec.shape for spec in (*model.inputs, *model.outputs)] == [(2, 6), (2, 6), (2,)]
    given = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_array_equal(model.infer([given])[1], given.sum(1))
    assert refusal(tmp_path, input_shape=(6, 1)).startswith("data: shape of input 'x' is [6, 1], the model takes ")


def test_data_shape_fixes_what_is_free_and_gives_what_the_file_does_not_say(tmp_path: Path) -> None:
    nodes, outputs = [node("Add", "a b", "y")], [of_any_shape("y", FLOAT)]
    saved(tmp_path, nodes, [value("a", FLOAT, "n", "w"), of_any_shape("b", FLOAT)], outputs)

    model = engine(tmp_path, input_shape={"a": (4,), "b": (4,)})
    assert [spec.shape for spec in (*model.inputs, *model.outputs)] == [(None, 4)] * 3
    whole = engine(tmp_path, input_shape={"b": (3, 4)}, batch_axis="none")
    assert [spec.shape for spec in whole.inputs] == [(None, None), (3, 4)]


def test_other_names_for_inputs_must_be_as_many(tmp_path: Path) -> None:
    reshaping(tmp_path)

    assert refusal(tmp_path, input_names=("a", "b")) == "input_names are ['a', 'b'], the model has 1 inputs"
    assert engine(tmp_path, input_names=("a",), input_shape={"a": (6,)}).inputs[0].shape == (2, 6)


def test_what_cannot_have_a_free_axis_stays_as_it_is(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x shape", "y")]
    shape = [weight("shape", np.array([4, 2]))]
    saved(tmp_path, nodes, [value("x", FLOAT, 2, 4)], [value("y", FLOAT, 4, 2)], shape)

    model = loaded(tmp_path)
    assert model.one_by_one
    np.testing.assert_array_equal(predict_batch(model, [{"x": ROWS[:2]}])["y"][0], ROWS[:2].reshape(4, 2))


LARGE = np.arange(4000, dtype=np.float32)


def with_file(directory: Path, location: str = "weights.bin") -> Path:
    inputs, outputs = [value("x", FLOAT, 2, 4000)], [value("y", FLOAT, 2, 4000)]
    saved(directory, [node("Add", "x w", "y")], inputs, outputs, [in_file("w", LARGE, location)])
    (directory / "weights.bin").write_bytes(LARGE.tobytes())
    return directory


def test_weights_in_files_are_found_also_by_a_model_that_is_changed(tmp_path: Path) -> None:
    model = engine(with_file(tmp_path))

    freed = model.freed()
    assert freed is not None
    for one, rows in ((model, 2), (freed, 3)):
        np.testing.assert_array_equal(one.infer([np.ones((rows, 4000), np.float32)])[0][-1], LARGE + 1)


def test_weights_in_files_in_memory_are_found(tmp_path: Path) -> None:
    with_file(tmp_path)
    with memory_folder() as folder:
        for name in ("model.onnx", "weights.bin"):
            with folder.create(Path(name)) as file:
                file.write((tmp_path / name).read_bytes())
        model = engine(folder.path)
        freed = model.freed()

    assert freed is not None
    for one, rows in ((model, 2), (freed, 3)):
        np.testing.assert_array_equal(one.infer([np.ones((rows, 4000), np.float32)])[0][-1], LARGE + 1)


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "", "link"])
def test_weights_outside_of_the_directory_are_refused(tmp_path: Path, location: str) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (tmp_path / "weights.bin").write_bytes(LARGE.tobytes())
    (directory / "link").symlink_to(tmp_path / "weights.bin")

    said = refusal(with_file(directory, location))
    assert said.startswith(f"the weights of 'w' are in {location!r}; wanted is a file in the directory of the model")


@pytest.mark.parametrize("location", ["gone.bin", "*/_ORT_MEM_ADDR_/*"])
def test_weights_that_are_missing_are_refused(tmp_path: Path, location: str) -> None:
    assert (
        refusal(with_file(tmp_path, location))
        == f"the weights of 'w' are in {location!r}, which is missing beside the model"
    )


def test_a_link_to_memory_of_another_folder_is_refused(tmp_path: Path) -> None:
    with memory_folder() as folder:
        with folder.create(Path("secret")) as file:
            file.write(LARGE.tobytes())
        (tmp_path / "link").symlink_to(os.readlink(folder.path / "secret"))
        said = refusal(with_file(tmp_path, "link"))

    assert said.startswith("the weights of 'w' are in 'link'; wanted is a file in the directory of the model")


def test_large_weights_are_not_read_to_know_a_graph(tmp_path: Path) -> None:
    small = weight("small", np.arange(4, dtype=np.float32))
    nodes = [node("Gemm", "x large small", "y")]
    large = weight("large", np.ones((4, 400), np.float32))
    path = (
        saved(tmp_path, nodes, [value("x", FLOAT, "n", 4)], [value("y", FLOAT, "n", 400)], [small, large])
        / "model.onnx"
    )

    known, whole = read_graph(path), read_whole(path)
    assert known.ByteSize() < whole.ByteSize() - large.ByteSize() + 100
    assert [tensor.dims for tensor in known.graph.initializer] == [[4], [4, 400]]
    whole.graph.initializer[1].ClearField("raw_data")
    assert known == whole


def random_graphs() -> list[tuple[str, dict[str, Any], tuple[str, ...]]]:
    noise = node("RandomNormalLike", "x", "y")
    branch = helper.make_graph([node("Bernoulli", "x", "b")], "branch", [], [of_any_shape("b", FLOAT)])
    other = helper.make_graph([node("Identity", "x", "b")], "other", [], [of_any_shape("b", FLOAT)])
    inside = node("If", "is", "y", then_branch=branch, else_branch=other)
    function = helper.make_function("own", "Noise", ["x"], ["y"], [noise], [helper.make_opsetid("", 21)])
    called = {"nodes": [node("Noise", "x", "y", domain="own")], "functions": [function]}
    dropout = [node("Dropout", "x ratio is", "y")]
    return [
        ("node", {"nodes": [noise]}, ("RandomNormalLike",)),
        ("subgraph", {"nodes": [inside]}, ("Bernoulli",)),
        ("function", {**called, "opsets": [helper.make_opsetid("own", 1)]}, ("RandomNormalLike",)),
        ("training", {"nodes": dropout}, ("Dropout",)),
        ("inference", {"nodes": dropout, "is": False}, ()),
        ("default", {"nodes": [node("Dropout", "x", "y")]}, ()),
    ]


@pytest.mark.parametrize(
    ("parts", "wanted"), [case[1:] for case in random_graphs()], ids=[one[0] for one in random_graphs()]
)
def test_random_operators_are_named(tmp_path: Path, parts: dict[str, Any], wanted: tuple[str, ...]) -> None:
    parts = dict(parts)
    weights = [weight("is", np.array(parts.pop("is", True))), weight("ratio", np.array(0.5, np.float32))]
    nodes = parts.pop("nodes")
    saved(tmp_path, nodes, [value("x", FLOAT, "n", 4)], [value("y", FLOAT, "n", 4)], weights, **parts)

    model = engine(tmp_path)
    assert model.facts.random == wanted
    assert model.facts.state == ()
    first, second = (model.infer([np.full((50, 4), 0.5, np.float32)])[0] for _ in range(2))
    assert np.array_equal(first, second) == (not wanted)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedModel]:
    """Models whose rows are independent, or are not: free, fixed to 1, fixed to 3, with a sum over the rows."""
    weights = [
        weight("w", np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)),
        weight("axis", np.array([0])),
    ]
    layer = [node("MatMul", "x w", "h"), node("Softmax", "h", "p"), node("ArgMax", "p", "label", axis=1, keepdims=0)]
    outputs = [of_any_shape("p", FLOAT), of_any_shape("label", TensorProto.INT64)]
    mixing = [*layer, node("ReduceSum", "x axis", "total"), node("Add", "x total", "y")]
    made = [
        *((layer, [value("x", FLOAT, rows, 4)], outputs) for rows in ("n", 1, 3)),
        *((mixing, [value("x", FLOAT, rows, 4)], [*outputs, of_any_shape("y", FLOAT)]) for rows in ("n", 1)),
    ]
    directories = [tmp_path_factory.mktemp("model") for _ in made]
    return [loaded(saved(directory, *parts, weights)) for directory, parts in zip(directories, made, strict=True)]


@settings(max_examples=40)
@given(
    values=st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=8), order=st.randoms(use_true_random=False)
)
def test_records_get_in_any_batch_what_they_get_alone(
    networks: list[LoadedModel], values: list[float], order: Any
) -> None:
    records = [{"x": np.array([first, -first, 1, row], np.float32)} for row, first in enumerate(values)]
    for model in networks:
        alone = [{name: rows[0] for name, rows in predict_batch(model, [record]).items()} for record in records]
        places = order.sample(range(len(records)), len(records))
        cut = order.randint(0, len(places))
        for group in filter(None, (places[:cut], places[cut:])):
            together = predict_batch(model, [records[place] for place in group])
            for index, place in enumerate(group):
                for name, wanted in alone[place].items():
                    np.testing.assert_allclose(together[name][index], wanted, rtol=1e-4, atol=1e-6)
