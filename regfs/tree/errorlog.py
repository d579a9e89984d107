"""``.regfs/errors``: the last failures of a mount, each with what to do about it."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from regfs.tree.bounded import keep

KEEP_LINES: Final = 200
TOLD_FOR: Final = 60.0
"""Seconds for which a state that lasts is not told again."""

_KEEP_OPEN: Final = 1024 * 1024


class ErrorLog:
    """Lines as a file that grows. Nothing is cut off at its front while someone has it open, so `tail -f` works."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._open = 0
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def add_state(self, where: str, what: str, time: float) -> None:
        """Add a line on what is so for a while, unless it was told a moment ago: failures must not be pushed out by it."""
        told = self._told.get((where, what))
        if told is None or not 0 <= time - told < TOLD_FOR:
            keep(self._told, (where, what), time, KEEP_LINES)
            self.add(where, what, time)

    def add(self, where: str, what: str, time: float) -> None:
        """Add a line. ``time`` in seconds since 1970."""
        stamp = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = " ".join(f"{where}: {what}".split())
        self._data += f"{stamp} {_printable(text)}\n".encode()
        if self._open == 0 or len(self._data) > _KEEP_OPEN:
            self._trim()

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data)

    def lines(self) -> list[str]:
        """The last lines, the oldest first."""
        return self._data.decode().splitlines()[-KEEP_LINES:]

    def open(self) -> None:
        """Someone reads it: `close` must follow."""
        self._open += 1

    def read(self, offset: int, size: int) -> bytes:
        """Bytes as they are now: a reader that comes back finds what has been added."""
        return bytes(self._data[offset : offset + size])

    def close(self) -> None:
        """A reader has gone."""
        self._open -= 1
        if self._open == 0:
            self._trim()

    def _trim(self) -> None:
        lines = self._data.splitlines(keepends=True)
        if len(lines) > KEEP_LINES:
            self._data = bytearray(b"".join(lines[-KEEP_LINES:]))


def _printable(text: str) -> str:
    """Registries' words may hold anything: a terminal must not obey them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:2000]
