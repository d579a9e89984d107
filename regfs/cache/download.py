"""One download of a content in this process: one writes, all read while it arrives."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from regfs.cache.fill import fill
from regfs.cache.followed import Followed, follow
from regfs.cache.partial import Partial, Progress
from regfs.cache.record import Doing
from regfs.cache.threads import in_thread, read_at
from regfs.digest import Digest
from regfs.errors import DigestMismatch
from regfs.ports import Fetch, Rest

logger = logging.getLogger(__name__)

_PIECE: Final = 1024 * 1024
_AT_ONCE: Final = 2 * 1024 * 1024
_QUEUED: Final = 4 * 1024 * 1024
"""Bytes that may wait for the disk before the network has to."""


class Download:
    """What arrives of one content, and who waits for it. State changes on the loop alone, never across an await."""

    def __init__(
        self, partial: Partial | Followed, path: Path, forget: Callable[[Progress | None], None]
    ) -> None:
        self.partial = partial
        self.is_whole = False
        self.failure: DigestMismatch | None = None
        self.is_lost = False
        """The disk took no more of it: what is not there must be read elsewhere."""
        self.closed = trio.Event()
        self.is_closing = False
        self._path = path
        self._forget = forget
        self._progress: Progress | None = None
        self._readers = 0
        self._writer: Writer | None = None
        self._interruption: BaseException | None = None
        self._unkept: list[bytes | memoryview] = []
        self._changed = trio.Event()
        self.go_on_with(partial)

    @property
    def digest(self) -> Digest:
        """What it is to hash to."""
        return self.partial.digest

    @property
    def size(self) -> int:
        """Its size in bytes, as its descriptor says."""
        return self.partial.size

    @property
    def is_open(self) -> bool:
        """Whether one can join those who read it."""
        return self.failure is None and not self.is_closing

    def drop(self) -> None:
        """Leave nothing of it where others look for it. Blocks."""
        if isinstance(self.partial, Partial):
            self.partial.drop()

    def join(self) -> Reading:
        """One more reader."""
        self._readers += 1
        return Reading(self)

    async def leave(self) -> None:
        """One reader less. With the last one writing ends, and what came stays, to be resumed. What is verified is kept by then."""
        with trio.CancelScope(shield=True):  # who is cancelled meanwhile is a reader less all the same
            while self.is_whole and self._writer is not None:
                await self._changed.wait()
        self._readers -= 1
        if self._readers == 0 and self._writer is not None and not self.is_whole:
            self._writer.cancel()
        await self._close_if_unused()

    def claim(self) -> Writer | None:
        """The right to write, for one at a time; None while another has it, and where nothing is left to write."""
        if self._writer is not None or self.is_whole or self.is_lost or self.failure is not None:
            return None
        self._interruption = None
        self._writer = Writer(self)
        return self._writer

    async def release(self, error: BaseException | None, unkept: list[bytes | memoryview]) -> None:
        """End the right to write. Those who wait for bytes get ``error``, where it is one that they should see.

        ``unkept``: what came in order, and the disk did not take.
        """
        if isinstance(self.partial, Partial) and not self.is_whole:
            await in_thread(self.partial.tell, Doing.RESTING)
        self._writer = None
        self._unkept = unkept if self.is_lost else []
        self._interruption = error if isinstance(error, Exception) else None
        self.changed()
        await self._close_if_unused()

    def changed(self) -> None:
        """Wake all who wait."""
        self._changed.set()
        self._changed = trio.Event()

    def go_on_with(self, partial: Partial | Followed) -> None:
        """What another process wrote is this one's to write, or there already."""
        self.partial = partial
        self.is_whole = isinstance(partial, Followed) and partial.is_kept
        self.changed()

    def fail(self, error: DigestMismatch) -> None:
        """It is not what its digest says: nobody gets more of it, and nothing of it stays."""
        self.failure = error
        self.changed()

    def lose(self, error: OSError) -> None:
        """The disk takes no more."""
        if not self.is_lost:
            logger.info("cache: %s is not kept: %s", self.digest, error.strerror or error)
        self.is_lost = True
        if self._writer is not None:
            self._writer.cancel()
        self.changed()

    async def rest(self) -> Rest:
        """See `ArrivingContent.rest`."""
        while self.is_lost and self._writer is not None:
            await self._changed.wait()
        head, hashed = self.partial.chain()
        return await in_thread(Rest.behind, head, hashed, list(self._unkept))

    def end_of(self, offset: int) -> int:
        """Up to where all is there from ``offset`` on; ``offset`` itself where it is not."""
        return self.size if self.is_whole else self.partial.end_of(offset)

    async def await_bytes(self, start: int, end: int, *, in_order: bool) -> bool:
        """Wait until the range is there; False where it will not come. Raises what ended the writing, and DigestMismatch."""
        while True:
            if self.failure is not None:
                raise DigestMismatch(self.failure.message, registry=self.failure.registry)
            there = self.partial.head if in_order and not self.is_whole else self.end_of(start)
            if there >= end and not self._awaits_verdict(start, end):
                return True
            if self.is_lost:
                return False
            if self._writer is None:
                if self._interruption is not None:
                    raise self._interruption.with_traceback(None)
                return False
            await self._changed.wait()

    async def await_verdict(self) -> None:
        """Wait until all is verified, proved wrong, or nobody writes any more."""
        while not self.is_whole and self.failure is None and self._writer is not None:
            await self._changed.wait()

    def _awaits_verdict(self, start: int, end: int) -> bool:
        """Whoever may have read all from the start on gets the last bytes only with the word that all were right."""
        return end == self.size and not self.is_whole and self.partial.head >= start

    async def settle(self) -> None:
        """Verify what was received, tell those who wait, and then bring it under its name. Raises DigestMismatch."""
        await in_thread(self.partial.verify)
        self.is_whole = True
        self.changed()
        if isinstance(self.partial, Followed):
            return  # the other one gives it its name
        with trio.CancelScope(shield=True):
            try:
                await in_thread(self.partial.keep, self._path)
            except OSError as error:
                logger.info("cache: %s is not kept: %s", self.digest, error.strerror or error)

    async def _close_if_unused(self) -> None:
        if self._readers or self._writer is not None or self.is_closing:
            return
        self.is_closing = True
        progress = None
        with trio.CancelScope(shield=True):
            try:
                progress = await in_thread(self._close)
            finally:
                self._forget(progress)
                self.closed.set()

    def _close(self) -> Progress | None:
        return self.partial.close(resumable=self.failure is None)


class Reading:
    """A content that one reads while it arrives."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._open = True

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self._download.size

    @property
    def verified(self) -> bool:
        """Whether all of it was verified by its digest."""
        return self._download.is_whole

    async def await_verdict(self) -> None:
        """See `ArrivingContent.await_verdict`."""
        await self._download.await_verdict()

    def is_proven(self, start: int, end: int) -> bool:
        """Whether that range was verified, by the content's digest or one of its own."""
        partial = self._download.partial
        return self.verified or (isinstance(partial, Partial) and partial.is_proven(start, end))

    def missing(self, offset: int) -> int:
        """How many bytes have to arrive in order before the one at ``offset`` does; 0: it is there. For who may fetch a range instead."""
        download = self._download
        return 0 if download.end_of(offset) > offset else offset + 1 - download.partial.head

    @property
    def head(self) -> int:
        """See `ArrivingContent.head`."""
        return self.size if self.verified else self._download.partial.head

    @property
    def is_lost(self) -> bool:
        """See `ArrivingContent.is_lost`."""
        return self._download.is_lost

    def condemn(self, error: DigestMismatch) -> None:
        """See `ArrivingContent.condemn`."""
        if not self.verified:
            self._download.fail(error)

    async def rest(self) -> Rest:
        """See `ArrivingContent.rest`."""
        return await self._download.rest()

    async def read(self, start: int, length: int, *, in_order: bool = False) -> bytes | None:
        """``length`` bytes from offset ``start``, fewer only at the end, once they are there.

        ``in_order``: only such as came in order from the first byte on, and no range that was fetched by itself.
        None: they will not come, since nobody writes or the disk takes no more. Raises DigestMismatch once it is known
        that the content is wrong, and what ended the writing.
        """
        length = max(0, min(length, self.size - start))
        while await self._download.await_bytes(start, start + length, in_order=in_order):
            try:
                data = await self._read(start, length)
            except OSError as error:
                self._download.lose(error)
                return None
            if data is not None:
                return data
        return None

    async def _read(self, start: int, length: int) -> bytes | None:
        """The bytes; None where they are not there after all, and were forgotten."""
        partial = self._download.partial
        if not self.verified and not await self._is_checked(partial, start, start + length):
            return None
        data = await read_at(partial.descriptor, start, length)
        if len(data) < length:
            raise OSError("it was cut short")
        if isinstance(partial, Followed) and not self.verified and not await in_thread(partial.still_stands):
            raise OSError("another process began it anew")
        return data

    @staticmethod
    async def _is_checked(partial: Partial | Followed, start: int, end: int) -> bool:
        if isinstance(partial, Followed) or not partial.needs_check(start, end):
            return True
        return await in_thread(partial.check, start, end)

    def claim(self) -> Writer | None:
        """The right, and with it the duty, to write what is missing; None where another writes, or nothing is missing."""
        return self._download.claim()

    async def put(self, start: int, data: bytes, *, proven: bool = False) -> bool:
        """Keep a range that was fetched by itself; ``proven``: it was verified by a digest of its own. False: there is no room."""
        partial = self._download.partial
        if isinstance(partial, Followed):
            return False
        try:
            await in_thread(lambda: partial.put(start, data, proven=proven))
        except OSError as error:
            logger.debug("cache: a range of %s is not kept: %s", self._download.digest, error)
            return False
        self._download.changed()
        return True

    async def aclose(self) -> None:
        """Read no more."""
        if self._open:
            self._open = False
            await self._download.leave()


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
            await in_thread(partial.tell, Doing.FILLING)
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
