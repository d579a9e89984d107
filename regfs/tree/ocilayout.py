"""What an OCI image layout of one manifest holds: its two files, and the blobs that can be reached. Pure.

Shapes: OCI image-spec 1.1, image-layout.md and annotations.md. An index entry is found by tools by its annotation
``org.opencontainers.image.ref.name``, or without a name where it is the only one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from regfs.digest import Digest
from regfs.errors import TooLarge
from regfs.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, Descriptor, Manifest

LAYOUT_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}\n'
REF_NAME: Final = "org.opencontainers.image.ref.name"

MAX_MANIFESTS: Final = 1_000
"""The most manifests that one layout is made of: an index's, those of indexes in it, and so on."""


def index_json(manifest: Manifest, tags: Sequence[str]) -> bytes:
    """The ``index.json`` of a layout that holds ``manifest``, which ``tags`` are known to lead to.

    One entry for each tag, so that ``oci:DIR:TAG`` finds each; without a tag one that has no name. What has Docker's media
    types has one entry only, named by the first tag: skopeo finds such a manifest by no name, and without one only if there is
    no other.
    """
    is_dockers = manifest.media_type in (DOCKER_MANIFEST, DOCKER_LIST)
    names: Sequence[str | None] = (tags[:1] if is_dockers else tags) or [None]
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_entry(manifest, name) for name in names],
    }
    return json.dumps(index, separators=(",", ":")).encode() + b"\n"


def _entry(manifest: Manifest, name: str | None) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": str(manifest.digest),
        "size": len(manifest.raw),
    }
    if manifest.artifact_type:
        entry["artifactType"] = manifest.artifact_type
    if name is not None:
        entry["annotations"] = {REF_NAME: name}
    return entry


class Reachable:
    """The blobs of a layout, as far as its manifests were read: more come with each one that `take` is given.

    A descriptor is that of the manifest which names it first.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._found: dict[Digest, Descriptor] = {manifest.digest: manifest.descriptor}
        self._manifests: set[Digest] = {manifest.digest}
        self._unread: dict[Digest, None] = {manifest.digest: None}
        self.missing: set[Digest] = set()
        """Manifests that an index names and the registry does not have."""
        self.take(manifest)

    @property
    def unread(self) -> list[Digest]:
        """Manifests that are named and were not read yet, the missing ones too."""
        return list(self._unread)

    def take(self, manifest: Manifest) -> None:
        """Add what a manifest names. Raises TooLarge where there is no end to it."""
        if manifest.digest not in self._unread:
            return
        self._found[manifest.digest] = manifest.descriptor
        for descriptor in manifest.manifests:
            self._add(descriptor, is_manifest=descriptor.is_manifest or not descriptor.media_type)
        for descriptor in (*([manifest.config] if manifest.config else []), *manifest.layers):
            self._add(descriptor, is_manifest=False)
        del self._unread[manifest.digest]
        self.missing.discard(manifest.digest)

    def _add(self, descriptor: Descriptor, *, is_manifest: bool) -> None:
        if descriptor.digest in self._found:
            return
        if is_manifest:
            if len(self._manifests) >= MAX_MANIFESTS:
                raise TooLarge(f"the index leads to more than {MAX_MANIFESTS} manifests")
            self._manifests.add(descriptor.digest)
            self._unread[descriptor.digest] = None
        self._found[descriptor.digest] = descriptor

    def is_manifest(self, digest: Digest) -> bool:
        """Whether it is asked for as a manifest, not as a blob."""
        return digest in self._manifests

    def find(self, digest: Digest) -> Descriptor | None:
        """The descriptor of what is known to be in the layout, or None."""
        return None if digest in self.missing else self._found.get(digest)

    def descriptors(self) -> Iterator[Descriptor]:
        """All that is known to be in the layout, each digest once, the manifest first."""
        return (descriptor for digest, descriptor in self._found.items() if digest not in self.missing)

    def algorithms(self) -> list[str]:
        """Those of the digests, in the order in which folders are listed."""
        return sorted({descriptor.digest.algorithm for descriptor in self.descriptors()})
