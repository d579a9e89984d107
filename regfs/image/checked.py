"""A layer's bytes, known to be right before anything is made of them.

An ordinary layer can be verified only whole. In the pass that reads it whole each stretch of it is hashed by itself;
once the whole was verified these hashes are as good as its digest, for ranges that are fetched later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import trio

from regfs.errors import DigestMismatch
from regfs.ports import ContentReader

CHUNK: Final = 256 * 1024
"""Bytes that are hashed together. A range that is fetched is up to one longer at either end."""

HASH: Final = 32
"""Bytes of a SHA-256."""


class ChunkHasher:
    """Hashes each `CHUNK` of what passes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._room = CHUNK
        self._hashes = bytearray()

    def update(self, data: bytes) -> None:
        """The next bytes."""
        view = memoryview(data)
        while view:
            part = view[: self._room]
            self._hash.update(part)
            self._room -= len(part)
            view = view[len(part) :]
            if not self._room:
                self._end_chunk()

    def finish(self) -> bytes:
        """The hashes of all chunks, one behind the other."""
        if self._room < CHUNK:
            self._end_chunk()
        return bytes(self._hashes)

    def _end_chunk(self) -> None:
        self._hashes += self._hash.digest()
        self._hash = hashlib.sha256()
        self._room = CHUNK


def widened(start: int, end: int, size: int) -> tuple[int, int]:
    """The range of whole chunks around a range."""
    return start - start % CHUNK, min(size, -(-end // CHUNK) * CHUNK)


def wrong_chunks(hashes: bytes, start: int, data: bytes) -> Iterator[int]:
    """The offsets of chunks in ``data``, which begins with one at ``start``, that are not what they were."""
    for at in range(0, len(data), CHUNK):
        number = (start + at) // CHUNK
        found = hashlib.sha256(memoryview(data)[at : at + CHUNK]).digest()
        if found != hashes[number * HASH : (number + 1) * HASH]:
            yield start + at


async def read_checked(
    reader: ContentReader, hashes: bytes, start: int, end: int, what: str, limiter: trio.CapacityLimiter
) -> tuple[int, bytes]:
    """Bytes ``start`` to ``end`` at least, in one read, with the offset of the first. Raises DigestMismatch, and what reading raises.

    They are verified also where the reader says that they were: a disk may have lost them since. While ``hashes`` is
    empty, nobody but the reader vouches for them.
    """
    if not hashes:
        return start, await reader.read(start, end - start)
    first, last = widened(start, end, reader.size)
    data = await reader.read(first, last - first)
    wrong = await trio.to_thread.run_sync(
        lambda: len(data) != last - first or any(wrong_chunks(hashes, first, data)), limiter=limiter
    )
    if wrong:
        raise DigestMismatch(
            f"{what}: bytes {first} to {last} are not those that its digest was verified with"
        )
    return first, data
