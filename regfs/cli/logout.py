"""``regfs logout``: forget a registry and its credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regfs.cli import output
from regfs.cli.edge import Advised, say
from regfs.connection import Connection
from regfs.errors import CredentialError

if TYPE_CHECKING:
    from regfs.connections import ConnectionStore


@click.command()
@click.argument("registry", metavar="NAME|REGISTRY")
def logout(registry: str) -> None:
    """Erase a registry's credential from the keyring and forget the connection.

    Works for any connection that `regfs registries` lists, also one whose address cannot be used.
    """
    import trio

    from regfs.connections import ConnectionStore

    store = ConnectionStore()
    connection = _named(registry, store)
    erased = trio.run(_erase, connection)
    removed = store.remove(connection.name)
    output.line(f"signed out of {connection.address}: {_done(erased, removed)}")
    if not removed:
        say(f"regfs: {connection.name} is in your config file, which stays as it is")


def _named(registry: str, store: ConnectionStore) -> Connection:
    """The connection of that name or address, from the store first: a broken config file must not keep a password."""
    from regfs.connections import find_connection

    _check_unambiguous(registry, store)
    for connections in (store.load, _configured):
        found = find_connection(registry, connections())
        if found is not None and not found[1]:
            return found[0]
    known = ", ".join(connection.name for connection in store.load()) or "none"
    raise Advised(f"you are not signed in to {registry[:200]!r}", f"The registries that you have: {known}.")


def _check_unambiguous(registry: str, store: ConnectionStore) -> None:
    """Of several accounts at one address the address does not say which."""
    stored = store.load()
    here = [known.name for known in stored if known.address == registry]
    if len(here) > 1 and registry not in {known.name for known in stored}:
        raise Advised(f"there are several accounts at {registry[:200]}", f"Name one: {', '.join(here)}.")


def _configured() -> tuple[Connection, ...]:
    from regfs.cli.session import load

    return load()[1]


async def _erase(connection: Connection) -> bool:
    """Erase the credential. Where there is no keyring to be had there is nothing in it, which is said."""
    from regfs.auth.sources.keyring import KeyringSource

    try:
        return await KeyringSource().erase(connection)
    except CredentialError as error:
        say(f"regfs: no credential was erased: {error}")
        return False


def _done(erased: bool, removed: bool) -> str:
    parts = ["its credential is erased" if erased else "it had no credential in the keyring"]
    return " and ".join([*parts, "it is forgotten"] if removed else parts)
