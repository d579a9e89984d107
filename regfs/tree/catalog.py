"""Which repositories one registry has, as it lists them and as they were found by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import trio

from regfs.errors import ListingRefused, TooLarge
from regfs.ports import Clock, ListsRepositories, Source
from regfs.reference import is_repository
from regfs.tree.bounded import keep
from regfs.tree.listing import Age, Fetch

MAX_REPOSITORIES = 1_000_000
"""The most repositories read of one registry; a catalog beyond that is taken for one that does not end."""


@dataclass(slots=True)
class Names:
    """Repository names as a tree of folders: for each folder the next components, in the order they came."""

    repositories: dict[str, None] = field(default_factory=dict)
    children: dict[str, dict[str, None]] = field(default_factory=dict)
    dropped: int = 0

    def add(self, repository: str) -> None:
        """Add a repository and the folders that lead to it."""
        if repository in self.repositories:
            return
        self.repositories[repository] = None
        self.add_folder(repository)

    def add_folder(self, path: str) -> None:
        """Add a folder and those that lead to it, without saying that it is a repository."""
        while path:
            parent, _, name = path.rpartition("/")
            siblings = self.children.setdefault(parent, {})
            if name in siblings:
                return
            siblings[name] = None
            path = parent

    def discard(self, repository: str) -> None:
        """Remove a repository, and the folders that led only to it."""
        self.repositories.pop(repository, None)
        path = repository
        while path and path not in self.children and path not in self.repositories:
            parent, _, name = path.rpartition("/")
            siblings = self.children.get(parent, {})
            siblings.pop(name, None)
            if siblings or parent not in self.children:
                return
            del self.children[parent]
            path = parent

    def take(self, page: Iterable[str]) -> None:
        """Add a page of a catalog: names outside the grammar are dropped and counted."""
        for name in page:
            if is_repository(name):
                self.add(name)
            else:
                self.dropped += 1
        if len(self.repositories) > MAX_REPOSITORIES:
            raise TooLarge(f"more than {MAX_REPOSITORIES} repositories in one registry")

    def leads_on(self, path: str) -> bool:
        """Say whether ``path`` is the beginning of a longer name."""
        return path in self.children

    def below(self, path: str) -> Iterable[str]:
        """The next components behind ``path``."""
        return self.children.get(path, {})


_KEEP_PROOFS = 1_000


class _Listing(Fetch[Sequence[str]]):
    """The list of repositories on its way."""

    def __init__(self, started: float, *, whole: bool) -> None:
        super().__init__(started, whole=whole)
        self.names = Names()


class Catalog:
    """Fetches the list of repositories once for all who ask, and keeps it for its time.

    A refusal is kept like a list: the registry is not asked again within ``ttl``.
    """

    def __init__(self, source: Source, clock: Clock, ttl: float, deadline: float) -> None:
        self._source = source
        self._clock = clock
        self._ttl = ttl
        self._deadline = deadline
        self._names: Names | None = None
        self._age: Age | None = None
        self._refused: tuple[ListingRefused, float] | None = None
        self._fetch: _Listing | None = None
        self._nursery: trio.Nursery | None = None
        self._proofs: OrderedDict[str, float] = OrderedDict()
        self.proven = Names()
        """What was found by name, or is configured; it holds where no list can be had."""

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch in ``nursery`` from now on."""
        self._nursery = nursery

    @property
    def dropped(self) -> int:
        """How many names of the last list were outside the grammar."""
        return self._names.dropped if self._names else 0

    @property
    def age(self) -> Age | None:
        """The age of the last list."""
        return self._age

    def fresh(self) -> Names | None:
        """The list, if there is one that may still be shown. Asks nothing."""
        now = self._clock.monotonic()
        return self._names if self._age is not None and self._age.is_fresh(now, self._ttl) else None

    def refusal(self) -> ListingRefused | None:
        """The registry's refusal to list, if it is recent."""
        if self._refused is None or self._clock.monotonic() - self._refused[1] > self._ttl:
            return None
        return self._refused[0]

    def prove(self, repository: str) -> None:
        """A repository was found by name just now."""
        self.proven.add(repository)
        keep(self._proofs, repository, self._clock.monotonic(), _KEEP_PROOFS)

    def is_proven_of_late(self, path: str) -> bool:
        """Say whether a repository below ``path`` was found by name within ``ttl``."""
        now, below = self._clock.monotonic(), f"{path}/"
        recent = takewhile(lambda proof: now - proof[1] < self._ttl, reversed(self._proofs.items()))
        return any(name.startswith(below) and name in self.proven.repositories for name, _ in recent)

    async def get(self) -> Names:
        """The whole list, at most as old as it may be. Raises ListingRefused, and what a Source raises."""
        found = self.fresh()
        if found is not None:
            if self._age is not None and self._age.wants_renewal(self._clock.monotonic(), self._ttl):
                self._begin()
            return found
        refused = self.refusal()
        if refused is not None:
            raise refused.with_traceback(None)
        fetch = self._begin()
        await fetch.done.wait()
        fetch.raise_error()
        return fetch.names

    def forget(self) -> int:
        """Forget the list, one on its way too, and a refusal; how many there were."""
        count = int(self._age is not None or self._refused is not None)
        self._age = self._refused = self._fetch = None
        return count

    def _begin(self) -> _Listing:
        if self._fetch is None:
            assert self._nursery is not None, "start() comes first"
            self._fetch = _Listing(self._clock.monotonic(), whole=True)
            self._nursery.start_soon(self._run, self._fetch)
        return self._fetch

    async def _run(self, fetch: _Listing) -> None:
        try:
            await fetch.run(self._pages, fetch.names.take, self._deadline, pause=self._deadline)
        finally:
            # No await from here to the end: who finds no fetch must find what it brought.
            self._landed(fetch)

    def _landed(self, fetch: _Listing) -> None:
        if self._fetch is not fetch:
            return  # it was forgotten while it was on its way: only who asked before that may see it
        self._fetch = None
        now = self._clock.monotonic()
        if fetch.error is None:
            self._names, self._age = fetch.names, Age(fetch.started, now)
        elif isinstance(fetch.error, ListingRefused):
            self._refused = fetch.error, now

    def _pages(self) -> AsyncIterator[Sequence[str]]:
        lister = self._source.capability(ListsRepositories)
        if lister is None:
            raise ListingRefused(
                "this registry cannot say which repositories it has", registry=self._source.name
            )
        return lister.repositories()
