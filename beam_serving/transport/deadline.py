"""How long a call may take in all, whatever Redis does: each step of a blocking call gets what is left of its time.

redis-py bounds each read, each write and each try by itself; a server that sends a byte now and then, one that takes
connections and is silent, and a name server that does not answer would hold a call for many times that. Here the end
of the call is in the context, and connections, their retries and their pool look there. Coroutines are bounded from
outside, by `asyncio.timeout`; of them only the look-up of names is here.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import FullJitterBackoff
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.utils import SENTINEL

T = TypeVar("T")

LONGEST_S = 86_400.0
"""A day, which stands for no limit: operating systems take no more than some weeks."""
_TLS_RECORD_BYTES = 1 << 14
_ABOUT_S = 0.02
_ends_at: ContextVar[float] = ContextVar("ends_at", default=math.inf)
_only_once: ContextVar[bool] = ContextVar("only_once", default=False)


class time_limit:  # noqa: N801 - it is used as contextlib's own are
    """Bound what this thread asks of Redis meanwhile; of limits within each other the earliest end counts."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float | None) -> None:
        """Begin when it is entered, for so many seconds; None for no limit."""
        self._seconds = seconds

    def __enter__(self) -> None:
        end = math.inf if self._seconds is None else time.monotonic() + self._seconds
        self._token = _ends_at.set(min(_ends_at.get(), end))

    def __exit__(self, *_: object) -> None:
        _ends_at.reset(self._token)


@contextmanager
def only_once() -> Iterator[None]:
    """Let no command be sent again meanwhile whose reply did not come: who asks decides what that means."""
    token = _only_once.set(True)
    try:
        yield
    finally:
        _only_once.reset(token)


def remaining(most_s: float | None) -> float | None:
    """Return how many seconds the next step may take, at most `most_s`; None where there is no limit.

    Raises:
        redis.TimeoutError: the time is over.
    """
    end = _ends_at.get()
    if end == math.inf:
        return most_s
    left_s = end - time.monotonic()
    if left_s <= 0:
        raise RedisTimeoutError("the time for the call is over")
    return min(left_s, LONGEST_S if most_s is None else most_s)


def has_time(seconds: float) -> bool:
    """Return whether the call has more than so many seconds."""
    return _ends_at.get() - time.monotonic() > seconds


def call_within(seconds: float | None, function: Callable[[], T]) -> T:
    """Call something that knows no time limit; when its time is over it is left to itself, in a thread.

    Raises:
        TimeoutError: the time is over.
    """
    if seconds is None:
        return function()
    done = threading.Event()
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as err:  # noqa: BLE001 - it is raised to who waits
            outcome.append((None, err))
        done.set()

    threading.Thread(target=run, name="beam-serving call", daemon=True).start()
    if not done.wait(min(seconds, LONGEST_S)):
        raise TimeoutError
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return True
    return False


def _addresses(host: str, port: int, seconds: float | None) -> Sequence[str]:
    if _is_address(host):
        return [host]
    try:
        return call_within(seconds, lambda: _look_up(host, port))
    except TimeoutError as err:
        raise RedisTimeoutError(f"the address of {host} was not found in time") from err


async def _addresses_async(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host; the thread that asks is none that the end of the event loop waits for."""
    if _is_address(host):
        return [host]
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(addresses: Sequence[str], error: OSError | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def run() -> None:
        addresses: Sequence[str] = []
        error = None
        try:
            addresses = _look_up(host, port)
        except OSError as err:
            error = err
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=run, name="beam-serving look-up", daemon=True).start()
    return await found


class _BoundedParser(DefaultParser):  # type: ignore[misc, valid-type]
    """hiredis, whose every read has what is left of the call's time."""

    def can_read(self, timeout: float | None = 0) -> bool:
        sock = self._sock
        try:
            return bool(super().can_read(timeout))
        except (AttributeError, TypeError, ValueError) as err:
            if sock is not None and sock is self._sock and sock.fileno() >= 0:
                raise
            raise RedisConnectionError("the connection was closed") from err  # by another thread

    def read_from_socket(self, timeout: Any = SENTINEL, raise_on_timeout: bool = True) -> Any:
        if timeout is not SENTINEL:
            timeout = remaining(timeout)
        elif (sock := self._sock) is not None:
            _set_timeout(sock, remaining(self._socket_timeout))
        return super().read_from_socket(timeout=timeout, raise_on_timeout=raise_on_timeout)


def _set_timeout(sock: Any, seconds: float | None) -> None:
    """Set the timeout of a socket; one that is about right stays, since each is a call to the operating system."""
    now = sock.gettimeout()
    if now is None or seconds is None or not seconds <= now <= seconds + _ABOUT_S:
        sock.settimeout(seconds)


def bounded(base: Any) -> Any:
    """Return the class of connections like `base` that keep the time limit of the call that uses them."""

    class Bounded(base):
        host: Any
        socket_connect_timeout: Any

        def __init__(self, **options: Any) -> None:
            super().__init__(**{"parser_class": _BoundedParser, **options})
            self._host_name = ""

        def _connect(self) -> Any:
            most_s = self.socket_connect_timeout
            host = getattr(self, "host", None)
            try:
                if host is None:
                    self.socket_connect_timeout = remaining(most_s)
                    return super()._connect()
                self._host_name = host
                addresses = _addresses(host, self.port, remaining(most_s))
                for tried, address in enumerate(addresses):
                    left_s = remaining(most_s)
                    # An address that does not answer leaves time for the next one.
                    self.socket_connect_timeout = None if left_s is None else left_s / (len(addresses) - tried)
                    self.host = address
                    try:
                        return super()._connect()
                    except OSError:
                        if tried + 1 == len(addresses):
                            raise
                raise OSError(f"{host} has no address")
            finally:
                self.socket_connect_timeout = most_s
                if host is not None:
                    self.host = host

        def _wrap_socket_with_ssl(self, sock: Any) -> Any:
            self.host = self._host_name  # for which the certificate is
            sock.settimeout(remaining(self.socket_timeout))
            return super()._wrap_socket_with_ssl(sock)

        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if not self._sock:
                self.connect_check_health(check_health=False)
            for part in [command] if isinstance(command, str | bytes) else command:
                for piece in self._pieces(part):
                    try:
                        _set_timeout(self._sock, remaining(self.socket_timeout))
                    except (OSError, AttributeError) as err:  # another thread closed it
                        self.disconnect()
                        raise RedisConnectionError("the connection was closed") from err
                    super().send_packed_command((piece,), check_health)

        def _pieces(self, part: Any) -> Sequence[Any]:
            # sendall of a TLS socket starts its time anew with each record.
            if not hasattr(self._sock, "pending"):
                return (part,)
            view = memoryview(part.encode() if isinstance(part, str) else part)
            return [view[at : at + _TLS_RECORD_BYTES] for at in range(0, len(view), _TLS_RECORD_BYTES)]

    return Bounded


def bounded_async(base: Any) -> Any:
    """Return the class of connections like `base` whose look-up of a name can be given up at any time."""

    class Bounded(base):
        host: Any
        socket_connect_timeout: Any

        async def _connect(self) -> None:
            if getattr(self, "host", None) is None:
                await super()._connect()
                return
            name = self.host
            most_s = self.socket_connect_timeout
            try:
                async with asyncio.timeout(most_s):
                    addresses = await _addresses_async(name, self.port)
                self._host_name = name
                for tried, address in enumerate(addresses):
                    self.host = address
                    self.socket_connect_timeout = None if most_s is None else most_s / (len(addresses) - tried)
                    try:
                        await super()._connect()
                    except OSError:
                        if tried + 1 == len(addresses):
                            raise
                    else:
                        return
                raise OSError(f"{name} has no address")
            finally:
                self.host, self.socket_connect_timeout = name, most_s

        def _connection_arguments(self) -> Any:
            arguments = dict(super()._connection_arguments())
            if "ssl" in arguments:
                arguments["server_hostname"] = self._host_name
            return arguments

    return Bounded


Connection: Any = bounded(redis.Connection)
SSLConnection: Any = bounded(redis.SSLConnection)
UnixConnection: Any = bounded(redis.UnixDomainSocketConnection)
AsyncConnection: Any = bounded_async(redis.asyncio.Connection)
AsyncSSLConnection: Any = bounded_async(redis.asyncio.SSLConnection)


class BoundedPool(redis.BlockingConnectionPool):
    """A pool that waits for a free connection no longer than the call has time."""

    @property
    def timeout(self) -> float | None:
        """The seconds that the next caller may wait."""
        return remaining(self._timeout_s)

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._timeout_s = seconds


def _may_retry(is_retryable: Callable[[Exception], bool] | None) -> Callable[[Exception], bool]:
    return lambda err: (
        not _only_once.get() and _ends_at.get() > time.monotonic() and (is_retryable is None or is_retryable(err))
    )


class BoundedRetry(Retry):
    """Tries again for as long as the call has time, and may do so."""

    def call_with_retry(self, do: Any, fail: Any, is_retryable: Any = None, with_failure_count: bool = False) -> Any:
        """Call `do`; see `redis.retry.Retry`."""
        return super().call_with_retry(do, fail, _may_retry(is_retryable), with_failure_count)


class AsyncBoundedRetry(AsyncRetry):
    """The same for coroutines."""

    async def call_with_retry(
        self, do: Any, fail: Any, is_retryable: Any = None, with_failure_count: bool = False
    ) -> Any:
        """Call `do`; see `redis.asyncio.retry.Retry`."""
        return await super().call_with_retry(do, fail, _may_retry(is_retryable), with_failure_count)


class BoundedBackoff(FullJitterBackoff):
    """Waits no longer than the call has time."""

    def compute(self, failures: int) -> float:
        """Return seconds to wait."""
        return min(float(super().compute(failures)), max(_ends_at.get() - time.monotonic(), 0.0))
