"""The members of a layer in columns: about 100 bytes each while they come, 30 once they are kept, where objects would take 700."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Final, overload

import msgspec

from regfs.image.columns import StoredColumn, narrowed, opened
from regfs.image.members import Member, MemberKind
from regfs.image.zstdlib import zstd

if TYPE_CHECKING:
    from regfs.image.layertree import LayerTree

_TYPES: Final = "Hqqqqq"
_BLOCK: Final = 512
"""Paths that are compressed together: one of them costs some 40 µs."""

_LEVEL: Final = 3
_IS_RARE: Final = 0x80
KIND: Final = 0x7F
"""The bits of a mark that are its `MemberKind`."""


class Rare(msgspec.Struct, array_like=True, gc=False):
    """What only few members have; see `Member`."""

    target: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[tuple[int, int], ...] | None = None


class StoredTable(msgspec.Struct, array_like=True):
    """A table as it is stored: each part compressed by itself, so that what is rarely asked for is rarely unpacked."""

    count: int
    columns: memoryview
    paths: list[memoryview]
    rares: memoryview


class _Columns(msgspec.Struct, array_like=True):
    marks: memoryview
    numbers: tuple[StoredColumn, ...]


class MemberTable(Sequence[Member]):
    """Members in the archive's order, made into objects when asked for. One thread may append while others read.

    ``marks``, ``modes`` and so on are the columns. A mark has a member's `MemberKind` in its `KIND` bits. ``tree``: what these
    members make, once somebody found out; ``lock`` is for who does.
    """

    def __init__(self) -> None:
        self._count = 0
        growing = bytearray(), [array(kind) for kind in _TYPES], _GrowingPaths()
        self._growing: tuple[bytearray, list[array[int]], _GrowingPaths] | None = growing
        self.marks: bytearray | memoryview
        self.modes: Sequence[int]
        self.uids: Sequence[int]
        self.gids: Sequence[int]
        self.times: Sequence[int]
        self.sizes: Sequence[int]
        self.offsets: Sequence[int]
        self._paths: _GrowingPaths | _StoredPaths
        self.marks, numbers, self._paths = growing
        self.modes, self.uids, self.gids, self.times, self.sizes, self.offsets = numbers
        self._rares: dict[int, Rare] = {}
        self._stored_rares: memoryview | None = None
        self.tree: LayerTree | None = None
        self.lock = Lock()

    @classmethod
    def of_members(cls, members: Sequence[Member]) -> MemberTable:
        """A table of these; they themselves, if they are one."""
        if isinstance(members, MemberTable):
            return members
        table = cls()
        for member in members:
            table.append(member)
        return table

    def append(self, member: Member) -> None:
        """One more; not to one that was stored."""
        assert self._growing is not None, "nothing can be added to what was stored"
        mark = int(member.kind)
        if member.target or member.device or member.xattrs or member.sparse is not None:
            mark |= _IS_RARE
            self._rares[self._count] = Rare(member.target, member.device, member.xattrs, member.sparse)
        marks, (modes, uids, gids, times, sizes, offsets), paths = self._growing
        marks.append(mark)
        paths.append(member.path)
        modes.append(member.mode)
        uids.append(member.uid)
        gids.append(member.gid)
        times.append(member.mtime_ns)
        sizes.append(member.size)
        offsets.append(member.offset)
        self._count += 1  # last of all: until then nobody sees it

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> list[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | list[Member]:
        if isinstance(index, slice):
            return [self._made(number) for number in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._made(index % self._count)

    def __iter__(self) -> Iterator[Member]:
        number = 0
        while number < self._count:
            yield self._made(number)
            number += 1

    def _made(self, number: int) -> Member:
        rare = self.rare(number)
        return Member(
            self._paths[number],
            self.kind(number),
            self.modes[number],
            self.uids[number],
            self.gids[number],
            self.times[number],
            self.sizes[number],
            self.offsets[number],
            rare.target,
            rare.device,
            rare.xattrs,
            rare.sparse,
        )

    def kind(self, number: int) -> MemberKind:
        """What one is."""
        return _KINDS[self.marks[number] & KIND]

    def rare(self, number: int) -> Rare:
        """What one has that only few have."""
        if not self.marks[number] & _IS_RARE:
            return _NOTHING
        stored = self._stored_rares
        if stored is not None:
            self._rares = msgspec.msgpack.decode(zstd.decompress(stored), type=dict[int, Rare])
            self._stored_rares = None  # afterwards: another thread may be here too
        return self._rares[number]

    def stored(self) -> StoredTable:
        """All of it, to be stored. Nobody may append meanwhile."""
        numbers = (self.modes, self.uids, self.gids, self.times, self.sizes, self.offsets)
        columns = _Columns(memoryview(self.marks), tuple(map(narrowed, numbers)))
        rares = self._stored_rares or _squeezed(self._rares)
        return StoredTable(self._count, _squeezed(columns), self._paths.stored(), rares)

    @classmethod
    def of(cls, stored: StoredTable) -> MemberTable:
        """A table that was stored. ValueError where its parts don't belong together."""
        table = cls()
        table._count = stored.count
        table.settle(stored)
        return table

    def settle(self, stored: StoredTable) -> None:
        """Go on from its stored form, which takes a third of the memory. ValueError where its parts don't belong together."""
        count = self._count
        columns = msgspec.msgpack.decode(zstd.decompress(stored.columns), type=_Columns)
        numbers = [opened(column, count) for column in columns.numbers]
        if len(numbers) != len(_TYPES) or len(columns.marks) != count:
            raise ValueError("columns of several lengths")
        if len(stored.paths) != -(-count // _BLOCK):
            raise ValueError("paths that are too few or too many")
        self.marks = columns.marks
        self.modes, self.uids, self.gids, self.times, self.sizes, self.offsets = numbers
        self._paths = _StoredPaths(stored.paths)
        self._growing = None
        if not self._rares:  # else somebody may be reading there
            self._stored_rares = stored.rares


class _GrowingPaths:
    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("q")

    def append(self, path: bytes) -> None:
        self._text += path
        self._ends.append(len(self._text))

    def __getitem__(self, number: int) -> bytes:
        return bytes(self._text[self._ends[number - 1] if number else 0 : self._ends[number]])

    def stored(self) -> list[memoryview]:
        count = len(self._ends)
        blocks = (range(at, min(at + _BLOCK, count)) for at in range(0, count, _BLOCK))
        return [_squeezed([self[number] for number in block]) for block in blocks]


class _StoredPaths:
    """Paths that stay compressed; the block that was read last is held."""

    def __init__(self, blocks: list[memoryview]) -> None:
        self._blocks = blocks
        self._last: tuple[int, list[bytes]] = (-1, [])

    def __getitem__(self, number: int) -> bytes:
        wanted, place = divmod(number, _BLOCK)
        held, paths = self._last
        if held != wanted:
            paths = msgspec.msgpack.decode(zstd.decompress(self._blocks[wanted]), type=list[bytes])
            self._last = wanted, paths
        return paths[place]

    def stored(self) -> list[memoryview]:
        return self._blocks


def _squeezed(value: object) -> memoryview:
    return memoryview(zstd.compress(msgspec.msgpack.encode(value), _LEVEL))


_KINDS: Final = tuple(MemberKind)
_NOTHING: Final = Rare()
