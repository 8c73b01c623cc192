"""What the requests and results of one version of the protocol are: the seam where another one is added."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_serving.protocol.limits import Limits
from beam_serving.records import Answer, Image, Ranked

Fields = Mapping[bytes, bytes]
Names = Collection[bytes]
Inputs = dict[str, Image | np.ndarray]


class Codec(NamedTuple):
    """The bytes of one version of the protocol, as pure functions; `beam_serving.protocol.CODECS` holds all of them.

    Attributes:
        protocol: its name, which no other codec has; it travels with each record to its result.
        matches: whether an entry is of this form, by the names of its fields; the first codec that says so decodes it.
        decode_inputs: returns the inputs by name (float32 or whatever was sent, shaped as sent). Raises RequestError.
        encode_answer: returns the fields of a result. Raises ModelError where this client could not read it.
        encode_failure: returns the fields beside `error` that tell this client of a failure.
        encode_ranked: returns the fields of many results by columns, equal to `encode_answer` of each; None where
            results are encoded one by one.
    """

    protocol: str
    matches: Callable[[Names], bool]
    decode_inputs: Callable[[Fields, Limits], Inputs]
    encode_answer: Callable[[Answer], dict[bytes, bytes]]
    encode_failure: Callable[[str], dict[bytes, bytes]]
    encode_ranked: Callable[[Ranked], dict[bytes, Sequence[bytes]]] | None = None
