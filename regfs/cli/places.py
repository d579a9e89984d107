"""Where a command finds images: in a mount, read as any program reads it, or in a registry without one.

Both are walked by the same names, so a command is written once. Paths of a place are its own: absolute in a mount, within
the registry's tree without one.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from regfs.cli.edge import Advised
from regfs.errors import NotADirectory, NotFound, RegfsError

if TYPE_CHECKING:
    from regfs.cli.walk import Tree, Trees

T = TypeVar("T")

_PIECE: Final = 1024 * 1024
_HOST_AND_PORT: Final = re.compile(r"[^/]+:\d{1,5}(/|$)")


class Place(Protocol):
    """A tree of names as a mount shows it. Everything raises `regfs.errors`."""

    async def resolved(self, path: str) -> str:
        """The same file or folder, by a path through no link. Raises NotFound."""
        ...

    async def is_folder(self, path: str) -> bool:
        """Whether it is a folder, links followed. Raises NotFound."""
        ...

    async def names(self, path: str) -> list[str]:
        """What a folder lists. Raises NotFound, NotADirectory."""
        ...

    async def read(self, path: str) -> bytes:
        """A small file, whole."""
        ...

    def pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        """A file of any size, in pieces as they come. To be closed (`contextlib.aclosing`)."""
        ...

    async def attribute(self, path: str, name: str) -> str | None:
        """An extended attribute, or None where it has none of that name."""
        ...


async def find(trees: Trees, text: str) -> tuple[Place, str]:
    """The place that an argument means, and the path in it: of a mount's path the mount, else REGISTRY/PATH."""
    mounted = await trio.to_thread.run_sync(_mounted, text, abandon_on_cancel=True)
    if mounted is not None:
        return OnMount(), mounted
    tree, inside = await trees.locate(text)
    return InTree(tree), await InTree(tree).resolved(inside)


def _mounted(text: str) -> str | None:
    """A path in a mount of ours, through no link; None where it is no such path. Raises NotFound, Advised."""
    from regfs.cli.mounts import mount_of

    # A mount has a link for every name that could be `app:v1`, and so for `localhost:5000`: it counts if it leads somewhere.
    is_there = os.path.exists if _HOST_AND_PORT.match(text) else os.path.lexists
    nearest = next((path for path in (Path(text), *Path(text).parents) if is_there(path)), Path())
    is_ours = nearest != Path() and mount_of(Path(os.path.realpath(nearest))) is not None
    if is_ours and nearest == Path(text):
        return os.path.realpath(text)
    if not is_ours and not text.startswith(("/", "./", "../")):
        return None
    if not is_ours and nearest == Path(text):
        raise Advised(f"{text} is in no mount of regfs", "See what is mounted: `regfs status`.")
    raise NotFound(f"there is no {text}")


@dataclass(frozen=True, slots=True)
class InTree:
    """A registry's tree in this process."""

    tree: Tree

    async def resolved(self, path: str) -> str:
        """See `Place.resolved`."""
        return "/".join((await self.tree.find(path)).names)

    async def is_folder(self, path: str) -> bool:
        """See `Place.is_folder`."""
        from regfs.tree.attributes import Kind

        return (await self.tree.find(path)).attributes.kind is Kind.FOLDER

    async def names(self, path: str) -> list[str]:
        """See `Place.names`."""
        entries = await self.tree.entries(await self.tree.find(path))
        return [os.fsdecode(entry.name) for entry in entries]

    async def read(self, path: str) -> bytes:
        """See `Place.read`."""
        return b"".join([piece async for piece in self.pieces(path)])

    async def pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        """See `Place.pieces`."""
        async with aclosing(self.tree.chunks(await self.tree.find(path))) as pieces:
            async for piece in pieces:
                yield piece

    async def attribute(self, path: str, name: str) -> str | None:
        """See `Place.attribute`."""
        return await self.tree.attribute((await self.tree.find(path)).ino, name)


@dataclass(frozen=True, slots=True)
class OnMount:
    """A mount, through the kernel: with the mount's own sign-in, and what it has at hand."""

    async def resolved(self, path: str) -> str:
        """See `Place.resolved`."""
        return await _told(path, lambda: os.path.realpath(path, strict=True))

    async def is_folder(self, path: str) -> bool:
        """See `Place.is_folder`."""
        import stat

        return stat.S_ISDIR((await _told(path, Path(path).stat)).st_mode)

    async def names(self, path: str) -> list[str]:
        """See `Place.names`."""
        return await _told(path, lambda: [entry.name for entry in os.scandir(path)])

    async def read(self, path: str) -> bytes:
        """See `Place.read`."""
        return await _told(path, Path(path).read_bytes)

    async def pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        """See `Place.pieces`."""
        stream = await _told(path, lambda: Path(path).open("rb", buffering=0))  # noqa: SIM115  # closed below
        try:
            while piece := await _told(path, lambda: stream.read(_PIECE)):
                yield piece
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(stream.close)

    async def attribute(self, path: str, name: str) -> str | None:
        """See `Place.attribute`."""
        import errno

        try:
            value = await trio.to_thread.run_sync(lambda: os.getxattr(path, name), abandon_on_cancel=True)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            raise _as_ours(path, error) from error
        return value.decode(errors="replace")


async def _told(path: str, work: Callable[[], T]) -> T:
    """The result of what may wait for a mount, made in a thread; its error as one of ours."""
    try:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    except OSError as error:
        raise _as_ours(path, error) from error


def _as_ours(path: str, error: OSError) -> RegfsError:
    import errno

    if error.errno == errno.ENOENT:
        return NotFound(f"there is no {path}")
    if error.errno == errno.ENOTDIR:
        return NotADirectory(f"{path} is no folder")
    return Advised(
        os.strerror(error.errno or errno.EIO), "The last lines of .regfs/errors in the mount say why."
    )
