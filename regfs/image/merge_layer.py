"""What one layer does to the tree below it: its members in their order, as an extractor would apply them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from regfs.image.layertree import Branch, LayerTree, Remarks
from regfs.image.limits import Limits
from regfs.image.links import contained
from regfs.image.members import OPAQUE, WHITEOUT, Member, MemberKind
from regfs.image.table import MemberTable

HIDDEN: Final = b".wh..wh."
"""How names of AUFS's own begin (``.wh..wh.plnk`` and others): never shown, but hard links of old images lead to them."""

_HOPS: Final = 40
"""Links followed on one path, as Linux's MAXSYMLINKS."""

_MORE: Final = (MemberKind.FOLDER, MemberKind.HARD_LINK)
"""Members that are more than a name."""

_FAULTS: Final = 20
"""Lines kept of one layer; what comes after is counted."""


Below = Callable[[bytes], tuple[MemberKind, bytes] | None]
"""What the layers below have at a path: its kind and, of a link, its target."""


class _Left(Exception):
    """A member that is left out, and why."""


def tree_of(members: MemberTable, limits: Limits) -> LayerTree:
    """What a layer's members make, as far as the layer itself tells; found out once. Others who ask meanwhile wait."""
    with members.lock:
        tree = members.tree
        if tree is None or tree.limits != str(limits) or tree.count != len(members):
            tree = members.tree = build_layer(members, limits)
        return tree


def build_layer(members: MemberTable, limits: Limits, below: Below | None = None) -> LayerTree:
    """Apply a layer's members to an empty tree. Without ``below`` no link of another layer is followed."""
    builder = _Builder(members, limits, below)
    faults = builder.remarks.faults
    count = len(members)
    left_out = 0
    for index, member in enumerate(members):
        if index >= count:
            break  # what has come since then is another tree's
        if index >= limits.members:
            faults.append(f"over {limits.members} members: the rest is left out")
            break
        try:
            builder.add(index, member)
        except _Left as reason:
            left_out += 1
            if left_out <= _FAULTS:
                faults.append(f"{shown(member.path)} is left out: {reason}")
    if left_out > _FAULTS:
        faults.append(f"{left_out - _FAULTS} more members are left out")
    return LayerTree.grown(members, count, str(limits), builder.root, builder.remarks, builder.ghosts)


def shown(path: bytes) -> str:
    """A path for a message: short, on one line, with nothing in it that steers a terminal."""
    text = path[:200].decode("utf-8", "backslashreplace")
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return clean + ("…" if len(path) > 200 else "") or "/"


class _Builder:
    """A tree that grows with each member. ``ghosts``: folders without a member so far, which may be links below."""

    def __init__(self, members: MemberTable, limits: Limits, below: Below | None) -> None:
        self.root = Branch()
        self.remarks = Remarks()
        self.ghosts: list[bytes] = []
        self._members = members
        self._limits = limits
        self._below = below
        self._near: tuple[bytes, Branch] | None = None
        """The folder of the member before, by its path as it is written, if no link is on the way there."""

    def add(self, index: int, member: Member) -> None:
        self._check(member)
        self.remarks.newest = max(self.remarks.newest, member.mtime_ns)
        if self._add_near(index, member):
            return
        self._near = None
        parts = contained(member.path)
        if not parts:
            if member.kind is not MemberKind.FOLDER:
                raise _Left("the root can't be anything but a folder")
            self.root.member = index
            return
        name = parts[-1]
        self._check_names(parts)
        if name.startswith(WHITEOUT) and not name.startswith(HIDDEN):
            self._whiteout(parts[:-1], name[len(WHITEOUT) :])
        elif name == OPAQUE:
            self._walk(parts[:-1]).branch.opaque = True
        else:
            self._place(index, member, parts)

    def _add_near(self, index: int, member: Member) -> bool:
        """Add a name to the folder of the member before, which most members are. False: there is more to it."""
        folder, _, name = member.path.rpartition(b"/")
        if self._near is None or self._near[0] != folder or member.kind in _MORE:
            return False
        if name in (b"", b".", b"..") or len(name) > self._limits.name or name.startswith(WHITEOUT):
            return False
        self._near[1].children[name] = index
        return True

    def _whiteout(self, folder: Sequence[bytes], name: bytes) -> None:
        if name in (b"", b".", b".."):
            raise _Left("it removes nothing that a name stands for")
        self._walk(folder).branch.remove(name)

    def _place(self, index: int, member: Member, parts: list[bytes]) -> None:
        name = parts[-1]
        walk = self._walk(parts[:-1])
        walk.make()
        branch, trail = walk.branch, walk.trail
        there = branch.children.get(name)
        if member.kind is MemberKind.HARD_LINK:
            self._hard_link(index, member, branch, [*trail, name])
        elif member.kind is not MemberKind.FOLDER:
            branch.children[name] = index
        elif isinstance(there, Branch):
            there.member, there.is_made = index, True
        else:
            # What hid the folder of a layer below still does, though it is itself a folder by now.
            branch.children[name] = Branch(index, opaque=there is not None)
        if not walk.hops and member.kind is not MemberKind.HARD_LINK:
            self._near = member.path.rpartition(b"/")[0], branch

    def _hard_link(self, index: int, member: Member, branch: Branch, parts: list[bytes]) -> None:
        """A link that can't be made has removed what bore its name before, as with link(2) after unlink(2)."""
        path = b"/".join(parts)
        try:
            target, found = self._linked(member, path)
        except _Left:
            branch.children.pop(parts[-1], None)
            branch.remove(parts[-1])
            raise
        branch.children[parts[-1]] = self._link(index, path, target, found)

    def _link(self, index: int, path: bytes, target: bytes, found: int | None) -> int:
        """The number that a hard link bears."""
        if found is None:
            self.remarks.low[index] = (path, target)
            return index
        self.remarks.names.setdefault(found, [target]).append(path)
        return found

    def _linked(self, member: Member, own: bytes) -> tuple[bytes, int | None]:
        """Where the target of the hard link at ``own`` is, and its number; None: in a layer below."""
        parts = contained(member.target)
        if not parts:
            raise _Left("it is a hard link to the root")
        walk = _Walk(self, parts[:-1], create=False)
        name = parts[-1]
        path = b"/".join([*walk.trail, name])
        if path == own or path.startswith(own + b"/"):
            raise _Left("it is a hard link to itself, or into itself")
        child = walk.found.children.get(name) if walk.found is not None else None
        if isinstance(child, Branch) and (child.is_made or walk.closed):
            raise _Left(f"it is a hard link to a folder, {shown(path)}")
        if isinstance(child, int):
            return path, child
        if walk.closed or (walk.found is not None and name in walk.found.removed):
            raise _Left(f"it is a hard link to {shown(path)}, which is not there")
        return path, None

    def _walk(self, parts: Sequence[bytes]) -> _Walk:
        """The way to a folder; its branches are there then, whether or not the layer makes the folder."""
        return _Walk(self, parts, create=True)

    def target_of(self, index: int, path: bytes) -> bytes | None:
        """Where the link leads that stands in the path of another member; None: it is a hard link to nothing."""
        there: tuple[MemberKind, bytes] | None = (
            self._members.kind(index),
            self._members.rare(index).target,
        )
        if index in self.remarks.low:
            self.remarks.is_unsure = True
            there = self._below(self.remarks.low[index][1]) if self._below is not None else None
            if there is None or there[0] is MemberKind.FOLDER:
                return None
        if there is not None and there[0] is MemberKind.LINK:
            return there[1]
        raise _Left(f"its folder {shown(path)} is no folder")

    def target_below(self, trail: list[bytes]) -> bytes | None:
        """Where the link leads that the layers below have at a path; None: they have a folder there, or nothing."""
        path = b"/".join(trail)
        if self._below is None:
            self.ghosts.append(path)
            return None
        there = self._below(path)
        if there is None or there[0] is MemberKind.FOLDER:
            return None
        if there[0] is MemberKind.LINK:
            return there[1]
        raise _Left(f"its folder {shown(path)} is no folder")

    def _check(self, member: Member) -> None:
        limits = self._limits
        if len(member.path) > limits.path or len(member.target) > limits.path:
            raise _Left(f"its path or target is over {limits.path} bytes")
        if b"\0" in member.path or b"\0" in member.target:
            raise _Left("there is a NUL in its path or target")
        if member.kind is MemberKind.LINK and not member.target:
            raise _Left("it is a link that leads nowhere")
        if not 0 <= member.size <= limits.size:
            raise _Left(f"it claims a size of {member.size} bytes")

    def _check_names(self, parts: Sequence[bytes]) -> None:
        limits = self._limits
        if len(parts) > limits.depth:
            raise _Left(f"it is over {limits.depth} folders deep")
        if any(len(part) > limits.name for part in parts):
            raise _Left(f"a name in it is over {limits.name} bytes")
        if any(part.startswith(WHITEOUT) and not part.startswith(HIDDEN) for part in parts[:-1]):
            raise _Left("its folder has the name of a whiteout")


class _Walk:
    """The way to a folder of a layer, link by link.

    ``trail``: the folder's real path. ``closed``: nothing of the layers below shows there. ``hops``: links on the way.
    """

    def __init__(self, builder: _Builder, parts: Sequence[bytes], *, create: bool) -> None:
        self._builder = builder
        self._create = create
        self.hops = 0
        self._stack: list[tuple[Branch | None, bool]] = []
        self._restart()
        todo = list(reversed(parts))
        while todo:
            target = self._step(todo.pop())
            if target is not None:
                self.hops += 1
                if self.hops > _HOPS:
                    raise _Left("links lead from one to another without an end")
                if target.startswith(b"/"):
                    self._restart()
                todo.extend(reversed([part for part in target.split(b"/") if part not in (b"", b".")]))

    @property
    def found(self) -> Branch | None:
        """The folder; None where the way leaves what this layer has."""
        return self._stack[-1][0]

    @property
    def branch(self) -> Branch:
        """The folder, on a way that creates what it lacks."""
        found = self.found
        assert found is not None
        return found

    def make(self) -> None:
        """The layer makes all folders on the way."""
        for branch, _ in self._stack:
            if branch is not None:
                branch.is_made = True

    @property
    def closed(self) -> bool:
        return self._stack[-1][1]

    def _restart(self) -> None:
        root = self._builder.root
        self.trail: list[bytes] = []
        self._stack = [(root, root.opaque)]

    def _step(self, part: bytes) -> bytes | None:
        """Go on into one folder; the target, where a link is in its place."""
        if part == b"..":
            if self.trail:
                self.trail.pop()
                self._stack.pop()
            return None
        here, closed = self._stack[-1]
        child = None if here is None else here.children.get(part)
        path = [*self.trail, part]
        closed = closed or (here is not None and part in here.removed)
        if isinstance(child, int):
            target = self._builder.target_of(child, b"/".join(path))
            if target is not None:
                return target
            assert here is not None
            del here.children[part]
            here.remove(part)
            child, closed = None, True
        if isinstance(child, Branch):
            closed = closed or child.opaque
        elif not closed:
            target = self._builder.target_below(path)
            if target is not None:
                return target
        if child is None and self._create:
            assert here is not None
            child = here.children[part] = Branch()
        self.trail = path
        self._stack.append((child, closed))
        return None
