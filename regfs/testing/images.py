"""Small valid images, indexes and artifacts, as the bytes that a registry keeps.

Shapes: OCI image-spec 1.1 (manifest.md, image-index.md, config.md) and Docker's manifest v2 schema 2.
Everything is made anew from its arguments, so the same arguments give the same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from regfs.digest import Digest
from regfs.manifest import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Platform,
    parse_manifest,
)

Family = Literal["oci", "docker"]
"""Whose media types are used: OCI's, or those of Docker's manifest v2 schema 2."""

DEFAULT_PLATFORM: Final = Platform("linux", "amd64")
DEFAULT_CREATED: Final = datetime(2024, 5, 17, 12, 30, tzinfo=UTC)
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"

_REF_NAME: Final = "org.opencontainers.image.ref.name"
_LAYER_TYPE: Final = {
    "oci": "application/vnd.oci.image.layer.v1.tar+gzip",
    "docker": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
_CONFIG_TYPE: Final = {"oci": OCI_CONFIG, "docker": DOCKER_CONFIG}
_MANIFEST_TYPE: Final = {"oci": OCI_MANIFEST, "docker": DOCKER_MANIFEST}
_INDEX_TYPE: Final = {"oci": OCI_INDEX, "docker": DOCKER_LIST}


@dataclass(frozen=True)
class Content:
    """Bytes with their media type: a config, a layer, a manifest or an index."""

    media_type: str
    raw: bytes

    @cached_property
    def digest(self) -> Digest:
        """The sha256 digest of the bytes."""
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """What points at this content."""
        return Descriptor(self.media_type, self.digest, len(self.raw))

    def reference(self, **more: object) -> dict[str, object]:
        """The descriptor as JSON, with further members such as ``platform`` or ``annotations``."""
        plain = {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.raw)}
        return {**plain, **{key: value for key, value in more.items() if value}}


@dataclass(frozen=True)
class Image:
    """One image or artifact: its manifest, and the blobs that the manifest names."""

    manifest: Content
    config: Content
    layers: tuple[Content, ...]
    platform: Platform | None = DEFAULT_PLATFORM
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.manifest.digest

    @property
    def blobs(self) -> tuple[Content, ...]:
        """Config and layers, in manifest order."""
        return (self.config, *self.layers)

    def manifests(self) -> Iterator[Content]:
        """The manifests to push, in the order that a registry asks for."""
        yield self.manifest

    def parsed(self) -> Manifest:
        """The manifest as the product reads it."""
        return parse_manifest(self.manifest.raw, self.manifest.media_type, self.digest)


@dataclass(frozen=True)
class Index:
    """An OCI index or a Docker manifest list, with the images that it names."""

    manifest: Content
    images: tuple[Image, ...]

    @property
    def digest(self) -> Digest:
        """The index's digest."""
        return self.manifest.digest

    @property
    def blobs(self) -> tuple[Content, ...]:
        """All blobs of all images, each once."""
        return tuple({blob.digest: blob for image in self.images for blob in image.blobs}.values())

    def manifests(self) -> Iterator[Content]:
        """The manifests to push: children before the index that names them."""
        yield from (image.manifest for image in self.images)
        yield self.manifest

    def parsed(self) -> Manifest:
        """The index as the product reads it."""
        return parse_manifest(self.manifest.raw, self.manifest.media_type, self.digest)


Pushable = Image | Index
"""What can be pushed under a tag."""


def make_layer(files: Mapping[str, bytes], family: Family = "oci") -> Content:
    """A gzipped tar of ``files`` (path: bytes), the same bytes for the same files."""
    return Content(_LAYER_TYPE[family], gzip.compress(_tar(files), mtime=0))


def make_image(
    seed: str = "",
    *,
    family: Family = "oci",
    platform: Platform = DEFAULT_PLATFORM,
    created: datetime | str | None = DEFAULT_CREATED,
    files: Mapping[str, bytes] | None = None,
    annotations: Mapping[str, str] | None = None,
    subject: Content | None = None,
) -> Image:
    """An image of one layer. Another ``seed`` gives another digest; ``created`` is written as given, or left out."""
    tree = {"etc/os-release": f"ID=regfs\nSEED={seed}\n".encode()} if files is None else files
    layer = make_layer(tree, family)
    config = Content(_CONFIG_TYPE[family], _config(seed, platform, created, _tar(tree)))
    manifest = _compact(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE[family],
            "config": config.reference(),
            "layers": [layer.reference()],
            **_optional(subject=subject and subject.reference(), annotations=annotations),
        }
    )
    content = Content(_MANIFEST_TYPE[family], manifest)
    return Image(content, config, (layer,), platform, tuple((annotations or {}).items()))


def make_index(
    images: Sequence[Image] | None = None,
    seed: str = "",
    *,
    family: Family = "oci",
    annotations: Mapping[str, str] | None = None,
    attestations: bool = False,
) -> Index:
    """An index of ``images`` (default: linux/amd64 and linux/arm64/v8).

    With ``attestations`` each image gets one as BuildKit makes it: a manifest of platform unknown/unknown.
    """
    members = tuple(_default_members(seed, family) if images is None else images)
    extra = tuple(_attestation(image) for image in members) if attestations else ()
    index = _compact(
        {
            "schemaVersion": 2,
            "mediaType": _INDEX_TYPE[family],
            "manifests": [_entry(image) for image in (*members, *extra)],
            **_optional(annotations=annotations or ({"seed": seed} if seed and family == "oci" else None)),
        }
    )
    return Index(Content(_INDEX_TYPE[family], index), (*members, *extra))


def make_artifact(
    artifact_type: str = "application/vnd.example.sbom.v1+json",
    files: Mapping[str, bytes] | None = None,
    *,
    annotations: Mapping[str, str] | None = None,
    subject: Content | None = None,
) -> Image:
    """An artifact as `oras push` makes it: an empty config, one layer for each file, its title as an annotation."""
    contents = {"sbom.json": b"{}\n"} if files is None else files
    config = Content(EMPTY_TYPE, b"{}")
    layers = {title: Content("application/octet-stream", data) for title, data in contents.items()}
    manifest = _compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": config.reference(),
            "layers": [
                layer.reference(annotations={"org.opencontainers.image.title": title})
                for title, layer in layers.items()
            ],
            **_optional(subject=subject and subject.reference(), annotations=annotations),
        }
    )
    return Image(Content(OCI_MANIFEST, manifest), config, tuple(layers.values()), None)


def make_referrers_index(referrers: Sequence[Image]) -> Index:
    """What clients keep under the fallback tag of a manifest, where a registry has no Referrers API."""
    entries = []
    for image in referrers:
        told = image.parsed().as_referrer()
        entries.append(
            image.manifest.reference(artifactType=told.artifact_type, annotations=dict(told.annotations))
        )
    index = _compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    return Index(Content(OCI_INDEX, index), tuple(referrers))


def write_layout(folder: Path, tags: Mapping[str, Pushable]) -> Path:
    """Write an OCI image layout (image-layout.md) that holds ``tags``, besides what it holds already."""
    for pushable in tags.values():
        for content in (*pushable.blobs, *pushable.manifests()):
            place = folder / "blobs" / content.digest.algorithm / content.digest.hex
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.raw)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    place = folder / "index.json"
    held = json.loads(place.read_bytes())["manifests"] if place.exists() else []
    kept = [entry for entry in held if entry.get("annotations", {}).get(_REF_NAME) not in tags]
    new = [what.manifest.reference(annotations={_REF_NAME: tag}) for tag, what in tags.items()]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*kept, *new]}
    place.write_bytes(_compact(index))
    return folder


def write_dir(folder: Path, what: Pushable) -> Path:
    """Write ``what`` as containers' ``dir:`` transport keeps it, any media types allowed; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(what.manifest.raw)
    for blob in what.blobs:
        (folder / blob.digest.hex).write_bytes(blob.raw)
    for child in what.images if isinstance(what, Index) else ():
        (folder / f"{child.digest.hex}.manifest.json").write_bytes(child.manifest.raw)
    return folder


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _config(seed: str, platform: Platform, created: datetime | str | None, tar: bytes) -> bytes:
    when = created.isoformat().replace("+00:00", "Z") if isinstance(created, datetime) else created
    config: dict[str, Any] = {
        **_optional(created=when),
        "architecture": platform.architecture,
        "os": platform.os,
        **_optional(variant=platform.variant, **{"os.version": platform.os_version}),
        "config": {"Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
        "history": [{**_optional(created=when), "created_by": "regfs.testing"}],
    }
    return _compact(config)


def _entry(image: Image) -> dict[str, object]:
    platform = image.platform
    if platform is None:
        return image.manifest.reference(annotations=dict(image.annotations))
    shape = {
        "architecture": platform.architecture,
        "os": platform.os,
        **_optional(variant=platform.variant, **{"os.version": platform.os_version}),
    }
    return image.manifest.reference(platform=shape, annotations=dict(image.annotations))


def _attestation(image: Image) -> Image:
    statement = Content("application/vnd.in-toto+json", _compact({"subject": str(image.digest)}))
    config = Content(OCI_CONFIG, _config("attestation", Platform("unknown", "unknown"), None, b""))
    annotations = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": str(image.digest),
    }
    manifest = _compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.reference(),
            "layers": [statement.reference()],
        }
    )
    content = Content(OCI_MANIFEST, manifest)
    return Image(content, config, (statement,), Platform("unknown", "unknown"), tuple(annotations.items()))


def _default_members(seed: str, family: Family) -> tuple[Image, ...]:
    platforms = (DEFAULT_PLATFORM, Platform("linux", "arm64", "v8"))
    return tuple(make_image(seed, family=family, platform=platform) for platform in platforms)


def _optional(**members: object) -> dict[str, object]:
    return {key: value for key, value in members.items() if value}


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
