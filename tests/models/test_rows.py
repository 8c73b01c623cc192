"""Each record gets what it gets alone, whatever its neighbours, its place and the model: or it is refused."""

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions
from tests.models.onnx_files import FLOAT, INT64, Tensor, node, saved
from tests.models.onnx_files import STRING as TEXT
from tests.models.rows import GROUPINGS, SPREADS, Served, served

SETTINGS = settings(max_examples=8, suppress_health_check=list(HealthCheck), derandomize=True)
ENGINES = ("openvino", "onnxruntime")
BATCHES: tuple[int | str, ...] = ("N", 1, 3)
WIDTH = 4


def random(*shape: int, seed: int = 0, low: float = -1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 1.0, shape).astype(np.float32)


class Family(NamedTuple):
    """A kind of model; `batch` stands in its shapes as "batch". `apart` says whether its rows are independent."""

    nodes: Sequence[Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    constants: Mapping[str, Any] = {}
    apart: bool = False
    opset: int = 17


X: tuple[Tensor, ...] = (("x", FLOAT, ("batch", WIDTH)),)
Y: tuple[Tensor, ...] = (("y", FLOAT, ("batch", WIDTH)),)
ANY: tuple[Tensor, ...] = (("y", FLOAT, None),)
WEIGHTS = random(WIDTH, WIDTH)
KERNEL = random(3, 2, 3, 3)
MIX = {"rows": np.array([0]), "minus": np.array([-1]), "one": np.array([1]), "most": np.array([2**31 - 1])}
ROWS = [node("Shape", "x", "shape"), node("Slice", "shape zero one", "count")]
PLACES = {"zero": np.array([0]), "one": np.array([1]), "first": np.array(0), "step": np.array(1)}

APART = {
    "mlp": Family(
        [
            node("MatMul", "x w", "m"),
            node("Add", "m b", "a"),
            node("Relu", "a", "r"),
            node("Softmax", "r", "y", axis=-1),
        ],
        X,
        Y,
        {"w": WEIGHTS, "b": random(WIDTH, seed=1)},
        apart=True,
    ),
    "conv": Family(
        [
            node("Conv", "x k", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", "c", "g"),
            node("Flatten", "g", "y"),
        ],
        [("x", FLOAT, ("batch", 2, 5, 5))],
        [("y", FLOAT, ("batch", 3))],
        {"k": KERNEL},
        apart=True,
    ),
    "ids": Family(
        [node("Gather", "w x", "y")],
        [("x", INT64, ("batch", 3))],
        [("y", FLOAT, ("batch", 3, WIDTH))],
        {"w": random(10, WIDTH)},
        apart=True,
    ),
    "best of the own row": Family(
        [node("TopK", "x k", "y i", axis=1)],
        X,
        [("y", FLOAT, ("batch", 2)), ("i", INT64, ("batch", 2))],
        {"k": np.array([2])},
        apart=True,
    ),
    "two inputs": Family(
        [node("Mul", "x z", "m"), node("Add", "m z", "y")],
        [*X, ("z", FLOAT, ("batch", 1))],
        Y,
        apart=True,
    ),
    "batch norm of training": Family(
        [node("BatchNormalization", "x s b m v", "y")],
        X,
        Y,
        {"s": random(WIDTH), "b": random(WIDTH, seed=1), "m": random(WIDTH, seed=2), "v": random(WIDTH, low=0.5)},
        apart=True,
    ),
}
COUPLED = {
    "softmax over the batch": Family([node("Softmax", "x", "y", axis=0)], X, Y),
    "mean of the batch": Family([node("ReduceMean", "x", "y", axes=[0], keepdims=0)], X, [("y", FLOAT, (WIDTH,))]),
    "mean of the batch as a row": Family([node("ReduceMean", "x", "y", axes=[0])], X, [("y", FLOAT, (1, WIDTH))]),
    "sum up to here": Family([node("CumSum", "x first", "y")], X, Y, PLACES),
    "normed by the batch": Family(
        [
            node("ReduceMean", "x", "m", axes=[0]),
            node("Sub", "x m", "d"),
            node("Mul", "d d", "q"),
            node("ReduceMean", "q", "v", axes=[0]),
            node("Add", "v e", "p"),
            node("Sqrt", "p", "s"),
            node("Div", "d s", "y"),
        ],
        X,
        Y,
        {"e": np.array(1e-3)},
    ),
    "less the largest of the batch": Family([node("ReduceMax", "x", "m", axes=[0]), node("Sub", "x m", "y")], X, Y),
    "less the first row": Family([node("Gather", "x zero", "f"), node("Sub", "x f", "y")], X, Y, PLACES),
    "a factor for each row": Family([node("Mul", "x w", "y")], X, ANY, {"w": random(3, WIDTH)}),
    "rows and columns mixed": Family([node("Reshape", "x to", "y")], X, ANY, {"to": np.array([WIDTH, -1])}),
    "rows mixed and put back": Family(
        [node("Reshape", "x to", "r"), node("Transpose", "r", "y", perm=[1, 0])], X, ANY, {"to": np.array([WIDTH, -1])}
    ),
    "transposed": Family([node("Transpose", "x", "y", perm=[1, 0])], X, ANY),
    "from the last to the first": Family(
        [node("Slice", "x minus least rows minus", "y")], X, Y, MIX | {"least": np.array([-(2**31)])}
    ),
    "one row on": Family(
        [
            node("Slice", "x one most rows", "t"),
            node("Slice", "x rows one rows", "h"),
            node("Concat", "t h", "y", axis=0),
        ],
        X,
        Y,
        MIX,
    ),
    "best of each column": Family(
        [node("TopK", "x k", "y i", axis=0)],
        X,
        [("y", FLOAT, (1, WIDTH)), ("i", INT64, (1, WIDTH))],
        {"k": np.array([1])},
    ),
    "sorted": Family([*ROWS, node("TopK", "x count", "y i", axis=0)], X, [*Y, ("i", INT64, ("batch", WIDTH))], PLACES),
    "places of what is not zero": Family(
        [node("Relu", "x", "r"), node("NonZero", "r", "y")], X, [("y", INT64, (2, None))]
    ),
    "divided by the number of rows": Family(
        [*ROWS, node("Cast", "count", "c", to=FLOAT), node("Div", "x c", "y")], X, Y, PLACES
    ),
    "place of the row": Family(
        [
            *ROWS,
            node("Squeeze", "count", "n"),
            node("Range", "first n step", "p"),
            node("Cast", "p", "f", to=FLOAT),
            node("Unsqueeze", "f one", "u"),
            node("Add", "x u", "y"),
        ],
        X,
        Y,
        PLACES,
    ),
    "a constant beside it": Family(
        [node("Relu", "x", "y"), node("Identity", "w", "c")], X, [*Y, ("c", FLOAT, (2, 3))], {"w": random(2, 3)}
    ),
    "a constant of three rows": Family(
        [node("Relu", "x", "y"), node("Identity", "w", "c")], X, [*Y, ("c", FLOAT, (3, 2))], {"w": random(3, 2)}
    ),
    "a constant of one row": Family(
        [node("Relu", "x", "y"), node("Identity", "w", "c")], X, [*Y, ("c", FLOAT, (1, 2))], {"w": random(1, 2)}
    ),
    "a single value": Family([node("ReduceSum", "x", "y", keepdims=0)], X, [("y", FLOAT, ())]),
    "a scalar input": Family([node("Mul", "x z", "y")], [*X, ("z", FLOAT, ())], Y),
    "only scalars": Family([node("Add", "x z", "y")], [("x", FLOAT, ()), ("z", FLOAT, ())], [("y", FLOAT, ())]),
    "an input of another size": Family(
        [node("Transpose", "z", "t"), node("MatMul", "x t", "y")], [*X, ("z", FLOAT, (5, WIDTH))], ANY
    ),
    "an input of another free size": Family(
        [node("Transpose", "z", "t"), node("MatMul", "x t", "y")], [*X, ("z", FLOAT, ("other", WIDTH))], ANY
    ),
    "neighbours count a little": Family(
        [node("ReduceMean", "x", "m", axes=[0]), node("Mul", "m e", "s"), node("Add", "x s", "y")],
        X,
        Y,
        {"e": np.array(1e-2)},
    ),
}
TEXTS = {
    "same text": Family(
        [node("Identity", "x", "y")], [("x", TEXT, ("batch", 2))], [("y", TEXT, ("batch", 2))], apart=True
    ),
    "text twice": Family(
        [node("StringConcat", "x x", "y")],
        [("x", TEXT, ("batch", 2))],
        [("y", TEXT, ("batch", 2))],
        apart=True,
        opset=20,
    ),
    "a text each": Family(
        [node("Identity", "x", "y")], [("x", TEXT, ("batch",))], [("y", TEXT, ("batch",))], apart=True
    ),
    "codes of texts": Family(
        [node("LabelEncoder", "x", "y", "ai.onnx.ml", keys_strings=["a", "", "7"], values_floats=[1.0, 2.0, 3.0])],
        [("x", TEXT, ("batch", 2))],
        [("y", FLOAT, ("batch", 2))],
        apart=True,
    ),
    "texts from the last to the first": Family(
        [node("Slice", "x minus least rows minus", "y")],
        [("x", TEXT, ("batch", 2))],
        [("y", TEXT, ("batch", 2))],
        MIX | {"least": np.array([-(2**31)])},
    ),
}


def written(directory: Path, family: Family, batch: int | str) -> Path:
    def sized(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [
            (name, kind, None if shape is None else [batch if size == "batch" else size for size in shape])
            for name, kind, shape in tensors
        ]

    return saved(directory, family.nodes, sized(family.inputs), sized(family.outputs), family.constants, family.opset)


@functools.cache
def serving(name: str, batch: int | str, engine: str = "auto") -> Served:
    family = (APART | COUPLED | TEXTS)[name]
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), family, batch)
        try:
            return served(files, ModelOptions(engine=engine))
        except ModelLoadError as err:
            # OpenVINO's words, on a processor without AVX, for a search of the largest value: refused, and
            # `auto` takes another engine.
            if os.environ.get("ONEDNN_MAX_CPU_ISA") != "SSE41" or "bad combination" not in str(err):
                raise
            return served(files, ModelOptions())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", APART)
@SETTINGS
@given(seed=st.integers(0, 2**32), groups=GROUPINGS, spread=SPREADS)
def test_rows_that_are_apart_are_served_together(
    name: str, batch: int | str, engine: str, seed: int, groups: list[int], spread: float
) -> None:
    model = serving(name, batch, engine)

    model.check(seed, groups, spread)

    assert not model.model.one_by_one, model.plan


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", COUPLED)
@SETTINGS
@given(seed=st.integers(0, 2**32), groups=GROUPINGS, spread=SPREADS)
def test_rows_that_depend_on_each_other_never_meet(
    name: str, batch: int | str, engine: str, seed: int, groups: list[int], spread: float
) -> None:
    model = serving(name, batch, engine)

    model.check(seed, groups, spread)

    if (name, batch) == ("divided by the number of rows", 3):
        assert model.plan.kind == "portions", "three at a time are always divided by three"
    else:
        assert model.model.one_by_one, model.plan


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", TEXTS)
@SETTINGS
@given(seed=st.integers(0, 2**32), groups=GROUPINGS, spread=SPREADS)
def test_texts_stay_with_their_records(
    name: str, batch: int | str, seed: int, groups: list[int], spread: float
) -> None:
    model = serving(name, batch)

    model.check(seed, groups, spread)

    assert model.model.engine == "onnxruntime"
    assert model.model.one_by_one != TEXTS[name].apart, model.plan


TIMES = 3
RECURRENT = Family(
    [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("ReduceMean", "t", "last", axes=[1], keepdims=0),
        node("CumSum", "x first", "y"),
    ],
    [("x", FLOAT, (TIMES, "batch", WIDTH))],
    [("y", FLOAT, (TIMES, "batch", WIDTH)), ("last", FLOAT, ("batch", WIDTH))],
    PLACES,
)
WITHOUT_LAST = RECURRENT._replace(nodes=[RECURRENT.nodes[-1]], outputs=RECURRENT.outputs[:1])
MIXED_TIMES = WITHOUT_LAST._replace(nodes=[node("CumSum", "x step", "y")])


@functools.cache
def with_options(family: str, batch: int | str, engine: str) -> Served:
    given_family, options = OPTIONS[family]
    with tempfile.TemporaryDirectory() as folder:
        directory = written(Path(folder), given_family, batch)
        return served(directory, replace(options, engine=engine))


OPTIONS = {
    "time first": (WITHOUT_LAST, ModelOptions(batch_axis=1)),
    "time first and a last state": (RECURRENT, ModelOptions(batch_axis=1)),
    "records added up along axis 1": (MIXED_TIMES, ModelOptions(batch_axis=1)),
    "no batch axis": (COUPLED["softmax over the batch"], ModelOptions(batch_axis="none")),
    "independent rows without a batch axis": (APART["mlp"], ModelOptions(batch_axis="none")),
    "a constant scalar": (COUPLED["a scalar input"], ModelOptions(constants={"z": 2.5})),
    "a constant table": (
        COUPLED["an input of another size"],
        ModelOptions(constants={"z": random(5, WIDTH, seed=7).tolist()}),
    ),
    "a constant for coupled rows": (
        COUPLED["softmax over the batch"]._replace(
            nodes=[node("Mul", "x z", "m"), node("Softmax", "m", "y", axis=0)], inputs=[*X, ("z", FLOAT, ())]
        ),
        ModelOptions(constants={"z": 0.5}),
    ),
}
ALL_TOGETHER = {"time first", "a constant scalar", "a constant table"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", OPTIONS)
@SETTINGS
@given(seed=st.integers(0, 2**32), groups=GROUPINGS, spread=SPREADS)
def test_records_are_where_the_operator_says(
    name: str, batch: int | str, engine: str, seed: int, groups: list[int], spread: float
) -> None:
    model = with_options(name, batch, engine)

    model.check(seed, groups, spread)

    if name in ALL_TOGETHER and batch != 1:
        assert not model.model.one_by_one, model.plan
    elif name not in ALL_TOGETHER:
        assert model.model.one_by_one, model.plan


def test_one_axis_for_all_inputs_is_asked_for_where_there_is_none(tmp_path: Path) -> None:
    family = COUPLED["an input of another size"]
    model = served(written(tmp_path, family, "N"), ModelOptions())

    assert model.plan.kind == "whole"
    assert [spec.shape for spec in model.model.inputs] == [(None, WIDTH), (5, WIDTH)]
