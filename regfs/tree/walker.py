"""Fetching ahead of a reader that goes through a listing: `find`, `cat */manifest.json`, `grep -r`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator

import trio

from regfs.errors import RegfsError
from regfs.ports import Answer
from regfs.tree.names import NameFolder
from regfs.tree.order import Way
from regfs.tree.registry import Registry

AHEAD = 16
"""How many entries are fetched ahead of a walking reader."""

_IDLE = 5.0
_WALKS = 8


class _Walk:
    """One reader's walk: what was fetched ahead of it, in the order in which it will come to it."""

    def __init__(self, registry: Registry, way: Way, *, into_tags: bool) -> None:
        self.registry = registry
        self.way = way
        self.into_tags = into_tags
        self.ahead: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.moved = trio.Event()
        self.ended = False

    def reached(self, key: tuple[str, str]) -> bool:
        """The reader came to ``key``: True if that was foreseen."""
        if key not in self.ahead:
            return False
        while self.ahead.popitem(last=False)[0] != key:
            pass
        self.moved.set()
        self.moved = trio.Event()
        return True


class Walker:
    """Notices readers that open siblings in listing order, and asks for the next ones together.

    After the second sibling in a row the next `AHEAD` are fetched; a walk over tags goes on into the repositories
    that follow: their listings, then their tags.
    """

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._last: dict[tuple[str, str], str] = {}
        self._walks: OrderedDict[int, _Walk] = OrderedDict()

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch ahead in ``nursery`` from now on."""
        self._nursery = nursery

    def visited(self, folder: NameFolder) -> None:
        """A reader opens ``folder``. Costs nothing unless it is one of siblings opened in order."""
        registry, parent = folder.registry, folder.parent
        if not isinstance(parent, NameFolder) or parent.order is None or registry.contents.is_metered:
            return
        key = (folder.repository, folder.name)
        for walk in self._walks.values():
            if walk.registry is registry and walk.reached(key):
                return
        last = self._last.get((registry.name, parent.full))
        self._remember(registry.name, parent.full, folder.name)
        way = None if last is None else parent.order.way(last, folder.name)
        if way is not None:
            into_tags = registry.tag_answer(folder.repository, folder.name) is not Answer.NO
            self._begin(_Walk(registry, way, into_tags=into_tags), parent, folder.name)

    def _remember(self, registry: str, path: str, name: str) -> None:
        self._last.pop((registry, path), None)
        self._last[registry, path] = name
        if len(self._last) > 1000:
            del self._last[next(iter(self._last))]

    def _begin(self, walk: _Walk, parent: NameFolder, name: str) -> None:
        assert self._nursery is not None, "start() comes first"
        self._walks[id(walk)] = walk
        if len(self._walks) > _WALKS:
            _, oldest = self._walks.popitem(last=False)
            oldest.ended = True
        self._nursery.start_soon(self._run, walk, parent, name)

    async def _run(self, walk: _Walk, parent: NameFolder, name: str) -> None:
        try:
            async for key in _successors(walk, parent, name):
                walk.ahead[key] = None
                while len(walk.ahead) >= AHEAD and not walk.ended:
                    with trio.move_on_after(_IDLE) as idle:
                        await walk.moved.wait()
                    walk.ended = walk.ended or idle.cancelled_caught
                if walk.ended:
                    return
            with trio.move_on_after(_IDLE):
                while walk.ahead:
                    await walk.moved.wait()
        except RegfsError:
            return  # the reader will meet the same error, and it is his to see
        finally:
            self._walks.pop(id(walk), None)


async def _successors(walk: _Walk, parent: NameFolder, name: str) -> AsyncIterator[tuple[str, str]]:
    """What comes after ``name``, in the order of a walk: each is asked for as it is given."""
    folder: NameFolder | None = parent
    while folder is not None and folder.order is not None:
        for sibling in folder.order.behind(name, walk.way):
            async for key in _enter(walk, folder.full, sibling):
                yield key
        if not walk.into_tags:
            return
        name = folder.name
        folder = folder.parent if isinstance(folder.parent, NameFolder) else None


async def _enter(walk: _Walk, path: str, name: str) -> AsyncIterator[tuple[str, str]]:
    """One name of a listing: a tag's manifest is begun; a repository is listed, and its entries follow."""
    registry = walk.registry
    if registry.tag_answer(path, name) is Answer.YES:
        if walk.into_tags:
            registry.contents.ahead(path, name)
            yield path, name
        return
    full = f"{path}/{name}" if path else name
    if not walk.into_tags:
        registry.ahead(full)
        yield path, name
        return
    listing = await registry.list_folder(full)
    for child in walk.way.of(dict.fromkeys((*listing.tags, *listing.nested))):
        async for key in _enter(walk, full, child):
            yield key
