"""A service beside a registry: a JSON API on a host of its own, under the same rules as the registry itself.

Many registries list, date and delete by an API that is not V2 (Docker Hub's, GitLab's, GitHub's). It gets the same
deadlines, retries, limits and TLS rules; what was allowed for the registry's host (an own CA, plain http) holds for the
service only where it is on that host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar, Unpack
from urllib.parse import urlsplit

import msgspec

from regfs.connection import Connection
from regfs.errors import BadReply, ConfigError, PagingLoop, UnsafeTarget
from regfs.ports import HttpPolicy
from regfs.reference import Address
from regfs.registry.client import Client
from regfs.registry.paging import MAX_LISTING, MAX_PAGES, parse_links
from regfs.registry.redirects import Origin, resolve
from regfs.registry.replies import Reply
from regfs.registry.threads import AT_ONCE, in_thread_if

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

JSON: Final[Mapping[str, str]] = MappingProxyType({"Accept": "application/json"})


def beside(connection: Connection, base: str) -> Connection:
    """The connection as it is used for a service at ``base``. ConfigError: not an http or https URL."""
    try:
        there, here = Address.parse(base), _address(connection)
    except ValueError as error:
        raise ConfigError(f"not a service's address: {error}") from None
    if there.scheme not in ("http", "https"):
        raise ConfigError(f"a service's address begins with https://, and this does not: {base[:80]!r}")
    if here is not None and here.host == there.host:
        # The client certificate is for the registry's own port, which `TlsPolicy` compares by the address.
        same = (here.port or 443) == (there.port or 443)
        return replace(
            connection,
            address=base,
            client_cert=connection.client_cert if same else None,
            client_key=connection.client_key if same else None,
        )
    return replace(connection, address=base, insecure=False, ca=None, client_cert=None, client_key=None)


class Asked(TypedDict, total=False):
    """What may be said of a request besides its method and target; see `Client.request`. ``headers`` are `JSON` where not given."""

    headers: Mapping[str, str]
    content: bytes | None
    expect: Container[int]
    limit: int
    what: str


class Service:
    """A JSON API at ``base``. Only errors of `regfs.errors` come out; see `Client.request` for which.

    ``sign_in`` is a path below it to which an auth flow may POST even on a read-only mount.
    """

    def __init__(
        self,
        connection: Connection,
        base: str,
        policy: HttpPolicy,
        auth: httpx.Auth | None,
        *,
        sign_in: str = "",
    ) -> None:
        there = beside(connection, base)
        self._client = Client(there, policy, auth, read_only=policy.read_only, root="", sign_in=sign_in)

    @property
    def client(self) -> Client:
        """What it speaks through."""
        return self._client

    async def request(self, method: str, target: str, **asked: Unpack[Asked]) -> Reply:
        """See `Client.request`; ``target`` is below the base, quoted."""
        asked.setdefault("headers", JSON)
        return await self._client.request(method, target, **asked)

    async def read(
        self, target: str, shape: type[T], *, headers: Mapping[str, str] = JSON, what: str = ""
    ) -> T:
        """GET one document of a `msgspec` type. Also BadReply, where it has another shape."""
        reply = await self.request("GET", target, headers=headers, limit=MAX_LISTING, what=what)
        return await in_thread_if(len(reply.body) > AT_ONCE, decoded, reply, shape, what)

    async def pages(
        self,
        target: str,
        read: Callable[[Reply], tuple[T, str | None]],
        *,
        headers: Mapping[str, str] = JSON,
        expect: Container[int] = (200,),
        what: str = "",
    ) -> AsyncIterator[T]:
        """A listing page by page. ``read`` gives a page's content and where the next one is: a URL, or None.

        ``read`` is given whatever ``expect`` lets through, and may raise. Also PagingLoop where pages repeat or do not
        end, and UnsafeTarget where one is on another host.
        """
        seen: set[str] = set()
        asked: str | None = target
        while asked is not None:
            if asked in seen or len(seen) >= MAX_PAGES:
                raise PagingLoop(f"{what or target} has pages that lead back to themselves, or never end")
            seen.add(asked)
            reply = await self.request(
                "GET", asked, headers=headers, expect=expect, limit=MAX_LISTING, what=what
            )
            page, following = await in_thread_if(len(reply.body) > AT_ONCE, read, reply)
            asked = None if following is None else self._own(reply, following)
            yield page

    def counters(self) -> Mapping[str, int]:
        """The client's counters since the start."""
        return self._client.counters()

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    def _own(self, reply: Reply, following: str) -> str:
        """The next page as a target below our base: never off the host, whatever scheme or path a proxy's server writes."""
        url = resolve(reply.url, following)
        base = urlsplit(self._client.base)
        if Origin.of(url).host != Origin.of(self._client.base).host or not urlsplit(url).path.startswith(
            base.path
        ):
            raise UnsafeTarget(
                f"the next page of a listing is said to be at {urlsplit(url).netloc[:100]!r}: not followed"
            )
        parts = urlsplit(url)
        path = parts.path.removeprefix(base.path)
        return f"{path}?{parts.query}" if parts.query else path


def decoded(reply: Reply, shape: type[T], what: str = "") -> T:
    """Read a reply's JSON as a `msgspec` type. BadReply, with the place, where it is something else."""
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, msgspec.ValidationError) else "it is no JSON"
        raise BadReply(f"{what or 'the reply'} cannot be read: {reason[:200]}") from None


def next_link(reply: Reply) -> str | None:
    """The URL that a reply's ``Link: <…>; rel="next"`` names, as it is written (RFC 8288)."""
    links = parse_links(reply.headers.get("link", ""))
    return next((link.target for link in links if "next" in link.relations), None)


def _address(connection: Connection) -> Address | None:
    try:
        return Address.parse(connection.address)
    except ValueError:
        return None
