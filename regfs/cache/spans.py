"""Which parts of a content are there, as half-open ranges of offsets."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Spans:
    """A set of offsets, kept as ranges that neither overlap nor touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def add(self, start: int, end: int) -> None:
        """Put in ``start`` to ``end`` (exclusive)."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Take out ``start`` to ``end`` (exclusive)."""
        if start >= end:
            return
        kept = [span for span in self if span[1] <= start or span[0] >= end]
        for low, high in self:
            if low < end and high > start:
                kept += [span for span in ((low, start), (end, high)) if span[0] < span[1]]
        kept.sort()
        self._starts = [low for low, _ in kept]
        self._ends = [high for _, high in kept]

    def end_of(self, offset: int) -> int:
        """Up to where all is there from ``offset`` on: ``offset`` itself where it is not."""
        index = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[index]) if index >= 0 else offset

    def covers(self, start: int, end: int) -> bool:
        """Whether all from ``start`` to ``end`` is there."""
        return start >= end or self.end_of(start) >= end
