"""Which files changed between two images: by the layers that only one of them has, and no further.

Two images can only differ in what a layer names that is not at the bottom of both. So the layers they share from the bottom up
are looked into only where the answer needs it (was a file added, or changed?), and no file of theirs is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from regfs.cli.differences import Change
from regfs.errors import NotFound
from regfs.ports import EntryKind, RootEntry, RootTree

if TYPE_CHECKING:
    from collections.abc import Hashable

    from regfs.image.members import Member
    from regfs.manifest import Descriptor

_PIECE: Final = 1024 * 1024
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Fact:
    """A file of one image as it is compared and shown."""

    entry: RootEntry
    origin: Hashable = None
    """The same for the same member of the same layer."""

    @property
    def mark(self) -> str:
        """What `ls -F` puts behind a name."""
        return _MARKS.get(self.entry.kind, "")

    def aspect(self, name: str) -> str | None:
        """One aspect as text; None where there is nothing to show of it."""
        entry = self.entry
        shown = {
            "type": entry.kind.value,
            "mode": f"{entry.mode:04o}",
            "owner": f"{entry.uid}:{entry.gid}",
            "size": str(entry.size),
            "target": as_text(entry.target),
            "device": str(entry.device),
        }
        return shown.get(name)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        entry = self.entry
        value: dict[str, object] = {
            "type": entry.kind.value,
            "mode": f"{entry.mode:04o}",
            "uid": entry.uid,
            "gid": entry.gid,
            "size": entry.size,
            "mtime": entry.mtime_ns / _SECOND,
        }
        if entry.kind is EntryKind.LINK:
            value["target"] = as_text(entry.target)
        return value


_MARKS: Final = {EntryKind.FOLDER: "/", EntryKind.LINK: "@", EntryKind.FIFO: "|"}


@dataclass(slots=True)
class Touched:
    """What the layers name that are not at the bottom of both images.

    ``whole``: names of which the layers below are hidden: where it is a folder, all in it may differ. ``above``: what is taken
    for a folder, since something is named in it. ``is_tangled``: something
    is named below what need not have been a folder at that moment: a link may have led elsewhere, and everything may differ.
    """

    paths: set[bytes] = field(default_factory=set)
    whole: set[bytes] = field(default_factory=set)
    above: set[bytes] = field(default_factory=set)
    _no_folders: set[bytes] = field(default_factory=set)
    _folders: set[bytes] = field(default_factory=set)
    _supposed: set[bytes] = field(default_factory=set)

    def take(self, members: Iterable[Member]) -> None:
        """Add a layer's members, in the order of its archive."""
        from regfs.image.links import contained
        from regfs.image.members import OPAQUE, WHITEOUT, MemberKind

        said: set[bytes] = set()
        for member in members:
            *above, last = contained(member.path) or [b""]
            named = b"/".join([*above, last])
            if last == OPAQUE:
                named = b"/".join(above)
                self.whole.add(named)
            elif last.startswith(WHITEOUT):
                named = b"/".join([*above, last[len(WHITEOUT) :]])
                self._hide(named)
            elif member.kind is MemberKind.FOLDER:
                said.add(named)
                self._folders.add(named)
            else:
                self._hide(named)
            self.paths.add(named)
            folders = [b"/".join(above[:depth]) for depth in range(1, len(above) + 1)]
            self._supposed.update(folder for folder in folders if folder not in said)
            self.paths.update(folders)
            self.above.update(folders)

    def _hide(self, path: bytes) -> None:
        self.whole.add(path)
        self._no_folders.add(path)

    @property
    def is_tangled(self) -> bool:
        """See above."""
        if self._supposed & self._folders:
            return True
        return any(above in self._no_folders for path in self.paths for above in _above(path))


@dataclass(frozen=True, slots=True)
class FileTree:
    """One image's files, and its layers from the bottom up."""

    root: RootTree
    layers: Sequence[Descriptor]

    async def find(self, path: bytes) -> Fact | None:
        """What is at a path, or None."""
        try:
            return self._fact(await self.root.find(path))
        except NotFound:
            return None

    async def entries(self, path: bytes) -> dict[bytes, Fact]:
        """What a folder holds, by path."""
        return {entry.path: self._fact(entry) for entry in await self.root.entries(path)}

    def _fact(self, entry: RootEntry) -> Fact:
        layer = self.root.layer_of(entry)
        # A layer at the bottom of both images has the same place in both, so an identity in it means the same member.
        return Fact(entry, None if layer is None else (layer, entry.identity))


class Comparison:
    """The comparison of two trees; ``times``: a time of change that differs is a difference."""

    def __init__(self, a: FileTree, b: FileTree, *, times: bool = False) -> None:
        self._a = a
        self._b = b
        self._times = times
        self._found: dict[bytes, Change] = {}
        self._seen: set[bytes] = set()

    async def changes(self, touched: Touched) -> list[Change]:
        """What differs of what was touched, by path in byte order. Raises what reading a layer raises."""
        if touched.is_tangled:
            return await self.everything()
        for path in sorted(touched.paths | touched.whole):
            before, after = await self._a.find(path), await self._b.find(path)
            if path in touched.above and (_is_link(before) or _is_link(after)):
                return await self.everything()
            if path and path not in self._seen:
                await self._compare(path, before, after)
            if path in touched.whole and _is_folder(before) and _is_folder(after):
                await self._compare_folders(path)
        return [self._found[path] for path in sorted(self._found)]

    async def everything(self) -> list[Change]:
        """What differs at all: looks at every name of both trees."""
        self._found.clear()
        await self._compare_folders(b"")
        return [self._found[path] for path in sorted(self._found)]

    async def _compare_folders(self, path: bytes) -> None:
        before, after = await self._listed(self._a, path), await self._listed(self._b, path)
        for child in sorted(before.keys() | after.keys()):
            await self._compare(child, before.get(child), after.get(child))
            if _is_folder(before.get(child)) and _is_folder(after.get(child)):
                await self._compare_folders(child)

    async def _listed(self, tree: FileTree, path: bytes) -> dict[bytes, Fact]:
        found = await tree.find(path)
        return await tree.entries(path) if _is_folder(found) else {}

    async def _compare(self, path: bytes, before: Fact | None, after: Fact | None) -> None:
        """Note how a name differs. What is in a folder that only one image has is in that image only."""
        self._seen.add(path)
        if before is None and after is None:
            return
        if before is None or after is None:
            self._found[path] = Change(as_text(path), before, after)
        else:
            what = await self._aspects(before, after)
            if what:
                self._found[path] = Change(as_text(path), before, after, what)
        if _is_folder(before) != _is_folder(after):
            await self._all_below(
                path, self._a if _is_folder(before) else self._b, removed=_is_folder(before)
            )

    async def _all_below(self, path: bytes, tree: FileTree, *, removed: bool) -> None:
        for child, fact in (await tree.entries(path)).items():
            self._seen.add(child)
            before, after = (fact, None) if removed else (None, fact)
            self._found[child] = Change(as_text(child), before, after)
            if _is_folder(fact):
                await self._all_below(child, tree, removed=removed)

    async def _aspects(self, before: Fact, after: Fact) -> tuple[str, ...]:
        if before.origin is not None and before.origin == after.origin:
            return ()
        a, b = before.entry, after.entry
        pairs: list[tuple[str, Any, Any]] = [
            ("type", a.kind, b.kind),
            ("mode", a.mode, b.mode),
            ("owner", (a.uid, a.gid), (b.uid, b.gid)),
            ("attributes", dict(a.xattrs), dict(b.xattrs)),
        ]
        if a.kind is b.kind:
            pairs += [("target", a.target, b.target), ("device", a.device, b.device)]
        if a.kind is b.kind is EntryKind.FILE:
            pairs.append(("size", a.size, b.size))
        if self._times:
            pairs.append(("time", a.mtime_ns // _SECOND, b.mtime_ns // _SECOND))
        what = [name for name, old, new in pairs if old != new]
        if a.kind is b.kind is EntryKind.FILE and (a.size != b.size or not await self._same_bytes(a, b)):
            what.append("content")
        return tuple(what)

    async def _same_bytes(self, a: RootEntry, b: RootEntry) -> bool:
        """Whether two files of one size hold the same. Their times tell nothing: builders set them to one moment."""
        old = await self._a.root.open(a)
        try:
            new = await self._b.root.open(b)
            try:
                for start in range(0, a.size, _PIECE):
                    if await old.read(start, _PIECE) != await new.read(start, _PIECE):
                        return False
                return True
            finally:
                await new.aclose()
        finally:
            await old.aclose()


def _above(path: bytes) -> list[bytes]:
    """The folders above a path, the root not among them."""
    parts = path.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(1, len(parts))]


def _is_link(fact: Fact | None) -> bool:
    return fact is not None and fact.entry.kind is EntryKind.LINK


def _is_folder(fact: Fact | None) -> bool:
    return fact is not None and fact.entry.kind is EntryKind.FOLDER


def as_text(path: bytes) -> str:
    """A name of an image as text: bytes that are no UTF-8 as ``\\xNN``."""
    return path.decode(errors="backslashreplace")
