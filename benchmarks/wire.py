"""A connection to Redis with next to nothing around it: the load generator must not take the cores it measures."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import hiredis

from beam_serving.errors import ConnectError
from beam_serving.transport.connection import PASSWORD_VARIABLE

_READ_BYTES = 1 << 16
Part = bytes | str | int


def packed(*command: Part) -> bytes:
    """Return a command as it goes over the wire."""
    command_bytes: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return command_bytes


class Wire:
    """Sends packed commands and reads replies, in order; for one thread."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        if password := os.environ.get(PASSWORD_VARIABLE):
            self.ask("AUTH", password)

    def send(self, commands: Sequence[bytes]) -> None:
        """Send commands whose replies are read later."""
        self._socket.sendall(b"".join(commands))

    def ask(self, *command: Part) -> Any:
        """Send one command and return its reply."""
        self.send([packed(*command)])
        return self.read()

    def read(self) -> Any:
        """Return the next reply.

        Raises:
            ConnectError: none came in time, the connection ended, or it is an error.
        """
        while (reply := self._reader.gets()) is False:
            self._fill()
        if isinstance(reply, hiredis.ReplyError):
            raise ConnectError(f"Redis refuses what the benchmark asks of it: {reply}")
        return reply

    def read_all(self) -> list[Any]:
        """Wait for a reply and return it with all others that have come."""
        replies = [self.read()]
        while (reply := self._reader.gets()) is not False:
            replies.append(reply)
        return replies

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _fill(self) -> None:
        try:
            received = self._socket.recv(_READ_BYTES)
        except TimeoutError as err:
            raise ConnectError(f"no reply from Redis within {self._socket.gettimeout():g} s") from err
        if not received:
            raise ConnectError("Redis closed the connection of the benchmark")
        self._reader.feed(received)
