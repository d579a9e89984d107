"""What the pass over a layer leaves behind for reading in the middle of it: where decoding can start."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from typing import Final

import msgspec

from regfs.digest import Digest
from regfs.image import windows
from regfs.image.codecs import START, Checkpoint, Codec
from regfs.image.columns import from_little, little
from regfs.image.zstdlib import zstd
from regfs.ports import Blobs

_NO_WINDOW: Final = b""


class Span(msgspec.Struct, frozen=True, gc=False):
    """Decoding that begins at ``start`` needs the layer's bytes up to ``end`` to give the archive's up to ``out_end``.

    None: it is the last one, and goes on to the end, as far as is known.
    """

    number: int
    start: Checkpoint
    end: int | None
    out_end: int | None


class StoredSpans(msgspec.Struct, array_like=True):
    """`Spans` as they are stored: columns of little-endian integers; windows are compressed.

    ``groups``: SHA-256 of each group of windows, where these are kept apart; ``windows`` is empty then.
    """

    codec: int
    outs: bytes
    ats: bytes
    bits: bytes
    windows: list[memoryview]
    groups: list[bytes]
    end: int


class Spans:
    """A layer's checkpoints in order, the first at its start. One thread may add while others look up.

    Windows that are kept apart are `fetch`ed when they are needed.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._outs = array("q")
        self._ats = array("q")
        self._bits = bytearray()
        self._windows: list[windows.Window | None] = []
        self._groups: list[bytes] = []
        self._end: int | None = None
        self.add(START)

    def __len__(self) -> int:
        return len(self._outs)

    def add(self, checkpoint: Checkpoint) -> None:
        """One more, behind the others."""
        window = checkpoint.window
        self._windows.append(_NO_WINDOW if window is None else zstd.compress(window, 1))
        self._bits.append(checkpoint.bits)
        self._ats.append(checkpoint.at)
        self._outs.append(checkpoint.out)  # last of all: until then nobody finds it

    def finish(self, end: int) -> None:
        """The last span ends at the layer's byte ``end``."""
        self._end = end

    def find(self, out: int) -> Span:
        """The span that holds the archive's byte ``out``."""
        return self.span(bisect_right(self._outs, out) - 1)

    def starts_before(self, out: int, limit: int) -> bool:
        """Whether the span that holds the archive's byte ``out`` starts before its byte ``limit``."""
        return self._outs[bisect_right(self._outs, out) - 1] < limit

    # ── windows ──

    @property
    def lacking(self) -> list[int]:
        """The groups of windows that were not fetched yet."""
        starts = range(0, windows.GROUP * len(self._groups), windows.GROUP)
        return [group for group, at in enumerate(starts) if None in self._windows[at : at + windows.GROUP]]

    def groups(self) -> list[bytes]:
        """The groups of windows that are to be kept apart."""
        return windows.grouped(self._all())

    def _all(self) -> list[windows.Window]:
        return [window for window in self._windows if window is not None]

    async def fetch(self, blobs: Blobs, digest: Digest, group: int) -> bool:
        """Have a group's windows. False: it was not kept, or is not what it was."""
        kept = await windows.kept(blobs, digest, group)
        first = group * windows.GROUP
        count = min(windows.GROUP, len(self) - first)
        found = None if kept is None else windows.opened(kept, self._groups[group], count)
        if found is not None:
            self._windows[first : first + count] = found
        return found is not None

    async def startable(self, out: int, blobs: Blobs, digest: Digest) -> Span:
        """The span that holds the archive's byte ``out``; or one before it, where its window can't be had."""
        number = bisect_right(self._outs, out) - 1
        if self._windows[number] is None:
            await self.fetch(blobs, digest, number // windows.GROUP)
        while self._windows[number] is None:
            number -= 1
        return self.span(number)

    # ── one by one ──

    def span(self, number: int) -> Span:
        """The one with that number. Decoding can start there only if its window is there."""
        window = self._windows[number]
        start = Checkpoint(
            self._outs[number],
            self._ats[number],
            self._bits[number],
            zstd.decompress(window) if window else None,
        )
        following = number + 1
        is_last = following >= len(self._outs)
        return Span(
            number,
            start,
            self._end if is_last else self._ats[following],
            None if is_last else self._outs[following],
        )

    def stored(self) -> StoredSpans:
        """All of it, to be stored, once it is finished."""
        assert self._end is not None
        assert not self.lacking, "nobody stores what was stored"
        groups = [hashlib.sha256(group).digest() for group in self.groups()]
        return StoredSpans(
            self.codec,
            little(self._outs),
            little(self._ats),
            bytes(self._bits),
            [] if groups else [memoryview(window) for window in self._all()],
            groups,
            self._end,
        )

    @classmethod
    def of(cls, stored: StoredSpans) -> Spans:
        """What was stored. ValueError where its parts don't belong together."""
        spans = cls(Codec(stored.codec))
        spans._outs, spans._ats = from_little("q", stored.outs), from_little("q", stored.ats)
        count = len(spans._outs)
        spans._bits, spans._groups = bytearray(stored.bits), stored.groups
        spans._windows = [_NO_WINDOW, *[None] * (count - 1)] if stored.groups else list(stored.windows)
        spans._end = stored.end
        lengths = {len(spans._ats), len(spans._bits), len(spans._windows)}
        if lengths != {count} or not count:
            raise ValueError("columns of several lengths")
        if any(list(column) != sorted(column) for column in (spans._outs, spans._ats)) or spans._outs[0]:
            raise ValueError("checkpoints that go back")
        if stored.groups and len(stored.groups) != -(-count // windows.GROUP):
            raise ValueError("groups of windows that are too few or too many")
        if spans._end < spans._ats[-1] or max(spans._bits) > 7:
            raise ValueError("a checkpoint that can't be")
        return spans
