"""A reader of HTTP/1.1 messages that pass by: it sees start lines and where bodies end, and keeps nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_MAX_HEAD: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a message: its start line's three parts, and the headers that say how long the body is."""

    first: str
    second: str
    third: str
    length: int | None
    chunked: bool


class MessageReader:
    """Finds the messages in one direction of a connection.

    A request without a length has no body. ``bodiless`` makes it a reader of replies: it is asked at each whether it
    answers a HEAD. A reply without a length lasts as long as the connection.
    """

    def __init__(self, bodiless: Callable[[], bool] | None = None) -> None:
        self._replies = bodiless is not None
        self._bodiless = bodiless or bool
        self._held = b""
        self._skip = 0
        self._chunks = False
        self._blind = False

    def feed(self, data: bytes) -> Iterator[Head]:
        """The heads that end in ``data``, one after another as the caller takes them."""
        self._held += data
        while not self._blind:
            if not self._skip_body():
                return
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                self._blind = len(self._held) > _MAX_HEAD
                return
            head = _parse(self._held[:end])
            self._held = self._held[end + 4 :]
            if head is None:
                self._blind = True
                return
            self._expect_body(head)
            yield head
        self._held = b""

    def _expect_body(self, head: Head) -> None:
        if self._replies and (
            self._bodiless() or head.second in ("204", "304") or head.second.startswith("1")
        ):
            return
        self._chunks = head.chunked
        self._skip = 0 if head.chunked else head.length or 0
        self._blind = self._replies and not head.chunked and head.length is None

    def _skip_body(self) -> bool:
        """Pass over what is left of a body; False where more of it has to come."""
        while self._skip or self._chunks:
            taken = min(self._skip, len(self._held))
            self._held, self._skip = self._held[taken:], self._skip - taken
            if self._skip or (self._chunks and not self._next_chunk()):
                return False
        return True

    def _next_chunk(self) -> bool:
        line, separator, rest = self._held.partition(b"\r\n")
        if not separator:
            return False
        size = int(line.partition(b";")[0], 16)
        self._held, self._skip, self._chunks = rest, size + 2, size > 0
        return True


def _parse(head: bytes) -> Head | None:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or "HTTP/" not in first:
        return None
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    length = headers.get("content-length", "")
    return Head(
        parts[0],
        parts[1],
        parts[2] if len(parts) > 2 else "",
        int(length) if length.isdigit() else None,
        headers.get("transfer-encoding", "").lower() == "chunked",
    )
