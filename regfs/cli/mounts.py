"""Our mounts on this machine, as the kernel lists them, and what their ``.regfs`` folder says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from regfs.errors import MountError, NotFound

FILESYSTEM: Final = "fuse.regfs"
"""Our filesystem's type in /proc/self/mountinfo."""

REFRESH: Final = "user.regfs.refresh"
_MAX_STATUS: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount: where it is, what it calls itself (``source``), and whether the kernel lets us write to it."""

    folder: Path
    source: str
    writable: bool


def our_mounts(table: Path = Path("/proc/self/mountinfo")) -> Sequence[Mounted]:
    """Our mounts, in the order in which they were made; of two on one folder only the upper one."""
    found = {mount.folder: mount for mount in _parsed(table.read_text(errors="surrogateescape"))}
    return list(found.values())


def mount_of(path: Path) -> Mounted | None:
    """The mount of ours that an absolute path lies in, or None."""
    holding = [mount for mount in our_mounts() if path.is_relative_to(mount.folder)]
    return max(holding, key=lambda mount: len(mount.folder.parts), default=None)


def read_status(mount: Mounted) -> dict[str, Any]:
    """What the mount's daemon says about itself. MountError: it is dead, or it is another user's."""
    try:
        with (mount.folder / ".regfs" / "status.json").open("rb") as stream:
            status = json.loads(stream.read(_MAX_STATUS))
    except (OSError, ValueError) as error:
        raise MountError(f"{mount.folder}: {_why(error, mount)}") from error
    if not isinstance(status, dict):
        raise MountError(f"{mount.folder}: its status is not readable by this version of regfs")
    return status


def refresh(path: Path) -> str:
    """Make a mount forget its listings below ``path``; how many it forgot, as it says. NotFound, MountError."""
    try:
        return os.getxattr(path, REFRESH).decode(errors="replace")
    except FileNotFoundError as error:
        raise NotFound(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise MountError(f"{path}: {error.strerror}") from error


def _why(error: Exception, mount: Mounted) -> str:
    import errno

    if not isinstance(error, OSError):
        return "its status is not readable by this version of regfs"
    if error.errno == errno.ENOTCONN:
        return f"its daemon has died; `regfs umount {mount.folder}` clears the folder"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "it is another user's mount"
    return os.strerror(error.errno or errno.EIO)


def _parsed(text: str) -> Iterator[Mounted]:
    """Lines of proc(5) mountinfo: fields 5 and 6 are mount point and options; type and source follow the ``-``."""
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, facts = before.split(" "), after.split(" ")
        if separator and len(fields) > 5 and len(facts) > 1 and facts[0] == FILESYSTEM:
            options = {*fields[5].split(","), *facts[-1].split(",")}
            yield Mounted(Path(_unescaped(fields[4])), _unescaped(facts[1]), "ro" not in options)


def _unescaped(field: str) -> str:
    """Undo the kernel's octal escapes for blank, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
