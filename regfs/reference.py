"""Names of registries, repositories and tags, and how they are spelled as file names.

Grammars: OCI distribution-spec 1.1, "Pulling manifests"; distribution/reference.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from regfs.digest import Digest
from regfs.errors import Unsupported

_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")
_CONNECTION_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MAX_CONNECTION_NAME: Final = 128
_FALLBACK_TAG: Final = re.compile(r"[a-z0-9]{1,32}-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?")

MAX_REPOSITORY: Final = 255
"""The longest ``host/name`` that clients accept; longer names are 500 on some registries."""

TagOrDigest = str | Digest
"""What follows a repository in a request: a tag's name, or a digest."""


_KEPT: Final = 4096
"""Names whose grammar is remembered: each look at a file asks about the same few again and again."""


@lru_cache(_KEPT)
def is_component(text: str) -> bool:
    """Say whether ``text`` can be one path component of a repository's name."""
    return len(text) <= MAX_REPOSITORY and _COMPONENT.fullmatch(text) is not None


@lru_cache(_KEPT)
def is_repository(text: str) -> bool:
    """Say whether ``text`` can be a repository's name: components joined by ``/``."""
    return 0 < len(text) <= MAX_REPOSITORY and all(map(is_component, text.split("/")))


@lru_cache(_KEPT)
def is_tag(text: str) -> bool:
    """Say whether ``text`` can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_fallback_tag(text: str) -> bool:
    """Say whether ``text`` is a tag that clients keep for themselves, to find what refers to a manifest.

    ``sha256-HEX``: OCI distribution-spec 1.1, "Referrers Tag Schema"; with ``.sig``, ``.att``, ``.sbom`` behind: cosign's.
    """
    return _FALLBACK_TAG.fullmatch(text) is not None


def fallback_tag(digest: Digest) -> str:
    """The tag that holds the index of what refers to a manifest, where the registry keeps none (at the same place)."""
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a registry is: ``host[:port][/prefix]``, and ``scheme`` where the user wrote one.

    ``prefix`` has no slash at either end. IPv6 hosts bear no brackets here.
    """

    host: str
    port: int | None = None
    prefix: str = ""
    scheme: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host``, ``host:port/prefix``, ``[::1]:5000`` or ``https://host/prefix/``. ValueError with the reason."""
        scheme, rest = _split_scheme(text.strip())
        authority, _, path = rest.partition("/")
        if "@" in authority:
            raise ValueError("an address holds no user name or password; use `regfs login --username`")
        host, port = _split_port(authority)
        _check_host(host, text)
        prefix = path.strip("/")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise ValueError(f"not a path prefix: {prefix[:80]!r}")
        if re.search(r"[\s?#%\\]", prefix):
            raise ValueError(f"a path prefix is plain text without '?', '#', '%' or blanks: {prefix[:80]!r}")
        return cls(host.lower(), port, prefix, scheme)

    @property
    def authority(self) -> str:
        """``host[:port]``, with brackets round an IPv6 host, as it stands in a URL and a reference."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True for localhost, ``*.localhost`` and loopback addresses: plain http is acceptable there."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.authority}/{self.prefix}" if self.prefix else self.authority


@dataclass(frozen=True, slots=True)
class Reference:
    """A full reference: ``registry/repository[:tag][@digest]``."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def connection_name(address: str) -> str:
    """Spell an address as a folder's name: no colon, no slash (``localhost_5000``, ``host_prefix``)."""
    _, _, rest = address.rpartition("://")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", rest.strip("/")).rstrip("_").lstrip("._-")
    return name[:_MAX_CONNECTION_NAME] or "registry"


def is_connection_name(text: str) -> bool:
    """Say whether ``text`` can name a connection: a plain file name that hides nothing and holds no colon."""
    return len(text) <= _MAX_CONNECTION_NAME and _CONNECTION_NAME.fullmatch(text) is not None


def split_reference(name: str) -> tuple[str, TagOrDigest] | None:
    """Read a pasted file name: ``app:v1`` → (app, v1), ``app@sha256:…`` → (app, Digest). None if it is neither."""
    repository, at, digest = name.partition("@")
    if at:
        base, colon, tag = repository.partition(":")
        if not is_component(base) or (colon and not is_tag(tag)):
            return None
        try:
            return base, Digest.parse(digest)
        except (ValueError, Unsupported):
            return None
    repository, colon, tag = name.partition(":")
    return (repository, tag) if colon and is_component(repository) and is_tag(tag) else None


def _split_scheme(text: str) -> tuple[str, str]:
    scheme, separator, rest = text.partition("://")
    if not separator:
        return "", text
    if scheme.lower() not in ("http", "https"):
        raise ValueError(f"an address starts with https:// or http://, or with neither: {text[:80]!r}")
    return scheme.lower(), rest


def _split_port(authority: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[([^\]]*:[^\]]*)\](?::([0-9]+))?|([^:\[\]]*)(?::([0-9]+))?", authority)
    if match is None:
        raise ValueError(f"not host[:port]: {authority[:80]!r}")
    host, port = match[1] or match[3] or "", match[2] or match[4]
    if port is not None and not 0 < int(port[:6]) < 65536:
        raise ValueError(f"not a port: {port[:20]}")
    return host, int(port) if port else None


def _check_host(host: str, text: str) -> None:
    if not host:
        raise ValueError(f"no host name in {text[:80]!r}")
    if ":" in host:
        if "%" in host:
            raise ValueError(f"an address of one link only ('%') cannot stand in a URL: {host[:80]!r}")
        ipaddress.IPv6Address(host)
    elif len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in host.rstrip(".").split(".")):
        raise ValueError(f"not a host name: {host[:80]!r}")
