"""Noticing that a file in a folder was replaced, without looking again and again (inotify(7))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import trio

_MOVED_TO: Final = 0x80
_CLOSE_WRITE: Final = 0x08
_DELETE: Final = 0x200
_ONLYDIR: Final = 0x01000000
_EVENTS: Final = 4096


async def changes(folder: Path) -> AsyncGenerator[None, None]:
    """Yield whenever something in ``folder`` was written, replaced or removed. OSError: it cannot be watched."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify cannot be had")
    try:
        mask = _MOVED_TO | _CLOSE_WRITE | _DELETE | _ONLYDIR
        if libc.inotify_add_watch(descriptor, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), f"{folder} cannot be watched")
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            os.read(descriptor, _EVENTS)
            yield
    finally:
        os.close(descriptor)
