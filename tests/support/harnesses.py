"""The registries that the contract suite runs on, each with the Source of ours for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from regfs.connection import Connection
from regfs.ports import HttpPolicy, Source
from regfs.providers.oci import OciLayoutSource
from regfs.registry.client import Client
from regfs.registry.journal import Journal
from regfs.registry.v2 import V2Source
from regfs.testing.images import Pushable, write_layout
from regfs.testing.memory import MemorySource

if TYPE_CHECKING:
    import httpx

POLICY = HttpPolicy("regfs-tests")


@dataclass
class MemoryHarness:
    """A Source in memory."""

    source: MemorySource = field(default_factory=MemorySource)

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """As in `regfs.testing.contract.Harness`."""
        self.source.push(repository, tags, what)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Source]:
        """As in `regfs.testing.contract.Harness`."""
        yield self.source
        await self.source.aclose()


@dataclass
class V2Harness:
    """Any registry that speaks V2, at ``address``; ``put`` is how content gets there from outside."""

    address: str
    put: Callable[[str, Sequence[str], Pushable], object]
    state: Path
    flow: Callable[[Connection], httpx.Auth | None] = lambda _: None
    ca: Path | None = None

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """As in `regfs.testing.contract.Harness`."""
        self.put(repository, tags, what)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Source]:
        """As in `regfs.testing.contract.Harness`."""
        connection = Connection("r", self.address, ca=self.ca, username="tester")
        client = Client(connection, POLICY, self.flow(connection))
        source = V2Source(self.address.partition("://")[2], client, Journal(self.state))
        try:
            yield source
        finally:
            await source.aclose()


@dataclass
class LayoutHarness:
    """A folder of OCI layouts."""

    root: Path

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """As in `regfs.testing.contract.Harness`."""
        write_layout(self.root / repository, dict.fromkeys(tags, what))

    def open(self) -> AbstractAsyncContextManager[Source]:
        """As in `regfs.testing.contract.Harness`."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Source]:
        source = OciLayoutSource(f"oci:{self.root}")
        yield source
        await source.aclose()
