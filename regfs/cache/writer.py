"""The one who writes a download: what comes waits in memory for the disk, a little, and goes there in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from regfs.cache.fill import fill
from regfs.cache.followed import Followed, follow
from regfs.cache.partial import Partial
from regfs.cache.threads import in_thread
from regfs.errors import DigestMismatch
from regfs.ports import Fetch

if TYPE_CHECKING:
    from regfs.cache.download import Download

_PIECE: Final = 1024 * 1024
_AT_ONCE: Final = 2 * 1024 * 1024
_QUEUED: Final = 4 * 1024 * 1024
"""Bytes that may wait for the disk before the network has to."""


class Writer:
    """The one who writes: `run` work that begins at ``offset``, gives all from there on to `write`, and calls `finish`.

    An exception that ends the work reaches those who wait for bytes. What came without `finish` is kept, to be resumed.
    """

    def __init__(self, download: Download) -> None:
        self._download = download
        self._scope = trio.CancelScope()
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._moved = trio.Event()
        self._offset = download.partial.head
        self._idle = True
        self._moved_along: Callable[[], None] = lambda: None
        self._failure: Exception | None = None

    def cancel(self) -> None:
        """End the work: nobody reads any more."""
        self._scope.cancel()

    @property
    def offset(self) -> int:
        """Where the next byte belongs: what is before it is there, or on its way to the disk."""
        return self._offset

    @property
    def size(self) -> int:
        """The content's size in bytes, as its descriptor says."""
        return self._download.size

    @property
    def is_wanted(self) -> bool:
        """Whether there is something left to write, and a place for it."""
        return not self._download.is_lost and self._download.failure is None

    @property
    def follows(self) -> bool:
        """See `ContentWriter.follows`."""
        return isinstance(self._download.partial, Followed)

    async def fill(self, fetch: Fetch, moved: Callable[[], None] = lambda: None) -> None:
        """Fetch all that is missing; see `regfs.cache.fill`."""
        self._moved_along = moved
        await fill(self, fetch)

    async def run(self, work: Callable[[Writer], Awaitable[None]]) -> None:
        """Do ``work`` as the writer. It ends early, without an error, once nobody reads any more. Raises what it raises."""
        try:
            with self._scope:
                await self._follow()
                if self.is_wanted and not self._download.is_whole:
                    await self._recall()
                    await self._with_pump(work)
            if self._failure is not None:
                raise self._failure
        finally:
            with trio.CancelScope(shield=True):
                await self._download.release(self._failure, list(self._queue))

    async def _follow(self) -> None:
        partial = self._download.partial
        if isinstance(partial, Followed):
            try:
                await follow(self._download, partial, self._moved_along)
            except DigestMismatch as error:
                self._fail(error)

    async def _with_pump(self, work: Callable[[Writer], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, nursery.cancel_scope)
            try:
                await work(self)
                await self._drained()
            except Exception as error:  # to be raised without the nursery's group around it
                if not isinstance(error, DigestMismatch):
                    await self._drained()  # some have read it already: who goes on must go on behind it
                self._fail(error)
            nursery.cancel_scope.cancel()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        if isinstance(error, DigestMismatch):
            self._download.fail(error)

    async def write(self, data: bytes) -> bool:
        """Take the next bytes, as soon as there is room in memory for them; False: stop, the disk takes no more.

        Raises DigestMismatch where they are more than the descriptor says.
        """
        if self.offset + len(data) > self._download.size:
            raise DigestMismatch(
                f"{self._download.digest} is longer than the {self._download.size} bytes that its descriptor says"
            )
        try:
            while self._queued >= _QUEUED and self.is_wanted:
                await self._moved.wait()
        finally:  # also if it ends here: some may have been read, and who goes on elsewhere gets what is not kept
            view = memoryview(data)
            self._queue.extend(view[start : start + _PIECE] for start in range(0, len(data), _PIECE))
            self._queued += len(data)
            self._offset += len(data)
            self._move()
        return self.is_wanted

    async def finish(self) -> None:
        """All has come: verify it and give it its name. Raises DigestMismatch. Where the disk took not all of it, nothing happens."""
        await self._drained()
        if self.is_wanted:
            await self._download.settle()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _recall(self) -> None:
        partial = self._download.partial
        assert isinstance(partial, Partial), "what another writes is followed"
        try:
            while await in_thread(partial.recall):
                self._download.changed()
            self._download.changed()
        except OSError as error:
            self._download.lose(error)
        self._offset = partial.head

    async def _drained(self) -> None:
        while (self._queued or not self._idle) and self.is_wanted:
            await self._moved.wait()

    async def _pump(self, everything: trio.CancelScope) -> None:
        while self.is_wanted:
            if not self._queue:
                self._idle = True
                self._move()
                await self._moved.wait()
                continue
            self._idle = False
            try:
                await self._to_disk()
            except DigestMismatch as error:
                self._fail(error)
                everything.cancel()

    async def _to_disk(self) -> None:
        batch: list[bytes | memoryview] = []
        size = 0
        while self._queue and size < _AT_ONCE:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        partial = self._download.partial
        assert isinstance(partial, Partial), "what another writes is followed"
        with trio.CancelScope(shield=True):
            try:
                await in_thread(partial.append, batch)
            except OSError as error:
                self._queue.extendleft(reversed(batch))
                self._download.lose(error)
                return
        self._queued -= size
        self._download.changed()
        self._move()
