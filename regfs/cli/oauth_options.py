"""The options of a sign-in by OAuth: what of them is kept with the connection, and what only answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, Final

import click

from regfs.connection import Connection

SECRET: Final = "client_secret_stdin"
SCOPE: Final = "scope"
_KEPT: Final[Mapping[str, str]] = {
    "client_id": "oauth_client_id",
    "issuer": "oauth_issuer",
    "token_endpoint": "oauth_token_endpoint",
    "device_endpoint": "oauth_device_endpoint",
    "authorization_endpoint": "oauth_authorization_endpoint",
    "flow": "oauth_flow",
}
"""Parameters, and the keys of `Connection.options` under which the auth method ``oauth`` looks for them."""

_OPTIONS: Final = (
    click.option("--client-id", metavar="ID", help="OAuth: the id of your client application."),
    click.option("--client-secret-stdin", is_flag=True, help="OAuth: read its secret from standard input."),
    click.option("--issuer", metavar="URL", help="OAuth: look the endpoints up at this issuer."),
    click.option("--token-endpoint", metavar="URL", help="OAuth: the token endpoint."),
    click.option("--device-endpoint", metavar="URL", help="OAuth: the device authorization endpoint."),
    click.option("--authorization-endpoint", metavar="URL", help="OAuth: the authorization endpoint."),
    click.option(
        "--scope", multiple=True, metavar="SCOPE", help="OAuth: a scope to ask for; may be repeated."
    ),
    click.option(
        "--flow",
        type=click.Choice(["device", "browser", "client"]),
        help="OAuth: how to sign in; by what the server has where not given.",
    ),
)


def oauth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets what was given of them as ``oauth``: a mapping, empty where nothing was."""

    @wraps(command)
    def gathered(*arguments: Any, **parameters: Any) -> Any:
        taken = {name: parameters.pop(name) for name in (*_KEPT, SECRET, SCOPE)}
        oauth = {name: value for name, value in taken.items() if value}
        return command(*arguments, oauth=oauth, **parameters)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def applied(connection: Connection, oauth: Mapping[str, Any]) -> tuple[Connection, dict[str, str]]:
    """The connection with the options that it keeps, and the answers to the sign-in.

    UsageError where OAuth's options come with another auth method.
    """
    if not oauth:
        return connection, {}
    if not is_conversation(connection):
        raise click.UsageError(
            f"--{min(oauth).replace('_', '-')} goes with the auth method 'oauth', and this is {connection.auth!r}: "
            "give --auth oauth"
        )
    options = dict(connection.options) | {
        key: str(oauth[name]) for name, key in _KEPT.items() if name in oauth
    }
    if SCOPE in oauth:
        options["oauth_scopes"] = " ".join(oauth[SCOPE])
    answers: dict[str, str] = {}
    if SECRET in oauth:
        from regfs.cli.prompts import secret_from_stdin

        answers["client_secret"] = secret_from_stdin()
    return replace(connection, options=tuple(sorted(options.items()))), answers


def is_conversation(connection: Connection) -> bool:
    """Whether one signs in to it by a conversation, and not by a form."""
    from regfs import plugins
    from regfs.ports import SignsInWithPerson

    return isinstance(plugins.auth_method(connection.auth), SignsInWithPerson)


def remembered(connection: Connection, answers: Mapping[str, str]) -> Connection:
    """The connection with the client id that was typed, so that `regfs reconnect` need not ask for it."""
    key = _KEPT["client_id"]
    if not answers.get(key) or not is_conversation(connection):
        return connection
    options = dict(connection.options) | {key: answers[key]}
    return replace(connection, options=tuple(sorted(options.items())))
