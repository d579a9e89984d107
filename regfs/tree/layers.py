"""The folder ``layers`` of a manifest: each blob exactly as it is stored, fetched when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from regfs.errors import NotFound
from regfs.manifest import Descriptor, Manifest
from regfs.tree.blobfile import BlobFile
from regfs.tree.manifestfiles import BareRoom
from regfs.tree.nodes import Node
from regfs.tree.tagfolder import ManifestFolder
from regfs.tree.titles import artifact_names

_SUFFIXES: Final = {"gzip": ".tar.gz", "zstd": ".tar.zst", "tar": ".tar"}
"""By the last word of a media type: ``…layer.v1.tar+gzip`` (image-spec 1.1), ``…diff.tar.gzip`` (Docker's schema 2)."""


def layer_names(manifest: Manifest) -> Mapping[str, Descriptor]:
    """Name and descriptor of each layer, in the manifest's order.

    Those of an image are numbered from the lowest on, in as many digits as the last one needs, two at the least; those
    of an artifact bear their titles, as `artifact_names` says.
    """
    if not manifest.is_image:
        return artifact_names(manifest.layers)
    width = max(2, len(str(len(manifest.layers) - 1)))
    return {f"{n:0{width}}{suffix(layer.media_type)}": layer for n, layer in enumerate(manifest.layers)}


def suffix(media_type: str) -> str:
    """How the file of a layer of that type ends: ``.tar``, ``.tar.gz``, ``.tar.zst``; nothing for an unknown type."""
    words = media_type.lower().replace("+", ".").split(".")
    return _SUFFIXES.get(words[-1], "") if "tar" in words else ""


class LayersFolder(BareRoom):
    """The blobs of an image's layers or of an artifact; of an index, those of the host's platform."""

    __slots__ = ("_named",)

    def __init__(self, parent: ManifestFolder, name: str, manifest: Manifest) -> None:
        super().__init__(parent, name, manifest)
        self._named: Mapping[str, Descriptor] | None = None

    async def find(self, name: str) -> Node:
        """A layer's file; of an index the host's manifest may be asked for. Raises NotFound, and what reading that manifest does."""
        named = await self._layers()
        if name not in named:
            raise NotFound(f"{self.path()} holds no {name}")
        return self._file(name, named[name])

    async def entries(self) -> Sequence[Node]:
        """The layers' files in the manifest's order; fetches none of them."""
        return [self._file(name, descriptor) for name, descriptor in (await self._layers()).items()]

    async def _layers(self) -> Mapping[str, Descriptor]:
        if self._named is None:
            folder = self.folder
            self._named = layer_names(await folder.registry.contents.image(folder.repository, self.manifest))
        return self._named

    def _file(self, name: str, descriptor: Descriptor) -> Node:
        return self.child(name, lambda: BlobFile(self, name, self.folder, descriptor))
