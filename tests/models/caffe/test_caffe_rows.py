"""Caffe nets give each record what it gets alone, in OpenCV and in OpenVINO."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from caffe_files import NetWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions
from tests.models.rows import GROUPINGS, SPREADS, Served, served


def classifier(net: NetWriter) -> None:
    net.relu(net.conv("conv", "data", 4, 3))
    net.linear("fc", "conv", 4 * 4 * 4, 5)
    net.add("prob", "Softmax", "fc")


def softmax_over_the_batch(net: NetWriter) -> None:
    net.linear("fc", "data", 2 * 6 * 6, 5)
    net.add("prob", "Softmax", "fc", "softmax_param { axis: 0 }")


def rows_and_columns_mixed(net: NetWriter) -> None:
    net.conv("conv", "data", 2, 1)
    net.add("mixed", "Reshape", "conv", "reshape_param { shape { dim: 6 dim: -1 } }")


def folded(net: NetWriter) -> None:
    net.conv("conv", "data", 2, 1)
    net.add("folded", "Reshape", "conv", "reshape_param { shape { dim: -1 dim: 6 } }")


def flat(net: NetWriter) -> None:
    """One row for all: the batch of the file stands in a layer."""
    net.conv("conv", "data", 2, 1)
    net.add("flat", "Reshape", "conv", "reshape_param { shape { dim: 1 dim: -1 } }")


NETS: dict[str, tuple[Callable[[NetWriter], None], bool]] = {
    "classifier": (classifier, True),
    "softmax over the batch": (softmax_over_the_batch, False),
    "rows and columns mixed": (rows_and_columns_mixed, False),
    "folded": (folded, False),
    "flat": (flat, False),
}


@functools.cache
def serving(name: str, batch: int, engine: str) -> Served | str:
    """Give the model, or the reason why it is refused."""
    net = NetWriter((batch, 2, 6, 6))
    NETS[name][0](net)
    with tempfile.TemporaryDirectory() as folder:
        net.write(Path(folder))
        try:
            return served(Path(folder), ModelOptions(engine=engine))
        except ModelLoadError as err:
            return str(err)


@pytest.mark.parametrize("engine", ["opencv", "openvino"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETS)
@settings(max_examples=8, derandomize=True)
@given(seed=st.integers(0, 2**32), groups=GROUPINGS, spread=SPREADS)
def test_records_of_a_net_never_meet(
    name: str, batch: int, engine: str, seed: int, groups: list[int], spread: float
) -> None:
    model, is_apart = serving(name, batch, engine), NETS[name][1]
    if isinstance(model, str):
        assert engine == "openvino"
        assert not is_apart, model
        return

    model.check(seed, groups, spread)

    # A row for all in a file for one record is that record's own row.
    if (name, batch) != ("flat", 1):
        assert model.model.one_by_one != is_apart, model.plan
