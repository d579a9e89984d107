"""The root of a mount of several registries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regfs.connection import Connection
from regfs.errors import NotFound
from regfs.reference import connection_name
from regfs.tree.nodes import Folder, Link, Node


class ConnectionsRoot(Folder):
    """The root of a mount with one folder a connection. An address leads to its connection's folder, as a link."""

    __slots__ = ("_born", "on_use", "shown")

    def __init__(self, born: int, on_use: Callable[[], None]) -> None:
        super().__init__(None, "")
        self.shown: dict[str, tuple[Folder, Connection]] = {}
        self.on_use = on_use
        self._born = born

    @property
    def time_ns(self) -> int:
        """When this mount began, in nanoseconds since 1970."""
        return self._born

    async def find(self, name: str) -> Node:
        """A connection's folder, or by its address a link there. Notices sign-ins. Raises NotFound."""
        self.on_use()
        if name in self.shown:
            return self.shown[name][0]
        for folder, connection in self.shown.values():
            if name in (connection.address, connection_name(connection.address)):
                return self.child(name, lambda to=folder.name: Link(self, name, to, 0.0))  # type: ignore[misc]
        raise NotFound(f"there is no connection {name[:80]}")

    async def entries(self) -> Sequence[Node]:
        """The connections' folders, in the order they were opened. Notices sign-ins."""
        self.on_use()
        return [folder for folder, _ in self.shown.values()]
