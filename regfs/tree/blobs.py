"""One registry's blobs: each is fetched once for all who read it, kept where there is a store, and verified.

What a blob's readers share is a `Transfer`; how a reader gets the bytes from ``start`` to ``end`` is `BlobReader`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final

import trio

from regfs.digest import Digest
from regfs.errors import AccessDenied, DigestMismatch, NotFound, RegfsError, Unsupported
from regfs.manifest import Descriptor
from regfs.ports import Answer, ArrivingContent, BlobStore, Fetch, HonoursRanges, OpenContent, Source
from regfs.tree.passing import Passing
from regfs.tree.seen import Seen
from regfs.tree.transfers import Filling, Transfer, Turns

STALL: Final = 30.0
"""Seconds without anything of a blob, after which those who read it get an error."""

AT_ONCE: Final = 8
"""How many blobs of a registry are downloaded at once; half as many ranges are fetched beside them."""

_FAR: Final = 4 * 1024 * 1024
"""How many bytes have to come in order before a reader's range is asked for by itself."""
_FIRST_RANGE: Final = 128 * 1024
_LARGEST_RANGE: Final = 4 * 1024 * 1024
_PIECE: Final = 1024 * 1024
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
            filling = transfer.filling = Filling(repository)
            self._start(lambda: transfer.fill(writer, filling, self._fetching(transfer, repository)))

    def passing(self, transfer: Transfer, offset: int, repository: str) -> Passing:
        """The passage that brings the byte at ``offset``, or a new one from the blob's first byte on."""
        transfer.passings = [one for one in transfer.passings if not one.has_ended or one.will_bring(offset)]
        found = next((one for one in transfer.passings if one.will_bring(offset)), None)
        if found is None:
            found = Passing(transfer.descriptor, transfer.progress)
            transfer.passings.append(found)
            passing = found
            self._start(lambda: passing.run(self._fetching(transfer, repository)))
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


async def _noted(chunks: AsyncIterator[bytes], transfer: Transfer) -> AsyncGenerator[bytes, None]:
    transfer.progress()
    async for chunk in chunks:
        transfer.progress()
        yield chunk


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


class BlobReader:
    """An open blob: a `ContentReader`. Its bytes come from the store, from its download, by range, or as they pass."""

    def __init__(self, blobs: RegistryBlobs, repository: str, descriptor: Descriptor) -> None:
        self._blobs = blobs
        self._repository = repository
        self._descriptor = descriptor
        self._transfer = blobs.join(descriptor)
        self._stored: OpenContent | None = None
        self._arriving: ArrivingContent | None = None
        self._passing: Passing | None = None
        self._seen = Seen(descriptor.size)
        self._next_range = (0, _FIRST_RANGE)
        self._proven = False
        self._finding = trio.Lock()
        self._is_open = True

    @property
    def size(self) -> int:
        """In bytes, by the descriptor."""
        return self._descriptor.size

    @property
    def verified(self) -> bool:
        """Whether all of it is known to be what its digest says."""
        return (
            self._proven
            or self._stored is not None
            or (self._arriving is not None and self._arriving.verified)
        )

    async def find(self) -> None:
        """Open what the store has of it, verified or on its way."""
        async with self._finding:
            store = self._blobs.store
            if store is None or self._stored is not None or self._arriving is not None:
                return
            self._stored = await store.open(self._descriptor.digest, self.size)
            if self._stored is None:
                self._arriving = await store.download(self._descriptor.digest, self.size)

    async def read(self, start: int, length: int) -> bytes:
        """See `ContentReader.read`."""
        end = min(start + length, self.size)
        if start >= end:
            return b""
        self._transfer.check()
        try:
            data = await self._read(start, end)
        except DigestMismatch as error:
            self._transfer.wrong = self._transfer.wrong or error
            raise
        self._seen.add(start, end)
        return data

    async def aclose(self) -> None:
        """See `ContentReader.aclose`."""
        if not self._is_open:
            return
        self._is_open = False
        self._blobs.leave(self._transfer)
        if self._passing is not None:
            self._passing.leave(self)
        with trio.CancelScope(shield=True):
            for content in (self._stored, self._arriving):
                if content is not None:
                    await content.aclose()

    # ── where the bytes come from ──

    async def _read(self, start: int, end: int) -> bytes:
        for _ in range(3):
            if self._stored is not None:
                data = await self._stored.read(start, end - start)
                if data is not None:
                    return data
                await self._let_go()  # it was damaged or removed meanwhile: it is fetched anew
            if self._stored is None and self._arriving is None:
                await self.find()
            if self._arriving is None and self._stored is None:
                break
            if self._arriving is not None:
                data = await self._from_arriving(self._arriving, start, end)
                if data is not None:
                    return data
                await self._let_go()
        return await self._as_it_passes(start, end)

    async def _let_go(self) -> None:
        async with self._finding:
            contents, self._stored, self._arriving = (self._stored, self._arriving), None, None
            for content in contents:
                if content is not None:
                    await content.aclose()

    async def _from_arriving(self, content: ArrivingContent, start: int, end: int) -> bytes | None:
        """None: the store keeps no more of it."""
        completes = self._seen.completes(start, end)
        if not completes and content.missing(start) > _FAR and self._blobs.honours_ranges(self._repository):
            data = await self._by_range(content, start, end)
            if data is not None:
                return data
        for _ in range(3):
            if completes and not content.verified:
                await self._until_verified(content)
            elif content.missing(end - 1) or end == self.size:
                self._blobs.fill(self._transfer, content, self._repository)
            filling = self._transfer.filling
            try:
                data = await self._transfer.patiently(
                    lambda: content.read(start, end - start), self._blobs.stall
                )
            except (NotFound, AccessDenied):
                if filling is None or filling.repository == self._repository:
                    raise
                continue  # another repository does not show it: this one may
            if data is not None:
                return data
        return None

    async def _until_verified(self, content: ArrivingContent) -> None:
        """Wait until all is downloaded and verified. Raises what prevents it."""
        transfer = self._transfer
        while not content.verified:
            self._blobs.fill(transfer, content, self._repository)
            filling = transfer.filling
            if filling is None:
                return  # a download of another registry's, or none: reading waits for that
            await transfer.patiently(filling.done.wait, self._blobs.stall)
            transfer.check()
            if filling.error is not None and filling.repository == self._repository:
                raise filling.error.with_traceback(None)
            if filling.error is None and not content.verified:
                return

    # ── by range ──

    async def _by_range(self, content: ArrivingContent, start: int, end: int) -> bytes | None:
        """Bytes far ahead of what has come, asked for by themselves; None where that is not to be had."""
        transfer = self._transfer
        while (asked := transfer.range_over(start)) is not None:
            await transfer.patiently(asked.done.wait, self._blobs.stall)
        if content.missing(start) == 0 and content.missing(end - 1) == 0:
            return await content.read(start, end - start)
        expected, window = self._next_range
        window = min(window * 2, _LARGEST_RANGE) if start == expected else _FIRST_RANGE
        stop = min(max(end, start + window), self.size)
        self._next_range = stop, window
        try:
            async with transfer.asking(start, stop):
                data = await transfer.patiently(
                    lambda: self._fetch_range(content, start, end, stop), self._blobs.stall
                )
        except DigestMismatch:
            raise
        except RegfsError:
            return None  # in order it may still come, or say why not
        transfer.check()
        return data

    async def _fetch_range(self, content: ArrivingContent, start: int, end: int, stop: int) -> bytes | None:
        wanted = bytearray()
        piece = bytearray()
        at = start
        async with self._blobs.range(self._transfer, self._repository, start, stop) as chunks:
            async for chunk in chunks:
                wanted += chunk[: max(0, end - start - len(wanted))]
                piece += chunk
                if len(piece) >= _PIECE:
                    await content.put(at, bytes(piece))
                    at += len(piece)
                    piece.clear()
        if piece:
            await content.put(at, bytes(piece))
        return bytes(wanted) if len(wanted) == end - start else None

    # ── as it passes ──

    async def _as_it_passes(self, start: int, end: int) -> bytes:
        """Without a store. Who reads from the start on gets the last bytes only with the word that all were right."""
        completes = self._seen.completes(start, end)
        is_in_order = self._seen.prefix >= start
        for _ in range(3):
            if not is_in_order and not self._is_near(start):
                return await self._unkept(start, end)
            passing = self._blobs.passing(self._transfer, start, self._repository)
            if self._passing is not None and self._passing is not passing:
                self._passing.leave(self)
            self._passing = passing
            data = await self._transfer.patiently(
                partial(passing.read, self, start, end, verdict=completes), self._blobs.stall
            )
            if data is not None:
                self._proven = self._proven or (completes and passing.is_whole)
                return data
        return await self._unkept(start, end)

    def _is_near(self, start: int) -> bool:
        return start < _FAR or any(one.will_bring(start) for one in self._transfer.passings)

    async def _unkept(self, start: int, end: int) -> bytes:
        """A range by itself, kept nowhere."""

        async def fetch() -> bytes:
            data = bytearray()
            async with self._blobs.range(self._transfer, self._repository, start, end, needed=True) as chunks:
                async for chunk in chunks:
                    data += chunk
            return bytes(data)

        return await self._transfer.patiently(fetch, self._blobs.stall)
