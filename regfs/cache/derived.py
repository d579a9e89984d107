"""What was made from a content and is worth keeping beside it: a layer's index, its checkpoints.

A file is a header of 128 bytes (a magic word, the hash of the rest, zeros) and the rest. Its modification time is made from
that hash, so that one that nobody wrote to since is opened without reading it. It is removed with its content, or
before. All here blocks, and belongs in a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from regfs.cache.entry import Entry, pieces, remove_damaged, set_stamp, stamp, touch
from regfs.cache.folder import Folder, open_to_read
from regfs.cache.newfile import new_file
from regfs.cache.room import Room
from regfs.digest import Digest

HEADER: Final = 128
_MAGIC: Final = b"regfs derived 1 sha256:"
_HEADER: Final = re.compile(re.escape(_MAGIC) + rb"([0-9a-f]{64})\n\0*")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


def path_of(folder: Folder, digest: Digest, name: str, version: int) -> Path:
    """Where it is. ``name`` is a word in small letters, ``version`` that of its format. ValueError for other names."""
    if not _NAME.fullmatch(name) or version < 0:
        raise ValueError(f"not a name for something derived: {name!r} {version}")
    return folder.derived / f"{digest.file_name}.{name}.{version}"


def open_derived(path: Path) -> Entry | None:
    """Open one that is as it was written, by its time or else by its hash; None where there is none. A damaged one is removed. Raises OSError."""
    descriptor = open_to_read(path)
    if descriptor is None:
        return None
    try:
        entry = Entry(descriptor, path, HEADER)
        if _is_stamped(descriptor) or is_intact(descriptor):
            touch(descriptor)
            return entry
        remove_damaged(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_intact(descriptor: int) -> bool:
    """Whether the rest is what the header says. Raises OSError."""
    hashed = hashlib.sha256()
    for piece in pieces(descriptor, HEADER, os.fstat(descriptor).st_size):
        hashed.update(piece)
    return os.pread(descriptor, HEADER, 0) == _header(hashed.hexdigest())


def _is_stamped(descriptor: int) -> bool:
    """Whether its time is the one that it was given when it was written. Raises OSError."""
    found = _HEADER.fullmatch(os.pread(descriptor, HEADER, 0))
    if found is None:
        return False
    return int(os.fstat(descriptor).st_mtime) == stamp(Digest("sha256", found[1].decode()))


def write_derived(folder: Folder, room: Room, path: Path, chunks: Iterable[bytes]) -> None:
    """Write one whole, in place of older ones and other versions. Raises OSError, and what ``chunks`` raises; then nothing is there."""
    with new_file(folder, room, path) as file:
        file.end = HEADER
        hashed = hashlib.sha256()
        for chunk in chunks:
            file.write(chunk)
            hashed.update(chunk)
        file.write(_header(hashed.hexdigest()), 0)
        set_stamp(file.descriptor, Digest("sha256", hashed.hexdigest()))
    _remove_other_versions(path)


def _header(hexdigest: str) -> bytes:
    return (_MAGIC + hexdigest.encode() + b"\n").ljust(HEADER, b"\0")


def _remove_other_versions(path: Path) -> None:
    with suppress(OSError):
        for other in path.parent.glob(f"{path.stem}.*"):
            if other != path:
                other.unlink(missing_ok=True)
