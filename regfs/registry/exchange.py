"""Sending what a sign-in itself has to ask: to an authorization server, under the connection's own rules.

No redirect is followed and no proof of the registry's goes along. Plain http goes to loopback alone, and to the
registry's own host where the user allowed it there. A host that the connection's options name was chosen by the user,
as the registry's was; any other is judged like one that the registry names (see `network`).
"""

from __future__ import annotations

from typing import Final

import httpx
import trio

from regfs.connection import Connection
from regfs.errors import ConfigError, DeadlineExceeded, UnsafeTarget
from regfs.ports import HttpPolicy
from regfs.reference import Address
from regfs.registry.bodies import read_whole
from regfs.registry.redirects import Origin, shown
from regfs.registry.service import beside
from regfs.registry.site import Site
from regfs.registry.transport import Transport

MAX_REPLY: Final = 64 * 1024
DEADLINE: Final = 15.0


class HttpExchange:
    """An `Exchange` for one connection. Each request has a connection of its own: there is one in an hour."""

    def __init__(self, connection: Connection, policy: HttpPolicy) -> None:
        self._connection = connection
        self._policy = policy

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """See `regfs.ports.Exchange.__call__`. Raises Unreachable, DeadlineExceeded, TooLarge, BadReply, ConfigError."""
        url = str(request.url)
        where = Origin.of(url)
        transport = self._transport(where)
        deadline = min(DEADLINE, self._policy.call_deadline)
        try:
            with trio.move_on_after(deadline):
                return await _whole(transport, request, where)
        finally:
            with trio.CancelScope(shield=True):
                await transport.aclose()
        raise DeadlineExceeded(
            f"{where.host} gave no answer in {deadline:g} seconds: {shown(url)}", registry=where.host
        )

    def _transport(self, where: Origin) -> Transport:
        connection = self._rules_for(where)
        if where.scheme == "http" and not self._may_be_plain(where):
            raise UnsafeTarget(
                f"{where} is plain http, by which no sign-in is sent: every machine between could read it",
                registry=where.host,
            )
        schemes = ("https", "http") if where.scheme == "http" else ("https",)
        site = Site(connection, schemes)
        return Transport(
            site, connection, self._policy.user_agent, 1, lambda _name, _by: None, read_only=False
        )

    def _rules_for(self, where: Origin) -> Connection:
        """The connection as it counts for a host: with that as its own, or (a stranger's) judged from the registry's."""
        own = _host(self._connection.address)
        if own is None or where.host == own or where.host in _named(self._connection):
            return beside(self._connection, str(where))
        return self._connection

    def _may_be_plain(self, where: Origin) -> bool:
        if Address.parse(str(where)).is_loopback:
            return True
        return self._connection.insecure and where.host == _host(self._connection.address)


async def _whole(transport: Transport, request: httpx.Request, where: Origin) -> httpx.Response:
    response = await transport.handle_async_request(request)
    response.request = request
    try:
        body = await read_whole(response, MAX_REPLY, f"what {where.host} answers to a sign-in")
    finally:
        await response.aclose()
    kept = {name: response.headers[name] for name in ("retry-after", "date") if name in response.headers}
    return httpx.Response(response.status_code, headers=kept, content=body, request=request)


def _named(connection: Connection) -> frozenset[str]:
    """The hosts of all URLs among the connection's options."""
    urls = (value for _, value in connection.options if value.startswith(("https://", "http://")))
    return frozenset(host for host in map(_host, urls) if host)


def _host(address: str) -> str | None:
    try:
        return Address.parse(address).host.rstrip(".")
    except (ValueError, ConfigError):
        return None
