"""Manifests and configs in memory, the least recently used dropped first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from regfs.digest import Digest

DEFAULT_CAPACITY: Final = 32 * 1024 * 1024


class MemoryStore:
    """A ContentStore of at most ``capacity`` bytes. State changes without an await, so it needs no lock."""

    _OVERHEAD: Final = (
        400  # an entry's digest, table slot and object headers: a million of ten bytes are not ten megabytes
    )

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._contents: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """What is held, in bytes, its bookkeeping included."""
        return self._size

    async def get(self, digest: Digest) -> bytes | None:
        """The whole content, or None."""
        data = self._contents.get(digest)
        if data is not None:
            self._contents.move_to_end(digest)
        return data

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep it, in place of what was not used for longest. What would push out most of the rest is not kept."""
        if self._cost(data) > self._capacity // 2:
            return
        self._forget(digest)
        self._contents[digest] = data
        self._size += self._cost(data)
        while self._size > self._capacity:
            self._forget(next(iter(self._contents)))

    def _forget(self, digest: Digest) -> None:
        data = self._contents.pop(digest, None)
        if data is not None:
            self._size -= self._cost(data)

    def _cost(self, data: bytes) -> int:
        return len(data) + self._OVERHEAD
