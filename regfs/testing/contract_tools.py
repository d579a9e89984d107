"""What the contract suite is made of: the harness that a Source brings, and steps that many of its tests take."""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import trio

from regfs.digest import Digest
from regfs.errors import NotFound
from regfs.manifest import Descriptor
from regfs.ports import Counts, Source
from regfs.testing.images import Image, Pushable, make_image

P = ParamSpec("P")
S = TypeVar("S", bound="Declares")
T = TypeVar("T")

Body = Callable[[Source], Awaitable[T]]

_DEADLINE: Final = 60.0
_MANY_PAGES: Final = 1000


class Harness(Protocol):
    """An empty registry, and a Source for it.

    The suite asks nothing else of a harness. What the test of a new capability may need is asked where that capability
    is declared, and `regfs.testing.harness.ConnectionHarness` then has a default that says what to implement.
    """

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """Put an image or index into the registry under ``tags``, as somebody else would."""
        ...

    def open(self) -> AbstractAsyncContextManager[Source]:
        """A new Source; closed at the end. Entered within `trio.run`."""
        ...


class Declares(Protocol):
    """A suite that says which capabilities its Source hands out."""

    @property
    def capabilities(self) -> Collection[type[Any]]:
        """Their classes."""
        ...


def about(
    kind: type[Any],
) -> Callable[[Callable[Concatenate[S, P], None]], Callable[Concatenate[S, P], None]]:
    """Make a test one of a capability: where that is not declared it promises nothing, and touches nothing."""

    def mark(test: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
        @functools.wraps(test)
        def where_declared(suite: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
            if kind in suite.capabilities:
                test(suite, *args, **kwargs)

        where_declared.about = kind  # type: ignore[attr-defined]  # for the suite's own tests
        return where_declared

    return mark


@contextmanager
def not_found() -> Iterator[None]:
    """Something that is absent is asked for within the block: NotFound, which says at which registry."""
    raised = None
    try:
        yield
    except NotFound as error:
        raised = error
    assert raised is not None, "it is absent, and NotFound is not raised"
    assert raised.registry, f"NotFound({raised.message!r}) does not say where: give it registry="


def run(harness: Harness, body: Body[T], *instruments: trio.abc.Instrument) -> T:
    """Open a Source and run ``body`` on it, for a minute at most."""

    async def main() -> T:
        with trio.fail_after(_DEADLINE):
            async with harness.open() as source:
                return await body(source)

    return trio.run(main, instruments=instruments)


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


@functools.cache
def large_image(size: int) -> Image:
    """An image whose layer has ``size`` bytes and more."""
    return make_image(files={"big": noise(size)})


def noise(size: int) -> bytes:
    """Bytes that do not compress, the same each time."""
    return random.Random(size).randbytes(size)
