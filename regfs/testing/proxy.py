"""A TCP proxy that makes a far network of the loopback one: it delays, counts, freezes and drops what passes.

Each direction delays every piece by half the round trip, by the time it arrived: what was sent close together
arrives close together, as over a long line.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import trio

from regfs.testing.faults import Gate
from regfs.testing.loop_thread import LoopThread
from regfs.testing.records import Route
from regfs.testing.wire import MessageReader

_PIECE: Final = 256 * 1024
_PIECES_UNDER_WAY: Final = 1024
_COARSE: Final = 0.0015
"""The event loop's timer is up to a millisecond late, so that the last bit of a wait is slept in a thread."""


@dataclass(slots=True)
class Passed:
    """One request that passed through. Times are `time.monotonic`'s; ``status`` is None while there is no reply."""

    method: str
    target: str
    connection: int
    status: int | None = None
    start: float = field(default_factory=time.monotonic)
    end: float | None = None

    @property
    def kind(self) -> str:
        """ping, catalog, tags, manifest, blob, upload, referrers, token or other."""
        return Route.of(unquote(urlsplit(self.target).path)).kind


class _Line:
    """One connection through the proxy: its two ends, and the requests on it that wait for their replies."""

    def __init__(self, number: int, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self.client = client
        self.server = server
        self._number = number
        self._asked = MessageReader()
        self._answered = MessageReader(lambda: bool(self._waiting) and self._waiting[0].method == "HEAD")
        self._waiting: deque[Passed] = deque()

    def note_requests(self, data: bytes) -> list[Passed]:
        """The requests that begin in ``data``."""
        passed = [Passed(head.first, head.second, self._number) for head in self._asked.feed(data)]
        self._waiting.extend(passed)
        return passed

    def note_replies(self, data: bytes) -> None:
        """Mark the requests that are answered in ``data``."""
        for head in self._answered.feed(data):
            if self._waiting and not head.second.startswith("1"):
                passed = self._waiting.popleft()
                passed.status, passed.end = int(head.second), time.monotonic()

    def abort(self) -> None:
        """Reset both ends."""
        for stream in (self.client, self.server):
            with suppress(OSError, trio.ClosedResourceError):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            trio.lowlevel.notify_closing(stream.socket)
            stream.socket.close()


class DelayProxy:
    """Listens on a free port of 127.0.0.1 and passes everything to ``target`` (``host:port``).

    One HTTP round trip costs ``delay`` seconds more, opening a connection costs nothing more. ``requests`` are those
    that passed, where they are plain HTTP/1.1.
    """

    def __init__(self, target: str, delay: float = 0.02) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self.delay = delay
        self.requests: list[Passed] = []
        self.connections = 0
        self.port = 0
        self._lines: set[_Line] = set()
        self._frozen: Gate | None = None
        self._loop = LoopThread("delay proxy", self._main)
        self._sleepers = trio.CapacityLimiter(4096)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before if it was stopped."""
        self._loop.start()

    def stop(self) -> None:
        """Close the port and all connections."""
        self._loop.stop()

    def drop(self) -> None:
        """Reset all connections that there are; new ones are served."""
        self._loop.soon(self._drop)

    def freeze(self) -> Gate:
        """Pass nothing more, as a network that has gone silent, until the gate that is returned is opened."""
        self._frozen = Gate()
        return self._frozen

    def count(self, kind: str | None = None, *, status: int | None = None) -> int:
        """How many requests passed, of that kind and answered with that status where given."""
        return sum(
            kind in (None, passed.kind) and status in (None, passed.status) for passed in self.requests
        )

    def forget(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────

    async def _main(self, ready: Callable[[], None]) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1", backlog=1024)
        self.port = listeners[0].socket.getsockname()[1]
        ready()
        await trio.serve_listeners(self._pass, listeners)

    def _drop(self) -> None:
        for line in self._lines:
            line.abort()

    async def _pass(self, client: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with client, await trio.open_tcp_stream(*self._target) as server:
                line = _Line(number, client, server)
                self._lines.add(line)
                try:
                    await self._pump_both(line)
                finally:
                    self._lines.discard(line)

    async def _pump_both(self, line: _Line) -> None:
        def asked(data: bytes) -> None:
            self.requests.extend(line.note_requests(data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, line.client, line.server, asked, nursery.cancel_scope)
            nursery.start_soon(self._pump, line.server, line.client, line.note_replies, nursery.cancel_scope)

    async def _pump(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        note: Callable[[bytes], None],
        scope: trio.CancelScope,
    ) -> None:
        give, take = trio.open_memory_channel[tuple[float, bytes]](_PIECES_UNDER_WAY)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver, take, sink)
                async with give:
                    while data := bytes(await source.receive_some(_PIECE)):
                        note(data)
                        await give.send((time.perf_counter() + self.delay / 2, data))
            await sink.send_eof()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()

    async def _deliver(
        self, pieces: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.SocketStream
    ) -> None:
        async with pieces:
            async for due, data in pieces:
                await self._sleep_until(due)
                if self._frozen is not None:
                    await self._frozen.pass_through()
                await sink.send_all(data)

    async def _sleep_until(self, due: float) -> None:
        await trio.sleep(max(0.0, due - time.perf_counter() - _COARSE))
        if (rest := due - time.perf_counter()) > 0:
            await trio.to_thread.run_sync(time.sleep, rest, limiter=self._sleepers)
