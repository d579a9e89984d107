"""Files that the kernel reads itself, from where their bytes lie on disk: FUSE passthrough (Linux 6.9, for root).

Of a file on disk the page cache holds large pages, of a file of FUSE small ones, which take three times as long to copy.
Layout and numbers: linux/fuse.h (``fuse_backing_map``, ``FUSE_DEV_IOC_BACKING_…``).
"""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

log = logging.getLogger(__name__)

_MAP: Final = Struct("=iIQ")
_WORD: Final = Struct("=I")
_MAGIC: Final = 229
_WRITE: Final = 1 << 30
_OPEN: Final = _WRITE | _MAP.size << 16 | _MAGIC << 8 | 1
_CLOSE: Final = _WRITE | _WORD.size << 16 | _MAGIC << 8 | 2


class Changed(Exception):
    """The file that an open inode is read from is not what it was: the name has to stand for another inode. Never leaves this room."""


@dataclass(slots=True)
class _Open:
    """An inode that is open. ``backing``: the kernel's number for the file it reads; 0: it asks us for the bytes."""

    backing: int = 0
    descriptor: int = -1
    state: tuple[int, int, int, int] = (0, 0, 0, 0)
    handles: set[int] = field(default_factory=set)


class Backings:
    """What the kernel reads by itself on one mount. ``device``: the mount's descriptor of /dev/fuse.

    An inode is read in one way as long as anybody has it open, and from one file: the kernel refuses to mix them.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._is_possible = True
        self._open: dict[int, _Open] = {}
        self._nodes: dict[int, int] = {}

    def opened(self, node: int, handle: int, descriptor: int) -> int:
        """How an inode is to be opened: the kernel's number for the file that it reads itself, or 0.

        ``descriptor``: of a file that holds its bytes and nothing else, or -1. Raises Changed: not at all, by this inode.
        """
        if not self._is_possible:
            return 0
        found = self._open.get(node)
        if found is None:
            found = self._open[node] = self._begun(descriptor)
        elif found.backing and _state(found.descriptor) != found.state:
            raise Changed
        found.handles.add(handle)
        self._nodes[handle] = node
        return found.backing

    def closed(self, handle: int) -> None:
        """A handle is no more."""
        node = self._nodes.pop(handle, None)
        if node is None:
            return
        found = self._open[node]
        found.handles.discard(handle)
        if not found.handles:
            del self._open[node]
            self._end(found)

    def close(self) -> None:
        """Let go of all."""
        for found in self._open.values():
            self._end(found)
        self._open.clear()
        self._nodes.clear()

    def _begun(self, descriptor: int) -> _Open:
        if descriptor < 0:
            return _Open()
        asked = bytearray(_MAP.pack(descriptor, 0, 0))
        try:
            backing = fcntl.ioctl(self._device, _OPEN, asked, True)
        except OSError as error:
            # Without the right to, or with a cache on a filesystem over others: it will be so for the next file too.
            log.info("the kernel does not read files of the cache by itself: %s", error.strerror)
            self._is_possible = False
            return _Open()
        kept = os.dup(descriptor)
        return _Open(backing, kept, _state(kept))

    def _end(self, found: _Open) -> None:
        if found.backing:
            fcntl.ioctl(self._device, _CLOSE, _WORD.pack(found.backing))
            os.close(found.descriptor)


def _state(descriptor: int) -> tuple[int, int, int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
