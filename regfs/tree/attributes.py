"""What the filesystem says about its names, in its own words: no struct of FUSE in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a name is."""

    __hash__ = object.__hash__  # Enum's own is Python code, and listings look kinds up by the ten thousand

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"


@dataclass(slots=True)
class Attributes:
    """One name's attributes. ``mode``: permission bits only; times in nanoseconds since 1970; timeouts in seconds.

    ``owner``: user and group, shown as they are, and the mode with them; None: whom the mount's files belong to. ``links``:
    how many names the file has. ``device``: of a device node, as `os.makedev` makes it. ``number``: the inode number that
    programs are shown, where it is not ``ino``, by which the kernel knows the name.
    """

    ino: int
    kind: Kind
    mode: int
    size: int
    time_ns: int
    entry_timeout: float
    attr_timeout: float
    owner: tuple[int, int] | None = None
    links: int = 1
    device: int = 0
    number: int = 0


@dataclass(slots=True)
class DirEntry:
    """One entry of a folder being read; ``next`` is the position behind it."""

    name: bytes
    attributes: Attributes
    next: int


@dataclass(slots=True)
class PlainEntry:
    """One entry of which no more is told than its kind and the inode ``number`` to show (0: unknown): it has no inode yet."""

    name: bytes
    kind: Kind
    number: int
    next: int


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file. ``direct_io``: reads reach the filesystem as they are; ``keep_cache``: the pages of an earlier open are still right.

    ``descriptor``: of a file that holds its bytes and nothing else, open as long as this is; `NOT_YET` where another open of it
    may have one; None where none will.
    """

    handle: int
    direct_io: bool
    keep_cache: bool
    descriptor: int | None = None


NOT_YET = -1
"""In the place of a descriptor: see `OpenFile`."""


@dataclass(frozen=True, slots=True)
class Statfs:
    """What ``df`` is told: how many names the mount has shown."""

    files: int
