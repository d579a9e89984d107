"""``regfs reconnect``: sign in again, in the same way and to the same place as before."""

from __future__ import annotations

from dataclasses import replace

import click

from regfs.cli import output
from regfs.cli.edge import Advised, say
from regfs.connection import Connection
from regfs.errors import AccessDenied, CredentialError
from regfs.ports import Credential, CredentialKind


@click.command()
@click.option("--password-stdin", is_flag=True, help="Read the password or token from standard input.")
@click.option(
    "--client-secret-stdin", is_flag=True, help="OAuth: read the client's secret from standard input."
)
@click.argument("name", metavar="NAME")
def reconnect(name: str, password_stdin: bool, client_secret_stdin: bool) -> None:
    """Sign in again to the registry NAME, as before: by its password, or by OAuth.

    The new credential takes the old one's place once the registry has taken it, and a running mount goes on with it
    without a remount.
    """
    import secrets

    import trio

    from regfs.cli import signin
    from regfs.connections import ConnectionStore

    connection = replace(_known(name), generation=secrets.token_hex(8))
    credential = _asked(connection, password_stdin, client_secret_stdin)
    try:
        _, kept = trio.run(signin.verified, connection, credential)
    except AccessDenied as error:
        raise Advised(str(error), "Nothing was changed: what was kept is kept.") from error
    place = trio.run(signin.keep, connection, kept, ConnectionStore())
    output.line(f"signed in to {connection.address} again; the credential is in {place}")
    if connection.insecure:
        say(f"regfs: with --insecure nothing proves that {connection.address} is what answers there")


def _known(name: str) -> Connection:
    from regfs import plugins
    from regfs.cli.session import load
    from regfs.connections import find_connection

    connections = load()[1]
    found = find_connection(name, connections)
    if found is None or found[1]:
        known = ", ".join(connection.name for connection in connections) or "none"
        raise Advised(
            f"there is no connection {name[:200]!r}",
            f"The registries that you have: {known}. For another one, run `regfs login`.",
        )
    if not plugins.auth_method(found[0].auth).fields:
        raise Advised(
            f"{found[0].name} signs in as nobody, so there is nothing to renew",
            f"Run `regfs login {found[0].address}` to sign in as somebody.",
        )
    return found[0]


def _asked(connection: Connection, password_stdin: bool, client_secret_stdin: bool) -> Credential:
    from regfs import plugins
    from regfs.cli.person import sign_in
    from regfs.cli.prompts import ask, secret_from_stdin
    from regfs.ports import SignsInWithPerson

    method = plugins.auth_method(connection.auth)
    by_person = isinstance(method, SignsInWithPerson)
    if password_stdin if by_person else client_secret_stdin:
        given = "--password-stdin" if by_person else "--client-secret-stdin"
        raise click.UsageError(f"{given} does not go with the auth method {connection.auth!r}")
    if by_person:
        secret = secret_from_stdin() if client_secret_stdin else ""
        granted = sign_in(connection, _client(connection, secret))
        assert granted is not None
        return granted
    answers = {"username": connection.username} if connection.username else {}
    secrets = [field.name for field in method.fields if field.secret]
    if password_stdin and secrets:
        answers[secrets[0]] = secret_from_stdin()
    credential = method.credential(ask(method.fields, answers))
    if credential is None:
        raise Advised(f"{connection.name} has nothing to sign in with")
    return credential


def _client(connection: Connection, secret: str) -> dict[str, str]:
    """The client as it was: its id is with the connection, its secret with the grant."""
    from regfs.cli.prompts import ask

    answers = {"username": connection.username} if connection.username else {}
    options = dict(connection.options)
    if secret:
        answers["client_secret"] = secret
    elif kept := _kept_secret(connection):
        answers["client_secret"] = kept
    if "oauth_client_id" not in options:
        from regfs import plugins

        answers = ask(plugins.auth_method(connection.auth).fields, answers)
    return answers


def _kept_secret(connection: Connection) -> str:
    """The secret that the last sign-in used; nothing where that is not to be had."""
    import trio

    from regfs.auth.oauth.grant import read_grant
    from regfs.auth.sources.keyring import KeyringSource

    try:
        credential = trio.run(KeyringSource().get, connection)
        if credential is None or credential.kind is not CredentialKind.OAUTH_GRANT:
            return ""
        return read_grant(credential).client_secret
    except CredentialError:
        return ""
