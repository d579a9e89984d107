"""Signing requests: the `httpx.Auth` flows. They only carry requests and replies; what to send is decided elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Protocol, Self

import httpx

from regfs.auth.accounts import Accounts
from regfs.auth.conversation import Conversation, no_credential, wants_password
from regfs.auth.desk import Desks
from regfs.auth.needs import Need
from regfs.auth.origin import Origin
from regfs.auth.replies import drained
from regfs.auth.tokens import basic_header, wrong_credential
from regfs.auth.words import words_of
from regfs.connection import Connection
from regfs.ports import Credential, CredentialKind, Keychain


class _Talk(Protocol):
    """The sending of one request, with all that must be sent for it."""

    async def next(self) -> httpx.Request | None: ...
    async def take(self, response: httpx.Response) -> None: ...
    def end(self) -> None: ...


class Flow(httpx.Auth):
    """What all flows share: requests of another origin pass unsigned, and nothing runs without trio."""

    def __init__(self, connection: Connection, keychain: Keychain, at: Connection | None = None) -> None:
        """``at``: where requests are signed, if that is not the connection's own address (a mirror of it).

        Raises ValueError where that is no HTTP registry's address.
        """
        self._origin = Origin(at or connection)
        self._registry = connection.address
        self._accounts = Accounts(connection, keychain)
        self._holder = self._accounts.whole

    @classmethod
    def for_connection(cls, connection: Connection, keychain: Keychain) -> Self | None:
        """The flow for a connection, as `regfs.ports.AuthMethod.flow` gives it; None where its address is no HTTP registry's."""
        try:
            return cls(connection, keychain)
        except ValueError:
            return None

    def forget(self) -> None:
        """Drop all credentials and tokens, so that the keychain is asked anew: someone has signed in or out."""
        self._accounts.forget()

    def sync_auth_flow(
        self,
        request: httpx.Request,  # noqa: ARG002  httpx's own signature
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Not to be had: waiting for others needs trio. Raises TypeError."""
        raise TypeError(f"{type(self).__name__} signs requests of an asynchronous client only")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign one request: yields it, and whatever must be sent for it before, and takes the replies.

        Raises NotSignedIn, Forbidden, BadReply, RateLimited; a 401 that says all there is to say is left to the caller.
        """
        # One that is sent again, or elsewhere, bears no proof of an earlier time.
        request.headers.pop("Authorization", None)
        if not self._origin.owns(request.url):
            yield request
            return
        talk = self._talk(request)
        try:
            while (sent := await talk.next()) is not None:
                await talk.take((yield sent))
        finally:
            talk.end()

    def _talk(self, request: httpx.Request) -> _Talk:
        raise NotImplementedError


class BasicFlow(Flow):
    """Sends user name and password with every request, unasked."""

    def _talk(self, request: httpx.Request) -> _Talk:
        need = Need.of(request.method, request.url.path, self._origin.base)
        return _BasicTalk(self._accounts, need.repository, self._registry, request)


class ChallengeFlow(Flow):
    """Does what the registry's 401 asks: Basic, or Bearer with a token from the endpoint that it names."""

    def __init__(self, connection: Connection, keychain: Keychain, at: Connection | None = None) -> None:
        """As `Flow`."""
        super().__init__(connection, keychain, at)
        self._desks = Desks(self._registry, self._origin.base, self._accounts)

    @property
    def token_requests(self) -> int:
        """How many requests went to token endpoints so far."""
        return self._desks.token_requests

    def forget(self) -> None:
        """Drop all credentials and tokens, so that the keychain is asked anew: someone has signed in or out."""
        super().forget()
        self._desks.forget()

    def _talk(self, request: httpx.Request) -> _Talk:
        return Conversation(self._desks, request)


class _BasicTalk:
    def __init__(self, accounts: Accounts, repository: str, registry: str, request: httpx.Request) -> None:
        self._accounts = accounts
        self._holder = accounts.whole
        self._repository = repository
        self._registry = registry
        self._request = request
        self._credential: Credential | None = None
        self._over = False

    async def next(self) -> httpx.Request | None:
        if self._over:
            return None
        self._holder = await self._accounts.at(self._repository)
        if refusal := self._holder.refusal():
            raise refusal
        credential = self._credential = await self._holder.get()
        if credential is None:
            raise no_credential(self._holder, self._registry)
        if credential.kind is not CredentialKind.PASSWORD:
            raise wants_password(credential, self._registry)
        self._request.headers["Authorization"] = basic_header(credential)
        return self._request

    async def take(self, response: httpx.Response) -> None:
        credential = self._credential
        if response.status_code != 401 or credential is None:
            self._over = True
            return
        error = wrong_credential(credential, words_of(await drained(response), credential), self._registry)
        if await self._holder.replacement(credential, error) is None:
            raise error

    def end(self) -> None:
        """Nothing is under way that another could wait for."""
