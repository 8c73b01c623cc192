"""The form of a model for a record that is alone on the machine: computed on all cores, to the same bits."""

import logging

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import EngineModel, ModelOptions, Widening
from beam_serving.models.trial.batch_axis import BatchedModel
from beam_serving.models.trial.probing import Verdict
from beam_serving.models.trial.samples import records

_LOG = logging.getLogger(__name__)
_RECORDS = 2


def widened_form(engine: EngineModel, options: ModelOptions, verdict: Verdict) -> EngineModel | None:
    """Return the engine's form for one record on `alone_threads`; None without one, or where rows stay together."""
    if options.alone_threads < 2 or not isinstance(engine, Widening):
        return None
    plan = verdict.plan
    one_in_front = plan.kind in ("rows", "single") and plan.axis == 0 and plan.proven
    if not one_in_front or verdict.shapes is None or verdict.random or verdict.state:
        return None
    return engine.widened(options.alone_threads)


def same_or_none(widened: BatchedModel, ordinary: BatchedModel, verdict: Verdict) -> BatchedModel | None:
    """Return the form for one record where it gives what the ordinary one gives, bit by bit: else None.

    So nobody's result depends on who else sends requests. More threads may add numbers up in another order.
    """
    for some in records(ordinary.inputs, verdict.shapes or {}, _RECORDS):
        for record in some:
            batch = {name: array[np.newaxis] for name, array in record.items()}
            try:
                one, other = widened.predict(batch), ordinary.predict(batch)
            except (ModelError, ModelLoadError) as err:
                _LOG.debug("a record that is alone is computed as any other: %s", err)
                return None
            if any(one[name].tobytes() != array.tobytes() for name, array in other.items()):
                _LOG.debug("a record that is alone is computed as any other: on more threads results are not the same")
                return None
    return widened
