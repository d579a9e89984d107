"""What a referrer is called: what it is, in a word, and the beginning of its digest. Pure.

Types: OCI image-spec 1.1 (``artifactType``); cosign's SIGNATURE_SPEC and BUNDLE_SPEC; the Notary Project's signature
specification; in-toto's attestation framework; SPDX 2.3 and CycloneDX by IANA's list; BuildKit's attestation storage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from regfs.digest import Digest
from regfs.errors import Unsupported
from regfs.manifest import CONFIG_TYPES, INDEX_TYPES, Descriptor

SIGNATURE: Final = "signature"
ATTESTATION: Final = "attestation"
SBOM: Final = "sbom"

COSIGN_TAGS: Final[Mapping[str, str]] = {"sig": SIGNATURE, "att": ATTESTATION, "sbom": SBOM}
"""What cosign keeps under ``sha256-HEX.SUFFIX``, by the suffix."""

REFERENCE_TYPE: Final = "vnd.docker.reference.type"
REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"
"""BuildKit's annotations of an index's entry that is no image, but about another entry."""

_BEGINNINGS: Final = {
    "application/vnd.dev.cosign.artifact.sig": SIGNATURE,
    "application/vnd.dev.cosign.simplesigning": SIGNATURE,
    "application/vnd.cncf.notary": SIGNATURE,
    "application/vnd.dev.cosign.artifact.att": ATTESTATION,
    "application/vnd.dsse.envelope": ATTESTATION,
    "application/vnd.in-toto": ATTESTATION,
    "application/vnd.dev.cosign.artifact.sbom": SBOM,
    "application/spdx": SBOM,
    "text/spdx": SBOM,
    "application/vnd.cyclonedx": SBOM,
    "application/vnd.syft": SBOM,
    "application/vnd.dev.sigstore.bundle": "bundle",
}
_UNTELLING: Final = frozenset({"", "application/vnd.oci.empty.v1+json"})
_PREDICATES: Final = ("in-toto.io/predicate-type", "dev.sigstore.bundle.predicateType", "predicateType")
_PREDICATE_KINDS: Final = {
    "spdx": SBOM,
    "cyclonedx": SBOM,
    "slsa.dev/provenance": "provenance",
    "cosign/sign": SIGNATURE,
}
_BUNDLE_CONTENT: Final = "dev.sigstore.bundle.content"
_MAX_KIND: Final = 40
_DIGITS: Final = 12
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")
_VERSION: Final = re.compile(r"\.v\d+(?:[.a-z0-9]*)$")


def kind_of(referrer: Descriptor) -> str:
    """What a referrer is, in letters, digits and dots; ``artifact`` where nothing tells."""
    told = referrer.artifact_type.partition(";")[0].strip().lower()
    known = next((kind for start, kind in _BEGINNINGS.items() if told.startswith(start)), None)
    if known in (ATTESTATION, "bundle") or told in _UNTELLING:
        known = _by_annotations(referrer.annotations) or known
    if known is not None:
        return known
    if told in CONFIG_TYPES:
        return "image"
    if told in _UNTELLING:
        return "index" if referrer.media_type in INDEX_TYPES else "artifact"
    return _word(told)


def tells_what_it_is(referrer: Descriptor) -> bool:
    """Whether a descriptor says more than that there is something."""
    return kind_of(referrer) not in ("artifact", "image", "index")


def referrer_names(kinds: Mapping[Digest, str]) -> dict[str, Digest]:
    """The name of each referrer, in the order of the names: its kind, and as much of its digest as tells it apart.

    That is twelve digits, so that a name stays when others come; all of them where somebody made two that are alike.
    """
    short: dict[str, list[Digest]] = {}
    for digest, kind in kinds.items():
        short.setdefault(f"{kind}-{digest.hex[:_DIGITS]}", []).append(digest)
    named = {}
    for name, alike in short.items():
        for digest in alike:
            named[name if len(alike) == 1 else full_name(kinds[digest], digest)] = digest
    return dict(sorted(named.items()))


def full_name(kind: str, digest: Digest) -> str:
    """The name that a referrer always answers to."""
    return f"{kind}-{digest.hex}"


def attested(entry: Descriptor) -> Digest | None:
    """The manifest that an index's entry is about, where BuildKit made it: such an entry is no platform."""
    if entry.platform is None or not entry.platform.is_attestation:
        return None
    try:
        return Digest.parse(entry.annotations.get(REFERENCE_DIGEST, ""))
    except (ValueError, Unsupported):
        return None


def _by_annotations(annotations: Mapping[str, str]) -> str | None:
    predicate = next((annotations[name] for name in _PREDICATES if annotations.get(name)), "").lower()
    if predicate:
        return next((kind for part, kind in _PREDICATE_KINDS.items() if part in predicate), ATTESTATION)
    if annotations.get(_BUNDLE_CONTENT) == "message-signature":
        return SIGNATURE
    return ATTESTATION if annotations.get(REFERENCE_TYPE) == "attestation-manifest" else None


def _word(media_type: str) -> str:
    """``application/vnd.example.report.v1+json`` as ``example.report``."""
    subtype = media_type.rpartition("/")[2].partition("+")[0]
    plain = _VERSION.sub("", subtype.removeprefix("vnd.").removeprefix("x-"))
    return _NO_WORD.sub(".", plain)[:_MAX_KIND].strip(".") or "artifact"
