"""An image's layers merged into one tree, from the top down, as far as a question needs it. No I/O: what lacks is raised."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

from regfs.image.limits import Limits
from regfs.image.links import clamped
from regfs.image.members import Member, MemberKind
from regfs.image.merge_layer import HIDDEN, IMPLICIT, Branch, LayerTree, build_layer, shown
from regfs.ports import EntryKind, RootEntry

_KINDS: Final = {
    MemberKind.FILE: EntryKind.FILE,
    MemberKind.LINK: EntryKind.LINK,
    MemberKind.CHARACTER_DEVICE: EntryKind.CHARACTER_DEVICE,
    MemberKind.BLOCK_DEVICE: EntryKind.BLOCK_DEVICE,
    MemberKind.FOLDER: EntryKind.FOLDER,
    MemberKind.FIFO: EntryKind.FIFO,
}
_IMPLICIT_MODE: Final = 0o755
_HOPS: Final = 40
_MEMBER_BITS: Final = 32
_NO_OWNER: Final = 2**32 - 1
_OVERFLOW_OWNER: Final = 65534


class LayerMissing(Exception):
    """The answer needs a layer that has not been added. No error of a user's."""

    def __init__(self, layer: int) -> None:
        super().__init__(f"layer {layer} is not there yet")
        self.layer = layer


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry comes from: a layer, counted from the bottom, and a member of it.

    ``member`` is `IMPLICIT` for a folder that no layer has a member for; ``layer`` is then the topmost that makes it.
    """

    layer: int
    member: int
    is_folder: bool = False

    @property
    def identity(self) -> int | None:
        """The same as one number; None: it is no member."""
        return None if self.member == IMPLICIT else self.layer << _MEMBER_BITS | self.member


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

    # ── layers ──

    def add(self, layer: int, members: Sequence[Member]) -> None:
        """Add a layer's members, each layer once. Raises LayerMissing where links below decide where they belong."""
        tree = build_layer(members, self._limits)
        if tree.is_unsure or self._leads_elsewhere(tree.ghosts, layer):
            tree = build_layer(members, self._limits, lambda path: self._below(path, layer))
        self._trees[layer] = tree
        for line in tree.faults:
            self._on_fault(layer, line)

    def has(self, layer: int) -> bool:
        """Whether it was added."""
        return self._trees[layer] is not None

    def _tree(self, layer: int) -> LayerTree:
        tree = self._trees[layer]
        if tree is None:
            raise LayerMissing(layer)
        return tree

    def _leads_elsewhere(self, ghosts: Sequence[bytes], layer: int) -> bool:
        """Whether any folder that a layer takes for granted is something else in the layers below."""
        found = (self._below(path, layer) for path in ghosts)
        return any(there is not None and there[0] is not MemberKind.FOLDER for there in found)

    def _below(self, path: bytes, layer: int) -> tuple[MemberKind, bytes] | None:
        place = self._followed(path, layer - 1)
        if place is None:
            return None
        if place.is_folder:
            return MemberKind.FOLDER, b""
        member = self.member(place)
        return member.kind, member.target

    # ── questions ──

    def find(self, path: bytes) -> RootEntry | None:
        """The entry of that very path, or None."""
        place = self._locate(path, len(self._trees) - 1)
        return None if place is None or _is_hidden(path) else self._entry(path, place)

    def entries(self, path: bytes) -> Sequence[RootEntry] | None:
        """What a folder holds, by name in byte order, each entry made as it is read. None: there is no folder of that path."""
        place = self._locate(path, len(self._trees) - 1)
        if place is None or not place.is_folder or _is_hidden(path):
            return None
        prefix = path + b"/" if path else b""
        named = self._names(path)
        names: list[bytes] = []
        identities: list[int | None] = []
        for name in sorted(named):
            child = self._child(prefix + name, *named[name])
            if child is not None:
                names.append(name)
                identities.append(child.identity)
        return _Entries(self, prefix, names, identities)

    def size(self, path: bytes) -> int | None:
        """About how many names a folder holds. None: there is no folder of that path."""
        place = self._locate(path, len(self._trees) - 1)
        return None if place is None or not place.is_folder else len(self._names(path))

    def member(self, place: Place) -> Member:
        """The member an entry was made from; not for an implicit folder."""
        return self._tree(place.layer).members[place.member]

    def again(self, path: bytes, identity: Hashable) -> RootEntry | None:
        """An entry that `find` or `entries` gave before."""
        if not isinstance(identity, int):
            return self.find(path)
        place = _place(identity)
        is_folder = self.member(place).kind is MemberKind.FOLDER
        return self._entry(path, Place(place.layer, place.member, is_folder=is_folder))

    def place_of(self, entry: RootEntry) -> Place:
        """Where a file's content is: the place that its identity says."""
        assert isinstance(entry.identity, int)
        return _place(entry.identity)

    # ── how it is found ──

    def _locate(self, path: bytes, top: int, floor: int = 0) -> Place | None:
        """What the layers from ``top`` down to ``floor`` have at a path."""
        parts = path.split(b"/") if path else []
        folder: Place | None = None
        for layer in range(top, floor - 1, -1):
            found, closed = self._tree(layer).probe(parts)
            if isinstance(found, int):
                return folder if folder is not None else self._leaf(layer, found, floor)
            if found is not None and (found.member != IMPLICIT or not parts or found.is_made):
                if found.member != IMPLICIT:
                    return Place(layer, found.member, is_folder=True)
                folder = folder or Place(layer, IMPLICIT, is_folder=True)
            if closed:
                return folder
        return folder if folder is not None or parts else Place(max(top, 0), IMPLICIT, is_folder=True)

    def _names(self, path: bytes) -> dict[bytes, tuple[int, Branch | int]]:
        """The names in a folder, each with the topmost layer that has it, and what it is there."""
        parts = path.split(b"/") if path else []
        named: dict[bytes, tuple[int, Branch | int]] = {}
        removed: set[bytes] = set()
        for layer in range(len(self._trees) - 1, -1, -1):
            found, closed = self._tree(layer).probe(parts)
            if isinstance(found, int):
                break
            if found is not None:
                for name, child in found.children.items():
                    if name in named or name in removed or name.startswith(HIDDEN):
                        continue
                    if isinstance(child, int) or child.is_made:
                        named[name] = layer, child
                removed |= found.removed
            if closed or (found is not None and found.opaque):
                break
        return named

    def _child(self, path: bytes, layer: int, child: Branch | int) -> Place | None:
        if isinstance(child, int):
            return self._leaf(layer, child, 0)
        if child.member != IMPLICIT:
            return Place(layer, child.member, is_folder=True)
        return self._locate(path, layer)

    def _leaf(self, layer: int, index: int, floor: int) -> Place | None:
        """The place of a name that is no folder: of a hard link to a layer below, its target's."""
        if index not in self._tree(layer).low:
            return Place(layer, index)
        key = layer, index
        if key not in self._low:
            found = self._target(layer, index, floor)
            if found is None and floor > 0:
                return None
            if found is None or found.is_folder:
                path, target = self._tree(layer).low[index]
                self._on_fault(
                    layer,
                    f"{shown(path)} is left out: it is a hard link to {shown(target)}, which is no file below it",
                )
                found = None
            self._low[key] = found
        return self._low[key]

    def _target(self, layer: int, index: int, floor: int) -> Place | None:
        """What a hard link to a layer below leads to; links in the path of its target are followed, as `link` does."""
        _, target = self._tree(layer).low[index]
        return self._followed(target, layer - 1, floor)

    def _followed(self, path: bytes, top: int, floor: int = 0) -> Place | None:
        """What the layers from ``top`` down to ``floor`` have at a path, with the links among its folders followed."""
        found = self._locate(path, top, floor)
        if found is None:
            real = self._resolved(path, top, floor)
            found = None if real is None or real == path else self._locate(real, top, floor)
        return found

    def _resolved(self, path: bytes, top: int, floor: int) -> bytes | None:
        """The path with the links among its folders followed, clamped to the root. None: they lead nowhere."""
        todo = list(reversed(path.split(b"/")))
        real: list[bytes] = []
        hops = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del real[-1:]
                continue
            real.append(part)
            place = self._locate(b"/".join(real), top, floor) if todo else None
            if place is None or place.is_folder:
                continue
            member = self.member(place)
            hops += 1
            if member.kind is not MemberKind.LINK or hops > _HOPS:
                return None
            real = [] if member.target.startswith(b"/") else real[:-1]
            todo.extend(reversed([p for p in member.target.split(b"/") if p not in (b"", b".")]))
        return b"/".join(real)

    # ── what is shown ──

    def _entry(self, path: bytes, place: Place) -> RootEntry:
        if place.member == IMPLICIT:
            newest = self._tree(place.layer).newest if self._trees else 0
            return RootEntry(path, EntryKind.FOLDER, _IMPLICIT_MODE, mtime_ns=newest)
        member = self.member(place)
        is_link = member.kind is MemberKind.LINK
        target = self._shown_target(path, member) if is_link else b""
        return RootEntry(
            path,
            _KINDS[member.kind],
            member.mode & 0o7777,
            _owner(member.uid),
            _owner(member.gid),
            len(target) if is_link else member.size if member.kind is MemberKind.FILE else 0,
            member.mtime_ns,
            1 if place.is_folder else self._links(path, place),
            place.identity,
            target,
            member.device,
            dict(member.xattrs) if member.xattrs else _NO_XATTRS,
        )

    def _shown_target(self, path: bytes, member: Member) -> bytes:
        if self._raw_links:
            return member.target
        return clamped(member.target, path.count(b"/"))

    def _links(self, path: bytes, place: Place) -> int:
        """How many names of the merged tree stand for the same file."""
        names = self._tree(place.layer).names.get(place.member)
        linked = self._linked_from_above(place.layer).get(place.member)
        if names is None and linked is None:
            return 1
        candidates = {path, *(names or ())}
        for layer, index in linked or ():
            tree = self._tree(layer)
            own, target = tree.low[index]
            candidates.update(tree.names.get(index, [own]))
            candidates.add(self._resolved(target, layer - 1, place.layer) or target)
        top = len(self._trees) - 1
        same = (self._locate(name, top, place.layer) == place for name in candidates if not _is_hidden(name))
        return max(1, sum(same))

    def _linked_from_above(self, layer: int) -> dict[int, list[tuple[int, int]]]:
        """Of the members of a layer, those that hard links in the layers above lead to, and those links."""
        known = self._linked.get(layer)
        if known is None:
            known = {}
            for above in range(layer + 1, len(self._trees)):
                for index in self._tree(above).low:
                    place = self._leaf(above, index, layer)
                    if place is not None and place.layer == layer:
                        known.setdefault(place.member, []).append((above, index))
            self._linked[layer] = known
        return known


class _Entries(Sequence[RootEntry]):
    """A folder's entries. A hundred thousand of them would take 40 MB."""

    def __init__(
        self, merge: Merge, prefix: bytes, names: Sequence[bytes], identities: Sequence[int | None]
    ) -> None:
        self._merge = merge
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
        entry = self._merge.again(self._prefix + self._names[place], self._identities[place])
        assert entry is not None, "it was there when the folder was listed"
        return entry


_NO_XATTRS: Final[dict[bytes, bytes]] = {}


def _place(identity: int) -> Place:
    return Place(identity >> _MEMBER_BITS, identity & (1 << _MEMBER_BITS) - 1)


def _owner(number: int) -> int:
    """A user or group as the kernel can say it; beyond that, its own number for one that can't be shown."""
    return number if 0 <= number < _NO_OWNER else _OVERFLOW_OWNER


def _is_hidden(path: bytes) -> bool:
    return HIDDEN in path and any(part.startswith(HIDDEN) for part in path.split(b"/"))


def walk(merge: Merge, path: bytes = b"") -> Iterator[RootEntry]:
    """Everything below a folder, folders before what is in them."""
    for entry in merge.entries(path) or ():
        yield entry
        if entry.kind is EntryKind.FOLDER:
            yield from walk(merge, entry.path)
