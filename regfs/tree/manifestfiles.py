"""The files and links of one manifest, in the folder of a tag or a digest: each keyed by the manifest's digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from regfs.digest import Digest
from regfs.errors import HalfDeleted, NoSuchAttribute, NotFound
from regfs.manifest import Descriptor, Manifest
from regfs.tree.nodes import STEADY, Folder, Link, Node

if TYPE_CHECKING:
    from regfs.tree.tagfolder import ManifestFolder

DIGEST = "digest"


def describe(descriptor: Descriptor, name: str) -> str:
    """A descriptor's field by the name of its extended attribute. Raises NoSuchAttribute."""
    fields = {
        "oci.digest": str(descriptor.digest),
        "oci.mediatype": descriptor.media_type,
        "oci.size": str(descriptor.size),
    }
    if name not in fields:
        raise NoSuchAttribute(f"there is no attribute user.{name}")
    return fields[name]


class RoomLink(Link):
    """In a tag's folder, a link to the room of that name in its digest's: who is inside stays there when the tag moves."""

    __slots__ = ()

    def __init__(self, parent: ManifestFolder, name: str, digest: Digest) -> None:
        target = f"{parent.to_repository}/.digests/{digest.file_name}/{name}"
        super().__init__(parent, name, target, 0.0, (name, digest))

    @property
    def holds_for(self) -> float:
        """In seconds: as long as the tag is believed to lead where it does."""
        return cast("ManifestFolder", self.parent).shows_for


class ManifestChild(Node):
    """A file that belongs to one manifest: its bytes never change under its inode."""

    __slots__ = ("descriptor",)

    def __init__(self, parent: ManifestFolder, name: str, descriptor: Descriptor) -> None:
        super().__init__(parent, name, (name, descriptor.digest))
        self.descriptor = descriptor

    @property
    def folder(self) -> ManifestFolder:
        """The folder of the tag or digest."""
        return cast("ManifestFolder", self.parent)

    @property
    def is_gone(self) -> bool:
        """True where the tag was deleted a moment ago: the kernel may still know this name of it."""
        tag = self.folder.tag
        return tag is not None and self.folder.registry.tombstone(self.folder.repository, tag) is not None

    def check_there(self) -> None:
        """Raise NotFound where the tag was deleted a moment ago."""
        if self.is_gone:
            raise NotFound(f"{self.path()}: the tag has been deleted")

    @property
    def time_ns(self) -> int:
        """The manifest's time as its tag's or digest's folder shows it, in nanoseconds since 1970."""
        return self.folder.registry.times.of(self.folder.repository, self.folder.tag, self.descriptor.digest)

    @property
    def holds_for(self) -> float:
        """In seconds: as long as its folder may be believed to show this manifest."""
        return self.folder.shows_for

    @property
    def is_steady(self) -> bool:
        """True: other bytes are another manifest's, and another node's."""
        return True

    def attribute_names(self) -> list[str]:
        """The manifest's digest, media type and size, and its reference."""
        return ["oci.digest", "oci.mediatype", "oci.size", "regfs.reference"]

    async def attribute(self, name: str) -> str:
        """One of them; ``regfs.reference`` is the folder's. Raises NoSuchAttribute."""
        if name == "regfs.reference":
            return await self.folder.attribute(name)
        return describe(self.descriptor, name)


class PlainFile(ManifestChild):
    """``manifest.json`` or ``digest``: the bytes are at hand, but of a metered manifest of which only a HEAD has told."""

    __slots__ = ("_data",)

    def __init__(self, parent: ManifestFolder, name: str, descriptor: Descriptor, data: bytes | None) -> None:
        super().__init__(parent, name, descriptor)
        self._data = data

    @property
    def size(self) -> int:
        """In bytes; of a metered manifest the size that the HEAD told."""
        return self.descriptor.size if self._data is None else len(self._data)

    @property
    def is_steady(self) -> bool:
        """False where the bytes are not as many as the HEAD told, and the kernel with it."""
        # The kernel reads no further than the size that it was told, unless it keeps no pages.
        return self.name == DIGEST or self.size == self.descriptor.size

    async def content(self) -> bytes:
        """The file's bytes; a metered manifest is got now. Raises NotFound once the tag is deleted, HalfDeleted for a throw-away."""
        self.check_there()
        if self._data is None:
            folder = self.folder
            manifest = await folder.registry.contents.by_digest(folder.repository, self.descriptor.digest)
            if manifest.is_throw_away:
                # Reading the tag undoes a deletion that was broken off, or says that one is under way.
                await folder.manifest()
                raise HalfDeleted(
                    f"{self.path()}: the deletion of its tag was undone just now; look again",
                    registry=folder.registry.source.name,
                )
            self._data = manifest.raw
        return self._data


class ConfigFile(ManifestChild):
    """``config.json``: of an index the host platform's, whose size is not known before that manifest is read."""

    __slots__ = ("_descriptor", "manifest")

    def __init__(self, parent: ManifestFolder, name: str, manifest: Manifest) -> None:
        super().__init__(parent, name, manifest.descriptor)
        self.manifest = manifest
        self._descriptor = manifest.config

    async def settle(self) -> None:
        """Of an index, read the host's manifest, which names the config. Raises NotFound where that has none."""
        if self._descriptor is None:
            folder = self.folder
            image = await folder.registry.contents.image(folder.repository, self.manifest)
            if image.config is None:
                raise NotFound(f"{folder.repository}@{image.digest} has no config")
            self._descriptor = image.config

    @property
    def open_time_ns(self) -> int | None:
        """The time to show until the config is read, which says when the image was made; None: `time_ns` is final."""
        return self.folder.registry.times.still_open(
            self.folder.repository, self.folder.tag, self.manifest.digest
        )

    @property
    def size(self) -> int:
        """In bytes; 0 until it is settled."""
        return 0 if self._descriptor is None else self._descriptor.size

    @property
    def holds_for(self) -> float:
        """In seconds; 0 until it is settled, so that the kernel believes no size of 0."""
        return 0.0 if self._descriptor is None else super().holds_for

    async def content(self) -> bytes:
        """The config's bytes, verified. Raises NotFound once the tag is deleted, and what `Source.blob` does."""
        self.check_there()
        await self.settle()
        return await self.folder.registry.contents.config(self.folder.repository, self.manifest)

    async def attribute(self, name: str) -> str:
        """Those of the config's descriptor, which may cost the host's manifest. Raises NoSuchAttribute."""
        if name == "regfs.reference":
            return await super().attribute(name)
        await self.settle()
        assert self._descriptor is not None, "settle() leaves it known"
        return describe(self._descriptor, name)


class ManifestRoom(ManifestChild, Folder):
    """A folder that belongs to one manifest, and has its attributes."""

    __slots__ = ("manifest",)
    kind = Folder.kind

    def __init__(self, parent: ManifestFolder, name: str, manifest: Manifest) -> None:
        super().__init__(parent, name, manifest.descriptor)
        self.manifest = manifest

    @property
    def is_steady(self) -> bool:
        """False: only a file's bytes can be steady."""
        return False


class BareRoom(ManifestRoom):
    """A folder that belongs to one manifest, and has no attributes: the manifest's are not true of it."""

    __slots__ = ()

    def attribute_names(self) -> list[str]:
        """None."""
        return []

    async def attribute(self, name: str) -> str:
        """Raises NoSuchAttribute."""
        return await Folder.attribute(self, name)


class PlatformsFolder(BareRoom):
    """The platforms of an index, as links to their manifests."""

    __slots__ = ()

    async def find(self, name: str) -> Node:
        """The link to a platform's manifest, which is not asked for. Raises NotFound, also once the tag is deleted."""
        for platform, descriptor in self.manifest.platforms():
            if platform == name and not self.is_gone:
                return self._link(platform, descriptor)
        raise NotFound(f"the index has no platform {name}")

    async def entries(self) -> Sequence[Node]:
        """The links in the index's order; none once the tag is deleted."""
        if self.is_gone:
            return []
        return [self._link(platform, descriptor) for platform, descriptor in self.manifest.platforms()]

    def _link(self, platform: str, descriptor: Descriptor) -> Node:
        target = f"../{self.folder.to_repository}/.digests/{descriptor.digest.file_name}"
        return self.child(platform, lambda: Link(self, platform, target, STEADY))
