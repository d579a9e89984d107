"""A blob that no store keeps: it passes once, from its first byte to its last, and whoever reads takes it as it passes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from regfs.errors import ConnectionFailed, DeadlineExceeded, DigestMismatch
from regfs.manifest import Descriptor
from regfs.ports import Fetch, Mark, Rest

if TYPE_CHECKING:
    from hashlib import _Hash

WINDOW: Final = 8 * 1024 * 1024
"""Bytes that are kept for readers that are slower than others."""

_AHEAD: Final = 2 * 1024 * 1024
_BATCH: Final = 1024 * 1024
SURE: Final = WINDOW - 2 * _BATCH
"""Bytes that are kept for who waits for them, or for the verdict on them."""

_LAGGARD: Final = 5.0
"""Seconds that a reader may rest before it no longer holds up the others."""
_IDLE: Final = 5.0
"""Seconds that a connection is held for readers that rest."""
_FRUITLESS: Final = 3


@dataclass
class _Wish:
    """What a reader wants, or had last: the bytes from ``start`` to ``end``, said at the moment ``said``."""

    start: int
    end: int
    said: float


class Passing:
    """One passage of a blob, hashed. It goes little further than is wanted, and waits for slow readers, within reason.

    `run` does it, for as long as there are readers. State changes on the loop alone, never across an await.
    """

    def __init__(
        self, descriptor: Descriptor, progress: Callable[[], None], behind: Rest | None = None
    ) -> None:
        self._descriptor = descriptor
        self._progress = progress
        self._hash = behind.hashed.copy() if behind else hashlib.new(descriptor.digest.algorithm)
        self._first = deque(behind.chunks if behind else ())
        self._chunks: deque[bytes | memoryview] = deque()
        self._low = self._high = self._hashed_to = behind.offset if behind else 0
        self._marks: dict[int, str] = {}
        self._waiting: dict[object, _Wish] = {}
        """One for each read that waits: a reader may have several at once."""
        self._resting: dict[object, _Wish] = {}
        """By reader: what he had last."""
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self.is_whole = descriptor.size == 0
        self.error: Exception | None = None
        self.has_ended = False

    def will_bring(self, offset: int) -> bool:
        """Whether the byte at ``offset`` is at hand, or comes soon."""
        if self.has_ended and offset >= self._high:
            return False
        return self._low <= offset <= self._high + _AHEAD

    # ── what it must equal ──

    def mark(self) -> Mark:
        """What it hashes to so far."""
        return Mark(self._high, self._hash.hexdigest())

    def may_equal(self, marks: Sequence[Mark]) -> bool:
        """Whether it hashes to that at these places, or will be seen not to."""
        return all(
            self._marks.get(mark.offset) == mark.hex
            or (not self.has_ended and mark.offset > self._hashed_to and mark.offset not in self._marks)
            for mark in marks
        )

    def must_equal(self, marks: Sequence[Mark]) -> None:
        """From now on it is wrong unless it hashes to that at these places: what somebody was given of an earlier one."""
        self._marks.update((mark.offset, mark.hex) for mark in marks)

    # ── reading ──

    def comes_to(self, start: int, end: int) -> bool:
        """Whether the bytes from ``start`` to ``end`` are at hand, or still to come, however far that is."""
        return self._low <= start and (not self.has_ended or end <= self._high)

    async def read(self, reader: object, start: int, end: int, *, verdict: bool) -> bytes | None:
        """The bytes, once they have come; None where they have gone. ``verdict``: only with the word that all are right.

        Raises what ended the passage, and DigestMismatch.
        """
        read = object()
        self._resting.setdefault(reader, _Wish(start, start, trio.current_time()))
        self._waiting[read] = _Wish(start, self._descriptor.size if verdict else end, trio.current_time())
        self._wake()
        try:
            while start >= self._low and not isinstance(self.error, DigestMismatch):
                if self._high >= end and (not verdict or self.is_whole):
                    if reader in self._resting:
                        self._resting[reader] = _Wish(end, end, trio.current_time())
                    return self._cut(start, end)
                if self.has_ended:
                    break
                await self._changed.wait()
        finally:
            del self._waiting[read]
            self._end_if_unused()
        if self.error is not None:
            raise self.error.with_traceback(None)
        return None

    def leave(self, reader: object) -> None:
        """That reader wants no more; with the last one the passage ends."""
        self._resting.pop(reader, None)
        self._wake()
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if not self._resting and not self._waiting:
            self._scope.cancel()

    def _cut(self, start: int, end: int) -> bytes:
        at, parts = self._low, []
        for chunk in self._chunks:
            if at >= end:
                break
            if at + len(chunk) > start:
                parts.append(chunk[max(0, start - at) : end - at])
            at += len(chunk)
        return parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ── passing ──

    async def run(self, fetch: Fetch) -> None:
        """Let it pass. What goes wrong is `error`, and raised to those who read."""
        try:
            with self._scope:
                await self._pass(fetch)
        except Exception as error:  # it belongs to those who wait; in the nursery it would end the mount
            self.error = error
        finally:
            self.has_ended = True
            self._wake()

    async def _pass(self, fetch: Fetch) -> None:
        while self._first:
            await self._room()
            await self._take([self._first.popleft()])
        fruitless = 0
        while self._high < self._descriptor.size:
            before = self._high
            try:
                await self._transfer(fetch)
            except (ConnectionFailed, DeadlineExceeded):
                fruitless = fruitless + 1 if self._high == before else 0
                if fruitless >= _FRUITLESS:
                    raise
        if self._hash.hexdigest() != self._descriptor.digest.hex:
            found = f"{self._descriptor.digest.algorithm}:{self._hash.hexdigest()}"
            raise DigestMismatch(f"the bytes are {found}, not {self._descriptor.digest}")
        self.is_whole = True

    async def _transfer(self, fetch: Fetch) -> None:
        """Take what comes, until readers rest for long; the next transfer goes on from there."""
        await self._room()
        async with fetch(self._high) as chunks:
            batch: list[bytes] = []
            size = 0
            try:
                async for chunk in chunks:
                    batch.append(chunk)
                    size += len(chunk)
                    if size >= _BATCH or self._someone_waits:
                        taken, batch, size = batch, [], 0
                        await self._take(taken)
                        with trio.move_on_after(_IDLE) as scope:
                            await self._room()
                        if scope.cancelled_caught:
                            return
            finally:  # also what came before it was broken off
                await self._take(batch)

    async def _take(self, batch: Sequence[bytes | memoryview]) -> None:
        size = sum(map(len, batch))
        if not size:
            return
        if self._high + size > self._descriptor.size:
            raise DigestMismatch(
                f"{self._descriptor.digest} is longer than the {self._descriptor.size} bytes that its descriptor says"
            )

        hashed, begin = self._hash.copy(), self._high
        self._hashed_to = begin + size
        places = sorted(offset for offset in self._marks if begin < offset <= begin + size)
        if size < 64 * 1024:
            found = _hash_all(hashed, begin, batch, places)
        else:
            with trio.CancelScope(shield=True):
                found = await trio.to_thread.run_sync(_hash_all, hashed, begin, batch, places)
        for mark in found:
            if self._marks[mark.offset] != mark.hex:
                raise DigestMismatch(
                    f"the first {mark.offset} bytes of {self._descriptor.digest} are others than those that came before"
                )
        self._hash = hashed
        self._chunks.extend(batch)
        self._high += size
        self._progress()
        self._shrink()
        self._wake()

    @property
    def _someone_waits(self) -> bool:
        return bool(self._waiting)

    def _shrink(self) -> None:
        """Drop what is over the window, and what no reader that has not rested for long still wants."""
        while self._chunks and self._high - self._low > WINDOW:
            self._low += len(self._chunks.popleft())

    async def _room(self) -> None:
        """Wait until somebody wants more, and nobody who is slow would lose what he still wants."""
        while True:
            now = trio.current_time()
            waiting, resting = self._waiting.values(), self._resting.values()
            wanted = max((wish.end for wish in (*waiting, *resting)), default=0)
            near = (wish.start for wish in resting if now - wish.said < _LAGGARD)
            slowest = min((*near, *(wish.start for wish in waiting)), default=self._high)
            is_near = self._high < wanted + _AHEAD
            if is_near and self._high - max(slowest, self._low) < SURE:
                return
            patience = _LAGGARD if is_near else float("inf")
            with trio.move_on_after(patience):
                await self._changed.wait()


def _hash_all(
    hashed: _Hash, at: int, batch: Sequence[bytes | memoryview], places: Sequence[int]
) -> list[Mark]:
    """Hash what begins at offset ``at``; what all hashes to at each of ``places``, which are in order."""
    marks, ahead = [], deque(places)
    for chunk in batch:
        view = memoryview(chunk)
        while ahead and ahead[0] <= at + len(view):
            part = ahead[0] - at
            hashed.update(view[:part])
            view, at = view[part:], ahead.popleft()
            marks.append(Mark(at, hashed.hexdigest()))
        hashed.update(view)
        at += len(view)
    return marks
