"""An explicit file: ``-o credentials=FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regfs.auth.plain_file import credential_in, parts_in
from regfs.auth.private_file import read_small
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential


class FileSource:
    """A file that the user named. It must be there, and nobody but its owner may read or change it."""

    def __init__(self, path: Path, *, single: bool = True) -> None:
        """``single``: it serves one connection, so that it need not say for which registry it is."""
        self.path = path.absolute()
        self._single = single

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    async def get(self, connection: Connection) -> Credential | None:
        """The credential for a connection. CredentialError: the file is missing, open to others, or cannot be read."""
        content = await self._content()
        return await credential_in(content, self.name, connection, single=self._single, toml=self._is_toml)

    async def parts(self, connection: Connection) -> Sequence[str]:
        """What of the registry the file is for. CredentialError as `get`."""
        return parts_in(await self._content(), self.name, connection, toml=self._is_toml)

    @property
    def _is_toml(self) -> bool:
        return self.path.suffix == ".toml"

    async def _content(self) -> bytes:
        content = await read_small(self.path, private=True)
        if content is None:
            raise CredentialError(f"there is no credentials file {self.path}")
        return content
