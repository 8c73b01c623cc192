"""Whether anybody reads a stream: said when something is queued there, and when a result does not come."""

import asyncio
import logging
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from beam_serving.transport.client_connection import RedisClient, Server
from beam_serving.transport.deadline import time_limit
from beam_serving.transport.keys import owner_key

LOOK_S = 0.15
"""The most seconds of a look, which may come after the time of a call is over."""
_AWAKE_MS = 15_000
_MISSING = "no such key"
_log = logging.getLogger(__name__)


def looking(stream: str) -> Generator[Sequence[str], Any, bool]:
    """Yield commands, take their replies or what refused them, and return whether it is known that nobody reads.

    A service of this project owns the streams that it reads; of any other kind a consumer has asked for entries lately.
    """
    groups = yield ["XINFO", "GROUPS", stream]
    if isinstance(groups, ResponseError):
        return _MISSING in str(groups)
    names = [_text(_mapping(group)["name"]) for group in groups]
    if not names:
        return True
    owned = yield ["EXISTS", *(owner_key(stream, name) for name in names)]
    if owned:  # or it may not be asked for
        return False
    for name in names:
        consumers = yield ["XINFO", "CONSUMERS", stream, name]
        if isinstance(consumers, ResponseError) or any(_mapping(one)["idle"] < _AWAKE_MS for one in consumers):
            return False
    return True


def nobody_reads(client: RedisClient, stream: str) -> bool:
    """Return whether it is known that nobody reads a stream; no where Redis does not say so at once.

    Args:
        client: of the server.
        stream: its name.
    """
    look = looking(stream)
    try:
        with time_limit(LOOK_S):
            command = next(look)
            while True:
                try:
                    reply: Any = client.execute_command(*command)
                except ResponseError as err:
                    reply = err
                command = look.send(reply)
    except StopIteration as end:
        return bool(end.value)
    except RedisError as err:
        _log.debug("whether anybody reads %r is not known: %s", stream, err)
        return False


async def nobody_reads_async(client: RedisClient, stream: str) -> bool:
    """Do the same from a coroutine.

    Args:
        client: of the server, for asyncio.
        stream: its name.
    """
    look = looking(stream)
    try:
        async with asyncio.timeout(LOOK_S):
            command = next(look)
            while True:
                try:
                    reply: Any = await client.execute_command(*command)
                except ResponseError as err:
                    reply = err
                command = look.send(reply)
    except StopIteration as end:
        return bool(end.value)
    except (RedisError, TimeoutError) as err:
        _log.debug("whether anybody reads %r is not known: %s", stream, err)
        return False


def warn_that_nobody_reads(server: Server, stream: str) -> None:
    """Say to whoever queues there that it waits."""
    _log.warning(
        "no service reads the stream %r of Redis at %s now: what is queued waits for one that has it in data: streams",
        stream,
        server.name,
    )


def reason(server: Server, stream: str) -> str:
    """Return the end of a message about a result that did not come."""
    return f"; no service reads the stream {stream!r} of Redis at {server.name}: is it running, with that stream?"


def _mapping(row: Any) -> Mapping[str, Any]:
    """Return names and values, which come in turn where the protocol has no mappings."""
    pairs = row.items() if isinstance(row, Mapping) else zip(row[::2], row[1::2], strict=True)
    return {_text(name): value for name, value in pairs}


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
