"""What cannot be served is refused with the file, the reason and the remedy."""

import struct
from pathlib import Path

import numpy as np
import pytest
from bigdl_files import INT32, PACKAGE, block, integer, integers, module, number, tensor, texts, write
from test_golden import run

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.bigdl import read_bigdl

FIXTURES = Path(__file__).parent / "fixtures"
LENET = FIXTURES / "lenet5"


def refusal(model: Path, weights: Path | None = None, shape: tuple[int, ...] | None = (4,)) -> str:
    with pytest.raises(ModelLoadError) as caught:
        read_bigdl(model, weights, shape)
    return str(caught.value)


def linear(name: str, inside: int, outside: int, more: bytes) -> bytes:
    return module("Linear", name, attrs={"inputSize": integer(inside), "outputSize": integer(outside)}, more=more)


def test_java_serialisation_is_refused_with_the_way_out() -> None:
    path = LENET / "javaser_lenet5.model"
    assert refusal(path) == f"{path}: an old file of Java objects; load it in BigDL and save it with saveModule"


def test_all_layers_that_are_not_supported_are_named_at_once(tmp_path: Path) -> None:
    parts = [module("RoiPooling", "roi"), module("Tanh", "t"), module("PriorBox", "prior")]
    path = write(tmp_path / "m.model", module("Sequential", "net", parts))
    assert refusal(path) == (
        f"{path}: layer {PACKAGE}RoiPooling 'roi' is not supported; all layers that are not supported: "
        f"{PACKAGE}RoiPooling 'roi', {PACKAGE}PriorBox 'prior'"
    )


def test_a_missing_weights_file_is_asked_for() -> None:
    message = refusal(LENET / "split_lenet5.model", None, (28, 28))
    assert "'conv1_5x5'" in message
    assert "its weights are in a separate file: put the .bin that saveModule wrote beside it" in message


def test_a_weights_file_of_another_model_is_refused() -> None:
    message = refusal(LENET / "split_lenet5.model", FIXTURES / "digits_split" / "model.bin", (28, 28))
    assert "is missing: the weights file is of another model" in message


@pytest.mark.parametrize("place", [4000, -1, 20])
def test_a_weights_file_with_a_wrong_checksum_is_refused(tmp_path: Path, place: int) -> None:
    contents = bytearray((LENET / "split_lenet5.bin").read_bytes())
    contents[place] ^= 1
    path = write(tmp_path / "w.bin", bytes(contents))
    message = refusal(LENET / "split_lenet5.model", path, (28, 28))
    assert message.endswith(f"{path}: the checksum (MD5) of the weights file is wrong; copy it again")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_cut_weights_file_is_refused(tmp_path: Path, share: float) -> None:
    contents = (LENET / "split_lenet5.bin").read_bytes()
    path = write(tmp_path / "w.bin", contents[: int(len(contents) * share)])
    message = refusal(LENET / "split_lenet5.model", path, (28, 28))
    assert f"{path}: " in message
    assert "copy it again" in message


@pytest.mark.parametrize("count", [-1, 1 << 30])
def test_a_weights_file_with_an_impossible_count_is_refused(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "w.bin", struct.pack(">iiiii", 3721, count, 1, 0, 1 << 30))
    assert "damaged or cut off" in refusal(LENET / "split_lenet5.model", path, (28, 28))


def test_another_file_is_no_weights_file(tmp_path: Path) -> None:
    path = write(tmp_path / "w.bin", b"\x00" * 64)
    assert "not a BigDL weights file" in refusal(LENET / "split_lenet5.model", path, (28, 28))


def test_an_unknown_input_shape_is_asked_for() -> None:
    message = refusal(LENET / "lenet5.model", None, None)
    assert message.endswith("the file does not say its input shape; set data: shape, as in 3,224,224")


def test_an_input_that_does_not_fit_names_the_layer() -> None:
    message = refusal(LENET / "lenet5.model", None, (5,))
    assert "layer com.intel.analytics.bigdl.nn.Reshape" in message
    assert "cannot view Nx5 as 1x28x28" in message


@pytest.mark.parametrize("contents", [b"", b"\x00", b"name: 'caffe'\nlayer {}", bytes(range(256)), b"\x08\x01"])
def test_another_kind_of_file_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = write(tmp_path / "m.model", contents)
    assert refusal(path).startswith(f"{path}: not a BigDL model, or a damaged or cut one: ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "absent.model")


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    weight = block(16, tensor((2, 3), (3, 1), 7, range(6)))
    path = write(tmp_path / "m.model", linear("fc", 4, 2, weight))
    assert refusal(path) == (
        f"{path}: layer {PACKAGE}Linear 'fc': a weight of shape (2, 3) is stored, (2, 4) is expected"
    )


@pytest.mark.parametrize(
    ("sizes", "strides", "offset"),
    [
        ((2, 4), (4, 1), 2),
        ((2, 4), (1 << 30, 1), 1),
        ((2, 1 << 31), (1, 1), 1),
        ((1 << 62, 1 << 62), (0, 0), 1),
        ((2, 4), (4, 1), -5),
        ((2, 4), (-4, 1), 1),
        ((2, 4), (4,), 1),
        ((-2, -4), (4, 1), 1),
        ((1000, 1000), (0, 0), 1),
    ],
)
def test_a_tensor_may_not_look_beyond_its_storage(
    tmp_path: Path, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    weight = block(16, tensor(sizes, strides, 7, range(8), offset))
    message = refusal(write(tmp_path / "m.model", linear("fc", 4, 2, weight)))
    assert f"layer {PACKAGE}Linear 'fc': a tensor" in message


def test_a_graph_with_a_cycle_is_refused(tmp_path: Path) -> None:
    nodes = [module("Tanh", "a", before=["b"]), module("Tanh", "b", before=["a"])]
    attrs = {"inputNames": texts(["a"]), "outputNames": texts(["b"])}
    path = write(tmp_path / "m.model", module("StaticGraph", "g", nodes, attrs))
    assert "of the graph is part of a cycle" in refusal(path)


def test_a_graph_without_its_nodes_is_refused(tmp_path: Path) -> None:
    attrs = {"inputNames": texts(["a"]), "outputNames": texts(["b"])}
    path = write(tmp_path / "m.model", module("StaticGraph", "g", [module("Tanh", "a")], attrs))
    assert "the graph has no node b" in refusal(path)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    contents = module("Tanh")
    for _ in range(3000):
        contents = module("Sequential", children=[contents])
    assert "messages nested deeper than 100" in refusal(write(tmp_path / "m.model", contents))


def test_millions_of_empty_layers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.model", block(7, PACKAGE + "Sequential") + b"\x12\x00" * 3_000_000)
    assert "more than 100000 modules, attributes and tensors" in refusal(path)


def test_tables_that_double_without_end_are_refused(tmp_path: Path) -> None:
    doubling = module("ConcatTable", "twice", [module("Identity"), module("Identity")])
    path = write(tmp_path / "m.model", module("Sequential", "net", [doubling] * 60))
    assert "nested tables of more than 16384 entries" in refusal(path)


def test_a_model_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    inner = module("MapTable", children=[module("Sequential", children=[module("Tanh")] * 100)])
    split = module("SplitTable", attrs={"dimension": integer(2)})
    path = write(tmp_path / "m.model", module("Sequential", "net", [split, inner]))
    assert "the model unfolds to more than 50000 layers" in refusal(path, None, (10000,))


def test_a_model_that_enlarges_without_end_is_refused(tmp_path: Path) -> None:
    larger = module("UpSampling1D", "up", attrs={"length": integer(1 << 20)})
    path = write(tmp_path / "m.model", module("Sequential", "net", [larger]))
    assert "1000 entries are repeated 1048576 times" in refusal(path, None, (1000, 4))


@pytest.mark.parametrize("size", [(1 << 31, 1 << 31), (-4, -1), (0,), (3,), ()])
def test_a_view_of_an_impossible_size_is_refused(tmp_path: Path, size: tuple[int, ...]) -> None:
    path = write(tmp_path / "m.model", module("Reshape", "r", attrs={"size": integers(size)}))
    assert "layer com.intel.analytics.bigdl.nn.Reshape 'r'" in refusal(path)


@pytest.mark.parametrize("shape", [(0,), (-1, 3), (1 << 20, 1 << 20)])
def test_an_impossible_input_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write(tmp_path / "m.model", module("Tanh", "t"))
    assert refusal(path, None, shape).endswith(f"input input has the shape {shape}")


def test_an_attribute_of_another_type_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.model", module("Concat", "c", [module("Tanh")], {"dimension": texts(["x"])}))
    assert "attribute dimension is ('x',), a 32-bit integer is expected" in refusal(path)


def test_weights_of_version_0_5_are_read_from_their_own_fields(tmp_path: Path) -> None:
    weights = block(3, tensor((2, 4), (4, 1), 7, range(8))) + block(4, tensor((2,), (1,), 8, (0.5, -0.5)))
    path = write(tmp_path / "m.model", linear("fc", 4, 2, weights))
    (result,) = run(read_bigdl(path, None, (4,)), [np.ones((3, 4), np.float32)])
    np.testing.assert_allclose(result, [[6.5, 21.5]] * 3)


def test_a_transposed_weight_is_read_by_its_strides(tmp_path: Path) -> None:
    weights = block(16, tensor((2, 4), (1, 2), 7, range(8))) + number(15, 1) + number(99, INT32)
    path = write(tmp_path / "m.model", linear("fc", 4, 2, weights))
    (result,) = run(read_bigdl(path, None, (4,)), [np.eye(4, dtype=np.float32)])
    np.testing.assert_allclose(result, np.arange(8).reshape(4, 2))
