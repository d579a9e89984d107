"""Manifests and configs of one registry: verified before their first byte, each fetched once for all who ask."""

from __future__ import annotations

import logging
import platform as host
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from regfs.digest import Digest
from regfs.errors import BadReply, DigestMismatch, HalfDeleted, NotFound, RateLimited, TooLarge
from regfs.manifest import MAX_MANIFEST, Descriptor, Manifest, Platform, config_created, parse_manifest
from regfs.ports import Clock, ContentStore, Metered, RawManifest, Recovers, ResolvesTags, Source
from regfs.reference import TagOrDigest
from regfs.tree.bounded import keep
from regfs.tree.flights import Flights
from regfs.tree.quota import with_quota

T = TypeVar("T")

logger = logging.getLogger(__name__)

_IN_A_THREAD = 256 * 1024
"""Bytes from which hashing and parsing would hold up the loop for over a millisecond."""

_KEEP_TAGS = 50_000
_KEEP_MANIFESTS = 2_000
_KEEP_LEADING = 1_000
"""The tags of one manifest whose names are kept."""

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
}


@dataclass(frozen=True, slots=True)
class TagState:
    """Where a tag pointed when it was asked for (seconds of the monotonic clock)."""

    descriptor: Descriptor
    asked: float


def host_platform() -> Platform:
    """The platform this machine would pull, in the words of an index (Go's names)."""
    machine = host.machine().lower()
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


class Contents:
    """What one registry's tags and digests hold."""

    def __init__(
        self, source: Source, store: ContentStore, clock: Clock, ttl: float, deadline: float
    ) -> None:
        self._source = source
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._flights = Flights(deadline)
        self._platform = host_platform()
        self._tags: OrderedDict[tuple[str, str], TagState] = OrderedDict()
        self._absent: OrderedDict[tuple[str, TagOrDigest], float] = OrderedDict()
        self._leading: OrderedDict[tuple[str, Digest], dict[str, None]] = OrderedDict()
        self._manifests: OrderedDict[Digest, Manifest] = OrderedDict()
        # That bytes are at hand does not say that this repository holds them: others may, behind other rights.
        self._held: OrderedDict[tuple[str, Digest], None] = OrderedDict()
        self._created: dict[Digest, int] = {}
        self.on_index: Callable[[str, Manifest], None] = lambda _repository, _index: None

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch in ``nursery`` from now on."""
        self._flights.start(nursery)

    @property
    def is_metered(self) -> bool:
        """True where getting a manifest counts against a quota."""
        return self._source.capability(Metered) is not None

    # ── what is known without asking ──

    def state(self, repository: str, tag: str) -> TagState | None:
        """Where a tag points, if that was asked within ``ttl``."""
        found = self._tags.get((repository, tag))
        return found if found is not None and self._is_recent(found.asked) else None

    def left(self, state: TagState) -> float:
        """For how many seconds more a state may be shown."""
        return state.asked + self._ttl - self._clock.monotonic()

    def is_absent(self, repository: str, reference: TagOrDigest) -> bool:
        """Say whether the registry said within ``ttl`` that there is no such tag or digest."""
        asked = self._absent.get((repository, reference))
        return asked is not None and self._is_recent(asked)

    def holds(self, repository: str, digest: Digest) -> bool:
        """Say whether a repository was seen to hold the manifest with that digest."""
        return (repository, digest) in self._held

    def at_hand(self, repository: str, digest: Digest) -> Manifest | None:
        """The manifest with that digest, if the repository holds it and it is in memory."""
        return self._manifests.get(digest) if (repository, digest) in self._held else None

    def created(self, digest: Digest) -> int | None:
        """When the image of a manifest was made, in nanoseconds since 1970, once its config was read."""
        return self._created.get(digest)

    def known_digests(self, repository: str) -> list[Digest]:
        """The digests that tags of a repository were seen to have, each once."""
        seen = {s.descriptor.digest: None for (name, _), s in self._tags.items() if name == repository}
        return list(seen)

    def tags_seen(self, repository: str, digest: Digest) -> list[str]:
        """The tags that were seen to lead to a manifest, in the order in which they first were, wherever they lead now."""
        return list(self._leading.get((repository, digest), ()))

    @property
    def has_seen_tags(self) -> bool:
        """Say whether it is, or was, known of any tag where it points."""
        return bool(self._tags)

    def was_seen(self, repository: str, tag: str) -> bool:
        """Say whether it is, or was, known where a tag points."""
        return (repository, tag) in self._tags

    def forget(self, prefix: str = "") -> int:
        """Forget where the tags of ``prefix`` and below point, and what is absent there; how many there were."""
        tags = [key for key in self._tags if _is_below(key, prefix)]
        absent = [key for key in self._absent if _is_below(key, prefix)]
        for tag in tags:
            del self._tags[tag]
        for name in absent:
            del self._absent[name]
        return len(tags)

    def drop(self, repository: str, tag: str) -> None:
        """Forget one tag: this mount has just changed it."""
        state = self._tags.pop((repository, tag), None)
        self._absent.pop((repository, tag), None)
        if state is not None:
            self._leading.get((repository, state.descriptor.digest), {}).pop(tag, None)

    # ── what is asked ──

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """Where a tag points, at most ``ttl`` old: by HEAD where manifests are metered, else with the manifest."""
        known = self.state(repository, tag)
        if known is not None:
            return known.descriptor
        if self.is_metered:
            return await self._flights.share(("head", repository, tag), lambda: self._head(repository, tag))
        return (await self.by_tag(repository, tag)).descriptor

    async def by_tag(self, repository: str, tag: str) -> Manifest:
        """A tag's manifest, at most ``ttl`` old. Raises NotFound, DigestMismatch, BadReply, and what a Source raises."""
        if self.state(repository, tag) is None:
            self._raise_absent(repository, tag)
        if self.state(repository, tag) is not None or self.is_metered:
            descriptor = await self.resolve(repository, tag)
            manifest = await self.by_digest(repository, descriptor.digest)
            if not manifest.is_throw_away:
                return manifest
            self.drop(repository, tag)
        return await self._flights.share(("tag", repository, tag), lambda: self._get_tag(repository, tag))

    def ahead(self, repository: str, tag: str) -> bool:
        """Begin to fetch a tag's manifest, and say whether that was needed."""
        if self.state(repository, tag) is not None or self.is_absent(repository, tag):
            return False
        self._flights.launch(("tag", repository, tag), lambda: self._get_tag(repository, tag))
        return True

    async def by_digest(self, repository: str, digest: Digest) -> Manifest:
        """The manifest with that digest, from memory where it is. Raises as `by_tag` does."""
        found = self._manifests.get(digest) if (repository, digest) in self._held else None
        if found is not None:
            self._manifests.move_to_end(digest)
            return found
        self._raise_absent(repository, digest)
        return await self._flights.share(
            ("digest", repository, digest), lambda: self._get_digest(repository, digest)
        )

    async def image(self, repository: str, manifest: Manifest) -> Manifest:
        """The manifest itself, or of an index the host platform's. Raises NotFound where the index has none."""
        if not manifest.is_index:
            return manifest
        chosen = manifest.for_platform(self._platform)
        if chosen is None:
            raise NotFound(
                f"the index has no image for {self._platform.file_name}", registry=self._source.name
            )
        return await self.by_digest(repository, chosen.digest)

    def has_config(self, manifest: Manifest) -> bool:
        """Say, without asking, whether a manifest leads to a config."""
        if manifest.is_index:
            return manifest.for_platform(self._platform) is not None
        return manifest.config is not None

    async def config(self, repository: str, manifest: Manifest) -> bytes:
        """The exact bytes of the config that ``manifest`` (an image's, or an index's for the host) leads to."""
        image = await self.image(repository, manifest)
        if image.config is None:
            raise NotFound("the manifest has no config", registry=self._source.name)
        descriptor = image.config
        found = await self._store.get(descriptor.digest)
        if found is None:
            found = await self._flights.share(
                ("config", repository, descriptor.digest), lambda: self._get_config(repository, descriptor)
            )
        self._note_created(found, image, manifest)
        return found

    # ── how it is asked ──

    async def _head(self, repository: str, tag: str) -> Descriptor:
        asked = self._clock.monotonic()
        resolver = self._source.capability(ResolvesTags, repository)
        if resolver is None:
            return (await self._get_tag(repository, tag)).descriptor
        try:
            descriptor = await resolver.resolve(repository, tag)
        except NotFound:
            self._note_absent(repository, tag, asked)
            raise
        except RateLimited as error:
            raise with_quota(error, self._source) from error
        self._note_tag(repository, tag, TagState(descriptor, asked))
        return descriptor

    async def _get_tag(self, repository: str, tag: str) -> Manifest:
        """A tag's manifest, which is never what stands there only while the tag is being deleted."""
        asked, manifest = await self._ask_tag(repository, tag)
        recovers = self._source.capability(Recovers) if manifest.is_throw_away else None
        if recovers is not None:
            for line in await recovers.recover():
                logger.warning("%s", line)
            asked, manifest = await self._ask_tag(repository, tag)
        if manifest.is_throw_away:
            raise HalfDeleted(
                f"{repository}:{tag} holds nothing but a mark of its deletion, which is under way or was broken off",
                registry=self._source.name,
            )
        self._note_tag(repository, tag, TagState(manifest.descriptor, asked))
        return manifest

    async def _ask_tag(self, repository: str, tag: str) -> tuple[float, Manifest]:
        asked = self._clock.monotonic()
        try:
            reply = await self._source.manifest(repository, tag)
        except NotFound:
            self._note_absent(repository, tag, asked)
            raise
        except RateLimited as error:
            raise with_quota(error, self._source) from error
        return asked, await self._admit(repository, reply, None)

    async def _get_digest(self, repository: str, digest: Digest) -> Manifest:
        raw = await self._store.get(digest) if (repository, digest) in self._held else None
        if raw is not None:
            return await self._admit(repository, RawManifest(raw, ""), digest)
        asked = self._clock.monotonic()
        try:
            reply = await self._source.manifest(repository, digest)
        except NotFound:
            self._note_absent(repository, digest, asked)
            raise
        except RateLimited as error:
            raise with_quota(error, self._source) from error
        return await self._admit(repository, reply, digest)

    async def _get_config(self, repository: str, descriptor: Descriptor) -> bytes:
        if descriptor.size > MAX_MANIFEST:
            raise TooLarge(f"a config of {descriptor.size} bytes is over the limit of {MAX_MANIFEST}")
        data = bytearray()
        async with self._source.blob(repository, descriptor) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > descriptor.size:
                    raise DigestMismatch(
                        f"the config is longer than the {descriptor.size} bytes its manifest says"
                    )
        raw = bytes(data)
        if len(raw) != descriptor.size:
            raise DigestMismatch(f"the config has {len(raw)} bytes, its manifest says {descriptor.size}")
        await _maybe_in_a_thread(len(raw), lambda: descriptor.digest.check(raw, "the config"))
        await self._store.put(descriptor.digest, raw)
        return raw

    async def _admit(self, repository: str, reply: RawManifest, asked: Digest | None) -> Manifest:
        """Verify, parse and keep a manifest. What was asked for by digest must be that; what a registry claims must be true."""
        if len(reply.raw) > MAX_MANIFEST:
            raise TooLarge(f"a manifest of {len(reply.raw)} bytes is over the limit of {MAX_MANIFEST}")
        manifest = await _maybe_in_a_thread(len(reply.raw), lambda: _verified(reply, asked))
        keep(self._manifests, manifest.digest, manifest, _KEEP_MANIFESTS)
        keep(self._held, (repository, manifest.digest), None, _KEEP_TAGS)
        await self._store.put(manifest.digest, reply.raw)
        if manifest.is_index:
            self.on_index(repository, manifest)
        return manifest

    # ── what is kept ──

    def _is_recent(self, asked: float) -> bool:
        return self._clock.monotonic() - asked < self._ttl

    def _raise_absent(self, repository: str, reference: TagOrDigest) -> None:
        if self.is_absent(repository, reference):
            what = (
                f"{repository}@{reference}" if isinstance(reference, Digest) else f"{repository}:{reference}"
            )
            raise NotFound(f"there is no {what}", registry=self._source.name)

    def _note_tag(self, repository: str, tag: str, state: TagState) -> None:
        self._absent.pop((repository, tag), None)
        place = (repository, state.descriptor.digest)
        keep(self._tags, (repository, tag), state, _KEEP_TAGS)
        keep(self._held, place, None, _KEEP_TAGS)
        leading = self._leading.get(place, {})
        if len(leading) < _KEEP_LEADING:
            leading[tag] = None
        keep(self._leading, place, leading, _KEEP_TAGS)

    def _note_absent(self, repository: str, reference: TagOrDigest, asked: float) -> None:
        if isinstance(reference, str):
            self._tags.pop((repository, reference), None)
        keep(self._absent, (repository, reference), asked, _KEEP_TAGS)

    def _note_created(self, config: bytes, *manifests: Manifest) -> None:
        digests = [m.digest for m in manifests if m.digest not in self._created]
        made = config_created(config) if digests else None
        if made is not None:
            self._created.update((digest, int(made.timestamp() * 1e9)) for digest in digests)


def _verified(reply: RawManifest, asked: Digest | None) -> Manifest:
    algorithm = (asked or reply.claimed or Digest.of(b"")).algorithm
    digest = Digest.of(reply.raw, algorithm)
    if asked is not None and digest != asked:
        raise DigestMismatch(f"the manifest's bytes are {digest}, not {asked}")
    if reply.claimed is not None and reply.claimed.algorithm == algorithm and digest != reply.claimed:
        raise DigestMismatch(f"the manifest's bytes are {digest}, the registry calls them {reply.claimed}")
    try:
        return parse_manifest(reply.raw, reply.media_type, digest)
    except BadReply as error:
        raise BadReply(f"{digest}: {error.message}") from error


async def _maybe_in_a_thread(size: int, work: Callable[[], T]) -> T:
    return work() if size < _IN_A_THREAD else await trio.to_thread.run_sync(work)


def _is_below(key: tuple[str, TagOrDigest], prefix: str) -> bool:
    return not prefix or key[0] == prefix or key[0].startswith(f"{prefix}/")
