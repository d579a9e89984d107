"""``regfs ref``: the full reference of a path, to paste where another tool wants one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, Advised, complain
from regfs.errors import NotFound, RegfsError

if TYPE_CHECKING:
    from regfs.cli.mounts import Mounted
    from regfs.cli.places import Place

DIGEST = "user.oci.digest"


@click.command()
@click.option("--digest", "by_digest", is_flag=True, help="By digest, even where the path is a tag's.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def ref(paths: tuple[str, ...], by_digest: bool) -> int:
    """Print the full reference that each PATH belongs to: REGISTRY/REPOSITORY:TAG, or @DIGEST.

    PATH is in a mount (any file of a tag or manifest, or a repository) or REGISTRY/PATH without one. A path that leads
    through a link, such as platforms/linux-amd64, belongs to the digest that the link names.
    """
    done = [_print(path, by_digest) for path in paths]
    return OK if all(done) else FAILED


def _print(path: str, by_digest: bool) -> bool:
    try:
        registry, place = resolve(path)
        if by_digest and place.digest is None:
            raise Advised(f"{place.repository} is a repository: it has no digest", "Name a tag in it.")
        output.line(str(place.reference(registry, by_digest=by_digest)))
    except RegfsError as error:
        complain(error, path)
        return False
    return True


def resolve(path: str) -> tuple[str, Place]:
    """The registry and the place in it that a path on the command line means: in a mount where it is in one."""
    from regfs.cli.mounts import mount_of

    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links out of a mount
    mount = mount_of(Path(os.path.realpath(absolute)))
    if mount is not None and os.path.lexists(absolute):
        return _in_mount(mount, absolute)
    return _without_mount(path)


def _in_mount(mount: Mounted, path: Path) -> tuple[str, Place]:
    import trio

    from regfs.cli.mounts import registry_of
    from regfs.cli.places import place_of

    names = Path(os.path.realpath(path)).relative_to(mount.folder).parts
    registry, base = registry_of(mount, names)

    async def digest_of(inside: Sequence[str]) -> str | None:
        try:
            return os.getxattr(base.joinpath(*inside), DIGEST).decode()
        except OSError:
            return None

    inside = Path(os.path.realpath(path)).relative_to(base).parts
    return registry, _some(trio.run(place_of, inside, digest_of), path)


def _without_mount(path: str) -> tuple[str, Place]:
    from regfs.cli import walk
    from regfs.cli.places import place_of

    async def find(trees: walk.Trees) -> tuple[str, Place]:
        tree, inside = await trees.locate(path)
        if tree.connection is None:
            raise NotFound(f"{path!r} names no registry")
        node = await tree.find(inside)

        async def digest_of(names: Sequence[str]) -> str | None:
            return await tree.attribute(await tree.find("/".join(names)), DIGEST)

        return tree.connection.address, _some(await place_of(node.names, digest_of), path)

    return walk.run(find)


def _some(place: Place | None, path: object) -> Place:
    if place is None:
        raise Advised(f"{path} belongs to no repository", "Name a repository, a tag, or a file in one.")
    return place
