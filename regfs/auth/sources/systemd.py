"""Credentials that systemd hands to a service: files in ``$CREDENTIALS_DIRECTORY`` (systemd.exec(5))."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from regfs.auth.plain_file import credential_in, parts_in
from regfs.auth.private_file import read_small
from regfs.connection import Connection
from regfs.ports import Credential


class SystemdSource:
    """``regfs.NAME`` for the connection of that name, else ``regfs``; in the shapes of an explicit file.

    systemd guards that folder itself, by modes and access lists that a mode alone does not show.
    """

    name = "systemd credential"

    def __init__(self, environment: Mapping[str, str] | None = None, *, single: bool = True) -> None:
        """``single``: there is one connection, so that ``regfs`` need not say for which registry it is."""
        self._environment = os.environ if environment is None else environment
        self._single = single

    async def get(self, connection: Connection) -> Credential | None:
        """The credential for a connection. CredentialError: the file cannot be used."""
        own = f"regfs.{connection.name}"
        async for name, content in self._files(connection):
            single = name == own or self._single
            found = await credential_in(content, f"systemd credential {name}", connection, single=single)
            if found is not None:
                return found
        return None

    async def parts(self, connection: Connection) -> Sequence[str]:
        """What of the registry the files are for. CredentialError as `get`."""
        found: list[str] = []
        async for name, content in self._files(connection):
            found += parts_in(content, f"systemd credential {name}", connection)
        return found

    async def _files(self, connection: Connection) -> AsyncIterator[tuple[str, bytes]]:
        folder = self._environment.get("CREDENTIALS_DIRECTORY")
        if not folder:
            return
        for name in (f"regfs.{connection.name}", "regfs"):
            content = await read_small(Path(folder) / name)
            if content is not None:
                yield name, content
