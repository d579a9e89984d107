"""Files that are read piece by piece while their bytes arrive."""

from __future__ import annotations

from typing import ClassVar

from regfs.errors import DigestMismatch
from regfs.ports import ContentReader
from regfs.tree.nodes import Node


class StreamedFile(Node):
    """A file that is read through a `ContentReader`. Its bytes never change under its inode.

    One that proved to be wrong leaves its folder: the name then stands for a new node, with a new inode, that asks anew.
    So a name holds for long only once ``is_verified``: a kind of file says so in its `holds_for`.
    """

    __slots__ = ("_unverified", "_was_unverified", "is_poisoned", "is_verified")
    comes_early: ClassVar[bool] = False
    """While it is not verified its reader gives all at once but the last byte, which may be long in coming."""

    def __init__(self, parent: Node, name: str) -> None:
        super().__init__(parent, name)
        self.is_verified = False
        self.is_poisoned = False
        self._unverified = 0
        self._was_unverified = False

    async def reader(self) -> ContentReader:
        """Open it. Raises what a Source raises."""
        raise NotImplementedError

    def descriptor_of(self, reader: ContentReader) -> int | None:  # noqa: ARG002 - what blobs answer
        """See `OpenFile.descriptor`: of what one of its readers reads."""
        return None

    @property
    def is_steady(self) -> bool:
        return True

    def check(self) -> None:
        """Raise DigestMismatch where its bytes proved to be wrong."""
        if self.is_poisoned:
            raise DigestMismatch(
                f"{self.path()}: the registry sent bytes that are not what its digest says; it asks anew when it is opened again"
            )

    def opened(self, *, verified: bool) -> bool:
        """Note an open file; say whether the pages that the kernel may have of it are surely right.

        Mapped into memory, a file gets pages that were not verified.
        """
        kept = verified and not self._was_unverified
        self._unverified += not verified
        self._was_unverified = self._unverified > 0
        self.is_verified = self.is_verified or (verified and not self.is_poisoned)
        return kept

    def closed(self, *, verified: bool) -> None:
        """Note that an open file is one no more; ``verified``: as it was when it was opened."""
        self._unverified -= not verified

    def poison(self) -> None:
        """Its bytes proved to be wrong: from now on the name stands for another node."""
        self.is_poisoned, self.is_verified = True, False
        children = self.parent.children if self.parent is not None else None
        if children is not None and children.get(self.key) is self:
            del children[self.key]
        self.key = object()
