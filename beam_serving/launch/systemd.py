"""Tells whoever started this process how it stands, in the way of systemd's services (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket
import time

_log = logging.getLogger(__name__)
READY = b"READY=1"
VARIABLE = "NOTIFY_SOCKET"


def tell_ready() -> None:
    """Tell that the service is ready, for the first time or again."""
    _tell(READY)


def tell_reloading() -> None:
    """Tell that something is read or opened anew; `tell_ready` follows."""
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}".encode())


def tell_stopping() -> None:
    """Tell that the service is about to end."""
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
