"""An extractor in memory: it applies one member after another to a whole tree, and knows nothing of layers but their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from regfs.image.members import Member, MemberKind


@dataclass(eq=False)
class Thing:
    """An inode. ``member`` is None for a folder that was made on the way."""

    kind: MemberKind
    member: Member | None = None
    layer: int = 0
    content: tuple[int, int] | None = None
    names: dict[bytes, Thing] = field(default_factory=dict)


Upper = set[tuple[int, bytes]]
"""The names that a layer has touched, each in its folder."""


class Refused(Exception):
    """An extractor would end here."""


class Extractor:
    """The tree after the layers that were applied. ``refused``: members at which umoci ends, and this goes on.

    ``odd``: umoci makes something else of it: a whiteout went through a link, or removed a folder that the layer has filled
    before, and has no member for.
    """

    def __init__(self) -> None:
        self.root = Thing(MemberKind.FOLDER)
        self.refused = 0
        self.odd = False
        self._layer = 0

    def apply(self, layer: int, members: Sequence[Member]) -> None:
        self._layer = layer
        upper: Upper = set()
        keep: list[Thing] = []  # so that no identity is used twice
        for index, member in enumerate(members):
            try:
                self._one(layer, index, member, upper, keep)
            except Refused:
                self.refused += 1

    def _one(self, layer: int, index: int, member: Member, upper: Upper, keep: list[Thing]) -> None:
        parts = _clean(member.path)
        if not parts:
            if member.kind is not MemberKind.FOLDER:
                raise Refused
            self.root.member = member
            return
        *way, name = parts
        if name.startswith(b".wh."):
            self._whiteout(way, name, upper)
            return
        folder = self._go(way, upper, keep)
        there = folder.names.get(name)
        if member.kind is MemberKind.FOLDER and there is not None and there.kind is MemberKind.FOLDER:
            there.member, there.layer = member, layer
            upper.add((id(folder), name))
            return
        if member.kind is MemberKind.HARD_LINK:
            made = self._linked(folder, name, member)
        else:
            made = Thing(member.kind, member, layer, (layer, index))
        folder.names[name] = made
        keep.append(made)
        upper.add((id(folder), name))

    def _linked(self, folder: Thing, name: bytes, member: Member) -> Thing:
        folder.names.pop(name, None)
        *way, last = _clean(member.target) or [b""]
        try:
            found = self._go(way, None, []).names.get(last)
        except Refused:
            found = None
        if found is None or found.kind is MemberKind.FOLDER:
            raise Refused
        return found

    def _whiteout(self, way: list[bytes], name: bytes, upper: Upper) -> None:
        before = self.odd
        self.odd = False
        try:
            folder = self._go(way, None, [], note_links=True)
        except Refused:
            self.odd = True
            return
        finally:
            self.odd = self.odd or before
        if name == b".wh..wh..opq":
            self._clear(folder, upper)
            return
        if name[4:] in folder.names:
            self._remove(folder, name[4:], upper)

    def _clear(self, folder: Thing, upper: Upper) -> None:
        for name in list(folder.names):
            self._remove(folder, name, upper)

    def _remove(self, folder: Thing, name: bytes, upper: Upper) -> None:
        """Remove a name, but not one that this layer has touched: of such a folder, what it has not put there."""
        thing = folder.names[name]
        if (id(folder), name) not in upper:
            del folder.names[name]
        elif thing.kind is MemberKind.FOLDER:
            if thing.layer != self._layer:
                # Removed, and made anew on the way to what this layer has in it; umoci keeps its attributes.
                self.odd = self.odd or thing.member is not None
                thing.member = None
            self._clear(thing, upper)

    def _go(
        self, way: Sequence[bytes], upper: Upper | None, keep: list[Thing], *, note_links: bool = False
    ) -> Thing:
        """The folder at the end of the way, links followed within the root; made where ``upper`` is given."""
        made: list[tuple[Thing, bytes, Thing]] = []
        stack = [self.root]
        try:
            self._follow(list(way), stack, None if upper is None else made, note_links)
        except Refused:
            stack = []
            raise
        finally:
            for parent, name, thing in reversed(made):
                if thing not in stack:
                    del parent.names[name]
        if upper is not None:
            keep.extend(stack)
            for parent, thing in pairwise(stack):
                name = next(name for name, child in parent.names.items() if child is thing)
                upper.add((id(parent), name))
        return stack[-1]

    def _follow(
        self,
        todo: list[bytes],
        stack: list[Thing],
        made: list[tuple[Thing, bytes, Thing]] | None,
        note_links: bool,
    ) -> None:
        hops = 0
        while todo:
            part = todo.pop(0)
            if part == b"..":
                del stack[max(1, len(stack) - 1) :]
                continue
            there = stack[-1].names.get(part)
            if there is None:
                if made is None:
                    raise Refused
                there = stack[-1].names[part] = Thing(MemberKind.FOLDER)
                made.append((stack[-1], part, there))
            if there.kind is MemberKind.LINK:
                assert there.member is not None
                self.odd = self.odd or note_links
                hops += 1
                if hops > 40:
                    raise Refused
                if there.member.target.startswith(b"/"):
                    del stack[1:]
                todo[:0] = [p for p in there.member.target.split(b"/") if p not in (b"", b".")]
                continue
            if there.kind is not MemberKind.FOLDER:
                raise Refused
            stack.append(there)

    def walk(self, at: Thing | None = None, prefix: bytes = b"") -> Iterator[tuple[bytes, Thing]]:
        """Every path but the root's."""
        for name, thing in (at or self.root).names.items():
            yield prefix + name, thing
            if thing.kind is MemberKind.FOLDER:
                yield from self.walk(thing, prefix + name + b"/")


def _clean(path: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part and part != b".":
            parts.append(part)
    return parts
