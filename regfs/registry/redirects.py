"""Where a request may go, and what may go with it: pure rules on URLs.

Distribution-spec: any request may be redirected, and Authorization never crosses to another host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from regfs.errors import UnsafeTarget

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
FOLLOWED: Final = frozenset({"GET", "HEAD"})

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LONGEST_URL: Final = 16 * 1024
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")
ABROAD: Final = frozenset({"accept", "accept-encoding", "range", "user-agent"})
"""What HTTP itself needs to fetch the same bytes elsewhere; nothing that a caller added goes along."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host (lower case, IPv6 without brackets) and port: what decides who is spoken to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Read the origin of an absolute URL. UnsafeTarget for what is none, or holds a user name."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise UnsafeTarget("a URL that cannot be read is not followed") from None
        if parts.scheme not in DEFAULT_PORTS or not host:
            raise UnsafeTarget(f"not an http or https URL: {shown(url)}")
        if "@" in parts.netloc:
            raise UnsafeTarget(f"a URL with a user name in it is not followed: {shown(url)}")
        return cls(parts.scheme, host.rstrip("."), port or DEFAULT_PORTS[parts.scheme])

    def serves(self, other: Origin) -> bool:
        """Say whether ``other`` is this origin, or the same host's https beside its http on the usual ports."""
        upgrade = ("http", 80, "https", 443)
        return self == other or (
            self.host == other.host and (self.scheme, self.port, other.scheme, other.port) == upgrade
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = self.port == DEFAULT_PORTS[self.scheme]
        return f"{self.scheme}://{host}" if default else f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Hop:
    """The next request of a redirected one. ``own``: it stays with the registry, so sign-in and headers go along."""

    method: str
    url: str
    headers: Mapping[str, str]
    own: bool


def next_hop(method: str, url: str, headers: Mapping[str, str], own: bool, status: int, location: str) -> Hop:
    """Return where a redirect of a GET or HEAD leads. UnsafeTarget where it must not be followed.

    Once away from the registry nothing comes back: a detour over another host cannot ask for credentials.
    """
    target = resolve(url, location)
    here, there = Origin.of(url), Origin.of(target)
    if here.scheme == "https" and there.scheme == "http":
        raise UnsafeTarget(f"a redirect from https to plain http is not followed: {shown(target)}")
    stays = own and here.serves(there)
    kept = headers if stays else {name: value for name, value in headers.items() if name.lower() in ABROAD}
    return Hop("GET" if status == 303 and method != "HEAD" else method, target, kept, stays)


def may_leave(origin: Origin, allowed: Iterable[str]) -> bool:
    """Say whether ``allowed`` (``host``, ``host:port``, or ``*.example.com`` for all below it) names an origin."""
    names = {origin.host, f"{origin.host}:{origin.port}"}
    return any(
        origin.host.endswith(pattern[1:]) if pattern.startswith("*.") else pattern.rstrip(".") in names
        for pattern in map(str.lower, allowed)
    )


def resolve(base: str, reference: str) -> str:
    """Resolve a Location, Link or Upload reference against the URL it came with. UnsafeTarget if it can't be."""
    check_spelling(reference)
    try:
        joined = urlsplit(urljoin(base, reference))
    except ValueError:
        raise UnsafeTarget("a URL that cannot be read is not followed") from None
    return SplitResult(joined.scheme, joined.netloc, joined.path or "/", joined.query, "").geturl()


def check_spelling(reference: str) -> None:
    """Raise UnsafeTarget for a URL or path with blanks or control characters, which would end a request's line."""
    if len(reference) > _LONGEST_URL or _UNPRINTABLE.search(reference):
        raise UnsafeTarget("a URL that is too long, or holds blanks or control characters, is not followed")


def shown(url: str) -> str:
    """Return a URL for people: without query (which may be a signature), user name and control characters."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a malformed URL)"
    text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "".join(letter for letter in text if letter.isprintable())[:200]
