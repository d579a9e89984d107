"""Waiting for more of a body at once than the next packet of it."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

import trio

_MOMENT: Final = 0.004
"""Seconds that bytes may be waited for while others are there."""


async def until_there(connection: trio.socket.SocketType, count: int) -> None:
    """Wait until so many bytes are there to be read, or the other side has ended, or a moment has passed.

    The event loop is woken once for all of them (SO_RCVLOWAT, socket(7)). Raises OSError and trio.ClosedResourceError.
    """
    _wake_at(connection, count)
    try:
        with trio.move_on_after(_MOMENT):
            await trio.lowlevel.wait_readable(connection)
    finally:
        with suppress(OSError):  # it may be closed by now
            _wake_at(connection, 1)


def _wake_at(connection: trio.socket.SocketType, count: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
