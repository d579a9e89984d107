"""Signing requests to a service beside the registry with the registry's own credential."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import httpx

from regfs.auth.accounts import Accounts
from regfs.auth.conversation import no_credential
from regfs.auth.credentials import Holder
from regfs.auth.flows import Flow
from regfs.auth.origin import Origin
from regfs.auth.replies import drained
from regfs.auth.tokens import wrong_credential
from regfs.auth.words import words_of
from regfs.connection import Connection
from regfs.ports import Credential, Keychain
from regfs.reference import Address

Headers = Callable[[Credential], Mapping[str, str]]


def bearer(credential: Credential) -> Mapping[str, str]:
    """Send the secret as a Bearer token (RFC 6750)."""
    return {"Authorization": f"Bearer {credential.secret}"}


class ServiceFlow(Flow):
    """Sends the credential in a header, unasked, to the service at ``base`` and nowhere else; nothing where there is none.

    ``headers`` says how a credential is spelled there; an empty mapping: it is of no use there. A 401 to a credential
    asks the keychain for another one, and is left to the caller where there is none. NotSignedIn for a 401 where the keychain
    failed: with the reason.
    """

    def __init__(
        self, connection: Connection, keychain: Keychain, base: str, headers: Headers = bearer
    ) -> None:
        """Raises ValueError where ``base`` is no http or https URL."""
        # Plain http that was allowed for the registry's host is allowed for no other.
        same = Address.parse(base).host == _host(connection)
        self._origin = Origin(replace(connection, address=base, insecure=connection.insecure and same))
        self._registry = connection.address
        self._accounts = Accounts(connection, keychain)
        self._holder = self._accounts.whole
        self._headers = headers

    def _talk(self, request: httpx.Request) -> _ServiceTalk:
        return _ServiceTalk(self._holder, self._headers, request, self._registry)


class _ServiceTalk:
    def __init__(self, holder: Holder, headers: Headers, request: httpx.Request, registry: str) -> None:
        self._holder = holder
        self._headers = headers
        self._request = request
        self._registry = registry
        self._sent: Credential | None = None
        self._names: tuple[str, ...] = ()
        self._over = False

    async def next(self) -> httpx.Request | None:
        if self._over:
            return None
        if refusal := self._holder.refusal():
            raise refusal
        credential = await self._holder.get()
        for name in self._names:
            self._request.headers.pop(name, None)
        headers = self._headers(credential) if credential is not None else {}
        self._names = tuple(headers)
        self._request.headers.update(headers)
        self._sent = credential if headers else None
        return self._request

    async def take(self, response: httpx.Response) -> None:
        sent = self._sent
        if response.status_code == 401 and sent is None and self._holder.failure is not None:
            await drained(response)
            raise no_credential(self._holder, self._registry)
        if response.status_code != 401 or sent is None:
            self._over = True
            return
        error = wrong_credential(sent, words_of(await drained(response), sent), self._registry)
        self._over = await self._holder.replacement(sent, error) is None

    def end(self) -> None:
        """Nothing is under way that another could wait for."""


def _host(connection: Connection) -> str:
    try:
        return Address.parse(connection.address).host
    except ValueError:
        return ""
