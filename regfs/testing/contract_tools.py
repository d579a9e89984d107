"""What the contract suite is made of: the harness that a Source brings, and steps that many of its tests take."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeVar

import trio

from regfs.digest import Digest
from regfs.manifest import Descriptor
from regfs.ports import Counts, Source
from regfs.testing.images import Image, Pushable

T = TypeVar("T")

Body = Callable[[Source], Awaitable[T]]

_DEADLINE: Final = 60.0
_MANY_PAGES: Final = 1000


class Harness(Protocol):
    """An empty registry, and a Source for it."""

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """Put an image or index into the registry under ``tags``, as somebody else would."""
        ...

    def open(self) -> AbstractAsyncContextManager[Source]:
        """A new Source; closed at the end. Entered within `trio.run`."""
        ...


def run(harness: Harness, body: Body[T]) -> T:
    """Open a Source and run ``body`` on it, for a minute at most."""

    async def main() -> T:
        with trio.fail_after(_DEADLINE):
            async with harness.open() as source:
                return await body(source)

    return trio.run(main)


def tags_of(repository: str) -> Body[list[str]]:
    """All tags of a repository, in the order they come. A listing of over a thousand pages is one that does not end."""

    async def body(source: Source) -> list[str]:
        names: list[str] = []
        pages = 0
        async for page in source.tags(repository):
            names += page.names
            pages += 1
            assert pages <= _MANY_PAGES, "the paging does not end"
        return names

    return body


def requests_of(harness: Harness, source: Source) -> int | None:
    """How many requests were made so far: by the harness's ``requests()``, else the Source's counter; None: nobody says."""
    counted = getattr(harness, "requests", None)
    if counted is not None:
        return int(counted())
    counts = source.capability(Counts)
    return None if counts is None else counts.counters().get("requests")


def manifest_of(repository: str, reference: str | Digest) -> Body[bytes]:
    """A manifest's bytes."""

    async def body(source: Source) -> bytes:
        return (await source.manifest(repository, reference)).raw

    return body


async def blob_of(
    source: Source, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
) -> bytes:
    """The bytes of a blob, or of a range of it."""
    async with source.blob(repository, descriptor, start, end) as pieces:
        return b"".join([piece async for piece in pieces])


async def intact(source: Source, what: Pushable, *references: str | Digest) -> None:
    """Check that all references still give ``what``, and that its members and blobs are there."""
    for reference in references:
        assert (await source.manifest("team/app", reference)).raw == what.manifest.raw, reference
    for image in () if isinstance(what, Image) else what.images:
        assert (await source.manifest("team/app", image.digest)).raw == image.manifest.raw
    for blob in what.blobs:
        assert await blob_of(source, "team/app", blob.descriptor) == blob.raw


def noise(size: int) -> bytes:
    """Bytes that do not compress, the same each time."""
    return random.Random(size).randbytes(size)
