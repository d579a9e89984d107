"""What stands behind a handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from regfs.errors import DigestMismatch
from regfs.ports import ContentReader
from regfs.tree.incoming import Incoming
from regfs.tree.names import RegistryRoot
from regfs.tree.nodes import Node
from regfs.tree.streamed import StreamedFile


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
            return await self._reader.read(offset, size)
        except DigestMismatch:
            self.file.poison()
            raise

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
