"""A layer that one can read in: indexed by the one pass that first reads it, or by what an earlier pass kept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import trio

from regfs.digest import Digest
from regfs.errors import DeadlineExceeded, DigestMismatch
from regfs.image import indexfile
from regfs.image.archive_limits import ArchiveLimits
from regfs.image.bounds import still_holds
from regfs.image.indexfile import LayerIndex, Unreadable
from regfs.image.layerbytes import LayerBytes
from regfs.image.limits import Limits
from regfs.image.members import Member, MemberKind
from regfs.image.onepass import OnePass, as_text
from regfs.image.table import MemberTable
from regfs.image.unpack import Budget, Unpacker
from regfs.manifest import Descriptor
from regfs.ports import Blobs

T = TypeVar("T")

logger = logging.getLogger(__name__)

BLOCKS: Final = 16 * 1024 * 1024
"""Bytes of decoded blocks that are kept in memory, of all layers together."""

CURSORS: Final = 24 * 1024 * 1024
"""Bytes that stopped decoders may take, of all layers together: some fifty of gzip, or three of zstd at its default."""

THREADS: Final = 4
PASS_THREADS: Final = 6

PASSES: Final = 2
"""How many layers are indexed at once: each keeps two cores busy, and 20 MB of memory."""


class IndexedLayers:
    """Opens layers (`Layers`). Passes run in the nursery of `start`, to their end, though whoever asked may leave."""

    def __init__(
        self, blobs: Blobs, limits: Limits | None = None, archive_limits: ArchiveLimits | None = None
    ) -> None:
        self.blobs = blobs
        self.limits = limits or Limits()
        self.archive_limits = archive_limits or ArchiveLimits()
        self.budget = Budget(BLOCKS, CURSORS, THREADS)
        self.pass_threads = trio.CapacityLimiter(PASS_THREADS)
        self.passes = trio.CapacityLimiter(PASSES)
        self._layers: WeakValueDictionary[Digest, IndexedLayer] = WeakValueDictionary()
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Run passes in ``nursery`` from now on."""
        self._nursery = nursery

    async def open(self, repository: str, descriptor: Descriptor) -> IndexedLayer:
        """A layer of a repository, one for all who ask for its digest. Asks nothing, and starts nothing yet."""
        found = self._layers.get(descriptor.digest)
        if found is None or found.size != descriptor.size:
            found = IndexedLayer(self, repository, descriptor)
            self._layers[descriptor.digest] = found
        return found

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it in the background."""
        assert self._nursery is not None, "start() comes first"
        self._nursery.start_soon(work)


class IndexedLayer:
    """One layer (`Layer`). What it is asked first starts the pass, unless an index was kept.

    A file can be read once the pass is past it. What comes at the file's end comes with the layer's verdict: so nobody
    reads a whole file of a layer that proves to be wrong.
    """

    def __init__(self, layers: IndexedLayers, repository: str, descriptor: Descriptor) -> None:
        self._layers = layers
        self._descriptor = descriptor
        self._bytes = LayerBytes(layers.blobs, repository, descriptor, layers.budget.limiter, layers.run)
        self._index: LayerIndex | None = None
        self._pass: OnePass | None = None
        self._unpacker: Unpacker | None = None
        self._is_working = False
        self._error: Exception | None = None
        self._moved = trio.Event()

    @property
    def digest(self) -> Digest:
        """Of the layer as stored."""
        return self._descriptor.digest

    @property
    def size(self) -> int:
        """Of the layer as stored, in bytes."""
        return self._descriptor.size

    @property
    def is_complete(self) -> bool:
        """Whether all of it is indexed."""
        return self._index is not None

    @property
    def verified(self) -> bool:
        """Whether its bytes were verified: there is no complete index of others."""
        return self._index is not None

    @property
    def faults(self) -> Sequence[str]:
        """What the pass had to leave out, a line each."""
        if self._index is not None:
            return self._index.faults
        found = self._pass.found if self._pass else None
        return tuple(found.faults) if found else ()

    async def members(self) -> Sequence[Member]:
        """All members, once the whole layer is indexed."""
        return (await self._complete()).members

    async def upto(self, count: int) -> Sequence[Member]:
        """The members so far, once there are ``count`` of them or the layer is complete."""
        await self._wait(lambda: self._index is not None or len(self._members()) >= count)
        return self._members()

    async def read(self, member: Member, start: int, length: int) -> bytes:
        """Bytes of a FILE of this layer, holes as zeros; fewer than ``length`` only at its ``size``."""
        end = min(start + length, member.size)
        if member.kind is not MemberKind.FILE or start >= end:
            return b""
        if end == member.size:
            await self._complete()
        parts = []
        for begin, stop, place in _stretches(member, start, end):
            parts.append(bytes(stop - begin) if place is None else await self._at(place, stop - begin))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ── the archive's bytes ──

    async def _at(self, place: int, length: int) -> bytes:
        end = place + length
        await self._wait(lambda: self._index is not None or self._walked() >= end)
        try:
            return await self._unpacked(place, end)
        except DigestMismatch:
            if self._index is None:
                raise
            # What was kept may have been damaged, or another's: the next reader gets it anew.
            logger.info("layer %s is read anew: what was read of it is not what it was", self.digest)
            self._unpacker = None
            await self._bytes.renew()
            return await self._unpacked(place, end)

    async def _unpacked(self, place: int, end: int) -> bytes:
        known = None if self._index is not None else self._walked()
        if self._unpacker is None:
            self._unpacker = self._made_unpacker()
        return await self._unpacker.read(place, end, known)

    def _made_unpacker(self) -> Unpacker:
        found = self._index or (self._pass.found if self._pass else None)
        assert found is not None
        return Unpacker(
            self._layers.blobs,
            self.digest,
            self.size,
            found.spans,
            found.pieces,
            self._bytes.read,
            self._layers.archive_limits,
            self._layers.budget,
        )

    # ── the index ──

    def _members(self) -> MemberTable:
        if self._index is not None:
            return self._index.members
        found = self._pass.found if self._pass else None
        return found.members if found else _NONE

    def _walked(self) -> int:
        found = self._pass.found if self._pass else None
        return found.walked if found else 0

    async def _complete(self) -> LayerIndex:
        await self._wait(lambda: self._index is not None)
        assert self._index is not None
        return self._index

    async def _wait(self, is_there: Callable[[], bool]) -> None:
        """Wait until it is there, beginning the work if nobody does it. Raises what ended the work."""
        while not is_there():
            if not self._is_working:
                self._is_working, self._error = True, None
                self._layers.run(self._work)
            moved = self._moved
            await moved.wait()
            if self._error is not None and not is_there():
                raise self._error.with_traceback(None)

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _work(self) -> None:
        try:
            self._index = await self._kept_index() or await self._index_anew()
        except Exception as error:  # it belongs to those who wait; here it would end the mount
            self._error = error
        except BaseException:
            self._error = DeadlineExceeded("the mount is going down")
            raise
        finally:
            if self._index is None:
                self._unpacker = None
                with trio.CancelScope(shield=True):
                    await self._bytes.renew()
            self._pass = None
            self._is_working = False
            self._move()

    async def _kept_index(self) -> LayerIndex | None:
        data = await self._layers.blobs.derived(self.digest, indexfile.NAME, indexfile.VERSION)
        if data is None:
            return None
        try:
            index = await self._in_thread(lambda: indexfile.unpack(data, self.size))
        except Unreadable as reason:
            logger.info("the index of layer %s is made anew: %s", self.digest, reason)
            return None
        now = as_text(self._layers.limits, self._layers.archive_limits)
        if not still_holds(index.limits, now, lacks=bool(index.faults)):
            return None
        self._bytes.hashes = index.hashes
        return index

    async def _index_anew(self) -> LayerIndex:
        layers = self._layers
        async with layers.passes, self._bytes.whole() as reader:
            self._pass = OnePass(
                layers.blobs,
                self._descriptor,
                reader,
                layers.limits,
                layers.archive_limits,
                layers.pass_threads,
                self._move,
            )
            index = await self._pass.run()
        self._bytes.hashes = index.hashes
        self._index = index
        self._move()  # nobody waits for the disk
        packed = await self._in_thread(lambda: indexfile.pack(index, layers.limits))
        await layers.blobs.keep_derived(self.digest, indexfile.NAME, indexfile.VERSION, packed)
        return index

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._layers.pass_threads)


_NONE: Final = MemberTable()


def _stretches(member: Member, start: int, end: int) -> list[tuple[int, int, int | None]]:
    """A range of a file in parts: from, to, and where in the archive that is; None: nowhere, it is a hole."""
    if member.sparse is None:
        return [(start, end, member.offset + start)]
    found: list[tuple[int, int, int | None]] = []
    place = member.offset
    for offset, length in member.sparse:
        begin, stop = max(start, offset), min(end, offset + length)
        if begin < stop:
            if start < begin:
                found.append((start, begin, None))
            found.append((begin, stop, place + begin - offset))
            start = stop
        place += length
        if start >= end:
            break
    if start < end:
        found.append((start, end, None))
    return found
