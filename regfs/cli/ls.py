"""``regfs ls``: what `ls` on a mount would show, without one."""

from __future__ import annotations

import locale
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from regfs.cli import looks, output
from regfs.cli.edge import OK, complain, printable
from regfs.errors import RegfsError
from regfs.tree.attributes import Attributes, Kind

if TYPE_CHECKING:
    from regfs.cli.walk import Tree, Trees

NOT_THERE: Final = 2
"""The exit code where a PATH cannot be listed, as `ls` has it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One name to show; ``target`` is where a link leads."""

    name: str
    attributes: Attributes
    target: str = ""


@click.command()
@click.option("-l", "long", is_flag=True, help="Show mode, size, date and where links lead.")
@click.option("-a", "hidden", is_flag=True, help="Show names that begin with a dot, too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("paths", metavar="[REGISTRY/PATH]...", nargs=-1)
def ls(paths: tuple[str, ...], long: bool, hidden: bool, as_json: bool) -> int:
    """List folders of registries without a mount: the same names as in a mount, from the same tree.

    REGISTRY is a connection's name or any address; without PATH your registries are listed.
    """
    from regfs.cli import walk

    locale.setlocale(locale.LC_ALL, "")
    return walk.run(_Listing(paths or ("",), long, hidden, as_json).show)


@dataclass
class _Listing:
    """What was asked for, and how it comes out."""

    paths: Sequence[str]
    long: bool
    hidden: bool
    as_json: bool

    async def show(self, trees: Trees) -> int:
        """List each path; one that fails is told of and passed over."""
        code, listed = OK, []
        for path in self.paths:
            try:
                tree, inside = await trees.locate(path)
                rows = await self._rows(tree, inside, path)
            except RegfsError as error:
                complain(error, path)
                code = NOT_THERE
                continue
            listed.append((path, rows))
            if not self.as_json:
                self._print(path, rows, first=len(listed) == 1)
        if self.as_json:
            output.as_json([_as_dict(path, row) for path, rows in listed for row in rows])
        return code

    async def _rows(self, tree: Tree, inside: str, shown: str) -> list[Row]:
        node = await tree.find(inside, follow=not self.long)
        if node.attributes.kind is not Kind.FOLDER:
            return [await _row(tree, node.ino, shown, node.attributes)]
        entries = await tree.entries(node)
        named = [(os.fsdecode(entry.name), entry.attributes) for entry in entries]
        chosen = [(name, found) for name, found in named if self.hidden or not name.startswith(".")]
        return [await _row(tree, found.ino, name, found) for name, found in sorted(chosen, key=_collation)]

    def _print(self, path: str, rows: list[Row], *, first: bool) -> None:
        if len(self.paths) > 1:
            output.line(f"{path}:" if first else f"\n{path}:")
        for line in _long_lines(rows) if self.long else [printable(row.name) for row in rows]:
            output.line(line)


def _collation(named: tuple[str, Attributes]) -> str:
    return locale.strxfrm(named[0])


async def _row(tree: Tree, ino: int, name: str, attributes: Attributes) -> Row:
    if attributes.kind is not Kind.LINK:
        return Row(name, attributes)
    return Row(name, attributes, os.fsdecode(await tree.filesystem.readlink(ino)))


def _long_lines(rows: Sequence[Row]) -> list[str]:
    width = max((len(str(row.attributes.size)) for row in rows), default=0)
    now = time.time()
    return [
        f"{looks.mode(row.attributes)} {row.attributes.size:>{width}} {looks.date(row.attributes.time_ns, now)} "
        + printable(f"{row.name} -> {row.target}" if row.target else row.name)
        for row in rows
    ]


def _as_dict(path: str, row: Row) -> dict[str, object]:
    link = {"target": row.target} if row.target else {}
    return {"path": path, "name": row.name, **looks.facts(row.attributes), **link}
