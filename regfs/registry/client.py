"""One connection's HTTP client to a registry: deadlines, retries, redirects, limits, counters.

A call takes one of the registry's slots, goes through the auth flow on our transport, follows redirects itself, and is
sent again where `retry.decide` says so. Only errors of `regfs.errors` come out.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, TypeVar

import httpx
import trio

from regfs.connection import Connection
from regfs.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    ReadOnly,
    RegfsError,
)
from regfs.ports import HttpPolicy
from regfs.registry import replies
from regfs.registry.bodies import WORDS_LIMIT, Stream, read_whole, read_words
from regfs.registry.redirects import shown
from regfs.registry.replies import Reply
from regfs.registry.retry import RETRIED, Outcome, Rules, decide, is_idempotent
from regfs.registry.sending import Call, Sender
from regfs.registry.site import Site
from regfs.registry.transport import Transport

T = TypeVar("T")

DEFAULT_LIMIT: Final = 4 * 1024 * 1024
"""The most bytes a reply's body may have, where a caller names no other limit: a manifest's."""

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_COUNTERS: Final = ("requests", "retries", "errors", "unauthorized", "token_requests", "redirects", "bytes")


class _Failed(Exception):
    """One attempt failed: what it means for a retry, and for the caller."""

    def __init__(self, outcome: Outcome, error: RegfsError) -> None:
        super().__init__(str(error))
        self.outcome = outcome
        self.error = error


class Client:
    """An HTTP client for one registry. Making one costs no I/O; a host's TLS context is made when first needed.

    ``schemes`` are the schemes to try in order, where not by the rules of `site.schemes_for`. A ``read_only`` client
    sends nothing but GET and HEAD to the registry's API, whoever asks; signing in may still POST to a token endpoint.
    ``root`` is where the API begins: ``v2/`` of a registry, another of a service beside it (`regfs.registry.service`),
    to whose path ``sign_in`` a flow may POST too.
    """

    def __init__(
        self,
        connection: Connection,
        policy: HttpPolicy,
        auth: httpx.Auth | None,
        *,
        schemes: Sequence[str] | None = None,
        read_only: bool = False,
        root: str = "v2/",
        sign_in: str = "",
    ) -> None:
        self._site = Site(connection, schemes, root=root, sign_in=sign_in)
        self._policy = policy
        self._read_only = read_only
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._slots: trio.Semaphore | None = None
        transport = Transport(
            self._site, connection, policy.user_agent, policy.max_requests, self._count, read_only=read_only
        )
        self._sender = Sender(self._site, transport, auth, connection.allow_hosts)

    @property
    def authority(self) -> str:
        """``host[:port]`` as the user wrote it."""
        return self._site.address.authority

    @property
    def read_only(self) -> bool:
        """Whether it sends nothing but GET and HEAD."""
        return self._read_only

    @property
    def base(self) -> str:
        """``https://host[:port]/prefix/v2/``; the scheme is the first to be tried until the registry has answered."""
        return self._site.base()

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        content: bytes | None = None,
        expect: Container[int] = (200,),
        limit: int = DEFAULT_LIMIT,
        what: str = "",
        idempotent: bool | None = None,
        abroad: bool = False,
    ) -> Reply:
        """Send a request and read the whole reply; the policy's ``call_deadline`` holds for all of it, retries included.

        ``target`` is a path below ``/v2/``, already quoted, or an absolute URL; one that is not the registry's own gets
        no credentials and no headers but Accept and Range. A status outside ``expect`` is raised as `error_for` says.
        ``limit`` is in bytes (TooLarge). ``what`` names what is asked for, in messages. ``idempotent`` overrides what the
        method says. ``abroad``: the caller verifies what comes by its digest, so that a redirect to another host is
        followed (UnsafeTarget otherwise, unless the connection allows the host). Raises any of NotFound, AccessDenied, ReadOnly, Unsupported, Refused, RateLimited, TooLarge,
        DeadlineExceeded, Unreachable, BadReply.
        """
        call = self._call(method, target, headers, content, expect, limit, what, idempotent, abroad)
        return await self._within_deadline(call, self._whole)

    @asynccontextmanager
    async def stream(
        self,
        target: str,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        expect: Container[int] = (200, 206),
        what: str = "",
    ) -> AsyncIterator[Stream]:
        """GET a blob of any size, piece by piece. Until it begins this is `request`, with ``abroad``; then see `Stream`."""
        call = self._call("GET", target, headers, None, expect, WORDS_LIMIT, what, None, abroad=True)
        response, url = await self._within_deadline(call, self._begin)
        try:
            stall, name = self._policy.stall_deadline, self._site.name
            yield Stream(response, url, stall=stall, registry=name, failed=lambda: self._count("errors", 1))
        finally:
            await self._end(response)

    async def check(self) -> None:
        """Ask ``GET /v2/``. Raises NotARegistry where something else answers, and otherwise like `request`."""
        everything = frozenset(range(200, 500)) - RETRIED
        reply = await self.request(
            "GET", "", expect=everything, limit=WORDS_LIMIT, what="whether it is a registry"
        )
        error = replies.check_error(reply, self._site.name)
        if error is not None:
            self._count("errors", 1)
            raise error

    def counters(self) -> Mapping[str, int]:
        """Counters since the start: requests, retries, errors, unauthorized, token_requests, redirects, bytes.

        ``requests`` went to the registry's API, ``token_requests`` elsewhere, ``redirects`` are requests that followed one.
        """
        return dict(self._counters)

    def warnings(self) -> Sequence[str]:
        """What the registry said in Warning headers: each text once, at most 4096 bytes in all."""
        return self._sender.warnings()

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        await self._sender.aclose()

    # ── one call ─────────────────────────────────────────────────────────────────────────────────

    def _call(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: bytes | None,
        expect: Container[int],
        limit: int,
        what: str,
        idempotent: bool | None,
        abroad: bool,
    ) -> Call:
        method = method.upper()
        if self._read_only and method not in ("GET", "HEAD"):
            raise ReadOnly("the mount is read-only: nothing that changes a registry is sent")
        safe = is_idempotent(method) if idempotent is None else idempotent
        named = {"User-Agent": self._policy.user_agent, **headers}
        return Call(method, target, named, content, expect, limit, what, safe, abroad)

    async def _within_deadline(self, call: Call, attempt: Callable[[Call], Awaitable[T]]) -> T:
        started = trio.current_time()
        try:
            with trio.move_on_after(self._policy.call_deadline):
                return await self._with_retries(call, attempt, started)
        except _Failed as failed:
            self._count("errors", 1)
            raise failed.error from failed.error.__cause__
        except RegfsError:
            self._count("errors", 1)
            raise
        self._count("errors", 1)
        raise DeadlineExceeded(
            f"{self._site.name} gave no answer in {self._policy.call_deadline:g} seconds: {call.what or call.method}",
            registry=self._site.name,
        )

    async def _with_retries(self, call: Call, attempt: Callable[[Call], Awaitable[T]], started: float) -> T:
        try:
            return await attempt(call)
        except _Failed as failed:
            pending: _Failed | None = failed
        rules = Rules(self._policy.retries, self._policy.call_deadline, call.idempotent)
        made = 1

        def backoff(error: Exception) -> bool | float:
            if not isinstance(error, _Failed):
                return False
            elapsed = trio.current_time() - started
            chance = random.random()  # noqa: S311  # spreads retries; keeps no secret
            wait = decide(made, error.outcome, rules, elapsed=elapsed, now=time.time(), jitter=chance)
            return False if wait is None else wait

        import stamina.instrumentation  # only a failure needs it

        stamina.instrumentation.set_on_retry_hooks(
            ()
        )  # else it warns of each retry, on stderr where no log is
        async for turn in stamina.retry_context(on=backoff, attempts=None, timeout=None):
            with turn:
                if pending is not None:  # the attempt made above counts as stamina's first
                    first, pending = pending, None
                    raise first
                made += 1
                self._count("retries", 1)
                return await attempt(call)
        raise AssertionError("stamina ends by returning or raising")

    async def _whole(self, call: Call) -> Reply:
        response, url = await self._begin(call)
        try:
            body = await read_whole(response, call.limit, call.what or shown(url))
        except ConnectionFailed as error:
            raise _Failed(Outcome(sent=True), error) from error
        finally:
            await self._end(response)
        return Reply(response.status_code, response.headers, body, url)

    async def _begin(self, call: Call) -> tuple[httpx.Response, str]:
        """Take a slot and send; the reply has an expected status, and holds the slot until `_end`."""
        self._site.check()
        self._slots = self._slots or trio.Semaphore(self._policy.max_requests)
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()
        try:
            response, url = await self._sender.open(call)
        except ConnectionFailed as error:
            self._slots.release()
            raise _Failed(Outcome(sent=error.sent), error) from error
        except BaseException:
            self._slots.release()
            raise
        if response.status_code in call.expect:
            return response, url
        try:
            raise await self._unwelcome(response, url, call)
        finally:
            await self._end(response)

    async def _end(self, response: httpx.Response) -> None:
        assert self._slots is not None
        self._slots.release()
        with trio.CancelScope(shield=True):  # closing never waits, and an unclosed connection would be lost
            await response.aclose()

    async def _unwelcome(self, response: httpx.Response, url: str, call: Call) -> _Failed:
        body = await read_words(response)
        reply = Reply(response.status_code, response.headers, body, url)
        error = replies.error_for(
            reply, self._site.name, call.what or f"{call.method} {shown(url)}", time.time()
        )
        return _Failed(Outcome(reply.status, headers=reply.headers), error)

    # ── counting ─────────────────────────────────────────────────────────────────────────────────

    def _count(self, name: str, by: int) -> None:
        self._counters[name] += by
