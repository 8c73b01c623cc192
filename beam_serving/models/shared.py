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
from beam_serving.models.batches import check_shapes, warm_up
from beam_serving.models.cpu import available_cores
from beam_serving.models.info import ModelInfo
from beam_serving.models.opening import open_model
from beam_serving.models.store import PrivateCopy
from beam_serving.models.trial.batch_axis import BatchedModel
from beam_serving.telemetry.busy import BusyFile, OwnByte
from beam_serving.telemetry.context import service_context

_LOG = logging.getLogger(__name__)
_SURELY_ALONE = 3


class WorkerModel:
    """A loaded, warmed-up model and the lock that keeps its users apart: an engine serves one thread at a time.

    `copy` keeps the files that the engine has mapped. `byte` tells whether the other workers of the machine are idle.
    """

    def __init__(
        self,
        model: LoadedModel,
        batch_size: int = 1,
        copy: PrivateCopy | None = None,
        byte: OwnByte | None = None,
    ) -> None:
        self.model = model
        self.copy = copy
        self.batch_size = batch_size
        self.lock = threading.Lock()
        self._byte = byte
        self._alone = model.alone if byte is not None and isinstance(model, BatchedModel) else None
        self._lone_in_a_row = 0
        self._stats = service_context().stats

    def form_for(self, records: int) -> LoadedModel:
        """Return the form of the model that predicts the next batch, of so many records.

        A record that is alone on the machine gets the form that computes on all cores, from the third such record of
        this worker in a row: where two clients wait for their answers, each worker is idle now and then, too.
        """
        if self._alone is None or self._byte is None:
            return self.model
        if records != 1 or not self._byte.others_idle():
            self._lone_in_a_row = 0
            return self.model
        self._lone_in_a_row += 1
        if self._lone_in_a_row < _SURELY_ALONE:
            return self.model
        form = self._alone.ready(self.lock)
        if form is None:
            return self.model
        self._stats.counts["alone"] += 1
        return form


class SharedModel:
    """Travels with the pipeline to the workers, where `acquire` loads the model once per process.

    Without a `batch_size` the one that serves most records per second is measured. With `busy`, the bytes of the
    workers of this machine, a record that is alone there is predicted on all cores, where the model has a form for it.
    """

    def __init__(
        self, directory: str, options: ModelOptions, batch_size: int | None, busy: BusyFile | None = None
    ) -> None:
        self._directory = directory
        self._options = options
        self._batch_size = batch_size
        self._busy = busy
        self._shared = Shared()

    def acquire(self) -> WorkerModel:
        """Return the model of this process; the first call loads it and runs one batch of zeros.

        Raises:
            ModelLoadError: the model cannot be loaded.
        """
        model: WorkerModel = self._shared.acquire(self._load)
        return model

    def batch_size(self) -> int:
        """Return the batch size that was asked for, or else the best one of this process.

        Raises:
            ModelLoadError: the model had to be loaded for that, and cannot be.
        """
        return self.acquire().batch_size if self._batch_size is None else self._batch_size

    def _load(self) -> WorkerModel:
        batch_size = self._batch_size
        if batch_size is None:
            model, verdict, _ = open_model(self._directory, self._options)
            batch_size = best_batch_size(model, shapes=verdict.shapes if verdict else None)
        alone_threads = 0 if self._busy is None else available_cores()
        options = dataclasses.replace(self._options, full_batch=batch_size, alone_threads=alone_threads)
        model, verdict, copy = open_model(self._directory, options)
        check_shapes(model, options, verdict.shapes if verdict else None)
        for size in {batch_size, 1}:
            if failure := warm_up(model, size, verdict.shapes if verdict else None):
                _LOG.warning("%s: %s; the first request decides", self._directory, failure)
                break
        stats = service_context().stats
        stats.engine, stats.batch_size = model.engine, batch_size
        inputs = ModelInfo.of(model, batch_size).encode()["inputs"]
        stats.inputs = [{key: spec[key] for key in ("name", "shape", "dtype")} for spec in inputs]
        return WorkerModel(model, batch_size, copy, None if self._busy is None else OwnByte.of(self._busy))
