"""``regfs ref``: the full reference of a path, to paste where another tool wants one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, Advised, complain
from regfs.cli.references import Named, named_in_mount, named_in_tree
from regfs.errors import RegfsError

if TYPE_CHECKING:
    from regfs.cli.walk import Trees


@click.command()
@click.option("--digest", "by_digest", is_flag=True, help="By digest, even where the path is a tag's.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def ref(paths: tuple[str, ...], by_digest: bool) -> int:
    """Print the full reference that each PATH belongs to: REGISTRY/REPOSITORY:TAG, or @DIGEST.

    PATH is in a mount (any file of a tag or digest, or a repository) or REGISTRY/PATH without one. A path that leads
    through a link, such as platforms/linux-amd64, belongs to the digest that the link names.
    """
    done = [_print(path, by_digest) for path in paths]
    return OK if all(done) else FAILED


def _print(path: str, by_digest: bool) -> bool:
    try:
        named = named_in_mount(path) or _without_mount(path)
        output.line(_by_digest(named, path) if by_digest else named.reference)
    except RegfsError as error:
        complain(error, path)
        return False
    return True


def _by_digest(named: Named, path: str) -> str:
    if not named.digest:
        raise Advised(f"{path} is no tag, so it has no digest", "Name a tag, or a file in one.")
    return f"{named.repository}@{named.digest}"


def _without_mount(path: str) -> Named:
    from regfs.cli import walk

    async def find(trees: Trees) -> Named:
        tree, inside = await trees.locate(path)
        return await named_in_tree(tree, inside)

    return walk.run(find)
