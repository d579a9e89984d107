"""Opening a connection: its auth method, its provider and what both are given. For the daemon and for commands alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regfs import plugins
from regfs.connection import Connection
from regfs.ports import BringsCredentials, HttpPolicy, Keychain, Source, Tools

if TYPE_CHECKING:
    from regfs.auth.keychain import OrderedKeychain


def with_provider_sources(connection: Connection, keychain: OrderedKeychain) -> OrderedKeychain:
    """The keychain, and behind it the places that only the connection's provider knows. Raises PluginError."""
    provider = plugins.provider(connection.provider)
    if isinstance(provider, BringsCredentials):
        return keychain.beside(provider.credential_sources(connection))
    return keychain


async def open_registries(
    connection: Connection, keychain: Keychain, policy: HttpPolicy, state_dir: Path
) -> Mapping[str, Source]:
    """The connection's registries by folder name. Raises PluginError and what providers raise."""
    tools = Tools(
        auth=plugins.auth_method(connection.auth).flow(connection, keychain),
        http=policy,
        clock=time,
        state_dir=state_dir,
        keychain=keychain,
    )
    return await plugins.provider(connection.provider).registries(connection, tools)
