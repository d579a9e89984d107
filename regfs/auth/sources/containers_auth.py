"""What podman, skopeo and buildah keep: ``auth.json``, in the places of containers-auth.json(5)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from regfs.auth.docker_file import DockerFile, first_credential, read_docker_file
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential


class ContainersAuthSource:
    """The files of containers' tools. REGISTRY_AUTH_FILE, where it is set, is the only one."""

    name = "containers' auth.json"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    @property
    def paths(self) -> list[Path]:
        """The files that are looked at, in order."""
        if given := self._environment.get("REGISTRY_AUTH_FILE"):
            return [Path(given)]
        home = Path(self._environment.get("HOME") or Path.home())
        runtime = self._environment.get("XDG_RUNTIME_DIR")
        config = self._environment.get("XDG_CONFIG_HOME")
        return [
            Path(runtime or f"/run/containers/{os.getuid()}")
            / ("containers/auth.json" if runtime else "auth.json"),
            Path(config or home / ".config") / "containers/auth.json",
            home / ".dockercfg",
        ]

    async def get(self, connection: Connection) -> Credential | None:
        """The first file's credential for a connection. A file that cannot be used hides none that follow."""
        files = [partial(_read, path) for path in self.paths]
        return await first_credential(files, connection, self._environment)

    async def parts(self, connection: Connection) -> Sequence[str]:
        """The namespaces and repositories of the registry that have a key of their own, in files that can be used."""
        found: list[str] = []
        for path in self.paths:
            with suppress(CredentialError):
                file = await _read(path)
                found += [] if file is None else file.parts(connection)
        return found


async def _read(path: Path) -> DockerFile | None:
    return await read_docker_file(path, legacy=path.name == ".dockercfg")
