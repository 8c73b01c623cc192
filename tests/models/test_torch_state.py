"""Modules and programs that keep something start anew each time, and what is random is told."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beam_serving.models.base import EngineModel, ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load, load_engine

ROWS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


class Counting(torch.nn.Module):
    """Counts in a buffer that it writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("weight", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.weight + self.count


class ThroughAView(torch.nn.Module):
    """Writes one element of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count[0].add_(1)
        return x + self.count.sum()


class Remembering(torch.nn.Module):
    """Sets an attribute to what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.last
        self.last = x[:1]
        return x + before


class Number(torch.nn.Module):
    """Counts in a number of Python."""

    count: int

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count = self.count + 1
        return x + self.count


class Lists(torch.nn.Module):
    """Keeps all it was given, in a module inside it."""

    seen: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x + len(self.seen)


class Around(torch.nn.Module):
    """Has a module with state inside it."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


class Training(torch.nn.Module):
    """Was exported while it trained: it writes statistics and drops at random."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
        self.drop = torch.nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(x)) + self.norm.running_mean


class Noise(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


def saved(directory: Path, how: str, module: torch.nn.Module) -> EngineModel:
    sample = torch.ones(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "export":
            program = torch.export.export(module, (sample,), strict=False)
            torch.export.save(program, directory / "model.pt2")
        elif how == "trace":
            torch.jit.trace(module, (sample,), check_trace=False).save(str(directory / "model.pt"))
        else:
            torch.jit.script(module).save(str(directory / "model.pt"))
    options = ModelOptions(engine="torch", input_shape=(4,))
    return load_engine(find_model(directory), options, "torch")


def own(directory: Path) -> Any:
    """Load what `saved` has written as a program of torch does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (directory / "model.pt2").exists():
            return torch.export.load(directory / "model.pt2").module()
        return torch.jit.load(str(directory / "model.pt")).eval()


STATEFUL: list[tuple[str, Any, str]] = [
    ("script", Counting, "writing count"),
    ("trace", Counting, "writing count"),
    ("export", Counting, "aten::add_"),
    ("script", ThroughAView, "writing count"),
    ("export", ThroughAView, "aten::add_"),
    ("script", Remembering, "prim::SetAttr last"),
    ("script", Number, "prim::SetAttr count"),
    ("script", Lists, "writing seen"),
]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("how", "kind", "operator"), STATEFUL)
def test_each_inference_starts_anew(tmp_path: Path, how: str, kind: Any, operator: str, inside: bool) -> None:
    module = kind().eval()
    model = saved(tmp_path, how, Around(module).eval() if inside else module)
    wanted = own(tmp_path)(torch.from_numpy(ROWS)).detach().numpy()

    assert operator in model.facts.state
    assert not model.facts.random
    for rows in (ROWS, ROWS * 5, ROWS, ROWS + 1, ROWS):
        given = model.infer([rows])[0]
        if rows is ROWS:
            np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("how", ["trace", "export"])
def test_statistics_of_training_do_not_cross_requests(tmp_path: Path, how: str) -> None:
    module = Training(0.0).train()
    model = saved(tmp_path, how, module)

    assert any("batch_norm" in one for one in model.facts.state)
    assert not model.facts.random
    first = model.infer([ROWS])[0]
    model.infer([ROWS * 100])
    np.testing.assert_array_equal(model.infer([ROWS])[0], first)


@pytest.mark.parametrize("how", ["trace", "export"])
def test_a_trained_module_in_use_keeps_nothing(tmp_path: Path, how: str) -> None:
    model = saved(tmp_path, how, Training(0.5).eval())

    assert (model.facts.state, model.facts.random) == ((), ())


@pytest.mark.parametrize("how", ["script", "trace", "export"])
def test_random_operators_are_told(tmp_path: Path, how: str) -> None:
    assert saved(tmp_path, how, Noise().eval()).facts.random == ("aten::rand_like",)


@pytest.mark.parametrize("how", ["trace", "export"])
def test_dropout_of_training_is_random(tmp_path: Path, how: str) -> None:
    assert saved(tmp_path, how, Training(0.5).train()).facts.random == ("aten::dropout",)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_layers_with_memory_of_their_own_keep_nothing(tmp_path: Path, name: str) -> None:
    layer = getattr(torch.nn, name)(4, 4, 2, dropout=0.5, batch_first=True).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(layer, torch.ones(1, 3, 4)).save(str(tmp_path / "model.pt"))

    model = load_engine(find_model(tmp_path), ModelOptions(engine="torch"), "torch")

    assert (model.facts.state, model.facts.random) == ((), ())


def test_a_stateful_module_is_served_with_batches(tmp_path: Path) -> None:
    saved(tmp_path, "script", Counting().eval())
    model = load(find_model(tmp_path), ModelOptions(engine="torch", input_shape=(4,)))

    assert not model.one_by_one
    for _ in range(3):
        np.testing.assert_array_equal(model.predict({"x": ROWS})["output"], ROWS + 1)
