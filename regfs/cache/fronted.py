"""A store on disk behind one in memory: small content is at hand in both, and nobody waits for the disk to take it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from regfs.cache.memory import MemoryStore
from regfs.digest import Digest
from regfs.ports import ArrivingContent, OpenContent

if TYPE_CHECKING:
    from regfs.cache.disk import DiskStore

logger = logging.getLogger(__name__)

_WAITING: Final = 16 * 1024 * 1024
"""Bytes that may wait for the disk. What comes beyond that is kept in memory alone."""

_CALM: Final = 0.3
"""Seconds before the disk's modules are imported for the first write: whoever reads first is answered first."""

_FLUSH: Final = 2.0
"""Seconds that what still waits has at the end."""


class FrontedStore:
    """A `BlobStore` of at most ``limit`` bytes in ``root``. Made at once: the disk is looked at when it is first needed."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._memory = MemoryStore()
        self._disk: DiskStore | None = None
        self._opening = trio.Lock()
        self._waiting: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0
        self._put = trio.Event()

    async def run(self) -> None:
        """Write behind until cancelled; then what still waits has a moment."""
        try:
            while True:
                while self._waiting:
                    await self._write_one()
                self._put = trio.Event()
                await self._put.wait()
                if self._disk is None:
                    await trio.sleep(_CALM)
        finally:
            with trio.move_on_after(_FLUSH, shield=True):
                while self._waiting:
                    await self._write_one()

    async def _write_one(self) -> None:
        disk = await self._opened()
        digest, data = next(iter(self._waiting.items()))
        await disk.put(digest, data)
        self._waiting.pop(digest, None)
        self._size -= len(data)

    async def _opened(self) -> DiskStore:
        """The disk store; its modules are imported in a thread, since nothing may hold up the loop."""
        if self._disk is None:
            async with self._opening:
                if self._disk is None:
                    self._disk = await trio.to_thread.run_sync(self._open)
        return self._disk

    def _open(self) -> DiskStore:
        from regfs.cache.disk import DiskStore

        return DiskStore(self._root, self._limit)

    async def sweep(self) -> None:
        """See `DiskStore.sweep`."""
        await (await self._opened()).sweep()

    # ── small content, whole ──

    async def get(self, digest: Digest) -> bytes | None:
        """See `ContentStore.get`."""
        found = await self._memory.get(digest)
        if found is None and self._limit:
            found = await (await self._opened()).get(digest)
            if found is not None:
                await self._memory.put(digest, found)
        return found

    async def put(self, digest: Digest, data: bytes) -> None:
        """See `ContentStore.put`. It is on the disk a moment later."""
        await self._memory.put(digest, data)
        if self._limit and digest not in self._waiting and self._size + len(data) <= _WAITING:
            self._waiting[digest] = data
            self._size += len(data)
            self._put.set()

    # ── content of any size ──

    async def open(self, digest: Digest, size: int) -> OpenContent | None:
        """See `BlobStore.open`."""
        return await (await self._opened()).open(digest, size)

    async def download(self, digest: Digest, size: int) -> ArrivingContent | None:
        """See `BlobStore.download`."""
        return await (await self._opened()).download(digest, size)

    async def open_derived(self, digest: Digest, name: str, version: int) -> OpenContent | None:
        """See `BlobStore.open_derived`."""
        return await (await self._opened()).open_derived(digest, name, version)

    async def put_derived(self, digest: Digest, name: str, version: int, chunks: Iterable[bytes]) -> None:
        """See `BlobStore.put_derived`."""
        await (await self._opened()).put_derived(digest, name, version, chunks)
