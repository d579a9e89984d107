"""Handing a credential to Docker's own clients, through their helper protocol: what `docker login` does."""

from __future__ import annotations

from collections.abc import Mapping

from regfs.auth.docker_file import DockerFile, read_docker_file
from regfs.auth.helper_program import Helper
from regfs.auth.places import keys_for
from regfs.auth.sources.docker_config import DockerConfigSource
from regfs.connection import Connection
from regfs.errors import CredentialError


async def hand_to_docker(
    connection: Connection, username: str, secret: str, environment: Mapping[str, str] | None = None
) -> str:
    """Store a credential with the helper that Docker's ``config.json`` names for the registry; the helper's name.

    ``username`` and ``secret`` as `AuthMethod.for_docker` spells them. Nothing is ever written as plain text:
    CredentialError, with what to do, where no helper is configured; CredentialError too where the helper fails.
    """
    config = DockerConfigSource(environment).path
    file = await read_docker_file(config) or DockerFile.parse(b"{}", str(config))
    named = file.helper_for(connection)
    if named is None:
        raise CredentialError(
            f"{config} names no credential helper, and without one the password would be kept as plain text."
            ' Install one and add "credsStore": "secretservice" (or "pass") to that file, or run'
            f" `docker login {keys_for(connection)[-1]}` yourself"
        )
    suffix, server = named
    helper = Helper(suffix, environment)
    await helper.store(server, username, secret)
    return helper.name
