"""The keychain that flows ask on an OAuth connection: access tokens for the grant that is kept, renewed in one place.

A grant is sent to the token endpoint that it came from alone. One renewal serves all who wait, flies on its own (its end
must be kept, whoever stopped waiting), and excludes other processes by a file's lock; what they kept is looked at first.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

import msgspec
import trio

from regfs.auth.oauth.asking import tokens_for
from regfs.auth.oauth.discovery import discovered
from regfs.auth.oauth.grant import Grant, Tokens, read_grant
from regfs.auth.oauth.lock import lock_path, locked
from regfs.auth.oauth.messages import ClientAuth, OAuthError, by_client, by_refresh, is_passing
from regfs.auth.oauth.settings import FLOW, FlowKind, server_of
from regfs.connection import Connection
from regfs.errors import CredentialError, DeadlineExceeded, RateLimited, RegfsError, SignInEnded
from regfs.ports import Credential, CredentialKind, Exchange, Keychain, OAuthServer
from regfs.redaction import forget_secret

log = logging.getLogger(__name__)

JUST_RENEWED: Final = 10.0
"""Seconds for which an access token is new enough that another one would be refused as well."""
FRUITLESS: Final = 600.0
"""Seconds for which a refusal leads to no renewal where the last one was refused too."""
LOOK_AGAIN: Final = 30.0
"""Seconds after which a sign-in that has ended is looked for anew where it is kept."""
PAUSE, MAX_PAUSE = 5.0, 300.0
_LIMIT, _REMEMBERED = 50.0, 8


@runtime_checkable
class _Stores(Protocol):
    async def store(self, connection: Connection, credential: Credential) -> None: ...


@dataclass(slots=True)
class _Held:
    """A grant newer than what is kept, since that place cannot be written to; ``instead_of`` is the kept one's mark."""

    instead_of: str
    grant: Grant


_held: Final[dict[tuple[str, str], _Held]] = {}
"""By address and account, for the whole process: a refresh token that was rotated is good once, whoever has it."""


_LOST: Final = Credential("", "-", origin="memory")


class _Flight:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.grant: Grant | None = None
        self.error: RegfsError | None = None


@dataclass(slots=True)
class _State:
    """What is known between two questions. Moments in trio's time."""

    grant: Grant | None = None
    origin: str = ""
    ended: SignInEnded | None = None
    ended_mark: str = ""
    look_again: float = 0.0
    failure: RegfsError | None = None
    failed_until: float = 0.0
    failures: int = 0
    renewed_at: float = float("-inf")
    renewed_for_refusal: str = field(default="", repr=False)
    fruitless_until: float = 0.0


class GrantKeychain:
    """Gives what the inner keychain has; for a grant, its access token, renewed shortly before it ends."""

    def __init__(
        self,
        connection: Connection,
        keychain: Keychain,
        exchange: Exchange,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._keychain = keychain
        self._exchange = exchange
        self._now = now
        self._state = _State()
        self._flight: _Flight | None = None
        self._old: deque[Grant] = deque()

    async def get(self, connection: Connection) -> Credential | None:
        """An access token as an ordinary credential. Raises SignInEnded, CredentialError, and what `Exchange` raises."""
        state = self._state
        if state.grant is None or not state.grant.is_fresh(self._now()):
            self._raise_known()
            credential = await self._found(connection)
            grant = state.grant if credential is _LOST else await self._grant_of(credential)
            if grant is None:
                return credential
            self._take(grant, credential)
            state.grant = grant
            if not grant.is_fresh(self._now()):
                grant = await self._renewed(grant)
            state.grant = grant
        return state.grant.usable(self._origin())

    async def renewed(self, connection: Connection, refused: Credential) -> Credential | None:
        """See `regfs.ports.RenewsCredentials.renewed`: another access token for one that the registry refused before its time."""
        state, grant = self._state, self._state.grant
        if grant is None:
            current = await self.get(connection)
            grant = state.grant
            if grant is None:
                return current if current != refused else None
        if grant.access_token != refused.secret:
            return grant.usable(self._origin())
        if not isinstance(self._keychain, _Stores):
            return None  # somebody looks whether a sign-in is good, and keeps nothing
        self._raise_known()
        now = trio.current_time()
        if state.renewed_for_refusal == refused.secret:
            state.renewed_for_refusal, state.fruitless_until = "", now + FRUITLESS
        if now < state.fruitless_until or now - state.renewed_at < JUST_RENEWED:
            raise self._not_taken(grant)
        if not grant.can_renew:
            raise self._end(grant, "the access token is not taken any more, and there is no refresh token")
        grant = await self._renewed(grant)
        state.renewed_for_refusal = grant.access_token
        return grant.usable(self._origin())

    # ── what is kept ──

    async def _found(self, connection: Connection) -> Credential | None:
        """What is kept; `_LOST` where that can't be said any more, and the grant in memory goes on."""
        try:
            return await self._keychain.get(connection)
        except CredentialError:
            if self._state.grant is None:
                raise
            return _LOST

    async def _grant_of(self, credential: Credential | None) -> Grant | None:
        if credential is None:
            return None
        if credential.kind is CredentialKind.OAUTH_GRANT:
            return self._newest(read_grant(credential))
        by_client = dict(self._connection.options).get(FLOW) == FlowKind.CLIENT.value
        if by_client and credential.kind is CredentialKind.PASSWORD:
            return await self._client_grant(credential)
        return None

    async def _client_grant(self, credential: Credential) -> Grant:
        """A client's id and secret from a file, where no `regfs login` was: its tokens are held here alone."""
        place = self._place()
        if place in _held and _held[place].grant.client_secret == credential.secret:
            return _held[place].grant
        server, basic = server_of(self._connection, OAuthServer()), False
        if server.issuer and not server.token_endpoint:
            server, basic = await discovered(server, self._exchange)
        if not server.token_endpoint:
            raise CredentialError("the flow 'client' needs the option oauth_token_endpoint or oauth_issuer")
        return Grant(
            server.token_endpoint,
            credential.username,
            client_secret=credential.secret,
            scopes=tuple(server.scopes),
            username=self._connection.username,
            by_client=True,
            basic=basic,
        )

    def _newest(self, kept: Grant) -> Grant:
        held = _held.get(self._place())
        if held is None:
            return kept
        if held.instead_of == kept.mark:
            return held.grant
        del _held[self._place()]
        return kept

    def _place(self) -> tuple[str, str]:
        return self._connection.address, self._connection.account

    def _take(self, grant: Grant, credential: Credential | None) -> None:
        """Go on with a grant, unless it is the one that has ended."""
        self._state.origin = credential.origin if credential is not None else ""
        if self._state.ended is not None and grant.mark != self._state.ended_mark:
            self._state.ended = None
        self._raise_known(again=True)

    def _origin(self) -> str:
        return f"{self._state.origin or 'sign-in'}, by OAuth"

    # ── failures that are remembered ──

    def _raise_known(self, *, again: bool = False) -> None:
        """Raise what the last question came to, while asking again would be hammering."""
        state, now = self._state, trio.current_time()
        if state.ended is not None and (again or now < state.look_again):
            state.look_again = now + LOOK_AGAIN if again else state.look_again
            raise copy.copy(state.ended)
        if state.failure is not None and now < state.failed_until and not self._is_alive():
            raise copy.copy(state.failure)

    def _is_alive(self) -> bool:
        return self._state.grant is not None and self._state.grant.is_alive(self._now())

    def _end(self, grant: Grant, reason: str, words: str = "") -> SignInEnded:
        """The sign-in is over: remembered until another is kept."""
        name = self._connection.name
        error = SignInEnded(
            f"the sign-in by OAuth is over: {reason}; sign in again with `regfs reconnect {name}`",
            connection=name,
            registry=self._connection.address,
            words=words,
        )
        self._state.ended, self._state.ended_mark, self._state.grant = error, grant.mark, None
        self._state.look_again = trio.current_time() + LOOK_AGAIN
        log.warning("%s: the sign-in by OAuth is over (%s); `regfs reconnect %s`", name, reason, name)
        return copy.copy(error)

    def _not_taken(self, grant: Grant) -> SignInEnded:
        host, scopes = urlsplit(grant.token_endpoint).netloc, " ".join(grant.scopes) or "none named"
        name = self._connection.name
        return SignInEnded(
            f"{self._connection.address} does not take the access token that {host} gives (scopes: {scopes}); "
            f"sign in with others: `regfs reconnect {name}`",
            connection=name,
            registry=self._connection.address,
        )

    # ── renewal ──

    async def _renewed(self, grant: Grant) -> Grant:
        """A fresh grant in place of ``grant``: one flight for all who wait. What is still good serves if that fails."""
        if not grant.can_renew:
            raise self._end(grant, "the access token has ended, and there is no refresh token")
        state = self._state
        if (
            state.failure is not None
            and trio.current_time() < state.failed_until
            and grant.is_alive(self._now())
        ):
            return grant
        flight = self._flight
        if flight is None:
            flight = self._flight = _Flight()
            trio.lowlevel.spawn_system_task(self._fly, flight, grant)
        await flight.done.wait()
        if flight.grant is not None:
            return flight.grant
        assert flight.error is not None
        if is_passing(flight.error) and grant.is_alive(self._now()):
            return grant
        raise copy.copy(flight.error)

    async def _fly(self, flight: _Flight, grant: Grant) -> None:
        """In a task of its own, to its end: no caller's deadline may lose a refresh token that was just given."""
        error: RegfsError = DeadlineExceeded(
            "the sign-in was not renewed in time", registry=self._connection.address
        )
        try:
            with trio.CancelScope(shield=True), trio.move_on_after(_LIMIT):
                flight.grant = await self._exclusively(grant)
        except RegfsError as failure:
            error = failure
        except Exception as failure:
            log.exception("%s: the sign-in could not be renewed", self._connection.name)
            error = CredentialError(f"the sign-in could not be renewed ({type(failure).__name__})")
        finally:
            flight.error = None if flight.grant is not None else error
            self._landed(flight)

    def _landed(self, flight: _Flight) -> None:
        state = self._state
        if flight.grant is not None:
            state.grant, state.failure, state.failures = flight.grant, None, 0
            state.renewed_at = trio.current_time()
        elif flight.error is not None and not isinstance(flight.error, SignInEnded):
            wish = flight.error.retry_after if isinstance(flight.error, RateLimited) else None
            pause = max(PAUSE * 2**state.failures, wish or 0.0)
            state.failure, state.failures = flight.error, min(state.failures + 1, 10)
            state.failed_until = trio.current_time() + min(pause, MAX_PAUSE)
            log.warning("%s: the sign-in could not be renewed: %s", self._connection.name, flight.error)
        self._flight = None
        flight.done.set()

    async def _exclusively(self, grant: Grant) -> Grant:
        async with locked(lock_path(self._connection)):
            kept = await self._kept(grant)
            if kept.access_token != grant.access_token and kept.is_fresh(self._now()):
                return kept  # another process was first
            try:
                return await self._asked(kept)
            except OAuthError as error:
                again = await self._kept(kept)
                if error.code == "invalid_grant" and again.refresh_token != kept.refresh_token:
                    return again if again.is_fresh(self._now()) else await self._second(again)
                raise self._refusal(kept, error) from None

    async def _second(self, grant: Grant) -> Grant:
        try:
            return await self._asked(grant)
        except OAuthError as error:
            raise self._refusal(grant, error) from None

    async def _kept(self, grant: Grant) -> Grant:
        """What is kept now, which another process may have renewed; ``grant`` where that can't be said."""
        if grant.by_client:
            return grant
        try:
            credential = await self._keychain.get(self._connection)
        except CredentialError:
            return grant
        if credential is None or credential.kind is not CredentialKind.OAUTH_GRANT:
            return grant
        return self._newest(read_grant(credential))

    async def _asked(self, grant: Grant) -> Grant:
        client = ClientAuth(grant.client_id, grant.client_secret, grant.basic)
        asked = self._now()
        tokens, client = await tokens_for(
            self._exchange,
            client,
            lambda who: (
                by_client(grant.token_endpoint, who, grant.scopes)
                if grant.by_client
                else by_refresh(grant.token_endpoint, who, grant.refresh_token)
            ),
        )
        log.info("%s: the sign-in by OAuth is renewed", self._connection.name)
        return await self._keep(grant, tokens, client, asked)

    async def _keep(self, before: Grant, tokens: Tokens, client: ClientAuth, asked: float) -> Grant:
        renewed = before.with_tokens(tokens, asked)
        renewed = msgspec.structs.replace(renewed, basic=client.basic)
        held = _held.get(self._place())
        mark = held.instead_of if held is not None and held.grant == before else before.mark
        credential = renewed.kept(self._state.origin)
        self._forget(before)
        if isinstance(self._keychain, _Stores):
            try:
                await self._keychain.store(self._connection, credential)
            except CredentialError as error:
                if not before.by_client:
                    self._warn(error)
            else:
                _held.pop(self._place(), None)
                self._note("")
                return renewed
        _held[self._place()] = _Held(mark, renewed)
        return renewed

    def _warn(self, error: CredentialError) -> None:
        if self._place() not in _held:
            log.warning(
                "%s: the renewed sign-in is held in memory only, and lost at the end: %s",
                self._connection.name,
                error,
            )
        self._note("renewed, and held in memory only")

    def _note(self, text: str) -> None:
        note = getattr(self._keychain, "note", None)
        if note is not None:
            note(self._connection, text)

    def _refusal(self, grant: Grant, error: OAuthError) -> RegfsError:
        host = urlsplit(grant.token_endpoint).netloc
        if error.code == "invalid_client":
            reason = f"{host} does not know the client application, or its secret, any more"
        elif error.code == "invalid_grant":
            reason = f"{host} has revoked it, or let it run out"
        else:
            reason = f"{host} answers {error.code!r}"
        return self._end(grant, reason, error.words)

    def _forget(self, grant: Grant) -> None:
        """Tokens of long ago are no secrets any more, and would make every line of the log dearer."""
        self._old.append(grant)
        if len(self._old) > _REMEMBERED:
            old = self._old.popleft()
            for text in (old.access_token, old.refresh_token, old.kept().secret):
                forget_secret(text)
