"""A layer that one can read in: indexed by the one pass that first reads it, or by what an earlier pass kept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary

import trio

from regfs.digest import Digest
from regfs.errors import DeadlineExceeded, DigestMismatch
from regfs.image import indexfile, windows
from regfs.image.archive_limits import ArchiveLimits
from regfs.image.bounds import as_text, still_holds
from regfs.image.indexfile import LayerIndex, Unreadable
from regfs.image.layerbytes import LayerBytes
from regfs.image.limits import Limits
from regfs.image.members import Member, MemberKind, stretches
from regfs.image.table import MemberTable
from regfs.image.unpack import Budget, Unpacker
from regfs.manifest import Descriptor
from regfs.ports import Blobs

if TYPE_CHECKING:
    from regfs.image.onepass import Found, OnePass

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
        self._arrival: PassArrival | None = None
        self._unpacker: Unpacker | None = None
        self._has_windows = False
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
        found = self._found()
        return tuple(found.faults) if found else ()

    async def members(self) -> Sequence[Member]:
        """All members, once the whole layer is indexed."""
        return (await self._complete()).members

    async def upto(self, count: int) -> Sequence[Member]:
        """The members so far, once there are ``count`` of them or the layer is complete."""
        await self.wait(lambda: self._index is not None or len(self._members()) >= count)
        return self._members()

    async def read(self, member: Member, start: int, length: int) -> bytes:
        """Bytes of a FILE of this layer, holes as zeros; fewer than ``length`` only at its ``size``."""
        return await self.read_by(None, member, start, length)

    def arrive(self) -> PassArrival:
        """See `regfs.image.members.Layer.arrive`."""
        if self._arrival is not None or self._index is None:
            return self._begun()
        arrival = PassArrival(self)
        arrival.index = self._index
        return arrival

    async def read_by(self, arrival: PassArrival | None, member: Member, start: int, length: int) -> bytes:
        """As `read`; with ``arrival``, by that pass or not at all."""
        if member.kind is not MemberKind.FILE:
            return b""
        if start + length >= member.size:
            await self.wait(lambda: self._index is not None, arrival)
        end = min(start + length, member.size)
        if start >= end:
            return b""
        parts = []
        for begin, stop, place in stretches(member, start, end):
            parts.append(
                bytes(stop - begin) if place is None else await self._at(place, stop - begin, arrival)
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ── the archive's bytes ──

    async def _at(self, place: int, length: int, arrival: PassArrival | None) -> bytes:
        end = place + length
        await self.wait(lambda: self._index is not None or self._walked() >= end, arrival)
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
        found = await self._unpacker.read(place, end, known)
        if self._index is not None and not self._has_windows:
            self._has_windows = True
            self._layers.run(self._fetch_windows)
        return found

    def _made_unpacker(self) -> Unpacker:
        found = self._index or self._found()
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
        found = self._found()
        return found.members if found else _NONE

    def _found(self) -> Found | None:
        return self._arrival.found if self._arrival is not None else None

    def _walked(self) -> int:
        found = self._found()
        return found.walked if found else 0

    async def _complete(self) -> LayerIndex:
        await self.wait(lambda: self._index is not None)
        assert self._index is not None
        return self._index

    async def wait(self, is_there: Callable[[], bool], arrival: PassArrival | None = None) -> None:
        """Wait until it is there, beginning the work if nobody does it. Raises what ended the work.

        With ``arrival`` that pass's work is waited for, and no other begun.
        """
        while True:
            if arrival is not None:
                arrival.check()
            if is_there():
                return
            working = arrival or self._begun()
            await self._moved.wait()
            if working.error is not None and not is_there():
                raise working.error.with_traceback(None)

    def _begun(self) -> PassArrival:
        if self._arrival is None:
            self._arrival = PassArrival(self)
            self._layers.run(self._work)
        return self._arrival

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _work(self) -> None:
        arrival = self._arrival
        assert arrival is not None, "whoever began it"
        error: Exception | None = None
        try:
            self._index = await self._kept_index() or await self._index_anew(arrival)
        except Exception as reason:  # it belongs to those who wait; here it would end the mount
            error = reason
        except BaseException:
            error = DeadlineExceeded("the mount is going down")
            raise
        finally:
            if self._index is None:
                self._unpacker = None
                with trio.CancelScope(shield=True):
                    await self._bytes.renew()
            arrival.end(self._index, error)
            self._arrival = None
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

    async def _fetch_windows(self) -> None:
        """Have all windows of a layer that is read, before the cache gives them up."""
        if self._index is None:
            return
        for group in self._index.spans.lacking:
            if not await self._index.spans.fetch(self._layers.blobs, self.digest, group):
                logger.info(
                    "the index of layer %s is made anew at the next mount: it lacks windows", self.digest
                )
                await self._layers.blobs.keep_derived(self.digest, indexfile.NAME, indexfile.VERSION, b"")
                return

    async def _index_anew(self, arrival: PassArrival) -> LayerIndex:
        layers = self._layers
        await self._in_thread(_import_pass)
        from regfs.image.onepass import OnePass

        async with layers.passes, self._bytes.whole() as reader:
            arrival.work = OnePass(
                layers.blobs,
                self._descriptor,
                reader,
                layers.limits,
                layers.archive_limits,
                layers.pass_threads,
                self._move,
            )
            index = await arrival.work.run()
        self._bytes.hashes = index.hashes
        self._index = arrival.index = index
        self._move()  # nobody waits for the disk
        for group, kept in enumerate(await self._in_thread(index.spans.groups)):
            await windows.keep(layers.blobs, self.digest, group, kept)
        packed = await self._in_thread(lambda: indexfile.pack(index, layers.limits))
        await layers.blobs.keep_derived(self.digest, indexfile.NAME, indexfile.VERSION, packed)
        return index

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._layers.pass_threads)


class PassArrival:
    """`regfs.image.members.Arrival`: one try at indexing a layer. ``work``: the pass; ``index``: what came of it."""

    def __init__(self, layer: IndexedLayer) -> None:
        self._layer = layer
        self.work: OnePass | None = None
        self.index: LayerIndex | None = None
        self.error: Exception | None = None

    @property
    def digest(self) -> Digest:
        """Of the layer as stored."""
        return self._layer.digest

    @property
    def found(self) -> Found | None:
        """What the pass has found so far."""
        return self.work.found if self.work is not None else None

    @property
    def members(self) -> Sequence[Member]:
        """Those that the pass is past."""
        if self.index is not None:
            return self.index.members
        found = self.found
        return found.members if found is not None else _NONE

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.index is not None or self.error is not None

    @property
    def verified(self) -> bool:
        """Whether the layer is what its digest says."""
        return self.index is not None

    def check(self) -> None:
        """Raise what ended it, if the layer is not whole or not right."""
        if self.index is None and self.error is not None:
            raise self.error.with_traceback(None)

    async def more(self, count: int) -> None:
        """Wait until there are more than ``count`` members, or it has ended well."""
        await self._layer.wait(lambda: self.index is not None or len(self.members) > count, self)

    async def read(self, member: Member, start: int, length: int) -> bytes:
        """See `regfs.image.members.Arrival.read`."""
        data = await self._layer.read_by(self, member, start, length)
        self.check()
        return data

    def end(self, index: LayerIndex | None, error: Exception | None) -> None:
        """It has ended, and holds nothing of a layer that is not right."""
        self.work, self.index, self.error = None, index, error


def _import_pass() -> None:
    """In a thread: it takes some milliseconds, for which nobody waits whose index was kept."""
    import regfs.image.onepass  # noqa: F401 - the import is what is wanted


_NONE: Final = MemberTable()
