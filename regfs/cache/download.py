"""One download of a content in this process: one writes, all read while it arrives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import trio

from regfs.cache.followed import Followed
from regfs.cache.partial import Partial, Progress
from regfs.cache.record import Doing
from regfs.cache.threads import in_thread, read_at
from regfs.cache.writer import Writer
from regfs.digest import Digest
from regfs.errors import DigestMismatch
from regfs.ports import Rest

logger = logging.getLogger(__name__)


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

    @property
    def descriptor(self) -> None:
        """See `regfs.ports.OpenContent.descriptor`: what it arrives in is no finished file."""
        return

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
