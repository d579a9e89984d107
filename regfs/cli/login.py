"""``regfs login``: check a sign-in against the registry, and only then remember it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regfs.cli import output
from regfs.cli.edge import Advised, say
from regfs.cli.prompts import NothingTyped
from regfs.connection import Connection
from regfs.errors import AccessDenied, ConfigError

if TYPE_CHECKING:
    from regfs.cli.signin import Verdict
    from regfs.ports import Credential, Field

_NO_PASSWORD_OPTION = (
    "there is no {option}: every user of this machine can read a command line (`ps`), and shells keep it. "
    "Leave it out to be asked, or pipe the password to --password-stdin"
)

_NOTHING_STORED = "Nothing was stored. Try again; many registries want an access token of your account in place of its password."


class _Login(click.Command):
    """Says why there is no ``--password``, and does not repeat what followed it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in ("--password", "--pass", "-p"):
                raise
            raise click.UsageError(_NO_PASSWORD_OPTION.format(option=error.option_name), ctx) from None


@click.command(cls=_Login)
@click.option("--provider", metavar="P", help="The kind of registry; found by its address where not given.")
@click.option("--auth", metavar="A", help="The auth method; the provider's own where not given.")
@click.option("--username", "-u", metavar="USER", help="Who signs in; asked for where not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from standard input.")
@click.option("--anonymous", is_flag=True, help="Sign in as nobody; needs no keyring.")
@click.option("--insecure", is_flag=True, help="Allow plain http, and a certificate that cannot be verified.")
@click.option(
    "--ca", type=click.Path(path_type=Path), metavar="FILE", help="Trust this CA (PEM) for this registry."
)
@click.option("--name", metavar="N", help="The connection's name, and its folder's in `regfs mount DIR`.")
@click.argument("registry", metavar="REGISTRY")
def login(
    registry: str,
    provider: str | None,
    auth: str | None,
    username: str | None,
    password_stdin: bool,
    anonymous: bool,
    insecure: bool,
    ca: Path | None,
    name: str | None,
) -> None:
    """Sign in to REGISTRY (host[:port][/prefix]) and remember it.

    The credentials are checked against the registry first and kept in the keyring; nothing is stored where they are
    wrong. A later login replaces this one, and a running mount takes it up by itself.
    """
    _check_combination(username, password_stdin, anonymous)
    connection = _connection(registry, provider, auth, insecure, ca, name)
    credential = None
    if not anonymous:
        given = _given(connection, username, password_stdin)
        connection, credential = _answered(connection, given)
    _sign_in(connection, credential, is_default_name=name is None, is_default_auth=auth is None)


def _check_combination(username: str | None, password_stdin: bool, anonymous: bool) -> None:
    if anonymous and (username is not None or password_stdin):
        raise click.UsageError("--anonymous goes with neither --username nor --password-stdin")
    if username is not None and not username:
        raise click.UsageError("--username is empty; to sign in as nobody give --anonymous")


def _connection(
    registry: str, provider: str | None, auth: str | None, insecure: bool, ca: Path | None, name: str | None
) -> Connection:
    import secrets

    from regfs import plugins
    from regfs.cli.session import claimed
    from regfs.reference import connection_name, is_connection_name

    provider, address, rest = claimed(registry, provider)
    full = f"{address}/{rest}" if rest else address
    if name is not None and not is_connection_name(name):
        raise click.UsageError(f"not a name for a folder: {name[:80]!r} (letters, digits, '.', '_' and '-')")
    return Connection(
        name=name or connection_name(full),
        address=full,
        provider=provider,
        auth=auth or plugins.provider(provider).default_auth,
        insecure=insecure,
        ca=_readable(ca) if ca else None,
        generation=secrets.token_hex(8),
    )


def _readable(ca: Path) -> Path:
    """The CA's absolute path, since a daemon reads it later from elsewhere. ConfigError: it is no CA file."""
    import ssl

    path = ca.absolute()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(path))
    except ssl.SSLError as error:
        raise ConfigError(
            f"--ca {ca}: it holds no certificate in PEM form ({error.reason or 'unreadable'})"
        ) from error
    except OSError as error:
        raise ConfigError(f"--ca {ca}: {error.strerror}") from error
    return path


def _given(connection: Connection, username: str | None, password_stdin: bool) -> dict[str, str]:
    from regfs import plugins
    from regfs.cli.prompts import secret_from_stdin

    fields = plugins.auth_method(connection.auth).fields
    given: dict[str, str] = {}
    if username is not None:
        given[_field_for(fields, secret=False, option="--username", auth=connection.auth)] = username
    if password_stdin:
        name = _field_for(fields, secret=True, option="--password-stdin", auth=connection.auth)
        given[name] = secret_from_stdin()
    return given


def _field_for(fields: Sequence[Field], *, secret: bool, option: str, auth: str) -> str:
    for field in fields:
        if field.secret is secret:
            return field.name
    raise click.UsageError(
        f"{option} does not go with the auth method {auth!r}, which asks for no such thing"
    )


def _answered(connection: Connection, given: Mapping[str, str]) -> tuple[Connection, Credential | None]:
    """Ask for what is missing. An empty user name means nobody, where the registry may let nobody in."""
    from regfs import plugins
    from regfs.cli.prompts import ask

    own = [field for field in plugins.provider(connection.provider).fields if not field.secret]
    options = ask(own, {})
    connection = replace(
        connection, options=tuple((f.name, options[f.name]) for f in own if options.get(f.name))
    )
    method = plugins.auth_method(connection.auth)
    try:
        answers = ask(method.fields, given)
    except NothingTyped as missing:
        if missing.field.name != "username":
            raise
        return connection, None
    credential = method.credential(answers)
    return replace(connection, username=credential.username if credential else ""), credential


def _sign_in(
    connection: Connection, credential: Credential | None, *, is_default_name: bool, is_default_auth: bool
) -> None:
    import trio

    from regfs.cli import signin
    from regfs.connections import ConnectionStore

    store = ConnectionStore()
    if is_default_name:
        connection = signin.named(connection, store)
    signin.check_name(connection, store)
    try:
        if credential is None and is_default_auth:
            connection = trio.run(signin.as_nobody, connection)
        verdict = trio.run(signin.verified, connection, credential)
    except AccessDenied as error:
        raise Advised(str(error), _NOTHING_STORED) from error
    place = trio.run(signin.keep, connection, credential, store)
    _tell(connection, verdict, place)


def _tell(connection: Connection, verdict: Verdict, place: str) -> None:
    who = (
        f"as {connection.username!r}" if connection.username else "as nobody" if not place else "with a token"
    )
    kept = f"; the credential is in {place}" if place else ""
    output.line(f"signed in to {connection.address} {who}{kept}")
    if verdict is verdict.UNVERIFIABLE:
        say(
            f"regfs: {connection.address} answers everybody alike, so the password could not be verified: "
            "a wrong one shows only when something that needs it is refused"
        )
    if connection.insecure:
        say(f"regfs: with --insecure nothing proves that {connection.address} is what answers there")
