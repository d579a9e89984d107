"""One request's way past a registry's challenges: what to send next, and what the replies mean.

A `Conversation` never sends: `next` gives a request, `take` receives its reply. Nothing is sent before a registry has
asked for it, except what it asked for in the like case before. A reply of 401 is read, and its connection given back,
before anything is waited for: otherwise those who wait for a token could hold the last connection that it needs.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Final

import httpx
import trio

from regfs.auth.challenges import Challenge, first_supported, parse_challenges
from regfs.auth.credentials import Holder
from regfs.auth.desk import Desks
from regfs.auth.needs import Need, with_scopes
from regfs.auth.replies import drained, token_reply
from regfs.auth.tokencache import Flight, Token, dated
from regfs.auth.tokens import Ask, Grant, TokenSteps, basic_header, token_steps, wrong_credential
from regfs.auth.words import words_of
from regfs.errors import (
    AccessDenied,
    BadReply,
    Forbidden,
    NotSignedIn,
    RateLimited,
    RegfsError,
    ServerFailed,
)
from regfs.ports import Credential, CredentialKind

MAX_ROUNDS: Final = 5
"""How often one request is sent: with what was at hand, after a cold start, fresh, with new credentials, and one more."""
TOKEN_TRIES: Final = 3
MAX_RETRY_AFTER: Final = 5.0


@dataclass(slots=True)
class Proof:
    """What meets an ask. ``fresh``: got for this very request, so that asking again would change nothing."""

    ask: Ask
    header: str = field(repr=False)
    credential: Credential | None = None
    generation: int = 0
    token: str = field(default="", repr=False)
    fresh: bool = False


@dataclass(slots=True)
class _Fetch:
    """A token that this conversation fetches for all who wait for it."""

    ask: Ask
    flight: Flight
    generation: int
    credential: Credential | None
    steps: TokenSteps
    asked: float
    attempt: int = 1


class Conversation:
    """The sending of one request of the connection's own origin."""

    def __init__(self, desks: Desks, request: httpx.Request) -> None:
        self._desks = desks
        self._request = request
        self._need = Need.of(request.method, request.url.path, desks.base)
        desk = self._desk = desks.known(self._need.repository)
        refused = desk.holder.refusal() is not None
        self._ask = None if refused else desk.lessons.expected(self._need)
        self._guessed = desk.lessons.known(self._need) is None
        self._denied: tuple[Ask, RegfsError] | None = None
        self._proof: Proof | None = None
        self._fetch: _Fetch | None = None
        self._outgoing: httpx.Request | None = None
        self._answer: httpx.Response | None = None
        self._rounds = 0
        self._cold = False
        self._over = False

    async def next(self) -> httpx.Request | None:
        """What to send now: the request, or one to a token endpoint. None: the last reply is the answer.

        Raises NotSignedIn, Forbidden, BadReply, RateLimited.
        """
        while self._ask is not None and self._proof is None and not self._over:
            if self._outgoing is not None:
                return self._to_token_endpoint(self._outgoing)
            try:
                await self._prove(self._ask)
            except RegfsError as error:
                self._failed(self._ask, error)
        if self._over:
            return None
        self._rounds += 1
        self._request.headers.pop("Authorization", None)
        if self._proof is not None:
            self._request.headers["Authorization"] = self._proof.header
        return self._request

    async def take(self, response: httpx.Response) -> None:
        """Receive the reply to what `next` gave."""
        fetch = self._fetch
        if fetch is None:
            await self._take_answer(response)
            return
        try:
            await self._take_token(fetch, response)
        except RegfsError as error:
            if self._fetch is fetch:
                self._land(fetch, error)
            self._failed(fetch.ask, error)

    def end(self) -> None:
        """The conversation is over, perhaps amid: a token it was fetching is left to the next who waits for it."""
        if self._fetch is not None:
            self._land(self._fetch, None)

    # ── proofs ──

    async def _prove(self, ask: Ask) -> None:
        """Come nearer to a proof for ``ask``: it is set, or something must be sent first, or it is worth another look."""
        self._desk = await self._desks.at(self._need.repository)
        holder = self._desk.holder
        if refusal := holder.refusal():
            raise refusal
        credential = await holder.get()
        generation = holder.generation
        if ask.scheme == "basic":
            self._prove_basic(ask, credential)
        elif credential is not None and credential.kind is CredentialKind.REGISTRY_TOKEN:
            self._proof = Proof(ask, f"Bearer {credential.secret}", credential)
        elif token := self._desk.tokens.get((generation, ask)):
            self._proof = _shown(ask, token, credential, generation, fresh=False)
        else:
            await self._board(ask, credential, generation)

    async def _board(self, ask: Ask, credential: Credential | None, generation: int) -> None:
        """Fetch a token, or wait for the task that does; where that was cancelled, one who waited is next."""
        flight, mine = self._desk.tokens.board((generation, ask))
        if mine:
            steps = self._steps(ask, credential, generation)
            self._fetch = _Fetch(ask, flight, generation, credential, steps, trio.current_time())
            self._outgoing = next(steps)
            return
        await flight.done.wait()
        if flight.error is not None:
            raise copy.copy(flight.error)
        if flight.token is not None:
            self._proof = _shown(ask, flight.token, credential, generation, fresh=True)

    def _prove_basic(self, ask: Ask, credential: Credential | None) -> None:
        if credential is not None:
            if credential.kind is not CredentialKind.PASSWORD:
                raise wants_password(credential, self._desk.registry)
            self._proof = Proof(ask, basic_header(credential), credential)
        elif self._answer is None:
            self._ask = None  # there is nothing to send unasked, and it may do without
        else:
            self._leave_unsigned()

    def _leave_unsigned(self) -> None:
        """End with the 401, which says it all, unless a credential is only missing because the keychain failed."""
        if self._desk.holder.failure is not None:
            raise no_credential(self._desk.holder, self._desk.registry)
        self._over = True

    def _failed(self, ask: Ask, error: RegfsError) -> None:
        """Raise, unless the ask was a guess: then the registry is asked, and its answer to nothing counts."""
        error.registry = error.registry or self._desk.registry
        if not (self._guessed and self._answer is None and isinstance(error, AccessDenied | BadReply)):
            raise error
        self._denied = ask, error
        self._ask = None

    # ── tokens ──

    def _steps(self, ask: Ask, credential: Credential | None, generation: int) -> TokenSteps:
        return token_steps(ask, credential, self._desk.refresh_token(generation, ask), time.time())

    def _to_token_endpoint(self, sent: httpx.Request) -> httpx.Request:
        """Let a token request be as patient, and say the same of its sender, as the request it is for."""
        sent.headers["User-Agent"] = self._request.headers.get("User-Agent", "regfs")
        sent.headers["Accept"] = "application/json"
        sent.headers["Accept-Encoding"] = "identity"
        if "timeout" in self._request.extensions:
            sent.extensions["timeout"] = self._request.extensions["timeout"]
        self._desks.token_requests += 1
        return sent

    async def _take_token(self, fetch: _Fetch, response: httpx.Response) -> None:
        reply = await token_reply(response, fetch.ask)
        try:
            self._outgoing = fetch.steps.send(reply)
        except StopIteration as end:
            self._granted(fetch, end.value)
        except (ServerFailed, RateLimited) as error:
            if fetch.attempt == TOKEN_TRIES:
                raise
            await trio.sleep(_pause(error, fetch.attempt))
            fetch.attempt += 1
            fetch.asked = trio.current_time()
            fetch.steps = self._steps(fetch.ask, fetch.credential, fetch.generation)
            self._outgoing = next(fetch.steps)
        except NotSignedIn as error:
            error.registry = self._desk.registry
            if fetch.credential is None or not await self._desk.holder.replacement(fetch.credential, error):
                raise
            self._land(fetch, None)  # there is another credential by now: look again

    def _granted(self, fetch: _Fetch, grant: Grant) -> None:
        self._desk.keep_refresh(fetch.generation, fetch.ask, grant.refresh)
        token = dated(grant, fetch.asked)
        self._land(fetch, token)
        self._proof = _shown(fetch.ask, token, fetch.credential, fetch.generation, fresh=True)

    def _land(self, fetch: _Fetch, result: Token | RegfsError | None) -> None:
        self._fetch = self._outgoing = None
        self._desk.tokens.land((fetch.generation, fetch.ask), fetch.flight, result)

    # ── the registry's answers ──

    async def _take_answer(self, response: httpx.Response) -> None:
        challenge = first_supported(parse_challenges(response.headers.get_list("www-authenticate")))
        if not _asks(response, challenge):
            self._over = True
            return
        self._answer = response
        body = await drained(response)
        proof, self._proof = self._proof, None
        ask = self._learned(challenge, proof)
        if ask is None or self._rounds >= MAX_ROUNDS:
            self._over = True
        elif proof is None:
            self._after_nothing(ask)
        elif proof.token:
            self._after_token(proof, ask, challenge, body)
        else:
            await self._after_credential(proof, ask, challenge, body)

    def _learned(self, challenge: Challenge | None, proof: Proof | None) -> Ask | None:
        """What is asked for. Some registries answer 401 without a challenge (GCR): then it is what they asked before."""
        lessons = self._desk.lessons
        if challenge is None:
            return lessons.fallback(self._need)
        try:
            ask = Ask.of(challenge, self._request.url)
        except BadReply as error:
            error.registry = self._desk.registry
            raise
        ask = with_scopes(ask, self._need)
        # Harbor asks for Basic wherever a token failed: that is no lesson about what it wants at first.
        if proof is None or proof.ask.scheme == ask.scheme:
            lessons.learn(self._need, ask)
        return ask

    def _after_nothing(self, ask: Ask) -> None:
        if self._denied is not None and self._denied[0] == ask:
            raise self._denied[1]
        self._ask = ask

    def _after_token(self, proof: Proof, ask: Ask, challenge: Challenge | None, body: bytes) -> None:
        self._desk.tokens.drop((proof.generation, proof.ask), proof.token)
        if proof.fresh and ask == proof.ask:
            self._not_enough(proof, challenge, body)
        elif ask.scheme == "basic" and not proof.fresh and not self._cold:
            self._cold, self._ask = True, None  # only what it answers to nothing says what it wants
        else:
            self._ask = ask

    async def _after_credential(
        self, proof: Proof, ask: Ask, challenge: Challenge | None, body: bytes
    ) -> None:
        credential = proof.credential
        self._ask = ask
        if credential is None or ask.scheme != proof.ask.scheme:
            return
        if challenge is not None and challenge.error == "insufficient_scope":
            self._not_enough(proof, challenge, body)
            return
        error = wrong_credential(credential, words_of(body, credential), self._desk.registry)
        if await self._desk.holder.replacement(credential, error) is None:
            raise error

    def _not_enough(self, proof: Proof, challenge: Challenge | None, body: bytes) -> None:
        """A new token, or none could be newer, and the registry still says no: asking again would change nothing."""
        if proof.credential is None:
            self._leave_unsigned()
            return
        words, registry = words_of(body, proof.credential), self._desk.registry
        if challenge is not None and challenge.error == "invalid_token":
            raise BadReply(
                f"the registry does not take the token that {proof.ask.host} gave",
                words=words,
                registry=registry,
            )
        who = proof.credential.username or f"this {proof.credential.kind.value}"
        raise Forbidden(f"signed in as {who}, which is not allowed that", words=words, registry=registry)


def no_credential(holder: Holder, registry: str) -> NotSignedIn:
    """The error for having no credential, with the reason if the keychain failed."""
    if holder.failure is None:
        return wrong_credential(None, registry=registry)
    return NotSignedIn(
        f"the registry wants a sign-in, and no credentials could be had: {holder.failure.message}",
        registry=registry,
    )


def wants_password(credential: Credential, registry: str) -> NotSignedIn:
    """The error for a registry that wants Basic, and a credential that is a token."""
    return NotSignedIn(
        f"the registry wants a user name and a password; the credential is of another kind ({credential.kind.value})",
        registry=registry,
    )


def _shown(ask: Ask, token: Token, credential: Credential | None, generation: int, *, fresh: bool) -> Proof:
    return Proof(ask, f"Bearer {token.value}", credential, generation, token.value, fresh)


def _asks(response: httpx.Response, challenge: Challenge | None) -> bool:
    """Whether a reply asks for (other) proof: any 401, and a 403 that names the scope it lacks."""
    if response.status_code == 403 and challenge is not None:
        return challenge.scheme == "bearer" and challenge.error == "insufficient_scope"
    return response.status_code == 401


def _pause(error: RegfsError, attempt: int) -> float:
    """Seconds to wait before a token endpoint is asked again."""
    wish = error.retry_after if isinstance(error, RateLimited) else None
    return min(wish if wish is not None else 0.25 * 2 ** (attempt - 1), MAX_RETRY_AFTER)
