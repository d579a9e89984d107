"""``regfs plugins``: what providers and auth methods there are, where they come from, and which cannot be used."""

from __future__ import annotations

import click

from regfs.cli import output


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def plugins(as_json: bool) -> int:
    """List providers and auth methods, with the package that each comes from.

    One that cannot be used is listed with its reason; it stops nothing else.
    """
    from regfs.plugins import plugins as all_plugins

    found = all_plugins()
    if as_json:
        keys = ("name", "group", "origin", "value", "error")
        output.as_json([{key: getattr(plugin, key) for key in keys} for plugin in found])
        return 0
    rows = [(p.group, p.name, p.origin, p.value, p.error or "ok") for p in found]
    output.table(("KIND", "NAME", "FROM", "ENTRY POINT", "STATE"), rows)
    return 0
