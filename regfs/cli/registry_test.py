"""``regfs registries test``: does a registry answer, as whom, and what can be done there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, Advised
from regfs.errors import AccessDenied, RegfsError

if TYPE_CHECKING:
    from regfs.auth.keychain import OrderedKeychain
    from regfs.cli.registries import Report
    from regfs.connection import Connection
    from regfs.ports import Source

PATIENCE: Final = 15.0
"""Seconds that a registry has for all its answers; all are asked at once."""


@dataclass
class Abilities:
    """What can be done in a registry: ``yes``, ``no``, or ``unknown`` where only trying tells."""

    list: str = "unknown"
    delete: str = "unknown"


@click.command("test")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def test(names: Sequence[str], as_json: bool) -> int:
    """Ask registries (all of yours, or those named) whether they answer, as whom, and what can be done there.

    Nothing is changed by asking. Exit code 1 where one does not answer, or refuses.
    """
    import trio

    from regfs.auth.keychain import default_keychain
    from regfs.cli.registries import Report
    from regfs.cli.session import load

    settings, connections = load()
    chosen = _chosen(names, connections)
    reports = [(Report(connection), Abilities()) for connection in chosen]
    keychain = default_keychain(settings.credentials, single=len(connections) == 1)
    trio.run(_ask_all, reports, keychain)
    if as_json:
        output.as_json([_as_dict(report, abilities) for report, abilities in reports])
    else:
        _print(reports)
    return OK if all(report.state == "ok" for report, _ in reports) else FAILED


def _chosen(names: Sequence[str], connections: Sequence[Connection]) -> Sequence[Connection]:
    known = {connection.name: connection for connection in connections}
    if missing := [name for name in names if name not in known]:
        raise Advised(
            f"you have no registry {missing[0][:128]!r}",
            f"Those that you have: {', '.join(known) or 'none'}.",
        )
    return [known[name] for name in dict.fromkeys(names)] if names else list(connections)


async def _ask_all(reports: list[tuple[Report, Abilities]], keychain: OrderedKeychain) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        for report, abilities in reports:
            nursery.start_soon(_ask, report, abilities, keychain)


async def _ask(report: Report, abilities: Abilities, keychain: OrderedKeychain) -> None:
    import trio

    from regfs.cli.edge import leaf

    report.detail = f"no answer within {PATIENCE:.0f} s"
    try:
        with trio.move_on_after(PATIENCE):
            await _look(report, abilities, keychain)
    except AccessDenied as error:
        report.state, report.detail = "refused", str(error)
    except RegfsError as error:
        report.detail = str(error)
    except Exception as error:  # a stranger's plugin must not hide the other registries
        report.detail = f"{type(leaf(error)).__name__}: {leaf(error)}"


async def _look(report: Report, abilities: Abilities, keychain: OrderedKeychain) -> None:
    from tempfile import gettempdir

    from regfs.cli.registries import signed_in
    from regfs.cli.sources import CHECK_POLICY, opened
    from regfs.opening import with_provider_sources

    keychain = with_provider_sources(report.connection, keychain)
    report.signed_in = await signed_in(report.connection, keychain)
    # Asking what can be deleted sends nothing; only a Source that may write says it.
    policy = replace(CHECK_POLICY, read_only=False)
    async with opened(report.connection, keychain, Path(gettempdir()), policy) as sources:
        for source in sources.values():
            await source.check()
        report.state, report.detail = "ok", ""
        for source in sources.values():
            abilities.list = await _lists(source)
            abilities.delete = _deletes(source)


async def _lists(source: Source) -> str:
    from contextlib import aclosing

    from regfs.ports import ListsNamespaces, ListsRepositories

    listing: AsyncIterator[object]
    if (by_namespace := source.capability(ListsNamespaces)) is not None:
        listing = by_namespace.namespace("")
    elif (whole := source.capability(ListsRepositories)) is not None:
        listing = whole.repositories()
    else:
        return "no"
    try:
        async with aclosing(cast("AsyncGenerator[object]", listing)) as under_way:
            async for _ in under_way:
                break
    except AccessDenied:
        return "no"
    except RegfsError:
        return "unknown"
    return "yes"


def _deletes(source: Source) -> str:
    from regfs.ports import DeletesTags

    deletes = source.capability(DeletesTags)
    return "no" if deletes is None else deletes.can_delete().value


def _as_dict(report: Report, abilities: Abilities) -> dict[str, object]:
    from regfs.cli.registries import as_dict

    return as_dict(report) | {"list": abilities.list, "delete": abilities.delete}


def _print(reports: Sequence[tuple[Report, Abilities]]) -> None:
    from regfs.cli.edge import printable, say
    from regfs.log import redact

    if not reports:
        say("no registries yet: `regfs registries add NAME ADDRESS` adds one")
        return
    rows = []
    for report, abilities in reports:
        detail = f": {report.detail}" if report.detail else ""
        cells = (
            report.connection.name,
            report.connection.address,
            report.signed_in,
            abilities.list,
            abilities.delete,
            report.state + detail,
        )
        rows.append(tuple(printable(redact(cell)) for cell in cells))
    output.table(("NAME", "ADDRESS", "SIGNED IN", "LIST", "DELETE", "STATE"), rows)
