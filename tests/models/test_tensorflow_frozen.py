"""Frozen graphs in TensorFlow: shapes that the file does not say, placeholders with defaults, several outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_serving.errors import ModelError
from beam_serving.models.base import STRING, TensorSpec
from beam_serving.models.batches import predict_batch
from tests.models.tensorflow_models import frozen, loaded, refusal, tensorflow

FLOAT32 = np.dtype(np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
tf: Any = None


@pytest.fixture(scope="module", autouse=True)
def _tensorflow() -> None:
    globals()["tf"] = tensorflow()


def dense(v1: Any) -> None:
    """A layer whose placeholder says no shape."""
    x = v1.placeholder(tf.float32, name="x")
    v1.nn.bias_add(tf.raw_ops.MatMul(a=x, b=tf.eye(4) * 2.0), tf.ones([4]), name="y")


@pytest.mark.parametrize("shape", [None, (4,), {"x": (4,)}])
def test_a_placeholder_without_a_shape_is_served(tmp_path: Path, shape: Any) -> None:
    model = loaded(frozen(tmp_path / "m", dense), input_shape=shape)

    # The rank is what the operators behind it take.
    assert model.inputs == (TensorSpec("x", (4,) if shape else (None,), FLOAT32),)
    np.testing.assert_array_equal(model.predict({"x": ROWS})["y"], ROWS * 2 + 1)
    with pytest.raises(ModelError, match=r"^input 'x' is float32\[2, 2\], the model takes float32"):
        model.predict({"x": ROWS.reshape(3, 2, 2)})


def test_a_placeholder_of_any_rank_stays_one(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        tf.strings.to_number(v1.placeholder(tf.string, name="text"), name="number")

    model = loaded(frozen(tmp_path / "m", build))

    assert model.inputs == (TensorSpec("text", None, STRING),)
    rows = predict_batch(model, [{"text": np.array([one, "7"], STRING)} for one in ("1.5", "-2")])
    assert rows["number"].tolist() == [[1.5, 7], [-2, 7]]


def test_an_old_graph_says_no_shape_where_a_new_one_says_a_single_value(tmp_path: Path) -> None:
    directory = frozen(tmp_path / "m", dense)
    graph = tf.compat.v1.GraphDef.FromString((directory / "graph.pb").read_bytes())
    graph.versions.producer = 21
    next(node for node in graph.node if node.name == "x").attr["shape"].shape.CopyFrom(tf.TensorShape([]).as_proto())
    (directory / "graph.pb").write_bytes(graph.SerializeToString())

    np.testing.assert_array_equal(loaded(directory).predict({"x": ROWS})["y"], ROWS * 2 + 1)


def test_the_operator_gives_a_frozen_graph_another_shape(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        tf.identity(v1.placeholder(tf.float32, [1, 8, 8, 3], name="x") * 2.0, name="y")

    directory = frozen(tmp_path / "m", build)
    image = np.ones((2, 4, 6, 3), np.float32)
    model = loaded(directory, input_shape=(4, 6, 3))

    assert model.inputs[0].shape == (4, 6, 3)
    np.testing.assert_array_equal(model.predict({"x": image})["y"], image * 2)
    # The batch of 1 in the file is freed: its rows do not depend on each other.
    assert not loaded(directory).one_by_one


def test_a_shape_that_the_operators_do_not_take_is_refused_with_their_reason(tmp_path: Path) -> None:
    directory = frozen(tmp_path / "m", dense)
    said = refusal(directory, input_shape=(5,))
    assert said.startswith(f"{directory / 'graph.pb'}: its operators do not take float32[?, 5]: ")
    assert "Dimensions must be equal" in said
    assert said.endswith("; change data: shape")


def test_a_default_is_used_unless_the_operator_sets_another_value(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        keep = v1.placeholder_with_default(tf.constant(3.0), [], name="keep")
        tf.multiply(x, keep, name="y")

    directory = frozen(tmp_path / "m", build)

    assert [spec.name for spec in loaded(directory).inputs] == ["x"]
    np.testing.assert_array_equal(loaded(directory).predict({"x": ROWS})["y"], ROWS * 3)
    np.testing.assert_array_equal(loaded(directory, constants={"keep": 2}).predict({"x": ROWS})["y"], ROWS * 2)


def test_a_single_value_is_an_input_too(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        x = v1.placeholder(tf.float32, [1, 4], name="x")
        training = v1.placeholder(tf.bool, [], name="is_training")
        tf.where(training, x * 0.0, x, name="y")

    directory = frozen(tmp_path / "m", build)

    model = loaded(directory, constants={"is_training": False})
    np.testing.assert_array_equal(model.predict({"x": ROWS[1:2]})["y"], ROWS[1:2])
    asked = loaded(directory).predict({"x": ROWS[:1], "is_training": np.array([True])})
    np.testing.assert_array_equal(asked["y"], ROWS[:1] * 0)


def test_all_tensors_of_a_node_are_outputs_and_inner_ones_can_be_asked_for(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        tf.math.top_k(tf.add(x, 1.0, name="inner"), 2, name="best")
        tf.identity(tf.constant([1.5, 2.5]), name="constant")

    directory = frozen(tmp_path / "m", build)

    model = loaded(directory)
    assert [spec.name for spec in model.outputs] == ["best:0", "best:1", "constant"]
    given = model.predict({"x": ROWS[:1]})
    assert given["best:0"].tolist() == [[4, 3]]
    assert given["best:1"].tolist() == [[3, 2]]
    chosen = loaded(directory, output_names=("inner", "best:1"))
    assert [spec.name for spec in chosen.outputs] == ["inner", "best:1"]
    np.testing.assert_array_equal(chosen.predict({"x": ROWS})["inner"], ROWS + 1)


@pytest.mark.parametrize(
    ("name", "value", "served"),
    [
        ("bfloat16", [0.5, -2.0], "float32"),
        ("float16", [0.5, -2.0], "float16"),
        ("float64", [1e300, -1 / 3], "float64"),
        ("int64", [2**62 + 1, -(2**33)], "int64"),
        ("uint64", [2**64 - 1, 0], "uint64"),
        ("int4", [7, -8], "int8"),
        ("quint8", [200, 0], "uint8"),
        ("qint32", [2**31 - 1, -5], "int32"),
        ("bool", [True, False], "bool"),
        ("float8_e4m3fn", [0.5, -2.0], "float32"),
    ],
)
def test_each_type_goes_in_and_out_exactly(tmp_path: Path, name: str, value: list[float], served: str) -> None:
    dtype = tf.dtypes.as_dtype(name)
    directory = frozen(tmp_path / "m", lambda v1: tf.identity(v1.placeholder(dtype, [None, 2], name="x"), name="y"))
    model = loaded(directory)
    wanted = np.array([value], served)

    assert model.inputs[0].dtype == model.outputs[0].dtype == np.dtype(served)
    got = model.predict({"x": wanted})["y"]
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def test_numbers_that_four_bits_do_not_hold_are_refused(tmp_path: Path) -> None:
    int4 = tf.dtypes.as_dtype("int4")
    directory = frozen(tmp_path / "m", lambda v1: tf.identity(v1.placeholder(int4, [None, 2], name="x"), name="y"))
    with pytest.raises(ModelError, match=r"^input 'x' has 8, its engine takes -8 to 7"):
        loaded(directory).predict({"x": np.array([[8, 0]], np.int8)})


def test_complex_numbers_are_refused_unless_they_are_not_served(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        spectrum = tf.signal.fft(tf.cast(v1.placeholder(tf.float32, [None, 4], name="x"), tf.complex64), name="fft")
        tf.abs(spectrum, name="strength")
        tf.identity(spectrum, name="spectrum")

    directory = frozen(tmp_path / "m", build)
    assert refusal(directory) == (
        f"{directory / 'graph.pb'}: output 'spectrum' is complex64, which cannot be sent; "
        "name other outputs in model: outputs, or export it with real and imaginary part apart"
    )
    rows = loaded(directory, output_names=("strength",)).predict({"x": ROWS})["strength"]
    np.testing.assert_allclose(rows, np.abs(np.fft.fft(ROWS)), rtol=1e-5)


def test_bytes_that_are_no_text_stay_bytes(tmp_path: Path) -> None:
    directory = frozen(tmp_path / "m", lambda v1: tf.identity(v1.placeholder(tf.string, [None], name="x"), name="y"))
    given = loaded(directory).predict({"x": np.array(["é", b"\xff\x00", "", "a\x00b"], STRING)})["y"]
    assert given.tolist() == ["é", b"\xff\x00", "", "a\x00b"]
