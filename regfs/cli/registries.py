"""``regfs registries``: the user's registries, how they are signed in to, and which of them answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from regfs.cli import output
from regfs.cli.registry_edit import add, remove, set_
from regfs.cli.registry_test import test
from regfs.connection import Connection
from regfs.errors import RegfsError

if TYPE_CHECKING:
    from regfs.auth.keychain import OrderedKeychain
    from regfs.ports import Credential, Keychain

PATIENCE: Final = 5.0
"""How long a registry may take to answer before it is called unreachable, in seconds: all are asked at once."""


@dataclass
class Report:
    """What is said about one registry: ``state`` is ok, refused or unreachable, with the reason in ``detail``."""

    connection: Connection
    signed_in: str = "no"
    state: str = "unreachable"
    no_credential: str = ""
    """Why no credential could be had, where a source of them failed."""
    detail: str = f"the place where its credential is kept gave no answer within {PATIENCE:.0f} s"


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def registries(ctx: click.Context, as_json: bool) -> None:
    """List your registries: from `regfs login`, and from the config files; or add, remove, set, test them.

    All are asked at once, for at most five seconds. A registry that does not answer is no failure of this command.
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)
    elif as_json:
        raise click.UsageError("--json goes behind the command: `regfs registries test --json`", ctx)


registries.add_command(add)
registries.add_command(remove)
registries.add_command(set_)
registries.add_command(test)


def _list(*, as_json: bool) -> None:
    import trio

    from regfs.cli.session import load

    settings, connections = load()
    from regfs.auth.keychain import default_keychain

    reports = [Report(connection) for connection in connections]
    trio.run(_ask_all, reports, default_keychain(settings.credentials, single=len(connections) == 1))
    if as_json:
        output.as_json([as_dict(report) for report in reports])
    else:
        _print(reports)


async def _ask_all(reports: list[Report], keychain: OrderedKeychain) -> None:
    import trio

    with trio.move_on_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for report in reports:
                nursery.start_soon(_ask, report, keychain)


async def _ask(report: Report, keychain: OrderedKeychain) -> None:
    from regfs.cli.edge import leaf
    from regfs.cli.sources import OneCredential, check
    from regfs.errors import AccessDenied
    from regfs.opening import with_provider_sources
    from regfs.ports import CredentialKind

    try:
        keychain = with_provider_sources(report.connection, keychain)
        credential = await _credential(report, keychain)
        report.detail = f"no answer within {PATIENCE:.0f} s"
        # What a grant is renewed to has to be kept, and one credential alone keeps nothing.
        grant = credential is not None and credential.kind is CredentialKind.OAUTH_GRANT
        await check(report.connection, keychain if grant else OneCredential(credential))
        report.state, report.detail = "ok", ""
    except AccessDenied as error:
        report.state = "refused"
        report.detail = f"{error}; {report.no_credential}" if report.no_credential else str(error)
    except RegfsError as error:
        report.detail = str(error)
    except Exception as error:  # a stranger's plugin must not hide the other registries
        report.detail = f"{type(leaf(error)).__name__}: {leaf(error)}"


async def _credential(report: Report, keychain: Keychain) -> Credential | None:
    """The connection's credential. The report then says as whom, and where it is kept."""
    from regfs import plugins
    from regfs.errors import CredentialError

    if not plugins.auth_method(report.connection.auth).fields:
        report.signed_in = "anonymous"
        return None
    try:
        credential = await keychain.get(report.connection)
    except CredentialError as error:
        report.no_credential = str(error)
        return None
    if credential is not None:
        report.signed_in = (
            f"{credential.username or credential.kind.value} ({credential.origin or 'unknown'})"
        )
    return credential


async def signed_in(connection: Connection, keychain: Keychain) -> str:
    """As whom one signs in to a registry, and where that is kept: ``robot (keyring)``, ``anonymous``, ``no``."""
    report = Report(connection)
    await _credential(report, keychain)
    return report.signed_in


def as_dict(report: Report) -> dict[str, object]:
    """A connection as ``regfs registries --json`` prints it, secrets blotted out."""
    from regfs.log import redact

    return {
        "name": report.connection.name,
        "address": report.connection.address,
        "provider": report.connection.provider,
        "auth": report.connection.auth,
        "signed_in": redact(report.signed_in),
        "state": report.state,
        "detail": redact(report.detail),
    }


def _print(reports: list[Report]) -> None:
    from regfs.cli.edge import say

    if not reports:
        say("no registries yet: `regfs login REGISTRY` adds one")
        return
    rows = [_row(report) for report in reports]
    output.table(("NAME", "ADDRESS", "PROVIDER", "SIGNED IN", "STATE"), rows)


def _row(report: Report) -> tuple[str, ...]:
    from regfs.cli.edge import printable
    from regfs.log import redact

    detail = f": {report.detail}" if report.detail else ""
    connection = report.connection
    cells = (
        connection.name,
        connection.address,
        connection.provider,
        report.signed_in,
        report.state + detail,
    )
    return tuple(printable(redact(cell)) for cell in cells)
