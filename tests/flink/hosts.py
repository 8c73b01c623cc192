"""Several hosts on one machine: network namespaces of their own, joined by a bridge. Needs root and `ip`."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_BRIDGE = "bs-bridge"
_SUBNET = "10.77.31"


class Hosts:
    """The hosts by name; each has an address, and its wire can be cut."""

    def __init__(self, names: Sequence[str]) -> None:
        self.address = {name: f"{_SUBNET}.{number + 2}" for number, name in enumerate(names)}

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """Gives the command that runs a command on a host."""
        return ["ip", "netns", "exec", f"bs-{host}", *command]

    def cut(self, host: str) -> None:
        """Unplugs a host: nothing comes through, and nobody is told."""
        _ip("link", "set", f"bs-{host}-w", "down")

    def heal(self, host: str) -> None:
        """Plugs it in again."""
        _ip("link", "set", f"bs-{host}-w", "up")

    def up(self) -> None:
        """Makes the bridge and the hosts."""
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("address", "add", f"{_SUBNET}.1/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        for host, address in self.address.items():
            space, wire = f"bs-{host}", f"bs-{host}-w"
            _ip("netns", "add", space)
            _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", wire, "master", _BRIDGE)
            _ip("link", "set", wire, "up")
            for part in (("address", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                _ip("-n", space, *part)
            _ip("-n", space, "link", "set", "lo", "up")

    def down(self) -> None:
        """Takes all of it away."""
        for host in self.address:
            subprocess.run(["ip", "link", "delete", f"bs-{host}-w"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "delete", f"bs-{host}"], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", _BRIDGE], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Makes hosts and takes them away again."""
    running = Hosts(names)
    running.down()
    try:
        running.up()
        yield running
    finally:
        running.down()
