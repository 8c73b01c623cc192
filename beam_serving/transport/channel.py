"""One connection held for good, for the two calls of the hot path: reading a batch and committing a batch.

redis-py looks at each argument in Python, checks a connection out and in, and wraps every call in its retries; for
these two that was a third of the time of a small batch. Here arguments go to hiredis as they are, which packs bytes,
text and numbers in C. Errors are redis-py's own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from beam_serving.transport.lua import named_refusal

Argument = bytes | str | int
_CHECK_AFTER_IDLE_S = 1.0


_COUNTED_FROM_BYTES = 1 << 18
"""A reply of less cannot hold many parts."""
_MOST_LINES = 500_000
"""Each part of a reply has two lines or more, and takes a hundred bytes in Python."""


class ReplyTooLargeError(RedisConnectionError):
    """A reply is more than a worker may hold; the connection is closed, the rest was not read."""


class _Meter:
    """A reader of hiredis that takes no more than some bytes and lines of one reply."""

    def __init__(self, reader: Any, most_bytes: int) -> None:
        self.gets, self.has_data, self._feed = reader.gets, reader.has_data, reader.feed
        self._most_bytes = most_bytes
        self.reply_bytes = self._lines = 0

    def restart(self) -> None:
        """Begin with another reply."""
        self.reply_bytes = self._lines = 0

    def feed(self, buffer: bytearray, start: int, length: int) -> None:
        """Take some bytes that came.

        Raises:
            ReplyTooLargeError: there were too many.
        """
        self.reply_bytes += length
        if self.reply_bytes > _COUNTED_FROM_BYTES:
            self._lines += buffer.count(b"\n", start, start + length)
            if self.reply_bytes > self._most_bytes or self._lines > _MOST_LINES:
                raise ReplyTooLargeError(f"a reply of more than {self.reply_bytes} bytes and {self._lines} lines")
        self._feed(buffer, start, length)


def _metered(most_bytes: int) -> type:
    class MeteredParser(DefaultParser):  # type: ignore[misc, valid-type]
        """hiredis behind a meter."""

        def on_connect(self, connection: object, **options: object) -> None:
            super().on_connect(connection, **options)
            self.meter = _Meter(vars(self)["_reader"], most_bytes)
            self._reader: object = self.meter

    return MeteredParser


class Channel:
    """A connection that is opened on its first call, and anew after an error; used by one thread.

    With `most_bytes` a reply of more, or of very many parts, is given up before it is read.
    """

    def __init__(self, client: redis.Redis, most_bytes: int | None = None) -> None:
        connection: Any = client.connection_pool.make_connection()
        self._connection = connection
        self._used_at = 0.0
        self._bounded = most_bytes is not None
        if most_bytes is not None:
            self._connection.set_parser(_metered(most_bytes))

    @property
    def reply_bytes(self) -> int:
        """The size of the last reply, where replies have a limit."""
        meter = getattr(self._connection._parser, "meter", None)
        return meter.reply_bytes if meter else 0

    def call(self, *command: Argument) -> object:
        """Send one command and return its reply as hiredis reads it.

        Raises:
            RedisError: the server cannot be reached or refuses the command.
        """
        self.send(*command)
        return self.receive()

    def send(self, *command: Argument) -> None:
        """Send one command, whose reply must be received before the next one is sent.

        Raises:
            RedisError: the server cannot be reached.
        """
        connection = self._connection
        now = time.monotonic()
        try:
            if now - self._used_at > _CHECK_AFTER_IDLE_S:
                _reopen_if_closed(connection)
            connection.send_packed_command([hiredis.pack_command(command)])  # type: ignore[arg-type]
        except BaseException:
            connection.disconnect()
            raise
        self._used_at = now

    def receive(self) -> Any:
        """Return the reply to the command that was sent, and wait for it where it is not there yet.

        Raises:
            RedisError: the connection broke or the server refuses the command.
        """
        try:
            if self._bounded and (meter := getattr(self._connection._parser, "meter", None)):
                meter.restart()
            return self._connection.read_response()
        except redis.ResponseError:
            raise
        except BaseException:
            # What is still to come on this connection would be taken for the next command's reply.
            self._connection.disconnect()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


def _reopen_if_closed(connection: Any) -> None:
    """Close our end where the server has closed its own, as it may for idle clients; the next command opens it."""
    if not connection.is_connected:
        return
    try:
        if connection.can_read(timeout=0):
            connection.disconnect()
    except RedisConnectionError:
        connection.disconnect()


class Script:
    """A Lua script and the channel it is called on."""

    def __init__(self, channel: Channel, source: str) -> None:
        self._channel = channel
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def run(self, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Run the script, loading it where the server does not know it, and return what it returns: mostly a number.

        Raises:
            RedisError: the server cannot be reached or the script failed; see `scripts.evaluate`.
        """
        try:
            try:
                return self._channel.call("EVALSHA", self._sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return self._channel.call("EVAL", self._source, len(keys), *keys, *arguments)
        except redis.ResponseError as err:
            raise named_refusal(self._source, err) from err

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
