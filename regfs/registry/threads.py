"""Work on large replies, out of the event loop's way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

AT_ONCE: Final = 512 * 1024
"""Bytes that may be hashed or decoded on the loop: about half a millisecond."""


async def in_thread_if(large: bool, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Do the work here where it is small, else in a thread."""
    if large:
        return await trio.to_thread.run_sync(work, *arguments)
    return work(*arguments)
