"""Handing a credential to Docker's own clients, through their helper protocol: what `docker login` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from regfs.auth.docker_file import DockerFile
from regfs.auth.helper_program import Helper
from regfs.auth.places import canonical
from regfs.auth.private_file import read_small
from regfs.connection import Connection
from regfs.errors import CredentialError


async def hand_to_docker(
    config: Path, address: str, username: str, secret: str, environment: Mapping[str, str] | None = None
) -> str:
    """Store a credential with the helper that Docker's ``config`` names for ``address``; the helper's name.

    ``username`` and ``secret`` as `AuthMethod.for_docker` spells them. Nothing is ever written as plain text:
    CredentialError, with what to do, where no helper is configured; CredentialError too where the helper fails.
    """
    content = await read_small(config)
    file = DockerFile.parse(content or b"{}", str(config))
    named = file.helper_for(Connection(name=canonical(address), address=address))
    if named is None:
        host = canonical(address).partition("/")[0]
        raise CredentialError(
            f"{config} names no credential helper, and without one the password would be kept as plain text."
            f' Install one and add "credsStore": "secretservice" (or "pass") to that file, or run'
            f" `docker login {host}` yourself"
        )
    suffix, server = named
    helper = Helper(suffix, environment)
    await helper.store(server, username, secret)
    return helper.name
