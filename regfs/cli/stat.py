"""``regfs stat``: what is known of a path, its extended attributes included, without a mount."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from regfs.cli import looks, output
from regfs.cli.edge import FAILED, OK, complain, printable
from regfs.errors import RegfsError
from regfs.tree.attributes import Kind

if TYPE_CHECKING:
    from regfs.cli.walk import Tree, Trees


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("paths", metavar="REGISTRY/PATH...", nargs=-1, required=True)
def stat(paths: tuple[str, ...], as_json: bool) -> int:
    """Show type, mode, size, date and extended attributes (digest, media type) of paths. A link is shown itself."""
    from regfs.cli import walk

    async def show_all(trees: Trees) -> int:
        found = [await _facts(trees, path) for path in paths]
        if as_json:
            output.as_json([facts for facts in found if facts is not None])
        else:
            for facts in found:
                _print(facts)
        return FAILED if None in found else OK

    return walk.run(show_all)


async def _facts(trees: Trees, path: str) -> dict[str, object] | None:
    try:
        tree, inside = await trees.locate(path)
        node = await tree.find(inside, follow=False)
        facts: dict[str, object] = {"path": path, **looks.facts(node.attributes)}
        if node.attributes.kind is Kind.LINK:
            facts["target"] = os.fsdecode(await tree.filesystem.readlink(node.ino))
        facts["attributes"] = await _attributes(tree, node.ino)
    except RegfsError as error:
        complain(error, path)
        return None
    return facts


async def _attributes(tree: Tree, ino: int) -> dict[str, str]:
    names = await tree.filesystem.listxattr(ino)
    values = {name.decode(): await tree.filesystem.getxattr(ino, name) for name in names}
    return {name: value.decode(errors="replace") for name, value in values.items()}


def _print(facts: dict[str, object] | None) -> None:
    if facts is None:
        return
    target = f" -> {facts['target']}" if "target" in facts else ""
    output.line(printable(f"  Path: {facts['path']}{target}"))
    output.line(f"  Type: {facts['type']}  Mode: {facts['mode']}  Size: {facts['size']}")
    output.line(f"Modify: {facts['time']}")
    attributes = facts["attributes"]
    assert isinstance(attributes, dict)
    for name, value in attributes.items():
        output.line(printable(f" Xattr: {name} = {value}"))
