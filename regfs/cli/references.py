"""Which reference a path belongs to: its own word for it, or that of the nearest folder above which has one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regfs.errors import NotFound
from regfs.tree.attributes import Kind

if TYPE_CHECKING:
    from regfs.cli.mounts import Mounted
    from regfs.cli.walk import Tree

REFERENCE: Final = "user.regfs.reference"
DIGEST: Final = "user.oci.digest"


@dataclass(frozen=True, slots=True)
class Named:
    """A full reference; ``digest`` is the manifest's, where it belongs to a tag or a digest. ``folder``: in a mount, where."""

    reference: str
    digest: str = ""
    folder: Path = Path()

    @property
    def tag(self) -> str:
        """The tag, or "" where it is a repository or a digest."""
        last = self.reference.rpartition("/")[2]
        return last.partition(":")[2] if "@" not in last else ""

    @property
    def repository(self) -> str:
        """The reference without tag and digest: registry and repository."""
        head, slash, last = self.reference.rpartition("/")
        return f"{head}{slash}{last.partition('@')[0].partition(':')[0]}"


def named_in_mount(path: str) -> Named | None:
    """What a path in a mount of ours belongs to, links resolved; None where it is no such path.

    Raises NotFound where it can be nothing but a path, and is not there.
    """
    from regfs.cli.mounts import mount_of

    if not os.path.lexists(path):
        if path.startswith(("/", "./", "../")):
            raise NotFound(f"there is no {path}")
        return None
    real = Path(os.path.realpath(path))
    mount = mount_of(real)
    if mount is None:
        return None
    for folder in _folders(real, mount):
        reference = _attribute(folder, REFERENCE)
        if reference is not None:
            return Named(reference, _attribute(folder, DIGEST) or "", folder)
    raise NotFound(f"{path} belongs to no registry")


async def named_in_tree(tree: Tree, path: str) -> Named:
    """What a path in a registry's tree belongs to, links resolved. Raises NotFound, and what lookups raise."""
    node = await tree.find(path)
    inos = node.inos if node.attributes.kind is Kind.FOLDER else node.inos[:-1]
    for ino in reversed(inos):
        reference = await tree.attribute(ino, REFERENCE)
        if reference is not None:
            return Named(reference, await tree.attribute(ino, DIGEST) or "")
    raise NotFound(f"{path or 'this'} belongs to no registry")


def _folders(path: Path, mount: Mounted) -> list[Path]:
    """The folder that ``path`` is or lies in, and those above it, up to the mount's root."""
    nearest = path if path.is_dir() else path.parent
    return [folder for folder in (nearest, *nearest.parents) if folder.is_relative_to(mount.folder)]


def _attribute(path: Path, name: str) -> str | None:
    try:
        return os.getxattr(path, name).decode(errors="replace")
    except OSError:
        return None
