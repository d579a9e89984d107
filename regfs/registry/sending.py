"""Sending one request: by the scheme that the registry speaks, through the auth flow, after redirects."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from regfs.errors import BadReply, ConnectionFailed, TlsFailed, UnsafeTarget
from regfs.registry import replies
from regfs.registry.bodies import read_words
from regfs.registry.redirects import (
    ABROAD,
    FOLLOWED,
    MAX_REDIRECTS,
    REDIRECTS,
    Hop,
    Origin,
    may_leave,
    next_hop,
    shown,
)
from regfs.registry.site import Site
from regfs.registry.transport import HOP, WHOLE, Transport

_TRIAL: Final = 3.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a caller's; the fields are those of `Client.request`.

    ``abroad``: what comes is verified by its digest, and any host that the registry leads to may give it.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    content: bytes | None
    expect: Container[int]
    limit: int
    what: str
    idempotent: bool
    abroad: bool = False

    @property
    def is_absolute(self) -> bool:
        """Whether the target is a URL, and no path below ``/v2/``."""
        return self.target.startswith(("http://", "https://"))


class Sender:
    """Sends calls to one registry. It waits for nobody and repeats nothing: that is the client's.

    It drives the auth flow on the transport itself. httpx's own client would do that too, with cookies, redirects and
    hooks that must not be here, and that take a tenth of the time that one manifest takes.
    """

    def __init__(
        self, site: Site, transport: Transport, auth: httpx.Auth | None, leads_to: Sequence[str] = ()
    ) -> None:
        """``leads_to``: hosts that may answer in the registry's place, as `may_leave` reads them."""
        self._site = site
        self._leads_to = tuple(leads_to)
        self._warnings: dict[str, None] = {}
        self._transport = transport
        self._auth = auth

    def warnings(self) -> Sequence[str]:
        """What the registry said in Warning headers: each text once, at most 4096 bytes in all."""
        return tuple(self._warnings)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def open(self, call: Call) -> tuple[httpx.Response, str]:
        """Send by the schemes that are possible, until one answers; nothing can be carried out by both.

        A TLS server cannot read what plain http brings it, and what does not finish a handshake is sent nothing.
        """
        schemes = self._site.schemes
        if len(schemes) == 1 or call.is_absolute:
            return await self._follow(call, schemes[0])
        try:
            response, url = await self._follow(call, schemes[0])
        except (ConnectionFailed, TlsFailed) as error:
            # Where it was settled meanwhile, it was not the scheme that failed but what a redirect led to.
            if self._site.schemes == schemes[:1] or not self._may_be_other(schemes[0], error):
                raise
            return await self._by_other(call, schemes[1], error)
        if schemes[0] == "http" and response.status_code == 400:
            return await self._by_tls_after_all(call, response, url)
        return response, url

    def _may_be_other(self, scheme: str, error: ConnectionFailed | TlsFailed) -> bool:
        if isinstance(error, TlsFailed):
            return not error.speaks_tls
        if scheme == "https":
            return not error.sent
        return error.sent or self._site.address.port is None

    async def _by_other(
        self, call: Call, scheme: str, first: ConnectionFailed | TlsFailed
    ) -> tuple[httpx.Response, str]:
        try:
            return await self._follow(call, scheme)
        except TlsFailed as error:
            if not error.speaks_tls:
                raise first from None
            self._site.settle(scheme)
            raise
        except ConnectionFailed:
            raise first from None

    async def _by_tls_after_all(
        self, call: Call, response: httpx.Response, url: str
    ) -> tuple[httpx.Response, str]:
        try:
            opened = await self._follow(call, "https")
        except (ConnectionFailed, TlsFailed) as error:
            if not (isinstance(error, TlsFailed) and error.speaks_tls):
                self._site.settle("http")
                return response, url
            self._site.settle("https")
            await response.aclose()
            raise
        except BaseException:
            await response.aclose()
            raise
        await response.aclose()
        return opened

    async def _follow(self, call: Call, scheme: str) -> tuple[httpx.Response, str]:
        url = self._site.url(call.target, scheme)
        own = self._site.is_own(Origin.of(url))
        hop = Hop(call.method, url, call.headers, own) if own else _abroad(call, url)
        for count in range(MAX_REDIRECTS + 1):
            response = await self._send(hop, self._extensions(count), call.content)
            location = response.headers.get("location")
            if response.status_code not in REDIRECTS or call.method not in FOLLOWED or location is None:
                return response, hop.url
            await read_words(response)
            await response.aclose()
            hop = next_hop(hop.method, hop.url, hop.headers, hop.own, response.status_code, location)
            if not (hop.own or call.abroad):
                self._check_leaving(Origin.of(hop.url), call)
        raise BadReply(
            f"{self._site.name} redirects more than {MAX_REDIRECTS} times", registry=self._site.name
        )

    def _check_leaving(self, there: Origin, call: Call) -> None:
        if not may_leave(there, self._leads_to):
            raise UnsafeTarget(
                f"{self._site.name} leads to {there} for {call.what or 'its answer'}: only what a digest verifies is "
                "taken from another host",
                registry=self._site.name,
            )

    def _extensions(self, hops: int) -> dict[str, Any]:
        extensions: dict[str, Any] = {WHOLE: True}
        if hops:
            extensions[HOP] = True
        if len(self._site.schemes) > 1:
            # A server of plain http may wait for the rest of what looks to it like the beginning of a line.
            extensions["timeout"] = {"connect": _TRIAL}
        return extensions

    async def _send(self, hop: Hop, extensions: dict[str, Any], content: bytes | None) -> httpx.Response:
        try:
            request = httpx.Request(
                hop.method, hop.url, headers=hop.headers, content=content, extensions=extensions
            )
            if hop.own and self._auth is not None:
                response = await self._signed(request, self._auth)
            else:
                response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            raise BadReply(
                f"{self._site.name}: {type(error).__name__} at {shown(hop.url)}", registry=self._site.name
            ) from error
        for text in replies.warnings_of(response.headers.get_list("warning")):
            self._warn(text)
        return response

    async def _signed(self, request: httpx.Request, auth: httpx.Auth) -> httpx.Response:
        """Send what the flow yields, until it is content; each reply but the last is read and its connection freed."""
        flow = auth.async_auth_flow(request)
        response: httpx.Response | None = None
        try:
            asked = await anext(flow)
            while True:
                response = await self._transport.handle_async_request(asked)
                try:
                    asked = await flow.asend(response)
                except StopAsyncIteration:
                    return response
                await response.aread()
        except BaseException:
            if response is not None:
                await response.aclose()
            raise
        finally:
            await flow.aclose()

    def _warn(self, text: str) -> None:
        held = sum(len(known.encode()) for known in self._warnings)
        if held + len(text.encode()) <= replies.MAX_WARNINGS:
            self._warnings[text] = None


def _abroad(call: Call, url: str) -> Hop:
    kept = {name: value for name, value in call.headers.items() if name.lower() in ABROAD}
    return Hop(call.method, url, kept, own=False)
