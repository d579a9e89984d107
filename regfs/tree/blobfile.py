"""A blob as a file: its size and digest are known from a manifest, its bytes are fetched when somebody reads them."""

from __future__ import annotations

from regfs.manifest import Descriptor
from regfs.ports import ContentReader
from regfs.tree.attributes import NOT_YET
from regfs.tree.blobreader import BlobReader
from regfs.tree.manifestfiles import describe
from regfs.tree.nodes import Node
from regfs.tree.streamed import StreamedFile
from regfs.tree.tagfolder import ManifestFolder

VERIFIED = "oci.verified"


class BlobFile(StreamedFile):
    """A file with a blob's bytes, exactly as stored. ``folder`` shows the manifest that names it."""

    __slots__ = ("descriptor", "folder")

    def __init__(self, parent: Node, name: str, folder: ManifestFolder, descriptor: Descriptor) -> None:
        super().__init__(parent, name)
        self.folder = folder
        self.descriptor = descriptor

    @property
    def size(self) -> int:
        return self.descriptor.size

    @property
    def holds_for(self) -> float:
        return self.folder.holds_for if self.is_verified else 0.0

    async def reader(self) -> ContentReader:
        return await self.folder.registry.blobs.open(self.folder.repository, self.descriptor)

    def descriptor_of(self, reader: ContentReader) -> int | None:
        """See `StreamedFile.descriptor_of`."""
        return reader.descriptor if isinstance(reader, BlobReader) else NOT_YET

    def attribute_names(self) -> list[str]:
        return ["oci.digest", "oci.mediatype", "oci.size", VERIFIED, "regfs.reference"]

    async def attribute(self, name: str) -> str:
        if name == VERIFIED:
            verified = not self.is_poisoned and await self.folder.registry.blobs.is_verified(self.descriptor)
            return str(int(verified))
        if name == "regfs.reference":
            return await self.folder.attribute(name)
        return describe(self.descriptor, name)
