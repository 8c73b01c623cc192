"""Which workers of a machine hold requests: one byte for each, in memory that they share with their supervisor.

A worker sets its own byte from the delivery of a read batch to the commit of its results, and asks whether the others
are clear. Nothing is locked: a byte that is read too early or too late costs speed and changes no result.
"""

from __future__ import annotations

import logging
import mmap
import os
from typing import NamedTuple

_log = logging.getLogger(__name__)
_IDLE, _BUSY = 0, 1


class BusyFile(NamedTuple):
    """Where a worker finds the bytes, and which of them is its own, counted from 0."""

    path: str
    place: int


class BusyBytes:
    """The bytes of one service as its supervisor holds them.

    Their file is in no folder: it is reached as one that this process has open, and is gone with the last who has.
    """

    def __init__(self, workers: int) -> None:
        self._descriptor = os.memfd_create("beam-serving-busy")
        os.ftruncate(self._descriptor, workers)
        self._bytes = mmap.mmap(self._descriptor, workers)

    def file_of(self, place: int) -> BusyFile:
        """Return what the worker of this place opens."""
        return BusyFile(f"/proc/{os.getpid()}/fd/{self._descriptor}", place)

    def clear(self, place: int) -> None:
        """Mark a worker as idle that cannot do so any more."""
        self._bytes[place] = _IDLE

    def busy(self) -> list[int]:
        """Return the places of the workers that hold requests."""
        return [place for place, state in enumerate(self._bytes[:]) if state == _BUSY]

    def close(self) -> None:
        """Let go of the file; workers that have opened it keep it."""
        self._bytes.close()
        os.close(self._descriptor)


class OwnByte:
    """The byte of this worker among those of its machine."""

    def __init__(self, states: mmap.mmap | bytearray, place: int) -> None:
        self._states = states
        self._place = place

    @classmethod
    def of(cls, file: BusyFile | None) -> OwnByte:
        """Open the bytes.

        Args:
            file: where they are; None where nobody shares them.

        Returns:
            The byte; where the file is none or cannot be opened one that has a neighbour which is never idle.
        """
        if file is not None:
            try:
                descriptor = os.open(file.path, os.O_RDWR | os.O_CLOEXEC)
                with os.fdopen(descriptor, "r+b", buffering=0) as opened:
                    return cls(mmap.mmap(opened.fileno(), 0), file.place)
            except (OSError, ValueError) as err:
                _log.info("cannot see whether other workers are idle, so no request gets all cores: %s", err)
        return cls(bytearray((_IDLE, _BUSY)), 0)

    def set(self, busy: bool) -> None:
        """Set whether this worker holds requests."""
        self._states[self._place] = busy

    def others_idle(self) -> bool:
        """Return whether no other worker of this machine holds requests."""
        return self._states[:].count(_BUSY) == self._states[self._place]
