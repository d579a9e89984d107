"""Requests of the distribution protocol, built by pure functions.

A target is what follows ``/v2/`` in a URL. Every name is held against its grammar before it becomes part of one: an
empty digest once made a client send ``DELETE …/manifests/``, and a name with ``..`` in it leads elsewhere.
Source: OCI distribution-spec 1.1, "Endpoints"; the catalog is of the Docker Registry HTTP API V2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from regfs.digest import Digest
from regfs.errors import BadReply, NotFound
from regfs.manifest import ACCEPT
from regfs.reference import TagOrDigest, is_repository, is_tag

PING: Final = ""
"""``GET /v2/``: does this speak the protocol, and to this caller?"""

CATALOG: Final = "_catalog"
"""``GET /v2/_catalog``: which repositories are there?"""

MANIFEST_HEADERS: Final = {"Accept": ACCEPT}
"""What every request for a manifest says, HEAD and GET alike."""

_CONTENT_RANGE: Final = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)


def tags_target(repository: str) -> str:
    """Where a repository's tags are listed. Raises NotFound for what cannot be a repository's name."""
    return f"{_checked(repository)}/tags/list"


def manifest_target(repository: str, reference: TagOrDigest) -> str:
    """Where a manifest is. Raises NotFound for names outside the grammar."""
    if not isinstance(reference, Digest) and not is_tag(reference):
        raise NotFound(f"{reference[:140]!r} cannot be a tag")
    return f"{_checked(repository)}/manifests/{reference}"


def blob_target(repository: str, digest: Digest) -> str:
    """Where a blob is. Raises NotFound for what cannot be a repository's name."""
    return f"{_checked(repository)}/blobs/{digest}"


def referrers_target(repository: str, digest: Digest, artifact_type: str = "") -> str:
    """Where what refers to a manifest is listed, of one type only where that is given. Raises NotFound as the others do."""
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
    return f"{_checked(repository)}/referrers/{digest}{query}"


def page_target(listing: str, size: int | None, last: str | None = None) -> str:
    """A listing's page of at most ``size`` names that come after ``last``; ``size`` None leaves it to the registry."""
    query = {"n": size, "last": last}
    given = {key: value for key, value in query.items() if value is not None}
    return f"{listing}?{urlencode(given)}" if given else listing


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes ``start`` to ``end`` (exclusive) of content of ``size`` bytes."""

    start: int
    end: int
    size: int

    @classmethod
    def clamped(cls, start: int, end: int | None, size: int) -> Span:
        """What is asked for, cut to what there is: some registries answer 416 to a range past the end."""
        stop = size if end is None else min(end, size)
        begin = min(max(start, 0), size)
        return cls(begin, max(begin, stop), size)

    @property
    def is_empty(self) -> bool:
        """True where there is nothing to ask for."""
        return self.start == self.end

    @property
    def is_whole(self) -> bool:
        """True for the whole content: asked for without a Range, which every registry understands."""
        return self.start == 0 and self.end == self.size

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers. ``a-b`` alone is used: ``a-`` and ``-n`` are 416 on some registries."""
        return {} if self.is_whole else {"Range": f"bytes={self.start}-{self.end - 1}"}

    def check_partial(self, content_range: str) -> None:
        """Raise BadReply unless a 206's ``Content-Range`` is exactly this span (RFC 9110, section 14.4)."""
        match = _CONTENT_RANGE.fullmatch(content_range.strip())
        if match is None:
            raise BadReply(f"a partial reply does not say which bytes it holds: {content_range[:80]!r}")
        first, last, size = match.groups()
        if (int(first), int(last) + 1) != (self.start, self.end):
            raise BadReply(f"asked for bytes {self.start}-{self.end - 1}, got {first}-{last}")
        if size != "*" and int(size) != self.size:
            raise BadReply(f"the content is {size} bytes by the registry, {self.size} by its descriptor")


def _checked(repository: str) -> str:
    if not is_repository(repository):
        raise NotFound(f"{repository[:260]!r} cannot be a repository's name")
    return repository
