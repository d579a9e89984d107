"""The members of a layer in columns: about 100 bytes each, where objects would take 700."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, overload

import msgspec

from regfs.image.members import Member, MemberKind

_NUMBERS: Final = ("modes", "uids", "gids", "times", "sizes", "offsets", "ends")
_TYPES: Final = "Hqqqqqq"


class Rare(msgspec.Struct, array_like=True, gc=False):
    """What only few members have; see `Member`."""

    target: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[tuple[int, int], ...] | None = None


class Columns(msgspec.Struct, array_like=True):
    """A table as it is stored: ``numbers`` are columns of little-endian integers, ``paths`` all paths in one."""

    kinds: bytes
    numbers: tuple[bytes, ...]
    paths: bytes
    rare: dict[int, Rare]


class MemberTable(Sequence[Member]):
    """Members in the archive's order, made into objects when asked for. One thread may append while others read."""

    def __init__(self) -> None:
        self._count = 0
        self._kinds = bytearray()
        self._paths = bytearray()
        self._modes, self._uids, self._gids, self._times, self._sizes, self._offsets, self._ends = (
            array(kind) for kind in _TYPES
        )
        self._rare: dict[int, Rare] = {}

    def append(self, member: Member) -> None:
        """One more."""
        if member.target or member.device or member.xattrs or member.sparse is not None:
            rare = Rare(member.target, member.device, member.xattrs, member.sparse)
            self._rare[self._count] = rare
        self._kinds.append(member.kind)
        self._paths += member.path
        self._ends.append(len(self._paths))
        self._modes.append(member.mode)
        self._uids.append(member.uid)
        self._gids.append(member.gid)
        self._times.append(member.mtime_ns)
        self._sizes.append(member.size)
        self._offsets.append(member.offset)
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
        start = self._ends[number - 1] if number else 0
        rare = self._rare.get(number, _NOTHING)
        return Member(
            bytes(self._paths[start : self._ends[number]]),
            _KINDS[self._kinds[number]],
            self._modes[number],
            self._uids[number],
            self._gids[number],
            self._times[number],
            self._sizes[number],
            self._offsets[number],
            rare.target,
            rare.device,
            rare.xattrs,
            rare.sparse,
        )

    def columns(self) -> Columns:
        """All of it, to be stored. Nobody may append meanwhile."""
        numbers = (self._modes, self._uids, self._gids, self._times, self._sizes, self._offsets, self._ends)
        return Columns(
            bytes(self._kinds), tuple(little(column) for column in numbers), bytes(self._paths), self._rare
        )

    @classmethod
    def of(cls, columns: Columns) -> MemberTable:
        """A table that was stored. ValueError where its parts don't belong together."""
        table = cls()
        numbers = [from_little(kind, column) for kind, column in zip(_TYPES, columns.numbers, strict=True)]
        table._count = len(columns.kinds)
        if any(len(column) != table._count for column in numbers):
            raise ValueError("columns of several lengths")
        table._kinds, table._paths, table._rare = (
            bytearray(columns.kinds),
            bytearray(columns.paths),
            columns.rare,
        )
        table._modes, table._uids, table._gids, table._times, table._sizes, table._offsets, table._ends = (
            numbers
        )
        if table._count and max(table._kinds) >= len(_KINDS):
            raise ValueError("a kind of member that there is not")
        if table._ends and (table._ends[-1] != len(table._paths) or list(table._ends) != sorted(table._ends)):
            raise ValueError("paths that don't end where they should")
        return table


def little(column: array[int]) -> bytes:
    """A column as little-endian bytes."""
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def from_little(kind: str, data: bytes) -> array[int]:
    """A column of type ``kind`` out of little-endian bytes. ValueError for half a number."""
    column = array(kind)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


_KINDS: Final = tuple(MemberKind)
_NOTHING: Final = Rare()
