"""Reading small files that hold secrets."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

import trio

from regfs.errors import CredentialError

MAX_FILE: Final = 1024 * 1024


async def read_small(path: Path, *, private: bool = False) -> bytes | None:
    """A file's content; None where there is none. In a thread: homes may be on a network.

    ``private``: refuse a file that others than its owner may read or change.
    Raises CredentialError, which names the file and never what is in it.
    """
    return await trio.to_thread.run_sync(_read, path, private)


def _read(path: Path, private: bool) -> bytes | None:
    try:
        # Not to wait: opening a pipe that nobody writes to would never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CredentialError(f"{path} cannot be read: {error.strerror}") from error
    try:
        _check(path, os.fstat(descriptor).st_mode, private=private)
        return _content(path, descriptor)
    except OSError as error:
        raise CredentialError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check(path: Path, mode: int, *, private: bool) -> None:
    """Judge the file that is open, not the name: another file may bear it by now."""
    if not stat.S_ISREG(mode):
        raise CredentialError(f"{path} is not a regular file")
    if private and mode & 0o077:
        raise CredentialError(f"{path} holds secrets, and others than its owner may use it: chmod 600 {path}")


def _content(path: Path, descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise CredentialError(f"{path} is over 1 MiB: that is no file of credentials")
    return content
