"""The bytes of a blob that came last, in memory: who reads close behind need not wait for the disk."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

_KEPT: Final = 4 * 1024 * 1024


class Recent:
    """A stretch that ends where the transfer is. State changes on the loop alone.

    ``awaited``: its beginning is worth waiting for, before anything has come.
    """

    def __init__(self, *, awaited: bool = True) -> None:
        self._is_awaited = awaited
        self._chunks: deque[bytes] = deque()
        self._low = self._high = 0
        self._changed = trio.Event()

    @property
    def end(self) -> int:
        """The offset behind the last that came."""
        return self._high

    def begin(self, offset: int) -> None:
        """A transfer begins at ``offset``."""
        self._is_awaited = True
        if offset != self._high:
            self._chunks.clear()
            self._low = self._high = offset

    def add(self, chunk: bytes) -> None:
        """Those came next."""
        self._chunks.append(chunk)
        self._high += len(chunk)
        while self._high - self._low > _KEPT and len(self._chunks) > 1:
            self._low += len(self._chunks.popleft())
        self.wake()

    def wake(self) -> None:
        """Let those who wait look again."""
        self._changed.set()
        self._changed = trio.Event()

    async def change(self) -> None:
        """Wait until something came, or ended."""
        await self._changed.wait()

    def is_next(self, start: int) -> bool:
        """Whether the bytes from ``start`` on are here, or the next to come."""
        return self._is_awaited and self._low <= start <= self._high

    def cut(self, start: int, end: int) -> bytes | None:
        """Those bytes, if all are here."""
        if start < self._low or end > self._high:
            return None
        parts, at = [], self._low
        for chunk in self._chunks:
            if at >= end:
                break
            if at <= start and end <= at + len(chunk):
                return chunk[start - at : end - at]
            if at + len(chunk) > start:
                parts.append(memoryview(chunk)[max(0, start - at) : end - at])
            at += len(chunk)
        return b"".join(parts)
