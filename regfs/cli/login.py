"""``regfs login``: check a sign-in against the registry, and only then remember it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from regfs.cli import output
from regfs.cli.connection_options import Given, connection_options
from regfs.cli.edge import Advised, say
from regfs.cli.oauth_options import applied, is_conversation, oauth_options, remembered
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


@dataclass(frozen=True, slots=True)
class _Who:
    """Who signs in, as the command line says."""

    username: str | None
    password_stdin: bool
    anonymous: bool


@click.command(cls=_Login)
@connection_options
@click.option("--username", "-u", metavar="USER", help="Who signs in; asked for where not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from standard input.")
@click.option("--anonymous", is_flag=True, help="Sign in as nobody; needs no keyring.")
@click.option("--name", metavar="N", help="The connection's name, and its folder's in `regfs mount DIR`.")
@click.argument("registry", metavar="REGISTRY")
@oauth_options
def login(
    registry: str,
    username: str | None,
    password_stdin: bool,
    anonymous: bool,
    name: str | None,
    oauth: Mapping[str, Any],
    **options: Any,
) -> None:
    """Sign in to REGISTRY (host[:port][/prefix], or the name of one of yours) and remember it.

    Says which kind of registry it takes it for, and asks for what that kind wants. The credentials are checked against
    the registry first and kept in the keyring; nothing is stored where they are wrong. A later login of the same user
    replaces this one, another user's stands beside it; a running mount takes either up by itself.
    """
    who = _Who(username, password_stdin, anonymous)
    _check_combination(who)
    given = Given(**options)
    known = _known(registry, name)
    connection, answers = applied(_connection(registry, given, name, known), oauth)
    credential = None
    if not anonymous:
        connection, credential = _answered(connection, who, answers)
    is_ours = known is not None or name is not None
    _sign_in(connection, credential, is_default_name=not is_ours, is_default_auth=given.auth is None)


def _check_combination(who: _Who) -> None:
    if who.anonymous and (who.username is not None or who.password_stdin):
        raise click.UsageError("--anonymous goes with neither --username nor --password-stdin")
    if who.username is not None and not who.username:
        raise click.UsageError("--username is empty; to sign in as nobody give --anonymous")


def _known(registry: str, name: str | None) -> Connection | None:
    """The connection that is signed in to anew: the one of that name."""
    from regfs.connections import ConnectionStore

    wanted = name if name is not None else registry
    stored = {connection.name: connection for connection in ConnectionStore().load()}
    found = stored.get(wanted) or (_configured().get(wanted) if name is None else None)
    # A connection is often called as its host is, and then the host's name does not say which account is meant.
    return None if found is not None and name is None and found.address == wanted else found


def _configured() -> Mapping[str, Connection]:
    from regfs.config import load_settings

    try:
        return {connection.name: connection for connection in load_settings().registries}
    except ConfigError:
        return {}  # a mistake in the file must not keep anybody from signing in


def _connection(registry: str, given: Given, name: str | None, known: Connection | None) -> Connection:
    """The connection to sign in to. One that is known keeps what the command line does not say."""
    import secrets

    from regfs import plugins
    from regfs.cli.recognition import Recognised, recognise, sentence
    from regfs.reference import connection_name, is_connection_name

    if name is not None and not is_connection_name(name):
        raise click.UsageError(f"not a name for a folder: {name[:80]!r} (letters, digits, '.', '_' and '-')")
    fields = given.fields()
    if known is not None and registry == known.name:
        registry, said = known.address, given.provider or known.provider
        found = Recognised(said, known.address, f"as {known.name!r} has it")
    else:
        kept = {} if known is None else {"insecure": known.insecure, "ca": known.ca}
        found = recognise(registry, given.provider, kept | fields)
    if given.provider is None:
        say(f"regfs: {sentence(found)}")
    base = Connection(name or connection_name(found.address), found.address)
    auth = given.auth or plugins.provider(found.provider).default_auth
    if known is not None and known.address == found.address:
        # What was chosen for the connection stays; but nobody's way of signing in is not to be kept for somebody.
        base, auth = known, given.auth or (auth if known.auth == "anonymous" else known.auth)
        fields["options"] = tuple(sorted((dict(known.options) | dict(fields.get("options", ()))).items()))
    return replace(base, provider=found.provider, auth=auth, generation=secrets.token_hex(8), **fields)


def _given(fields: Sequence[Field], connection: Connection, who: _Who) -> dict[str, str]:
    from regfs.cli.prompts import secret_from_stdin

    given = dict(connection.options)
    username = who.username
    if username is None and connection.username and any(field.name == "username" for field in fields):
        username = connection.username
    if username is not None:
        if is_conversation(connection):
            given["username"] = username
        else:
            given[_field_for(fields, secret=False, option="--username", auth=connection.auth)] = username
    if who.password_stdin:
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


def _answered(
    connection: Connection, who: _Who, answers: Mapping[str, str]
) -> tuple[Connection, Credential | None]:
    """Ask for what is missing. An empty user name means nobody, where the registry may let nobody in."""
    from regfs import plugins
    from regfs.cli.prompts import ask, merged

    method = plugins.auth_method(connection.auth)
    asked = plugins.provider(connection.provider).fields
    fields = merged(method.fields, asked)
    given = _given(fields, connection, who) | dict(answers)
    # What only words an auth method's question says nothing where that method asks no such thing.
    ours = {field.name for field in method.fields} | {"username"}
    chosen = [field for field in asked if not field.secret and field.name not in ours]
    options = dict(connection.options) | ask(
        chosen, {f.name: given[f.name] for f in chosen if f.name in given}
    )
    connection = replace(
        connection, options=tuple(sorted((key, value) for key, value in options.items() if value))
    )
    try:
        answers = ask(fields, given)
    except NothingTyped as missing:
        if missing.field.name != "username":
            raise
        return replace(connection, username=""), None
    connection = remembered(connection, answers)
    credential = _credential(connection, answers)
    return replace(connection, username=credential.username if credential else ""), credential


def _credential(connection: Connection, answers: Mapping[str, str]) -> Credential | None:
    """What the answers come to: at once, or after a conversation with a service and the person."""
    from regfs import plugins
    from regfs.cli.person import sign_in

    granted = sign_in(connection, answers)
    return plugins.auth_method(connection.auth).credential(answers) if granted is None else granted


def _sign_in(
    connection: Connection, credential: Credential | None, *, is_default_name: bool, is_default_auth: bool
) -> None:
    import trio

    from regfs.cli import signin
    from regfs.connections import ConnectionStore

    store = ConnectionStore()
    if credential is None:
        connection = replace(connection, username="")
    if is_default_name:
        connection = signin.named(connection, credential, store)
    signin.check_name(connection, store)
    try:
        if credential is None and is_default_auth:
            connection = trio.run(signin.as_nobody, connection)
        verdict, credential = trio.run(signin.verified, connection, credential)
    except AccessDenied as error:
        raise Advised(str(error), _NOTHING_STORED) from error
    place = trio.run(signin.keep, connection, credential, store)
    _tell(connection, verdict, place)
    _tell_of_others(connection, store.load())


def _tell_of_others(connection: Connection, stored: Sequence[Connection]) -> None:
    """Of several accounts at one address the address alone means the first."""
    here = [known for known in stored if known.address == connection.address]
    if len(here) > 1:
        others = ", ".join(known.name for known in here if known.name != connection.name)
        say(
            f"regfs: this account is called {connection.name!r}; at {connection.address} there are also: {others}."
            f" The address alone means {here[0].name!r}; `regfs mount {connection.name} DIR` takes this one"
        )


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
