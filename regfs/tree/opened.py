"""What stands behind a handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from regfs.tree.incoming import Incoming
from regfs.tree.names import RegistryRoot
from regfs.tree.nodes import Node


class Content(Protocol):
    """What an open file reads from."""

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from ``offset`` on, ``size`` of them at the most."""
        ...

    def close(self) -> None:
        """The reader has gone."""
        ...


Opened = Content | Sequence[Node] | RegistryRoot | Incoming


class Bytes:
    """An open file's bytes: one version to its end, whatever is pushed meanwhile."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        """See `Content.read`."""
        return self._data[offset : offset + size]

    def close(self) -> None:
        """Nothing is held."""
