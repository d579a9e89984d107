"""Images by path: which ones a path names, their manifests, and what these lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from regfs.digest import Digest
from regfs.errors import BadReply, NotFound, RegfsError
from regfs.manifest import Descriptor, Manifest, parse_manifest

if TYPE_CHECKING:
    from regfs.cli.places import Place

T = TypeVar("T")

_REFERENCE: Final = "user.regfs.reference"
_DIGEST: Final = "user.oci.digest"
_MEDIA_TYPE: Final = "user.oci.mediatype"

_OWN: Final = ".regfs"
_BESIDE: Final = (".tags", ".digests", ".repos")
_AT_ONCE: Final = 8
_MAX_MANIFESTS: Final = 1_000
"""The most manifests that one index is followed to."""


@dataclass(frozen=True, slots=True)
class Image:
    """The folder of a tag or a digest; ``reference`` is how people call it."""

    place: Place
    folder: str
    reference: str

    async def manifest(self) -> Manifest:
        """Its manifest. Raises what reading does."""
        digest = await self.place.attribute(self.folder, _DIGEST)
        media_type = await self.place.attribute(self.folder, _MEDIA_TYPE)
        try:
            wanted = Digest.parse(digest or "")
        except ValueError as error:
            raise BadReply(f"{self.reference} has no digest") from error
        # By its digest, since a tag may be moved between two looks.
        raw = await self.place.read(f"{self.by_digest(wanted).folder}/manifest.json")
        return parse_manifest(raw, media_type or "", wanted)

    def by_digest(self, digest: Digest) -> Image:
        """Another manifest of the same repository."""
        repository = self.folder.rpartition("/")[0]
        above, _, last = repository.rpartition("/")
        base = above if last in _BESIDE else repository
        name = self.reference.partition("@")[0]
        return Image(self.place, f"{base}/.digests/{digest.file_name}", f"{name}@{digest}")

    async def config(self) -> bytes:
        """The bytes of its config; of an index this machine's own platform's. Raises NotFound where there is none."""
        return await self.place.read(f"{self.folder}/config.json")


@dataclass(slots=True)
class Contents:
    """What an image leads to: its manifests, an index's own first; ``missing``: what an index names and is not there."""

    manifests: list[Manifest] = field(default_factory=list)
    missing: list[Digest] = field(default_factory=list)

    def descriptors(self) -> dict[Digest, Descriptor]:
        """Everything by digest: manifests, configs and layers."""
        found: dict[Digest, Descriptor] = {}
        for manifest in self.manifests:
            found.setdefault(manifest.digest, manifest.descriptor)
        for descriptor in self.blobs():
            found.setdefault(descriptor.digest, descriptor)
        return found

    def blobs(self) -> Iterable[Descriptor]:
        """Configs and layers, in order, as often as they are named."""
        for manifest in self.manifests:
            if manifest.config is not None:
                yield manifest.config
            yield from manifest.layers
            yield from (d for d in manifest.manifests if d.media_type and not d.is_manifest)


async def contents(image: Image) -> Contents:
    """All that an image leads to: costs its manifests. Raises what reading does, and BadReply where there is no end."""
    found = Contents()
    seen: set[Digest] = set()
    level = [await image.manifest()]
    while level:
        found.manifests += level
        seen.update(manifest.digest for manifest in level)
        named = {d.digest for m in level for d in m.manifests if d.is_manifest or not d.media_type} - seen
        if len(seen) + len(named) > _MAX_MANIFESTS:
            raise BadReply(f"{image.reference} leads to more than {_MAX_MANIFESTS} manifests")
        level = []
        for digest, manifest in await together(sorted(named), lambda d: _or_none(image.by_digest(d))):
            if manifest is None:
                found.missing.append(digest)
            else:
                level.append(manifest)
    return found


async def _or_none(image: Image) -> Manifest | None:
    try:
        return await image.manifest()
    except NotFound:
        return None


async def together(asked: Iterable[Digest], work: Callable[[Digest], Awaitable[T]]) -> list[tuple[Digest, T]]:
    """Do it for each, eight at once; the results in the order of ``asked``. Raises the first error."""
    done: dict[Digest, T] = {}
    errors: list[RegfsError] = []
    limiter = trio.CapacityLimiter(_AT_ONCE)

    async def one(digest: Digest) -> None:
        async with limiter:
            if errors:
                return
            try:
                done[digest] = await work(digest)
            except RegfsError as error:
                errors.append(error)

    wanted = list(asked)
    async with trio.open_nursery() as nursery:
        for digest in wanted:
            nursery.start_soon(one, digest)
    if errors:
        raise errors[0]
    return [(digest, done[digest]) for digest in wanted]


async def image_at(place: Place, path: str) -> Image | None:
    """The image whose folder ``path`` is or lies in; None: it is a repository, a namespace or a registry."""
    for folder in _upwards(path):
        if folder == path and not await place.is_folder(path):
            continue
        reference = await place.attribute(folder, _REFERENCE)
        if reference is not None:
            is_image = await place.attribute(folder, _DIGEST) is not None
            return Image(place, folder, reference) if is_image else None
    return None


def _upwards(path: str) -> Iterable[str]:
    yield path
    while "/" in path.strip("/"):
        path = path.rpartition("/")[0]
        yield path


async def images_below(place: Place, path: str) -> AsyncIterator[Image]:
    """The tags of a repository, and of those nested in it; of a namespace or a registry all that it lists.

    Raises what listing raises.
    """
    tags = await _names(place, f"{path}/.tags")
    nested = await _names(place, f"{path}/.repos")
    if tags is None and nested is None:
        below = [name for name in await place.names(path) if name != _OWN]
        for name in sorted(below):
            async for image in images_below(place, f"{path}/{name}" if path else name):
                yield image
        return
    for tag in sorted(tags or ()):
        folder = f"{path}/.tags/{tag}"
        reference = await place.attribute(folder, _REFERENCE)
        yield Image(place, folder, reference or folder)
    for name in sorted(nested or ()):
        async for image in images_below(place, f"{path}/.repos/{name}"):
            yield image


async def _names(place: Place, path: str) -> list[str] | None:
    try:
        return await place.names(path)
    except NotFound:
        return None
