"""``regfs registries``: the user's registries, how they are signed in to, and which of them answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from regfs.cli import output
from regfs.connection import Connection
from regfs.errors import RegfsError

if TYPE_CHECKING:
    from regfs.ports import Keychain

PATIENCE: Final = 5.0
"""How long a registry may take to answer before it is called unreachable, in seconds: all are asked at once."""


@dataclass
class Report:
    """What is said about one registry: ``state`` is ok, refused or unreachable, with the reason in ``detail``."""

    connection: Connection
    signed_in: str = "no"
    state: str = "unreachable"
    detail: str = f"no answer within {PATIENCE:.0f} s"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def registries(as_json: bool) -> None:
    """List your registries: from `regfs login`, and from the config files.

    All are asked at once, for at most five seconds. A registry that does not answer is no failure of this command.
    """
    import trio

    from regfs.cli.session import load

    settings, connections = load()
    from regfs.auth.keychain import default_keychain

    reports = [Report(connection) for connection in connections]
    trio.run(_ask_all, reports, default_keychain(settings.credentials))
    if as_json:
        output.as_json([_as_dict(report) for report in reports])
    else:
        _print(reports)


async def _ask_all(reports: list[Report], keychain: Keychain) -> None:
    import trio

    with trio.move_on_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for report in reports:
                nursery.start_soon(_ask, report, keychain)


async def _ask(report: Report, keychain: Keychain) -> None:
    from regfs.cli.edge import leaf
    from regfs.cli.sources import check
    from regfs.errors import AccessDenied

    try:
        report.signed_in = await _origin(report.connection, keychain)
        await check(report.connection, keychain)
        report.state, report.detail = "ok", ""
    except AccessDenied as error:
        report.state, report.detail = "refused", str(error)
    except RegfsError as error:
        report.detail = str(error)
    except Exception as error:  # a stranger's plugin must not hide the other registries
        report.detail = f"{type(leaf(error)).__name__}: {leaf(error)}"


async def _origin(connection: Connection, keychain: Keychain) -> str:
    """How a connection is signed in, for people: as whom, and where the credential is kept."""
    from regfs import plugins

    if not plugins.auth_method(connection.auth).fields:
        return "anonymous"
    credential = await keychain.get(connection)
    if credential is None:
        return "no"
    return f"{credential.username or credential.kind.value} ({credential.origin or 'unknown'})"


def _as_dict(report: Report) -> dict[str, object]:
    return {
        "name": report.connection.name,
        "address": report.connection.address,
        "provider": report.connection.provider,
        "auth": report.connection.auth,
        "signed_in": report.signed_in,
        "state": report.state,
        "detail": report.detail,
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

    detail = f": {printable(redact(report.detail))}" if report.detail else ""
    connection = report.connection
    return connection.name, connection.address, connection.provider, report.signed_in, report.state + detail
