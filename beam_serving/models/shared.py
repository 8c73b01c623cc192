"""One model for all steps and threads of a worker process.

The pipeline loads its model here and not through `DirectoryModelHandler`, its twin for Beam's own `RunInference`:
Beam's module of that name imports torch wherever torch is installed, which costs each worker 3.6 s and 300 MB.
"""

from __future__ import annotations

import threading

from apache_beam.utils.shared import Shared

from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.batches import warm_up
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load
from beam_serving.stats import stats_of_process


class WorkerModel:
    """A loaded, warmed-up model and the lock that keeps its users apart: an engine serves one thread at a time."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.lock = threading.Lock()


class SharedModel:
    """Travels with the pipeline to the workers, where `acquire` loads the model once per process."""

    def __init__(self, directory: str, options: ModelOptions, batch_size: int) -> None:
        self._directory = directory
        self._options = options
        self._batch_size = batch_size
        self._shared = Shared()

    def acquire(self) -> WorkerModel:
        """Gives the model of this process; the first call loads it and runs one batch of zeros.

        Raises:
            ModelLoadError: the model cannot be loaded, or the trial failed.
        """
        model: WorkerModel = self._shared.acquire(self._load)
        return model

    def _load(self) -> WorkerModel:
        model = load(find_model(self._directory, self._options.engine), self._options)
        warm_up(model, self._batch_size)
        stats_of_process().engine = model.engine
        return WorkerModel(model)
