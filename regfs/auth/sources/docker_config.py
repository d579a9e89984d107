"""Docker's own configuration: the variable DOCKER_AUTH_CONFIG, then ``config.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from regfs.auth.docker_file import DockerFile
from regfs.auth.private_file import read_small
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
        """The credential for a connection. CredentialError names the file and what is wrong with it."""
        if text := self._environment.get("DOCKER_AUTH_CONFIG"):
            given = DockerFile.parse(text.encode("utf-8", "surrogateescape"), "DOCKER_AUTH_CONFIG")
            if found := await given.get(connection, self._environment):
                return found
        content = await read_small(self.path)
        if content is None or not content.strip():
            return None
        return await DockerFile.parse(content, self.name).get(connection, self._environment)
