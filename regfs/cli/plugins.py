"""``regfs plugins``: what providers and auth methods there are, what each can do, and which cannot be used; new ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from regfs.cli import output

if TYPE_CHECKING:
    from regfs.plugins import Abilities, Plugin


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List providers and auth methods, with where each comes from and what it can do.

    One that cannot be used is listed with its reason; it stops nothing else.
    """
    if ctx.invoked_subcommand is not None:
        return
    from regfs.plugins import abilities
    from regfs.plugins import plugins as all_plugins

    found = [(plugin, abilities(plugin)) for plugin in all_plugins()]
    if as_json:
        output.as_json([_as_dict(plugin, able) for plugin, able in found])
        return
    heads = ("KIND", "NAME", "FROM", "ENTRY POINT", "STATE", "WHAT IT CAN DO, OR WHY NOT")
    output.table(heads, [_row(plugin, able) for plugin, able in found])


@plugins.command()
@click.argument("name")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(["v2", "source", "auth"]),
    default="v2",
    show_default=True,
    help="A registry that speaks V2, one that speaks something else, or a way of signing in.",
)
def new(name: str, folder: Path | None, kind: str) -> None:
    """Write a package with a plugin called NAME, ready to be installed and tested.

    NAME is what `--provider` or `--auth` will call it: lower-case letters, digits and '-'. DIR is the package's own
    folder, new or empty; where it is not given, regfs-NAME in the current folder. Nothing is overwritten.
    """
    from regfs.cli.edge import Advised
    from regfs.errors import ConfigError
    from regfs.plugin_new import write_package

    try:
        written = write_package(name, kind, folder or Path(f"regfs-{name}"))
    except ConfigError as error:
        raise Advised(
            str(error), "Nothing was written; `regfs plugins new --help` says what it takes."
        ) from error
    output.line(f"wrote {written}; its README.md says how to install, test and mount it")


def _row(plugin: Plugin, able: Abilities | None) -> tuple[str, ...]:
    said = plugin.error or ", ".join([*able.capabilities, *able.roles] if able else [])
    state = "unusable" if plugin.error else "ok"
    if able is not None and able.lacks:
        state, said = "incomplete", f"{able.lacks}; {said}" if said else able.lacks
    return (plugin.group, plugin.name, plugin.origin, plugin.value or "-", state, said)


def _as_dict(plugin: Plugin, able: Abilities | None) -> dict[str, object]:
    keys = ("name", "group", "origin", "value", "error")
    facts: dict[str, object] = {key: getattr(plugin, key) for key in keys}
    if able is None:
        return facts
    facts |= {"title": able.title, "capabilities": list(able.capabilities), "roles": list(able.roles)}
    facts["fields"] = [
        {"name": field.name, "label": field.label, "secret": field.secret, "required": field.required}
        for field in able.fields
    ]
    if plugin.group == "provider":
        facts |= {"default_auth": able.default_auth, "many": able.many, "lacks": able.lacks}
    return facts
