from pathlib import Path

import numpy as np
import pytest

from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec, engine_threads
from beam_serving.models.batches import predict_batch, warm_up
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load

FLOAT32 = np.dtype(np.float32)

# directory, layout of the input, engine, name of the input, name of the output
FORMATS = [
    ("openvino", "nchw", "openvino", "x", "output"),
    ("tf_frozen", "nhwc", "openvino", "input", "Identity"),
    ("tf_saved_model", "nhwc", "openvino", "input", "output_0"),
    ("tflite", "nhwc", "openvino", "serving_default_input", "StatefulPartitionedCall_1"),
    ("onnx", "nchw", "openvino", "input", "prob"),
    ("onnx", "nchw", "onnxruntime", "input", "prob"),
    ("torchscript", "nchw", "openvino", "x", "output"),
    ("torchscript", "nchw", "torch", "x", "output"),
    ("torchscript_scripted", "nchw", "openvino", "x", "output"),
    ("torchscript_scripted", "nchw", "torch", "x", "output"),
    ("caffe", "nchw", "openvino", "data", "prob"),
    ("caffe", "nchw", "opencv", "data", "prob"),
    ("bigdl", "nchw", "openvino", "input", "output"),
    ("bigdl_split", "nchw", "openvino", "input", "output"),
]
each_format = pytest.mark.parametrize(
    ("name", "layout", "engine", "input_name", "output_name"), FORMATS, ids=[f"{one[0]}-{one[2]}" for one in FORMATS]
)


def loaded(directory: Path, engine: str, threads: int = 1) -> LoadedModel:
    says_no_shape = directory.name in ("torchscript_scripted", "bigdl", "bigdl_split")
    shape = (3, 32, 32) if says_no_shape else None
    return load(find_model(directory, engine), ModelOptions(engine=engine, threads=threads, input_shape=shape))


@each_format
def test_every_format_gives_the_same_probabilities(
    digits: Path,
    golden: dict[str, np.ndarray],
    name: str,
    layout: str,
    engine: str,
    input_name: str,
    output_name: str,
) -> None:
    model = loaded(digits / name, engine)
    inputs = golden[f"input_{layout}"]
    warm_up(model, 8)

    assert model.engine == engine
    assert model.inputs == (TensorSpec(input_name, inputs.shape[1:], FLOAT32),)
    assert model.outputs == (TensorSpec(output_name, (10,), FLOAT32),)
    for batch_size in (1, 3, 8, 16, 1):
        outputs = predict_batch(model, [{input_name: one} for one in inputs[:batch_size]])
        np.testing.assert_allclose(outputs[output_name], golden["prob"][:batch_size], rtol=0, atol=1e-5)


@each_format
def test_the_next_call_does_not_overwrite_what_was_returned(
    digits: Path,
    golden: dict[str, np.ndarray],
    name: str,
    layout: str,
    engine: str,
    input_name: str,
    output_name: str,
) -> None:
    model = loaded(digits / name, engine)
    inputs = golden[f"input_{layout}"]

    first = model.predict({input_name: inputs[:4]})[output_name]
    model.predict({input_name: inputs[4:8]})

    np.testing.assert_allclose(first, golden["prob"][:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "engine"),
    [("openvino", "openvino"), ("torchscript", "torch"), ("caffe", "opencv"), ("onnx", "onnxruntime")],
)
def test_the_number_of_threads_changes_no_result(
    digits: Path, golden: dict[str, np.ndarray], name: str, engine: str, threads: int
) -> None:
    model = loaded(digits / name, engine, threads)

    outputs = predict_batch(model, [{"": one} for one in golden["input_nchw"]])

    np.testing.assert_allclose(outputs[model.outputs[0].name], golden["prob"], rtol=0, atol=1e-5)


def test_omp_num_threads_counts_where_the_options_leave_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert engine_threads(ModelOptions(threads=0)) == 3
    assert engine_threads(ModelOptions(threads=2)) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert engine_threads(ModelOptions(threads=0)) == 0
