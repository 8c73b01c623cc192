"""Who reads, and until when: what differs between the runners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from beam_serving.telemetry.busy import BusyFile

FN_API_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Beam's runner of one machine: it reads an unbounded source until it is stopped and a bounded one to its end."""


class Readers(NamedTuple):
    """Who reads: one reader for each name.

    Attributes:
        names: of the consumers in the group. Whoever carries a name owns what is pending under it, so no two living
            readers may have the same, whichever process they are in. Where `bounded`, there are as many readers as
            names, and all carry the first one: where there are several, `names_are_shared` must be true.
        drain: a reader ends when nothing is queued or pending any more, under whichever consumer; else when it is told.
        names_are_shared: each reader appends eight hexadecimal digits to its name, new ones for each bundle: for a
            runner that starts failed work again by itself, which could have two readers of one name alive at a time.
        bounded: the source ends, for a runner that knows no endless one: it reads in one bundle and hands no rest over.
        busy: where a reader tells the other workers of its machine that it holds requests; None where they do not ask.
    """

    names: Sequence[str]
    drain: bool = False
    names_are_shared: bool = False
    bounded: bool = False
    busy: BusyFile | None = None
