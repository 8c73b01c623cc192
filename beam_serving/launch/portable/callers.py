"""Who may ask a worker pool for workers: processes of our own user on this machine, and who knows a secret."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import unquote

from beam_serving.errors import ConfigError
from beam_serving.launch.portable.sockets import user_of_peer
from beam_serving.text_files import NotReadableError, read_text_file

SHORTEST_SECRET = 16
_PURPOSE = b"beam_serving worker pool\n"


@dataclass(frozen=True)
class Caller:
    """The other end of a connection: a user of this machine or, where `user` is unknown, whoever is at an address."""

    host: str
    user: int | None


def caller_of(peer: str, port: int) -> Caller | None:
    """Return who is at the other end of a connection to our port, by the name that gRPC has for it.

    Gives None for one on this machine that is gone, or that no process holds.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    text, _, peer_port = rest.rpartition(":")
    address = _plain(text)
    if not address.is_loopback:
        return Caller(str(address), None)
    user = user_of_peer(address, int(peer_port), port)
    return None if user is None else Caller(str(address), user)


def is_here(endpoint: str) -> bool:
    """Return whether a `host:port` is on this machine alone, by its own words: no name is looked up."""
    host, _, port = endpoint.rpartition(":")
    if not port.isdecimal():
        return False
    if host == "localhost":
        return True
    try:
        return _plain(host).is_loopback
    except ValueError:
        return False


def read_secret(path: str) -> bytes:
    """Read the secret that a pool and those who submit jobs share.

    Raises:
        ConfigError: the file cannot be read, or holds too little.
    """
    about = f"flink: worker_pool_secret_file {path}"
    try:
        secret = read_text_file(path).strip().encode()
    except NotReadableError as err:
        raise ConfigError(f"{about}: {err}") from err
    if len(secret) < SHORTEST_SECRET:
        raise ConfigError(
            f"{about}: holds {len(secret)} bytes, wants {SHORTEST_SECRET} or more that nobody guesses, "
            "for example of `openssl rand -hex 32`"
        )
    return secret


def proof(secret: bytes, job: str) -> str:
    """Return what shows a pool that whoever asks for workers for a job knows the secret; it does not tell that."""
    return hmac.new(secret, _PURPOSE + job.encode(), hashlib.sha256).hexdigest()


def is_proof(secret: bytes, job: str, given: str) -> bool:
    """Return whether a proof is the right one for the job."""
    return hmac.compare_digest(proof(secret, job).encode(), given.encode())


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
