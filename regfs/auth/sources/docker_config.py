"""Docker's own configuration: the variable DOCKER_AUTH_CONFIG, then ``config.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from regfs.auth.docker_file import DockerFile, first_credential, read_docker_file
from regfs.connection import Connection
from regfs.ports import Credential


class DockerConfigSource:
    """What `docker login` keeps. The variable holds the file's JSON itself, and beats the file."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def path(self) -> Path:
        """``$DOCKER_CONFIG/config.json``, else ``~/.docker/config.json``."""
        folder = self._environment.get("DOCKER_CONFIG")
        return Path(folder or Path(self._environment.get("HOME") or Path.home()) / ".docker") / "config.json"

    async def get(self, connection: Connection) -> Credential | None:
        """The credential for a connection. CredentialError names the place and what is wrong with it.

        A variable that cannot be used does not hide the file.
        """
        return await first_credential((self._given, self._kept), connection, self._environment)

    async def parts(self, connection: Connection) -> Sequence[str]:
        """The namespaces and repositories of the registry that have a key of their own. CredentialError as `get`."""
        files = [await read() for read in (self._given, self._kept)]
        return [part for file in files if file is not None for part in file.parts(connection)]

    async def _given(self) -> DockerFile | None:
        text = self._environment.get("DOCKER_AUTH_CONFIG", "")
        if not text.strip():
            return None
        return DockerFile.parse(text.encode("utf-8", "surrogateescape"), "DOCKER_AUTH_CONFIG")

    async def _kept(self) -> DockerFile | None:
        return await read_docker_file(self.path)
