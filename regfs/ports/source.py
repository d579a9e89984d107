"""What every registry can do: a `Source`, and the values that its answers are made of.

A `Source` is small and required; whatever else a registry can do is a capability (`regfs.ports.capabilities`) that the
tree asks for by its class, and that a Source hands out or not. The tree never asks which registry it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from regfs.digest import Digest
from regfs.manifest import Descriptor
from regfs.reference import TagOrDigest

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class TagFacts:
    """What a listing says about a tag without a further request; None where it does not."""

    digest: Digest | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class TagPage:
    """One page of a repository's tags, in the registry's order. Names need not be grammatical: the tree drops those."""

    names: Sequence[str]
    facts: Mapping[str, TagFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest as it arrived. The tree verifies and parses it; ``claimed`` is the digest the registry gave, if any."""

    raw: bytes
    media_type: str
    claimed: Digest | None = None


class Source(Protocol):
    """One registry, by whatever protocol. All names are plain text as in a reference; errors are `regfs.errors`.

    Any method may raise NotSignedIn, Forbidden, RateLimited, DeadlineExceeded, Unreachable, BadReply.
    A Source holds no cache and no state that a caller could see: two calls ask twice.
    """

    @property
    def name(self) -> str:
        """How messages call it, and what stands before the repository in a reference: ``localhost:5000``, ``host/prefix``."""
        ...

    async def check(self) -> None:
        """Ask the registry, as cheaply as can be, whether it answers this caller. Raises as said above, and NotARegistry."""
        ...

    def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """The tags of a repository, page by page. Raises NotFound where there is no such repository."""
        ...

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """A manifest's bytes (at most 4 MiB: TooLarge). Raises NotFound where there is none."""
        ...

    def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes ``start`` to ``end`` (exclusive; None: to the blob's end) as they arrive, unverified.

        The range never reaches past ``descriptor.size``. Raises NotFound on entering where there is no such blob.
        """
        ...

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """What this Source can do beyond the required, as an object of class ``kind``, or None.

        ``repository`` names the repository it is for, where that matters.
        """
        ...

    async def aclose(self) -> None:
        """Close connections. Calls under way may fail."""
        ...
