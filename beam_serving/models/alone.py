"""The form of a model for a record that is alone on the machine: computed on all cores, to the same bits."""

import logging
import threading
from collections.abc import Callable, Mapping

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import EngineModel, LoadedModel
from beam_serving.models.trial.samples import records

_LOG = logging.getLogger(__name__)
_RECORDS = 2


class AloneForm:
    """Made beside the ordinary form when it is first wanted: under load nobody pays for a second copy of the weights.

    It is compiled on a thread of its own: that takes about as long as the load of the model, and a core is idle then.
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
        self._compiling: threading.Thread | None = None
        self._compiled: LoadedModel | None = None
        self._form: LoadedModel | None = None

    def ready(self) -> LoadedModel | None:
        """Return the form; None until it is compiled, which the first call begins, and where it gives other bits.

        It is compared with the ordinary form here, which nobody else may use meanwhile.
        """
        if self._compiling is None:
            self._compiling = threading.Thread(target=self._compile, name="alone")
            self._compiling.start()
            return None
        if self._compiled is not None:
            compiled, self._compiled = self._compiled, None
            self._form = compiled if self._gives_the_same_bits(compiled) else None
        return self._form

    def wait(self) -> None:
        """Wait until what `ready` began has been compiled, or could not be."""
        if self._compiling is not None:
            self._compiling.join()

    def _compile(self) -> None:
        try:
            self._engine.compile()
        except ModelLoadError as err:
            _as_any_other(err)
            return
        finally:
            engine = self._engine
            del self._engine
        engine.settle()
        self._compiled = self._batched(engine)

    def _gives_the_same_bits(self, form: LoadedModel) -> bool:
        """Compare on invented records, so that nobody's result depends on who else sends requests.

        More threads may add numbers up in another order.
        """
        for some in records(self._ordinary.inputs, self._shapes, _RECORDS):
            for record in some:
                batch = {name: array[np.newaxis] for name, array in record.items()}
                try:
                    one, other = form.predict(batch), self._ordinary.predict(batch)
                except (ModelError, ModelLoadError) as err:
                    _as_any_other(err)
                    return False
                if any(one[name].tobytes() != array.tobytes() for name, array in other.items()):
                    _as_any_other("on more threads results are not the same")
                    return False
        return True


def _as_any_other(reason: object) -> None:
    _LOG.debug("a record that is alone is computed as any other: %s", reason)
