"""A blob that no store keeps: it passes once, from its first byte to its last, and whoever reads takes it as it passes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from regfs.errors import ConnectionFailed, DeadlineExceeded, DigestMismatch
from regfs.manifest import Descriptor
from regfs.ports import Fetch

WINDOW: Final = 8 * 1024 * 1024
"""Bytes that are kept for readers that are slower than others."""

_AHEAD: Final = 2 * 1024 * 1024
_BATCH: Final = 1024 * 1024
_LAGGARD: Final = 5.0
"""Seconds that a reader may rest before it no longer holds up the others."""
_IDLE: Final = 5.0
"""Seconds that a connection is held for readers that rest."""
_FRUITLESS: Final = 3


@dataclass
class _Wish:
    """What a reader wants: the bytes from ``start`` to ``end``, said at the moment ``said``; ``waits`` until they are there."""

    start: int
    end: int
    said: float
    waits: bool = True


class Passing:
    """One passage of a blob, hashed. It goes little further than is wanted, and waits for slow readers, within reason.

    `run` does it, for as long as there are readers. State changes on the loop alone, never across an await.
    """

    def __init__(self, descriptor: Descriptor, progress: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._progress = progress
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._chunks: deque[bytes] = deque()
        self._low = self._high = 0
        self._wishes: dict[object, _Wish] = {}
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

    # ── reading ──

    async def read(self, reader: object, start: int, end: int, *, verdict: bool) -> bytes | None:
        """The bytes, once they have come; None where they have gone. ``verdict``: only with the word that all are right.

        Raises what ended the passage, and DigestMismatch.
        """
        wish = self._wishes[reader] = _Wish(start, end, trio.current_time())
        self._wake()
        while start >= self._low:
            if isinstance(self.error, DigestMismatch):
                break
            if self._high >= end and (not verdict or self.is_whole):
                wish.start, wish.waits, wish.said = end, False, trio.current_time()
                return self._cut(start, end)
            if self.has_ended:
                break
            await self._changed.wait()
        wish.waits = False
        if self.error is not None:
            raise self.error.with_traceback(None)
        return None

    def leave(self, reader: object) -> None:
        """That reader wants no more; with the last one the passage ends."""
        self._wishes.pop(reader, None)
        self._wake()
        if not self._wishes:
            self._scope.cancel()

    def _cut(self, start: int, end: int) -> bytes:
        at, parts = self._low, []
        for chunk in self._chunks:
            if at >= end:
                break
            if at + len(chunk) > start:
                parts.append(chunk[max(0, start - at) : end - at])
            at += len(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

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

    async def _take(self, batch: Sequence[bytes]) -> None:
        size = sum(map(len, batch))
        if not size:
            return
        if self._high + size > self._descriptor.size:
            raise DigestMismatch(
                f"{self._descriptor.digest} is longer than the {self._descriptor.size} bytes that its descriptor says"
            )

        def hash_all() -> None:
            for chunk in batch:
                self._hash.update(chunk)

        if size < 64 * 1024:
            hash_all()
        else:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(hash_all)
        self._chunks.extend(batch)
        self._high += size
        self._progress()
        self._shrink()
        self._wake()

    @property
    def _someone_waits(self) -> bool:
        return any(wish.waits for wish in self._wishes.values())

    def _shrink(self) -> None:
        """Drop what is over the window, and what no reader that has not rested for long still wants."""
        while self._chunks and self._high - self._low > WINDOW:
            self._low += len(self._chunks.popleft())

    async def _room(self) -> None:
        """Wait until somebody wants more, and nobody who is slow would lose what he still wants."""
        while True:
            now = trio.current_time()
            wanted = max((wish.end for wish in self._wishes.values()), default=0)
            slowest = min(
                (wish.start for wish in self._wishes.values() if now - wish.said < _LAGGARD or wish.waits),
                default=self._high,
            )
            is_near = self._high < wanted + _AHEAD
            if is_near and self._high - max(slowest, self._low) < WINDOW - 2 * _BATCH:
                return
            patience = _LAGGARD if is_near else float("inf")
            with trio.move_on_after(patience):
                await self._changed.wait()
