"""Disk I/O and hashing, out of the event loop's way."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_THREADS: Final = 16
"""How many of the cache's calls run at once: enough to keep a disk busy, too few to take all threads from others."""

_ON_THE_LOOP: Final = 1024 * 1024
"""Bytes that may be copied out of the page cache on the loop: under a fifth of a millisecond."""

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("cache threads")


async def in_thread(work: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Do ``work`` in a thread. It runs to its end, though its caller be cancelled meanwhile."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(work, *arguments, limiter=limiter)


async def read_at(descriptor: int, start: int, length: int) -> bytes:
    """``length`` bytes from offset ``start``, fewer only at the file's end. Raises OSError.

    What the page cache holds is read at once, without a thread's two switches (RWF_NOWAIT, preadv2(2)).
    """
    if length <= _ON_THE_LOOP:
        buffer = bytearray(length)
        try:
            if os.preadv(descriptor, [buffer], start, os.RWF_NOWAIT) == length:
                return bytes(buffer)
        except OSError:
            pass  # not in memory, or not to be had this way on this file system
    return await in_thread(read_whole, descriptor, start, length)


def read_whole(descriptor: int, start: int, length: int) -> bytes:
    """Like `read_at`, blocking."""
    pieces = []
    while length > 0 and (piece := os.pread(descriptor, length, start)):
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
