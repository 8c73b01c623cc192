"""Tells whoever started this process how it stands, in the way of systemd's services (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)
READY = b"READY=1"
VARIABLE = "NOTIFY_SOCKET"
_is_ready = threading.Event()


def tell_ready() -> None:
    """Tell that the service is ready, for the first time or again."""
    _is_ready.set()
    _tell(READY)


@contextmanager
def reloading() -> Iterator[None]:
    """Tell that something is opened anew, and then that the service is ready as before, if it was."""
    if not _is_ready.is_set():
        yield
        return
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}".encode())
    try:
        yield
    finally:
        if _is_ready.is_set():
            _tell(READY)


def tell_stopping() -> None:
    """Tell that the service is about to end."""
    _is_ready.clear()
    _tell(b"STOPPING=1")


def _tell(state: bytes) -> None:
    """Send one datagram to the socket that `NOTIFY_SOCKET` names; do nothing where there is none."""
    address = os.environ.get(VARIABLE)
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # A leading @ stands for the zero byte of Linux's abstract addresses.
            sender.sendto(state, "\0" + address[1:] if address.startswith("@") else address)
    except OSError as err:
        _log.debug("cannot tell %s %s: %s", address, state, err)
