"""A layer's bytes as stored: opened when first needed, checked, and let go when nobody has read for a while.

What is open is held in the cache; a mount that is only looked at must hold nothing there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from regfs.errors import DigestMismatch
from regfs.image.checked import read_checked
from regfs.manifest import Descriptor
from regfs.ports import Blobs, Condemns, ContentReader

IDLE: Final = 5.0
"""Seconds without a read after which the layer is let go."""

_MARGIN: Final = 2 * 1024 * 1024


class _Opened:
    """A reader, and how many use it now."""

    def __init__(self, reader: ContentReader) -> None:
        self.reader = reader
        self.users = 0
        self.read = 0
        self.used = trio.current_time()


class LayerBytes:
    """Ranges of one layer. ``hashes``: those of its chunks, once they are known to be right (`ChunkHasher`)."""

    def __init__(
        self,
        blobs: Blobs,
        repository: str,
        descriptor: Descriptor,
        limiter: trio.CapacityLimiter,
        run: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._blobs = blobs
        self._repository = repository
        self._descriptor = descriptor
        self._limiter = limiter
        self._run = run
        self._opened: _Opened | None = None
        self._opening = trio.Lock()
        self.hashes = b""

    async def read(self, start: int, end: int) -> tuple[int, bytes]:
        """Bytes ``start`` to ``end`` at least, with the offset of the first. Raises DigestMismatch, and what reading raises."""
        async with self._held() as opened:
            end = min(end, self._descriptor.size)
            what = f"layer {self._descriptor.digest}"
            try:
                first, data = await read_checked(opened.reader, self.hashes, start, end, what, self._limiter)
            except DigestMismatch as error:
                if self.hashes and isinstance(opened.reader, Condemns):
                    opened.reader.condemn(error)  # else the next one would be given the same
                raise
        opened.read += len(data)
        if not opened.reader.verified and opened.read + _MARGIN > self._descriptor.size:
            # Whoever has read all of a blob waits with the last of it for the verdict on the whole; here none is needed.
            await self.renew()
        return first, data

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[ContentReader]:
        """The layer by a reader of its own, to be read from start to end: ranges beside it must not hold it up."""
        reader = await self._blobs.open(self._repository, self._descriptor)
        try:
            yield reader
        finally:
            with trio.CancelScope(shield=True):
                await reader.aclose()

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[_Opened]:
        opened = await self._hold()
        try:
            yield opened
        finally:
            opened.users -= 1
            opened.used = trio.current_time()
            if opened is not self._opened and not opened.users:
                with trio.CancelScope(shield=True):
                    await opened.reader.aclose()

    async def renew(self) -> None:
        """Open it anew for the next one who reads."""
        await self._let_go()

    async def _hold(self) -> _Opened:
        async with self._opening:
            if self._opened is None:
                self._opened = _Opened(await self._blobs.open(self._repository, self._descriptor))
                self._run(self._close_when_idle)
            self._opened.users += 1
            return self._opened

    async def _close_when_idle(self) -> None:
        opened = self._opened
        try:
            while opened is not None and opened is self._opened:
                await trio.sleep_until(max(opened.used, trio.current_time() - IDLE / 2) + IDLE)
                if not opened.users and trio.current_time() >= opened.used + IDLE:
                    await self._let_go()
        finally:  # also when the mount ends
            if opened is not None and opened is self._opened:
                await self._let_go()

    async def _let_go(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and not opened.users:
            with trio.CancelScope(shield=True):
                await opened.reader.aclose()
