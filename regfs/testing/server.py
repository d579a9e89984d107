"""The server under a `FakeRegistry`: real sockets, HTTP/1.1, any number of connections, in a thread of its own.

Requests are parsed by h11, which is strict. Replies are written by hand, so that they can be as wrong as a test wants.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final
from urllib.parse import unquote, urlsplit

import h11
import trio

from regfs.testing.behaviour import Framing
from regfs.testing.faults import Fate
from regfs.testing.loop_thread import LoopThread
from regfs.testing.records import Request, RequestRecord, Route
from regfs.testing.replies import Reply

_PIECE: Final = 64 * 1024
_BODILESS: Final = frozenset({204, 304})
_BACKLOG: Final = 1024

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@dataclass(frozen=True)
class Listener:
    """One of the server's hosts."""

    name: str
    host: str
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class Answer:
    """What goes out for one request."""

    reply: Reply
    fate: Fate
    framing: Framing = Framing.LENGTH


Respond = Callable[[Request, RequestRecord], Awaitable[Answer]]


class Server:
    """Serves several listeners from one thread. Each keeps its port over `stop` and `start`."""

    def __init__(
        self,
        listeners: list[Listener],
        respond: Respond,
        records: list[RequestRecord],
        prefix: Callable[[], str],
    ) -> None:
        self._listeners = listeners
        self._respond = respond
        self._records = records
        self._prefix = prefix
        self._ports: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._loop = LoopThread("fake registry", self._main)

    def start(self) -> None:
        """Begin to accept connections. OSError where a port that it had is taken by now."""
        self._loop.start()

    def stop(self) -> None:
        """Close all connections and ports."""
        self._loop.stop()

    def authority(self, name: str) -> str:
        """``host:port`` of a listener."""
        host = next(listener.host for listener in self._listeners if listener.name == name)
        return f"{host}:{self._ports[name]}"

    # ── the thread ───────────────────────────────────────────────────────────────────────────────

    async def _main(self, ready: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            for listener in self._listeners:
                port = self._ports.get(listener.name, 0)
                sockets = await trio.open_tcp_listeners(port, host=listener.host, backlog=_BACKLOG)
                self._ports[listener.name] = sockets[0].socket.getsockname()[1]
                nursery.start_soon(trio.serve_listeners, self._handler(listener), sockets)
            ready()

    def _handler(self, listener: Listener) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def handle(stream: trio.SocketStream) -> None:
            # A client may vanish, or refuse our certificate, at any moment: that is its right.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError):
                async with stream:
                    await self._connection(listener, stream)

        return handle

    async def _connection(self, listener: Listener, plain: trio.SocketStream) -> None:
        stream: Stream = plain
        if listener.tls is not None:
            stream = trio.SSLStream(plain, listener.tls, server_side=True, https_compatible=True)
            await stream.do_handshake()
        number = next(self._numbers)
        async for request in self._requests(listener, stream):
            record = RequestRecord.of(request, number)
            self._records.append(record)
            try:
                answer = await self._respond(request, record)
                again = await _send(stream, plain, request, record, answer)
            finally:
                record.end = time.monotonic()
            if not again:
                return

    async def _requests(self, listener: Listener, stream: Stream) -> AsyncIterator[Request]:
        held = b""
        while True:
            parser = h11.Connection(h11.SERVER)
            if held:
                parser.receive_data(held)
            try:
                request = await self._request(listener, stream, parser)
            except h11.RemoteProtocolError as error:
                await stream.send_all(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                self._records.append(_malformed(listener.name, str(error)))
                return
            if request is None:
                return
            yield request
            held = parser.trailing_data[0]

    async def _request(self, listener: Listener, stream: Stream, parser: h11.Connection) -> Request | None:
        head: h11.Request | None = None
        body = b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                if parser.they_are_waiting_for_100_continue:
                    await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                parser.receive_data(bytes(await stream.receive_some(_PIECE)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return self._parsed(listener, head, body)
            else:
                return None

    def _parsed(self, listener: Listener, head: h11.Request, body: bytes) -> Request:
        target = head.target.decode("latin-1")
        route = Route.of(unquote(urlsplit(target).path), self._prefix())
        authority = self.authority(listener.name)
        return Request(head.method.decode(), target, _joined(head), body, listener.name, authority, route)


def _joined(head: h11.Request) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _malformed(listener: str, why: str) -> RequestRecord:
    return RequestRecord("?", why, "malformed", "", "", {}, {}, listener, 0, status=400)


async def _send(
    stream: Stream, plain: trio.SocketStream, request: Request, record: RequestRecord, answer: Answer
) -> bool:
    """Write a reply as its fate has it; says whether the connection can go on."""
    reply, fate = answer.reply, answer.fate
    if fate.reset:
        record.status = 0
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await plain.aclose()
        return False
    record.status = reply.status
    bodiless = request.method == "HEAD" or reply.status in _BODILESS
    framing = Framing.LENGTH if bodiless else answer.framing
    closing = framing is Framing.CLOSE or fate.cut_at is not None
    await stream.send_all(_head(reply, framing, closing))
    if not bodiless:
        await _send_body(stream, reply, fate, framing is Framing.CHUNKED)
    return not closing and request.headers.get("connection", "").lower() != "close"


def _head(reply: Reply, framing: Framing, closing: bool) -> bytes:
    headers = [("Date", formatdate(usegmt=True)), *reply.headers]
    if framing is Framing.LENGTH and reply.status not in _BODILESS:
        headers.append(("Content-Length", str(reply.size)))
    if framing is Framing.CHUNKED:
        headers.append(("Transfer-Encoding", "chunked"))
    if closing:
        headers.append(("Connection", "close"))
    lines = [f"HTTP/1.1 {reply.status} {reply.reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send_body(stream: Stream, reply: Reply, fate: Fate, chunked: bool) -> None:
    end = reply.size if fate.cut_at is None else min(fate.cut_at, reply.size)
    sent = 0
    for _ in range(reply.repeat):
        for start in range(0, len(reply.body), _PIECE):
            piece = reply.body[start : min(start + _PIECE, len(reply.body))][: end - sent]
            if fate.gate is not None and fate.gate_at is not None and sent + len(piece) >= fate.gate_at:
                early, piece = piece[: fate.gate_at - sent], piece[fate.gate_at - sent :]
                await _send_piece(stream, early, chunked)
                sent += len(early)
                gate, fate.gate = fate.gate, None
                await gate.pass_through()
            await _send_piece(stream, piece, chunked)
            sent += len(piece)
            if sent >= end and fate.cut_at is not None:
                return
    if chunked:
        await stream.send_all(b"0\r\n\r\n")


async def _send_piece(stream: Stream, piece: bytes, chunked: bool) -> None:
    if piece:
        await stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
