"""Results as tables, for those who have pandas."""

import math
from typing import TYPE_CHECKING

import numpy as np

from beam_serving.client.endpoint import FAILED, NOTHING_YET
from beam_serving.errors import ClientError, InputError, ResultError

if TYPE_CHECKING:
    from pandas import DataFrame


def to_pandas(results: object) -> "DataFrame":
    """Return a `pandas.DataFrame` of what `query`, `query_many` or `dequeue` gave.

    Args:
        results: one result, or a mapping or list of them.

    Returns:
        A table. Best classes are rows with the columns `class` and `score`, a tensor of numbers or texts has its first
        axis as rows and the others as columns (one column `value` where it has no others), an error is a row with the
        column `error`. Results by uri and outputs by name are put below each other, with the uri or name as a level of
        the index.

    Raises:
        ClientError: pandas is not installed.
        InputError: these are no results, as None, "[]" and "NaN" are not.
    """
    try:
        import pandas
    except ImportError as err:
        raise ClientError("a DataFrame needs pandas: pip install 'beam-serving[pandas]'") from err
    if isinstance(results, ResultError):
        return pandas.DataFrame({"error": [str(results)]})
    if isinstance(results, str) and results not in (NOTHING_YET, FAILED):
        return pandas.DataFrame({"value": [results]})
    if isinstance(results, np.ndarray):
        rows = np.atleast_1d(np.asarray(results))
        rows = rows.reshape(len(rows), math.prod(rows.shape[1:])) if rows.ndim > 1 else rows
        return pandas.DataFrame(rows) if rows.ndim > 1 else pandas.DataFrame({"value": rows})
    if isinstance(results, list):
        results = dict(enumerate(results))
    if not isinstance(results, dict):
        raise InputError(f"{type(results).__name__} {str(results)[:64]!r} is no result")
    if all(isinstance(score, float) for score in results.values()):
        return pandas.DataFrame({"class": list(results), "score": list(results.values())})
    return pandas.concat({name: to_pandas(result) for name, result in results.items()})
