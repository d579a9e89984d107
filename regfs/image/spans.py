"""What the pass over a layer leaves behind for reading in the middle of it: where decoding can start."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final

import msgspec

from regfs.image.codecs import START, Checkpoint, Codec
from regfs.image.columns import from_little, little
from regfs.image.zstdlib import zstd

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
    """`Spans` as they are stored: columns of little-endian integers; windows are compressed."""

    codec: int
    outs: bytes
    ats: bytes
    bits: bytes
    windows: list[memoryview]
    end: int


class Spans:
    """A layer's checkpoints in order, the first at its start. One thread may add while others look up."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._outs = array("q")
        self._ats = array("q")
        self._bits = bytearray()
        self._windows: list[bytes | memoryview] = []
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

    def span(self, number: int) -> Span:
        """The one with that number."""
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
        return StoredSpans(
            self.codec,
            little(self._outs),
            little(self._ats),
            bytes(self._bits),
            [memoryview(window) for window in self._windows],
            self._end,
        )

    @classmethod
    def of(cls, stored: StoredSpans) -> Spans:
        """What was stored. ValueError where its parts don't belong together."""
        spans = cls(Codec(stored.codec))
        spans._outs, spans._ats = from_little("q", stored.outs), from_little("q", stored.ats)
        spans._bits, spans._windows = bytearray(stored.bits), list(stored.windows)
        spans._end = stored.end
        count = len(spans._outs)
        lengths = {len(spans._ats), len(spans._bits), len(spans._windows)}
        if lengths != {count} or not count:
            raise ValueError("columns of several lengths")
        if any(list(column) != sorted(column) for column in (spans._outs, spans._ats)) or spans._outs[0]:
            raise ValueError("checkpoints that go back")
        if spans._end < spans._ats[-1] or max(spans._bits) > 7:
            raise ValueError("a checkpoint that can't be")
        return spans
