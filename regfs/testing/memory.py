"""A registry in memory: a `Source` without a protocol, the reference that the contract suite is checked against.

What it can do beyond the required is switched by `Abilities`; every call is recorded, and rules can hold, delay
or fail any of them. Content is put straight in by the test (`push`), never through the Source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar, cast

import trio

from regfs.digest import Digest
from regfs.errors import NotFound, TooLarge
from regfs.manifest import MAX_MANIFEST, Descriptor, config_created, parse_manifest
from regfs.ports import (
    Answer,
    Cost,
    Counts,
    DatesTags,
    DeletesRepositories,
    DeletesTags,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    ListsRepositories,
    Metered,
    RawManifest,
    Recovers,
    ResolvesTags,
    TagFacts,
    TagPage,
)
from regfs.reference import TagOrDigest
from regfs.testing import memory_capabilities as able_to
from regfs.testing.images import Content, Image, Pushable, make_image
from regfs.testing.rules import Call, Gate, Rule

C = TypeVar("C")

_CHUNK: Final = 64 * 1024


@dataclass
class Abilities:
    """What the Source hands out as capabilities. May be changed at any time."""

    lists_repositories: bool = True
    resolves_tags: bool = True
    counts: bool = True
    deletes_tags: Answer | None = Answer.YES
    """What `can_delete` says; None: no such capability. With NO, deleting raises DeletionDisabled."""
    deletes_repositories: bool = False
    lists_referrers: bool = True
    referrers_per_page: int = 100
    lists_namespaces: bool = False
    """Whether it lists namespace by namespace. Each name on the way to a repository is one; the others are none."""
    honours_ranges: Answer | None = None
    """What is said of parts of a blob, which always come; None: no such capability."""
    metered: bool = False
    recovers: bool = False
    dates: Cost | None = None
    """None: no such capability. FREE puts the images' dates into the listings."""
    listing_refused: bool = False
    """Listing repositories raises ListingRefused, as a registry does that keeps its catalog to itself. (For one
    namespace: ``fail(ListingRefused(…), "namespace", NAME)``.)"""
    digests_in_listings: bool = False
    claims_digests: bool = True
    """Whether a manifest comes with the registry's own word for its digest."""
    tags_per_page: int = 1000
    repositories_per_page: int = 100


@dataclass
class _Repository:
    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, RawManifest] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)


class MemorySource:
    """A Source in memory. Tests push into it, look at `calls`, and `hold`, `delay` or `fail` what they choose.

    An emptied repository stays listed, with no tags, as registries keep it.
    """

    def __init__(self, name: str = "memory.test", abilities: Abilities | None = None) -> None:
        self.name = name
        self.abilities = Abilities() if abilities is None else abilities
        self.calls: list[Call] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.closed = False
        self.partial: dict[str, str] = {}
        """Namespaces (``""``: the first one) whose pages say that they are not all, with the reason."""
        self.secret: set[str] = set()
        """Repositories that no namespace tells of: they are found by name alone."""
        self.empty_namespaces: set[str] = set()
        """Namespaces that are there though nothing is in them."""
        self.leftovers: list[str] = []
        """What `recover` finds half done."""
        self._rules: list[Rule] = []
        self._repositories: dict[str, _Repository] = {}

    # ── what the test puts in ────────────────────────────────────────────────────────────────────

    def push(self, repository: str, tags: str | Iterable[str] = (), what: Pushable | None = None) -> Pushable:
        """Put an image or index under ``tags`` (none: by digest alone); the default is an image of its own.

        A tag need not be grammatical here: registries send such names too.
        """
        names = [tags] if isinstance(tags, str) else list(tags)
        pushed = make_image(f"{repository}:{','.join(names[:3])}") if what is None else what
        home = self._repositories.setdefault(repository, _Repository())
        home.blobs.update((blob.digest, blob.raw) for blob in pushed.blobs)
        for content in pushed.manifests():
            home.manifests[content.digest] = RawManifest(content.raw, content.media_type, content.digest)
        home.tags.update(dict.fromkeys(names, pushed.digest))
        return pushed

    def push_image(
        self, repository: str, tags: str | Iterable[str] = (), image: Image | None = None
    ) -> Image:
        """Like `push`, typed for images."""
        return cast(Image, self.push(repository, tags, image))

    def push_manifest(self, repository: str, tags: Iterable[str], content: Content) -> Digest:
        """Put any bytes as a manifest, without looking at them or at the blobs that they name."""
        home = self._repositories.setdefault(repository, _Repository())
        home.manifests[content.digest] = RawManifest(content.raw, content.media_type, content.digest)
        home.tags.update(dict.fromkeys(tags, content.digest))
        return content.digest

    def answer(self, repository: str, digest: Digest, reply: RawManifest) -> None:
        """From now on answer ``reply`` for that manifest, whatever its bytes are: a registry that lies."""
        self._repositories[repository].manifests[digest] = reply

    def corrupt_blob(self, repository: str, digest: Digest, data: bytes) -> None:
        """From now on answer other bytes for that blob."""
        self._repositories[repository].blobs[digest] = data

    def remove_tag(self, repository: str, tag: str) -> None:
        """Take a tag away, as someone else's deletion would."""
        del self._repositories[repository].tags[tag]

    def content(self) -> dict[str, dict[str, Digest]]:
        """Every repository, with its tags and where they point."""
        return {name: dict(home.tags) for name, home in self._repositories.items()}

    def holds(self, repository: str, digest: Digest) -> bool:
        """Whether the repository still has that manifest."""
        return digest in self._repositories[repository].manifests

    # ── what the test arranges ───────────────────────────────────────────────────────────────────

    def fail(
        self,
        error: BaseException,
        method: str | None = None,
        repository: str | None = None,
        reference: str | None = None,
        times: int | None = None,
    ) -> None:
        """Make the calls that fit raise ``error``: the next ``times`` of them, or (None) until `clear`."""
        self._rules.append(Rule(method, repository, reference, times, error=error))

    def hold(
        self, method: str | None = None, repository: str | None = None, reference: str | None = None
    ) -> Gate:
        """Make the calls that fit wait until the gate that is returned is opened."""
        gate = Gate()
        self._rules.append(Rule(method, repository, reference, None, gate=gate))
        return gate

    def delay(
        self,
        seconds: float,
        method: str | None = None,
        repository: str | None = None,
        reference: str | None = None,
    ) -> None:
        """Make the calls that fit take ``seconds``, by trio's clock."""
        self._rules.append(Rule(method, repository, reference, None, seconds=seconds))

    def clear(self) -> None:
        """Drop all rules. Calls that already wait at a gate go on waiting there."""
        self._rules.clear()

    def count(self, method: str | None = None, repository: str | None = None) -> int:
        """How many calls there were, of that method and repository where given."""
        return sum(
            method in (None, call.method) and repository in (None, call.repository) for call in self.calls
        )

    # ── the Source ───────────────────────────────────────────────────────────────────────────────

    async def check(self) -> None:
        """See `regfs.ports.Source.check`."""
        async with self._call("check"):
            pass

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """See `regfs.ports.Source.tags`. Each page is a call; a repository without tags has one empty page."""
        start = 0
        while True:
            async with self._call("tags", repository):
                home = self._home(repository)
                names = list(home.tags)[start : start + self.abilities.tags_per_page]
                page = TagPage(names, {name: self._facts(home, name) for name in names if self._has_facts})
                start += len(names)
                more = start < len(home.tags)
            yield page
            if not more:
                return

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """See `regfs.ports.Source.manifest`."""
        async with self._call("manifest", repository, str(reference)):
            found = self._home(repository).manifests[self._resolve(repository, reference)]
        if len(found.raw) > MAX_MANIFEST:
            raise TooLarge(f"the manifest has {len(found.raw)} bytes", registry=self.name)
        return found if self.abilities.claims_digests else RawManifest(found.raw, found.media_type)

    def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `regfs.ports.Source.blob`. ValueError for a range that the contract forbids: a mistake of the caller's."""
        stop = descriptor.size if end is None else end
        if not 0 <= start <= stop <= descriptor.size:
            raise ValueError(f"the range {start} to {stop} is not within {descriptor.size} bytes")
        return self._blob(repository, descriptor.digest, start, stop)

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:  # noqa: ARG002 - one answer for all repositories
        """See `regfs.ports.Source.capability`."""
        offer = self._offered().get(kind)
        return cast(C, offer[1]()) if offer is not None and offer[0] else None

    @property
    def capabilities(self) -> Sequence[type]:
        """What it hands out by its abilities: what a suite declares of it, and of a Source that is made from it."""
        return [kind for kind, (able, _) in self._offered().items() if able]

    def _offered(self) -> Mapping[type, tuple[bool, Callable[[], object]]]:
        able = self.abilities
        return {
            ListsRepositories: (able.lists_repositories, lambda: able_to.ListsInMemory(self)),
            ListsNamespaces: (able.lists_namespaces, lambda: able_to.ListsNamespacesInMemory(self)),
            HonoursRanges: (able.honours_ranges is not None, lambda: able_to.RangesInMemory(self)),
            ResolvesTags: (able.resolves_tags, lambda: able_to.ResolvesInMemory(self)),
            ListsReferrers: (able.lists_referrers, lambda: able_to.ListsReferrersInMemory(self)),
            Counts: (able.counts, lambda: able_to.CountsInMemory(self)),
            DeletesTags: (able.deletes_tags is not None, lambda: able_to.DeletesInMemory(self)),
            DeletesRepositories: (
                able.deletes_repositories,
                lambda: able_to.DeletesRepositoriesInMemory(self),
            ),
            Metered: (able.metered, lambda: able_to.MeteredInMemory(self)),
            Recovers: (able.recovers, lambda: able_to.RecoversInMemory(self)),
            DatesTags: (able.dates is not None, lambda: able_to.DatesInMemory(self)),
        }

    async def aclose(self) -> None:
        """See `regfs.ports.Source.aclose`."""
        self.closed = True

    # ── within ───────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _call(self, method: str, repository: str = "", reference: str = "") -> AsyncIterator[None]:
        call = Call(method, repository, reference)
        self.calls.append(call)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await trio.lowlevel.checkpoint()
            for rule in [rule for rule in self._rules if rule.fits(call)]:
                await rule.apply()
            yield
        finally:
            self.in_flight -= 1

    @asynccontextmanager
    async def _blob(
        self, repository: str, digest: Digest, start: int, stop: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._call("blob", repository, str(digest)):
            data = self._home(repository).blobs.get(digest)
            if data is None:
                raise NotFound(f"there is no blob {digest} in {repository}", registry=self.name)
            yield _chunks(data[start:stop])

    def _home(self, repository: str) -> _Repository:
        home = self._repositories.get(repository)
        if home is None:
            raise NotFound(f"there is no repository {repository}", registry=self.name)
        return home

    def _resolve(self, repository: str, reference: TagOrDigest) -> Digest:
        home = self._home(repository)
        digest = home.tags.get(reference) if isinstance(reference, str) else reference
        if digest is None or digest not in home.manifests:
            raise NotFound(f"there is no {reference} in {repository}", registry=self.name)
        return digest

    @property
    def _has_facts(self) -> bool:
        return self.abilities.digests_in_listings or self.abilities.dates is Cost.FREE

    def _facts(self, home: _Repository, tag: str) -> TagFacts:
        digest = home.tags[tag]
        return TagFacts(
            digest if self.abilities.digests_in_listings else None,
            self._created(home, digest) if self.abilities.dates is Cost.FREE else None,
        )

    def _created(self, home: _Repository, digest: Digest) -> datetime | None:
        found = home.manifests[digest]
        config = parse_manifest(found.raw, found.media_type, digest).config
        raw = home.blobs.get(config.digest) if config is not None else None
        return None if raw is None else config_created(raw)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        await trio.lowlevel.checkpoint()
        yield data[start : start + _CHUNK]
