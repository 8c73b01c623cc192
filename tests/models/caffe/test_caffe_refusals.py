"""A model that cannot be served is refused with file, layer and reason, and no file crashes the reader."""

from pathlib import Path

import numpy as np
import pytest
from caffe_files import NetWriter, encode_caffemodel, field, input_text, layer_text, random, write_model

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.caffe import read_caffe

FC = layer_text("fc", "InnerProduct", "data", more="inner_product_param { num_output: 3 }")
FC_NET = input_text("data", (1, 4)) + FC
WEIGHTS = {"fc": [random(3, 4), random(3)]}


def refusal(directory: Path, prototxt: str, caffemodel: bytes | None = None) -> str:
    """The message of the refusal, without the directory."""
    paths = write_model(directory, prototxt, encode_caffemodel(WEIGHTS) if caffemodel is None else caffemodel)
    with pytest.raises(ModelLoadError) as error:
        read_caffe(*paths)
    return str(error.value).replace(f"{directory}/", "")


REFUSED = {
    "unsupported": (
        input_text("data", (1, 4)) + layer_text("a", "LSTM", "data") + layer_text("b", "Python", "a"),
        "2 layers are not supported: layer 'a' (LSTM), layer 'b' (Python)",
    ),
    "missing weights": (
        FC_NET.replace('"fc"', '"other"'),
        "layer 'other' (InnerProduct): no weights [3, 4] in the caffemodel, which has 0 blobs of it",
    ),
    "shape": (
        FC_NET.replace("num_output: 3", "num_output: 7"),
        "layer 'fc' (InnerProduct): weights of shape [3, 4] in the caffemodel, wanted [7, 4]",
    ),
    "too many blobs": (
        FC_NET.replace("num_output: 3", "num_output: 3 bias_term: false"),
        "layer 'fc' (InnerProduct): the caffemodel has 2 blobs of it, wanted 1",
    ),
    "unknown field": (
        FC_NET.replace("num_output: 3", "num_output: 3 axsi: 1"),
        "layer 'fc' (InnerProduct): unknown fields inner_product_param.axsi",
    ),
    "unknown root field": (FC_NET + "layr { }", "unknown fields layr"),
    "unknown param": (
        input_text("data", (1, 4)) + layer_text("r", "ReLU", "data", more="rleu_param { negative_slope: 1 }"),
        "layer 'r' (ReLU): unknown fields rleu_param",
    ),
    "bottom": (
        input_text("data", (1, 4)) + layer_text("r", "ReLU", "dat"),
        "layer 'r' (ReLU): its bottom 'dat' is the top of no layer before it",
    ),
    "training data": (
        'layer { name: "d" type: "Data" top: "d" }' + input_text("x", (1, 4)) + layer_text("r", "ReLU", "d"),
        "layer 'r' (ReLU): its bottom 'd' comes from training data; an Input layer is wanted",
    ),
    "same top": (
        input_text("data", (1, 4)) + layer_text("r", "ReLU", "data", "x") + layer_text("s", "ReLU", "data", "x"),
        "layer 's' (ReLU): its top 'x' is the top of another layer too",
    ),
    "no input": (
        layer_text("r", "ReLU", "data"),
        "the net has no input; a deploy prototxt with an Input layer or `input:` is wanted",
    ),
    "no layers": ('name: "x"', "the net has no layers"),
    "input without shape": (
        'layer { name: "data" type: "Input" top: "data" }' + layer_text("r", "ReLU", "data"),
        "layer 'data' (Input): 0 shapes for 1 tops",
    ),
    "huge input": (
        input_text("data", (1, 3, 100000, 100000)) + layer_text("r", "ReLU", "data"),
        "input 'data' has the shape [1, 3, 100000, 100000], wanted positive dimensions and at most 268435456 "
        "elements an example",
    ),
    "huge blob": (
        input_text("data", (1, 4)) + layer_text("t", "Tile", "data", more="tile_param { tiles: 100000000 }"),
        "layer 't' (Tile): its top 't' has the shape [1, 400000000], wanted positive dimensions and at most "
        "268435456 elements an example",
    ),
    "batch mixed": (
        input_text("data", (2, 4))
        + layer_text("f", "Reshape", "data", more="reshape_param { shape { dim: 1 dim: 8 } }"),
        "the net cannot run with another batch size than its own",
    ),
    "rows": (
        input_text("data", (1, 4))
        + layer_text("f", "Reshape", "data", more="reshape_param { shape { dim: 2 dim: 2 } }"),
        "output 'f' has the shape [6, 2] for 3 examples, wanted 3 rows",
    ),
    "batch axis": (
        input_text("data", (1, 4)) + layer_text("s", "Softmax", "data", more="softmax_param { axis: 0 }"),
        "layer 's' (Softmax): axis 0 is the batch, whose examples are served independently; wanted another axis",
    ),
    "batch statistics": (
        input_text("data", (1, 4))
        + layer_text("b", "BatchNorm", "data", more="batch_norm_param { use_global_stats: false }"),
        "layer 'b' (BatchNorm): use_global_stats: false lets a result depend on the rest of its batch; wanted true",
    ),
    "stochastic": (
        input_text("data", (1, 4, 4, 4))
        + layer_text("p", "Pooling", "data", more="pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
        "layer 'p' (Pooling): pool STOCHASTIC picks at random, wanted MAX or AVE",
    ),
    "window outside": (
        input_text("data", (1, 4, 4, 4))
        + layer_text("p", "Pooling", "data", more="pooling_param { kernel_size: 1 stride: 2 }"),
        "layer 'p' (Pooling): its last window lies outside the input of size 4 (kernel 1, stride 2)",
    ),
    "kernel too large": (
        input_text("data", (1, 4, 2, 2))
        + layer_text("c", "Convolution", "data", more="convolution_param { num_output: 1 kernel_size: 3 }"),
        "layer 'c' (Convolution): its kernel [3, 3] is larger than its input [2, 2] with padding",
    ),
    "format of 2013": (
        'input: "data" input_dim: [1, 1, 2, 2] layers { layer { name: "c" type: "conv" } bottom: "data" top: "c" }',
        "layers inside `layers` are the format of 2013; upgrade it with Caffe's upgrade_net_proto_text",
    ),
    "text": ("layer {", 'line 1: Expected "}".'),
    "type": (
        FC_NET.replace("num_output: 3", "num_output: three"),
        "line 2: Couldn't parse integer: three",
    ),
    "twice": (
        FC_NET.replace("num_output: 3", "num_output: 3 num_output: 4"),
        'line 2: Message type "beam_serving.caffe.inner_product_param" should not have multiple "num_output" fields.',
    ),
    "another layer's parameters": (
        FC_NET.replace("inner_product_param", "convolution_param { pad: 1 } inner_product_param"),
        "layer 'fc' (InnerProduct): unknown fields convolution_param",
    ),
    "several unknown fields": (
        FC_NET.replace("num_output: 3", "num_output: 3 axsi: 1 weight_filler { type: 'x' } more { axis: 1 }"),
        "layer 'fc' (InnerProduct): unknown fields inner_product_param.axsi, inner_product_param.more",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_net_that_cannot_be_served_is_refused(tmp_path: Path, case: tuple[str, str]) -> None:
    text, reason = case
    assert refusal(tmp_path, text).startswith(f"net.prototxt: {reason}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    paths = write_model(tmp_path, FC_NET, b"x")
    paths[1].unlink()
    with pytest.raises(ModelLoadError) as error:
        read_caffe(*paths)
    assert str(error.value) == f"{paths[1]}: No such file or directory"


@pytest.mark.parametrize(
    ("caffemodel", "reason"),
    [
        (b"", "the file is empty at byte 0"),
        (encode_caffemodel(WEIGHTS)[:-3], "field 100 ends 3 bytes behind its message at byte 11"),
        (field(1, b"only a name"), "no layer in the whole file, so it is no caffemodel; the end is at byte 13"),
        (
            field(100, field(1, b"fc") + field(7, field(7, field(1, bytes([3, 4]))) + field(5, bytes(40)))),
            "a blob of shape [3, 4] holds 10 values at byte 7",
        ),
        (field(100, field(7, field(10, 9) + field(12, bytes(4)))), "raw_data of type 9 in 4 bytes at byte 7"),
    ],
)
def test_a_broken_caffemodel_is_refused(tmp_path: Path, caffemodel: bytes, reason: str) -> None:
    assert refusal(tmp_path, FC_NET, caffemodel) == f"net.caffemodel: not a whole caffemodel: {reason}"


def broken_files(directory: Path) -> tuple[NetWriter, bytes, bytes]:
    net = NetWriter((1, 2, 9, 9))
    net.relu(net.batch_norm(net.conv("conv1", "data", 4, 3, "pad: 1")))
    net.add("norm", "LRN", "conv1", "lrn_param { local_size: 3 }")
    net.add("pool", "Pooling", "norm", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }")
    net.add("slope", "PReLU", "pool", "prelu_param { channel_shared: true }")
    net.weights["slope"] = [random(1)]
    net.add("side", "Flatten", "slope")
    net.linear("fc", "side", 4 * 5 * 5, 3)
    net.add("prob", "Softmax", "fc")
    paths = net.write(directory)
    return net, paths[0].read_bytes(), paths[1].read_bytes()


def read_or_refuse(directory: Path, prototxt: bytes, caffemodel: bytes) -> bool:
    """Whether the files are read; anything but a model or a ModelLoadError fails the test."""
    paths = directory / "fuzz.prototxt", directory / "fuzz.caffemodel"
    paths[0].write_bytes(prototxt)
    paths[1].write_bytes(caffemodel)
    try:
        read_caffe(*paths)
    except ModelLoadError:
        return False
    return True


def test_files_cut_off_anywhere_are_refused(tmp_path: Path) -> None:
    _, prototxt, caffemodel = broken_files(tmp_path)
    for percent in range(100):
        assert not read_or_refuse(tmp_path, prototxt, caffemodel[: len(caffemodel) * percent // 100])
        read_or_refuse(tmp_path, prototxt[: len(prototxt) * percent // 100], caffemodel)


@pytest.mark.parametrize("seed", range(3))
def test_files_with_flipped_bits_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    _, prototxt, caffemodel = broken_files(tmp_path)
    generator = np.random.default_rng(seed)
    read = 0
    for _ in range(100):
        for which in range(2):
            files = [bytearray(prototxt), bytearray(caffemodel)]
            for _ in range(generator.integers(1, 4)):
                place = generator.integers(len(files[which]))
                files[which][place] ^= 1 << int(generator.integers(8))
            read += read_or_refuse(tmp_path, bytes(files[0]), bytes(files[1]))
    assert 0 < read < 200
