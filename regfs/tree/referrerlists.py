"""What refers to each manifest of one registry, as far as the registry says, and how old that is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import trio

from regfs.digest import Digest
from regfs.errors import NotFound, RegfsError
from regfs.manifest import Descriptor, Manifest
from regfs.ports import Clock, ListsReferrers, Source
from regfs.reference import fallback_tag
from regfs.tree.bounded import keep
from regfs.tree.contents import Contents
from regfs.tree.flights import Flights
from regfs.tree.listing import Age, closing_pages
from regfs.tree.referrerkinds import (
    COSIGN_TAGS,
    attested,
    full_name,
    kind_of,
    referrer_names,
    tells_what_it_is,
)

MAX_REFERRERS = 10_000
"""The most manifests that are shown to refer to one."""

_KEEP_LISTS = 2_000
_KEEP_ATTESTED = 20_000
_KEEP_FOREIGN = 10_000

Place = tuple[str, Digest]
"""A repository, and a manifest in it."""


@dataclass(slots=True)
class _Listed:
    """What a registry said: each referrer with its kind. ``names`` are made when needed, with ``named`` attestations."""

    kinds: dict[Digest, str]
    age: Age
    named: int = -1
    names: Mapping[str, Digest] = field(default_factory=dict)


class ReferrerLists:
    """Asks once for all who want to know, and keeps the answers for their time.

    ``digest_of``: where a tag leads, asking where that is not known; NotFound where there is none.
    """

    def __init__(
        self,
        source: Source,
        contents: Contents,
        digest_of: Callable[[str, str], Awaitable[Digest]],
        clock: Clock,
        ttl: float,
        deadline: float,
    ) -> None:
        self._source = source
        self._contents = contents
        self._digest_of = digest_of
        self._clock = clock
        self._ttl = ttl
        # A long list goes on behind whoever has to give up, and the next one finds it further.
        self._flights = Flights(deadline * 4)
        self._lists: OrderedDict[Place, _Listed] = OrderedDict()
        self._attested: OrderedDict[Place, dict[Digest, str]] = OrderedDict()
        self._foreign: OrderedDict[tuple[str, Digest, Digest], None] = OrderedDict()
        self.dropped = 0
        """How many entries were told of that cannot be used, or that refer to something else."""
        contents.on_index = self.note_index

    def start(self, nursery: trio.Nursery) -> None:
        """Ask in ``nursery`` from now on."""
        self._flights.start(nursery)

    def forget(self, prefix: str = "") -> None:
        """Forget what refers to manifests of ``prefix`` and below. What an index says of its own entries stays true."""
        for place in [p for p in self._lists if not prefix or f"{p[0]}/".startswith(f"{prefix}/")]:
            del self._lists[place]

    def left(self, repository: str, subject: Digest) -> float:
        """For how many seconds more a list may be shown; 0: there is none."""
        listed = self._lists.get((repository, subject))
        return 0.0 if listed is None else max(0.0, listed.age.left(self._clock.monotonic(), self._ttl))

    async def names(self, repository: str, subject: Digest) -> Mapping[str, Digest]:
        """Name and digest of all that refers to a manifest, in the names' order. Raises what a Source raises."""
        named = (await self._current(repository, subject)).names
        return {n: d for n, d in named.items() if not self._is_foreign(repository, subject, d)}

    async def find(self, repository: str, subject: Digest, name: str) -> Digest:
        """The digest of one referrer, by its name or its full one. Raises NotFound, and what a Source raises."""
        listed = await self._current(repository, subject)
        digest = listed.names.get(name)
        if digest is None:
            kinds = self._kinds(listed, repository, subject)
            digest = next((d for d, kind in kinds if full_name(kind, d) == name), None)
        if digest is None or self._is_foreign(repository, subject, digest):
            raise NotFound(f"nothing called {name[:80]!r} refers to {repository}@{subject}")
        return digest

    def note_index(self, repository: str, index: Manifest) -> None:
        """An index was read: entries of BuildKit's are about other entries of it."""
        for entry in index.manifests:
            subject = attested(entry)
            if subject is not None:
                known = self._attested.get((repository, subject), {})
                if len(known) < MAX_REFERRERS:
                    known[entry.digest] = kind_of(entry)
                keep(self._attested, (repository, subject), known, _KEEP_ATTESTED)

    # ── how it is asked ──

    async def _current(self, repository: str, subject: Digest) -> _Listed:
        """The list, its names made."""
        place = (repository, subject)
        listed = self._lists.get(place)
        if listed is None or not listed.age.is_fresh(self._clock.monotonic(), self._ttl):
            listed = await self._flights.share(place, lambda: self._ask(repository, subject))
        attestations = len(self._attested.get(place, ()))
        if listed.named != attestations:
            listed.names = referrer_names(dict(self._kinds(listed, repository, subject)))
            listed.named = attestations
        return listed

    def _kinds(self, listed: _Listed, repository: str, subject: Digest) -> Iterator[tuple[Digest, str]]:
        yield from listed.kinds.items()
        for digest, kind in self._attested.get((repository, subject), {}).items():
            if digest not in listed.kinds:
                yield digest, kind

    async def _ask(self, repository: str, subject: Digest) -> _Listed:
        """Ask the registry for its list, and for cosign's tags, all at once."""
        started = self._clock.monotonic()
        told: dict[Digest, Descriptor] = {}
        tags: dict[str, Digest] = {}
        errors: list[RegfsError] = []

        async def attempt(ask: Callable[[], Awaitable[None]]) -> None:
            try:
                await ask()
            except RegfsError as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

        async def look(suffix: str) -> None:
            try:
                tags[suffix] = await self._digest_of(repository, f"{fallback_tag(subject)}.{suffix}")
            except NotFound:
                return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, lambda: self._list(repository, subject, told))
            for suffix in COSIGN_TAGS:
                nursery.start_soon(attempt, lambda suffix=suffix: look(suffix))
        if errors:
            raise errors[0].with_traceback(None)
        listed = _Listed(_kinds(told, tags), Age(started, self._clock.monotonic()))
        keep(self._lists, (repository, subject), listed, _KEEP_LISTS)
        return listed

    async def _list(self, repository: str, subject: Digest, told: dict[Digest, Descriptor]) -> None:
        lister = self._source.capability(ListsReferrers, repository)
        if lister is None:
            return
        pages = lister.referrers(repository, subject)
        async with closing_pages(pages):
            async for page in pages:
                self.dropped += page.dropped
                for found in page.referrers:
                    if found.is_manifest and found.digest != subject and len(told) < MAX_REFERRERS:
                        told.setdefault(found.digest, found)
                    else:
                        self.dropped += 1

    def _is_foreign(self, repository: str, subject: Digest, referrer: Digest) -> bool:
        """Whether a referrer says itself that it refers to something else: known once it was read, for other reasons."""
        manifest = self._contents.at_hand(repository, referrer)
        if manifest is None or manifest.subject is None or manifest.subject.digest == subject:
            return (repository, subject, referrer) in self._foreign
        if (repository, subject, referrer) not in self._foreign:
            keep(self._foreign, (repository, subject, referrer), None, _KEEP_FOREIGN)
            self.dropped += 1
        return True


def _kinds(told: Mapping[Digest, Descriptor], tags: Mapping[str, Digest]) -> dict[Digest, str]:
    """The kind of each: by its descriptor, and where that tells little, by cosign's tag for it."""
    kinds = {digest: kind_of(descriptor) for digest, descriptor in told.items()}
    for suffix, digest in tags.items():
        if digest not in told or not tells_what_it_is(told[digest]):
            kinds[digest] = COSIGN_TAGS[suffix]
    return kinds
