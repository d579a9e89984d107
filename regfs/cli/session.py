"""What most commands begin with: the settings, the connections, and which of them a path on the command line means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from regfs.connection import Connection

if TYPE_CHECKING:
    from regfs.config import Settings


def load(overrides: Mapping[str, object] | None = None) -> tuple[Settings, tuple[Connection, ...]]:
    """The settings and all connections, from the config files and from `regfs login`. Raises ConfigError."""
    from regfs.config import load_settings
    from regfs.connections import ConnectionStore, all_connections

    settings = load_settings(overrides or {})
    return settings, all_connections(settings, ConnectionStore())


def claimed(address: str, provider: str | None = None) -> tuple[str, str, str]:
    """Provider, the registry's normalised address and the path behind it. ConfigError: nobody takes it, and why."""
    from regfs import plugins
    from regfs.errors import ConfigError

    if "@" in address.rpartition("://")[2].partition("/")[0] and not address.startswith("oci:"):
        raise ConfigError(
            "an address holds no user name or password; give them to `regfs login --username USER`"
        )
    if provider is None:
        provider, claim = plugins.claims(address)
        return provider, claim.address, claim.rest
    try:
        taken = plugins.provider(provider).claim(address)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if taken is None:
        raise ConfigError(f"not an address of the provider {provider!r}: {address[:200]!r}")
    return provider, taken.address, taken.rest


def locate(text: str, connections: tuple[Connection, ...]) -> tuple[Connection, str]:
    """The connection that ``REGISTRY/PATH`` means, and the path in it.

    A connection's name or longest matching address wins; an address that no connection has is used as it stands.
    """
    from regfs.connections import find_connection

    found = find_connection(text, connections)
    if found is not None:
        return found[0], _spelled(*found)
    provider, address, rest = _claimed_with_path(text)
    known = under_other_name(provider, f"{address}/{rest}".rstrip("/"), connections)
    return (ad_hoc(address, provider), rest) if known is None else (known[0], _spelled(*known))


def under_other_name(
    provider: str, address: str, connections: tuple[Connection, ...]
) -> tuple[Connection, str] | None:
    """The connection, and the path in it, that an address means once its provider has spelled it: hosts may be one."""
    from regfs.connections import find_connection

    return find_connection(address, [known for known in connections if known.provider == provider])


def _spelled(connection: Connection, path: str) -> str:
    """The path as the connection's provider spells it; one that cannot be used is told of where it is opened."""
    from regfs import plugins
    from regfs.errors import PluginError
    from regfs.ports import SpellsPaths

    try:
        provider = plugins.provider(connection.provider)
    except PluginError:
        return path
    return provider.spelled(path) if isinstance(provider, SpellsPaths) else path


def _claimed_with_path(text: str) -> tuple[str, str, str]:
    """Like `claimed`. What no registry's prefix can be, such as ``team/../x``, may still be a path behind its host."""
    from regfs.errors import ConfigError

    try:
        return claimed(text)
    except ConfigError:
        scheme, separator, plain = text.rpartition("://")
        host, slash, path = plain.partition("/")
        if not slash:
            raise
        provider, address, _ = claimed(f"{scheme}{separator}{host}")
        return provider, address, path


def ad_hoc(address: str, provider: str) -> Connection:
    """A connection for an address that was never signed in to: what the provider takes by default."""
    from regfs import plugins
    from regfs.reference import connection_name

    auth = plugins.provider(provider).default_auth
    return Connection(connection_name(address), address, provider=provider, auth=auth)
