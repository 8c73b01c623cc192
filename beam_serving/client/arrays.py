"""Arrays as code that was written for Cluster Serving expects them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from beam_serving.client.pandas import to_pandas

if TYPE_CHECKING:
    from pandas import DataFrame


class ResultArray(np.ndarray):
    """An array that is equal to no text.

    Old code asks `result != "[]"` to learn whether there is a result. Since NumPy 1.25 an array compares itself with
    a text element by element, and such a question is an error.
    """

    __hash__ = None

    def __eq__(self, other: object) -> Any:
        return False if isinstance(other, str) else super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        return True if isinstance(other, str) else super().__ne__(other)

    def to_pandas(self) -> "DataFrame":
        """Return a `pandas.DataFrame`; see `beam_serving.client.to_pandas`."""
        return to_pandas(self)


def comparable(reply: object) -> Any:
    """Return a reply whose arrays can be compared with a text."""
    if isinstance(reply, np.ndarray):
        return reply.view(ResultArray)
    return [comparable(output) for output in reply] if isinstance(reply, list) else reply
