"""Names of a layer that is still arriving, as far as the one pass over it has come.

What is told so early is provisional: a later member of the same name may take its place, and the layer may prove wrong.
Only what its own member decides is told. Once a member comes that a link or a layer below may lead elsewhere, or that takes
a folder away, all waits for the layer's end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import trio

from regfs.image.limits import Limits
from regfs.image.links import contained
from regfs.image.members import WHITEOUT, Arrival, Member, MemberKind
from regfs.image.merge import Merge
from regfs.ports import RootEntry

_ROOM: Final = 64 * 1024 * 1024
"""Bytes that the names of one layer may take here: half a million of ordinary ones."""

_EACH: Final = 100
_INLINE: Final = 100
"""Members that are taken in on the loop; more of them in a thread: each takes some 5 µs."""


class EarlyPaths:
    """Which member each path of a layer stands for, as members come. No I/O; what it can't be sure of it does not say.

    ``is_lowest``: there is no layer below. ``is_unsure``: a member has come that may change what others made: nothing more
    is said.
    """

    def __init__(self, limits: Limits, *, is_lowest: bool) -> None:
        self.is_unsure = False
        self._depth = limits.depth
        self._is_lowest = is_lowest
        self._room = _ROOM
        self._numbers: dict[bytes, int] = {}
        self._folders = {b""}
        self._names: dict[int, list[bytes]] = {}
        self._late: set[bytes] = set()
        """Hard links to what is not known here."""

    def find(self, path: bytes) -> int | None:
        """The number of the member that a path stands for; of a folder without one, of a member that is in it."""
        return None if self.is_unsure else self._numbers.get(path)

    def is_folder(self, path: bytes) -> bool:
        """Whether what `find` finds is a folder."""
        return path in self._folders

    def names(self, number: int, path: bytes) -> list[bytes]:
        """All paths that stand for the member that ``path`` does."""
        return [name for name in self._names.get(number, [path]) if self._numbers.get(name) == number]

    def add(self, number: int, member: Member) -> None:
        """The layer's next member."""
        path = member.path if b".." not in member.path else b"/".join(contained(member.path))
        if self.is_unsure or not path or _is_marked(path) or path.count(b"/") >= self._depth:
            return
        if not self._has_folder(path.rpartition(b"/")[0], number):
            self._give_up()
        elif member.kind is MemberKind.FOLDER:
            self._folders.add(path)
            self._put(path, number)
        elif path in self._folders:
            self._give_up()
        elif member.kind is MemberKind.HARD_LINK:
            self._link(path, b"/".join(contained(member.target)))
        else:
            self._put(path, number)

    def _put(self, path: bytes, number: int) -> None:
        self._numbers[path] = number
        self._room -= len(path) + _EACH
        if self._room < 0:
            self._give_up()

    def _has_folder(self, folder: bytes, number: int) -> bool:
        """Whether there is a folder, and surely no link to one. Of the lowest layer those without a member of their own are such too."""
        lacking: list[bytes] = []
        while folder not in self._folders:
            if not self._is_lowest or folder in self._numbers or folder in self._late:
                return False
            lacking.append(folder)
            folder = folder.rpartition(b"/")[0]
        for path in lacking:
            self._folders.add(path)
            self._put(path, number)
        return True

    def _link(self, path: bytes, target: bytes) -> None:
        number = self._numbers.get(target)
        if number is None or target == path or target in self._folders:
            self._numbers.pop(path, None)
            self._late.add(path)
            return
        self._put(path, number)
        self._names.setdefault(number, [target]).append(path)

    def _give_up(self) -> None:
        self.is_unsure = True
        for each in (self._numbers, self._folders, self._names, self._late):
            each.clear()


def _is_marked(path: bytes) -> bool:
    """Whether a name in it is a whiteout's, or hidden: neither is shown, nor changes what its own layer has."""
    return WHITEOUT in path and any(part.startswith(WHITEOUT) for part in path.split(b"/"))


@dataclass(frozen=True, slots=True)
class Early:
    """The identity of a provisional entry: the pass that told of it, and a member of the image's ``layer``.

    ``has_member``: it is that member, and not only a folder that has it in it. ``shown``: the entry, but for its identity.
    """

    arrival: Arrival
    layer: int
    number: int
    has_member: bool
    member: Member = field(compare=False)
    shown: RootEntry = field(compare=False)

    def again(self, path: bytes) -> RootEntry:
        """The entry, by one of its paths."""
        return replace(self.shown, path=path, identity=self)


class EarlyLayer:
    """What the pass over a layer of an image has shown so far.

    ``is_left`` says whether the layers above leave a path to it.
    """

    def __init__(
        self,
        arrival: Arrival,
        layer: int,
        limits: Limits,
        is_left: Callable[[bytes], bool],
        *,
        raw_links: bool,
    ) -> None:
        self.arrival = arrival
        self._layer = layer
        self._limits = limits
        self._is_left = is_left
        self._raw_links = raw_links
        self._paths = EarlyPaths(limits, is_lowest=layer == 0)
        self._count = 0
        self._growing = trio.Lock()

    async def find(self, path: bytes) -> RootEntry | None:
        """A path's provisional entry, once the pass is past it; None: it has to wait for the layer's end, or that has come. Raises what ended the pass else."""
        while not self.arrival.is_over:
            async with self._growing:
                members = self.arrival.members
                await self._take_in(members)
                found = self._entry(path, members)
            if found is not None or self._paths.is_unsure:
                break
            await self.arrival.more(self._count)
        else:
            found = None
        self.arrival.check()
        return found

    async def _take_in(self, members: Sequence[Member]) -> None:
        end = len(members)
        if end - self._count > _INLINE:
            await trio.to_thread.run_sync(self._take, members, end)
        else:
            self._take(members, end)

    def _take(self, members: Sequence[Member], end: int) -> None:
        for number in range(self._count, end):
            self._paths.add(number, members[number])
        self._count = end

    def _entry(self, path: bytes, members: Sequence[Member]) -> RootEntry | None:
        number = self._paths.find(path)
        if number is None or not self._is_left(path):
            return None
        member = members[number]
        is_folder = self._paths.is_folder(path)
        has_member = not is_folder or b"/".join(contained(member.path)) == path
        if not is_folder:
            member = msgspec.structs.replace(member, path=path)
        # Alone it makes what it makes in its layer: where anything else has a say, it is not found here.
        alone = Merge(1, self._limits, raw_links=self._raw_links)
        alone.add(0, [member])
        entry = alone.find(path)
        if entry is None:
            return None
        names = [path] if is_folder else self._paths.names(number, path)
        links = max(1, sum(map(self._is_left, names)))
        shown = replace(entry, links=links, is_provisional=True)
        return Early(self.arrival, self._layer, number, has_member, member, shown).again(path)
