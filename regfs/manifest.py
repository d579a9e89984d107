"""Descriptors, manifests, indexes and configs: typed, with the raw bytes kept.

Shapes: OCI image-spec 1.1 (manifest.md, image-index.md, config.md, descriptor.md) and
Docker's manifest v2 schema 2. Unknown fields are ignored, wrong types are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import msgspec

from regfs.digest import Digest
from regfs.errors import BadReply, TooLarge, Unsupported

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
ACCEPT: Final = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
"""What every manifest request must accept: with less, registries answer 404 or rewrite the manifest."""

MAX_MANIFEST: Final = 4 * 1024 * 1024
"""The largest manifest or config read, in bytes; what the spec asks registries to take."""

_MAX_DESCRIPTORS: Final = 10_000
_MAX_SIZE: Final = 2**63 - 1
_MAX_PLATFORM_NAME: Final = 128
_LATEST_CREATED: Final = datetime(2200, 1, 1, tzinfo=UTC)
_EARLIEST_CREATED: Final = datetime(1981, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (OCI image-index.md, ``platform``)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    @property
    def is_attestation(self) -> bool:
        """BuildKit marks attestations, which are no images, as unknown/unknown."""
        return self.os == "unknown" and self.architecture == "unknown"

    @property
    def file_name(self) -> str:
        """``os-arch[-variant][-osversion]``, with anything outside ``[a-z0-9._-]`` replaced."""
        parts = (self.os, self.architecture, self.variant, self.os_version)
        name = "-".join(part for part in parts if part).lower()
        return re.sub(r"[^a-z0-9._-]", "_", name[:_MAX_PLATFORM_NAME]).lstrip(".") or "unknown"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What points at content: type, digest, size in bytes (OCI descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_manifest(self) -> bool:
        """True where it points at another manifest or index."""
        return self.media_type in INDEX_TYPES | MANIFEST_TYPES


THROW_AWAY_MARK: Final = "regfs.throw-away"
"""The annotation of the empty index that stands on a tag while regfs deletes it, where a registry deletes no tag by name."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index: its exact bytes, and what they say.

    An index has ``manifests``; an image or artifact has ``config`` and ``layers``.
    """

    raw: bytes
    descriptor: Descriptor
    config: Descriptor | None = None
    layers: Sequence[Descriptor] = ()
    manifests: Sequence[Descriptor] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """The digest of ``raw``."""
        return self.descriptor.digest

    @property
    def media_type(self) -> str:
        """The type it really is."""
        return self.descriptor.media_type

    @property
    def is_index(self) -> bool:
        """True for an OCI index or a Docker manifest list."""
        return self.media_type in INDEX_TYPES

    @property
    def is_throw_away(self) -> bool:
        """True for what stands on a tag only while regfs deletes that tag."""
        return self.is_index and not self.manifests and THROW_AWAY_MARK in self.annotations

    @property
    def is_image(self) -> bool:
        """True where the config is an image's: an artifact (a chart, an SBOM) has another type there."""
        return self.config is not None and self.config.media_type in CONFIG_TYPES

    def as_referrer(self) -> Descriptor:
        """The descriptor that a list of referrers has for it: distribution-spec 1.1, "Listing Referrers"."""
        kind = self.artifact_type or (self.config.media_type if self.config is not None else "")
        return replace(self.descriptor, artifact_type=kind, annotations=self.annotations)

    def platforms(self) -> Iterator[tuple[str, Descriptor]]:
        """Name and descriptor of each platform of an index, each name once, in the order in which names first come.

        Two that come out the same get the first digits of the digest.
        """
        named: dict[str, dict[Digest, Descriptor]] = {}
        for descriptor in self.manifests:
            if descriptor.platform is not None and not descriptor.platform.is_attestation:
                named.setdefault(descriptor.platform.file_name, {}).setdefault(descriptor.digest, descriptor)
        taken = {name for name, twins in named.items() if len(twins) == 1}
        for name, twins in named.items():
            for digest, descriptor in twins.items():
                if len(twins) == 1:
                    yield name, descriptor
                elif (numbered := f"{name}-{digest.hex[:12]}") not in taken:
                    taken.add(numbered)
                    yield numbered, descriptor

    def for_platform(self, wanted: Platform) -> Descriptor | None:
        """The first manifest of an index for ``wanted``'s system and architecture, the same variant preferred."""
        fitting = [
            d
            for d in self.manifests
            if d.platform is not None
            and (d.platform.os, d.platform.architecture) == (wanted.os, wanted.architecture)
        ]
        same = [d for d in fitting if d.platform is not None and d.platform.variant == wanted.variant]
        return next(iter([*same, *fitting]), None)


class _PlatformShape(msgspec.Struct, rename={"os_version": "os.version"}):
    os: str = "unknown"
    architecture: str = "unknown"
    variant: str | None = None
    os_version: str | None = None


class _DescriptorShape(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    platform: _PlatformShape | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class _ManifestShape(msgspec.Struct, rename="camel"):
    schema_version: int | None = None
    media_type: str | None = None
    config: _DescriptorShape | None = None
    layers: list[_DescriptorShape] | None = None
    manifests: list[_DescriptorShape] | None = None
    subject: _DescriptorShape | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class _ConfigShape(msgspec.Struct):
    created: str | None = None


_MANIFEST_DECODER: Final = msgspec.json.Decoder(_ManifestShape)
_OBJECT_DECODER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY_DECODER: Final = msgspec.json.Decoder(list[msgspec.Raw] | None)
_DESCRIPTOR_DECODER: Final = msgspec.json.Decoder(_DescriptorShape)
_CONFIG_DECODER: Final = msgspec.json.Decoder(_ConfigShape)


def parse_manifest(raw: bytes, media_type: str, digest: Digest) -> Manifest:
    """Read a manifest whose bytes are known to be ``digest``; ``media_type`` is what the registry said, or empty.

    Raises TooLarge over 4 MiB, Unsupported for Docker's schema 1, BadReply for what is no manifest.
    """
    if len(raw) > MAX_MANIFEST:
        raise TooLarge(f"a manifest of {len(raw)} bytes is over the limit of {MAX_MANIFEST}")
    shape = _decode(raw)
    kind = _media_type(shape, media_type)
    entries = [*(shape.layers or ()), *(shape.manifests or ())]
    if len(entries) > _MAX_DESCRIPTORS:
        raise TooLarge(f"a manifest of {len(entries)} descriptors is over the limit of {_MAX_DESCRIPTORS}")
    is_index = kind in INDEX_TYPES
    return Manifest(
        raw=raw,
        descriptor=Descriptor(kind, digest, len(raw)),
        config=None if is_index or shape.config is None else _descriptor(shape.config),
        layers=() if is_index else tuple(map(_descriptor, shape.layers or ())),
        manifests=tuple(map(_descriptor, shape.manifests or ())) if is_index else (),
        subject=None if shape.subject is None else _descriptor(shape.subject),
        artifact_type=shape.artifact_type or "",
        annotations=shape.annotations or {},
    )


def parse_entries(raw: bytes, most: int = _MAX_DESCRIPTORS) -> tuple[list[Descriptor], int]:
    """The entries of an index, each judged by itself: those that can be used, and how many cannot be.

    Raises BadReply for what is no index, TooLarge for one of more than ``most`` entries.
    """
    try:
        listed = _OBJECT_DECODER.decode(raw)
        entries = _ARRAY_DECODER.decode(listed["manifests"]) or []
    except KeyError:
        raise BadReply("the list of manifests is no index") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadReply(f"the list of manifests is not valid: {str(error)[:200]}") from error
    if len(entries) > most:
        raise TooLarge(f"an index of {len(entries)} manifests is over the limit of {most}")
    found = [descriptor for descriptor in map(_entry, entries) if descriptor is not None]
    return found, len(entries) - len(found)


def _entry(raw: msgspec.Raw) -> Descriptor | None:
    try:
        return _descriptor(_DESCRIPTOR_DECODER.decode(raw))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, BadReply, Unsupported):
        return None


def config_created(raw: bytes) -> datetime | None:
    """When an image was made, by its config. None where it is absent, unreadable, or no time that any image was made."""
    try:
        text = _CONFIG_DECODER.decode(raw).created
        made = datetime.fromisoformat(text) if text else None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return None if made is None else plausible_time(made)


def plausible_time(made: datetime) -> datetime | None:
    """A time at which an image may have been made (without a zone: UTC); None for any other, such as 1970."""
    made = made if made.tzinfo else made.replace(tzinfo=UTC)
    return made if _EARLIEST_CREATED <= made < _LATEST_CREATED else None


def _decode(raw: bytes) -> _ManifestShape:
    try:
        return _MANIFEST_DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadReply(f"the manifest is not valid: {str(error)[:200]}") from error


def _media_type(shape: _ManifestShape, said: str) -> str:
    """The body's own word first, then the header's, then the shape: headers are often wrong or absent."""
    header = said.partition(";")[0].strip().lower()
    for candidate in (shape.media_type or "", header):
        if candidate in INDEX_TYPES | MANIFEST_TYPES:
            return _agreeing(candidate, shape)
    if shape.schema_version == 1:
        raise Unsupported("the manifest is Docker's schema 1, which has been withdrawn; push the image again")
    if shape.manifests is not None and shape.layers is None:
        return OCI_INDEX
    if shape.config is not None or shape.layers is not None:
        return OCI_MANIFEST
    raise BadReply(f"the reply is no manifest (type {header[:100] or 'not given'})")


def _agreeing(kind: str, shape: _ManifestShape) -> str:
    if kind in INDEX_TYPES and shape.manifests is None:
        raise BadReply(f"the manifest calls itself {kind}, and lists no manifests")
    if kind in MANIFEST_TYPES and shape.config is None and shape.layers is None:
        raise BadReply(f"the manifest calls itself {kind}, and has neither config nor layers")
    return kind


def _descriptor(shape: _DescriptorShape) -> Descriptor:
    try:
        digest = Digest.parse(shape.digest)
    except ValueError as error:
        raise BadReply(f"the manifest is not valid: {error}") from error
    if not 0 <= shape.size <= _MAX_SIZE:
        raise BadReply(f"the manifest is not valid: size {shape.size}")
    return Descriptor(
        shape.media_type,
        digest,
        shape.size,
        None if shape.platform is None else _platform(shape.platform),
        shape.artifact_type or "",
        shape.annotations or {},
    )


def _platform(shape: _PlatformShape) -> Platform:
    return Platform(shape.os, shape.architecture, shape.variant or "", shape.os_version or "")
