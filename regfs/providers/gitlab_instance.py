"""The GitLab of a connection: where its API is, told by the user or named by the registry's own challenge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from regfs.auth.service import ServiceFlow
from regfs.connection import Connection
from regfs.errors import NotARegistry, UnsafeTarget
from regfs.providers.gitlab_address import GITLAB_COM, configured, guessed, instance_of
from regfs.providers.gitlab_api import Api
from regfs.registry.client import Client
from regfs.registry.network import Guard
from regfs.registry.redirects import Origin

if TYPE_CHECKING:
    from regfs.ports import Tools
    from regfs.providers.gitlab_tokens import Signer


class Instance:
    """The GitLab of one connection; which it is, is found out when its API is first needed."""

    def __init__(self, connection: Connection, tools: Tools, signer: Signer) -> None:
        """Raises ConfigError where the option ``api`` cannot be used."""
        self._connection = connection
        self._tools = tools
        self._signer = signer
        self._api: Api | None = None
        self._finding = trio.Lock()
        self._told = configured(connection)
        self.is_gitlab_com = guessed(connection) == GITLAB_COM

    async def api(self) -> Api:
        """The client of its API. Raises NotARegistry where the registry names no GitLab, UnsafeTarget, and as a request."""
        async with self._finding:
            if self._api is None:
                self._api = self._made(self._told or await self._found())
            return self._api

    def counters(self) -> Mapping[str, int]:
        """The API client's counters."""
        return self._api.counters() if self._api is not None else {}

    async def aclose(self) -> None:
        """Close its connections."""
        if self._api is not None:
            await self._api.aclose()

    def _made(self, base: str) -> Api:
        keychain = self._tools.keychain
        flow = None
        if keychain is not None and self._connection.auth != "anonymous":
            flow = ServiceFlow(self._connection, keychain, f"{base}/api/v4", self._signer.headers)
        return Api(self._connection, base, self._tools.http, flow, self._signer)

    async def _found(self) -> str:
        """Ask the registry, unsigned, where its tokens are had: the API is at the same place, whatever the two are called."""
        if self.is_gitlab_com:
            return GITLAB_COM
        client = Client(self._connection, self._tools.http, None, read_only=True)
        try:
            reply = await client.request("GET", "", expect={200, 401}, what="which GitLab it belongs to")
        finally:
            await client.aclose()
        base = instance_of([reply.headers.get("www-authenticate", "")])
        if not base:
            raise NotARegistry(
                f"{self._connection.address} names no GitLab that it belongs to: say which with "
                '`options = { api = "https://gitlab.example.com" }`',
                registry=self._connection.address,
            )
        await self._check(base, Origin.of(reply.url))
        return base

    async def _check(self, base: str, registry: Origin) -> None:
        """A registry may not send a token to where it could not send a request: plain http, this machine's own network."""
        there = Origin.of(base)
        if there.scheme != "https" and registry.scheme != "http":
            raise UnsafeTarget(
                f"the registry names a GitLab that is not https ({base}): nothing was sent there",
                registry=self._connection.address,
            )
        guard = Guard(registry.host, self._connection.allow_hosts)
        await guard.check_proxied(there.host, there.port)
