"""Signing in, without the terminal: is the credential good, can that be known at all, and where is it kept."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from regfs.cli.edge import Advised
from regfs.cli.sources import OneCredential, check
from regfs.connection import Connection
from regfs.errors import AccessDenied, CredentialError, Forbidden, NotSignedIn, RegfsError
from regfs.ports import Credential, CredentialKind
from regfs.reference import connection_name

if TYPE_CHECKING:
    from regfs.auth.sources.keyring import KeyringSource
    from regfs.connections import ConnectionStore


_OTHER_PLACES: Final = (
    "Keep it where `regfs mount REGISTRY DIR` finds it too: {docker}in a file for "
    "`-o credentials=FILE`, or as a systemd credential; what needs no password signs in with --anonymous."
)
_DOCKERS: Final = "by `docker login` with a credential helper, "


_CHOSEN: Final = (
    "insecure",
    "ca",
    "client_cert",
    "client_key",
    "namespaces",
    "only",
    "allow_hosts",
    "tag_delete",
    "options",
)
"""The fields of a connection that a person chose, and that a new sign-in leaves alone."""


class Verdict(Enum):
    """What a registry's answer says about a credential that it did not refuse."""

    VERIFIED = "verified"
    """It answers with the credential, and does not answer without it or with a made-up one."""
    UNVERIFIABLE = "unverifiable"
    """It answers everybody alike."""
    ANONYMOUS = "anonymous"
    """There was no credential."""


async def verified(
    connection: Connection, credential: Credential | None
) -> tuple[Verdict, Credential | None]:
    """Check a connection, and the credential as far as the registry lets us; the credential to keep, perhaps renewed.

    Raises NotSignedIn where the credential is wrong, and what `Source.check` raises. A registry that answers anybody
    at its entrance is asked once with a made-up credential: one that refuses that does look at what it is given.
    """
    kept = OneCredential(credential)
    await _explained(connection, kept)
    if credential is None:
        return Verdict.ANONYMOUS, None
    if credential.kind is CredentialKind.OAUTH_GRANT:
        return Verdict.VERIFIED, kept.credential  # the authorization server gave it just now
    if not await _answers(connection, None) or not await _answers(connection, _made_up(credential)):
        return Verdict.VERIFIED, kept.credential
    return await _asked_unprompted(connection, credential), kept.credential


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
    await _explained(unasked, OneCredential(credential))
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

    if credential.kind is CredentialKind.OAUTH_GRANT:
        return Credential("", secrets.token_hex(16), CredentialKind.REGISTRY_TOKEN)
    name = f"regfs-check-{secrets.token_hex(4)}"
    return replace(credential, username=name if credential.username else "", secret=secrets.token_hex(16))


async def _explained(connection: Connection, kept: OneCredential) -> None:
    credential = kept.credential
    try:
        await check(connection, kept)
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


def named(connection: Connection, credential: Credential | None, store: ConnectionStore) -> Connection:
    """The connection under the name that this account has, with all that was chosen for it; a new account gets a new name.

    Nobody's connection becomes whoever signs in there; to sign in as nobody replaces the only account.
    """
    stored = store.load()
    here = [known for known in stored if known.address == connection.address]
    same = [known for known in here if _is_account(known, connection.username, credential)]
    nobodys = [known for known in here if not known.username and not known.account]
    alone = here if credential is None and len(here) == 1 else []
    for known in (*same, *nobodys, *alone):
        return _as_known(connection, known)
    if not here:
        return connection
    wish = connection_name(
        f"{connection.name}_{connection.username or 'token' if credential else 'anonymous'}"
    )
    return replace(connection, name=_free(wish, {known.name for known in stored}))


def _is_account(known: Connection, username: str, credential: Credential | None) -> bool:
    if credential is None:
        return not known.username and not known.account
    return known.username == username and bool(username or known.account)


def _as_known(connection: Connection, known: Connection) -> Connection:
    """What was chosen for a connection stays where the sign-in says nothing else."""
    default = Connection("", "")
    kept = {
        field: getattr(known, field)
        for field in _CHOSEN
        if getattr(connection, field) == getattr(default, field)
    }
    return replace(connection, name=known.name, account=known.account, **kept)


def _free(wish: str, taken: Collection[str]) -> str:
    numbered = (wish if n == 1 else f"{wish[:100]}_{n}" for n in itertools.count(1))
    return next(name for name in numbered if name not in taken)


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

    Where either cannot be kept all stays as it was: Advised says which sources serve instead of the keyring.
    """
    from regfs.auth.sources.keyring import KeyringSource

    keyring = KeyringSource()
    if credential is None:
        await _erase_quietly(connection)
        store.save(replace(connection, account=""))
        return ""
    before, connection = connection, replace(connection, account=connection.name)
    older = await _older(keyring, connection)
    await _store(keyring, connection, credential)
    try:
        store.save(connection)
    except RegfsError:
        await (keyring.erase(connection) if older is None else keyring.store(connection, older))
        raise
    if before.account != connection.account and not _others_at(connection, store):
        await _erase_quietly(replace(connection, account=""))  # of before there were accounts
    return keyring.name


async def _older(keyring: KeyringSource, connection: Connection) -> Credential | None:
    try:
        return await keyring.get(connection)
    except CredentialError:
        return None


def _others_at(connection: Connection, store: ConnectionStore) -> bool:
    """Whether another connection may use the entry that the address alone names."""
    return any(
        known.address == connection.address and known.name != connection.name and not known.account
        for known in store.load()
    )


async def _store(keyring: KeyringSource, connection: Connection, credential: Credential) -> None:
    try:
        await keyring.store(connection, credential)
    except CredentialError as error:
        raise Advised(
            f"the sign-in is good, and nothing was stored, since the keyring cannot keep it: {error}",
            _OTHER_PLACES.format(docker=_DOCKERS if _suits_docker(connection, credential) else ""),
        ) from error


def _suits_docker(connection: Connection, credential: Credential) -> bool:
    from regfs import plugins

    return plugins.auth_method(connection.auth).for_docker(credential) is not None


async def _erase_quietly(connection: Connection) -> None:
    """An anonymous sign-in forgets an older password, and works where there is no keyring at all."""
    from regfs.auth.sources.keyring import KeyringSource

    try:
        await KeyringSource().erase(connection)
    except CredentialError:
        return
