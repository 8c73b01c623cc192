"""Every layer kind that OpenCV can run agrees with it."""

from pathlib import Path

import numpy as np
import pytest
from caffe_files import (
    TOLERANCE,
    encode_caffemodel,
    input_text,
    layer_text,
    random,
    run_opencv,
    run_ours,
    write_model,
)

IMAGE = (2, 6, 9, 11)


def conv(more: str, *blobs: tuple[int, ...], kind: str = "Convolution", shape: tuple[int, ...] = IMAGE) -> tuple:
    return kind, f"convolution_param {{ {more} }}", shape, blobs


def plain(kind: str, more: str = "", shape: tuple[int, ...] = IMAGE, *blobs: tuple[int, ...]) -> tuple:
    return kind, more, shape, blobs


def pool(more: str, shape: tuple[int, ...] = IMAGE) -> tuple:
    return "Pooling", f"pooling_param {{ {more} }}", shape, ()


ONE_BOTTOM = {
    "conv": conv("num_output: 4 kernel_size: 3", (4, 6, 3, 3), (4,)),
    "conv_no_bias": conv("num_output: 4 kernel_size: 3 bias_term: false", (4, 6, 3, 3)),
    "conv_stride_pad": conv("num_output: 4 kernel_size: 3 stride: 2 pad: 1", (4, 6, 3, 3), (4,)),
    "conv_h_w": conv(
        "num_output: 4 kernel_h: 1 kernel_w: 5 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2", (4, 6, 1, 5), (4,)
    ),
    "conv_repeated": conv(
        "num_output: 4 kernel_size: 3 kernel_size: 2 pad: 1 pad: 0 stride: [2, 1]", (4, 6, 3, 2), (4,)
    ),
    "conv_dilated": conv("num_output: 4 kernel_size: 3 dilation: 2 pad: 2", (4, 6, 3, 3), (4,)),
    "conv_groups": conv("num_output: 4 kernel_size: 3 group: 2", (4, 3, 3, 3), (4,)),
    "conv_depthwise": conv("num_output: 6 kernel_size: 3 group: 6 pad: 1", (6, 1, 3, 3), (6,)),
    "conv_1x1": conv("num_output: 8 kernel_size: 1", (8, 6, 1, 1), (8,)),
    "deconv": conv("num_output: 4 kernel_size: 3", (6, 4, 3, 3), (4,), kind="Deconvolution"),
    "deconv_stride": conv(
        "num_output: 4 kernel_size: 4 stride: 2 pad: 1 bias_term: false", (6, 4, 4, 4), kind="Deconvolution"
    ),
    "deconv_groups": conv(
        "num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 6", (6, 1, 4, 4), (6,), kind="Deconvolution"
    ),
    "deconv_two_groups": conv(
        "num_output: 4 kernel_size: 3 stride: 2 group: 2", (6, 2, 3, 3), (4,), kind="Deconvolution"
    ),
    "pool_max": pool("kernel_size: 3 stride: 2"),
    "pool_max_even": pool("kernel_size: 2 stride: 2"),
    "pool_max_pad": pool("kernel_size: 3 stride: 2 pad: 1"),
    "pool_max_clip": pool("kernel_size: 2 stride: 2 pad: 1", (2, 3, 7, 7)),
    "pool_max_h_w": pool("kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3"),
    "pool_max_global": pool("pool: MAX global_pooling: true"),
    "pool_max_overlap": pool("kernel_size: 3 stride: 1 pad: 1"),
    "pool_ave": pool("pool: AVE kernel_size: 3 stride: 2"),
    "pool_ave_no_remainder": pool("pool: AVE kernel_size: 3 stride: 1"),
    "pool_ave_pad": pool("pool: AVE kernel_size: 3 stride: 2 pad: 1", (2, 3, 8, 9)),
    "pool_ave_number": pool("pool: 1 kernel_size: 4 stride: 3"),
    "pool_ave_global": pool("pool: AVE global_pooling: true"),
    "inner_product": plain("InnerProduct", "inner_product_param { num_output: 5 }", IMAGE, (5, 594), (5,)),
    "inner_product_no_bias": plain(
        "InnerProduct", "inner_product_param { num_output: 5 bias_term: false }", IMAGE, (5, 594)
    ),
    "inner_product_axis_2": plain(
        "InnerProduct", "inner_product_param { num_output: 5 axis: 2 }", (2, 6, 9), (5, 9), (5,)
    ),
    "relu": plain("ReLU"),
    "relu_slope": plain("ReLU", "relu_param { negative_slope: 0.1 }"),
    "relu6": plain("ReLU6"),
    "prelu": plain("PReLU", "", IMAGE, (6,)),
    "prelu_shared": plain("PReLU", "prelu_param { channel_shared: true }", IMAGE, (1,)),
    "elu": plain("ELU"),
    "elu_alpha": plain("ELU", "elu_param { alpha: 0.5 }"),
    "sigmoid": plain("Sigmoid"),
    "tanh": plain("TanH"),
    "abs": plain("AbsVal"),
    "bnll": plain("BNLL"),
    "power": plain("Power", "power_param { power: 2 scale: 0.5 shift: 0.1 }"),
    "power_affine": plain("Power", "power_param { scale: -2 shift: 3 }"),
    "exp": plain("Exp"),
    "exp_base": plain("Exp", "exp_param { base: 2 scale: 0.5 shift: 0.25 }"),
    "scale": plain("Scale", "", IMAGE, (6,)),
    "scale_bias": plain("Scale", "scale_param { bias_term: true }", IMAGE, (6,), (6,)),
    "scale_axes": plain("Scale", "scale_param { axis: 1 num_axes: 2 bias_term: true }", IMAGE, (6, 9), (6, 9)),
    "scale_all_axes": plain("Scale", "scale_param { axis: 1 num_axes: -1 }", IMAGE, (6, 9, 11)),
    "lrn_alexnet": plain("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"),
    "lrn_within": plain("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 2 beta: 0.5 }"),
    "softmax": plain("Softmax"),
    "softmax_vector": plain("Softmax", "", (2, 10)),
    "softmax_axis": plain("Softmax", "softmax_param { axis: 2 }"),
    "softmax_last_axis": plain("Softmax", "softmax_param { axis: -1 }"),
    "flatten": plain("Flatten"),
    "flatten_axis": plain("Flatten", "flatten_param { axis: 2 }"),
    "flatten_end": plain("Flatten", "flatten_param { axis: 1 end_axis: 2 }"),
    "reshape": plain("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 33 } }"),
    "reshape_copies": plain("Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: 99 } }"),
    "reshape_axis": plain("Reshape", "reshape_param { axis: 1 shape { dim: -1 } }"),
    "reshape_num_axes": plain("Reshape", "reshape_param { axis: 1 num_axes: 1 shape { dim: 2 dim: 3 } }"),
    "permute": plain("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "normalize_channels": plain("Normalize", "norm_param { across_spatial: false channel_shared: false }", IMAGE, (6,)),
    "normalize_all": plain("Normalize", "norm_param { channel_shared: true }", IMAGE, (1,)),
    "mvn_mean": plain("MVN", "mvn_param { normalize_variance: false }"),
    "dropout": plain("Dropout", "dropout_param { dropout_ratio: 0.4 }"),
    "shuffle": plain("ShuffleChannel", "shuffle_channel_param { group: 3 }"),
    "interp_zoom": plain("Interp", "interp_param { zoom_factor: 2 }"),
    "interp_size": plain("Interp", "interp_param { height: 20 width: 5 }"),
    "reorg": plain("Reorg", "reorg_param { stride: 2 }", (2, 4, 6, 8)),
}


@pytest.mark.parametrize("case", ONE_BOTTOM.values(), ids=ONE_BOTTOM)
def test_a_layer_agrees_with_opencv(tmp_path: Path, case: tuple) -> None:
    kind, more, shape, blobs = case
    weights = [random(*blob, seed=index, high=0.9) for index, blob in enumerate(blobs)]
    text = input_text("data", shape) + layer_text("out", kind, "data", more=more)
    paths = write_model(tmp_path, text, encode_caffemodel({"out": weights}))
    data = random(*shape, low=-2.0, high=2.0)

    ours, theirs = run_ours(paths, {"data": data})["out"], run_opencv(paths, {"data": data})["out"]

    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


SEVERAL = {
    "eltwise_sum": ("Eltwise", "a b", "out", ""),
    "eltwise_coeff": ("Eltwise", "a b c", "out", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 coeff: 2 }"),
    "eltwise_prod": ("Eltwise", "a b c", "out", "eltwise_param { operation: PROD }"),
    "eltwise_max": ("Eltwise", "a b", "out", "eltwise_param { operation: MAX }"),
    "concat": ("Concat", "a b c", "out", ""),
    "concat_axis": ("Concat", "a b", "out", "concat_param { axis: 2 }"),
    "slice": ("Slice", "a", "x y", ""),
    "slice_points": ("Slice", "a", "x y z", "slice_param { axis: 1 slice_point: 1 slice_point: 3 }"),
    "slice_axis": ("Slice", "a", "x y", "slice_param { axis: 3 slice_point: 2 }"),
    "scale_two": ("Scale", "a b", "out", "scale_param { axis: 0 }"),
    "crop": ("Crop", "big a", "out", "crop_param { axis: 2 offset: 1 offset: 3 }"),
    "crop_one_offset": ("Crop", "big a", "out", "crop_param { offset: 2 }"),
    "split": ("Split", "a", "x y", ""),
}


@pytest.mark.parametrize("case", SEVERAL.values(), ids=SEVERAL)
def test_a_layer_of_several_blobs_agrees_with_opencv(tmp_path: Path, case: tuple[str, str, str, str]) -> None:
    kind, bottoms, tops, more = case
    shapes = {name: (2, 6, 9, 12) if name == "big" else (2, 6, 5, 7) for name in bottoms.split()}
    text = "".join(input_text(name, shape) for name, shape in shapes.items())
    text += layer_text("layer", kind, bottoms, tops, more)
    text += "".join(layer_text(f"end_{top}", "Power", top, "", "power_param { scale: 2 }") for top in tops.split())
    paths = write_model(tmp_path, text, encode_caffemodel({"layer": []}))
    inputs = {name: random(*shape, seed=index) for index, (name, shape) in enumerate(shapes.items())}

    ours, theirs = run_ours(paths, inputs), run_opencv(paths, inputs)

    assert list(ours) == [f"end_{top}" for top in tops.split()]
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=TOLERANCE, atol=TOLERANCE)
