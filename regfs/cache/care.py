"""What a person does with the cache: look at it, verify it, make it smaller. All here blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from regfs.cache.derived import is_intact
from regfs.cache.entry import pieces, remove_damaged, stamp
from regfs.cache.folder import LOG, Folder, closing, open_to_read
from regfs.cache.room import Room
from regfs.digest import Digest
from regfs.errors import Unsupported

_FaultOf = Callable[[int, Path], str]


@dataclass
class Share:
    """Files of one kind: how many there are, and the disk space they take in bytes."""

    files: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that was verified. ``fault``: what is wrong with it, empty if nothing; it has been removed then."""

    path: Path
    size: int
    fault: str = ""


def usage(root: Path) -> dict[str, Share]:
    """What is there of each kind: ``content``, ``partial``, ``derived``. Raises OSError where the folder can't be read."""
    folder = Folder(root)
    shares = {}
    for place in (folder.contents, folder.partials, folder.derived):
        shares[place.name] = share = Share()
        for path in _files(place):
            with suppress(FileNotFoundError):
                share.size += path.stat().st_blocks * 512
                share.files += path.suffix != LOG
    return shares


def verify(root: Path) -> Iterator[Finding]:
    """Hash everything that bears a digest's name, and remove what is wrong. Raises OSError, UnsafeFolder."""
    folder = Folder(root)
    if not root.exists():
        return
    folder.check()
    for path in _files(folder.contents):
        yield from _verified(path, _content_fault)
    for path in _files(folder.derived):
        yield from _verified(path, lambda descriptor, _: "" if is_intact(descriptor) else "damaged")


def prune(root: Path, limit: int, to: int) -> tuple[int, int]:
    """Remove leftovers and what was not used for longest until at most ``to`` bytes are there; how many there were, and are.

    What a process has open stays. Raises OSError, UnsafeFolder.
    """
    folder = Folder(root)
    if not root.exists():
        return 0, 0
    folder.check()
    return Room(folder, limit).shrink(to)


def _files(place: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from sorted(place.iterdir())


def _verified(path: Path, fault_of: _FaultOf) -> Iterator[Finding]:
    descriptor = open_to_read(path)
    if descriptor is None:
        return  # removed meanwhile, or about to be
    with closing(descriptor):
        size = os.fstat(descriptor).st_size
        try:
            fault = fault_of(descriptor, path)
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        if fault:
            remove_damaged(descriptor, path)
    yield Finding(path, size, fault)


def _content_fault(descriptor: int, path: Path) -> str:
    try:
        digest = Digest.from_file_name(path.name)
    except (ValueError, Unsupported):
        return "not named by a digest"
    before = os.fstat(descriptor)
    hashed = hashlib.new(digest.algorithm)
    for piece in pieces(descriptor, 0, before.st_size):
        hashed.update(piece)
    with suppress(OSError):  # that it was verified is no use of it
        os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
    if hashed.hexdigest() != digest.hex:
        return f"its bytes are {digest.algorithm}:{hashed.hexdigest()}"
    return "" if int(before.st_mtime) == stamp(digest) else "changed since it was verified"
