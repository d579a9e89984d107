"""What a tag's folder holds, and a digest's: the files and links of one manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from regfs.digest import Digest
from regfs.errors import NotEmpty, NotFound, Refused, RegfsError
from regfs.manifest import Descriptor, Manifest
from regfs.tree.manifestfiles import DIGEST, ConfigFile, PlainFile, PlatformsFolder, RoomLink, describe
from regfs.tree.nodes import STEADY, Folder, GoneFile, GoneFolder, Node
from regfs.tree.registry import Registry

MANIFEST = "manifest.json"
CONFIG = "config.json"
PLATFORMS = "platforms"
ROOM_NAMES = ("layers", "rootfs", "referrers", "oci")
TAG_NAMES = (MANIFEST, DIGEST, CONFIG, *ROOM_NAMES, PLATFORMS)
"""What a tag's folder can hold, the manifest first: recursive removers must reach it before anything else."""

_FOLDERS = frozenset({PLATFORMS})


@dataclass(frozen=True, slots=True)
class Room:
    """A folder in a digest's folder, to which a link leads in a tag's: so nothing recursive pulls an image.

    ``make`` is given the digest's folder, the name and the manifest; ``is_there`` asks nothing.
    """

    make: Callable[[ManifestFolder, str, Manifest], Node]
    is_there: Callable[[Registry, Manifest], bool]


ROOMS: Final[dict[str, Room]] = {}
"""By name, of `ROOM_NAMES`: `regfs.tree.rooms` puts them in."""


def names_of(registry: Registry, manifest: Manifest) -> list[str]:
    """What the folder of ``manifest`` lists, in order."""
    names = [MANIFEST, DIGEST]
    if registry.contents.has_config(manifest):
        names.append(CONFIG)
    for name in ROOM_NAMES:
        if name in ROOMS and ROOMS[name].is_there(registry, manifest):
            names.append(name)
    if manifest.is_index:
        names.append(PLATFORMS)
    return names


class ManifestFolder(Folder):
    """A folder that shows one manifest, named by a tag or a digest. ``seen`` is the digest it last showed."""

    __slots__ = ("reference", "refusal", "registry", "repository", "seen", "to_repository")

    def __init__(
        self,
        parent: Node,
        name: str,
        registry: Registry,
        repository: str,
        reference: str | Digest,
        to_repository: str,
    ) -> None:
        super().__init__(parent, name)
        self.registry = registry
        self.repository = repository
        self.reference = reference
        self.to_repository = to_repository
        self.seen: Digest | None = None
        self.refusal: RegfsError | None = None

    async def manifest(self) -> Manifest:
        """The manifest it shows now. Raises NotFound."""
        return await self.registry.manifest(self.repository, self.reference)

    async def settle(self) -> None:
        """Ask whether the tag or the digest is there; a tag that was deleted a moment ago still is. Raises NotFound."""
        if isinstance(self.reference, Digest):
            await self.manifest()
            return
        buried = self.registry.tombstone(self.repository, self.reference) is not None
        if not buried and not await self.registry.is_tag(self.repository, self.reference):
            raise NotFound(f"there is no tag {self.repository}:{self.reference}")

    @property
    def tag(self) -> str | None:
        """The tag, if it is named by one."""
        return self.reference if isinstance(self.reference, str) else None

    @property
    def time_ns(self) -> int:
        """What is known best of when the manifest was made or pushed, in nanoseconds since 1970; asks nothing."""
        digest = self.reference if isinstance(self.reference, Digest) else self._digest_now()
        return self.registry.times.of(self.repository, self.tag, digest)

    @property
    def open_time_ns(self) -> int | None:
        """The time to show in passing while the manifest is not read; None: `time_ns` is final."""
        digest = self.reference if isinstance(self.reference, Digest) else self._digest_now()
        return self.registry.times.still_open(self.repository, self.tag, digest)

    def _digest_now(self) -> Digest | None:
        state = self.registry.contents.state(self.repository, str(self.reference))
        return None if state is None else state.descriptor.digest

    @property
    def holds_for(self) -> float:
        """In seconds: a tag's as long as its listing is believed, a digest's for long once its manifest is at hand."""
        if isinstance(self.reference, Digest):
            return STEADY if self.registry.contents.holds(self.repository, self.reference) else 0.0
        return self.registry.entry_left(self.repository, self.reference)

    @property
    def shows_for(self) -> float:
        """For how many seconds its files may be believed to be those of the manifest that it shows."""
        if isinstance(self.reference, Digest):
            return self.holds_for
        return self.registry.manifest_left(self.repository, self.reference)

    async def find(self, name: str) -> Node:
        """One of its files or links, which costs the manifest (of a metered one, a HEAD). Raises NotFound."""
        if self.tag is not None:
            grave = self.registry.tombstone(self.repository, self.tag)
            if grave is not None:
                return self._gone(name, grave.names)
        if name not in TAG_NAMES:
            raise NotFound(f"a tag's folder holds no {name}")
        return await self.shown(name)

    async def shown(self, name: str) -> Node:
        """The node for one name of its manifest's: where manifests are metered, by a HEAD if that can tell."""
        if name in (MANIFEST, DIGEST) and self.tag is not None and self.registry.contents.is_metered:
            return self._plain(name, await self.registry.descriptor(self.repository, self.tag))
        return self.show(await self.manifest(), name)

    async def entries(self) -> Sequence[Node]:
        """Its files and links, `manifest.json` first; of a tag deleted a moment ago what of it was not removed yet."""
        if self.tag is not None:
            grave = self.registry.tombstone(self.repository, self.tag)
            if grave is not None:
                return [self._gone(name, grave.names) for name in grave.names]
        manifest = await self.manifest()
        return [self.show(manifest, name) for name in names_of(self.registry, manifest)]

    def show(self, manifest: Manifest, name: str) -> Node:
        """The node for one name of ``manifest``'s. Raises NotFound."""
        if name not in names_of(self.registry, manifest):
            raise NotFound(f"{self.repository}@{manifest.digest} has no {name}")
        self.seen = manifest.digest
        key = (name, manifest.digest)
        if name == CONFIG:
            return self.child(key, lambda: ConfigFile(self, name, manifest))
        if name == PLATFORMS:
            return self.child(key, lambda: PlatformsFolder(self, name, manifest))
        if name in ROOM_NAMES and self.tag is None:
            return self.child(key, lambda: ROOMS[name].make(self, name, manifest))
        if name in ROOM_NAMES:
            return self.child(key, lambda: RoomLink(self, name, manifest.digest))
        return self._plain(name, manifest.descriptor, manifest.raw)

    def _plain(self, name: str, descriptor: Descriptor, raw: bytes | None = None) -> Node:
        self.seen = descriptor.digest
        key = (name, descriptor.digest)
        if name == DIGEST:
            line = f"{descriptor.digest}\n".encode()
            return self.child(key, lambda: PlainFile(self, name, descriptor, line))
        return self.child(key, lambda: PlainFile(self, name, descriptor, raw))

    def _gone(self, name: str, names: Iterable[str]) -> Node:
        if name not in names:
            raise NotFound(f"{self.repository}:{self.tag} has been deleted")
        made = GoneFolder if name in _FOLDERS else GoneFile
        return self.child((name, None), lambda: made(self, name, (name, None)))

    async def unlink(self, name: str) -> None:
        """Of ``manifest.json``: delete the tag. Of a deleted one, another name of the tombstone. Raises Refused, Moved, NotFound …"""
        if self.tag is None:
            raise Refused("a manifest is deleted by its tag, never by its digest")
        grave = self.registry.tombstone(self.repository, self.tag)
        if grave is not None:
            if grave.names.pop(name, self) is self:
                raise NotFound(f"{self.repository}:{self.tag} has been deleted")
        elif name == MANIFEST:
            await self._delete(self.tag)
        else:
            await self.find(name)
            raise self._goes_with_its_tag(name)

    async def _delete(self, tag: str) -> None:
        digest, names = await self._known_names(tag)
        left = [n for n in names if n != MANIFEST]
        try:
            await self.registry.delete_tag(self.repository, tag, self.seen or digest, left)
            self.refusal = None
        except RegfsError as error:
            self.refusal = error
            raise

    async def _known_names(self, tag: str) -> tuple[Digest, Sequence[str]]:
        """The digest of a tag and the names in its folder; a metered manifest is not fetched only to be deleted."""
        contents = self.registry.contents
        if contents.is_metered:
            digest = (await self.registry.descriptor(self.repository, tag)).digest
            manifest = contents.at_hand(self.repository, digest)
            if manifest is None:
                return digest, (MANIFEST, DIGEST)
        else:
            manifest = await self.manifest()
        return manifest.digest, names_of(self.registry, manifest)

    def _goes_with_its_tag(self, name: str) -> RegfsError:
        """`rm -r` goes on to the other files of a tag that could not be deleted: the reason is still the same."""
        if self.refusal is not None:
            return self.refusal.with_traceback(None)
        return Refused(f"{name} goes with its tag: remove manifest.json to delete the tag")

    async def rmdir(self, name: str) -> None:
        """Take a folder from a tombstone. Of a tag that is there: raises why it was not deleted, or Refused."""
        grave = None if self.tag is None else self.registry.tombstone(self.repository, self.tag)
        if grave is None:
            await self.find(name)
            raise self._goes_with_its_tag(name)
        grave.names.pop(name, None)

    def attribute_names(self) -> list[str]:
        """The manifest's digest, media type and size, and its reference."""
        return ["oci.digest", "oci.mediatype", "oci.size", "regfs.reference"]

    async def attribute(self, name: str) -> str:
        """One of them; a digest is known without asking where the listing has it. Raises NotFound, NoSuchAttribute."""
        if name == "regfs.reference":
            mark = ":" if self.tag is not None else "@"
            await self.settle()
            return f"{self.registry.source.name}/{self.repository}{mark}{self.reference}"
        if name not in ("oci.digest", "oci.mediatype", "oci.size"):
            await self.settle()
            return await super().attribute(name)
        if self.tag is not None:
            await self.settle()
            listed = self.registry.listed_digest(self.repository, self.tag) if name == "oci.digest" else None
            if listed is not None and self._digest_now() is None:
                return str(listed)
            return describe(await self.registry.contents.resolve(self.repository, self.tag), name)
        return describe((await self.manifest()).descriptor, name)


def remove_tag_folder(registry: Registry, repository: str, tag: str) -> None:
    """rmdir of a tag's folder: ends a tombstone, and never deletes anything. Raises NotEmpty."""
    if registry.tombstone(repository, tag) is None:
        raise NotEmpty(f"{repository}:{tag} is a tag; remove its manifest.json (or use rm -r) to delete it")
    registry.graves.end(repository, tag)
