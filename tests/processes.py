"""What tests ask of processes: who descends from whom, which ports they hold, what another user gets there."""

import json
import os
import socket
from pathlib import Path

from beam_serving.launch.portable.sockets import Listener, listeners_of

STRANGER = 65_534
"""The number of a user who is nobody's."""
_ASK = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How HTTP/2, and so gRPC, begins; Flink's pages answer it with an error."""
_PREFACE = b"\x00\x00"
"""How a server of gRPC begins what it says."""
_PATIENCE_S = 2.0


def descendants(pid: int) -> list[int]:
    """Gives the processes that a process started, and those that these started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def all_listeners(pid: int) -> dict[Listener, str]:
    """Gives the ports of a process and of its descendants, each with the command line of its holder."""
    found = {}
    for holder in [pid, *descendants(pid)]:
        for listener in listeners_of(holder):
            found[listener] = Path(f"/proc/{holder}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def assert_for_its_user_alone(pid: int, least: int) -> None:
    """Looks at all ports of a process and of what it started."""
    found = all_listeners(pid)
    assert len(found) >= least, found
    open_to_others = [f"{one.address}:{one.port} {by}" for one, by in found.items() if not one.on_this_machine_only]
    assert not open_to_others, open_to_others
    java = [one.port for one, by in found.items() if "java" in by.split()[0]]
    assert len(java) >= least - 1, found
    assert sum(said.startswith(_PREFACE) for said in answers(java).values()) > 2
    if os.geteuid() == 0:
        assert set(answers(java, STRANGER).values()) == {b""}


def answers(ports: list[int], user: int | None = None) -> dict[int, bytes]:
    """Gives what each port of 127.0.0.1 says, asked as another user where one is named, which takes root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user is not None:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            said = {port: _answer(port).hex() for port in ports}
            os.write(writing, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return {int(port): bytes.fromhex(said) for port, said in json.loads(told).items()}


def _answer(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as connection:
            connection.sendall(_ASK)
            return connection.recv(99)
    except OSError:
        return b""
