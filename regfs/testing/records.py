"""What a `FakeRegistry` was asked: parsed requests, and the record that tests look at."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

_ROUTE: Final = re.compile(
    r"(?P<repository>.+?)/(?:(?P<tags>tags/list)"
    r"|manifests/(?P<manifest>[^/]*)"
    r"|blobs/uploads/(?P<upload>[^/]*)"
    r"|blobs/(?P<blob>[^/]*)"
    r"|referrers/(?P<referrers>[^/]*))"
)
_SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})


@dataclass(frozen=True, slots=True)
class Route:
    """What a path leads to: ``kind`` is ping, catalog, tags, manifest, blob, upload, referrers or token.

    ``own`` is any other path below ``/v2/``, such as an API of the registry's own; ``other`` is outside of that.
    """

    kind: str
    repository: str = ""
    reference: str = ""

    @classmethod
    def of(cls, path: str, prefix: str = "") -> Route:
        """Read a decoded path."""
        base = f"{prefix.rstrip('/')}/v2/"
        if not path.startswith(base):
            return cls("token" if path.endswith("/token") else "other")
        rest = path[len(base) :]
        if rest == "":
            return cls("ping")
        if rest == "_catalog":
            return cls("catalog")
        match = _ROUTE.fullmatch(rest)
        if match is None:
            return cls("own")
        kind = match.lastgroup or "own"
        return cls(kind, match["repository"], "" if kind == "tags" else match[kind])


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed request. Header names are in lower case; a name given twice is joined by commas."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    listener: str
    """Which of the fake's hosts it came to: registry, token or elsewhere."""
    authority: str
    """``host:port`` of that host."""
    route: Route

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of one given twice the first."""
        pairs = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[0] for name, values in pairs.items()}


@dataclass(slots=True)
class RequestRecord:
    """What is kept of a request, secrets blotted out. Times are `time.monotonic`'s."""

    method: str
    target: str
    kind: str
    repository: str
    reference: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    listener: str
    connection: int
    body: bytes = field(repr=False, default=b"")
    status: int | None = None
    """None until the reply has begun; 0 where the connection was cut instead."""
    start: float = field(default_factory=time.monotonic)
    end: float | None = None

    @classmethod
    def of(cls, request: Request, connection: int) -> RequestRecord:
        """Begin the record of a request."""
        return cls(
            request.method,
            request.target,
            request.route.kind,
            request.route.repository,
            request.route.reference,
            request.query,
            {name: _blot(name, value) for name, value in request.headers.items()},
            request.listener,
            connection,
            request.body if request.listener == "registry" else b"",
        )


Where = str | Callable[[RequestRecord], bool] | None
"""Which requests are meant: a kind (``"manifest"``), a predicate, or (None) all under ``/v2/``."""


def fits(where: Where, record: RequestRecord) -> bool:
    """Whether ``where`` means that request."""
    if where is None:
        return record.listener == "registry" and record.kind not in ("token", "other")
    return record.kind == where if isinstance(where, str) else where(record)


def _blot(name: str, value: str) -> str:
    if name.endswith(("key", "token")):
        return "…"
    return f"{value.partition(' ')[0]} …" if name in _SECRET_HEADERS else value
