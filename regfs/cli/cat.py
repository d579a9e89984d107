"""``regfs cat``: the bytes that `cat` on a mount would print, without one."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, complain
from regfs.errors import IsADirectory, RegfsError
from regfs.tree.attributes import Kind

if TYPE_CHECKING:
    from regfs.cli.walk import Trees


@click.command()
@click.argument("paths", metavar="REGISTRY/PATH...", nargs=-1, required=True)
def cat(paths: tuple[str, ...]) -> int:
    """Print files of registries without a mount: the same bytes, through the same tree and the same checks.

    What came of a layer is kept, also where Ctrl-C or the reader of a pipe breaks it off: the next call goes on from there.
    """
    from regfs.cli import walk

    async def print_all(trees: Trees) -> int:
        done = [await _print(trees, path) for path in paths]
        return OK if all(done) else FAILED

    return walk.run(print_all, ends_in_order=True)


async def _print(trees: Trees, path: str) -> bool:
    import trio

    try:
        tree, inside = await trees.locate(path)
        node = await tree.find(inside)
        if node.attributes.kind is Kind.FOLDER:
            raise IsADirectory(f"{path} is a folder")
        async with aclosing(tree.chunks(node)) as pieces:
            async for piece in pieces:
                # In a thread, since whoever reads our output may be slow, and the registry's connection must live on.
                await trio.to_thread.run_sync(output.emit, piece, abandon_on_cancel=True)
    except RegfsError as error:
        complain(error, path)
        return False
    return True
