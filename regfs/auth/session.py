"""Signing requests to a service whose API wants a token of its own, which one POST gets for the credential."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

import httpx
import msgspec
import trio

from regfs.auth.credentials import Holder
from regfs.auth.replies import drained
from regfs.auth.service import ServiceFlow
from regfs.auth.tokencache import Flight, Key, Token, TokenCache, dated
from regfs.auth.tokens import Ask, Grant, wrong_credential
from regfs.auth.words import words_of
from regfs.connection import Connection
from regfs.errors import BadReply, NotSignedIn, RateLimited, RegfsError, ServerFailed
from regfs.ports import Credential, CredentialKind, Keychain

_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 422})
_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_A_TIMESTAMP: Final = 1_000_000_000.0


@dataclass(frozen=True, slots=True)
class TokenForm:
    """How a service gives tokens: ``fields`` are posted as JSON to ``path`` below its base.

    ``member`` is the token's in the reply, ``lifetime`` how long it is good, in seconds, where no reply says so.
    """

    path: str
    fields: Callable[[Credential], Mapping[str, str]]
    member: str
    lifetime: float


class SessionFlow(ServiceFlow):
    """Signs with a token that is got once for all who wait, kept for its lifetime, and got again after a 401.

    Where there is no password, or the service's sign-in refuses it, requests go unsigned: what is public is still to
    be had, and `refused` says why it is no more. Raises RateLimited, ServerFailed and BadReply of the sign-in.
    """

    def __init__(self, connection: Connection, keychain: Keychain, base: str, form: TokenForm) -> None:
        """Raises ValueError where ``base`` is no http or https URL."""
        super().__init__(connection, keychain, base)
        self.form = form
        self.ask = Ask("bearer", urljoin(f"{base.rstrip('/')}/", form.path))
        self.tokens = TokenCache()
        self.refused: NotSignedIn | None = None
        """Why the service's sign-in did not take the credential, while that is so."""

    async def credential(self) -> Credential | None:
        """The credential that it signs in with, if there is one."""
        return await self._holder.get()

    def forget(self) -> None:
        """Drop all credentials and tokens, so that the keychain is asked anew: someone has signed in or out."""
        super().forget()
        self.tokens.clear()
        self.refused = None

    def _talk(self, request: httpx.Request) -> _SessionTalk:  # type: ignore[override]  # another way to talk
        return _SessionTalk(self, self._holder, request, self._registry)


@dataclass(frozen=True, slots=True)
class _Fetch:
    """A token that this talk fetches for all who wait for it."""

    key: Key
    flight: Flight
    credential: Credential
    asked: float


class _SessionTalk:
    def __init__(self, flow: SessionFlow, holder: Holder, request: httpx.Request, registry: str) -> None:
        self._flow = flow
        self._holder = holder
        self._request = request
        self._registry = registry
        self._fetch: _Fetch | None = None
        self._sent: tuple[Key, Token] | None = None
        self._again = False
        self._over = False

    async def next(self) -> httpx.Request | None:
        while not self._over:
            credential = await self._usable()
            self._request.headers.pop("Authorization", None)
            if credential is None:
                self._sent = None
                return self._request
            key = (self._holder.generation, self._flow.ask)
            token = self._flow.tokens.get(key)
            if token is not None:
                self._sent = key, token
                self._request.headers["Authorization"] = f"Bearer {token.value}"
                return self._request
            flight, mine = self._flow.tokens.board(key)
            if mine:
                self._fetch = _Fetch(key, flight, credential, trio.current_time())
                return self._sign_in(credential)
            await flight.done.wait()
            if flight.error is not None:
                raise copy.copy(flight.error)
        return None

    async def take(self, response: httpx.Response) -> None:
        if self._fetch is not None:
            await self._take_token(self._fetch, response)
        elif response.status_code == 401 and self._sent is not None and not self._again:
            await drained(response)
            key, token = self._sent
            self._flow.tokens.drop(key, token.value)
            self._again = True
        else:
            self._over = True

    def end(self) -> None:
        """The talk is over, perhaps amid: a token it was fetching is left to the next who waits for it."""
        if self._fetch is not None:
            self._land(self._fetch, None)

    async def _usable(self) -> Credential | None:
        credential = await self._holder.get()
        if credential is None:
            self._flow.refused = None
            return None
        if credential.kind is not CredentialKind.PASSWORD:
            self._flow.refused = NotSignedIn(
                f"{self._host} takes a password or an access token, and this is another kind of credential "
                f"({credential.kind.value})",
                registry=self._registry,
            )
            return None
        return None if self._holder.refusal() is not None else credential

    @property
    def _host(self) -> str:
        return self._flow.ask.host

    def _sign_in(self, credential: Credential) -> httpx.Request:
        request = httpx.Request(
            "POST", self._flow.ask.realm, json=dict(self._flow.form.fields(credential)), headers=_HEADERS
        )
        if "timeout" in self._request.extensions:
            request.extensions["timeout"] = self._request.extensions["timeout"]
        return request

    async def _take_token(self, fetch: _Fetch, response: httpx.Response) -> None:
        try:
            token = self._granted(fetch, response, await drained(response))
        except NotSignedIn as error:
            self._flow.refused = error
            await self._holder.replacement(fetch.credential, error)
            self._land(fetch, None)
        except RegfsError as error:
            self._land(fetch, error)
            raise
        else:
            self._flow.refused = None
            self._land(fetch, token)

    def _land(self, fetch: _Fetch, result: Token | RegfsError | None) -> None:
        self._fetch = None
        self._flow.tokens.land(fetch.key, fetch.flight, result)

    def _granted(self, fetch: _Fetch, response: httpx.Response, body: bytes) -> Token:
        status, words = response.status_code, words_of(body, fetch.credential)
        if status == 429:
            raise RateLimited(
                f"{self._host} is asked for sign-ins too often",
                retry_after=_retry_after(response.headers),
                registry=self._registry,
                words=words,
            )
        if status in _REFUSED:
            raise wrong_credential(fetch.credential, words, self._registry)
        if status >= 500 or status == 408:
            raise ServerFailed(
                f"the sign-in of {self._host} answered {status}", registry=self._registry, words=words
            )
        value = _member(body, self._flow.form.member) if status in (200, 201) else ""
        if not _HEADER_SAFE.fullmatch(value):
            raise BadReply(f"the sign-in of {self._host} gave no token ({status})", registry=self._registry)
        return dated(Grant(value, self._flow.form.lifetime), fetch.asked)


_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


def _member(body: bytes, name: str) -> str:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else ""


def _retry_after(headers: httpx.Headers) -> float | None:
    """In seconds: ``Retry-After`` as a number, or ``X-Retry-After`` as one since 1970."""
    text = headers.get("retry-after", headers.get("x-retry-after", ""))
    if not re.fullmatch(r"[0-9]{1,12}", text):
        return None
    seconds = float(text)
    return max(0.0, seconds - time.time()) if seconds >= _A_TIMESTAMP else seconds
