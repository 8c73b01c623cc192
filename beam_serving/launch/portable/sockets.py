"""Who holds a TCP port of this machine, as Linux tells it in `/proc/net/tcp`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTENING = "0A"
_WORD = 8
_TRIES = 3


@dataclass(frozen=True)
class Listener:
    """A socket that listens: its address and port, the user who opened it, the inode by which a process holds it."""

    address: str
    port: int
    user: int
    inode: int

    @property
    def on_this_machine_only(self) -> bool:
        """Whether other machines cannot reach it."""
        return ip_address(self.address).is_loopback

    @property
    def at_all_addresses(self) -> bool:
        """Whether it listens wherever this machine is reached."""
        return ip_address(self.address).is_unspecified


def listeners() -> list[Listener]:
    """Return all that listen in our network."""
    return [
        Listener(str(row.local[0]), row.local[1], row.user, row.inode) for row in _rows() if row.state == _LISTENING
    ]


def listeners_of(pid: int) -> list[Listener]:
    """Return those that a process holds; none of one that is gone."""
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(descriptor))
            except FileNotFoundError:
                continue  # closed meanwhile
    except FileNotFoundError:
        return []
    return [one for one in listeners() if f"socket:[{one.inode}]" in inodes]


def is_ours(port: int) -> bool:
    """Return whether we, that is our user, and nobody else listen at a port by which 127.0.0.1 is reached."""
    reached = [one for one in listeners() if one.port == port and (one.on_this_machine_only or one.at_all_addresses)]
    return {one.user for one in reached} == {os.geteuid()}


def user_of_peer(address: IPv4Address | IPv6Address, peer_port: int, port: int) -> int | None:
    """Return the user of the other end of a connection to our port; None where no process holds one.

    An end that its process has closed belongs to user 0 by the table, though it may have sent something.
    """
    # The kernel gives the table in pieces, between which a row may move.
    for _ in range(_TRIES):
        for row in _rows():
            if (row.local, row.remote[1]) == ((address, peer_port), port) and row.inode != 0:
                return row.user
    return None


@dataclass(frozen=True)
class _Row:
    local: tuple[IPv4Address | IPv6Address, int]
    remote: tuple[IPv4Address | IPv6Address, int]
    state: str
    user: int
    inode: int


def _rows() -> Iterator[_Row]:
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for fields in map(str.split, lines):
            yield _Row(_end(fields[1]), _end(fields[2]), fields[3], int(fields[7]), int(fields[9]))


def _end(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Read an address as the table has it: words of four bytes in the machine's order, and the port."""
    words, port = text.split(":")
    steps = range(0, len(words), _WORD)
    packed = b"".join(int(words[at : at + _WORD], 16).to_bytes(4, sys.byteorder) for at in steps)
    address = ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, int(port, 16)
