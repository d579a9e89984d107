"""``regfs registries add|remove|set``: connections without a sign-in. A mount that is up follows each by itself."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from regfs.cli import output
from regfs.cli.connection_options import Given, connection_options
from regfs.cli.edge import Advised, say
from regfs.connection import Connection
from regfs.errors import CredentialError

_LISTS: Final = ("namespaces", "only", "allow_hosts")
_FILES: Final = ("ca", "client_cert", "client_key")
_PLAIN: Final = ("username", "auth", "tag_delete")
_KEYS: Final = ("address", "provider", "insecure", *_PLAIN, *_FILES, *_LISTS)
_OPTION: Final = "options."


@click.command()
@connection_options
@click.option("--username", metavar="USER", help="Whose credentials to use, where there are several.")
@click.argument("name", metavar="NAME")
@click.argument("address", metavar="ADDRESS")
def add(name: str, address: str, username: str | None, **options: Any) -> None:
    """Remember the registry at ADDRESS as NAME, without a sign-in and without asking it anything."""
    from regfs import plugins
    from regfs.cli.session import claimed
    from regfs.connections import ConnectionStore, checked
    from regfs.reference import is_connection_name

    given = Given(**options)
    if not is_connection_name(name):
        raise click.UsageError(f"not a name for a folder: {name[:80]!r} (letters, digits, '.', '_' and '-')")
    _check_not_configured(name)
    store = ConnectionStore()
    if (known := store.find(name)) is not None:
        raise Advised(
            f"the name {name!r} is taken by {known.address}",
            f"Change that one with `regfs registries set {name} …`, or forget it: `regfs registries remove {name}`.",
        )
    provider, host, rest = claimed(address, given.provider)
    try:
        who = checked("username", username or "")
        connection = Connection(
            name,
            checked("address", f"{host}/{rest}" if rest else host),
            provider=provider,
            auth=given.auth or plugins.provider(provider).default_auth,
            username=who,
            **given.fields(),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    plugins.auth_method(connection.auth)
    store.save(connection)
    output.line(f"added {name}: {connection.address} ({provider}); `regfs login {name}` signs in to it")


@click.command()
@click.argument("name", metavar="NAME")
def remove(name: str) -> None:
    """Forget the registry NAME, and erase its credential from the keyring.

    Works whatever is wrong with it: its address, its provider, the keyring.
    """
    import trio

    from regfs.connections import ConnectionStore

    store = ConnectionStore()
    connection = store.find(name)
    if connection is None:
        _check_not_configured(name)
        raise Advised(f"you have no registry {name[:128]!r}", "`regfs registries` lists them.")
    store.remove(name)
    erased = trio.run(_erased, connection)
    output.line(f"removed {name}" + (", and its credential is erased" if erased else ""))
    if (place := _written_in(name)) is not None:
        say(f"regfs: {name} is also written in {place}, where it stays")


@click.command("set")
@click.argument("name", metavar="NAME")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
def set_(name: str, changes: Sequence[str]) -> None:
    """Change the registry NAME: KEY=VALUE sets, KEY= clears.

    \b
    KEY is one of
      address, provider, auth, username, insecure (true, false),
      ca, client_cert, client_key (files), tag_delete (auto, native),
      namespaces, only, allow_hosts (values with commas between),
      options.WORD (a setting of the provider's own)
    """
    import trio

    from regfs.connections import ConnectionStore

    store = ConnectionStore()
    known = store.find(name)
    if known is None:
        _check_not_configured(name)
        raise Advised(f"you have no registry {name[:128]!r}", "`regfs registries add` makes one.")
    changed = _changed(known, [_pair(change) for change in changes])
    moved = changed.address != known.address
    if moved:
        changed = replace(changed, account="")
    store.save(replace(changed, generation=secrets.token_hex(8)))
    output.line(f"changed {name}")
    if moved:
        trio.run(_erased, known)
        say(
            f"regfs: a credential is for one address alone: `regfs login {name}` signs in to {changed.address}"
        )


def _pair(change: str) -> tuple[str, str]:
    key, equals, value = change.partition("=")
    if not equals:
        raise click.UsageError(f"expected KEY=VALUE, and {key[:40]!r} has no '='")
    if key not in _KEYS and not (key.startswith(_OPTION) and key != _OPTION):
        from difflib import get_close_matches

        near = get_close_matches(key, _KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KEYS)}, {_OPTION}WORD"
        raise click.UsageError(f"there is no {key[:40]!r}; {hint}")
    return key, value


def _changed(known: Connection, changes: Sequence[tuple[str, str]]) -> Connection:
    from regfs.connections import checked

    default = Connection(known.name, known.address)
    fields: dict[str, Any] = {}
    options = dict(known.options)
    for key, value in changes:
        try:
            if key.startswith(_OPTION):
                options[key.removeprefix(_OPTION)] = value
            elif value:
                fields[key] = checked(key, _typed(key, value))
            else:
                fields[key] = _cleared(key, default)
        except ValueError as error:
            raise click.UsageError(f"{key}: {error}") from None
    try:
        fields["options"] = checked("options", {key: value for key, value in options.items() if value})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    fields |= _settled(known, fields)
    changed = replace(known, **fields)
    _check_files(changed, fields)
    return changed


def _settled(known: Connection, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from a new address, provider or auth method. Raises ConfigError, PluginError."""
    from regfs import plugins

    found: dict[str, Any] = {}
    if "address" in fields or "provider" in fields:
        address = fields.get("address", known.address)
        found["provider"], found["address"] = plugins.normalised(address, fields.get("provider") or None)
    provider = found.get("provider", known.provider)
    if fields.get("auth"):
        plugins.auth_method(fields["auth"])
    elif "auth" in fields or provider != known.provider:
        found["auth"] = plugins.provider(provider).default_auth
    return found


def _typed(key: str, value: str) -> object:
    if key == "insecure":
        found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
            value.lower()
        )
        if found is None:
            raise ValueError("must be true or false")
        return found
    if key in _LISTS:
        return [part.strip() for part in value.split(",") if part.strip()]
    return Path(value).expanduser().absolute() if key in _FILES else value


def _cleared(key: str, default: Connection) -> Any:
    if key == "address":
        raise ValueError("a registry has to have one")
    return "" if key in ("provider", "auth") else getattr(default, key)


def _check_files(connection: Connection, fields: Mapping[str, object]) -> None:
    from regfs.cli.connection_options import authority_file, client_files

    if connection.client_key and not connection.client_cert:
        raise click.UsageError("client_key: is the key of a certificate: client_cert has to name that")
    if fields.get("ca") and connection.ca:
        authority_file(connection.ca)
    if connection.client_cert and (fields.get("client_cert") or fields.get("client_key")):
        client_files(connection.client_cert, connection.client_key)


async def _erased(connection: Connection) -> bool:
    """Erase the credential. Where there is no keyring to be had there is nothing in it, which is said."""
    from regfs.auth.sources.keyring import KeyringSource

    try:
        return await KeyringSource().erase(connection)
    except CredentialError as error:
        if connection.account:
            say(f"regfs: its credential may still be in the keyring: {error}")
        return False


def _check_not_configured(name: str) -> None:
    place = _written_in(name)
    if place is not None:
        raise Advised(f"{name!r} is written in {place}, which regfs does not change", "Change it there.")


def _written_in(name: str) -> str | None:
    from regfs.config import configured_places

    return configured_places().get(name)
