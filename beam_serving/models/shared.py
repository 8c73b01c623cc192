"""One model for all steps and threads of a worker process.

The pipeline loads its model here and not through `DirectoryModelHandler`, its twin for Beam's own `RunInference`:
Beam's module of that name imports torch wherever torch is installed, which costs each worker 3.6 s and 300 MB.
"""

from __future__ import annotations

import dataclasses
import logging
import threading

from apache_beam.utils.shared import Shared

from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.batch_size import best_batch_size
from beam_serving.models.batches import warm_up
from beam_serving.models.opening import open_model
from beam_serving.models.store import PrivateCopy
from beam_serving.telemetry.context import service_context

_LOG = logging.getLogger(__name__)


class WorkerModel:
    """A loaded, warmed-up model and the lock that keeps its users apart: an engine serves one thread at a time.

    `copy` keeps the files that the engine has mapped.
    """

    def __init__(self, model: LoadedModel, batch_size: int = 1, copy: PrivateCopy | None = None) -> None:
        self.model = model
        self.copy = copy
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
        """Give the model of this process; the first call loads it and runs one batch of zeros.

        Raises:
            ModelLoadError: the model cannot be loaded.
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
        batch_size = self._batch_size
        if batch_size is None:
            model, verdict, _ = open_model(self._directory, self._options)
            batch_size = best_batch_size(model, shapes=verdict.shapes if verdict else None)
        options = dataclasses.replace(self._options, full_batch=batch_size)
        model, verdict, copy = open_model(self._directory, options)
        for size in {batch_size, 1}:
            if failure := warm_up(model, size, verdict.shapes if verdict else None):
                _LOG.warning("%s: %s; the first request decides", self._directory, failure)
                break
        stats = service_context().stats
        stats.engine, stats.batch_size = model.engine, batch_size
        return WorkerModel(model, batch_size, copy)
