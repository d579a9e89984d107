"""Run in a D-Bus session of its own: asks the keyring and prints what comes of it, as JSON."""

from __future__ import annotations

import json
import sys
import time

import trio

from regfs.auth.keychain import OrderedKeychain
from regfs.auth.sources.docker_config import DockerConfigSource
from regfs.auth.sources.keyring import KeyringSource
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind


async def perform(source: KeyringSource, command: str) -> object:
    """Do one of: get ADDRESS, store ADDRESS USER SECRET KIND, erase ADDRESS, chain ADDRESS."""
    name, address, *rest = command.split("|")
    connection = Connection(name="reg", address=address)
    if name == "store":
        await source.store(connection, Credential(rest[0], rest[1], CredentialKind(rest[2])))
        return None
    if name == "erase":
        return await source.erase(connection)
    if name == "chain":
        keychain = OrderedKeychain([source, DockerConfigSource()])
        return _shown(await keychain.get(connection))
    return _shown(await source.get(connection))


def _shown(credential: Credential | None) -> object:
    return credential and [credential.username, credential.secret, credential.kind.value, credential.origin]


async def main(commands: list[str]) -> None:
    """Perform the commands, one after the other."""
    source = KeyringSource()
    for command in commands:
        started = time.monotonic()
        try:
            result, error = await perform(source, command), ""
        except CredentialError as failure:
            result, error = None, str(failure)
        print(
            json.dumps({"result": result, "error": error, "seconds": time.monotonic() - started}), flush=True
        )


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
