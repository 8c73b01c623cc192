"""The form of a model for a record that is alone on the machine: computed on all cores, to the same bits."""

import logging
import threading
from collections.abc import Callable, Mapping
from itertools import chain

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import EngineModel, LoadedModel
from beam_serving.models.trial.samples import records
from beam_serving.telemetry.context import service_context

_LOG = logging.getLogger(__name__)
_RECORDS = 2


class AloneForm:
    """Made beside the ordinary form when it is first wanted: under load nobody pays for a second copy of the weights.

    A thread of its own compiles it and compares it with the ordinary form: no request waits for that, but for one
    inference of the ordinary form, which serves one thread at a time.
    """

    def __init__(
        self,
        engine: EngineModel,
        batched: Callable[[EngineModel], LoadedModel],
        ordinary: LoadedModel,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._engine = engine
        self._batched = batched
        self._ordinary = ordinary
        self._shapes = shapes
        self._making: threading.Thread | None = None
        self._form: LoadedModel | None = None

    def ready(self, lock: threading.Lock) -> LoadedModel | None:
        """Return the form; None until it is made, which the first call begins, and where it gives other bits.

        Args:
            lock: held by whoever uses the ordinary form.
        """
        if self._making is None:
            self._making = threading.Thread(target=self._make, args=(lock,), name="alone")
            self._making.start()
            return None
        return self._form

    def wait(self) -> None:
        """Wait until what `ready` began has been made, or could not be."""
        if self._making is not None:
            self._making.join()

    def _make(self, lock: threading.Lock) -> None:
        engine = self._engine
        del self._engine
        try:
            engine.compile()
            engine.settle()
            form = self._batched(engine)
            if self._gives_the_same_bits(form, lock):
                self._form = form
        except (ModelError, ModelLoadError) as err:
            _as_any_other(err)

    def _gives_the_same_bits(self, form: LoadedModel, lock: threading.Lock) -> bool:
        """Compare on invented records, so that nobody's result depends on who else sends requests.

        More threads may add numbers up in another order. A service that stops is not waited for.

        Raises:
            ModelError, ModelLoadError: a form failed.
        """
        for record in chain.from_iterable(records(self._ordinary.inputs, self._shapes, _RECORDS)):
            batch = {name: array[np.newaxis] for name, array in record.items()}
            one = form.predict(batch)
            with lock:
                other = self._ordinary.predict(batch)
            if any(one[name].tobytes() != array.tobytes() for name, array in other.items()):
                _as_any_other("on more threads results are not the same")
                return False
            if service_context().stop.is_set():
                return False
        return True


def _as_any_other(reason: object) -> None:
    _LOG.debug("a record that is alone is computed as any other: %s", reason)
