"""A registry of one blob that can be slow, cut off, wrong, stuck, or ignorant of ranges."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar, cast

import trio

from regfs.digest import Digest
from regfs.errors import ConnectionFailed, RegfsError
from regfs.manifest import Descriptor
from regfs.ports import Answer, HonoursRanges

C = TypeVar("C")
KB = 1024
MB = 1024 * KB


def content(number: int, size: int) -> bytes:
    """Bytes that are the same each time for one number."""
    return random.Random(number).randbytes(size)


@dataclass
class BlobSource:
    """What `regfs.ports.Source` needs for blobs. ``asked`` holds the ranges that were asked for, ``sent`` counts bytes."""

    data: bytes
    size: int | None = None
    """What the descriptor says, where that is not the truth."""
    digest: Digest | None = None
    name: str = "blobs.test"
    chunk: int = 64 * KB
    pause: float = 0.0
    ranges: bool = True
    cut_every: int | None = None
    """After how many bytes each transfer is broken off."""
    errors: dict[str, RegfsError] = field(default_factory=dict)
    """What a repository answers instead."""
    stop_at: int | None = None
    """Before which byte everything stands still until `go_on`."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    sent: int = 0
    open: int = 0
    max_open: int = 0
    was_asked: trio.Event = field(default_factory=trio.Event)
    closed: trio.Event = field(default_factory=trio.Event)
    """Set with the end of a transfer."""
    go_on: trio.Event = field(default_factory=trio.Event)
    _saw_range: bool = False

    @property
    def descriptor(self) -> Descriptor:
        """The blob's."""
        size = len(self.data) if self.size is None else self.size
        kind = "application/vnd.oci.image.layer.v1.tar"
        return Descriptor(kind, self.digest or Digest.of(self.data), size)

    def honours_ranges(self) -> Answer:
        """See `HonoursRanges`."""
        if not self._saw_range:
            return Answer.UNKNOWN
        return Answer.YES if self.ranges else Answer.NO

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """It says whether it honours ranges."""
        return cast("C", self) if kind is HonoursRanges else None

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `regfs.ports.Source.blob`."""
        stop = descriptor.size if end is None else end
        assert 0 <= start <= stop <= descriptor.size
        self.asked.append((start, stop))
        pause = self.pause
        self.was_asked.set()
        self._saw_range = self._saw_range or (start, stop) != (0, descriptor.size)
        self.open += 1
        self.max_open = max(self.max_open, self.open)
        try:
            await trio.sleep(pause)
            if repository in self.errors:
                raise self.errors[repository]
            yield self._chunks(start, min(stop, len(self.data)))
        finally:
            self.open -= 1
            self.closed.set()

    async def _chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        first = start if self.ranges else 0
        for at in range(first, stop, self.chunk):
            if self.stop_at is not None and at + self.chunk > self.stop_at:
                await self.go_on.wait()
            await trio.sleep(self.pause)
            if self.cut_every is not None and at - first >= self.cut_every:
                raise ConnectionFailed("the connection was lost")
            piece = self.data[at : min(at + self.chunk, stop)]
            self.sent += len(piece)
            if at + len(piece) > start:
                yield piece[max(0, start - at) :]
