"""TensorFlow Lite in its own interpreter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_serving.errors import ModelError
from beam_serving.models.base import STRING, ModelOptions, TensorSpec
from beam_serving.models.detect import find_model
from tests.models.tensorflow_models import in_turn, lite, loaded, refusal, tensorflow

FLOAT32 = np.dtype(np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
tf: Any = None


@pytest.fixture(scope="module", autouse=True)
def _tensorflow() -> None:
    globals()["tf"] = tensorflow()


def vector(rows: int | None = 1) -> Any:
    return tf.TensorSpec([rows, 4], tf.float32, name="x")


def converted(directory: Path, module: Any, *names: str, **settings: Any) -> Path:
    """Convert functions of a module, each a signature of its own."""
    functions = {name: getattr(module, name).get_concrete_function() for name in names}
    tf.saved_model.save(module, str(directory / "saved"), signatures=functions)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(directory / "saved"), signature_keys=list(names))
    for name, value in settings.items():
        setattr(converter, name, value)
    (directory / "lite").mkdir()
    (directory / "lite" / "model.tflite").write_bytes(converter.convert())
    return directory / "lite"


def test_a_fixed_batch_of_one_is_freed_where_its_rows_do_not_depend_on_each_other(tmp_path: Path) -> None:
    model = loaded(lite(tmp_path / "a", lambda x: {"y": tf.nn.softmax(x), "sum": tf.reduce_sum(x, 1)}, vector()))

    assert not model.one_by_one
    together = model.predict({model.inputs[0].name: ROWS})
    for row, alone in enumerate(in_turn(model, ROWS)):
        for name, rows in together.items():
            np.testing.assert_allclose(rows[row], alone[name], rtol=1e-6)

    mixed = loaded(lite(tmp_path / "b", lambda x: x - tf.reduce_mean(x), vector()))
    assert mixed.one_by_one
    (got,) = in_turn(mixed, ROWS[:1])[0].values()
    np.testing.assert_allclose(got, ROWS[0] - ROWS[0].mean())


def test_variables_start_anew_for_each_request(tmp_path: Path) -> None:
    class Counter(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
        def serving_default(self, x: Any) -> dict[str, Any]:
            self.count.assign_add(1.0)
            return {"y": x * self.count}

    directory = converted(tmp_path, Counter(), "serving_default", experimental_enable_resource_variables=True)
    from beam_serving.models.engines.tflite import load_tflite

    assert load_tflite(find_model(directory), ModelOptions()).facts.state == ("ASSIGN_VARIABLE",)
    model = loaded(directory)
    for row, got in zip(ROWS, in_turn(model, ROWS), strict=True):
        np.testing.assert_array_equal(next(iter(got.values())), row * 2)


def filter_with_memory() -> bytes:
    """Give a file of one SVDF, which remembers its last inputs in a tensor of its own: here it sums up four of them."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    def tensor(name: str, shape: list[int], buffer: int = 0, variable: bool = False) -> Any:
        one = schema.TensorT()
        one.name, one.shape, one.buffer, one.isVariable, one.hasRank = name, shape, buffer, variable, True
        return one

    def buffer(values: np.ndarray) -> Any:
        one = schema.BufferT()
        one.data = np.frombuffer(values.astype("<f4").tobytes(), np.uint8)
        return one

    code, operator, options = schema.OperatorCodeT(), schema.OperatorT(), schema.SVDFOptionsT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SVDF
    options.rank = 1
    operator.inputs, operator.outputs = [0, 1, 2, -1, 3], [4]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.SVDFOptions, options
    graph = schema.SubGraphT()
    graph.tensors = [tensor("x", [1, 2]), tensor("feature", [1, 2], 1), tensor("time", [1, 4], 2)]
    graph.tensors += [tensor("memory", [1, 4], 0, True), tensor("y", [1, 1])]
    graph.inputs, graph.outputs, graph.operators = [0], [4], [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT(), buffer(np.ones(2)), buffer(np.ones(4))]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_what_an_operator_remembers_is_forgotten_before_each_request(tmp_path: Path) -> None:
    from beam_serving.models.engines.tflite import load_tflite

    (tmp_path / "model.tflite").write_bytes(filter_with_memory())
    assert load_tflite(find_model(tmp_path), ModelOptions()).facts.state == ("SVDF",)
    model = loaded(tmp_path)
    for _ in range(2):
        assert [got["y"].tolist() for got in in_turn(model, ROWS[:, :2])] == [[1], [9], [17]]


def test_of_several_signatures_the_default_one_is_served(tmp_path: Path) -> None:
    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def another(self, x: Any) -> dict[str, Any]:
            return {"y": x - 1.0}

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def serving_default(self, x: Any) -> dict[str, Any]:
            return {"y": x * 2.0}

    model = loaded(converted(tmp_path, Two(), "another", "serving_default"))
    assert model.inputs == (TensorSpec("serving_default_x", (4,), FLOAT32),)
    (rows,) = model.predict({"serving_default_x": ROWS}).values()
    np.testing.assert_array_equal(rows, ROWS * 2)


def test_sizes_are_given_by_the_operator(tmp_path: Path) -> None:
    directory = lite(tmp_path / "m", lambda x: x * 2.0, tf.TensorSpec([1, 8, 8, 3], tf.float32, name="x"))
    model = loaded(directory, input_shape=(4, 6, 3))
    assert model.inputs[0].shape == model.outputs[0].shape == (4, 6, 3)
    image = np.ones((2, 4, 6, 3), np.float32)
    (rows,) = model.predict({model.inputs[0].name: image}).values()
    np.testing.assert_array_equal(rows, image * 2)

    dense = lite(tmp_path / "d", lambda x: tf.matmul(x, tf.ones([4, 2])), vector())
    said = refusal(dense, input_shape=(5,))
    assert said.startswith(f"{dense / 'model.tflite'}: its operators do not take float32[1, 5]: ")


def test_text_goes_in_and_out(tmp_path: Path) -> None:
    directory = lite(tmp_path / "m", lambda s: tf.reshape(s, [-1, 1]), tf.TensorSpec([None], tf.string, name="s"))
    model = loaded(directory)
    assert model.inputs[0].dtype == STRING
    (rows,) = model.predict({model.inputs[0].name: np.array(["é", b"\xff", ""], STRING)}).values()
    assert rows.tolist() == [["é"], [b"\xff"], [""]]


def test_integers_of_64_bits_are_exact_and_a_failure_has_its_reason(tmp_path: Path) -> None:
    directory = lite(
        tmp_path / "m",
        lambda x, i: tf.gather(x, i),
        tf.TensorSpec([8], tf.int64, name="x"),
        tf.TensorSpec([2], tf.int64, name="i"),
    )
    model = loaded(directory, batch_axis="none")
    names = {spec.shape: spec.name for spec in model.inputs}
    values = np.arange(8, dtype=np.int64) + 2**53
    places = np.array([7, 1], np.int64)
    (rows,) = model.predict({names[(8,)]: values[np.newaxis], names[(2,)]: places[np.newaxis]}).values()
    assert rows.tolist() == [[2**53 + 7, 2**53 + 1]]
    with pytest.raises(ModelError, match=r"^the model failed on int64\[8\], int64\[2\]: .*gather index out of bounds"):
        model.predict({names[(8,)]: values[np.newaxis], names[(2,)]: places[np.newaxis] * 9})


def test_an_operator_that_the_interpreter_has_not_is_named(tmp_path: Path) -> None:
    directory = lite(tmp_path / "m", lambda x: x + tf.random.gamma([4], 1.0), vector(), allow_custom_ops=True)
    file = directory / "model.tflite"
    whole = file.read_bytes()
    assert b"RandomGamma" in whole
    file.write_bytes(whole.replace(b"RandomGamma", b"UnheardOf__"))
    said = refusal(directory)
    assert said.endswith("unresolved custom op: UnheardOf__; it is not one of TensorFlow's own")
