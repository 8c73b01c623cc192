"""Layers that OpenCV lacks or computes differently agree with Caffe's own definition, written down in numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from caffe_files import TOLERANCE, encode_caffemodel, input_text, layer_text, random, run_ours, write_model

IMAGE = (2, 6, 9, 11)


def run_layer(directory: Path, kind: str, more: str, data: np.ndarray, *blobs: np.ndarray) -> np.ndarray:
    text = input_text("data", data.shape) + layer_text("out", kind, "data", more=more)
    paths = write_model(directory, text, encode_caffemodel({"out": blobs}))
    return run_ours(paths, {"data": data})["out"]


def caffe_average(data: np.ndarray, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Average pooling as Caffe loops over it."""
    batch, channels, *sizes = data.shape
    counts = []
    for size in sizes:
        count = -(-(size + 2 * pad - kernel) // stride) + 1
        counts.append(count - 1 if pad and (count - 1) * stride >= size + pad else count)
    result = np.zeros((batch, channels, *counts))
    for row, column in np.ndindex(*counts):
        top, left = row * stride - pad, column * stride - pad
        bottom, right = min(top + kernel, sizes[0] + pad), min(left + kernel, sizes[1] + pad)
        window = data[:, :, max(top, 0) : bottom, max(left, 0) : right].astype(np.float64)
        result[:, :, row, column] = window.sum((2, 3)) / ((bottom - top) * (right - left))
    return result


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"),
    [(7, 3, 2, 1), (8, 3, 2, 1), (9, 3, 1, 1), (6, 5, 4, 2), (7, 2, 2, 1), (8, 3, 2, 0), (9, 4, 3, 0), (10, 5, 3, 2)],
)
def test_average_pooling_divides_by_window_and_padding(
    tmp_path: Path, size: int, kernel: int, stride: int, pad: int
) -> None:
    data = random(2, 3, size, size + 1)
    param = f"pooling_param {{ pool: AVE kernel_size: {kernel} stride: {stride} pad: {pad} }}"

    ours = run_layer(tmp_path, "Pooling", param, data)

    np.testing.assert_allclose(ours, caffe_average(data, kernel, stride, pad), rtol=TOLERANCE, atol=TOLERANCE)


def test_pooling_can_round_down_as_in_forks(tmp_path: Path) -> None:
    data = random(1, 2, 8, 8)
    for more in ("ceil_mode: false", "round_mode: FLOOR", "round_mode: 1"):
        ours = run_layer(tmp_path, "Pooling", f"pooling_param {{ kernel_size: 3 stride: 2 {more} }}", data)
        assert ours.shape == (1, 2, 3, 3)


def lrn(data: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    square = np.pad(data.astype(np.float64) ** 2, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
    total = sum(square[:, start : start + data.shape[1]] for start in range(size))
    return data / (k + alpha / size * total) ** beta


def mvn(data: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    centred = data.astype(np.float64) - data.mean(axes, keepdims=True, dtype=np.float64)
    return centred / (np.sqrt((centred**2).mean(axes, keepdims=True)) + eps)


DEFINITIONS: dict[str, tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = {
    # OpenCV has other defaults than caffe.proto where `lrn_param` is absent, and does not read `k`.
    "lrn": ("LRN", "", lambda x: lrn(x, 5, 1.0, 0.75, 1.0)),
    "lrn_k": ("LRN", "lrn_param { local_size: 3 alpha: 2 beta: 0.5 k: 2 }", lambda x: lrn(x, 3, 2.0, 0.5, 2.0)),
    # Caffe adds eps to the standard deviation, OpenCV to the variance.
    "mvn": ("MVN", "", lambda x: mvn(x, (2, 3), 1e-9)),
    "mvn_eps": ("MVN", "mvn_param { eps: 0.5 }", lambda x: mvn(x, (2, 3), 0.5)),
    "mvn_across": ("MVN", "mvn_param { across_channels: true eps: 0.5 }", lambda x: mvn(x, (1, 2, 3), 0.5)),
    "log": ("Log", "log_param { shift: 5 }", lambda x: np.log(5 + x)),
    "log_base": ("Log", "log_param { base: 10 scale: 2 shift: 7 }", lambda x: np.log10(7 + 2 * x)),
    "threshold": ("Threshold", "threshold_param { threshold: 0.25 }", lambda x: (x > 0.25).astype(np.float32)),
    "clip": ("Clip", "clip_param { min: -0.5 max: 0.25 }", lambda x: x.clip(-0.5, 0.25)),
    "swish": ("Swish", "swish_param { beta: 2 }", lambda x: x / (1 + np.exp(-2 * x))),
    "tile": ("Tile", "tile_param { axis: 2 tiles: 3 }", lambda x: np.tile(x, (1, 1, 3, 1))),
    "reduce_sum": ("Reduction", "reduction_param { axis: 1 }", lambda x: x.sum((1, 2, 3), dtype=np.float64)),
    "reduce_asum": (
        "Reduction",
        "reduction_param { operation: ASUM axis: -1 coeff: 0.5 }",
        lambda x: np.abs(x).sum(3) * 0.5,
    ),
    "reduce_sumsq": ("Reduction", "reduction_param { operation: SUMSQ axis: 2 }", lambda x: (x * x).sum((2, 3))),
    "reduce_mean": ("Reduction", "reduction_param { operation: MEAN axis: 2 }", lambda x: x.mean((2, 3))),
    "upsample": ("Upsample", "upsample_param { scale: 2 }", lambda x: x.repeat(2, 2).repeat(2, 3)),
    "arg_max": ("ArgMax", "", lambda x: x.reshape(2, -1).argmax(1).reshape(2, 1, 1, 1)),
    "arg_max_axis": ("ArgMax", "argmax_param { axis: 1 }", lambda x: x.argmax(1)[:, None]),
    "arg_max_axis_value": ("ArgMax", "argmax_param { axis: 1 out_max_val: true }", lambda x: x.max(1, keepdims=True)),
    "arg_max_top": (
        "ArgMax",
        "argmax_param { top_k: 3 out_max_val: true }",
        lambda x: np.stack(
            [np.argsort(-x.reshape(2, -1), 1)[:, :3], -np.sort(-x.reshape(2, -1), 1)[:, :3]], axis=1
        ).reshape(2, 2, 3, 1),
    ),
}


@pytest.mark.parametrize("case", DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_layer_agrees_with_its_definition(
    tmp_path: Path, case: tuple[str, str, Callable[[np.ndarray], np.ndarray]]
) -> None:
    kind, more, definition = case
    data = random(*IMAGE, low=-2.0, high=2.0)

    ours = run_layer(tmp_path, kind, more, data)

    wanted = definition(data)
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_interp_can_shrink(tmp_path: Path) -> None:
    # OpenCV computes an empty output here.
    data = random(*IMAGE)
    ours = run_layer(tmp_path, "Interp", "interp_param { shrink_factor: 2 }", data)
    np.testing.assert_allclose(ours, data[:, :, ::2, ::2], rtol=TOLERANCE, atol=TOLERANCE)


def test_a_bias_is_added_along_its_axis(tmp_path: Path) -> None:
    data, bias = random(*IMAGE), random(9, 11)
    ours = run_layer(tmp_path, "Bias", "bias_param { axis: 2 num_axes: 2 }", data, bias)
    np.testing.assert_allclose(ours, data + bias, rtol=TOLERANCE)


def test_a_scale_without_axes_is_one_number(tmp_path: Path) -> None:
    data = random(*IMAGE)
    ours = run_layer(tmp_path, "Scale", "scale_param { num_axes: 0 }", data, np.array(3.0, np.float32))
    np.testing.assert_allclose(ours, 3 * data, rtol=TOLERANCE)


def test_an_inner_product_can_store_its_weights_transposed(tmp_path: Path) -> None:
    data, weights, bias = random(3, 8), random(8, 5), random(5)
    ours = run_layer(
        tmp_path, "InnerProduct", "inner_product_param { num_output: 5 transpose: true }", data, weights, bias
    )
    np.testing.assert_allclose(ours, data @ weights + bias, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_batch_norm_divides_its_statistics_by_the_scale_factor(tmp_path: Path) -> None:
    data, mean, variance = random(*IMAGE), random(6), random(6, low=0.5, high=3.0)
    for total in (0.5, 999.98, 0.0):
        blobs = mean * np.float32(total), variance * np.float32(total), np.array([total], np.float32)
        ours = run_layer(tmp_path, "BatchNorm", "batch_norm_param { eps: 0.01 }", data, *blobs)
        shape = (1, 6, 1, 1)
        wanted = (data - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 0.01) if total else data / 0.1
        np.testing.assert_allclose(ours, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(6,), (1, 6, 1, 1)])
def test_the_bn_of_forks_has_two_or_four_blobs(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data, spread = random(*IMAGE), (1, 6, 1, 1)
    scale, shift, mean = (random(*shape, seed=seed) for seed in range(3))
    variance = random(*shape, low=0.5, high=3.0)

    two = run_layer(tmp_path, "BN", "", data, scale, shift)
    four = run_layer(tmp_path, "BN", "bn_param { eps: 0.1 }", data, scale, shift, mean, variance)

    wanted = data * scale.reshape(spread) + shift.reshape(spread)
    np.testing.assert_allclose(two, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    normal = (data - mean.reshape(spread)) / np.sqrt(variance.reshape(spread) + 0.1)
    wanted = normal * scale.reshape(spread) + shift.reshape(spread)
    np.testing.assert_allclose(four, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["ConvolutionDepthwise", "DepthwiseConvolution"])
def test_a_depthwise_convolution_needs_no_group(tmp_path: Path, kind: str) -> None:
    data, weights = random(2, 4, 6, 6), random(4, 1, 3, 3)
    ours = run_layer(
        tmp_path, kind, "convolution_param { num_output: 4 kernel_size: 3 bias_term: false }", data, weights
    )
    windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3), (2, 3))
    np.testing.assert_allclose(ours, (windows * weights[:, 0, None, None]).sum((4, 5)), rtol=TOLERANCE, atol=TOLERANCE)


def test_of_equal_values_arg_max_takes_the_last_one_first(tmp_path: Path) -> None:
    data = np.array([[0, 2, 1, 2, 2], [3, 0, 0, 3, 1]], np.float32)
    ours = run_layer(tmp_path, "ArgMax", "argmax_param { top_k: 2 }", data)
    np.testing.assert_array_equal(ours.reshape(2, 2), [[4, 3], [3, 0]])


def test_a_convolution_can_have_three_spatial_axes(tmp_path: Path) -> None:
    data, weights = random(2, 2, 5, 6, 7), random(3, 2, 2, 3, 3)
    param = "num_output: 3 kernel_size: [2, 3, 3] stride: [1, 2, 1] bias_term: false"
    ours = run_layer(tmp_path, "Convolution", f"convolution_param {{ {param} }}", data, weights)
    windows = np.lib.stride_tricks.sliding_window_view(data, (2, 3, 3), (2, 3, 4))[:, :, :, ::2]
    wanted = np.einsum("nidhwabc,oiabc->nodhw", windows, weights)
    np.testing.assert_allclose(ours, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_concat_along_the_old_concat_dim(tmp_path: Path) -> None:
    # OpenCV does not read `concat_dim`.
    text = input_text("a", (2, 3, 4, 4)) + layer_text("out", "Concat", "a a", more="concat_param { concat_dim: 3 }")
    data = random(2, 3, 4, 4)
    ours = run_ours(write_model(tmp_path, text, encode_caffemodel({"out": []})), {"a": data})
    np.testing.assert_array_equal(ours["out"], np.concatenate([data, data], 3))


def test_axpy_scales_channels_and_adds(tmp_path: Path) -> None:
    factor, x, y = random(2, 3, 1, 1), random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    text = input_text("a", factor.shape) + input_text("x", x.shape) + input_text("y", y.shape)
    paths = write_model(tmp_path, text + layer_text("out", "Axpy", "a x y"), encode_caffemodel({"out": []}))
    ours = run_ours(paths, {"a": factor, "x": x, "y": y})["out"]
    np.testing.assert_allclose(ours, factor * x + y, rtol=TOLERANCE, atol=TOLERANCE)


def test_one_number_per_example_can_scale_a_blob(tmp_path: Path) -> None:
    factor, data = random(2, 3), random(2, 3, 4, 4)
    text = input_text("x", data.shape) + input_text("f", factor.shape)
    text += layer_text("out", "Scale", "x f", more="scale_param { axis: 0 }")
    paths = write_model(tmp_path, text, encode_caffemodel({"out": []}))
    ours = run_ours(paths, {"x": data, "f": factor})["out"]
    np.testing.assert_allclose(ours, data * factor[:, :, None, None], rtol=TOLERANCE)
