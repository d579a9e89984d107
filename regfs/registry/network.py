"""Connections below HTTP: which addresses a host may be reached at, and sockets that read in large pieces.

A registry names other hosts (token endpoints, redirects). Were those followed blindly, a registry could make this
machine talk to its own private network; so every other host is resolved here, each of its addresses is judged, and
the connection goes to an address that was judged, not to whatever the name resolves to a moment later.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable, Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, cast

import httpcore
import trio

from regfs.errors import ConnectionFailed, TlsFailed, UnknownHost, UnsafeTarget
from regfs.registry.certificates import describe
from regfs.registry.records import SMALL_READ, Wide, next_size
from regfs.registry.tls import explain, insecure_context, speaks_tls

_CONNECT_TIMEOUT: Final = 10.0
_HEAD_START: Final = 0.25
_SECOND_LOOK: Final = 3.0
_NAT64: Final = IPv6Network("64:ff9b::/96")

SocketAddress = tuple[socket.AddressFamily, tuple[Any, ...]]
"""An address family and what `connect` takes for it."""


class Zone(IntEnum):
    """How far an address reaches."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    LINK_LOCAL = 3


def zone_of(address: str) -> Zone:
    """Judge an IP address. What is not known to be public counts as private; one hidden in IPv6 is judged itself."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = _embedded(ip) or ip
    if ip.is_loopback or ip.is_unspecified or (ip.version == 4 and int(ip) >> 24 == 0):
        return Zone.LOOPBACK
    if ip.is_link_local:
        return Zone.LINK_LOCAL
    return Zone.PUBLIC if ip.is_global and not ip.is_multicast else Zone.PRIVATE


def may_lead(own: Zone, other: Zone) -> bool:
    """Say whether a registry in zone ``own`` may name an address in ``other``.

    Public ones may lead to public ones only; a private one also to private, one on loopback to those and loopback.
    Link-local (where clouds keep their machines' credentials) is reached from there alone.
    """
    if other is Zone.LINK_LOCAL or own is Zone.LINK_LOCAL:
        return other in (Zone.PUBLIC, own)
    return other <= own


class Guard:
    """Decides at which addresses a host may be connected. ``host`` is the registry's own, which the user chose."""

    def __init__(self, host: str, allow_hosts: Iterable[str] = ()) -> None:
        self._host = host
        self._allowed = frozenset(name.lower().rstrip(".") for name in allow_hosts)
        self._own_zone: Zone | None = None

    async def addresses(self, host: str, port: int) -> Sequence[SocketAddress]:
        """Resolve a host to the addresses it may be reached at. Raises UnknownHost, UnsafeTarget."""
        found = await resolve_host(host, port)
        if host == self._host:
            self._own_zone = _narrowest(found)
        else:
            await self._judge(host, port, found)
        return found

    async def check_proxied(self, host: str, port: int) -> None:
        """Judge a host that a proxy will resolve: by the addresses known here; a name unknown here is left to the proxy."""
        if host == self._host:
            return
        try:
            found = await resolve_host(host, port)
        except UnknownHost:
            return
        await self._judge(host, port, found)

    async def _judge(self, host: str, port: int, found: Sequence[SocketAddress]) -> None:
        if self._allowed & {host, f"{host}:{port}"}:
            return
        worst = max(zone_of(address[0]) for _, address in found)
        if worst is Zone.PUBLIC:
            return
        if not may_lead(await self._zone(), worst):
            label = worst.name.lower().replace("_", "-")
            raise UnsafeTarget(
                f"{self._host} leads to {host}, which has a {label} address; allow_hosts permits it",
                registry=self._host,
            )

    async def _zone(self) -> Zone:
        if self._own_zone is None:
            try:
                self._own_zone = _narrowest(await resolve_host(self._host, 0))
            except UnknownHost:
                return Zone.PUBLIC
        return self._own_zone


async def resolve_host(host: str, port: int) -> Sequence[SocketAddress]:
    """Resolve a host name or address. Raises UnknownHost."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnknownHost(f"there is no host {host!r} ({_reason(error)})", registry=host) from error
    return list(
        dict.fromkeys((family, cast("tuple[Any, ...]", address)) for family, _, _, _, address in found)
    )


class Backend(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore; with a guard only to the addresses that it lets pass."""

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002  # httpcore's interface
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Connect. Raises UnknownHost, UnsafeTarget, ConnectionFailed."""
        where = f"{host}:{port}"
        with trio.move_on_after(timeout or _CONNECT_TIMEOUT):
            addresses = await (self._guard.addresses(host, port) if self._guard else resolve_host(host, port))
            return Stream(await _connect_any(addresses, where), where)
        raise ConnectionFailed(f"no connection to {where} within the time limit", sent=False, registry=where)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await trio.sleep(seconds)


class Stream(httpcore.AsyncNetworkStream):
    """A connection, plain or TLS, as httpcore wants it."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[Any], where: str) -> None:
        self._stream = stream
        self._where = where
        self._size = SMALL_READ
        self._fresh = True
        self.tail = b""
        """The last bytes that were read: a reply to HEAD ends with its headers, or has a body it must not have."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there; more than ``max_bytes`` where that is httpcore's usual piece and data flows freely."""
        size = self._size if max_bytes >= SMALL_READ else max_bytes
        try:
            with trio.fail_after(timeout) if timeout is not None else _NO_LIMIT:
                data = bytes(await self._stream.receive_some(size))
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._lost(error, httpcore.ReadError) from error
        self._size = next_size(len(data))
        self.tail = data[-4:]
        self._fresh = False
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        if not buffer:
            return
        try:
            with trio.fail_after(timeout) if timeout is not None else _NO_LIMIT:
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._lost(error, httpcore.WriteError) from error

    @property
    def plain(self) -> trio.socket.SocketType | None:
        """Its socket, where that gives what was sent as it was sent: None with TLS."""
        return self._stream.socket if isinstance(self._stream, trio.SocketStream) else None

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Speak TLS from here on. Raises TlsFailed, which says what was wrong, and ConnectionFailed."""
        name = server_hostname.rstrip(".") if server_hostname else None
        below: Any = Wide(self._stream) if isinstance(self._stream, trio.SocketStream) else self._stream
        secured = trio.SSLStream(below, ssl_context, server_hostname=name, https_compatible=True)
        try:
            with trio.fail_after(timeout or _CONNECT_TIMEOUT):
                await secured.do_handshake()
        except trio.TooSlowError as error:
            await trio.aclose_forcefully(self._stream)
            raise TlsFailed(
                f"{self._where} does not finish the TLS handshake", speaks_tls=False, registry=self._where
            ) from error
        except (trio.BrokenResourceError, ssl.CertificateError) as error:
            address = self._address()
            await trio.aclose_forcefully(self._stream)
            raise await self._handshake_failure(error, address, name) from (error.__cause__ or error)
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        return Stream(secured, self._where)

    def get_extra_info(self, info: str) -> Any:
        """Say what httpcore asks of a connection: ``is_readable`` tells a kept one that the other side closed."""
        if info == "is_readable":
            connection = self._socket()
            return connection.fileno() < 0 or connection.is_readable()
        if info == "ssl_object":
            return None  # only asked for the negotiated protocol, which is HTTP/1.1 always
        if info == "socket":
            return self._socket()
        return None

    def _lost(self, error: BaseException, otherwise: type[httpcore.NetworkError]) -> Exception:
        """Say why a connection broke. A TLS 1.3 server refuses a client certificate only after the handshake."""
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
            return TlsFailed(explain(self._where, cause), speaks_tls=True, registry=self._where)
        if self._fresh and isinstance(self._stream, trio.SSLStream):
            return otherwise(
                f"{_reason(error)}, right after the TLS handshake: it may want a client certificate"
            )
        return otherwise(_reason(error))

    def _socket(self) -> trio.socket.SocketType:
        stream: Any = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return cast("trio.SocketStream", stream).socket

    def _address(self) -> SocketAddress | None:
        if not isinstance(self._stream, trio.SocketStream):
            return None
        connection = self._stream.socket
        try:
            return socket.AddressFamily(connection.family), connection.getpeername()
        except OSError:
            return None

    async def _handshake_failure(
        self, error: BaseException, address: SocketAddress | None, name: str | None
    ) -> TlsFailed | ConnectionFailed:
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            shown = describe(await _certificate(address, name)) if address else ""
            return TlsFailed(explain(self._where, cause, shown), registry=self._where)
        if isinstance(cause, ssl.SSLError):
            return TlsFailed(explain(self._where, cause), speaks_tls=speaks_tls(cause), registry=self._where)
        return ConnectionFailed(
            f"{self._where} closed the connection in the TLS handshake", sent=False, registry=self._where
        )


class _Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


_NO_LIMIT: Final = _Nothing()


async def _connect_any(addresses: Sequence[SocketAddress], where: str) -> trio.SocketStream:
    """Connect to the first address that answers, giving each a short head start (RFC 8305)."""
    failures: list[OSError] = []
    winner: list[trio.SocketStream] = []

    async def attempt(address: SocketAddress, failed: trio.Event) -> None:
        try:
            stream = await _connect(address)
        except OSError as error:
            failures.append(error)
            failed.set()
            return
        if winner:
            await trio.aclose_forcefully(stream)
        else:
            winner.append(stream)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(_HEAD_START):
                    await failed.wait()
    except BaseException:
        for stream in winner:
            stream.socket.close()
        raise
    if winner:
        return winner[0]
    reason = _reason(failures[-1]) if failures else "it has no address"
    raise ConnectionFailed(f"no connection to {where}: {reason}", sent=False, registry=where)


async def _connect(address: SocketAddress) -> trio.SocketStream:
    family, place = address
    connection = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def _certificate(address: SocketAddress, name: str | None) -> bytes:
    """Ask once more for a certificate that was refused: Python names it only where it is not verified."""
    with trio.move_on_after(_SECOND_LOOK):
        try:
            async with await _connect(address) as plain:
                secured = trio.SSLStream(
                    plain, insecure_context(), server_hostname=name, https_compatible=True
                )
                await secured.do_handshake()
                return secured.getpeercert(binary_form=True) or b""
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    return b""


def _narrowest(found: Sequence[SocketAddress]) -> Zone:
    # The least trusting reading: a public address among private ones makes the registry a public one.
    return min((zone_of(address[0]) for _, address in found), default=Zone.PUBLIC)


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64 or (int(ip) >> 32 == 0 and int(ip) > 1):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()  # trio's own text repeats the address
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).lower()
