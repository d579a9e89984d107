"""TLS at the pace of its connection: many records a call, where one a call costs more than decrypting it."""

from __future__ import annotations

import ssl
from typing import Any, Final

import trio

from regfs.registry.waiting import until_there

READ_SIZE: Final = 256 * 1024
"""Bytes asked of a socket at once while a large body flows: four times httpcore's own, and twice as fast."""

SMALL_READ: Final = 64 * 1024
_RECORD: Final = 16 * 1024
_PATIENT_FROM: Final = 1024 * 1024
"""Bytes of a body behind which it is worth to wait for more than is there."""


def next_size(length: int) -> int:
    """How much to ask for behind a read that gave ``length`` bytes.

    A buffer of 256 KiB costs more than a small reply itself, so only a body that fills the small one gets it.
    """
    return READ_SIZE if length >= SMALL_READ // 2 else SMALL_READ


class Records(ssl.SSLObject):
    """An SSLObject whose `read` gives what all records hold that are there, up to ``len`` bytes; else that of one."""

    _late: ssl.SSLError | None = None

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002  # the base's interface
        """See `ssl.SSLObject.read`. An error behind the first record is raised by the next call."""
        if self._late is not None:
            late, self._late = self._late, None
            raise late
        if buffer is not None:
            return super().read(len, buffer)
        data = super().read(min(len, _RECORD))
        return data if not data or len <= _RECORD else self._with_more(data, len)

    def _with_more(self, first: bytes, limit: int) -> bytes:
        parts, left = [first], limit - len(first)
        while left > 0:
            try:
                part = super().read(min(left, _RECORD))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._late = error
                break
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


class Wide(trio.abc.Stream):
    """A socket's stream that reads much at once where much comes: TLS leaves the size to its transport."""

    def __init__(self, inner: trio.SocketStream) -> None:
        self._inner = inner
        self._size = SMALL_READ
        self._run = 0

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket itself."""
        return self._inner.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream.receive_some`."""
        if self._run >= _PATIENT_FROM:
            await self._wait_for_more()
        data = await self._inner.receive_some(max_bytes or self._size)
        self._size = next_size(len(data))
        self._run = self._run + len(data) if self._size == READ_SIZE else 0
        return data

    async def _wait_for_more(self) -> None:
        try:
            await until_there(self.socket, READ_SIZE)
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream.send_all`."""
        self._run = 0  # what is asked for now is another body
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._inner.aclose()
