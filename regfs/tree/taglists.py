"""The tags of each repository of one registry, as the registry lists them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from regfs.errors import NotFound, TooLarge
from regfs.ports import Clock, Source, TagFacts, TagPage
from regfs.reference import is_fallback_tag, is_tag
from regfs.tree.bounded import keep
from regfs.tree.listing import Age, Fetch, Paused

MAX_TAGS = 1_000_000
"""The most tags read of one repository; a listing beyond that is taken for one that does not end."""

_SHORTEST_FALLBACK = 66
_KEEP_LISTINGS = 2_000
_KEEP_ABSENT = 50_000


@dataclass(frozen=True, slots=True)
class TagList:
    """A repository's tags, in the registry's order. ``names`` is a dict for its order and its fast look-up.

    ``hidden`` are those that clients keep for themselves: they resolve, and are not listed. ``kept_alone``: there are
    no others, so they are the ``names``.
    """

    names: Mapping[str, None]
    facts: Mapping[str, TagFacts]
    age: Age
    dropped: int = 0
    hidden: Mapping[str, None] = field(default_factory=dict)
    kept_alone: bool = False

    @property
    def kept(self) -> Mapping[str, None]:
        """What clients keep for themselves, listed or not."""
        return self.names if self.kept_alone else self.hidden

    def has(self, tag: str) -> bool:
        """Say whether there is such a tag, listed or not."""
        return tag in self.names or tag in self.hidden


@dataclass(slots=True)
class _Collected:
    shows_all: bool = False
    names: dict[str, None] = field(default_factory=dict)
    hidden: dict[str, None] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    facts: dict[str, TagFacts] = field(default_factory=dict)
    dropped: int = 0
    kept_alone: bool = False

    def take(self, page: TagPage) -> None:
        """Add a page: names outside the grammar are dropped and counted, fallback tags of referrers set aside."""
        for name in page.names:
            if not is_tag(name):
                self.dropped += 1
            elif len(name) >= _SHORTEST_FALLBACK and not self.shows_all and is_fallback_tag(name):
                self.hidden[name] = None
            elif name not in self.names:
                self.names[name] = None
                self.order.append(name)
        if len(self.names) + len(self.hidden) > MAX_TAGS:
            raise TooLarge(f"more than {MAX_TAGS} tags in one repository")
        told = page.facts.items()
        self.facts.update((n, facts) for n, facts in told if n in self.names or n in self.hidden)

    def finish(self) -> None:
        """The last page has come: a repository that holds nothing but fallback tags lists them, or it would seem empty."""
        if not self.names and self.hidden:
            self.kept_alone = True
            self.names, self.hidden = self.hidden, {}
            self.order.extend(self.names)


class Arriving(Fetch[TagPage]):
    """The tags of a repository on their way; ``result`` is there once it ended without an error."""

    result: TagList

    def __init__(self, started: float, *, whole: bool, shows_all: bool = False) -> None:
        super().__init__(started, whole=whole)
        self.collected = _Collected(shows_all)
        self._grown = trio.Event()

    @property
    def names(self) -> Sequence[str]:
        """The tags that have come so far, in the registry's order; it only grows."""
        return self.collected.order

    async def more_than(self, count: int) -> None:
        """Wait until more than ``count`` tags have come, or all. Raises what the listing raised."""
        while len(self.names) <= count and not self.done.is_set():
            await self._grown.wait()
        self.raise_error()

    def take(self, page: TagPage) -> None:
        """Add a page."""
        self.collected.take(page)
        self.grow()

    def grow(self) -> None:
        """Wake those who wait for more."""
        self._grown.set()
        self._grown = trio.Event()


class TagLists:
    """Fetches each repository's tags once for all who ask, and keeps them for their time."""

    def __init__(
        self, source: Source, clock: Clock, ttl: float, deadline: float, *, shows_all: bool = False
    ) -> None:
        """``shows_all``: fallback tags are listed as the others are."""
        self._source = source
        self._shows_all = shows_all
        self._clock = clock
        self._ttl = ttl
        self._deadline = deadline
        self._done: dict[str, TagList] = {}
        self._fetches: dict[str, Arriving] = {}
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._birth: dict[str, int] = {}
        self._since: dict[str, dict[str, int]] = {}
        self.dropped = 0
        self.on_done: Callable[[str, TagList], None] = lambda _repository, _tags: None
        self.on_absent: Callable[[str], None] = lambda _repository: None

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch in ``nursery`` from now on."""
        self._nursery = nursery

    def fresh(self, repository: str) -> TagList | None:
        """The listing, if there is one that may still be shown. Asks nothing."""
        found = self._done.get(repository)
        if found is None or not found.age.is_fresh(self._clock.monotonic(), self._ttl):
            return None
        return found

    def last(self, repository: str) -> TagList | None:
        """The last listing, however old. Asks nothing."""
        return self._done.get(repository)

    def is_absent(self, repository: str) -> bool:
        """Say whether the registry said within ``ttl`` that there is no such repository."""
        asked = self._absent.get(repository)
        return asked is not None and self._clock.monotonic() - asked < self._ttl

    async def exists(self, repository: str) -> None:
        """Make sure that there is such a repository, by the first page at the most. Raises NotFound, and what a Source raises."""
        if self.fresh(repository) is not None:
            return
        self._raise_absent(repository)
        fetch = self._fetch(repository, whole=False)
        await fetch.first.wait()
        if not isinstance(fetch.error, Paused):
            fetch.raise_error()

    async def get(self, repository: str) -> TagList:
        """The whole listing, at most as old as it may be. Raises NotFound, and what a Source raises."""
        found = self.fresh(repository)
        if found is not None:
            if found.age.wants_renewal(self._clock.monotonic(), self._ttl):
                self._fetch(repository, whole=True)
            return found
        self._raise_absent(repository)
        fetch = self._fetch(repository, whole=True)
        await fetch.done.wait()
        fetch.raise_error()
        return fetch.result

    def arriving(self, repository: str) -> Arriving | None:
        """The listing that is on its way, if one is."""
        return self._fetches.get(repository)

    def ahead(self, repository: str) -> None:
        """Begin to fetch a listing that will be wanted."""
        if self.fresh(repository) is None and not self.is_absent(repository):
            self._fetch(repository, whole=True)

    def forget(self, prefix: str = "") -> int:
        """Forget the listings of ``prefix`` and below, those on their way too; how many there were."""
        gone = [name for name in self._done if _is_below(name, prefix)]
        for name in gone:
            del self._done[name]
        for name in [name for name in self._fetches if _is_below(name, prefix)]:
            del self._fetches[name]
        for name in [name for name in self._absent if _is_below(name, prefix)]:
            del self._absent[name]
        return len(gone)

    def is_there(self, repository: str) -> None:
        """A repository was found: that it was absent before is forgotten."""
        self._absent.pop(repository, None)

    def born(self, repository: str) -> int:
        """When the first page of a listing was first seen, in nanoseconds since 1970."""
        return self._birth[repository]

    def first_seen_all(self, repository: str) -> int | None:
        """When the mount first saw the listing, where no tag has come to it since."""
        return None if self._since.get(repository) else self._birth.get(repository)

    def first_seen(self, repository: str, tag: str) -> int | None:
        """When the mount first saw a listed tag, in nanoseconds since 1970."""
        return self._since.get(repository, {}).get(tag, self._birth.get(repository))

    def _raise_absent(self, repository: str) -> None:
        if self.is_absent(repository):
            raise NotFound(f"there is no repository {repository}", registry=self._source.name)

    def _fetch(self, repository: str, *, whole: bool) -> Arriving:
        fetch = self._fetches.get(repository)
        if fetch is None:
            assert self._nursery is not None, "start() comes first"
            fetch = Arriving(self._clock.monotonic(), whole=whole, shows_all=self._shows_all)
            self._fetches[repository] = fetch
            self._nursery.start_soon(self._run, repository, fetch)
        elif whole:
            fetch.want_whole()
        return fetch

    async def _run(self, repository: str, fetch: Arriving) -> None:
        def take(page: TagPage) -> None:
            self._birth.setdefault(repository, int(self._clock.time() * 1e9))
            fetch.take(page)

        try:
            await fetch.run(
                lambda: self._source.tags(repository),
                take,
                self._deadline,
                pause=max(self._ttl, 1.0),
            )
        finally:
            # No await from here to the end: who finds no fetch must find what it brought.
            self._landed(repository, fetch)
            fetch.grow()

    def _landed(self, repository: str, fetch: Arriving) -> None:
        collected = fetch.collected
        if fetch.error is None:
            age = Age(fetch.started, self._clock.monotonic() - fetch.paused)
            collected.finish()
            fetch.result = TagList(
                collected.names,
                collected.facts,
                age,
                collected.dropped,
                collected.hidden,
                collected.kept_alone,
            )
        if self._fetches.get(repository) is not fetch:
            return  # it was forgotten while it was on its way: only who asked before that may see it
        del self._fetches[repository]
        if fetch.error is None:
            self._keep(repository, fetch.result)
        elif isinstance(fetch.error, NotFound):
            self._done.pop(repository, None)
            keep(self._absent, repository, fetch.started, _KEEP_ABSENT)
            self.on_absent(repository)

    def _keep(self, repository: str, tags: TagList) -> None:
        self._note_new(repository, tags)
        self.dropped += tags.dropped
        self._done[repository] = tags
        self._absent.pop(repository, None)
        if len(self._done) > _KEEP_LISTINGS:
            self._prune(self._clock.monotonic())
        self.on_done(repository, tags)

    def _note_new(self, repository: str, tags: TagList) -> None:
        wall = int(self._clock.time() * 1e9)
        self._birth.setdefault(repository, wall)
        before = self._done.get(repository)
        known = before.names.keys() if before is not None else tags.names.keys()
        late = {n: since for n, since in self._since.get(repository, {}).items() if n in tags.names}
        late.update(dict.fromkeys(tags.names.keys() - known, wall))
        self._since[repository] = late

    def _prune(self, now: float) -> None:
        for name in [n for n, tags in self._done.items() if not tags.age.is_fresh(now, self._ttl)]:
            del self._done[name]


def _is_below(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}/")
