"""What a folder of a merged tree holds: made as it is asked for, since a hundred thousand entries would take 40 MB."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import repeat
from typing import Final, Protocol, overload

from regfs.image.layertree import IMPLICIT, LayerTree
from regfs.image.members import MemberKind
from regfs.image.table import KIND
from regfs.ports import EntryKind, EntryRow, RootEntries, RootEntry

KINDS: Final = {
    MemberKind.FILE: EntryKind.FILE,
    MemberKind.LINK: EntryKind.LINK,
    MemberKind.CHARACTER_DEVICE: EntryKind.CHARACTER_DEVICE,
    MemberKind.BLOCK_DEVICE: EntryKind.BLOCK_DEVICE,
    MemberKind.FOLDER: EntryKind.FOLDER,
    MemberKind.FIFO: EntryKind.FIFO,
}
PERMISSIONS: Final = 0o7777
_BY_NUMBER: Final = {int(kind): shown for kind, shown in KINDS.items()}
_BY_MARK: Final = [_BY_NUMBER.get(mark & KIND, EntryKind.FILE) for mark in range(256)]
_MEMBER_BITS: Final = 32
_MEMBER: Final = (1 << _MEMBER_BITS) - 1
_NO_ROW: Final[EntryRow] = (b"", EntryKind.FOLDER, 0, 0, 0, 0, 0, 1, None)
_NO_OWNER: Final = 2**32 - 1
_OVERFLOW_OWNER: Final = 65534


class Whole(Protocol):
    """The merged tree that entries are of."""

    def tree(self, layer: int) -> LayerTree:
        """A layer that was added."""
        ...

    def again(self, path: bytes, identity: int | None) -> RootEntry | None:
        """An entry from its path and identity."""
        ...

    def many_named(self, layer: int) -> Collection[int]:
        """The members of a layer that may have several names."""
        ...

    def shown_target(self, path: bytes, target: bytes) -> bytes:
        """The target of the link at ``path``, as it is to be shown."""
        ...


def identity_of(layer: int, member: int) -> int | None:
    """A member of a layer as one number; None: it is no member."""
    return None if member == IMPLICIT else layer << _MEMBER_BITS | member


def place_in(identity: int) -> tuple[int, int]:
    """The layer and the member of an identity."""
    return identity >> _MEMBER_BITS, identity & _MEMBER


def owner(number: int) -> int:
    """A user or group as the kernel can say it; beyond that, its own number for one that can't be shown."""
    return number if 0 <= number < _NO_OWNER else _OVERFLOW_OWNER


class Entries(RootEntries):
    """Entries of which names and identities are known. ``prefix``: the folder's path with a slash, or nothing."""

    def __init__(
        self, whole: Whole, prefix: bytes, names: Sequence[bytes], identities: Sequence[int | None]
    ) -> None:
        self._whole = whole
        self._prefix = prefix
        self._names = names
        self._identities = identities

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> RootEntry: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[RootEntry]: ...
    def __getitem__(self, place: int | slice) -> RootEntry | Sequence[RootEntry]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        ((name,), (identity,)) = self._part(place, place + 1)
        return self._entry(name, identity)

    def rows(self, start: int, stop: int) -> Sequence[EntryRow]:
        """See `RootEntries.rows`."""
        names, identities = self._part(start, max(start, min(stop, len(self))))
        by_layer: dict[int, list[int]] = {}
        for at, identity in enumerate(identities):
            by_layer.setdefault(-1 if identity is None else identity >> _MEMBER_BITS, []).append(at)
        if len(by_layer) == 1:
            ((layer, _),) = by_layer.items()
            return self._rows(layer, names, identities)
        found: list[EntryRow] = [_NO_ROW] * len(names)
        for layer, places in by_layer.items():
            part = self._rows(layer, [names[at] for at in places], [identities[at] for at in places])
            for at, row in zip(places, part, strict=True):
                found[at] = row
        return found

    def _part(self, start: int, stop: int) -> tuple[Sequence[bytes], Sequence[int | None]]:
        return self._names[start:stop], self._identities[start:stop]

    def _entry(self, name: bytes, identity: int | None) -> RootEntry:
        entry = self._whole.again(self._prefix + name, identity)
        assert entry is not None, "it was there when the folder was listed"
        return entry

    def _row(self, name: bytes, identity: int | None) -> EntryRow:
        e = self._entry(name, identity)
        return name, e.kind, e.mode, e.uid, e.gid, e.size, e.mtime_ns, e.links, identity

    def _rows(self, layer: int, names: Sequence[bytes], identities: Sequence[int | None]) -> list[EntryRow]:
        """Rows of one layer, column by column; of what is no member, or may have several names, one by one."""
        if layer < 0:
            return [self._row(name, None) for name in names]
        whole = self._whole
        table = whole.tree(layer).members
        members = [identity & _MEMBER for identity in identities if identity is not None]
        marks = [table.marks[member] for member in members]
        sizes = [table.sizes[member] for member in members]
        for at, mark in enumerate(marks):
            if mark & KIND:
                sizes[at] = 0
                if mark & KIND == MemberKind.LINK:
                    target = table.rare(members[at]).target
                    sizes[at] = len(whole.shown_target(self._prefix, target))
        rows: list[EntryRow] = list(
            zip(
                names,
                [_BY_MARK[mark] for mark in marks],
                [table.modes[member] & PERMISSIONS for member in members],
                _owners([table.uids[member] for member in members]),
                _owners([table.gids[member] for member in members]),
                sizes,
                [table.times[member] for member in members],
                repeat(1),
                identities,
                strict=False,
            )
        )
        many = whole.many_named(layer)
        if many:
            for at, member in enumerate(members):
                if member in many:
                    rows[at] = self._row(names[at], identities[at])
        return rows


class Run(Entries):
    """Entries that one layer alone makes: those in its row of children from ``first`` to ``last``. None of them is held."""

    def __init__(self, whole: Whole, prefix: bytes, layer: int, first: int, last: int) -> None:
        super().__init__(whole, prefix, (), ())
        self._layer = layer
        self._first = first
        self._count = last - first

    def __len__(self) -> int:
        return self._count

    def _part(self, start: int, stop: int) -> tuple[Sequence[bytes], Sequence[int | None]]:
        tree = self._whole.tree(self._layer)
        first, last = self._first + start, self._first + stop
        base = self._layer << _MEMBER_BITS
        numbers = tree.numbers(first, last)
        identities = [None if number == IMPLICIT else base | number for number in numbers]
        return tree.names(first, last), identities


def _owners(numbers: list[int]) -> list[int]:
    if numbers and (min(numbers) < 0 or max(numbers) >= _NO_OWNER):
        return [owner(number) for number in numbers]
    return numbers
