"""``regfs docker-login``: hand a registry's credentials to Docker, so that `docker pull` is signed in too."""

from __future__ import annotations

import click

from regfs.cli import output
from regfs.cli.edge import Advised
from regfs.errors import CredentialError


@click.command("docker-login")
@click.argument("name", metavar="NAME")
def docker_login(name: str) -> None:
    """Hand the credentials of the registry NAME to Docker's config, through Docker's own helper protocol.

    They go to the credential helper that Docker's config.json names; without one nothing is written in plain text.
    """
    import trio

    from regfs import plugins
    from regfs.auth.docker import hand_to_docker
    from regfs.auth.keychain import default_keychain
    from regfs.cli.session import load, locate

    settings, connections = load()
    connection, _ = locate(name, connections)
    try:
        credential, why = trio.run(default_keychain(settings.credentials, single=True).get, connection), ""
    except CredentialError as error:
        credential, why = None, f": {error}"
    if credential is None:
        raise Advised(
            f"there are no credentials for {connection.address} to hand over{why}",
            f"Sign in first: `regfs login {connection.address}`.",
        )
    pair = plugins.auth_method(connection.auth).for_docker(credential)
    if pair is None:
        raise Advised(f"Docker has no place for this kind of credential ({credential.kind.value})")
    helper = trio.run(hand_to_docker, connection, *pair)
    output.line(f"Docker is signed in to {connection.address}: {helper} keeps the credentials")
