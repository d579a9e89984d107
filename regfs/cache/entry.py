"""What is in the cache, opened: verified content, and what was derived from one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from regfs.cache.folder import is_at, open_to_read
from regfs.cache.threads import in_thread, read_at
from regfs.digest import Digest

logger = logging.getLogger(__name__)

PIECE: Final = 1024 * 1024
"""How much is read and hashed at a time, in bytes."""

_TOUCH_AFTER: Final = 60.0
_FIRST_STAMP: Final = 1_000_000_000


class Entry:
    """An open file of the cache: its bytes stay readable, and are not removed to make room, until it is closed."""

    verified = True

    def __init__(self, descriptor: int, path: Path, offset: int = 0) -> None:
        self._descriptor = descriptor
        self._path = path
        self._offset = offset
        found = os.fstat(descriptor)
        self._state = (found.st_size, found.st_mtime_ns)
        self.size = found.st_size - offset

    @property
    def descriptor(self) -> int | None:
        """See `regfs.ports.OpenContent.descriptor`."""
        return None if self._offset or self._descriptor < 0 else self._descriptor

    async def read(self, start: int, length: int) -> bytes | None:
        """``length`` bytes from offset ``start``, fewer only at the end; None once it was found damaged."""
        length = max(0, min(length, self.size - start))
        try:
            data = await read_at(self._descriptor, self._offset + start, length)
            if len(data) == length and self._is_as_it_was():
                return data
        except OSError as error:
            logger.warning("cache: %s cannot be read: %s", self._path, error.strerror)
        await in_thread(remove_damaged, self._descriptor, self._path)
        return None

    async def aclose(self) -> None:
        """Let go of it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # In a thread: the last one that closes a removed file of many GiB frees it.
            with trio.CancelScope(shield=True):
                await in_thread(os.close, descriptor)

    def _is_as_it_was(self) -> bool:
        found = os.fstat(self._descriptor)
        return (found.st_size, found.st_mtime_ns) == self._state


def stamp(digest: Digest) -> int:
    """The modification time of a verified content, in whole seconds since 1970: made from its digest.

    Whatever changes the bytes changes the time too, so that a look at it tells damage without reading them, and no
    record of it can be lost. Even, since some file systems keep only every second one.
    """
    return _FIRST_STAMP + 2 * int(digest.hex[:7], 16)


def set_stamp(descriptor: int, digest: Digest) -> None:
    """Mark an open file as verified content, used now. Raises OSError."""
    os.utime(descriptor, ns=(time.time_ns(), stamp(digest) * 1_000_000_000))


def open_content(path: Path, digest: Digest) -> int | None:
    """Open verified content; None where there is none. What was changed since it was verified is removed. Raises OSError."""
    descriptor = open_to_read(path)
    if descriptor is None:
        return None
    if int(os.fstat(descriptor).st_mtime) == stamp(digest):
        touch(descriptor)
        return descriptor
    remove_damaged(descriptor, path)
    os.close(descriptor)
    return None


def touch(descriptor: int) -> None:
    """Note that a file is used now, at most once a minute. A disk that takes no writes keeps no such note."""
    found, now = os.fstat(descriptor), time.time()
    # Also where it lies ahead: the clock was wrong once, and it would never be removed.
    if not found.st_atime <= now < found.st_atime + _TOUCH_AFTER:
        with suppress(OSError):
            os.utime(descriptor, ns=(int(now * 1e9), found.st_mtime_ns))


def remove_damaged(descriptor: int, path: Path) -> None:
    """Take the name from a file that holds what it should not. Whoever has it open finds that out as we did."""
    if is_at(descriptor, path):
        logger.warning("cache: %s was changed or damaged, and is removed", path)
        with suppress(OSError):
            path.unlink()


def pieces(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from ``start`` to ``end`` in pieces; they end early where the file does. Raises OSError."""
    while start < end and (piece := os.pread(descriptor, min(PIECE, end - start), start)):
        yield piece
        start += len(piece)
