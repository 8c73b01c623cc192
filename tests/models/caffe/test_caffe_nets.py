"""Whole nets in the manner of the published ones agree with OpenCV, at any batch size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from caffe_files import TOLERANCE, NetWriter, compiled, random, run_opencv, run_ours

from beam_serving.models.formats.caffe import read_caffe

FIXTURES = Path(__file__).parent / "fixtures"


def alexnet() -> NetWriter:
    net = NetWriter((1, 3, 67, 67))
    net.relu(net.conv("conv1", "data", 12, 11, "stride: 4"))
    net.add("norm1", "LRN", "conv1", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
    net.add("pool1", "Pooling", "norm1", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.relu(net.conv("conv2", "pool1", 16, 5, "pad: 2", group=2))
    net.add("pool2", "Pooling", "conv2", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.relu(net.linear("fc6", "pool2", 16 * 3 * 3, 32))
    net.add("drop6", "Dropout", "fc6", "dropout_param { dropout_ratio: 0.5 }", "fc6")
    net.linear("fc8", "fc6", 32, 10)
    net.add("prob", "Softmax", "fc8")
    return net


def googlenet() -> NetWriter:
    net = NetWriter((1, 3, 40, 40))
    net.relu(net.conv("conv1", "data", 8, 7, "pad: 3 stride: 2"))
    net.add("pool1", "Pooling", "conv1", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    bottom = "pool1"
    for block in ("3a", "3b"):
        net.relu(net.conv(f"{block}_1x1", bottom, 4, 1))
        net.relu(net.conv(f"{block}_3x3r", bottom, 4, 1))
        net.relu(net.conv(f"{block}_3x3", f"{block}_3x3r", 6, 3, "pad: 1"))
        net.add(f"{block}_pool", "Pooling", bottom, "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }")
        net.relu(net.conv(f"{block}_proj", f"{block}_pool", 4, 1))
        bottom = net.concat(f"{block}_output", f"{block}_1x1 {block}_3x3 {block}_proj")
    net.add("pool5", "Pooling", bottom, "pooling_param { pool: AVE kernel_size: 7 stride: 1 }")
    net.linear("fc", "pool5", 14 * 4 * 4, 10)
    net.add("prob", "Softmax", "fc")
    return net


def resnet() -> NetWriter:
    net = NetWriter((1, 3, 32, 32))
    net.relu(net.batch_norm(net.conv("conv1", "data", 8, 3, "pad: 1 bias_term: false")))
    bottom = "conv1"
    for block, stride in (("2a", 1), ("3a", 2), ("4a", 2)):
        outputs = 8 * stride
        net.batch_norm(net.conv(f"{block}_b1", bottom, outputs, 1, f"stride: {stride} bias_term: false"))
        net.relu(net.batch_norm(net.conv(f"{block}_a", bottom, 8, 3, f"pad: 1 stride: {stride} bias_term: false")))
        net.batch_norm(net.conv(f"{block}_b", f"{block}_a", outputs, 3, "pad: 1 bias_term: false"))
        bottom = net.relu(net.add(f"res{block}", "Eltwise", f"{block}_b1 {block}_b"))
    net.add("pool5", "Pooling", bottom, "pooling_param { pool: AVE kernel_size: 8 stride: 1 }")
    net.linear("fc", "pool5", 16, 10)
    net.add("prob", "Softmax", "fc")
    return net


def squeezenet(size: int = 63, width: int = 4, classes: int = 10) -> NetWriter:
    """The layers of SqueezeNet 1.1; `width` 16 and `size` 227 give the published net."""
    net = NetWriter((1, 3, size, size))
    pool = "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"
    net.relu(net.conv("conv1", "data", 4 * width, 3, "stride: 2"))
    bottom = net.add("pool1", "Pooling", "conv1", pool)
    for number, squeeze in enumerate((1, 1, 2, 2, 3, 3, 4, 4), 2):
        fire = f"fire{number}"
        net.relu(net.conv(f"{fire}_squeeze", bottom, squeeze * width, 1))
        net.relu(net.conv(f"{fire}_1x1", f"{fire}_squeeze", 4 * squeeze * width, 1))
        net.relu(net.conv(f"{fire}_3x3", f"{fire}_squeeze", 4 * squeeze * width, 3, "pad: 1"))
        bottom = net.concat(f"{fire}_concat", f"{fire}_1x1 {fire}_3x3")
        if number in (3, 5):
            bottom = net.add(f"pool{number}", "Pooling", bottom, pool)
    net.add("drop9", "Dropout", bottom, "dropout_param { dropout_ratio: 0.5 }", bottom)
    net.relu(net.conv("conv10", bottom, classes, 1))
    net.add("pool10", "Pooling", "conv10", "pooling_param { pool: AVE global_pooling: true }")
    net.add("prob", "Softmax", "pool10")
    return net


def mobilenet() -> NetWriter:
    net = NetWriter((1, 3, 32, 32))
    bottom = net.relu(net.batch_norm(net.conv("conv1", "data", 8, 3, "pad: 1 stride: 2 bias_term: false")))
    for number, (outputs, stride) in enumerate([(16, 1), (24, 2), (24, 1), (32, 2)]):
        channels = [8, 16, 24, 24][number]
        more = f"pad: 1 stride: {stride} bias_term: false"
        net.relu(net.batch_norm(net.conv(f"dw{number}", bottom, channels, 3, more, group=channels)))
        bottom = net.relu(net.batch_norm(net.conv(f"sep{number}", f"dw{number}", outputs, 1, "bias_term: false")))
    net.add("pool", "Pooling", bottom, "pooling_param { pool: AVE global_pooling: true }")
    net.conv("fc7", "pool", 10, 1)
    net.add("flat", "Flatten", "fc7")
    net.add("prob", "Softmax", "flat")
    return net


def segmentation() -> NetWriter:
    """A fully convolutional net: upsampling by deconvolution, cropping to the input's size."""
    net = NetWriter((1, 3, 30, 30))
    net.relu(net.conv("conv1", "data", 8, 3, "pad: 10"))
    net.add("pool1", "Pooling", "conv1", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    net.conv("score", "pool1", 4, 1)
    param = "convolution_param { num_output: 4 kernel_size: 4 stride: 2 bias_term: false group: 4 }"
    net.add("up", "Deconvolution", "score", param)
    net.weights["up"] = [random(4, 1, 4, 4)]
    net.add("crop", "Crop", "up data", "crop_param { axis: 2 offset: 9 }")
    net.add("prob", "Softmax", "crop")
    return net


NETS: list[Callable[[], NetWriter]] = [alexnet, googlenet, resnet, squeezenet, mobilenet, segmentation]


@pytest.mark.parametrize("make", NETS)
def test_a_net_agrees_with_opencv_at_every_batch_size(tmp_path: Path, make: Callable[[], NetWriter]) -> None:
    net = make()
    paths = net.write(tmp_path)
    model = compiled(read_caffe(*paths))
    for batch in (1, 3):
        data = random(batch, *model.input().partial_shape.get_min_shape()[1:], seed=batch)
        theirs = run_opencv(paths, {"data": data})["prob"]
        ours = model({"data": data})["prob"]
        assert ours.std() > 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_digits_net_gives_its_golden_probabilities() -> None:
    golden = np.load(FIXTURES / "golden.npz")
    ours = run_ours((FIXTURES / "graph.prototxt", FIXTURES / "weight.caffemodel"), {"data": golden["input_nchw"]})
    np.testing.assert_allclose(ours["prob"], golden["prob"], rtol=0, atol=TOLERANCE)
    assert (ours["prob"].argmax(1) == golden["label"]).mean() > 0.9
