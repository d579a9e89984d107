"""Docker Hub: images by the registry, namespaces, dates and deletion by the Hub API beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from regfs.errors import ConfigError, RegfsError
from regfs.ports import (
    Claim,
    Counts,
    DatesTags,
    DeletesTags,
    Field,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    Metered,
    ResolvesTags,
)
from regfs.reference import Address

if TYPE_CHECKING:
    from regfs.connection import Connection
    from regfs.ports import Source, Tools

NAME: Final = "docker.io"
"""What Docker Hub is called in references."""

HOSTS: Final = frozenset(
    {
        NAME,
        "index.docker.io",
        "registry-1.docker.io",
        "www.docker.io",
        "hub.docker.com",
        "registry.hub.docker.com",
    }
)
"""The hosts that are one registry: in references, in Docker's config, in its daemon, and in a browser."""

OPTIONS: Final[Mapping[str, str]] = {
    "api": "https://hub.docker.com",
    "registry": "https://registry-1.docker.io",
}
"""What a connection's `options` may say, and what holds where they do not."""

_PAGE: Final = re.compile(
    r"(?:r|repository/docker|layers)/(?P<full>[^/]+/[^/]+)(?:/.*)?|_/(?P<official>[^/]+)(?:/.*)?"
)


class DockerHubProvider:
    """Docker Hub, by whichever of its names. Its address is always ``docker.io``."""

    name = "dockerhub"
    title = "Docker Hub"
    default_auth = "challenge"
    many = True
    capabilities: Sequence[type] = (
        ListsNamespaces,
        ListsReferrers,
        ResolvesTags,
        HonoursRanges,
        Metered,
        DatesTags,
        DeletesTags,
        Counts,
    )

    @property
    def fields(self) -> Sequence[Field]:
        """Nothing beyond what the auth method asks for."""
        return ()

    def claim(self, address: str) -> Claim | None:
        """Take any of its host names, and the pages of its web site. ValueError: malformed, with the reason."""
        authority = address.strip().rpartition("://")[2].partition("/")[0].rpartition("@")[2]
        if authority.partition(":")[0].lower() not in HOSTS:
            return None
        parsed = Address.parse(address)
        if parsed.port not in (None, 443):
            return None
        return Claim(NAME, _inside(parsed), confidence=100, reason="its own host name")

    async def registries(self, connection: Connection, tools: Tools) -> Mapping[str, Source]:
        """One registry. Makes no request. ConfigError: an option that it does not know, or an address with a path."""
        from regfs.providers.dockerhub_opening import opened

        if connection.address.rstrip("/") != NAME:
            raise ConfigError(
                f"the address of Docker Hub is {NAME}, and no path belongs to it: {connection.address[:100]}; "
                'to show one namespace of it alone say `only = ["NAMESPACE/**"]`'
            )
        unknown = sorted(key for key, _ in connection.options if key not in OPTIONS)
        if unknown:
            raise ConfigError(
                f"Docker Hub has the options {', '.join(OPTIONS)}, and not {', '.join(unknown)}"
            )
        return {"": opened(connection, tools, {**OPTIONS, **dict(connection.options)})}


def _inside(address: Address) -> str:
    """What an address leads to in the registry: a path, or the repository that a page of the web site is about."""
    path = "" if address.prefix in ("v1", "v2") else address.prefix
    if address.host != "hub.docker.com":
        return path
    page = _PAGE.fullmatch(path)
    if page is None:
        return path
    return page["full"] or f"library/{page['official']}"


@contextmanager
def of_the_hub() -> Iterator[None]:
    """Let errors name Docker Hub as people know it, whichever host they happened on."""
    try:
        yield
    except RegfsError as error:
        error.registry = NAME
        raise
