"""Who reads, and until when: what differs between the runners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from beam_serving.telemetry.busy import BusyFile

FN_API_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Beam's runner of one machine: it reads an unbounded source until it is stopped and a bounded one to its end."""


class Readers(NamedTuple):
    """One reader for each of the names that it reads under.

    With `drain` a reader ends when nothing is queued or pending any more, else it never does. A runner that starts
    failed work again by itself could have two readers of one name alive at a time: with `names_are_shared` each appends
    something of its own to the name, for each bundle. A runner that knows no endless source gets a `bounded` one.
    `busy` is where a reader tells the other workers of its machine that it holds requests; None where they do not ask.
    """

    names: Sequence[str]
    drain: bool = False
    names_are_shared: bool = False
    bounded: bool = False
    busy: BusyFile | None = None
