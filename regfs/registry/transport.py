"""What sends a request: connection pools, one for each TLS policy and proxy, and the rules none gets round.

Whatever is sent for a connection passes here, an auth flow's token requests too. So the rules sit here: no plain http
beside an https registry, nothing but reading on a read-only one, no private address unless it may be (see `network`),
no compressed body, a limit on what nobody asked to be large.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from ssl import SSLContext
from typing import Any, Final, cast

import httpcore
import httpx
import trio

from regfs.connection import Connection
from regfs.errors import (
    BadReply,
    ConfigError,
    ConnectionFailed,
    ReadOnly,
    RegfsError,
    TooLarge,
    UnsafeTarget,
)
from regfs.registry.flow import FLOWS_FROM, flow
from regfs.registry.network import Backend, Guard, Stream
from regfs.registry.proxies import environment, proxy_for
from regfs.registry.redirects import DEFAULT_PORTS, Origin, shown
from regfs.registry.replies import excerpt
from regfs.registry.site import Site
from regfs.registry.tls import TlsPolicy, authority

WHOLE: Final = "regfs.whole"
"""Request extension: the caller limits the body itself."""
HOP: Final = "regfs.hop"
"""Request extension: this request follows a redirect."""

_SIDE_LIMIT: Final = 1024 * 1024
_KEEP_ALIVE: Final = 55.0

_HTTPCORE_ERRORS: Final = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)

Count = Callable[[str, int], None]


class Transport(httpx.AsyncBaseTransport):
    """Sends requests for one connection. Raises regfs errors only; opens nothing before the first request."""

    def __init__(
        self, site: Site, connection: Connection, user_agent: str, keep: int, count: Count, *, read_only: bool
    ) -> None:
        self._site = site
        self._user_agent = user_agent
        self._keep = keep
        self._count = count
        self._read_only = read_only
        self._guard = Guard(site.host, connection.allow_hosts)
        self._tls = TlsPolicy(connection, site.host)
        self._pools: dict[tuple[str, str, str | None], httpcore.AsyncConnectionPool] = {}
        self._proxies: dict[str, str] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the body is read from the response's stream."""
        url = request.url
        origin = Origin(url.scheme, url.host.rstrip("."), url.port or DEFAULT_PORTS.get(url.scheme, 0))
        api_path = self._site.api_path(origin, url.path)
        self._check(request, origin, api_path)
        pool = await self._pool(origin)
        self._count_request(request, api_path)
        headers = request.headers
        if "user-agent" not in headers:
            headers["User-Agent"] = self._user_agent
        headers["Accept-Encoding"] = "identity"
        try:
            answer = await pool.handle_async_request(_core_request(request))
        except _HTTPCORE_ERRORS as error:
            raise translated(error, origin) from error
        if request.method == "HEAD":
            await _refuse_head_body(answer)
        return self._response(request, answer, origin, api_path)

    async def aclose(self) -> None:
        """Close all connections."""
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            await pool.aclose()

    def _check(self, request: httpx.Request, origin: Origin, api_path: str | None) -> None:
        if origin.scheme == "http" and "http" not in self._site.schemes:
            raise UnsafeTarget(
                f"{self._site.name} speaks https and leads to plain http: {shown(str(request.url))}",
                registry=self._site.name,
            )
        if self._read_only and request.method not in ("GET", "HEAD") and self._is_write(request, api_path):
            raise ReadOnly("the mount is read-only: nothing that changes a registry is sent")

    def _is_write(self, request: httpx.Request, api_path: str | None) -> bool:
        return api_path is not None and not (request.method == "POST" and self._site.is_sign_in(api_path))

    def _count_request(self, request: httpx.Request, api_path: str | None) -> None:
        if HOP in request.extensions:
            self._count("redirects", 1)
        else:
            self._count("requests" if api_path is not None else "token_requests", 1)

    def _response(
        self, request: httpx.Request, answer: httpcore.Response, origin: Origin, api_path: str | None
    ) -> httpx.Response:
        if api_path is not None:
            # 400 is what TLS servers answer to plain http: the one status that does not show a registry's scheme.
            if answer.status != 400 or origin.scheme == "https":
                self._site.settle(origin.scheme)
            if answer.status == 401:
                self._count("unauthorized", 1)
        whole = WHOLE in request.extensions and answer.status < 300
        body = _Body(answer, origin, self._count, None if whole else _SIDE_LIMIT)
        response = httpx.Response(answer.status, headers=answer.headers, stream=body, request=request)
        if "content-encoding" in response.headers:
            # httpx would decode it, without a limit; what only explains an error is shown as far as it is text.
            encoding = response.headers.pop("content-encoding").strip().lower()
            body.refused = encoding if encoding not in ("identity", "") and answer.status < 300 else ""
        return response

    async def _pool(self, origin: Origin) -> httpcore.AsyncConnectionPool:
        if self._proxies is None:
            self._proxies = dict(environment())
        proxy = proxy_for(origin, self._proxies) if self._proxies else None
        if proxy is not None:
            await self._guard.check_proxied(origin.host, origin.port)
        secure = origin.scheme == "https"
        place = authority(origin.scheme, origin.host, origin.port) if secure else ""
        tls = await self._tls.key(place) if secure else ""
        key = (origin.scheme, tls, proxy)
        pool = self._pools.get(key)
        if pool is None:
            context = await self._tls.context(place) if secure else None
            to_proxy = await self._tls.context("") if proxy and proxy.startswith("https:") else None
            pool = self._pools.setdefault(key, self._make_pool(context, proxy, to_proxy))
        return pool

    def _make_pool(
        self, context: SSLContext | None, proxy: str | None, to_proxy: SSLContext | None
    ) -> httpcore.AsyncConnectionPool:
        options: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": None,
            "max_keepalive_connections": self._keep,
            "keepalive_expiry": _KEEP_ALIVE,
        }
        if proxy is None:
            return httpcore.AsyncConnectionPool(network_backend=Backend(self._guard), **options)
        return _proxy_pool(proxy, to_proxy, options)


class _Body(httpx.AsyncByteStream):
    """A reply's body as it arrives: counted, limited, and with errors of ours."""

    def __init__(self, answer: httpcore.Response, origin: Origin, count: Count, limit: int | None) -> None:
        self._answer = answer
        self._origin = origin
        self._count = count
        self._limit = limit
        self.refused = ""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.refused:
            raise BadReply(
                f"{self._origin} sends its reply encoded ({self.refused[:20]!r}), which was not asked for"
            )
        taken = 0
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    taken += len(piece)
                    if self._limit is not None and taken > self._limit:
                        raise TooLarge(f"{self._origin} sends more than {self._limit} bytes")
                    self._count("bytes", len(piece))
                    yield piece
        except _HTTPCORE_ERRORS as error:
            raise translated(error, self._origin) from error

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        stream = cast("Any", self._answer.stream).__aiter__()
        async with aclosing(stream) as pieces:
            first = await anext(pieces, None)  # httpcore has read that with the headers, and no more
            if first is None:
                return
            yield first
            connection = self._plain()
            if connection is None:
                async for piece in pieces:
                    yield piece
                return
            async with aclosing(flow(connection, len(first), self._announced())) as flowing:
                async for piece in flowing:
                    yield piece

    def _plain(self) -> trio.socket.SocketType | None:
        """The connection, where nothing but the body's bytes come by it and they are many."""
        stream = self._answer.extensions.get("network_stream")
        is_large = self._limit is None and self._announced() >= FLOWS_FROM
        return stream.plain if is_large and isinstance(stream, Stream) else None

    def _announced(self) -> int:
        """The body's length, where it is announced and not in chunks."""
        headers = {name.lower(): value for name, value in self._answer.headers}
        length = headers.get(b"content-length", b"")
        return int(length[:20]) if length.isdigit() and b"transfer-encoding" not in headers else 0

    async def aclose(self) -> None:
        await self._answer.aclose()


def _core_request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=cast("Any", request.stream),
        extensions=request.extensions,
    )


async def _refuse_head_body(answer: httpcore.Response) -> None:
    """Close a connection on which a body came with the reply to HEAD: it would be read as the next reply."""
    stream = answer.extensions.get("network_stream")
    if isinstance(stream, Stream) and not stream.tail.endswith((b"\r\n\r\n", b"\n\n")):
        await stream.aclose()


def _proxy_pool(
    proxy: str, to_proxy: SSLContext | None, options: dict[str, Any]
) -> httpcore.AsyncConnectionPool:
    try:
        url = httpx.URL(proxy)
    except httpx.InvalidURL:
        raise ConfigError("the proxy in the environment is not a URL") from None
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/")
    auth = (url.username, url.password) if url.username or url.password else None
    options = options | {"proxy_url": target, "proxy_auth": auth, "network_backend": Backend(None)}
    if url.scheme in ("http", "https"):
        return httpcore.AsyncHTTPProxy(proxy_ssl_context=to_proxy, **options)
    try:
        return httpcore.AsyncSOCKSProxy(**options)
    except RuntimeError:
        raise ConfigError("a socks5 proxy needs the package socksio: pip install 'httpx[socks]'") from None


def translated(error: Exception, origin: Origin) -> RegfsError:
    """Say in our terms what httpcore says; `sent` is False only where no connection came about."""
    where, words = f"{origin.host}:{origin.port}", excerpt(str(error))
    match error:
        case httpcore.ProxyError():
            message = f"the proxy refuses to connect to {where}: {words}"
            return ConnectionFailed(message, sent=False, registry=where)
        case httpcore.ConnectError() | httpcore.ConnectTimeout():
            return ConnectionFailed(f"no connection to {where}: {words}", sent=False, registry=where)
        case httpcore.LocalProtocolError() | httpcore.UnsupportedProtocol():
            return BadReply(f"a request to {where} cannot be sent: {words}", registry=where)
        case httpcore.RemoteProtocolError():
            return ConnectionFailed(f"{where} broke off, or does not speak HTTP: {words}", registry=where)
    return ConnectionFailed(f"the connection to {where} was lost: {words or 'reset'}", registry=where)
