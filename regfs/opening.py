"""Opening a connection: its auth method, its provider and what both are given. For the daemon and for commands alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from regfs import plugins
from regfs.advice import remember_sign_in
from regfs.connection import Connection
from regfs.errors import ConfigError, CredentialError
from regfs.ports import (
    BringsCredentials,
    Credential,
    CredentialKind,
    Field,
    HttpPolicy,
    Keychain,
    KnowsParts,
    RefinesKeychain,
    Source,
    Tools,
)

if TYPE_CHECKING:
    from regfs.auth.keychain import OrderedKeychain


def with_provider_sources(connection: Connection, keychain: OrderedKeychain) -> OrderedKeychain:
    """The keychain, and behind it the places that only the connection's provider knows. Raises PluginError."""
    provider = plugins.provider(connection.provider)
    if isinstance(provider, BringsCredentials):
        return keychain.beside(provider.credential_sources(connection))
    return keychain


class _WithoutGrants:
    """A keychain for methods that don't know OAuth: what is kept of one is never sent as it is.

    ``fields``: what the method asks a person for, and so what a credential of a file has to have.
    """

    def __init__(self, inner: Keychain, fields: Sequence[Field]) -> None:
        self._inner = inner
        self._fields = fields

    async def get(self, connection: Connection) -> Credential | None:
        """See `regfs.ports.Keychain.get`. CredentialError for a grant, and for a password without a user name where one is needed."""
        credential = await self._inner.get(connection)
        if credential is not None and credential.kind is CredentialKind.OAUTH_GRANT:
            raise CredentialError(
                f"what is kept for {connection.address} is a sign-in by OAuth, and {connection.name} is to be signed in "
                f"to by {connection.auth!r}: set `auth` to 'oauth', or sign in anew"
            )
        if credential is not None and self._lacks_user_name(credential):
            raise CredentialError(
                f"{credential.origin or 'what is kept'} has a secret and no username, which {connection.auth!r} asks for"
            )
        return credential

    def _lacks_user_name(self, credential: Credential) -> bool:
        wanted = any(field.name == "username" and field.required for field in self._fields)
        return wanted and credential.kind is CredentialKind.PASSWORD and not credential.username

    async def parts(self, connection: Connection) -> Sequence[str]:
        """See `regfs.ports.KnowsParts.parts`."""
        return await self._inner.parts(connection) if isinstance(self._inner, KnowsParts) else ()


def refined(connection: Connection, keychain: Keychain, policy: HttpPolicy) -> Keychain:
    """The keychain as the connection's auth method wants it asked. Raises PluginError."""
    method = plugins.auth_method(connection.auth)
    if not isinstance(method, RefinesKeychain):
        return _WithoutGrants(keychain, method.fields)
    from regfs.registry.exchange import HttpExchange

    return method.refined(connection, keychain, HttpExchange(connection, policy))


async def open_registries(
    connection: Connection, keychain: Keychain, policy: HttpPolicy, state_dir: Path
) -> Mapping[str, Source]:
    """The connection's registries by folder name. Raises PluginError and what providers raise."""
    keychain = refined(connection, keychain, policy)
    tools = Tools(
        auth=plugins.auth_method(connection.auth).flow(connection, keychain),
        http=policy,
        clock=time,
        state_dir=state_dir,
        keychain=keychain,
    )
    sources = await plugins.provider(connection.provider).registries(connection, tools)
    for source in sources.values():
        remember_sign_in(source.name, cache(lambda: login_options(connection)))
    return sources


def login_options(connection: Connection) -> Sequence[str]:
    """What `regfs login` has to be given before the connection's address, so that it signs in to it as it is."""
    words = []
    try:
        taken, _ = plugins.claims(connection.address)
    except ConfigError:
        taken = ""
    if taken != connection.provider:
        words += ["--provider", connection.provider]
    if connection.auth not in ("anonymous", plugins.provider(connection.provider).default_auth):
        words += ["--auth", connection.auth]
    if connection.ca is not None:
        words += ["--ca", str(connection.ca)]
    return [*words, "--insecure"] if connection.insecure else words
