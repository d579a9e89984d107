"""An image's layers merged into one tree, from the top down, as far as a question needs it. No I/O: what lacks is raised."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Final

import msgspec

from regfs.image.entries import KINDS, PERMISSIONS, Entries, Run, identity_of, owner, place_in
from regfs.image.layertree import IMPLICIT, LayerTree
from regfs.image.limits import Limits
from regfs.image.links import clamped
from regfs.image.members import Member, MemberKind
from regfs.image.merge_layer import HIDDEN, build_layer, shown, tree_of
from regfs.image.table import MemberTable
from regfs.ports import EntryKind, RootEntries, RootEntry

_IMPLICIT_MODE: Final = 0o755


class LayerMissing(Exception):
    """The answer needs a layer that has not been added. No error of a user's."""

    def __init__(self, layer: int) -> None:
        super().__init__(f"layer {layer} is not there yet")
        self.layer = layer


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where an entry comes from: a layer, counted from the bottom, and a member of it.

    ``member`` is `IMPLICIT` for a folder that no layer has a member for; ``layer`` is then the topmost that makes it.
    """

    layer: int
    member: int
    is_folder: bool = False

    @property
    def identity(self) -> int | None:
        """The same as one number; None: it is no member."""
        return identity_of(self.layer, self.member)


class Merge:
    """The tree of an image of ``count`` layers. `LayerMissing` tells which layer to `add` next; then ask again.

    ``raw_links``: symbolic links are shown as the image has them. ``on_fault`` is told what is left out: layer, line.
    Not safe for several threads at once.
    """

    def __init__(
        self,
        count: int,
        limits: Limits | None = None,
        *,
        raw_links: bool = False,
        on_fault: Callable[[int, str], None] = lambda _layer, _line: None,
    ) -> None:
        self._trees: list[LayerTree | None] = [None] * count
        self._limits = limits or Limits()
        self._raw_links = raw_links
        self._on_fault = on_fault
        self._low: dict[tuple[int, int], Place | None] = {}
        self._linked: dict[int, dict[int, list[tuple[int, int]]]] = {}
        self._shared: tuple[bytes, list[tuple[int, int]]] | None = None
        """What `_shares` said last: a folder's size is asked for before its entries."""

    # ── layers ──

    def add(self, layer: int, members: Sequence[Member]) -> None:
        """Add a layer's members, each layer once. Raises LayerMissing where links below decide where they belong."""
        table = MemberTable.of_members(members)
        tree = tree_of(table, self._limits)
        if tree.remarks.is_unsure or self._leads_elsewhere(tree.ghosts, layer):
            tree = build_layer(table, self._limits, lambda path: self._below(path, layer))
        self._trees[layer] = tree
        self._shared = None
        for line in tree.remarks.faults:
            self._on_fault(layer, line)

    def has(self, layer: int) -> bool:
        """Whether it was added."""
        return self._trees[layer] is not None

    def tree(self, layer: int) -> LayerTree:
        """What a layer makes. Raises LayerMissing."""
        tree = self._trees[layer]
        if tree is None:
            raise LayerMissing(layer)
        return tree

    def _leads_elsewhere(self, ghosts: Sequence[bytes], layer: int) -> bool:
        """Whether any folder that a layer takes for granted is something else in the layers below."""
        absent: set[bytes] = set()
        for path in ghosts if layer else ():
            # Each comes behind the folder that it is in, if that is one of them.
            there = None if path.rpartition(b"/")[0] in absent else self._below(path, layer)
            if there is None:
                absent.add(path)
            elif there[0] is not MemberKind.FOLDER:
                return True
        return False

    def _below(self, path: bytes, layer: int) -> tuple[MemberKind, bytes] | None:
        place = self._locate(path, layer - 1)
        if place is None:
            return None
        if place.is_folder:
            return MemberKind.FOLDER, b""
        members = self.tree(place.layer).members
        return members.kind(place.member), members.rare(place.member).target

    # ── questions ──

    def find(self, path: bytes) -> RootEntry | None:
        """The entry of that very path, or None."""
        place = self._locate(path, len(self._trees) - 1)
        return None if place is None or _is_hidden(path) else self._entry(path, place)

    def entries(self, path: bytes) -> RootEntries | None:
        """What a folder holds, by name in byte order, each entry made as it is read. None: there is no folder of that path."""
        place = self._locate(path, len(self._trees) - 1)
        if place is None or not place.is_folder or _is_hidden(path):
            return None
        prefix = path + b"/" if path else b""
        shares = self._shares(path)
        alone = self._alone(shares)
        if alone is not None:
            return Run(self, prefix, *alone)
        named = self._names(shares)
        names: list[bytes] = []
        identities: list[int | None] = []
        for name in sorted(named):
            child = self._child(prefix + name, *named[name])
            if child is not None:
                names.append(name)
                identities.append(child.identity)
        return Entries(self, prefix, names, identities)

    def size(self, path: bytes) -> int | None:
        """How many names `entries` will look at one by one: none, where one layer alone makes a folder. None: there is no such folder."""
        place = self._locate(path, len(self._trees) - 1)
        if place is None or not place.is_folder:
            return None
        shares = self._shares(path)
        if self._alone(shares) is not None:
            return 0
        return sum(last - first for first, last in (self.tree(layer).span(at) for layer, at in shares))

    def member(self, place: Place) -> Member:
        """The member an entry was made from; not for an implicit folder."""
        return self.tree(place.layer).members[place.member]

    def again(self, path: bytes, identity: Hashable) -> RootEntry | None:
        """An entry that `find` or `entries` gave before."""
        if not isinstance(identity, int):
            return self.find(path)
        layer, member = place_in(identity)
        is_folder = self.tree(layer).members.kind(member) is MemberKind.FOLDER
        return self._entry(path, Place(layer, member, is_folder=is_folder))

    def place_of(self, entry: RootEntry) -> Place:
        """Where a file's content is: the place that its identity says."""
        assert isinstance(entry.identity, int)
        return Place(*place_in(entry.identity))

    def leaves(self, path: bytes, layer: int) -> bool:
        """Whether the layers above one have nothing at a path, and hide nothing there. Raises LayerMissing."""
        probes = (self.tree(above).probe(path) for above in range(len(self._trees) - 1, layer, -1))
        return not _is_hidden(path) and all(found is None and not closed for found, closed in probes)

    # ── how it is found ──

    def _locate(self, path: bytes, top: int, floor: int = 0) -> Place | None:
        """What the layers from ``top`` down to ``floor`` have at a path."""
        folder: Place | None = None
        for layer in range(top, floor - 1, -1):
            tree = self.tree(layer)
            found, closed = tree.probe(path)
            if found is not None and found >= 0:
                return folder if folder is not None else self._leaf(layer, found, floor)
            if found is not None:
                member = tree.folders[~found]
                if member != IMPLICIT:
                    return Place(layer, member, is_folder=True)
                if not path or tree.is_made(~found):
                    folder = folder or Place(layer, IMPLICIT, is_folder=True)
            if closed:
                return folder
        return folder if folder is not None or path else Place(max(top, 0), IMPLICIT, is_folder=True)

    def _shares(self, path: bytes) -> list[tuple[int, int]]:
        """The layers that have something to say of what is in a folder, from the top down, with the folder's number in each."""
        last = self._shared
        if last is not None and last[0] == path:
            return last[1]
        shares: list[tuple[int, int]] = []
        for layer in range(len(self._trees) - 1, -1, -1):
            tree = self.tree(layer)
            found, closed = tree.probe(path)
            if found is not None and found >= 0:
                break
            if found is not None:
                shares.append((layer, ~found))
            if closed or (found is not None and tree.is_opaque(~found)):
                break
        self._shared = path, shares
        return shares

    def _alone(self, shares: Sequence[tuple[int, int]]) -> tuple[int, int, int] | None:
        """The layer that has all that is in a folder, and where; None: what is there has to be found out name by name."""
        run = 0, 0, 0
        for layer, folder in shares:
            tree = self.tree(layer)
            first, last = tree.span(folder)
            is_plain = not (tree.remarks.low or tree.has_unmade or (layer and tree.has_implicit))
            if first < last:
                if run[1] < run[2] or not is_plain or tree.has_prefix(folder, HIDDEN):
                    return None
                run = layer, first, last
            elif folder in tree.removed and not run[1] < run[2]:
                return None
        return run if run[1] < run[2] else None

    def _names(self, shares: Sequence[tuple[int, int]]) -> dict[bytes, tuple[int, int]]:
        """The names in a folder, each with the topmost layer that has it, and its code there."""
        named: dict[bytes, tuple[int, int]] = {}
        removed: set[bytes] = set()
        for layer, folder in shares:
            tree = self.tree(layer)
            first, last = tree.span(folder)
            for name, code in zip(tree.names(first, last), tree.codes[first:last], strict=True):
                if name in named or name in removed or name.startswith(HIDDEN):
                    continue
                if code >= 0 or tree.is_made(~code):
                    named[name] = layer, code
            removed |= tree.removed.get(folder, frozenset())
        return named

    def _child(self, path: bytes, layer: int, code: int) -> Place | None:
        if code >= 0:
            return self._leaf(layer, code, 0)
        member = self.tree(layer).folders[~code]
        if member != IMPLICIT:
            return Place(layer, member, is_folder=True)
        return self._locate(path, layer)

    def _leaf(self, layer: int, index: int, floor: int) -> Place | None:
        """The place of a name that is no folder: of a hard link to a layer below, its target's."""
        if index not in self.tree(layer).remarks.low:
            return Place(layer, index)
        key = layer, index
        if key not in self._low:
            found = self._target(layer, index, floor)
            if found is None and floor > 0:
                return None
            if found is None or found.is_folder:
                path, target = self.tree(layer).remarks.low[index]
                self._on_fault(
                    layer,
                    f"{shown(path)} is left out: it is a hard link to {shown(target)}, which is no file below it",
                )
                found = None
            self._low[key] = found
        return self._low[key]

    def _target(self, layer: int, index: int, floor: int) -> Place | None:
        """What a hard link to a layer below leads to. The links in its target's path were followed when its layer was added."""
        _, target = self.tree(layer).remarks.low[index]
        return self._locate(target, layer - 1, floor)

    # ── what is shown ──

    def _entry(self, path: bytes, place: Place) -> RootEntry:
        if place.member == IMPLICIT:
            newest = self.tree(place.layer).remarks.newest if self._trees else 0
            return RootEntry(path, EntryKind.FOLDER, _IMPLICIT_MODE, mtime_ns=newest)
        table, number = self.tree(place.layer).members, place.member
        kind, rare = table.kind(number), table.rare(number)
        is_link = kind is MemberKind.LINK
        target = self.shown_target(path, rare.target) if is_link else b""
        return RootEntry(
            path,
            KINDS[kind],
            table.modes[number] & PERMISSIONS,
            owner(table.uids[number]),
            owner(table.gids[number]),
            len(target) if is_link else table.sizes[number] if kind is MemberKind.FILE else 0,
            table.times[number],
            1 if place.is_folder else self._links(path, place),
            place.identity,
            target,
            rare.device,
            dict(rare.xattrs) if rare.xattrs else _NO_XATTRS,
        )

    def shown_target(self, path: bytes, target: bytes) -> bytes:
        """The target of the link at ``path``, as it is to be shown."""
        return target if self._raw_links else clamped(target, path.count(b"/"))

    def _links(self, path: bytes, place: Place) -> int:
        """How many names of the merged tree stand for the same file."""
        names = self.tree(place.layer).remarks.names.get(place.member)
        linked = self._linked_from_above(place.layer).get(place.member)
        if names is None and linked is None:
            return 1
        candidates = {path, *(names or ())}
        for layer, index in linked or ():
            tree = self.tree(layer)
            own, target = tree.remarks.low[index]
            candidates.update(tree.remarks.names.get(index, [own]))
            candidates.add(target)
        top = len(self._trees) - 1
        same = (self._locate(name, top, place.layer) == place for name in candidates if not _is_hidden(name))
        return max(1, sum(same))

    def many_named(self, layer: int) -> Collection[int]:
        """The members of a layer that may have several names."""
        names, linked = self.tree(layer).remarks.names, self._linked_from_above(layer)
        return names.keys() | linked.keys() if names or linked else ()

    def _linked_from_above(self, layer: int) -> dict[int, list[tuple[int, int]]]:
        """Of the members of a layer, those that hard links in the layers above lead to, and those links."""
        known = self._linked.get(layer)
        if known is None:
            known = {}
            for above in range(layer + 1, len(self._trees)):
                for index in self.tree(above).remarks.low:
                    place = self._leaf(above, index, layer)
                    if place is not None and place.layer == layer:
                        known.setdefault(place.member, []).append((above, index))
            self._linked[layer] = known
        return known


_NO_XATTRS: Final[dict[bytes, bytes]] = {}


def _is_hidden(path: bytes) -> bool:
    return HIDDEN in path and any(part.startswith(HIDDEN) for part in path.split(b"/"))


def walk(merge: Merge, path: bytes = b"") -> Iterator[RootEntry]:
    """Everything below a folder, folders before what is in them."""
    for entry in merge.entries(path) or ():
        yield entry
        if entry.kind is EntryKind.FOLDER:
            yield from walk(merge, entry.path)
