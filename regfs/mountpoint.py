"""The folder that is mounted on: what must hold before, what a crash left there, and unmounting.

Each check has a message of its own, which says how to mend it. No mount is touched that may hang.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from regfs.config import Settings
from regfs.errors import MountError
from regfs.fuse.mount_table import Mount, mount_at, mounts

DEVICE: Final = Path("/dev/fuse")
FUSE_CONF: Final = Path("/etc/fuse.conf")
_WITHOUT: Final = "Without a mount, `regfs ls REGISTRY` and `regfs cat REGISTRY/PATH` show the same."
_PACKAGE: Final = (
    "`sudo apt install fuse3` (Debian, Ubuntu), `sudo dnf install fuse3` (Fedora), `apk add fuse3` (Alpine)"
)


def check_machine(settings: Settings) -> None:
    """Raise MountError, with what mends it, where this machine or user cannot mount FUSE filesystems so."""
    _check_device()
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError(f"fusermount3 is not installed, which mounts for users other than root: {_PACKAGE}")
    if settings.allow_other and settings.rw and not settings.allow_other_write:
        raise MountError(
            "with --rw and --allow-other every user of this machine could delete tags in your name: "
            "add --allow-other-write if that is meant"
        )
    if settings.allow_other and os.geteuid() != 0 and not _users_may_allow_other():
        raise MountError(
            f"--allow-other is switched off for users in {FUSE_CONF}: "
            f"`echo user_allow_other | sudo tee -a {FUSE_CONF}` allows it"
        )


def _check_device() -> None:
    if not DEVICE.exists():
        raise MountError(
            f"there is no {DEVICE} here. In a container: run it with `--device /dev/fuse --cap-add SYS_ADMIN`; "
            f"elsewhere: `sudo modprobe fuse`. {_WITHOUT}"
        )
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        mode = f"{DEVICE.stat().st_mode & 0o777:04o}"
        raise MountError(
            f"{DEVICE} cannot be opened ({error.strerror}; its mode is {mode}). In a container: run it with "
            f"`--device /dev/fuse --cap-add SYS_ADMIN`; elsewhere: `sudo modprobe fuse && sudo chmod 666 {DEVICE}`. {_WITHOUT}"
        ) from error


def _users_may_allow_other() -> bool:
    try:
        lines = FUSE_CONF.read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def prepare(directory: Path) -> tuple[Path, list[str]]:
    """Make ``directory`` ready to be mounted on; its true path, and a line for each thing done. Raises MountError."""
    directory = true_path(directory)
    done = []
    mount = mount_at(directory)
    if mount is not None and mount.is_ours:
        _clean_stale(mount)
        done.append(f"{directory}: cleaned up the mount of a regfs that had died")
        mount = mount_at(directory)
    if mount is not None and not mount.is_automount_trigger:
        raise MountError(
            f"{directory} is already mounted on: {mount.source} ({mount.type}); "
            f"mount on a folder of your own in it, or unmount it first: `umount {_quoted(directory)}`"
        )
    if not directory.exists():
        _make(directory)
        done.append(f"{directory}: made")
    _check_folder(directory, trigger=mount is not None)
    return directory, done


def true_path(directory: Path) -> Path:
    """``directory`` absolute and without links, whether or not it, or what is mounted on it, is alive."""
    try:
        return Path(os.path.realpath(directory))
    except OSError as error:
        raise MountError(f"{directory} cannot be reached: {error.strerror}") from error


def is_dead(directory: Path) -> bool:
    """Whether what is mounted on ``directory`` has lost its daemon ("Transport endpoint is not connected")."""
    try:
        os.stat(directory)  # noqa: PTH116 - Path.stat is the same; the errno matters
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _clean_stale(mount: Mount) -> None:
    if not is_dead(mount.path):
        raise MountError(
            f"{mount.path} is already a mount of regfs ({mount.source}): use it, or `regfs umount {_quoted(mount.path)}` first"
        )
    done = _unmount(mount.path, lazy=True)
    if done.returncode != 0:
        raise MountError(
            f"{mount.path} holds the mount of a regfs that has died, and it can't be taken away ({done.stderr.strip()}): "
            f"`sudo umount -l {_quoted(mount.path)}`"
        )


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        user = _user()
        folder = _quoted(directory)
        raise MountError(
            f"{directory} is not there and can't be made ({error.strerror}): "
            f"`sudo mkdir -p {folder} && sudo chown {user} {folder}`"
        ) from error


def _user() -> str:
    """The user's name as chown takes it; in containers there may be none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _check_folder(directory: Path, *, trigger: bool) -> None:
    if not directory.is_dir():
        raise MountError(f"{directory} is a file: name a folder, empty or not yet there")
    if trigger:  # looking into it would start the very mount that is being made
        return
    if os.geteuid() != 0 and not os.access(directory, os.W_OK):
        user = _user()
        raise MountError(
            f"{directory} is not yours to mount on: `sudo chown {user} {_quoted(directory)}`, or take another folder"
        )
    try:
        with os.scandir(directory) as entries:
            first = next(entries, None)
    except OSError as error:
        raise MountError(f"{directory} cannot be read: {error.strerror}") from error
    if first is not None:
        raise MountError(
            f"{directory} is not empty (it holds {first.name!r}), and a mount would hide that: "
            f"take an empty folder, such as {_quoted(directory / 'registry')}"
        )


# ── unmounting ──


def umount(directory: Path, *, lazy: bool = False) -> None:
    """Take a mount of ours away, dead or alive. ``lazy``: also while somebody is in it. Raises MountError."""
    directory = true_path(directory)
    mount = mount_at(directory)
    if mount is None or not mount.is_ours:
        raise MountError(_not_ours(directory, mount))
    done = _unmount(directory, lazy=lazy)
    if done.returncode == 0:
        return
    if "busy" in done.stderr:
        holders = ", ".join(_holders(directory))
        raise MountError(
            f"{directory} is in use{f' by {holders}' if holders else ''}: end that (or leave the folder with `cd`), "
            f"or `regfs umount --lazy {_quoted(directory)}`"
        )
    raise MountError(f"{directory} cannot be unmounted: {done.stderr.strip()}")


def _not_ours(directory: Path, mount: Mount | None) -> str:
    if mount is not None and not mount.is_automount_trigger:
        return f"{directory} is a mount of {mount.source} ({mount.type}), not of regfs: `umount {_quoted(directory)}`"
    ours = ", ".join(str(found.path) for found in mounts() if found.is_ours)
    return f"{directory} is no mount of regfs" + (
        f"; these are: {ours}" if ours else "; nothing of regfs is mounted"
    )


def _unmount(directory: Path, *, lazy: bool) -> subprocess.CompletedProcess[str]:
    """Run whichever program may do it: fusermount3 for a user's own mounts, umount for root where that is missing."""
    helper = shutil.which("fusermount3")
    command = (
        [helper, "-u", *(["-z"] if lazy else []), "--"]
        if helper
        else ["umount", *(["-l"] if lazy else []), "--"]
    )
    try:
        return subprocess.run(  # noqa: S603 - a program of the system's, and a path that begins with a slash
            [*command, str(directory)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise MountError(f"neither fusermount3 nor umount is installed: {_PACKAGE}") from error


def _holders(directory: Path) -> Iterator[str]:
    """Processes that are in ``directory`` or have files of it open, as far as /proc tells: ``bash (1234)``."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and any(_is_in(link, directory) for link in _links(process)):
            with contextlib.suppress(OSError):
                yield f"{(process / 'comm').read_text().strip()} ({process.name})"


def _links(process: Path) -> Iterator[Path]:
    yield from (process / "cwd", process / "root", process / "exe")
    with contextlib.suppress(OSError):
        yield from (process / "fd").iterdir()


def _is_in(link: Path, directory: Path) -> bool:
    try:
        return Path(os.readlink(link)).is_relative_to(directory)  # noqa: PTH115 - no resolving of what it says
    except OSError:
        return False


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
