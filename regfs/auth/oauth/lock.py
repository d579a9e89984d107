"""One renewal at a time on this machine: a lock on a file, which a process that dies gives up by itself."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from regfs.connection import Connection

PATIENCE: Final = 20.0
"""Seconds after which the lock is gone without: whoever holds it so long is stuck."""
_LOOK: Final = 0.02


def lock_path(connection: Connection) -> Path:
    """The file for all processes that renew what is kept under this connection's address and account."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    kept = f"{connection.address}\0{connection.account}"
    return home / "regfs" / ".oauth" / f"{hashlib.sha256(kept.encode()).hexdigest()[:32]}.lock"


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[bool]:
    """Hold the lock for a block. False where it could not be had: a home that cannot be written to has no lock."""
    descriptor = await trio.to_thread.run_sync(_opened, path)
    try:
        yield descriptor is not None and await _taken(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


async def _taken(descriptor: int) -> bool:
    with trio.move_on_after(PATIENCE):
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await trio.sleep(_LOOK)
            except OSError:
                return False
            else:
                return True
    return False


def _opened(path: Path) -> int | None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
