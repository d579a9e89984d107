"""A long listing that is read while its later pages are still on their way.

Only on a read-only mount: there nothing is taken out of a listing meanwhile, so that what was read stays at its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from regfs.errors import DeadlineExceeded, RegfsError
from regfs.ports import Answer
from regfs.tree.flights import Flight
from regfs.tree.names import Listed, NameFolder
from regfs.tree.nodes import Node
from regfs.tree.taglists import Arriving


class Incoming:
    """A folder of which some tags have come; ``whole`` is its listing, with all that follows the tags."""

    def __init__(self, folder: NameFolder, arriving: Arriving, whole: Flight[Sequence[Node]]) -> None:
        self.folder = folder
        self._arriving = arriving
        self._whole = whole

    @property
    def is_complete(self) -> bool:
        """True once the whole listing is there."""
        return self._whole.landed.is_set()

    async def upto(self, place: int) -> Sequence[Node]:
        """The entries so far, once there is one at ``place`` or no more will come. Raises what listing raised."""
        await self._arriving.more_than(place)
        if len(self._arriving.names) > place and not self.is_complete:
            return _SoFar(self.folder, self._arriving)
        try:
            return await self._whole.outcome()
        except DeadlineExceeded:
            # Who waited for the whole had to give up; whoever read along has it all by now, and the end is short.
            return await self.folder.entries()


class _SoFar(Listed):
    """The tags that have come so far."""

    def __init__(self, folder: NameFolder, arriving: Arriving) -> None:
        super().__init__(folder, arriving.names, frozenset())
        self._arriving = arriving

    def stretch(self) -> Callable[[Node], tuple[int, float] | None]:
        registry, full = self._folder.registry, self._full
        same = (registry.tags.born(full), registry.arriving_left(self._arriving))
        seen = registry.contents.was_seen
        return lambda node: None if seen(full, node.name) else same


async def entries_as_they_come(folder: NameFolder) -> Sequence[Node] | Incoming:
    """A folder's entries, or what there is of them once its first tags have come and it is known to be no tag itself."""
    registry, full = folder.registry, folder.full
    if registry.tags.fresh(full) is not None or not registry.may_have_tags(full):
        return await folder.entries()
    whole = registry.listings.launch(folder, folder.entries)
    registry.tags.ahead(full)
    arriving = registry.tags.arriving(full)
    if arriving is None:
        return await whole.outcome()
    part: list[Arriving] = []

    async def wait_for_part() -> None:
        with suppress(RegfsError):
            await arriving.more_than(0)
            if registry.catalog.by_namespace:
                await registry.is_tag(folder.repository, folder.name)
            else:
                await registry.catalog.get("")
        if _is_readable(folder, arriving):
            part.append(arriving)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_part)
        await whole.landed.wait()
        nursery.cancel_scope.cancel()
    return Incoming(folder, part[0], whole) if part and not whole.landed.is_set() else await whole.outcome()


def _is_readable(folder: NameFolder, arriving: Arriving) -> bool:
    """Whether what has come may be shown: it is no tag's folder, and the listing brings no dates that are to be shown."""
    is_no_tag = not folder.may_be_tag or (
        folder.registry.tag_answer(folder.repository, folder.name) is Answer.NO
    )
    return is_no_tag and bool(arriving.names) and not arriving.done.is_set() and not arriving.collected.facts
