"""One registry's blobs: each is fetched once for all who read it, kept where there is a store, and verified.

What a blob's readers share is a `Transfer`; how a reader gets the bytes from ``start`` to ``end`` is `BlobReader`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

import trio

from regfs.digest import Digest
from regfs.errors import NotFound, Unsupported
from regfs.manifest import Descriptor
from regfs.ports import Answer, ArrivingContent, BlobStore, Fetch, HonoursRanges, Mark, Rest, Source
from regfs.tree.blobreader import BlobReader
from regfs.tree.passing import Passing
from regfs.tree.recent import Recent
from regfs.tree.transfers import Filling, Transfer, Turns

STALL: Final = 30.0
"""Seconds without anything of a blob, after which those who read it get an error."""

AT_ONCE: Final = 8
"""How many blobs of a registry are downloaded at once; half as many ranges are fetched beside them."""

_FOREIGN: Final = ("foreign", "nondistributable")
_MAX_DERIVED: Final = 1 << 30


class RegistryBlobs:
    """`regfs.ports.Blobs` of one Source. Without a ``store`` blobs are still shared and verified, and kept nowhere."""

    def __init__(
        self,
        source: Source,
        store: BlobStore | None,
        *,
        stall: float = STALL,
        at_once: int = AT_ONCE,
    ) -> None:
        self.source = source
        self.store = store
        self.stall = stall
        self._downloads = Turns(at_once)
        self._ranges = Turns(max(1, at_once // 2))
        self._transfers: dict[tuple[Digest, int], Transfer] = {}
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Download in ``nursery`` from now on."""
        self._nursery = nursery

    async def open(self, repository: str, descriptor: Descriptor) -> BlobReader:
        """See `Blobs.open`. Asks the registry nothing: the first read does, and raises what it says."""
        reader = BlobReader(self, repository, descriptor)
        await reader.find()
        return reader

    async def is_verified(self, descriptor: Descriptor) -> bool:
        """Whether all of a blob is at hand and verified. Asks the registry nothing."""
        if self.store is None:
            return False
        found = await self.store.open(descriptor.digest, descriptor.size)
        if found is not None:
            await found.aclose()
        return found is not None

    async def derived(self, digest: Digest, name: str, version: int) -> bytes | None:
        """See `Blobs.derived`."""
        found = None if self.store is None else await self.store.open_derived(digest, name, version)
        if found is None:
            return None
        try:
            return await found.read(0, found.size) if found.size <= _MAX_DERIVED else None
        finally:
            await found.aclose()

    async def keep_derived(self, digest: Digest, name: str, version: int, data: bytes) -> None:
        """See `Blobs.keep_derived`."""
        if self.store is not None:
            await self.store.put_derived(digest, name, version, [data])

    # ── what readers share ──

    def join(self, descriptor: Descriptor) -> Transfer:
        """One more reader of a blob."""
        key = descriptor.digest, descriptor.size
        found = self._transfers.get(key)
        if found is None or found.wrong is not None:
            found = self._transfers[key] = Transfer(descriptor, self._downloads)
        found.readers += 1
        return found

    def leave(self, transfer: Transfer) -> None:
        """One reader less."""
        transfer.readers -= 1
        key = transfer.descriptor.digest, transfer.descriptor.size
        if transfer.readers == 0 and self._transfers.get(key) is transfer:
            del self._transfers[key]

    def fill(self, transfer: Transfer, content: ArrivingContent, repository: str) -> None:
        """See to it that somebody downloads a blob. Synchronous: whoever claims also fills."""
        if transfer.filling is not None:
            return
        writer = content.claim()
        if writer is not None:
            filling = transfer.filling = Filling(repository, Recent(awaited=not writer.follows))
            fetch = _remembering(self._fetching(transfer, repository), filling.recent)
            self._start(lambda: transfer.fill(writer, filling, fetch))

    def passing(
        self,
        transfer: Transfer,
        start: int,
        end: int,
        repository: str,
        rest: Rest | None,
        marks: Sequence[Mark],
    ) -> Passing:
        """The passage that soon brings the bytes from ``start`` to ``end``, or a new one: behind ``rest``, else from the blob's first byte on.

        It hashes to what ``marks`` say, or is wrong.
        """
        transfer.passings = [
            one for one in transfer.passings if not one.has_ended or one.comes_to(start, end)
        ]
        found = next(
            (
                one
                for one in transfer.passings
                if one.will_bring(start) and one.comes_to(start, end) and one.may_equal(marks)
            ),
            None,
        )
        if found is None:
            lowest = min([start, *(mark.offset for mark in marks)])
            behind = rest if rest is not None and rest.offset <= lowest else None
            found = Passing(transfer.descriptor, transfer.progress, behind)
            transfer.passings.append(found)
            passing = found
            self._start(lambda: passing.run(self._fetching(transfer, repository)))
        found.must_equal(marks)
        return found

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None, "start() comes first"
        self._nursery.start_soon(work)

    # ── what is asked ──

    def _fetching(self, transfer: Transfer, repository: str) -> Fetch:
        """A blob's bytes from an offset on, in their turn, with each piece noted as progress."""

        @asynccontextmanager
        async def fetch(start: int) -> AsyncIterator[AsyncIterator[bytes]]:
            async with (
                self._downloads.one(transfer),
                self._asked(repository, transfer.descriptor, start, None) as chunks,
                aclosing(_noted(chunks, transfer)) as noted,
            ):
                yield noted

        return fetch

    @asynccontextmanager
    async def _asked(
        self, repository: str, descriptor: Descriptor, start: int, end: int | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            async with self.source.blob(repository, descriptor, start, end) as chunks:
                yield chunks
        except NotFound as error:
            if any(word in descriptor.media_type for word in _FOREIGN):
                raise Unsupported(
                    f"{descriptor.digest} is a foreign layer: the registry does not hold it, and other places are not asked",
                    registry=self.source.name,
                ) from error
            raise

    def honours_ranges(self, repository: str) -> bool:
        """Whether a range may be asked for by itself: it is given, or that is not known yet."""
        found = self.source.capability(HonoursRanges, repository)
        return found is None or found.honours_ranges() is not Answer.NO

    @asynccontextmanager
    async def range(
        self, transfer: Transfer, repository: str, start: int, end: int, *, needed: bool = False
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Bytes of a blob by themselves. Nothing where the registry gives the whole blob instead, unless they are ``needed``."""
        async with (
            self._ranges.one(transfer),
            self._asked(repository, transfer.descriptor, start, end) as chunks,
            aclosing(_noted(chunks, transfer)) as noted,
        ):
            yield noted if needed or self.honours_ranges(repository) else _nothing()


def _remembering(fetch: Fetch, recent: Recent) -> Fetch:
    """The same, with what came last kept in memory for a while."""

    @asynccontextmanager
    async def fetch_and_remember(start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        async with fetch(start) as chunks, aclosing(_kept_a_while(chunks, recent)) as kept:
            recent.begin(start)
            yield kept

    return fetch_and_remember


async def _noted(chunks: AsyncIterator[bytes], transfer: Transfer) -> AsyncGenerator[bytes, None]:
    transfer.progress()
    async for chunk in chunks:
        transfer.progress()
        yield chunk


async def _kept_a_while(chunks: AsyncIterator[bytes], recent: Recent) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        recent.add(chunk)
        yield chunk


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""
