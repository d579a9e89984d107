"""Which bytes of a content one reader has read, so that who read all of them is told whether they were right."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

_MOST: Final = 4096
"""Separate stretches that are remembered: a reader of more than that reads here and there, not the whole."""


class Seen:
    """Stretches of a content of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._stretches: list[tuple[int, int]] = []

    @property
    def prefix(self) -> int:
        """How many bytes were read from the first one on without a gap."""
        return self._stretches[0][1] if self._stretches and self._stretches[0][0] == 0 else 0

    def add(self, start: int, end: int) -> None:
        """Those were read."""
        stretches = self._stretches
        low = high = bisect_left(stretches, (start, start))
        if low and stretches[low - 1][1] >= start:
            low -= 1
        while high < len(stretches) and stretches[high][0] <= end:
            high += 1
        if low < high:
            start, end = min(start, stretches[low][0]), max(end, stretches[high - 1][1])
        stretches[low:high] = [(start, end)]
        del stretches[_MOST:]

    def completes(self, start: int, end: int) -> bool:
        """Whether nothing is missing any more once those are read too."""
        if start > self.prefix:
            return False
        if end >= self._size:
            return True
        return (
            bool(self._stretches) and self._stretches[-1][0] <= end and self._stretches[-1][1] >= self._size
        )
