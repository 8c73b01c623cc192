"""The two files in all the forms that Caffe has written, and the model that is made of them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from caffe_files import (
    encode_blob,
    encode_caffemodel,
    field,
    input_text,
    layer_text,
    random,
    run_opencv,
    run_ours,
    write_model,
)

from beam_serving.models.formats.caffe import read_caffe

FC = layer_text("fc", "InnerProduct", "data", more="inner_product_param { num_output: 3 }")
FC_NET = input_text("data", (1, 4)) + FC
WEIGHTS = {"fc": [random(3, 4), random(3)]}
DATA = random(5, 4)
WANTED = DATA @ WEIGHTS["fc"][0].T + WEIGHTS["fc"][1]


@pytest.mark.parametrize("form", ["packed", "unpacked", "double", "raw", "legacy", "half"])
@pytest.mark.parametrize("old", [False, True])
def test_weights_are_read_in_every_form(tmp_path: Path, form: str, old: bool) -> None:
    paths = write_model(tmp_path, FC_NET, encode_caffemodel(WEIGHTS, form, old))
    ours = run_ours(paths, {"data": DATA})["fc"]
    np.testing.assert_allclose(ours, WANTED, atol=1e-3 if form == "half" else 1e-6)


def test_a_blob_in_several_pieces_is_joined(tmp_path: Path) -> None:
    weights, bias = WEIGHTS["fc"]
    pieces = field(7, field(1, bytes([3, 4]))) + field(5, weights[:1].tobytes()) + field(5, weights[1:].tobytes())
    layer = field(100, field(1, b"fc") + field(7, pieces) + field(7, encode_blob(bias)))
    ours = run_ours(write_model(tmp_path, FC_NET, layer), {"data": DATA})["fc"]
    np.testing.assert_allclose(ours, WANTED, atol=1e-6)


def test_inputs_and_outputs_are_named_as_the_blobs_and_the_batch_is_free(tmp_path: Path) -> None:
    text = input_text("left", (2, 3, 4, 4)) + input_text("right", (2, 3, 4, 4))
    text += layer_text("sum", "Eltwise", "left right") + layer_text("cut", "Slice", "sum", "a b c")
    text += layer_text("up", "Power", "a", "a", "power_param { scale: 2 }")
    model = read_caffe(*write_model(tmp_path, text, encode_caffemodel({"sum": []})))
    assert [(port.get_names(), str(port.partial_shape)) for port in model.inputs] == [
        ({"left"}, "[?,3,4,4]"),
        ({"right"}, "[?,3,4,4]"),
    ]
    assert [(port.get_names(), str(port.partial_shape)) for port in model.outputs] == [
        ({"b"}, "[?,1,4,4]"),
        ({"c"}, "[?,1,4,4]"),
        ({"a"}, "[?,1,4,4]"),
    ]


def test_two_outputs_may_be_the_same_blob(tmp_path: Path) -> None:
    text = input_text("data", (1, 4)) + layer_text("split", "Split", "data", "a b")
    ours = run_ours(write_model(tmp_path, text, encode_caffemodel({"split": []})), {"data": DATA})
    assert sorted(ours) == ["a", "b"]
    np.testing.assert_array_equal(ours["a"], DATA)
    np.testing.assert_array_equal(ours["b"], DATA)


@pytest.mark.parametrize(
    "head",
    [
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 6 input_dim: 6\n',
        'input: "data" input_shape { dim: 1 dim: 3 dim: 6 dim: 6 }\n',
        input_text("data", (1, 3, 6, 6)),
        'layer { name: "data" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 1 channels: 3 height: 6 width: 6 } }\n",
    ],
)
def test_inputs_are_read_in_every_form(tmp_path: Path, head: str) -> None:
    model = read_caffe(*write_model(tmp_path, head + layer_text("out", "ReLU", "data"), encode_caffemodel({"x": []})))
    assert [(port.any_name, str(port.partial_shape)) for port in model.inputs] == [("data", "[?,3,6,6]")]


def test_a_net_of_2014_agrees_with_opencv(tmp_path: Path) -> None:
    text = """
    name: "old"
    input: "data" input_dim: 1 input_dim: 3 input_dim: 12 input_dim: 12
    layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
             convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" std: 0.1 } } }
    layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
    layers { name: "norm" type: LRN bottom: "conv" top: "norm"
             lrn_param { local_size: 3 alpha: 0.1 beta: 0.75 norm_region: ACROSS_CHANNELS } }
    layers { name: "pool" type: POOLING bottom: "norm" top: "pool"
             pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
    layers { name: "fc" type: INNER_PRODUCT bottom: "pool" top: "fc" inner_product_param { num_output: 5 } }
    layers { name: "drop" type: DROPOUT bottom: "fc" top: "fc" dropout_param { dropout_ratio: 0.5 } }
    layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
    """
    weights = {"conv": [random(4, 3, 3, 3), random(4)], "fc": [random(5, 4 * 5 * 5) * np.float32(0.1), random(5)]}
    paths = write_model(tmp_path, text, encode_caffemodel(weights, "legacy", old=True))
    data = random(2, 3, 12, 12)
    ours, theirs = run_ours(paths, {"data": data})["prob"], run_opencv(paths, {"data": data})["prob"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_layers_for_training_are_left_out(tmp_path: Path) -> None:
    text = (
        """
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
    layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 } } include { phase: TEST } }
    layer { name: "labels" type: "Data" top: "label" }
    layer { name: "noise" type: "Unknown" bottom: "data" top: "data" exclude { phase: TEST } }
    layer { name: "stage" type: "Unknown" bottom: "data" top: "data" include { phase: TEST stage: "fast" } }
    """
        + FC
    )
    text += layer_text("loss", "SoftmaxWithLoss", "fc label") + layer_text("accuracy", "Accuracy", "fc label")
    ours = run_ours(write_model(tmp_path, text, encode_caffemodel(WEIGHTS)), {"data": DATA})
    assert list(ours) == ["fc"]
    np.testing.assert_allclose(ours["fc"], WANTED, atol=1e-6)


def test_a_silenced_blob_is_no_output(tmp_path: Path) -> None:
    text = FC_NET + layer_text("extra", "ReLU", "data") + 'layer { name: "quiet" type: "Silence" bottom: "extra" }'
    assert list(run_ours(write_model(tmp_path, text, encode_caffemodel(WEIGHTS)), {"data": DATA})) == ["fc"]


def test_a_reshape_to_the_declared_batch_follows_the_batch(tmp_path: Path) -> None:
    text = input_text("data", (2, 6, 4)) + layer_text(
        "out", "Reshape", "data", more="reshape_param { shape { dim: 2 dim: 3 dim: 8 } }"
    )
    ours = run_ours(write_model(tmp_path, text, encode_caffemodel({"x": []})), {"data": random(5, 6, 4)})
    assert ours["out"].shape == (5, 3, 8)


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    """Reading 64 MB of weights takes next to no memory."""
    text = input_text("data", (1, 4096)) + FC.replace("num_output: 3", "num_output: 4096")
    paths = write_model(tmp_path, text, encode_caffemodel({"fc": [random(4096, 4096), random(4096)]}))
    tracemalloc.start()
    model = read_caffe(*paths)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    paths[1].unlink()
    assert model.get_ordered_ops()
