"""Which results a call waits for and which have come: the logic that the blocking and the asyncio client share."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from numbers import Real
from typing import Any, Final

from beam_serving.client.requests import Uri, decode_uri, encode_uri, members
from beam_serving.errors import InputError, ResultError, brief
from beam_serving.protocol.replies import Reply, decode_reply
from beam_serving.records import ProtocolVersion
from beam_serving.transport.keys import result_key

Hash = Mapping[bytes, bytes]
_LONGEST_S = 1e15
"""Some million years: a whole number may be larger than a float can be."""
_log = logging.getLogger(__name__)


class Wait(Enum):
    """What stands for no time to wait in the arguments of a query."""

    NOT = "asks once"


ONCE: Final = Wait.NOT
"""Ask once, and wait for nothing."""


def seconds_to_wait(timeout_s: float | None) -> float:
    """Return a time to wait, infinity for one without limit.

    Raises:
        InputError: it is no number.
    """
    if timeout_s is None:
        return math.inf
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, Real) or timeout_s != timeout_s:
        raise InputError(f"timeout_s is {brief(timeout_s)}, wanted is a number of seconds, or None for no limit")
    return float(min(max(timeout_s, 0.0), math.inf if timeout_s == math.inf else _LONGEST_S))


class Wanted:
    """The results that one call waits for. `pending` are the keys still to come."""

    def __init__(self, stream: str, uris: Iterable[Uri], request_ids: Sequence[str] | None = None) -> None:
        """With `request_ids`, one per uri, only the result of that very request counts.

        Raises:
            InputError: a uri is none that can be, or the request ids do not fit the uris.
        """
        uris = list(members(uris, "uris", "uris"))
        self._keys = {uri: key_of(stream, uri) for uri in uris}
        self._ids: dict[bytes, bytes] = {}
        if request_ids is not None:
            self._ids = _ids_by_key([self._keys[uri] for uri in uris], request_ids)
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


def _ids_by_key(keys: Sequence[bytes], request_ids: Sequence[str]) -> dict[bytes, bytes]:
    request_ids = list(members(request_ids, "request_ids", "request ids"))
    if len(request_ids) != len(keys):
        raise InputError(f"request_ids are {len(request_ids)}, wanted is one for each of the {len(keys)} uris")
    ids: dict[bytes, bytes] = {}
    for key, request_id in zip(keys, request_ids, strict=True):
        if not isinstance(request_id, str):
            raise InputError(f"a request id is {type(request_id).__name__}, wanted is str, as enqueue returned it")
        encoded = request_id.encode("utf-8", "surrogatepass")
        if ids.setdefault(key, encoded) != encoded:
            uri = decode_uri(key.partition(b":")[2])
            raise InputError(
                f"uri {uri!r} is wanted of two requests, whose results have one place: the later one replaces the "
                "other; give it once, with the id of the later"
            )
    return ids


class Taking:
    """Results on the way from Redis to who takes them, of which none is lost with a reply.

    They are read first, and then read and deleted in one step. When the reply to that does not come, it may have been
    carried out: what may be gone is given as it was read first, so that it goes to somebody, if need be twice.
    """

    def __init__(self) -> None:
        self._hashes: dict[bytes, Hash] = {}
        self._asked = self._took = self._unsure = False

    def read(self, keys: Sequence[bytes], rows: Sequence[object]) -> list[bytes]:
        """Keep what was read of the keys, and return those to take, which the caller then does."""
        self._keep(keys, rows)
        self._asked = True
        return list(self._hashes)

    def took(self, keys: Sequence[bytes], rows: Sequence[object]) -> None:
        """Keep what was taken, by the replies to HGETALL and DEL of each key in turn."""
        self._keep(keys, rows[::2])
        self._took = True

    def failed(self) -> None:
        """Remember that a reply did not come."""
        self._unsure = self._unsure or self._asked
        self._asked = False

    def refused(self) -> None:
        """Remember that Redis refused to take them."""
        self._asked = False

    def hashes(self) -> dict[bytes, Hash]:
        """Return what is taken, or may be, where the reply to that did not come."""
        return self._hashes if self._took or self._unsure or self._asked else {}

    def _keep(self, keys: Sequence[bytes], rows: Sequence[object]) -> None:
        for key, fields in zip(keys, rows, strict=True):
            if fields and isinstance(fields, dict):
                self._hashes[key] = fields
            elif not self._unsure:  # another one took it
                self._hashes.pop(key, None)


def taken_replies(prefix: bytes, taken: Mapping[bytes, Hash], by_label: bool) -> dict[str, Reply | ResultError]:
    """Return results by uri."""
    return {decode_uri(key.removeprefix(prefix)): reply_or_error(fields, by_label) for key, fields in taken.items()}


def report_unfinished(taken: Mapping[bytes, Hash], err: Exception) -> None:
    """Log that some results were taken and others not, which stay where they are."""
    _log.warning("%d results are taken, then Redis failed; the others stay there: %s", len(taken), err)
