"""Listings that come page by page: the Link header, where the next page is, and when to stop.

Sources: RFC 8288 (Link); OCI distribution-spec 1.1, "Listing Tags"; and servers that keep to neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import msgspec

from regfs.errors import BadReply, PagingLoop, UnsafeTarget
from regfs.registry.requests import page_target

PAGE_SIZE: Final = 1000
"""Names asked for a page: the most that every registry allows (ECR refuses more, distribution by default too)."""

MAX_NAMES: Final = 1_000_000
"""Names of one listing; one that goes on is taken for endless."""

MAX_PAGES: Final = 10_000
"""Pages of one listing."""

MAX_BARREN: Final = 10
"""Pages in a row without a new name. One may be empty (a registry filters what the caller may not see), not all."""

MAX_LISTING: Final = 32 * 1024 * 1024
"""Bytes of one page."""

_MAX_QUERY: Final = 4096
_QUERY_SAFE: Final = "%/:?@!$&'()*+,;=[]"
_SPACE: Final = " \t"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a Link header: its target as written, and its relation types in lower case."""

    target: str
    relations: frozenset[str]


def parse_links(header: str) -> list[Link]:
    """Read a Link header's value; several header lines may be joined by commas. What cannot be read ends it."""
    links = []
    at = _skip(header, 0, _SPACE + ",")
    while at < len(header) and header[at] == "<":
        close = header.find(">", at)
        if close < 0:
            break
        relations, after = _relations(header, close + 1)
        links.append(Link(header[at + 1 : close].strip(), relations))
        at = _skip(header, after, _SPACE + ",")
    return links


def next_query(header: str, asked: str, base: str) -> str | None:
    """The query of the page after the one that came from the URL ``asked``; None where there is no next page.

    Only the query is used, on the path that was asked before. Registries behind a proxy that ends TLS or strips a
    path prefix write links with a scheme or a path that lead nowhere, and no link can lead us off the host that way.
    Raises UnsafeTarget where the link names a host other than that of ``asked`` or ``base``, or another resource.
    """
    target = next((link.target for link in parse_links(header) if "next" in link.relations), None)
    if target is None:
        return None
    link = _resolved(asked, target)
    if not any(_same_host(link, urlsplit(own)) for own in (asked, base)):
        raise UnsafeTarget(f"the next page of a listing is said to be on {link.netloc[:100]!r}: not followed")
    if unquote(link.path).rsplit("/", 1)[-1] != unquote(urlsplit(asked).path).rsplit("/", 1)[-1]:
        raise UnsafeTarget(f"the next page of a listing is said to be at {link.path[:100]!r}: not followed")
    if len(link.query) > _MAX_QUERY:
        raise UnsafeTarget(f"the next page's address is {len(link.query)} characters long: not followed")
    return quote(link.query, safe=_QUERY_SAFE)


def parse_names(body: bytes, key: str) -> list[str]:
    """The names under ``key`` of a listing's page, nulls and empty ones left out. Raises BadReply.

    ``null`` is an empty list. Without the key it is a listing only where the rest fits one: an object that is
    empty, or that names its repository. What else a registry says with 200 must not look like an empty folder.
    """
    try:
        page = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if key not in page and (page.keys() - {"name"} or (page and key != "tags")):
            raise BadReply(f"the listing has no {key!r}")
        names = msgspec.json.decode(page.get(key, b"null"), type=list[str | None] | None)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadReply(f"the listing cannot be read: {str(error)[:200]}") from error
    return [name for name in names or () if name]


@dataclass
class Pages:
    """The progress of one listing: which page to ask for next, and whether that leads anywhere.

    ``target`` is the page to ask for. ``guessed`` says that no link led to it, so there may be none.
    """

    listing: str
    size: int | None = PAGE_SIZE
    target: str | None = None
    guessed: bool = False
    _names: set[str] = field(default_factory=set, repr=False)
    _targets: set[str] = field(default_factory=set, repr=False)
    _barren: int = 0
    _linked: bool = False
    _trouble: PagingLoop | UnsafeTarget | None = None

    def __post_init__(self) -> None:
        self.target = page_target(self.listing, self.size)
        self._targets.add(self.target)

    def without_size(self) -> Pages | None:
        """The same listing, leaving the page's size to the registry: for one that refuses ours. None: no way left."""
        return Pages(self.listing, None) if self.size is not None and len(self._targets) == 1 else None

    def take(self, names: Sequence[str], link: str, asked: str, base: str) -> list[str]:
        """Take the page that came from the URL ``asked`` with the Link header ``link``; the names that are new.

        What is wrong with the link is kept for `follow` to raise: it must not cost the names that came with it.
        """
        new = list(self._new(names))
        self._barren = 0 if new else self._barren + 1
        self.target, self._trouble = None, None
        try:
            self._advance(names, bool(new), link, asked, base)
        except (PagingLoop, UnsafeTarget) as error:
            self._trouble = error
        return new

    def follow(self) -> str | None:
        """The next page's target, or None at the end. Raises what `take` found wrong with it."""
        if self._trouble is not None:
            raise self._trouble
        return self.target

    def _new(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if name not in self._names:
                self._names.add(name)
                yield name

    def _advance(self, names: Sequence[str], grown: bool, link: str, asked: str, base: str) -> None:
        query = next_query(link, asked, base)
        if query is None:
            self._guess(names, grown)
            return
        target = f"{self.listing}?{query}" if query else self.listing
        self._check_progress(target)
        self._targets.add(target)
        self.target, self.guessed, self._linked = target, False, True

    def _guess(self, names: Sequence[str], grown: bool) -> None:
        """Some registries cut a page at ``n`` and send no link, on no page: ask on until nothing new comes."""
        if self._linked or self.size is None or len(names) != self.size or not grown:
            return
        target = page_target(self.listing, self.size, names[-1])
        if target not in self._targets:
            self._check_progress(target)
            self._targets.add(target)
            self.target, self.guessed = target, True

    def _check_progress(self, target: str) -> None:
        if target in self._targets:
            raise PagingLoop("the listing's pages lead round in a circle")
        if self._barren >= MAX_BARREN:
            raise PagingLoop(f"the listing goes on and on: {self._barren} pages without a new name")
        if len(self._names) >= MAX_NAMES or len(self._targets) >= MAX_PAGES:
            raise PagingLoop(f"the listing does not end after {len(self._names)} names")


def _resolved(asked: str, written: str) -> SplitResult:
    try:
        parts = urlsplit(urljoin(asked, written))
        _ = parts.port
    except ValueError as error:
        raise UnsafeTarget(f"the next page of a listing has no valid address: {written[:100]!r}") from error
    if parts.scheme not in _DEFAULT_PORTS or parts.username is not None or parts.password is not None:
        raise UnsafeTarget(
            f"the next page of a listing is not followed: {parts.scheme[:20]}://{parts.hostname}"
        )
    return parts


def _same_host(link: SplitResult, own: SplitResult) -> bool:
    """Same host and port. Schemes may differ: behind a proxy that ends TLS, registries write http into their links."""
    if link.hostname != own.hostname:
        return False
    return link.port == own.port or _port(link) == _port(own)


def _port(parts: SplitResult) -> int | None:
    """The port, or None for the scheme's own."""
    return None if parts.port == _DEFAULT_PORTS.get(parts.scheme) else parts.port


def _relations(header: str, at: int) -> tuple[frozenset[str], int]:
    """Read the parameters of one link from ``at``. RFC 8288: of several ``rel`` only the first counts."""
    relations: frozenset[str] | None = None
    at = _skip(header, at, _SPACE)
    while at < len(header) and header[at] == ";":
        name, value, at = _parameter(header, at + 1)
        if name == "rel" and relations is None:
            relations = frozenset(value.lower().split())
        at = _skip(header, at, _SPACE)
    return relations or frozenset(), at


def _parameter(header: str, at: int) -> tuple[str, str, int]:
    start = _skip(header, at, _SPACE)
    end = _until(header, start, "=;,")
    name = header[start:end].strip(_SPACE).lower()
    if end == len(header) or header[end] != "=":
        return name, "", end
    at = _skip(header, end + 1, _SPACE)
    if at < len(header) and header[at] == '"':
        value, at = _quoted(header, at + 1)
        return name, value, at
    end = _until(header, at, ";,")
    return name, header[at:end].strip(_SPACE), end


def _quoted(header: str, at: int) -> tuple[str, int]:
    """Read a quoted string's rest: RFC 9110, section 5.6.4; one that is not closed reaches to the end."""
    value = []
    while at < len(header) and header[at] != '"':
        if header[at] == "\\" and at + 1 < len(header):
            at += 1
        value.append(header[at])
        at += 1
    return "".join(value), at + 1


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _until(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] not in characters:
        at += 1
    return at
