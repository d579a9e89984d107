"""Opening one connection's Sources outside the tree: to check a sign-in, or whether a registry answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regfs import __version__
from regfs.connection import Connection
from regfs.ports import Credential, HttpPolicy, Keychain, Source

CHECK_POLICY: Final = HttpPolicy(
    user_agent=f"regfs/{__version__}", call_deadline=10.0, retries=1, read_only=True
)
"""Somebody waits at a prompt: fewer retries than a mount makes, and an earlier end."""


@dataclass(slots=True)
class OneCredential:
    """A keychain that holds the credential just typed, or nothing, and asks nobody. One that is renewed is held instead."""

    credential: Credential | None = None

    async def get(self, connection: Connection) -> Credential | None:  # noqa: ARG002
        """What it holds, whatever the connection."""
        return self.credential

    async def store(self, connection: Connection, credential: Credential) -> None:  # noqa: ARG002
        """Hold what came in place of the credential."""
        self.credential = credential


@asynccontextmanager
async def opened(
    connection: Connection, keychain: Keychain, state_dir: Path, policy: HttpPolicy = CHECK_POLICY
) -> AsyncIterator[Mapping[str, Source]]:
    """The connection's registries by folder name, closed at the end. Raises PluginError and what providers raise."""
    from regfs.opening import open_registries

    sources = await open_registries(connection, keychain, policy, state_dir)
    try:
        yield sources
    finally:
        for source in sources.values():
            await source.aclose()


async def check(connection: Connection, keychain: Keychain) -> None:
    """Ask each registry of the connection whether it answers this caller. Raises what `Source.check` raises."""
    from tempfile import gettempdir

    async with opened(connection, keychain, Path(gettempdir())) as sources:
        for source in sources.values():
            await source.check()
