"""Operators that do more than compute, of a SavedModel, a frozen graph and TensorFlow Lite."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_serving.models.batches import predict_batch
from tests.models.tensorflow_models import frozen, in_turn, lite, loaded, refusal, saved, tensorflow

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
tf: Any = None

# What has a file, a path or an address among its inputs and attributes, and yet only computes.
COMPUTES = re.compile(
    r"Cudnn\w+|RiscSort|CTCBeamSearchDecoder|_\w*(Conv2D\w*|QuantizedMatMul)|TensorSliceDataset|InitializeTableFromTextFile(V2)?"
    r"|FixedUnigramCandidateSampler|DecodeProtoV2|EncodeProto|(Experimental)?SetStatsAggregatorDataset"
)


@pytest.fixture(scope="module", autouse=True)
def _tensorflow() -> None:
    globals()["tf"] = tensorflow()


def vector(name: str = "x", dtype: Any = np.float32) -> Any:
    return tf.TensorSpec([None, 4], dtype, name=name)


def test_each_operator_of_tensorflow_that_knows_a_file_or_an_address_is_refused() -> None:
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session as session

    from beam_serving.models.formats.tensorflow_operators import refused_by_name

    operators = op_def_pb2.OpList.FromString(session.TF_GetBuffer(session.TF_GetAllOpList()))
    touches = re.compile(
        r"file|path|(?<!_)dir(?!ection)|prefix|address|urls?$|server|memory_region|descriptor_source|graph_def"
    )
    suspects = {
        one.name for one in operators.op if any(touches.search(part.name) for part in (*one.input_arg, *one.attr))
    }
    assert len(suspects) > 50
    assert [name for name in sorted(suspects) if not refused_by_name(name) and not COMPUTES.fullmatch(name)] == []


@pytest.mark.parametrize("depth", [0, 2])
def test_a_saved_model_that_reads_or_writes_files_is_refused_however_deep(tmp_path: Path, depth: int) -> None:
    written = tmp_path / "written"

    def nested(level: int) -> Any:
        if level:
            inner = tf.function(nested(level - 1))
            return lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: inner(x), lambda: x)

        def write(x: Any) -> Any:
            with tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(written), contents="x")]):
                return x + 1

        return write

    directory = saved(tmp_path / "model", lambda x: {"y": nested(depth)(x)}, vector())
    written.unlink(missing_ok=True)

    assert re.match(rf"{directory}: operator WriteFile \(\S+\) reads or writes files", refusal(directory))
    assert not written.exists()


def test_a_table_is_filled_from_the_assets_of_its_model_only(tmp_path: Path) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("a\nb\nc\n", encoding="utf-8")
    table = tf.lookup.StaticHashTable(lines_of(vocabulary), -1)
    directory = saved(
        tmp_path / "model",
        lambda text: {"id": table.lookup(text)},
        tf.TensorSpec([None], tf.string, name="text"),
        table=table,
    )
    vocabulary.unlink()

    rows = predict_batch(loaded(directory), [{"text": np.array(word, object)} for word in "cxa"])
    assert rows["id"].tolist() == [2, -1, 0]

    other = tmp_path / "other.txt"
    other.write_text("secret\n", encoding="utf-8")
    file = directory / "saved_model.pb"
    whole = file.read_bytes()
    assert b"\x12\x09words.txt" in whole
    # An asset's name that leads out of the directory, of the same length as the protobuf has it.
    file.write_bytes(whole.replace(b"\x12\x09words.txt", b"\x12\x09../../o.t"))
    assert refusal(directory) == f"{directory}: its asset '../../o.t' lies outside of its directory"


def saved_by_tensorflow_1(directory: Path, vocabulary: Path, initial: Any = None, writes: bool = False) -> Path:
    """Save a graph with a variable and a table; `initial` runs, too, when the table is filled."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.enable_resource_variables()
        text = v1.placeholder(tf.string, [None], name="text")
        table = tf.lookup.StaticHashTable(lines_of(vocabulary), -1)
        weights = v1.get_variable("weights", initializer=[10.0, 20.0, 30.0, 40.0])
        with tf.control_dependencies([v1.assign_add(weights, tf.ones([4]))] if writes else []):
            score = tf.gather(weights.read_value(), table.lookup(text) + 1)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        filled = v1.tables_initializer()
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": v1.saved_model.predict_signature_def({"text": text}, {"score": score})},
            main_op=tf.group(filled, initial()) if initial else filled,
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()
    return directory


def lines_of(file: Path) -> Any:
    index = tf.lookup.TextFileIndex
    return tf.lookup.TextFileInitializer(str(file), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)


@pytest.mark.parametrize("writes", [False, True])
def test_a_model_of_tensorflow_1_has_its_variables_and_assets(tmp_path: Path, writes: bool) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("a\nb\n", encoding="utf-8")
    directory = saved_by_tensorflow_1(tmp_path / "model", vocabulary, writes=writes)
    vocabulary.unlink()

    model = loaded(directory)
    for _ in range(2):
        rows = predict_batch(model, [{"text": np.array(word, object)} for word in "bxa"])
        np.testing.assert_array_equal(rows["score"], np.array([30, 10, 20]) + writes)


def test_what_a_model_of_tensorflow_1_would_do_while_it_is_loaded_is_looked_at(tmp_path: Path) -> None:
    vocabulary, written = tmp_path / "words.txt", tmp_path / "written"
    vocabulary.write_text("a\n", encoding="utf-8")

    def write() -> Any:
        return tf.raw_ops.WriteFile(filename=str(written), contents="x")

    said = refusal(saved_by_tensorflow_1(tmp_path / "a", vocabulary, write))
    assert said.startswith(f"{tmp_path / 'a'}: operator WriteFile (WriteFile) reads or writes files")

    def fill() -> Any:
        handle = tf.lookup.StaticHashTable(lines_of(vocabulary), -1).resource_handle
        return tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=handle, filename="/etc/hostname", key_index=-2, value_index=-1, delimiter=" "
        )

    assert "reads a file that is not among the model's assets" in refusal(
        saved_by_tensorflow_1(tmp_path / "b", vocabulary, fill)
    )
    assert not written.exists()


def test_python_is_not_run(tmp_path: Path) -> None:
    directory = saved(
        tmp_path, lambda x: {"y": tf.ensure_shape(tf.py_function(lambda a: a, [x], tf.float32), x.shape)}, vector()
    )
    assert ": operator EagerPyFunc (" in refusal(directory)


@pytest.mark.parametrize("name", ["Abort", "XlaCustomCallV2", "MlirPassthroughOp", "_XlaHostComputeMlir"])
def test_operators_that_run_what_is_no_graph_are_refused(name: str) -> None:
    from beam_serving.models.formats.tensorflow_operators import Reached, reason_to_refuse, refused_by_name

    node = tf.compat.v1.NodeDef(name="n", op=name)

    assert refused_by_name(name)
    assert str(reason_to_refuse([Reached(node)])).startswith(
        f"operator {name} (n) runs code that is no part of the graph"
    )


def test_what_is_not_served_of_a_frozen_graph_may_do_what_it_likes(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        tf.add(x, 1.0, name="served")
        tf.raw_ops.ReadFile(filename=tf.strings.as_string(tf.reduce_sum(x)), name="file")

    directory = frozen(tmp_path / "m", build)

    assert refusal(directory).startswith(f"{directory / 'graph.pb'}: operator ReadFile (file) reads or writes files")
    model = loaded(directory, output_names=("served",))
    np.testing.assert_array_equal(model.predict({"x": ROWS})["served"], ROWS + 1)


def test_a_variable_that_a_model_writes_starts_anew_for_each_request(tmp_path: Path) -> None:
    count, total = tf.Variable(3.0), tf.Variable(tf.zeros([4]))

    def serve(x: Any) -> dict[str, Any]:
        count.assign_add(1.0)
        total.assign_add(tf.reduce_sum(x, 0))
        return {"count": x + count, "total": x + total}

    model = loaded(saved(tmp_path, serve, vector(), count=count, total=total))

    # The sum over a batch ties its rows together.
    assert model.one_by_one
    for row, got in zip(ROWS, in_turn(model, ROWS), strict=True):
        np.testing.assert_array_equal(got["count"], row + 4)
        np.testing.assert_array_equal(got["total"], row + row)


def test_random_numbers_from_a_generator_start_anew_and_others_are_known_to_be_random(tmp_path: Path) -> None:
    generator = tf.random.Generator.from_seed(7)
    model = loaded(saved(tmp_path / "a", lambda x: {"y": x + generator.uniform([4])}, vector(), generator=generator))
    first, second = (got["y"] for got in in_turn(model, [ROWS[0], ROWS[0]]))
    np.testing.assert_array_equal(first, second)

    from beam_serving.models.base import ModelOptions
    from beam_serving.models.detect import find_model
    from beam_serving.models.formats.tensorflow import load_saved_model

    directory = saved(tmp_path / "b", lambda x: {"y": x + tf.random.uniform([4])}, vector())
    engine = load_saved_model(find_model(directory), ModelOptions())
    assert engine.facts.random == ("RandomUniform",)
    assert loaded(directory).predict({"x": ROWS[:1]})["y"].shape == (1, 4)


def test_a_table_that_requests_write_into_is_refused(tmp_path: Path) -> None:
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)

    def serve(text: Any) -> dict[str, Any]:
        before = table.lookup(text)
        with tf.control_dependencies([before]), tf.control_dependencies([table.insert(text, tf.ones_like(before))]):
            return {"seen": tf.identity(before)}

    directory = saved(tmp_path, serve, tf.TensorSpec([None], tf.string, name="text"), table=table)
    assert refusal(directory) == (
        f"{directory}: keeps state in the operator LookupTableInsertV2, which cannot be set back between requests; "
        "export it without, or with its state as inputs and outputs"
    )


def test_a_graph_with_variables_is_not_frozen(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        weight = v1.get_variable("weight", [4, 2], use_resource=True)
        tf.matmul(x, weight, name="y")

    said = refusal(frozen(tmp_path / "m", build), output_names=("y",))
    assert said.endswith("holds VarHandleOp 'weight' without its value; freeze the graph, or export a SavedModel")


def test_a_file_of_tensorflow_lite_that_reads_files_is_refused(tmp_path: Path) -> None:
    ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]

    def with_ops(directory: Path, function: Any, spec: Any) -> Path:
        tf_converter_ops = tf.lite.TargetSpec(supported_ops=ops)
        return lite(directory, function, spec, target_spec=tf_converter_ops, allow_custom_ops=True)

    reads = with_ops(tmp_path / "r", lambda s: tf.io.read_file(s[0]), tf.TensorSpec([1], tf.string, name="s"))
    assert "operator FlexReadFile may read or write files or run Python" in refusal(reads)

    draws = with_ops(tmp_path / "d", lambda x: x + tf.random.gamma([4], 1.0), vector())
    from beam_serving.models.formats.tflite_file import describe_file

    described = describe_file((draws / "model.tflite").read_bytes())
    assert described.facts.random == ("RandomGamma",)
    assert described.refused is None
