"""Who holds a TCP port of this machine, as Linux tells it in `/proc/net/tcp`."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_LISTENING = "0A"
_IN_TABLE_WORD = 8


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
        return self._ip.is_loopback

    @property
    def at_all_addresses(self) -> bool:
        """Whether it listens wherever this machine is reached."""
        return self._ip.is_unspecified

    @property
    def _ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        address = ipaddress.ip_address(self.address)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address


def listeners() -> list[Listener]:
    """Gives all that listen in our network."""
    found = []
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for fields in map(str.split, rows):
            if fields[3] == _LISTENING:
                address, port = fields[1].split(":")
                found.append(Listener(_address(address), int(port, 16), int(fields[7]), int(fields[9])))
    return found


def listeners_of(pid: int) -> list[Listener]:
    """Gives those that a process holds; none of one that is gone."""
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
    """Whether we, that is our user, and nobody else listen at a port by which 127.0.0.1 is reached."""
    reached = [one for one in listeners() if one.port == port and (one.on_this_machine_only or one.at_all_addresses)]
    return {one.user for one in reached} == {os.geteuid()}


def _address(words: str) -> str:
    """Reads an address as the table has it: words of four bytes in the machine's order."""
    steps = range(0, len(words), _IN_TABLE_WORD)
    packed = b"".join(int(words[at : at + _IN_TABLE_WORD], 16).to_bytes(4, sys.byteorder) for at in steps)
    return str(ipaddress.ip_address(packed))
