"""``regfs refresh``: make mounts forget what they listed."""

from __future__ import annotations

from pathlib import Path

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, complain, say
from regfs.errors import RegfsError


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(readable=False, path_type=Path))
def refresh(paths: tuple[Path, ...]) -> int:
    """Forget the listings below each PATH in a mount, so that the next look asks the registry.

    Without PATH: all mounts of yours. Manifests and blobs are kept: what a digest names never changes.
    """
    from regfs.cli.mounts import our_mounts

    targets = paths or tuple(mount.folder for mount in our_mounts())
    if not targets:
        say("nothing of regfs is mounted")
    return FAILED if [path for path in targets if not _refreshed(path)] else OK


def _refreshed(path: Path) -> bool:
    from regfs.cli import mounts

    try:
        if mounts.mount_of(path.resolve()) is None:
            raise mounts.no_mount(path)
        output.line(f"{path}: listings forgotten: {mounts.refresh(path)}")
    except RegfsError as error:
        complain(error)
        return False
    return True
