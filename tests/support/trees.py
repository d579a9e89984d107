"""What a file tree holds, to the last attribute, so that two can be compared."""

# ruff: noqa: PTH115, PTH118, PTH208 - paths are bytes here, which pathlib does not take

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """One name. ``same``: the first name, in order, of the names that share its inode. Of a folder no time and no size."""

    kind: str
    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    device: int
    links: int
    target: bytes
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    same: bytes


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}


def snapshot(root: Path) -> dict[bytes, Seen]:
    """Everything below a folder, by its path in it; links are not followed."""
    found: dict[bytes, Seen] = {}
    firsts: dict[int, bytes] = {}
    _look(os.fsencode(root), b"", found, firsts)
    return found


def _look(root: bytes, folder: bytes, found: dict[bytes, Seen], firsts: dict[int, bytes]) -> None:
    for name in sorted(os.listdir(os.path.join(root, folder))):
        path = os.path.join(folder, name)
        full = os.path.join(root, path)
        told = os.lstat(full)
        kind = _KINDS[stat.S_IFMT(told.st_mode)]
        is_folder = kind == "folder"
        found[path] = Seen(
            kind,
            stat.S_IMODE(told.st_mode),
            (told.st_uid, told.st_gid),
            0 if is_folder else told.st_size,
            0 if is_folder else told.st_mtime_ns,
            told.st_rdev,
            0 if is_folder else told.st_nlink,
            os.readlink(full) if kind == "link" else b"",
            Path(os.fsdecode(full)).read_bytes() if kind == "file" else b"",
            () if kind == "link" else _xattrs(full),
            path if is_folder else firsts.setdefault(told.st_ino, path),
        )
        if is_folder:
            _look(root, path, found, firsts)


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
