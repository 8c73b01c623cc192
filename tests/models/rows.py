"""What each record gets from a model that serves several, beside what it gets alone."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from beam_serving.models.base import STRING, EngineModel, LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import alike, predict_batch
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load, load_engine, probe
from beam_serving.models.trial.batch_axis import Plan, axis_of
from beam_serving.models.trial.compare import equal

Record = dict[str, np.ndarray]
GROUPINGS = st.lists(st.integers(1, 7), min_size=1, max_size=4)
SPREADS = st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4])
"""Magnitudes of the records' values; 0 makes all records equal."""
_FREE_SIZE = 5


def drawn(seed: int, specs: Sequence[TensorSpec], count: int, spread: float) -> list[Record]:
    """Give records; a spread of 0 makes them all equal."""
    generator = np.random.default_rng(seed)
    first = {spec.name: _value(generator, spec, 1.0) for spec in specs}
    return [
        {spec.name: _value(generator, spec, spread) if spread else first[spec.name] for spec in specs}
        for _ in range(count)
    ]


def _value(generator: np.random.Generator, spec: TensorSpec, spread: float) -> np.ndarray:
    shape = tuple(size or _FREE_SIZE for size in spec.shape or ())
    if spec.dtype == STRING:
        texts = np.array(["", "a", "7", "ein längerer Text, über sechzehn Bytes"], object)
        return np.asarray(generator.choice(texts, shape), object)
    if spec.dtype.kind in "iu":
        return np.asarray(generator.integers(0, 10, shape), spec.dtype)
    return np.asarray(generator.normal(size=shape) * spread, spec.dtype)


class Served(NamedTuple):
    """A model that serves, and the same one as its engine has it."""

    model: LoadedModel
    engine: EngineModel
    plan: Plan
    options: ModelOptions

    def check(self, seed: int, groups: Sequence[int], spread: float) -> None:
        """Serve unequal records in groups and compare each with what it gets alone."""
        records = iter(drawn(seed, self.model.inputs, sum(groups), spread))
        for count in groups:
            group = list(itertools.islice(records, count))
            for places in alike(group, self.model.one_by_one):
                outputs = predict_batch(self.model, [group[place] for place in places])
                for row, place in enumerate(places):
                    self._compare({name: output[row, ...] for name, output in outputs.items()}, group[place])

    def _compare(self, got: Mapping[str, np.ndarray], record: Record) -> None:
        for (name, output), own in zip(got.items(), self._alone(record), strict=True):
            assert output.size == own.size, f"{name}: {output.shape} of {own.shape} ({self.plan})"
            assert equal(output.reshape(-1), own.reshape(-1)), f"{name}: {output} is not {own} ({self.plan})"

    def _alone(self, record: Record) -> list[np.ndarray]:
        """Give what the engine makes of one record: alone, or of as many of it as its fixed batch has."""
        given, arrays = self.options.constants, []
        inputs = [spec for spec in self.engine.inputs if spec.name not in given]
        size = axis_of(inputs, self.options.batch_axis).size or 1
        for spec in self.engine.inputs:
            array = np.array(given[spec.name], spec.dtype) if spec.name in given else record[spec.name]
            if self.plan.kind != "whole" and spec.shape != () and spec.name not in given:
                array = np.stack([array] * size, min(self.plan.axis, array.ndim))
            arrays.append(np.asarray(array, order="C"))
        outputs = self.engine.infer(arrays)
        is_cut = self.plan.kind != "whole" and size > 1
        return [np.take(output, [0], min(self.plan.axis, output.ndim - 1)) if is_cut else output for output in outputs]


def served(directory: Path, options: ModelOptions) -> Served:
    """Load a model as it is served.

    Raises:
        ModelLoadError: it is refused.
    """
    files = find_model(directory)
    verdict = probe(files, options)
    return Served(load(files, options, verdict), load_engine(files, options, verdict.engine), verdict.plan, options)
