"""Tells whoever started this process that it serves, in the way of systemd's services (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger(__name__)
READY = b"READY=1"
VARIABLE = "NOTIFY_SOCKET"


def tell_ready() -> None:
    """Send one datagram to the socket that `NOTIFY_SOCKET` names; do nothing where there is none."""
    address = os.environ.get(VARIABLE)
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # A leading @ stands for the zero byte of Linux's abstract addresses.
            sender.sendto(READY, "\0" + address[1:] if address.startswith("@") else address)
    except OSError as err:
        _log.debug("cannot tell %s that we are ready: %s", address, err)
