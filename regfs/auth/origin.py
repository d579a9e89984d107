"""Where a connection's credentials may go: its own host and port, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regfs.connection import Connection
from regfs.reference import Address

if TYPE_CHECKING:
    import httpx

DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "www.docker.io"})
"""The names of one registry: what people write, what Docker's config is keyed by, and where the registry answers."""

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class Origin:
    """The host and port of a connection, and the path its API is under."""

    def __init__(self, connection: Connection) -> None:
        """Raises ValueError where the connection's address is no HTTP registry's."""
        address = Address.parse(connection.address)
        self._hosts = DOCKER_HUB if address.host in DOCKER_HUB else frozenset({address.host})
        self._port = address.port
        self._plain = connection.insecure or address.is_loopback
        self.base = f"/{address.prefix}/v2/" if address.prefix else "/v2/"

    def owns(self, url: httpx.URL) -> bool:
        """Whether ``url`` is at the connection's own host and port, over https or a plain http that the user allowed."""
        default = _DEFAULT_PORTS.get(url.scheme)
        if default is None or (url.scheme == "http" and not self._plain):
            return False
        # The port that the address leaves out is the scheme's own.
        mine = self._port if self._port is not None else default
        return url.raw_host.decode("ascii").lower() in self._hosts and (url.port or default) == mine
