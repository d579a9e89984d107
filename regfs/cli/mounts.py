"""Our mounts on this machine, as the kernel lists them, and what their ``.regfs`` folder says."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from regfs.cli.edge import Advised
from regfs.errors import NotFound
from regfs.fuse import mount_table

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
    found = {mount.path: _mounted(mount) for mount in mount_table.mounts(table) if mount.is_ours}
    return list(found.values())


def mount_of(path: Path) -> Mounted | None:
    """The mount of ours that an absolute path lies in, or None."""
    holding = [mount for mount in our_mounts() if path.is_relative_to(mount.folder)]
    return max(holding, key=lambda mount: len(mount.folder.parts), default=None)


def read_status(mount: Mounted) -> dict[str, Any]:
    """What the mount's daemon says about itself. Advised: it is dead, or it is another user's."""
    try:
        with (mount.folder / ".regfs" / "status.json").open("rb") as stream:
            status = json.loads(stream.read(_MAX_STATUS))
    except (OSError, ValueError) as error:
        raise _unreadable(error, mount) from error
    if not isinstance(status, dict):
        raise _unreadable(ValueError(), mount)
    return status


def no_mount(path: Path) -> Advised:
    """The error for a path that is in no mount of ours."""
    return Advised(f"{path} is in no mount of regfs", "See what is mounted: `regfs status`.")


def refresh(path: Path) -> str:
    """Make a mount forget its listings below ``path``; how many it forgot, as it says. NotFound, Advised."""
    try:
        return os.getxattr(path, REFRESH).decode(errors="replace")
    except FileNotFoundError as error:
        raise NotFound(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise Advised(f"{path}: {error.strerror}", "Name a folder in a mount of yours.") from error


def _unreadable(error: Exception, mount: Mounted) -> Advised:
    import errno

    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOTCONN:
        return Advised(
            f"{mount.folder}: its daemon has died",
            f"Clear the folder: `regfs umount {shlex.quote(str(mount.folder))}`.",
        )
    if number in (errno.EACCES, errno.EPERM):
        return Advised(f"{mount.folder}: it is another user's mount", "Ask its owner, or root.")
    reason = os.strerror(number) if number else "this version of regfs cannot read it"
    return Advised(f"{mount.folder}: its status cannot be had: {reason}", "Mount it anew.")


def _mounted(mount: mount_table.Mount) -> Mounted:
    return Mounted(mount.path, mount.source, "rw" in mount.options)
