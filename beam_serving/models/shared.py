"""One model for all steps and threads of a worker process.

The pipeline loads its model here and not through `DirectoryModelHandler`, its twin for Beam's own `RunInference`:
Beam's module of that name imports torch wherever torch is installed, which costs each worker 3.6 s and 300 MB.
"""

from __future__ import annotations

import dataclasses
import threading

from apache_beam.utils.shared import Shared

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import STRING, LoadedModel, ModelOptions
from beam_serving.models.batch_size import best_batch_size
from beam_serving.models.batches import warm_up
from beam_serving.models.encrypted import opened_model
from beam_serving.models.loading import load
from beam_serving.stats import stats_of_process


class WorkerModel:
    """A loaded, warmed-up model and the lock that keeps its users apart: an engine serves one thread at a time."""

    def __init__(self, model: LoadedModel, batch_size: int = 1) -> None:
        self.model = model
        self.batch_size = batch_size
        self.lock = threading.Lock()


class SharedModel:
    """Travels with the pipeline to the workers, where `acquire` loads the model once per process.

    Without a `batch_size` the one that serves most records per second is measured.
    """

    def __init__(self, directory: str, options: ModelOptions, batch_size: int | None) -> None:
        self._directory = directory
        self._options = options
        self._batch_size = batch_size
        self._shared = Shared()

    def acquire(self) -> WorkerModel:
        """Gives the model of this process; the first call loads it and runs one batch of zeros.

        Raises:
            ModelLoadError: the model cannot be loaded, the trial failed, or it gives text.
        """
        model: WorkerModel = self._shared.acquire(self._load)
        return model

    def batch_size(self) -> int:
        """Gives the batch size that was asked for, or else the best one of this process.

        Raises:
            ModelLoadError: the model had to be loaded for that, and cannot be.
        """
        return self.acquire().batch_size if self._batch_size is None else self._batch_size

    def _load(self) -> WorkerModel:
        with opened_model(self._directory, self._options) as files:
            batch_size = self._batch_size or best_batch_size(load(files, self._options))
            model = load(files, dataclasses.replace(self._options, full_batch=batch_size))
        warm_up(model, batch_size)
        if batch_size > 1:
            warm_up(model, 1)
        if texts := [spec.name for spec in model.outputs if spec.dtype == STRING]:
            remedy = "name the others in model: outputs"
            raise ModelLoadError(
                f"{self._directory}: output {texts[0]!r} is text, which results do not carry; {remedy}"
            )
        stats = stats_of_process()
        stats.engine, stats.batch_size = model.engine, batch_size
        return WorkerModel(model, batch_size)
