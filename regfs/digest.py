"""Content digests: parsing, and verification while bytes pass.

Grammar: OCI image-spec, descriptor.md, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from regfs.errors import DigestMismatch, Unsupported

_DIGEST: Final = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A registered digest (sha256 or sha512): ``algorithm:hex``."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:…``. ValueError for what the grammar forbids, Unsupported for an algorithm we cannot verify."""
        match = _DIGEST.fullmatch(text)
        if match is None:
            raise ValueError(f"not a digest: {text[:80]!r}")
        algorithm, encoded = match.groups()
        length = _HEX_LENGTH.get(algorithm)
        if length is None:
            raise Unsupported(f"digest algorithm {algorithm[:40]!r} is not supported")
        if len(encoded) != length or _HEX.fullmatch(encoded) is None:
            raise ValueError(f"not a {algorithm} digest: {text[:80]!r}")
        return cls(algorithm, encoded)

    @classmethod
    def from_file_name(cls, name: str) -> Digest:
        """Read ``sha256-HEX``, the spelling without a colon. Raises like `parse`."""
        algorithm, dash, encoded = name.partition("-")
        if not dash:
            raise ValueError(f"not a digest's file name: {name[:80]!r}")
        return cls.parse(f"{algorithm}:{encoded}")

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Hash ``data``: about 1 ms for 1 MiB, so larger data belongs in a thread."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    @property
    def file_name(self) -> str:
        """``sha256-HEX``: no colon, since PATH-like variables and `skopeo oci:` split there."""
        return f"{self.algorithm}-{self.hex}"

    def check(self, data: bytes, what: str = "content") -> None:
        """Raise DigestMismatch unless ``data`` hashes to this digest."""
        found = Digest.of(data, self.algorithm)
        if found != self:
            raise DigestMismatch(f"{what}: the bytes are {found}, not {self}")

    def verifier(self) -> Verifier:
        """Check bytes against this digest while they pass."""
        return Verifier(self)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Verifier:
    """Hash bytes as they pass, and say at the end whether they are the right ones."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._hash = hashlib.new(digest.algorithm)
        self.size = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self.size += len(data)

    def finish(self, what: str = "content") -> None:
        """Raise DigestMismatch unless all that passed hashes to the digest."""
        found = self._hash.hexdigest()
        if found != self._digest.hex:
            raise DigestMismatch(
                f"{what}: the bytes are {self._digest.algorithm}:{found}, not {self._digest}"
            )
