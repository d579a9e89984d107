"""The shape of Docker's ``config.json``, which containers' ``auth.json`` shares: entries by registry, and helpers.

Sources: docker/cli config/configfile, containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from regfs.auth.helper_program import Helper
from regfs.auth.places import best, canonical, is_users, keys_for, parts_among, server_url
from regfs.auth.private_file import read_small
from regfs.auth.validity import TOKEN_USER
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _File(msgspec.Struct):
    auths: dict[str, _Entry] | None = None
    credential_helpers: dict[str, str] | None = msgspec.field(name="credHelpers", default=None)
    credentials_store: str | None = msgspec.field(name="credsStore", default=None)


@dataclass(frozen=True, slots=True)
class DockerFile:
    """A file read. ``origin`` is its name, for people."""

    origin: str
    entries: Mapping[str, _Entry] = field(repr=False)
    helpers: Mapping[str, str]
    store: str

    @classmethod
    def parse(cls, content: bytes, origin: str, *, legacy: bool = False) -> DockerFile:
        """Read a file; ``legacy``: the entries stand alone, as in ``~/.dockercfg``. CredentialError with the place."""
        try:
            if legacy:
                return cls(origin, msgspec.json.decode(content, type=dict[str, _Entry]), {}, "")
            read = msgspec.json.decode(content, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # A parser's message may hold a piece of the text; one about types holds only where and what kind.
            reason = str(error) if isinstance(error, msgspec.ValidationError) else "it is no JSON"
            raise CredentialError(f"{origin} cannot be used: {reason}") from None
        return cls(origin, read.auths or {}, read.credential_helpers or {}, read.credentials_store or "")

    async def get(
        self, connection: Connection, environment: Mapping[str, str] | None = None
    ) -> Credential | None:
        """The connection's credential: that of the longest key, of the connection's user where one has any.

        Of one key: from its own helper, else the common one, else the file itself.
        """
        other = None
        keys = keys_for(connection)
        for key in keys:
            found = await self._at(key, environment, is_host=key == keys[-1])
            if found is not None and is_users(found, connection):
                return found
            other = other or found
        return other

    def parts(self, connection: Connection) -> list[str]:
        """The namespaces and repositories of the connection's registry that have a key of their own."""
        return parts_among([*self.entries, *self.helpers], connection)

    async def _at(
        self, key: str, environment: Mapping[str, str] | None, *, is_host: bool
    ) -> Credential | None:
        own = best(self.helpers, [key])
        if own is not None and own[1]:
            return await self._from_helper(own[1], _server(own[0]), environment)
        entry = best(self.entries, [key])
        if self.store and (is_host or (entry is not None and entry[1] == _Entry())):
            server = server_url(key) if is_host or entry is None else entry[0]
            if found := await self._from_helper(self.store, server, environment):
                return found
        return None if entry is None else self._credential(*entry)

    def helper_for(self, connection: Connection) -> tuple[str, str] | None:
        """The helper that keeps this connection's credentials, by its suffix, and under which server's name."""
        keys = keys_for(connection)
        own = best(self.helpers, keys)
        if own is not None and own[1]:
            return own[1], _server(own[0])
        return (self.store, server_url(keys[-1])) if self.store else None

    async def _from_helper(
        self, suffix: str, server: str, environment: Mapping[str, str] | None
    ) -> Credential | None:
        try:
            return await Helper(suffix, environment).get(server)
        except CredentialError as error:
            raise CredentialError(f"{error.message} (named by {self.origin})") from error

    def _credential(self, key: str, entry: _Entry) -> Credential | None:
        """An entry's credential; None where it is empty, which says that a helper has it."""
        if entry.registrytoken:
            return Credential(entry.username, entry.registrytoken, CredentialKind.REGISTRY_TOKEN, self.origin)
        username, password = entry.username, entry.password
        if entry.auth:
            username, password = self._split(key, entry.auth)
        if entry.identitytoken or (username == TOKEN_USER and password):
            token = entry.identitytoken or password
            return Credential(
                "" if username == TOKEN_USER else username, token, CredentialKind.IDENTITY_TOKEN, self.origin
            )
        return Credential(username, password, origin=self.origin) if password else None

    def _split(self, key: str, auth: str) -> tuple[str, str]:
        """Undo base64 of ``user:password``. Only the first colon parts them; some writers pad with zero bytes."""
        try:
            pair = base64.b64decode("".join(auth.split()), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise CredentialError(
                f"{self.origin}: the auth of {key!r} is no base64 of a user name and password"
            ) from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise CredentialError(
                f"{self.origin}: the auth of {key!r} holds no colon between user name and password"
            )
        return username, password.rstrip("\0")


async def read_docker_file(path: Path, *, legacy: bool = False) -> DockerFile | None:
    """The file at ``path``, which messages call so too; None where it is absent or empty. CredentialError: it cannot be used."""
    content = await read_small(path)
    if content is None or not content.strip():
        return None
    return DockerFile.parse(content, str(path), legacy=legacy)


async def first_credential(
    files: Iterable[Callable[[], Awaitable[DockerFile | None]]],
    connection: Connection,
    environment: Mapping[str, str],
) -> Credential | None:
    """The first file's credential for the connection's own user, else the first one's for any; each is read as its turn comes.

    A file that cannot be used hides none that follow: its CredentialError is raised where none of them has a credential.
    """
    failure: CredentialError | None = None
    other = None
    for read in files:
        try:
            file = await read()
            found = None if file is None else await file.get(connection, environment)
        except CredentialError as error:
            failure = failure or error
            continue
        if found is not None and is_users(found, connection):
            return found
        other = other or found
    if other is None and failure is not None:
        raise failure
    return other


def _server(key: str) -> str:
    """How a helper knows the host of a key: as it is spelled there, but for Docker Hub."""
    return server_url("docker.io") if canonical(key) == "docker.io" else key
