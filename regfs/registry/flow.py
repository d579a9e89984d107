"""A large body straight from its socket: in pieces of a MiB where it comes fast, and never later than a moment where it comes slowly.

What is done for each piece, from the event loop up to the last reader, takes a tenth of a millisecond, and httpcore copies
each byte three times. At a GB/s that is most of the time that a body takes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final

import httpcore
import trio

from regfs.registry.waiting import until_there

FLOWS_FROM: Final = 8 * 1024 * 1024
"""Bytes from which a body is taken so: its connection is not used again. Ranges that readers ask for are smaller."""

PIECE: Final = 1024 * 1024


async def flow(connection: trio.socket.SocketType, taken: int, size: int) -> AsyncGenerator[bytes, None]:
    """What is left of a body of ``size`` bytes, of which ``taken`` were read before.

    Pieces end where a MiB of the body does. Raises httpcore.ReadError where the connection is lost, and
    httpcore.RemoteProtocolError where it ends early.
    """
    with _heap.kept():
        while taken < size:
            try:
                piece = await _next(connection, min(PIECE - taken % PIECE, size - taken))
            except (OSError, trio.ClosedResourceError) as error:
                number = error.errno if isinstance(error, OSError) else None
                raise httpcore.ReadError(os.strerror(number).lower() if number else str(error)) from error
            if not piece:
                raise httpcore.RemoteProtocolError(
                    f"the body ends after {taken} bytes, of {size} that were announced"
                )
            taken += len(piece)
            yield piece


async def _next(connection: trio.socket.SocketType, wanted: int) -> bytes:
    await until_there(connection, wanted)
    return await connection.recv(wanted)


class _Heap:
    """What malloc does with the memory of pieces that are no longer needed: mallopt(3), of glibc.

    It gives them back to the kernel one by one, and each page of the next one is a fault again: an eighth of all time.
    """

    _TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
    _LARGE, _KEPT = 2 * PIECE, 16 * PIECE

    def __init__(self) -> None:
        self._flows = 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep some MiB for the length of a block; behind the last of them what is free goes back."""
        self._flows += 1
        if self._flows == 1:
            self._set(self._MMAP_THRESHOLD, self._LARGE)
            self._set(self._TRIM_THRESHOLD, self._KEPT)
        try:
            yield
        finally:
            self._flows -= 1
            if self._flows == 0:
                self._set(self._TRIM_THRESHOLD, 2 * self._LARGE)  # as malloc itself relates the two

    @staticmethod
    def _set(parameter: int, size: int) -> None:
        import ctypes  # a daemon has it already; commands that fetch nothing large do without

        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(parameter, size)


_heap: Final = _Heap()
