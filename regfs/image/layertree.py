"""What one layer makes, folder by folder, in columns: it costs nothing to load, however many names it has."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, islice, pairwise
from typing import Final

import msgspec

from regfs.image.columns import StoredColumn, narrowed, opened
from regfs.image.table import MemberTable
from regfs.image.zstdlib import zstd

IMPLICIT: Final = -1
"""In the place of a member's number: a folder that the layer has no member for."""

_MADE: Final = 1
_OPAQUE: Final = 2
_LEVEL: Final = 3
_NONE: Final[frozenset[bytes]] = frozenset()


class Branch:
    """A folder as it grows. ``is_made``: the layer does make it, and not only lead whiteouts through it. ``removed``: names that a whiteout takes from the layers below; ``opaque``: all of them.

    A child is a Branch, or the number of a member; a hard link bears the number of what it links to, if that is in this layer.
    """

    __slots__ = ("children", "is_made", "member", "opaque", "removed")

    def __init__(self, member: int = IMPLICIT, *, opaque: bool = False) -> None:
        self.member = member
        self.is_made = member != IMPLICIT
        self.opaque = opaque
        self.children: dict[bytes, Branch | int] = {}
        self.removed: frozenset[bytes] | set[bytes] = _NONE

    def remove(self, name: bytes) -> None:
        """Take a name from the layers below."""
        if isinstance(self.removed, frozenset):
            self.removed = set()
        self.removed.add(name)


class Remarks(msgspec.Struct, array_like=True):
    """What there is to say of few members.

    ``names``: of a member that several names of this layer stand for, those names. ``low``: of a hard link to a file that
    a layer below has, its own path and its target's. ``is_unsure``: a member's path leads through such a hard link, which
    may be one to a symbolic link. ``faults``: what is left out, a line each. ``newest``: the latest time of a member.
    """

    names: dict[int, list[bytes]] = msgspec.field(default_factory=dict)
    low: dict[int, tuple[bytes, bytes]] = msgspec.field(default_factory=dict)
    is_unsure: bool = False
    faults: list[str] = msgspec.field(default_factory=list)
    newest: int = 0


_PROBED: Final = 1024
"""Folders of which is remembered where they are: who walks a tree asks of each several times, and then of what is in it."""


class StoredTree(msgspec.Struct, array_like=True):
    """A tree as it is stored. ``count``, ``limits``: what it was made of, and with. All after ``remarks``: compressed."""

    count: int
    limits: str
    remarks: Remarks
    ghosts: memoryview
    columns: memoryview
    text: memoryview


class _Columns(msgspec.Struct, array_like=True):
    count: int
    total: int
    members: StoredColumn
    flags: memoryview
    starts: StoredColumn
    codes: StoredColumn
    bounds: StoredColumn
    removed: dict[int, frozenset[bytes]]


class LayerTree:
    """One layer, ready to be merged: what the first ``count`` of its members make, within ``limits``. Nothing in it changes.

    Folders have numbers, the root 0. What is in a folder is a code: the number of a member, or ``~`` the number of a
    folder. The children of all folders are in one row, by name in byte order: those of ``folder`` from
    ``starts[folder]`` to ``starts[folder + 1]``, with their ``codes``, and names in ``text`` between their ``bounds``.
    ``folders``: of each folder the number of its member, or `IMPLICIT`. ``removed``: see `Branch`, of the folders that have any.
    ``has_unmade``: there are folders that only lead whiteouts; ``has_implicit``: there are such that have no member.
    """

    __slots__ = (
        "_flags",
        "_ghosts",
        "_probed",
        "bounds",
        "codes",
        "count",
        "folders",
        "has_implicit",
        "has_unmade",
        "limits",
        "members",
        "remarks",
        "removed",
        "starts",
        "text",
    )

    folders: Sequence[int]
    starts: Sequence[int]
    codes: Sequence[int]
    bounds: Sequence[int]

    def __init__(
        self, members: MemberTable, count: int, limits: str, remarks: Remarks, found: _Columns, text: bytes
    ) -> None:
        self.members = members
        self.count = count
        self.limits = limits
        self.remarks = remarks
        self._ghosts: Sequence[bytes] | memoryview = ()
        self._probed: dict[bytes, tuple[int, bool]] = {}
        self.folders = opened(found.members, found.count)
        self.starts = opened(found.starts, found.count + 1)
        self.codes = opened(found.codes, found.total)
        self.bounds = opened(found.bounds, found.total + 1)
        self.text = text
        self.removed = found.removed
        self._flags = found.flags
        if len(self._flags) != found.count or not found.count:
            raise ValueError("a tree without a root")
        kinds = set(self._flags[1:])
        self.has_unmade = any(not kind & _MADE for kind in kinds)
        self.has_implicit = found.count > 1 and min(self.folders[1:]) == IMPLICIT

    # ── what it has ──

    @property
    def ghosts(self) -> Sequence[bytes]:
        """Folders that it has no member for, which may be links below."""
        if isinstance(self._ghosts, memoryview):
            self._ghosts = msgspec.msgpack.decode(zstd.decompress(self._ghosts), type=list[bytes])
        return self._ghosts

    def is_made(self, folder: int) -> bool:
        """Whether it makes a folder, and does not only lead whiteouts through it."""
        return bool(self._flags[folder] & _MADE)

    def is_opaque(self, folder: int) -> bool:
        """Whether a folder hides all that the layers below have in it."""
        return bool(self._flags[folder] & _OPAQUE)

    def probe(self, path: bytes) -> tuple[int | None, bool]:
        """What this layer has at a path, as a code, and whether it hides what the layers below have there.

        An opaque folder hides what they have in it, not that they have it.
        """
        if not path:
            return ~0, False
        known = self._probed.get(path)
        if known is not None:
            return known
        parent, _, name = path.rpartition(b"/")
        code, closed = self.probe(parent)
        if code is None or code >= 0:
            return None, closed
        here = ~code
        if self._flags[here] & _OPAQUE or name in self.removed.get(here, _NONE):
            closed = True
        child = self.place_of(here, name)
        if child >= self.starts[here + 1] or self.name(child) != name:
            return None, closed
        code = self.codes[child]
        if code >= 0:
            return code, True
        if len(self._probed) >= _PROBED:
            self._probed.clear()
        self._probed[path] = found = code, closed
        return found

    # ── the row of all children ──

    def span(self, folder: int) -> tuple[int, int]:
        """From where to where in the row the children of a folder stand."""
        return self.starts[folder], self.starts[folder + 1]

    def has_prefix(self, folder: int, prefix: bytes) -> bool:
        """Whether the name of a child begins so."""
        place = self.place_of(folder, prefix)
        return place < self.starts[folder + 1] and self.name(place).startswith(prefix)

    def place_of(self, folder: int, name: bytes) -> int:
        """Where in the row the first child of a folder stands whose name is not before ``name``."""
        low, high = self.span(folder)
        text, bounds = self.text, self.bounds
        while low < high:
            middle = (low + high) // 2
            if text[bounds[middle] : bounds[middle + 1]] < name:
                low = middle + 1
            else:
                high = middle
        return low

    def name(self, place: int) -> bytes:
        """The name of a child in the row."""
        return self.text[self.bounds[place] : self.bounds[place + 1]]

    def names(self, first: int, last: int) -> list[bytes]:
        """The names of the children from ``first`` to ``last``."""
        text = self.text
        return [text[start:end] for start, end in pairwise(self.bounds[first : last + 1])]

    def numbers(self, first: int, last: int) -> list[int]:
        """Their members' numbers, or `IMPLICIT`."""
        folders = self.folders
        return [code if code >= 0 else folders[~code] for code in self.codes[first:last]]

    # ── as it is stored ──

    def stored(self) -> StoredTree:
        """All of it, to be stored."""
        columns = _Columns(
            len(self.folders),
            len(self.codes),
            narrowed(self.folders),
            self._flags,
            narrowed(self.starts),
            narrowed(self.codes),
            narrowed(self.bounds),
            self.removed,
        )
        parts = msgspec.msgpack.encode(list(self.ghosts)), msgspec.msgpack.encode(columns), self.text
        return StoredTree(
            self.count,
            self.limits,
            self.remarks,
            *(memoryview(zstd.compress(part, _LEVEL)) for part in parts),
        )

    @classmethod
    def of(cls, members: MemberTable, stored: StoredTree) -> LayerTree:
        """A tree that was stored. ValueError where its parts don't belong together."""
        columns = msgspec.msgpack.decode(zstd.decompress(stored.columns), type=_Columns)
        tree = cls(
            members, stored.count, stored.limits, stored.remarks, columns, zstd.decompress(stored.text)
        )
        tree._ghosts = stored.ghosts
        return tree

    @classmethod
    def grown(
        cls,
        members: MemberTable,
        count: int,
        limits: str,
        root: Branch,
        remarks: Remarks,
        ghosts: Sequence[bytes],
    ) -> LayerTree:
        """The tree of a branch that has grown; nothing is left of the branch."""
        tree = cls(members, count, limits, remarks, *_in_columns(root))
        tree._ghosts = tuple(dict.fromkeys(ghosts))
        return tree


def _in_columns(root: Branch) -> tuple[_Columns, bytes]:
    branches = [root]
    starts = array("q", [0])
    codes = array("q")
    bounds = array("q", [0])
    text = bytearray()
    removed: dict[int, frozenset[bytes]] = {}
    for number, branch in enumerate(branches):  # which grows meanwhile
        children, branch.children = branch.children, {}
        names = sorted(children)
        for name in names:
            child = children[name]
            if isinstance(child, int):
                codes.append(child)
            else:
                codes.append(~len(branches))
                branches.append(child)
        del children  # before the next: names are most of what there is
        bounds.extend(islice(accumulate(map(len, names), initial=len(text)), 1, None))
        text += b"".join(names)
        starts.append(len(codes))
        if branch.removed:
            removed[number] = frozenset(branch.removed)
    columns = _Columns(
        len(branches),
        len(codes),
        narrowed(array("q", [branch.member for branch in branches])),
        memoryview(bytes(_MADE * branch.is_made | _OPAQUE * branch.opaque for branch in branches)),
        narrowed(starts),
        narrowed(codes),
        narrowed(bounds),
        removed,
    )
    return columns, bytes(text)
