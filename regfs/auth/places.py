"""Under which keys a connection's credential may be filed, by Docker's and containers' customs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from regfs.auth.origin import DOCKER_HUB
from regfs.connection import Connection
from regfs.ports import Credential, CredentialKind
from regfs.reference import Address, is_repository

V = TypeVar("V")

DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
"""What Docker files Docker Hub's credentials under."""


def keys_for(connection: Connection) -> list[str]:
    """The keys of a connection, the most specific first: ``host/prefix/namespace``, ``host/prefix``, ``host``.

    A namespace counts where the connection, or what the credential is wanted for (``part``), is that one only.
    """
    try:
        address = Address.parse(connection.address)
    except ValueError:
        return [connection.address]
    parts = [part for part in address.prefix.split("/") if part]
    if connection.part:
        parts += connection.part.split("/")
    elif len(connection.namespaces) == 1:
        parts += [part for part in connection.namespaces[0].split("/") if part]
    host = canonical(address.authority)
    return ["/".join([host, *parts[:count]]) for count in range(len(parts), -1, -1)]


def parts_among(keys: Iterable[str], connection: Connection) -> list[str]:
    """What of ``keys`` is for a part of the connection's registry: its namespaces and repositories."""
    try:
        address = Address.parse(connection.address)
    except ValueError:
        return []
    start = "/".join([canonical(address.authority), *filter(None, address.prefix.split("/"))]) + "/"
    found = (key.removeprefix(start) for key in map(canonical, keys) if key.startswith(start))
    return [part for part in found if is_repository(part)]


def is_users(credential: Credential, connection: Connection) -> bool:
    """Whether a credential is of the user whom the connection names, as far as either says."""
    if credential.kind is not CredentialKind.PASSWORD:
        return True
    return connection.username in ("", credential.username)


def canonical(key: str) -> str:
    """Spell a key of a file as `keys_for` does: keys may be URLs, of which only the host counts.

    Docker Hub's several names are one; hosts are lower-case; ``/v1/`` and ``/v2/`` are no namespaces.
    """
    _, separator, rest = key.strip().rpartition("://")
    host, _, path = rest.strip("/").partition("/")
    host = host.lower()
    if host.partition(":")[0] in DOCKER_HUB and host.partition(":")[2] in ("", "443"):
        host = "docker.io"
    if separator or path in ("v1", "v2"):
        return host
    return f"{host}/{path}" if path else host


def server_url(key: str) -> str:
    """A key as credential helpers know it: Docker stores the plain host, and a URL for Docker Hub."""
    return DOCKER_HUB_KEY if key == "docker.io" else key


def best(entries: Mapping[str, V], keys: Iterable[str]) -> tuple[str, V] | None:
    """The entry for the most specific of ``keys``, with the key as the file spells it. An exact spelling goes first."""
    filed: dict[str, str] = {}
    for key in entries:
        if canonical(key) not in filed or key == canonical(key):
            filed[canonical(key)] = key
    for key in keys:
        if key in filed:
            return filed[key], entries[filed[key]]
    return None
