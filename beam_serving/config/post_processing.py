"""What of a model's output is served: its best classes, its first rows or all of it, as Cluster Serving's files say."""

import re
from typing import NamedTuple

from beam_serving.config.own_code import is_own_code

_FORM = re.compile(r"\s*(?:(?P<none>none)|(?P<step>topn|picktopn)\s*\(\s*(?P<n>[1-9]\d{0,8})\s*\))\s*", re.IGNORECASE)

WANTED = "wants topN(n), pickTopN(n) or none, with n above 0, or file.py:function"


class PostProcessing(NamedTuple):
    """The `n` best classes of each output, or its first `n` `rows`; n = 0 is the whole output.

    Clients of protocol version IMAGE get it as JSON lists, as 0.8 wrote it, where `as_lists`, else as that of 0.7.
    """

    n: int
    rows: bool = False
    as_lists: bool = False

    @classmethod
    def of(cls, text: str) -> "PostProcessing":
        """Read `topN(5)`, `pickTopN(10)` or `none`.

        Raises:
            ValueError: it is something else.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(WANTED)
        return cls(int(match["n"] or 0), rows=(match["step"] or "").lower() == "picktopn", as_lists=True)


def checked(value: object) -> object:
    """Return a value of the configuration: a rule, or a function of the operator's; None is unset.

    Raises:
        ValueError: it is neither.
    """
    if value is None or is_own_code(value):
        return value
    if not isinstance(value, str):
        raise ValueError(WANTED)
    PostProcessing.of(value)
    return value
