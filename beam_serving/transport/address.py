"""How the place of Redis is written as a URL, and which keys a cluster keeps together."""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

Kind = Literal["server", "sentinel", "cluster"]
HostPort = tuple[str, int]

WANTED = (
    "host:port, redis://host:port/db, redis+sentinel://host:port,host:port/name/db or redis+cluster://host:port,"
    "host:port; with rediss in place of redis for TLS"
)
_PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_SLOTS = 16384


@dataclass(frozen=True)
class Address:
    """Where Redis is: `hosts` are the server, the sentinels that know the primary `name`, or nodes of a cluster."""

    kind: Kind
    hosts: tuple[HostPort, ...]
    tls: bool = False
    name: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port` or a URL.

        Raises:
            ValueError: it is neither; the message says what is wanted and never holds a secret.
        """
        scheme, _, rest = text.partition("://") if "://" in text else ("redis", "", text)
        protocol, _, of = scheme.partition("+")
        kind: Kind | None = {"": "server", "sentinel": "sentinel", "cluster": "cluster"}.get(of)  # type: ignore[assignment]
        if protocol not in ("redis", "rediss") or kind is None or "?" in rest or "#" in rest:
            raise ValueError(f"wants {WANTED}")
        login, _, place = rest.rpartition("@")
        listed, _, path = place.partition("/")
        name, _, db = path.strip("/").rpartition("/") if kind == "sentinel" else ("", "", path.strip("/"))
        if kind == "sentinel" and not name:
            name, db = db, ""
        hosts = tuple(_host_port(one, _PORTS[kind]) for one in listed.split(","))
        if (kind == "server" and len(hosts) > 1) or (kind == "sentinel" and not name) or not (db or "0").isdecimal():
            raise ValueError(f"wants {WANTED}")
        if kind == "cluster" and int(db or 0):
            raise ValueError("wants no database: a Redis Cluster has only number 0")
        username, _, password = login.partition(":")
        return cls(
            kind, hosts, protocol == "rediss", name, int(db or 0), unquote(username) or None, unquote(password) or None
        )

    def url(self) -> str:
        """Write what `parse` reads, without the password."""
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "server" else f"+{self.kind}")
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{user}{hosts}" + (f"/{self.name}" if self.name else "") + f"/{self.db}"


def _host_port(text: str, default: int) -> HostPort:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError as err:
        raise ValueError("wants host:port with a port from 0 to 65535") from err
    if not parts.hostname or parts.path:
        raise ValueError(f"wants {WANTED}")
    return parts.hostname, default if port is None else port


def shown(hosts: tuple[HostPort, ...]) -> str:
    """Return hosts as text."""
    return ", ".join(f"{host}:{port}" for host, port in hosts)


def hash_tag(key: bytes) -> bytes:
    """Return the part of a key that a cluster goes by: what is in its first braces; empty where it has none."""
    _, opened, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return tag if opened and closed else b""


def slot_of(key: bytes) -> int:
    """Return the number of the slot in which a cluster keeps a key (Redis Cluster specification)."""
    return binascii.crc_hqx(hash_tag(key) or key, 0) % _SLOTS
