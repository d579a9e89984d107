"""Whether code asks anything of the world: connections, name look-ups and programs, seen by Python's own audit events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_ASKS: Final = frozenset(
    {"socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.posix_spawn"}
)
_watching: list[list[str]] = []
_hooked = False


@contextmanager
def watched() -> Iterator[list[str]]:
    """The list of what is asked within the block, by whatever thread: the names of audit events."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # which cannot be taken away again
        _hooked = True
    seen: list[str] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching[:] = [other for other in _watching if other is not seen]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:  # noqa: ARG001  what was asked may be a secret
    if event in _ASKS:
        for seen in _watching:
            seen.append(event)
