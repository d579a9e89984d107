"""The folder ``oci`` of a manifest: an OCI image layout of all that can be reached from it, read where it is used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import trio

from regfs.digest import Digest
from regfs.errors import NoSuchAttribute, NotFound, RegfsError, Unsupported
from regfs.manifest import Descriptor, Manifest
from regfs.tree.blobfile import BlobFile
from regfs.tree.manifestfiles import ManifestRoom, describe
from regfs.tree.nodes import STEADY, Folder, Node
from regfs.tree.ocilayout import LAYOUT_FILE, Reachable, index_json
from regfs.tree.tagfolder import ManifestFolder

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
BLOBS: Final = "blobs"

_AT_ONCE: Final = 8
"""Manifests that are fetched together."""


class OciFolder(ManifestRoom):
    """The layout's own folder."""

    __slots__ = ("_fetching", "_reachable")

    def __init__(self, parent: ManifestFolder, name: str, manifest: Manifest) -> None:
        super().__init__(parent, name, manifest)
        self._reachable: Reachable | None = None
        self._fetching = trio.CapacityLimiter(_AT_ONCE)

    @property
    def reachable(self) -> Reachable:
        """What is known to be in the layout."""
        if self._reachable is None:
            self._reachable = Reachable(self.manifest)
        return self._reachable

    async def find(self, name: str) -> Node:
        """One of the three names of a layout (image-layout.md); asks nothing. Raises NotFound."""
        if name == LAYOUT:
            return self._file(name, LAYOUT_FILE, STEADY)
        if name == INDEX:
            tags = self.folder.registry.contents.tags_seen(self.folder.repository, self.manifest.digest)
            # A tag that is seen a moment later has its name in there too, so nobody may believe this for long.
            return self._file(name, index_json(self.manifest, tags), 0.0)
        if name == BLOBS:
            return self.child(name, lambda: BlobsFolder(self, name))
        raise NotFound(f"an OCI layout holds no {name}")

    async def entries(self) -> Sequence[Node]:
        """All three; asks nothing."""
        return [await self.find(name) for name in (LAYOUT, INDEX, BLOBS)]

    def _file(self, name: str, data: bytes, holds_for: float) -> Node:
        return self.child((name, data), lambda: LayoutFile(self, name, data, holds_for))

    # ── what is in it ──

    async def whole(self) -> Reachable:
        """All that is in the layout: costs the manifests that were not read yet. What is missing is asked for again."""
        reachable = self.reachable
        while unread := [d for d in reachable.unread if d not in reachable.missing]:
            await self._read(unread)
        return reachable

    async def look(self, digest: Digest) -> Descriptor | None:
        """What a blob is, asking no further than has to be; None where it is not in the layout."""
        reachable = self.reachable
        found = reachable.find(digest)
        if found is None:
            self._take_at_hand()
            found = reachable.find(digest)
        while found is None and (unread := [d for d in reachable.unread if d not in reachable.missing]):
            await self._read(unread)
            found = reachable.find(digest)
        return found

    async def ask_again(self) -> None:
        """Ask once more for the manifests that were missing: they may have been pushed since."""
        await self._read(list(self.reachable.missing))

    def _take_at_hand(self) -> None:
        """A program that walks the layout has read the manifests before it asks for what they name."""
        contents, repository = self.folder.registry.contents, self.folder.repository
        for digest in self.reachable.unread:
            manifest = contents.at_hand(repository, digest)
            if manifest is not None:
                self.reachable.take(manifest)

    async def _read(self, digests: Iterable[Digest]) -> None:
        errors: list[RegfsError] = []
        async with trio.open_nursery() as nursery:
            for digest in digests:
                nursery.start_soon(self._read_one, digest, errors)
        if errors:
            raise errors[0]

    async def _read_one(self, digest: Digest, errors: list[RegfsError]) -> None:
        try:
            async with self._fetching:
                if errors:
                    return
                manifest = await self.folder.registry.contents.by_digest(self.folder.repository, digest)
            self.reachable.take(manifest)
        except NotFound:
            self.reachable.missing.add(digest)
        except RegfsError as error:
            errors.append(error)


class LayoutFile(Node):
    """``oci-layout`` or ``index.json``: another content is another node."""

    __slots__ = ("_data", "_holds_for")

    def __init__(self, parent: OciFolder, name: str, data: bytes, holds_for: float) -> None:
        super().__init__(parent, name, (name, data))
        self._data = data
        self._holds_for = holds_for

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data)

    @property
    def holds_for(self) -> float:
        """In seconds, as it was made with."""
        return self._holds_for

    @property
    def is_steady(self) -> bool:
        """True: another content is another node."""
        return True

    async def content(self) -> bytes:
        """What it was made with."""
        return self._data


class BlobsFolder(Folder):
    """``blobs``: a folder for each algorithm."""

    __slots__ = ()

    @property
    def layout(self) -> OciFolder:
        """The layout that it is in."""
        assert isinstance(self.parent, OciFolder)
        return self.parent

    @property
    def holds_for(self) -> float:
        """In seconds: as long as the layout's folder."""
        return self.layout.holds_for

    async def find(self, name: str) -> Node:
        """An algorithm's folder; costs the manifests not read yet where none read so far has such a blob. Raises NotFound."""
        algorithms = self.layout.reachable.algorithms()
        if name not in algorithms:
            algorithms = (await self.layout.whole()).algorithms()
        if name not in algorithms:
            raise NotFound(f"the layout has no blob with a digest of {name}")
        return self._algorithm(name)

    async def entries(self) -> Sequence[Node]:
        """A folder for each algorithm; costs the manifests that were not read yet."""
        return [self._algorithm(name) for name in (await self.layout.whole()).algorithms()]

    def _algorithm(self, name: str) -> Node:
        return self.child(name, lambda: AlgorithmFolder(self, name))


class AlgorithmFolder(Folder):
    """``blobs/sha256`` or ``blobs/sha512``: the blobs by the digits of their digests."""

    __slots__ = ()

    @property
    def layout(self) -> OciFolder:
        """The layout that it is in."""
        assert isinstance(self.parent, BlobsFolder)
        return self.parent.layout

    @property
    def holds_for(self) -> float:
        """In seconds: as long as the layout's folder."""
        return self.layout.holds_for

    async def find(self, name: str) -> Node:
        """A blob by the digits of its digest, read no further than to the manifest that names it. Raises NotFound."""
        try:
            digest = Digest.parse(f"{self.name}:{name}")
        except (ValueError, Unsupported):
            raise NotFound(f"{name} is no {self.name} digest") from None
        descriptor = await self.layout.look(digest)
        if descriptor is None:
            raise NotFound(f"the layout has no blob {digest}")
        return self._blob(descriptor)

    async def entries(self) -> Sequence[Node]:
        """All blobs; costs the manifests that were not read yet, and asks again for those that were missing."""
        if self.layout.reachable.missing:
            await self.layout.ask_again()
        found = (await self.layout.whole()).descriptors()
        return [self._blob(descriptor) for descriptor in found if descriptor.digest.algorithm == self.name]

    def _blob(self, descriptor: Descriptor) -> Node:
        name, layout = descriptor.digest.hex, self.layout
        if layout.reachable.is_manifest(descriptor.digest):
            return self.child(name, lambda: ManifestBlob(self, name, descriptor))
        return self.child(name, lambda: BlobFile(self, name, layout.folder, descriptor))

    @property
    def partial(self) -> str:
        """Why this is not all that the manifest leads to; empty where it is."""
        missing = len(self.layout.reachable.missing)
        return f"the registry lacks {missing} of the manifests that the index names" if missing else ""

    def attribute_names(self) -> list[str]:
        """``regfs.partial`` where the registry lacks manifests that the index names."""
        return ["regfs.partial"] if self.partial else []

    async def attribute(self, name: str) -> str:
        """``1`` for ``regfs.partial``. Raises NoSuchAttribute."""
        if name == "regfs.partial" and self.partial:
            return "1"
        raise NoSuchAttribute(f"{self.path()} has no attribute user.{name}")


class ManifestBlob(Node):
    """A manifest among the blobs, verified before its first byte."""

    __slots__ = ("descriptor",)

    def __init__(self, parent: AlgorithmFolder, name: str, descriptor: Descriptor) -> None:
        super().__init__(parent, name)
        self.descriptor = descriptor

    @property
    def _folder(self) -> ManifestFolder:
        assert isinstance(self.parent, AlgorithmFolder)
        return self.parent.layout.folder

    @property
    def size(self) -> int:
        """In bytes, as its descriptor says."""
        return self.descriptor.size

    @property
    def holds_for(self) -> float:
        """In seconds: as long as the folder of the tag or digest."""
        return self._folder.holds_for

    @property
    def is_steady(self) -> bool:
        """True: it is named by its digest."""
        return True

    async def content(self) -> bytes:
        """The manifest's exact bytes, verified. Raises what `Source.manifest` does."""
        contents, repository = self._folder.registry.contents, self._folder.repository
        return (await contents.by_digest(repository, self.descriptor.digest)).raw

    def attribute_names(self) -> list[str]:
        """Its digest, media type and size."""
        return ["oci.digest", "oci.mediatype", "oci.size"]

    async def attribute(self, name: str) -> str:
        """One of them. Raises NoSuchAttribute."""
        return describe(self.descriptor, name)
