"""The keychain: sources of credentials, asked in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from regfs.auth.places import is_users
from regfs.auth.sources.containers_auth import ContainersAuthSource
from regfs.auth.sources.docker_config import DockerConfigSource
from regfs.auth.sources.file import FileSource
from regfs.auth.sources.keyring import KeyringSource
from regfs.auth.sources.systemd import SystemdSource
from regfs.auth.validity import checked
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialSource, KeepsCredentials, KnowsParts
from regfs.redaction import register_secret


class OrderedKeychain:
    """Asks its sources in order, every time. A source that fails stops nothing: it is told of where no other has one."""

    def __init__(self, sources: Sequence[CredentialSource]) -> None:
        self.sources = tuple(sources)
        self.last: dict[str, str] = {}
        """For each connection that asked: as whom it signs in, and where that is kept; empty: nothing was found."""
        self._given_by: dict[str, CredentialSource] = {}
        self._notes: dict[str, str] = {}

    async def get(self, connection: Connection) -> Credential | None:
        """The first credential found. CredentialError, with every source's reason, where none was found and one failed.

        Where the connection has a user name, other users' passwords for the same registry are passed over; an explicit
        file is taken at its word.
        """
        failures: list[str] = []
        if not connection.part:
            self.last[connection.name] = ""
        for source in self.sources:
            try:
                credential = await source.get(connection)
                if credential is not None and _is_for(credential, connection, source):
                    register_secret(credential.secret)
                    if not connection.part:
                        self._note(connection, credential, source)
                    return checked(credential)
            except CredentialError as error:
                failures.append(str(error))
            except Exception as error:
                failures.append(f"{source.name} failed ({type(error).__name__})")
        if failures:
            raise CredentialError("; ".join(failures))
        return None

    async def parts(self, connection: Connection) -> Sequence[str]:
        """What of the registry has a credential of its own, by those sources that can say."""
        found: dict[str, None] = {}
        for source in self.sources:
            if isinstance(source, KnowsParts):
                with suppress(Exception):  # `get` tells of it, where it matters
                    found |= dict.fromkeys(await source.parts(connection))
        return [*found]

    def _note(self, connection: Connection, credential: Credential, source: CredentialSource) -> None:
        who = credential.username or credential.kind.value
        note = self._notes.get(connection.name, "")
        self.last[connection.name] = f"{who} ({credential.origin or source.name}){note}"
        self._given_by[connection.name] = source

    async def store(self, connection: Connection, credential: Credential) -> None:
        """Keep a credential that came in place of the last one given, where that one is kept.

        CredentialError: that place cannot be written to, or does not take it.
        """
        register_secret(credential.secret)
        source = self._given_by.get(connection.name)
        if not isinstance(source, KeepsCredentials):
            where = "nowhere" if source is None else f"in {source.name}, which regfs does not write to"
            raise CredentialError(f"the credential of {connection.name} is kept {where}")
        await source.store(connection, credential)

    def note(self, connection: Connection, text: str) -> None:
        """Say something of a connection's sign-in, for people, behind what `last` says of it; empty: nothing."""
        said, _, _ = self.last.get(connection.name, "").partition("; ")
        self._notes[connection.name] = f"; {text}" if text else ""
        self.last[connection.name] = f"{said}{self._notes[connection.name]}"

    def beside(self, sources: Sequence[CredentialSource]) -> OrderedKeychain:
        """A keychain that asks ``sources`` after its own, for connections whose provider knows more places."""
        if not sources:
            return self
        more = OrderedKeychain([*self.sources, *sources])
        more.last, more._given_by, more._notes = self.last, self._given_by, self._notes
        return more


def default_keychain(credentials_file: Path | None, *, single: bool = False) -> OrderedKeychain:
    """The sources that regfs knows, in their order: an explicit file, systemd, the keyring, Docker's, containers'.

    ``single``: the keychain serves one connection, so that a file which names no registry can only be for that one;
    otherwise such a file is refused, since its password would go to every registry that asks.
    """
    explicit: list[CredentialSource] = (
        [FileSource(credentials_file, single=single)] if credentials_file else []
    )
    return OrderedKeychain(
        [
            *explicit,
            SystemdSource(single=single),
            KeyringSource(),
            DockerConfigSource(),
            ContainersAuthSource(),
        ]
    )


def _is_for(credential: Credential, connection: Connection, source: CredentialSource) -> bool:
    return isinstance(source, FileSource) or is_users(credential, connection)
