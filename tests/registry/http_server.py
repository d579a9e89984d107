"""A scripted HTTP server on a real socket: each test says byte by byte what is answered, and reads what was asked."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Asked:
    """One request as it arrived; ``headers`` by lower-case name, ``client`` the port that the connection came from."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    client: int


@dataclass(frozen=True)
class Raw:
    """Exact bytes, and what happens then: ``keep`` the connection, ``close`` it, ``reset`` it, or ``stall``."""

    data: bytes = b""
    then: str = "keep"


Handler = Callable[[Asked], Raw]

RESET = Raw(then="reset")
CLOSE = Raw(then="close")
STALL = Raw(then="stall")


def reply(status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None, **named: str) -> Raw:
    """A well-formed reply; ``retry_after="1"`` becomes a Retry-After header."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    fields |= {name.replace("_", "-").title(): value for name, value in named.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Raw(f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + body)


class HttpServer:
    """Serves on a free loopback port, a thread a connection, until its context ends."""

    def __init__(
        self,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.handler = handler
        self.asked: list[Asked] = []
        self.connections = 0
        self._tls = tls
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self.host = host
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    def __enter__(self) -> HttpServer:
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(timeout=5)

    def drop_connections(self) -> None:
        """Close every connection that is open, as a server does that is killed."""
        for connection in list(self._open):
            _quietly(lambda c=connection: c.shutdown(socket.SHUT_RDWR))  # type: ignore[misc]
            _quietly(connection.close)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, (_, port, *_) = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection, port), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket, port: int) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            with connection.makefile("rb") as lines:
                while (asked := _read(lines, port)) is not None:
                    self.asked.append(asked)
                    answer = self.handler(asked)
                    connection.sendall(answer.data)
                    if answer.then == "stall":
                        self._stopped.wait(30)
                    if answer.then == "reset":
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    if answer.then != "keep":
                        break
        except (OSError, ValueError):
            pass
        finally:
            self._open.discard(connection)
            _quietly(connection.close)


def _read(lines: object, port: int) -> Asked | None:
    first = lines.readline().split()  # type: ignore[attr-defined]
    if len(first) != 3:
        return None
    headers: dict[str, str] = {}
    while line := lines.readline().strip():  # type: ignore[attr-defined]
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = lines.read(int(headers.get("content-length", "0")))  # type: ignore[attr-defined]
    return Asked(first[0].decode(), first[1].decode(), headers, body, port)


def _quietly(action: Callable[[], object]) -> None:
    with contextlib.suppress(OSError):
        action()
