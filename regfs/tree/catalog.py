"""Which repositories and namespaces one registry has, as it lists them and as they were found by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import takewhile

import trio

from regfs.errors import ListingRefused, NotFound
from regfs.ports import Answer, Clock, ListsNamespaces, ListsRepositories, NamespacePage, Source
from regfs.tree.bounded import keep
from regfs.tree.listing import Age, Fetch, Paused
from regfs.tree.namelist import MAX_REPOSITORIES, Names, above

__all__ = ["MAX_REPOSITORIES", "Catalog", "Names"]

_KEEP_PROOFS = 1_000
_KEEP_LISTS = 2_000
_KEEP_ABSENT = 50_000


class _Listing(Fetch[Sequence[str] | NamespacePage]):
    """A list on its way."""

    def __init__(self, started: float, names: Names, *, whole: bool) -> None:
        super().__init__(started, whole=whole)
        self.names = names

    def take(self, page: Sequence[str] | NamespacePage) -> None:
        """Add a page."""
        if isinstance(page, NamespacePage):
            self.names.take_namespace(page)
        else:
            self.names.take(page)


class Catalog:
    """Fetches each list of names once for all who ask, and keeps it for its time.

    A registry that lists by namespace has a list for each folder that somebody looked into, by the folder's name; for any
    other there is one, the root's, which tells of everything. A refusal is kept like a list: it is not asked for
    again within ``ttl``.
    """

    def __init__(self, source: Source, clock: Clock, ttl: float, deadline: float) -> None:
        self._source = source
        self._clock = clock
        self._ttl = ttl
        self._deadline = deadline
        self._lists: dict[str, Names] = {}
        self._refused: OrderedDict[str, tuple[ListingRefused, float]] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._there: OrderedDict[str, float] = OrderedDict()
        self._fetches: dict[str, _Listing] = {}
        self._nursery: trio.Nursery | None = None
        self._proofs: OrderedDict[str, float] = OrderedDict()
        self.proven = Names(lists_all=False)
        """What was found by name, or is configured; it holds where no list can be had, or one that is not all."""

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch in ``nursery`` from now on."""
        self._nursery = nursery

    @property
    def by_namespace(self) -> bool:
        """Whether the registry is asked for one namespace at a time."""
        return self._source.capability(ListsNamespaces) is not None

    @property
    def dropped(self) -> int:
        """How many names of the last lists were outside the grammar."""
        return sum(names.dropped for names in self._lists.values())

    # ── what is known without asking ──

    def fresh(self, path: str = "") -> Names | None:
        """The list that tells what is below ``path``, if there is one that may still be shown."""
        if not self._lists:
            return None
        own = self._own(path)
        if own is not None or not path:
            return own
        found = next((names for key in above(path) if (names := self._own(key)) is not None), None)
        return found if found is not None and found.covers(path) else None

    def last(self, path: str) -> Names | None:
        """The last list of ``path`` itself, however old."""
        return self._lists.get(path)

    def _own(self, key: str) -> Names | None:
        found = self._lists.get(key)
        if found is None or found.age is None:
            return None
        return found if found.age.is_fresh(self._clock.monotonic(), self._ttl) else None

    def views(self, path: str, names: Names | None) -> Sequence[Names]:
        """All that tells of names below ``path``; ``names``: its list, where there is one."""
        if names is not None and names.lists_all:
            return (names,)
        others = [found for key in above(path) if (found := self._own(key)) is not None]
        return [*([names] if names is not None else []), *others, self.proven]

    def repository_answer(self, path: str) -> Answer:
        """Whether ``path`` is a repository, by the lists."""
        if not self._lists:
            return Answer.UNKNOWN
        over = self.fresh(path.rpartition("/")[0])
        if over is not None and path in over.repositories:
            return Answer.YES
        own = self._own(path)
        if own is not None:
            if path in own.repositories:
                return Answer.YES
            return Answer.NO if own.lists_all or path not in self.proven.repositories else Answer.UNKNOWN
        is_ruled_out = over is not None and over.lists_all and path not in over.namespaces
        return Answer.NO if is_ruled_out else Answer.UNKNOWN

    def tells_of(self, path: str) -> bool:
        """Say whether a list leads to ``path``, or the registry has begun to list what is in it, within ``ttl``."""
        if self._is_recent(self._there.get(path)):
            return True
        if not self._lists:
            return False
        return any((names := self._own(key)) is not None and names.leads_on(path) for key in above(path))

    def is_absent(self, path: str) -> bool:
        """Say whether the registry said within ``ttl`` that there is no such namespace."""
        return self._is_recent(self._absent.get(path))

    def refusal(self, path: str = "") -> ListingRefused | None:
        """The registry's refusal to list what is in ``path``, if it is recent."""
        if not self._refused:
            return None
        found = self._refused.get(path if self.by_namespace else "")
        return found[0] if found is not None and self._clock.monotonic() - found[1] <= self._ttl else None

    def left(self, path: str) -> float:
        """For how many seconds more a name that a list tells of may be shown; 0: none does."""
        if not self._lists and not self._there:
            return 0.0
        now = self._clock.monotonic()
        lists = ((key, self._lists.get(key)) for key in (path, *above(path)))
        ages = [
            n.age
            for key, n in lists
            if n is not None and n.age is not None and (key == path or n.names(path))
        ]
        there = self._there.get(path)
        left = [age.left(now, self._ttl) for age in ages]
        return max(0.0, *left, 0.0 if there is None else there + self._ttl - now)

    def _is_recent(self, asked: float | None) -> bool:
        return asked is not None and self._clock.monotonic() - asked < self._ttl

    # ── what was found by name ──

    def prove(self, repository: str) -> None:
        """A repository was found by name just now."""
        self.proven.add(repository)
        keep(self._proofs, repository, self._clock.monotonic(), _KEEP_PROOFS)

    def is_proven_of_late(self, path: str, is_hidden: Callable[[str], bool]) -> bool:
        """Say whether a repository below ``path`` was found by name within ``ttl``, and has not been hidden since."""
        if not self._proofs:
            return False
        now, below = self._clock.monotonic(), f"{path}/"
        recent = takewhile(lambda proof: now - proof[1] < self._ttl, reversed(self._proofs.items()))
        return any(
            name.startswith(below) and name in self.proven.repositories and not is_hidden(name)
            for name, _ in recent
        )

    # ── what is asked ──

    async def get(self, path: str) -> Names:
        """The whole list of what is below ``path``, at most as old as it may be.

        Raises ListingRefused, NotFound where there is no such namespace, and what a Source raises.
        """
        found = self.fresh(path)
        if found is not None:
            if found.age is not None and found.age.wants_renewal(self._clock.monotonic(), self._ttl):
                self._begin(found.root, whole=True)
            return found
        fetch = self._begin(self._key(path), whole=True)
        await fetch.done.wait()
        fetch.raise_error()
        return fetch.names

    async def look(self, path: str) -> Names:
        """A list by which it is known whether ``path`` is a namespace: the first page of its own, or the one list.

        Raises as `get` does.
        """
        found = self.fresh(path)
        if found is not None or not self.by_namespace:
            return found or await self.get(path)
        fetch = self._begin(self._key(path), whole=False)
        await fetch.first.wait()
        if not isinstance(fetch.error, Paused):
            fetch.raise_error()
        return fetch.names

    def ahead(self, path: str) -> None:
        """Begin to fetch a list that will be wanted."""
        if self.fresh(path) is None and self.refusal(path) is None and not self.is_absent(path):
            self._begin(path if self.by_namespace else "", whole=True)

    def forget(self, prefix: str = "") -> int:
        """Forget the lists that tell of ``prefix`` or of what is below it, those on their way too; how many there were."""
        count = 0
        for kept in (self._lists, self._refused, self._absent, self._there, self._fetches):
            gone = [key for key in kept if _concerns(key, prefix)]
            for key in gone:
                del kept[key]
            count += len(gone) if kept is self._lists or kept is self._refused else 0
        return count

    def _key(self, path: str) -> str:
        """The name of the list to ask for. Raises what the registry said about it within ``ttl``."""
        refused = self.refusal(path)
        if refused is not None:
            raise refused.with_traceback(None)
        if self.is_absent(path):
            raise NotFound(f"there is no namespace {path}", registry=self._source.name)
        return path if self.by_namespace else ""

    def _begin(self, key: str, *, whole: bool) -> _Listing:
        fetch = self._fetches.get(key)
        if fetch is None:
            assert self._nursery is not None, "start() comes first"
            # What a registry shows first need not be all: it does not tell that a namespace is not there.
            names = Names(key, lists_all=bool(key) or not self.by_namespace)
            fetch = self._fetches[key] = _Listing(self._clock.monotonic(), names, whole=whole)
            self._nursery.start_soon(self._run, key, fetch)
        elif whole:
            fetch.want_whole()
        return fetch

    async def _run(self, key: str, fetch: _Listing) -> None:
        def take(page: Sequence[str] | NamespacePage) -> None:
            fetch.take(page)
            if key and self._fetches.get(key) is fetch:
                keep(self._there, key, fetch.started, _KEEP_LISTS)
                self._absent.pop(key, None)

        try:
            await fetch.run(
                lambda: self._pages(key),
                take,
                self._deadline,
                pause=max(self._ttl, 1.0) if key else self._deadline,
            )
        finally:
            # No await from here to the end: who finds no fetch must find what it brought.
            self._landed(key, fetch)

    def _landed(self, key: str, fetch: _Listing) -> None:
        now = self._clock.monotonic()
        fetch.names.age = Age(fetch.started, now - fetch.paused)
        if self._fetches.get(key) is not fetch:
            return  # it was forgotten while it was on its way: only who asked before that may see it
        del self._fetches[key]
        if fetch.error is None:
            self._keep(key, fetch.names)
        elif isinstance(fetch.error, ListingRefused):
            keep(self._refused, key, (fetch.error, now), _KEEP_LISTS)
        elif isinstance(fetch.error, NotFound) and key:
            self._lists.pop(key, None)
            self._there.pop(key, None)
            keep(self._absent, key, fetch.started, _KEEP_ABSENT)

    def _keep(self, key: str, names: Names) -> None:
        self._lists.pop(key, None)
        self._lists[key] = names
        if len(self._lists) > _KEEP_LISTS:
            for old in [name for name in self._lists if name and self._own(name) is None]:
                del self._lists[old]

    def _pages(self, key: str) -> AsyncIterator[Sequence[str] | NamespacePage]:
        namespaces = self._source.capability(ListsNamespaces)
        if namespaces is not None:
            return namespaces.namespace(key)
        lister = self._source.capability(ListsRepositories)
        if lister is None:
            raise ListingRefused(
                "this registry cannot say which repositories it has", registry=self._source.name
            )
        return lister.repositories()


def _concerns(key: str, prefix: str) -> bool:
    """Say whether the list ``key`` tells of ``prefix``, or of something below it."""
    is_over = not key or key == prefix or prefix.startswith(f"{key}/")
    return is_over or not prefix or key.startswith(f"{prefix}/")
