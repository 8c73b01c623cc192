"""A Redis that does not answer: stopped, a black hole, one whose replies stop or drip; each has its own address."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import redis

from beam_serving.launch.embedded_redis import embedded_redis

Forward = Callable[[asyncio.StreamReader, asyncio.StreamWriter], "asyncio.Future[None] | object"]


@contextmanager
def stopped(port: int) -> Iterator[None]:
    """Stops the process of a server, as SIGSTOP does, for a while."""
    with redis.Redis(port=port) as client:
        pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def black_hole() -> Iterator[str]:
    """Gives an address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def no_way_in() -> Iterator[str]:
    """Gives an address that drops whoever wants to connect: its queue is full, and nobody takes from it."""
    with ExitStack() as stack, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        while True:
            filling = stack.enter_context(socket.socket())
            filling.settimeout(0.2)
            try:
                filling.connect(server.getsockname())
            except TimeoutError:
                break
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def stop_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes the first three bytes of the server's words on, and then nothing."""
    writer.write(await reader.readexactly(3))
    await asyncio.Event().wait()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes a byte on every twentieth of a second: each read of the client is in time, and no reply ever is."""
    while byte := await reader.read(1):
        writer.write(byte)
        await writer.drain()
        await asyncio.sleep(0.05)


class Proxy:
    """A TCP proxy in front of a server, whose words it passes on in its own way; it may be told to lose a reply."""

    def __init__(self, backend: int, forward: Callable[..., object] | None = None) -> None:
        self._backend = backend
        self._forward = forward
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.loses = lambda _: False
        """Whether the reply to these bytes of a client is lost, with the connection."""
        self.lost = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        """Gives its address."""
        thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        thread.start()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._connect, "127.0.0.1", 0), self._loop)
        server = started.result(5)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            asyncio.run_coroutine_threadsafe(self._end(server), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(5)
            self._loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        there, back = await asyncio.open_connection("127.0.0.1", self._backend)
        self._writers.add(back)
        lost = asyncio.Event()
        backward = asyncio.create_task(self._replies(there, writer, lost))
        self._tasks.add(backward)
        try:
            while part := await reader.read(1 << 16):
                if self.loses(part):
                    self.lost += 1
                    lost.set()
                back.write(part)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            backward.cancel()
            back.close()
            writer.close()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        if self._forward is not None:
            await self._forward(reader, writer)  # type: ignore[misc]
            return
        while part := await reader.read(1 << 16):
            if lost.is_set():  # the server has carried the command out, and nobody hears of it
                writer.transport.abort()
                return
            writer.write(part)
        writer.close()


@contextmanager
def behind(forward: Callable[..., object]) -> Iterator[str]:
    """Gives the address of a proxy in front of a server of its own."""
    with embedded_redis(0) as port, Proxy(port, forward).running() as address:
        yield address
