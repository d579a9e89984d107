"""Reading from bytes that arrive piece by piece, written as if they were all there."""

from __future__ import annotations

from collections.abc import Generator

Walk = Generator[None, None, None]
"""Code that is run on with each piece that arrives, and waits at each `yield`."""


class Feed:
    """A place in bytes that arrive. ``offset`` is where it is; no more is held than the piece that came last."""

    def __init__(self) -> None:
        self._piece = b""
        self._at = 0
        self._base = 0

    @property
    def offset(self) -> int:
        """How far into the bytes it is; that may be ahead of what has arrived."""
        return self._base + self._at

    def put(self, piece: bytes) -> bool:
        """The next bytes, once the ones before were passed. False: the place is behind them still."""
        self._base += len(self._piece)
        self._at -= len(self._piece)
        self._piece = piece
        return self._at <= len(piece)

    def exactly(self, length: int) -> Generator[None, None, bytes]:
        """The next bytes, that many."""
        end = self._at + length
        if end <= len(self._piece):
            found = self._piece[self._at : end]
            self._at = end
            return found
        parts = []
        while True:
            part = self._piece[self._at : self._at + length]
            self._at += len(part)
            length -= len(part)
            parts.append(part)
            if not length:
                return b"".join(parts)
            yield

    def past(self, length: int) -> Walk:
        """Go on by that many bytes, once all of them have arrived."""
        self._at += length
        while self._at > len(self._piece):
            yield

    def to_multiple(self, block: int) -> Walk:
        """Go on to a multiple of ``block``, once it has arrived."""
        yield from self.past(-self.offset % block)

    def reached(self) -> Walk:
        """Wait until the next byte has arrived."""
        while self._at >= len(self._piece):
            yield
