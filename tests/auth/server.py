"""A registry and its token endpoint in one, on a real socket, with the faults that a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Server:
    """Its behaviour, to be changed while it runs, and what it was asked."""

    realm: str = ""
    hold: threading.Event = field(default_factory=threading.Event)
    """Token requests wait for it."""
    refusal: bytes = b'{"errors": []}'
    """The body of every 401."""
    token_body: bytes | None = None
    """The body of every token reply, instead of a good one."""
    port: int = 0
    token_requests: list[str] = field(default_factory=list)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released at every token request."""
    statuses: list[int] = field(default_factory=list)
    good: set[str] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(self, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(path)
        if url.path == "/token":
            return self._token(parse_qs(url.query))
        if authorization.removeprefix("Bearer ") in self.good:
            return 200, {}, b"content"
        name = url.path.split("/")[2]
        realm = self.realm or f"http://{self.address}/token"
        header = f'Bearer realm="{realm}",service="s",scope="repository:{name}:pull"'
        return 401, {"WWW-Authenticate": header}, self.refusal

    def _token(self, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        self.token_requests.append(query["scope"][0])
        self.asked.release()
        self.hold.wait(20)
        if self.token_body is not None:
            return 200, {}, self.token_body
        token = f"token-{len(self.good)}"
        self.good.add(token)
        return 200, {}, json.dumps({"token": token, "expires_in": 300}).encode()


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server on a free port of the loopback address; token requests are not held until one says so."""
    server = Server()
    server.hold.set()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            status, headers, body = server.get(self.path, self.headers.get("Authorization", ""))
            if not self.path.startswith("/token"):
                server.statuses.append(status)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client went away, as some tests want

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler
