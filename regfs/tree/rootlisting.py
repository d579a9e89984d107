"""What a folder of an image lists: rows of the merged tree, made into nodes only where somebody wants more than a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, overload

from regfs.ports import EntryKind, EntryRow, RootEntries
from regfs.tree.attributes import Attributes, DirEntry, Kind, PlainEntry
from regfs.tree.inodes import Inodes
from regfs.tree.nodes import STEADY, Node

if TYPE_CHECKING:
    from regfs.tree.rootfs import ImageFolder, RootfsFolder

KINDS: Final = {
    EntryKind.FILE: Kind.FILE,
    EntryKind.FOLDER: Kind.FOLDER,
    EntryKind.LINK: Kind.LINK,
    EntryKind.FIFO: Kind.FIFO,
    EntryKind.CHARACTER_DEVICE: Kind.CHARACTER_DEVICE,
    EntryKind.BLOCK_DEVICE: Kind.BLOCK_DEVICE,
}
_DEVICES: Final = (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE)
_TOGETHER: Final = 256
"""Rows made at a time: as many as one reply to the kernel holds."""

_MANY: Final = 20_000
"""Names in a folder from which on all are told in full: who then asks for each after all would ask too often."""

Describe = Callable[[Node], Attributes]
"""Gives a node's attributes, one by one."""


class RootListing(Sequence[Node]):
    """An open folder of an image. ``prefix``: its path within the root, with a slash behind it, or nothing."""

    def __init__(
        self, folder: RootfsFolder | ImageFolder, root: RootfsFolder, prefix: bytes, found: RootEntries
    ) -> None:
        self._folder = folder
        self._root = root
        self._prefix = prefix
        self._found = found

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, place: int) -> Node: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Node]: ...
    def __getitem__(self, place: int | slice) -> Node | Sequence[Node]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        return self._root.node(self._folder, self._found[place])

    def read(self, start: int, inodes: Inodes, describe: Describe) -> Iterator[DirEntry]:
        """Entries from position ``start`` on."""
        for first in range(start, len(self._found), _TOGETHER):
            for place, row in enumerate(self._found.rows(first, first + _TOGETHER), first + 1):
                yield from self._entry(row, place, inodes, describe)

    def read_plainly(self, start: int, inodes: Inodes, describe: Describe) -> Iterator[DirEntry | PlainEntry]:
        """Entries from position ``start`` on: only folders bear attributes, of all else no node is made.

        A folder of many names is told in full.
        """
        if len(self._found) > _MANY:
            yield from self.read(start, inodes, describe)
            return
        folder, number = self._folder, self._root.listed_number
        for first in range(start, len(self._found), _TOGETHER):
            for place, row in enumerate(self._found.rows(first, first + _TOGETHER), first + 1):
                if row[1] is EntryKind.FOLDER:
                    yield from self._entry(row, place, inodes, describe)
                else:
                    yield PlainEntry(row[0], KINDS[row[1]], number(folder, row[0], row[8]), place)

    def _entry(self, row: EntryRow, place: int, inodes: Inodes, describe: Describe) -> Iterator[DirEntry]:
        node = self._root.known(self._folder, self._prefix + row[0], row[1], row[7], row[8])
        try:
            yield DirEntry(row[0], self._attributes(node, row, inodes, describe), place)
        finally:
            inodes.drop_if_unused(node)

    def _attributes(self, node: Node, row: EntryRow, inodes: Inodes, describe: Describe) -> Attributes:
        _, kind, mode, uid, gid, size, mtime_ns, links, identity = row
        if kind in _DEVICES:
            return describe(node)
        mode, owner = self._root.as_shown(kind, mode, uid, gid)
        return Attributes(
            inodes.number(node),
            KINDS[kind],
            mode,
            size,
            self._root.time_of(mtime_ns),
            STEADY,
            STEADY,
            owner,
            links,
            number=self._root.number_of(identity, node),
        )
