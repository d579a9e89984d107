"""What stands behind a handle."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Final, Protocol

from regfs.errors import DigestMismatch
from regfs.ports import ContentReader
from regfs.tree.incoming import Incoming
from regfs.tree.names import RegistryRoot
from regfs.tree.nodes import Node
from regfs.tree.streamed import StreamedFile

_PAGE: Final = resource.getpagesize()
_BLOCK: Final = 512
"""The smallest block that a file may have in the kernel."""


class Content(Protocol):
    """What an open file reads from."""

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from ``offset`` on, ``size`` of them at the most."""
        ...

    def close(self) -> None:
        """The reader has gone."""
        ...


class Streamed:
    """An open file whose bytes may still arrive: reading waits for them, and may fail."""

    def __init__(self, file: StreamedFile, reader: ContentReader) -> None:
        self.file = file
        self._reader = reader
        self.is_verified = reader.verified
        self.keeps_pages = file.opened(verified=self.is_verified)

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes from ``offset`` on. Raises what `ContentReader.read` raises."""
        self.file.check()
        try:
            return await self._reader.read(offset, self._served(offset, size))
        except DigestMismatch:
            self.file.poison()
            raise

    def _served(self, offset: int, size: int) -> int:
        """How much of a read is answered: not a last byte that has to wait, where less is no harm.

        A program that reads goes on from where it got. What the kernel reads for its cache (a file that is mapped) is whole
        blocks, up to the page of the file's end at most: of fewer bytes it would take the rest for zeros.
        """
        total = self._reader.size
        last = total - 1
        if not self.file.comes_early or self._reader.verified or not offset < last < offset + size:
            return size
        may_be_cached = offset % _BLOCK == size % _BLOCK == 0 and offset + size <= -(-total // _PAGE) * _PAGE
        return size if may_be_cached else last - offset

    async def close(self) -> None:
        """The reader has gone."""
        self.file.closed(verified=self.is_verified)
        await self._reader.aclose()


Opened = Content | Streamed | Sequence[Node] | RegistryRoot | Incoming


class Bytes:
    """An open file's bytes: one version to its end, whatever is pushed meanwhile."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        """See `Content.read`."""
        return self._data[offset : offset + size]

    def close(self) -> None:
        """Nothing is held."""
