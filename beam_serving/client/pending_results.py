"""Which results a call waits for and which have come: the logic that the blocking and the asyncio client share."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from beam_serving.client.requests import Uri, decode_uri, encode_uri
from beam_serving.errors import InputError, ResultError
from beam_serving.protocol.replies import Reply, decode_reply
from beam_serving.records import ProtocolVersion
from beam_serving.transport.keys import result_key

Hash = Mapping[bytes, bytes]


def seconds_to_wait(timeout_s: float) -> float:
    """Return a time to wait, infinity for one without limit.

    Raises:
        InputError: it is no number.
    """
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, Real) or math.isnan(timeout_s):
        raise InputError(f"timeout_s is {timeout_s!r}, wanted is a number of seconds, or math.inf for no limit")
    return max(float(timeout_s), 0.0)


class Wanted:
    """The results that one call waits for. `pending` are the keys still to come."""

    def __init__(self, stream: str, uris: Iterable[Uri], request_ids: Sequence[str] | None = None) -> None:
        """With `request_ids`, one per uri, only the result of that very request counts."""
        self._keys = {uri: key_of(stream, uri) for uri in uris}
        self._ids: dict[bytes, bytes] = {}
        if request_ids is not None:
            self._ids = dict(zip(self._keys.values(), map(str.encode, request_ids), strict=True))
        self._arrived: dict[bytes, Hash] = {}
        self.pending = set(self._keys.values())

    def take(self, key: bytes, fields: Hash) -> None:
        """Keep a hash as read from Redis, if it is a result that is waited for."""
        if not fields or key not in self.pending:
            return
        if key in self._ids and fields.get(b"id") != self._ids[key]:
            return
        self._arrived[key] = fields
        self.pending.discard(key)

    @property
    def arrived(self) -> list[bytes]:
        """The keys of the results that have come."""
        return list(self._arrived)

    def replies(self, by_label: bool) -> dict[Any, Reply | ResultError]:
        """Return the results that have come, in the order in which they were asked for."""
        return {
            uri: reply_or_error(self._arrived[key], by_label) for uri, key in self._keys.items() if key in self._arrived
        }


def key_of(stream: str, uri: Uri) -> bytes:
    """Return the key of a result of this project's own requests on a stream."""
    return result_key(ProtocolVersion.NATIVE, stream.encode(), encode_uri(uri))


def reply_or_error(fields: Hash, by_label: bool) -> Reply | ResultError:
    """Return what a hash holds, a failure as a value."""
    try:
        return decode_reply(fields, by_label)
    except ResultError as err:
        return err


def pattern_of(prefix: bytes) -> bytes:
    """Return the SCAN pattern of all keys that begin with `prefix`."""
    return re.sub(rb"([*?\[\]\\^])", rb"\\\1", prefix) + b"*"


def taken_replies(
    prefix: bytes, keys: Sequence[bytes], rows: Sequence[object], by_label: bool
) -> dict[str, Reply | ResultError]:
    """Return results by uri from the answers to HGETALL and DEL of each key in turn; what is no hash is ignored."""
    return {
        decode_uri(key.removeprefix(prefix)): reply_or_error(fields, by_label)
        for key, fields in zip(keys, rows[::2], strict=True)
        if fields and isinstance(fields, dict)
    }
