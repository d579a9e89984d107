"""Signing in, without the terminal: is the credential good, can that be known at all, and where is it kept."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from regfs.cli.edge import Advised
from regfs.cli.sources import OneCredential, check
from regfs.connection import Connection
from regfs.errors import AccessDenied, CredentialError, Forbidden, NotSignedIn, RegfsError
from regfs.ports import Credential, CredentialKind

if TYPE_CHECKING:
    from regfs.auth.sources.keyring import KeyringSource
    from regfs.connections import ConnectionStore


_OTHER_PLACES: Final = (
    "Keep it where `regfs mount REGISTRY DIR` finds it too: by `docker login` with a credential helper, in a file for "
    "`-o credentials=FILE`, or as a systemd credential; what needs no password signs in with --anonymous."
)


class Verdict(Enum):
    """What a registry's answer says about a credential that it did not refuse."""

    VERIFIED = "verified"
    """It answers with the credential, and does not answer without it or with a made-up one."""
    UNVERIFIABLE = "unverifiable"
    """It answers everybody alike."""
    ANONYMOUS = "anonymous"
    """There was no credential."""


async def verified(connection: Connection, credential: Credential | None) -> Verdict:
    """Check a connection, and the credential as far as the registry lets us.

    Raises NotSignedIn where the credential is wrong, and what `Source.check` raises. A registry that answers anybody
    at its entrance is asked once with a made-up credential: one that refuses that does look at what it is given.
    """
    await _explained(connection, credential)
    if credential is None:
        return Verdict.ANONYMOUS
    if not await _answers(connection, None):
        return Verdict.VERIFIED
    if not await _answers(connection, _made_up(credential)):
        return Verdict.VERIFIED
    return await _asked_unprompted(connection, credential)


async def as_nobody(connection: Connection) -> Connection:
    """How to sign in as nobody: by sending nothing, or, where that is not enough, in the provider's own way.

    A registry may want a token of everybody and give one to nobody in particular.
    """
    unsigned = replace(connection, auth="anonymous")
    return unsigned if await _answers(unsigned, None) else connection


async def _asked_unprompted(connection: Connection, credential: Credential) -> Verdict:
    """A challenge that never comes leaves the credential unsent: send it unasked, which some registries look at."""
    if connection.auth != "challenge" or credential.kind is not CredentialKind.PASSWORD:
        return Verdict.UNVERIFIABLE
    unasked = replace(connection, auth="basic")
    if await _answers(unasked, _made_up(credential)):
        return Verdict.UNVERIFIABLE
    await _explained(unasked, credential)
    return Verdict.VERIFIED


async def _answers(connection: Connection, credential: Credential | None) -> bool:
    try:
        await check(connection, OneCredential(credential))
    except AccessDenied:
        return False
    return True


def _made_up(credential: Credential) -> Credential:
    """A credential that nobody has. The user name is made up too: a failed attempt must not lock a real account."""
    import secrets

    name = f"regfs-check-{secrets.token_hex(4)}"
    return replace(credential, username=name if credential.username else "", secret=secrets.token_hex(16))


async def _explained(connection: Connection, credential: Credential | None) -> None:
    try:
        await check(connection, OneCredential(credential))
    except NotSignedIn as error:
        raise _refused(error, connection, credential) from error
    except Forbidden as error:
        who = f" {credential.username!r}" if credential and credential.username else " this caller"
        message = f"{connection.address} knows{who}, and does not let it in: {error.message}"
        raise Forbidden(message, registry=error.registry, words=error.words) from error


def _refused(error: NotSignedIn, connection: Connection, credential: Credential | None) -> NotSignedIn:
    if credential is None:
        message = f"{connection.address} lets nobody in without a user name and a password"
    elif error.message.startswith("wrong user name or password"):
        message = f"{connection.address} does not take this user name and password ({credential.username!r})"
    else:
        message = f"{connection.address}: {error.message}"
    return NotSignedIn(message, registry=error.registry, words=error.words)


def named(connection: Connection, store: ConnectionStore) -> Connection:
    """The connection under the name that it had: a new sign-in to an address replaces the old one."""
    for known in store.load():
        if known.address == connection.address and known.provider == connection.provider:
            return replace(connection, name=known.name)
    return connection


def check_name(connection: Connection, store: ConnectionStore) -> None:
    """Advised where another registry bears the connection's name already."""
    for known in store.load():
        if known.name == connection.name and known.address != connection.address:
            raise Advised(
                f"the name {connection.name!r} is taken by {known.address}",
                f"Choose another with --name, or forget that one: `regfs logout {known.name}`.",
            )


async def keep(connection: Connection, credential: Credential | None, store: ConnectionStore) -> str:
    """Keep the credential in the keyring, then the connection; return where the credential is kept.

    Where the credential cannot be kept nothing is: Advised says which sources serve instead.
    """
    from regfs.auth.sources.keyring import KeyringSource

    keyring = KeyringSource()
    if credential is None:
        await _erase_quietly(connection)
    else:
        await _store(keyring, connection, credential)
    try:
        store.save(connection)
    except RegfsError:
        if credential is not None:
            await keyring.erase(connection)
        raise
    return "" if credential is None else keyring.name


async def _store(keyring: KeyringSource, connection: Connection, credential: Credential) -> None:
    try:
        await keyring.store(connection, credential)
    except CredentialError as error:
        raise Advised(
            f"the sign-in is good, and nothing was stored, since the keyring cannot keep it: {error}",
            _OTHER_PLACES,
        ) from error


async def _erase_quietly(connection: Connection) -> None:
    """An anonymous sign-in forgets an older password, and works where there is no keyring at all."""
    from regfs.auth.sources.keyring import KeyringSource

    try:
        await KeyringSource().erase(connection)
    except CredentialError:
        return
