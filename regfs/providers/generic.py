"""Any registry that speaks the Docker V2 / OCI distribution protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regfs.ports import (
    Claim,
    Counts,
    DeletesTags,
    Field,
    HonoursRanges,
    ListsReferrers,
    ListsRepositories,
    Recovers,
    ResolvesTags,
)
from regfs.reference import Address

if TYPE_CHECKING:
    from regfs.connection import Connection
    from regfs.ports import Source, Tools
    from regfs.registry.client import Client
    from regfs.registry.v2 import V2Source

_OTHER_SCHEME: Final = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*:(?![0-9])", re.IGNORECASE)
"""``oci:/path``: another provider's spelling, where ``localhost:5000`` is ours."""


class GenericProvider:
    """A V2 registry at ``host[:port][/prefix]``.

    A registry that differs little is a subclass: it names itself and its `hosts`, and gives another `source_class`
    where requests or replies differ.
    """

    name = "generic"
    title = "Docker V2 / OCI registry"
    default_auth = "challenge"
    many = True
    capabilities: Sequence[type] = (
        ListsRepositories,
        ListsReferrers,
        ResolvesTags,
        HonoursRanges,
        DeletesTags,
        Recovers,
        Counts,
    )
    """What its Sources hand out on a mount that may write, and so everything that `V2Source` does: a provider whose Source
    is made from that one adds to these, or takes from them, and has what a later regfs adds."""

    hosts: Sequence[str] = ()
    """Host names that are surely of this kind; ``*.example.com`` stands for all below it. Empty: any host may be."""

    @property
    def fields(self) -> Sequence[Field]:
        """Nothing beyond what the auth method asks for."""
        return ()

    def claim(self, address: str) -> Claim | None:
        """Take ``host[:port]`` and leave the path: where a prefix ends, only an existing connection can say.

        A host that is none of `hosts` is claimed with no confidence to speak of: who names the provider may mean an
        installation of his own. None: another provider's spelling. ValueError: malformed, with the reason.
        """
        if _OTHER_SCHEME.match(address.strip()) and "@" not in address:
            return None
        parsed = Address.parse(address)
        if any(_matches(parsed.host, pattern) for pattern in self.hosts):
            return Claim(_authority(parsed), parsed.prefix, 100, f"{parsed.host} is a host of its own")
        return Claim(_authority(parsed), parsed.prefix, 1 if self.hosts else 10)

    async def registries(self, connection: Connection, tools: Tools) -> Mapping[str, Source]:
        """One registry: the connection itself. Makes no request."""
        from regfs.registry.client import Client

        client = Client(connection, tools.http, tools.auth, read_only=tools.http.read_only)
        return {"": self.source(connection, client, tools)}

    def source(self, connection: Connection, client: Client, tools: Tools) -> Source:
        """The Source for a connection, of the class that `source_class` says."""
        from regfs.registry.journal import Journal

        journal = Journal(tools.state_dir)
        return self.source_class()(connection.address, client, journal, tag_delete=connection.tag_delete)

    def source_class(self) -> type[V2Source]:
        """What a subclass replaces where its registry answers otherwise than plain V2. Imported when first needed."""
        from regfs.registry.v2 import V2Source

        return V2Source


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern


def _authority(address: Address) -> str:
    """``host[:port]``: https's own port goes without saying, http's has to be said once the scheme is dropped."""
    port = address.port
    if address.scheme == "http":
        port = port or (None if address.is_loopback else 80)
    elif port == 443:
        port = None
    return replace(address, port=port, prefix="").authority
