"""A file that is written from its beginning to its end, and then bears its name at once or never."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regfs.cache.folder import Folder, closing, settle, write_all
from regfs.cache.plan import cost
from regfs.cache.room import Lease, Room


class NewFile:
    """A file under way; ``end`` is where the next write goes."""

    def __init__(self, descriptor: int, room: Room) -> None:
        self.descriptor = descriptor
        self.end = 0
        self.lease = Lease(room)
        self._room = room

    def write(self, data: bytes, start: int | None = None) -> None:
        """Write at its end, or at ``start``. Raises OSError: there is no room."""
        at = self.end if start is None else start
        step = self._room.grant // 4
        view = memoryview(data)
        for offset in range(0, len(view), step):
            self._write_piece(view[offset : offset + step], at + offset)
        self.end = max(self.end, at + len(data))

    def _write_piece(self, piece: memoryview, start: int) -> None:
        self.lease.cover(cost(start + len(piece)), start + len(piece))
        try:
            write_all(self.descriptor, piece, start)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or not self._room.squeeze(self._room.grant):
                raise
            write_all(self.descriptor, piece, start)


@contextmanager
def new_file(folder: Folder, room: Room, path: Path) -> Iterator[NewFile]:
    """A new file, which is at ``path`` when the block ends, and nowhere if it ends by an exception. Raises OSError."""
    descriptor, temporary = folder.new_file()
    with closing(descriptor):
        file = NewFile(descriptor, room)
        try:
            yield file
            settle(descriptor, temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            file.lease.end(0)
            raise
        file.lease.end(cost(os.fstat(descriptor).st_blocks * 512))
