"""The batch size that serves most: measured on the model itself, on this machine, beside the other workers."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from beam_serving.errors import ModelError
from beam_serving.models.base import LoadedModel
from beam_serving.models.batches import trial_batch

_LOG = logging.getLogger(__name__)
SIZES = (1, 2, 4, 8, 16, 32, 64)
_WITHIN_S = 2.0
_GOOD_ENOUGH = 0.97
"""Of several sizes that serve about the same, the smallest answers soonest."""


def best_batch_size(
    model: LoadedModel,
    clock: Callable[[], float] = time.perf_counter,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> int:
    """Return the size of `SIZES` with the most records per second, measured for about two seconds in all.

    A size that takes too long to try, or that the model refuses, ends the search. `shapes` are as in `warm_up`.
    """
    rates = dict(_rates(model, clock, shapes))
    enough = _GOOD_ENOUGH * max(rates.values(), default=0.0)
    best = next((size for size, rate in rates.items() if rate >= enough), 1)
    measured = ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items())
    _LOG.info("batch size %d serves most, in records/s by batch size: %s", best, measured)
    return best


def _rates(
    model: LoadedModel, clock: Callable[[], float], shapes: Mapping[str, tuple[int, ...]] | None
) -> Iterator[tuple[int, float]]:
    give_up_at = clock() + _WITHIN_S
    record_s = 0.0
    for size in SIZES[:1] if model.one_by_one else SIZES:
        batch = trial_batch(model.inputs, size, shapes)
        # Once to set itself up and once to be timed.
        if clock() + 2 * size * record_s > give_up_at:
            return
        try:
            model.predict(batch)
            started, runs = clock(), 0
            until = started + (give_up_at - started) / (len(SIZES) - SIZES.index(size))
            while not runs or clock() < until:
                model.predict(batch)
                runs += 1
        except ModelError as err:
            _LOG.info("a batch of %d fails: %s", size, err)
            return
        record_s = (clock() - started) / (runs * size)
        yield size, 1 / record_s
