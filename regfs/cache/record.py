"""What of a download was received, and with which hash: a log beside it, so that a later process can go on.

Bytes on a disk may be others than those that were written, after a power cut above all. So a line says how far the
download was and what all up to there hashes to, and what does not hash to that any more is fetched again.

The first line is for other processes that read along: who writes, how far he is, and whether he goes on. It is written
over and over again, and has one length.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

_LINE: Final = re.compile(r"(head|span|proven) (\d{1,19}) (\d{1,19}) ([0-9a-f]{64}|[0-9a-f]{128})")
_MAX_LOG: Final = 16 * 1024 * 1024
LONGEST_LINE: Final = 192
_TOLD: Final = re.compile(rb"told ([0-9a-f]{16}) (\d{19}) (opening|filling|resting)\n")
TOLD_LENGTH: Final = 50
_BEGINS: Final = b"told "


class Doing(Enum):
    """What the one who writes is about: ``OPENING`` is what he was not yet asked to fetch."""

    OPENING = "opening"
    FILLING = "filling"
    RESTING = "resting"


@dataclass(frozen=True, slots=True)
class Told:
    """What the one who writes tells others: who he is, up to where all is there, and what he does."""

    writer: str
    head: int
    doing: Doing

    def __bytes__(self) -> bytes:
        return f"told {self.writer} {self.head:019d} {self.doing.value}\n".encode()


@dataclass(frozen=True, slots=True)
class Received:
    """One line: ``start`` to ``end`` hashes to ``hex``. ``kind``: ``head`` begins at 0; ``proven`` was verified, ``span`` not."""

    kind: str
    start: int
    end: int
    hex: str

    def __str__(self) -> str:
        return f"{self.kind} {self.start} {self.end} {self.hex}\n"


def parse(text: str, size: int) -> list[Received]:
    """The lines of a log that can be true of a content of ``size`` bytes. A line that was cut short is no line."""
    matches = map(_LINE.fullmatch, text.split("\n")[:-1])
    found = [Received(m[1], int(m[2]), int(m[3]), m[4]) for m in matches if m is not None]
    return [
        line for line in found if line.start < line.end <= size and (line.kind != "head" or line.start == 0)
    ]


class Log:
    """The log of one download. That it can't be written costs only a later resumption."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tell(self, told: Told) -> None:
        """Say it in the first line. Nothing where that is another's: a log that an older version began."""
        with suppress(OSError):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.pread(descriptor, len(_BEGINS), 0) in (_BEGINS, b""):
                    os.pwrite(descriptor, bytes(told), 0)
            finally:
                os.close(descriptor)

    def told(self) -> Told | None:
        """What the one who writes says; None where he says nothing."""
        with suppress(OSError), self.path.open("rb", buffering=0) as file:
            match = _TOLD.fullmatch(file.read(TOLD_LENGTH))
            if match is not None:
                return Told(match[1].decode(), int(match[2]), Doing(match[3].decode()))
        return None

    def is_fresh(self, seconds: float) -> bool:
        """Whether it was written to in the last ``seconds``, as far as the machine's clock tells."""
        with suppress(OSError):
            return abs(time.time() - self.path.stat().st_mtime) < seconds
        return False

    def read(self, size: int) -> list[Received]:
        """What it says of a content of ``size`` bytes."""
        try:
            with self.path.open("rb") as file:
                return parse(file.read(_MAX_LOG).decode(errors="replace"), size)
        except OSError:
            return []

    def add(self, line: Received) -> None:
        """Append a line, whole or not at all."""
        with suppress(OSError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, str(line).encode())
            finally:
                os.close(descriptor)

    def rewrite(self, told: Told, lines: list[Received]) -> None:
        """Put these in place of all lines."""
        with suppress(OSError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, 0)  # a line that is cut short is no line
                os.pwrite(descriptor, b"".join([bytes(told), *(str(line).encode() for line in lines)]), 0)
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Forget everything."""
        with suppress(OSError):
            self.path.unlink()

    def allocated(self) -> int:
        """What it takes on disk, in bytes."""
        try:
            return self.path.stat().st_blocks * 512
        except OSError:
            return 0
