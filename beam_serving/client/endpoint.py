"""Where a queue is, by our own arguments or by those of Cluster Serving, whose conventions then hold."""

import logging
from dataclasses import dataclass
from typing import TypedDict, Unpack

from beam_serving.errors import InputError, ResultError, brief
from beam_serving.transport.client_connection import Server

NOTHING_YET = "[]"
"""What Cluster Serving gives where there is no result yet."""
FAILED = "NaN"
"""What it gives for a request that failed."""

_log = logging.getLogger(__name__)
_DEFAULT_STREAM = "serving_stream"
_DEFAULT_PORT = 6379
_PORT_DIGITS = 5


class OldArguments(TypedDict, total=False):
    """The arguments by which Cluster Serving's queues are made; `sync` never meant anything."""

    frontend_url: str | None
    host: str | None
    name: str
    sync: bool


class Limits(TypedDict):
    """How a queue connects."""

    password: str | None
    max_connections: int
    timeout_s: float | None
    ca_file: str | None


@dataclass(frozen=True)
class Place:
    """A server and a stream on it. `like_cluster_serving` says that its conventions hold.

    They do for a queue that is made as theirs are: without any address, or with `host`, `name` or `frontend_url`.
    """

    server: Server
    stream: str
    like_cluster_serving: bool
    frontend_url: str | None = None

    @classmethod
    def at(
        cls,
        address: str | None,
        port: int | str | None,
        stream: str | None,
        limits: Limits,
        **old: Unpack[OldArguments],
    ) -> "Place":
        """Read the arguments of a queue.

        Raises:
            InputError: an argument is unknown, one is given twice under two names, or is none that can be; or the
                address is a URL of another scheme.
        """
        if unknown := sorted(set(old) - set(OldArguments.__annotations__)):
            raise InputError(f"unknown argument {unknown[0]!r}")
        for name, value in (
            ("url_or_host", address),
            ("stream", stream),
            ("host", old.get("host")),
            ("name", old.get("name")),
        ):
            if value is not None and not isinstance(value, str):
                raise InputError(f"{name} is {type(value).__name__}, wanted is str")
        frontend_url = old.get("frontend_url")
        if address is not None and address.startswith(("http://", "https://")):
            address, frontend_url = None, address
        _once("an address", address, "host", old.get("host"))
        _once("stream", stream, "name", old.get("name"))
        like_cluster_serving = bool(old) or (address is None and stream is None)
        stream = stream or old.get("name") or _DEFAULT_STREAM
        server = Server.at(address or old.get("host") or "localhost", _port(port), stream=stream, **limits)
        return cls(server, stream, like_cluster_serving, frontend_url)


def _port(port: int | str | None) -> int:
    """Return a port, which `Server` checks; Cluster Serving's was often text."""
    if port is None:
        return _DEFAULT_PORT
    return int(port) if isinstance(port, str) and port.isdecimal() and len(port) <= _PORT_DIGITS else port  # type: ignore[return-value]


def _once(ours: str, value: object, theirs: str, other: object) -> None:
    if value is not None and other is not None:
        raise InputError(f"{ours} is given, and {theirs}={brief(other)} too; they mean the same")


def failed_like_cluster_serving(uri: object, error: ResultError) -> str:
    """Return the value that stands for a failure, which holds no reason; so that goes to the log."""
    _log.warning("request %r failed: %s", uri, error)
    return FAILED
