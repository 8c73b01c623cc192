"""Dead letters: the requests that were given up, in `<stream>:dead` beside each stream.

`WriteToRedis` puts them there, the newest within bounds (`beam_serving.io.sink.DeadLetters`). Here an operator looks at
them, queues them again or removes them. Contents stay in Redis: of each letter only what it says of itself is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import redis

from beam_serving.io.scripts import DEAD_LETTERS, RETRY_DEAD_LETTER
from beam_serving.transport.keys import DEAD_LETTERS as SUFFIX
from beam_serving.transport.keys import result_key
from beam_serving.transport.lua import evaluate

_FIRST_PAGE, _PAGE, _PAGE_BYTES = 8, 512, 8 << 20
_VALUE_BYTES = 4096
_DROPPED_AT_ONCE = 512
_GONE, _CUT = 0, -1


class DeadLetter(NamedTuple):
    """A request that was given up.

    Attributes:
        stream: that it came by.
        letter_id: of the letter, which begins with the time of its end in ms.
        uri: of the request, empty where it had none.
        request_id: likewise.
        reason: why it was given up.
        cut: what is left out of the letter; empty where it holds the whole request.
        fields: the names of the request's fields and the bytes of their values.
    """

    stream: str
    letter_id: str
    uri: bytes
    request_id: bytes
    reason: str
    cut: str
    fields: tuple[tuple[bytes, int], ...]

    @property
    def died_at_s(self) -> float:
        """When it was given up, in seconds by the clock of Redis."""
        return int(self.letter_id.partition("-")[0]) / 1000

    @property
    def size_bytes(self) -> int:
        """Bytes of the request in the letter."""
        return sum(len(name) + size for name, size in self.fields)

    @property
    def whole(self) -> bool:
        """Whether it can be queued again."""
        return not self.cut and bool(self.fields)

    @property
    def result_key(self) -> bytes:
        """Where its client looks for the result."""
        protocol = "image" if any(name == b"image" for name, _ in self.fields) else ""
        return result_key(protocol, self.stream.encode(), self.uri)


def count_dead_letters(client: redis.Redis, stream: str) -> int:
    """Count the dead letters of a stream."""
    return int(client.xlen(stream.encode() + SUFFIX))


def read_dead_letters(client: redis.Redis, stream: str) -> Iterator[DeadLetter]:
    """Yield the dead letters of a stream, the newest first; about 8 MB are looked at at a time."""
    newest, count = b"+", _FIRST_PAGE
    while True:
        reply: Any = evaluate(client, DEAD_LETTERS, 1, stream.encode() + SUFFIX, newest, count, _VALUE_BYTES)
        size_bytes, page = reply
        yield from (_letter(stream, letter_id.decode(), fields) for letter_id, fields in page)
        if len(page) < count:
            return
        newest = b"(" + page[-1][0]
        count = max(1, min(_PAGE, 2 * count, _PAGE_BYTES * count // (size_bytes + 1)))


def contents(client: redis.Redis, stream: str, letter_id: str) -> dict[bytes, bytes]:
    """Return all fields of a dead letter, the reason as `error` among them; none where there is no such letter."""
    found: Any = client.xrange(stream.encode() + SUFFIX, letter_id, letter_id)
    return dict(found[0][1]) if found else {}


def retry(client: redis.Redis, letter: DeadLetter) -> str | None:
    """Put a request back on its stream and remove its dead letter, at once or not at all.

    Args:
        client: of the server.
        letter: one that was read.

    Returns:
        None where it is queued again, else why it is not: the letter is gone, or does not hold the whole request.
    """
    stream = letter.stream.encode()
    done = evaluate(client, RETRY_DEAD_LETTER, 3, stream, stream + SUFFIX, letter.result_key, letter.letter_id.encode())
    if done == _CUT:
        return letter.cut or "it has nothing of the request"
    return "it is gone" if done == _GONE else None


def drop(client: redis.Redis, stream: str, letter_ids: Sequence[str]) -> int:
    """Remove dead letters; return how many were there."""
    return sum(
        int(client.xdel(stream.encode() + SUFFIX, *letter_ids[first : first + _DROPPED_AT_ONCE]))
        for first in range(0, len(letter_ids), _DROPPED_AT_ONCE)
    )


def _letter(stream: str, letter_id: str, parts: Sequence[Any]) -> DeadLetter:
    fields = list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))
    # What was appended to the fields of the request: the reason, and behind it what is left out.
    cut = _text(fields.pop()[2]) if fields and fields[-1][0] == b"cut" else ""
    reason = _text(fields.pop()[2]) if fields and fields[-1][0] == b"error" else ""
    said = {name: value for name, _, value in fields}
    return DeadLetter(
        stream,
        letter_id,
        said.get(b"uri", b""),
        said.get(b"id", b""),
        reason,
        cut,
        tuple((name, size) for name, size, _ in fields),
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
