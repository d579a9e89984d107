"""Paths on the command line, walked through the same tree as a mount's: by lookup and readlink, as the kernel would."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from regfs.cli.edge import Advised
from regfs.cli.session import load, locate
from regfs.errors import NotADirectory, RegfsError
from regfs.tree.attributes import Attributes, DirEntry, Kind

if TYPE_CHECKING:
    from regfs.config import Settings
    from regfs.connection import Connection
    from regfs.tree.filesystem import FileSystem

T = TypeVar("T")

ROOT: Final = 1
_MAX_LINKS: Final = 40
"""Links followed on one path, as in Linux's own walk."""


@dataclass(frozen=True, slots=True)
class Node:
    """Where a walk arrived: ``names`` lead there from the root, through no link."""

    names: tuple[str, ...]
    inos: tuple[int, ...]
    attributes: Attributes

    @property
    def ino(self) -> int:
        """The inode's number."""
        return self.inos[-1]


@dataclass(frozen=True, slots=True)
class Tree:
    """One registry's tree (``connection`` None: all of the user's, a folder each), in this process alone."""

    filesystem: FileSystem
    connection: Connection | None

    async def find(self, path: str, *, follow: bool = True) -> Node:
        """What ``path`` is. ``follow``: where the last name is a link, what it leads to. Raises what lookups raise.

        The attributes are settled: a name that is not there is NotFound here.
        """
        try:
            names, inos = await self._walked(_parts(path), follow or path.endswith("/"))
            attributes = await self.filesystem.getattr(inos[-1])
        except RegfsError as error:
            error.registry = error.registry or (self.connection.address if self.connection else "")
            raise
        if path.endswith("/") and attributes.kind is not Kind.FOLDER:
            raise NotADirectory(f"{path} is no folder")
        return Node(tuple(names), tuple(inos), attributes)

    async def _walked(self, parts: Sequence[str], follow: bool) -> tuple[list[str], list[int]]:
        names: list[str] = []
        inos = [ROOT]
        left, links = list(reversed(parts)), 0
        while left:
            name = left.pop()
            if name == "..":
                del names[-1:]
                del inos[len(names) + 1 :]
                continue
            found = await self.filesystem.lookup(inos[-1], os.fsencode(name))
            if found.kind is Kind.LINK and (left or follow):
                links += 1
                left.extend(reversed(await self._target(found.ino, links)))
                continue
            if left and found.kind is Kind.FILE:
                raise NotADirectory(f"{name} is no folder")
            names.append(name)
            inos.append(found.ino)
        return names, inos

    async def _target(self, ino: int, links: int) -> list[str]:
        target = os.fsdecode(await self.filesystem.readlink(ino))
        if target.startswith("/"):
            raise Advised(f"the link leads out of the registry: {target}")
        if links > _MAX_LINKS:
            raise Advised("too many levels of symbolic links")
        return _parts(target)

    async def entries(self, node: Node) -> list[DirEntry]:
        """A folder's entries, in its own order."""
        handle = await self.filesystem.opendir(node.ino)
        try:
            found: list[DirEntry] = []
            while await self._read_on(handle, found):
                pass
            return found
        finally:
            self.filesystem.releasedir(handle)

    async def _read_on(self, handle: int, found: list[DirEntry]) -> bool:
        """Add what comes next in an open folder; False at its end."""
        before = len(found)
        for entry in await self.filesystem.readdir(handle, found[-1].next if found else 0):
            found.append(entry)
            if entry.attributes.kind is Kind.LINK:
                self.filesystem.remember(entry.attributes.ino)
        return len(found) > before

    async def chunks(self, node: Node) -> AsyncGenerator[bytes, None]:
        """A file's bytes, in pieces. To be closed (`contextlib.aclosing`): what came is kept only then."""
        opened = await self.filesystem.open(node.ino, writing=False)
        try:
            offset = 0
            while data := await self.filesystem.read(opened.handle, offset, _PIECE):
                yield data
                offset += len(data)
        finally:
            with trio.CancelScope(shield=True):
                await self.filesystem.release(opened.handle)

    async def attribute(self, ino: int, name: str) -> str | None:
        """An extended attribute as text, or None where it has none of that name."""
        from regfs.errors import AttributeUnsupported, NoSuchAttribute

        try:
            return (await self.filesystem.getxattr(ino, name.encode())).decode(errors="replace")
        except (NoSuchAttribute, AttributeUnsupported):
            return None


_PIECE: Final = 128 * 1024


class Trees:
    """The trees that one command walks in, each opened when it is first needed."""

    def __init__(
        self, settings: Settings, connections: tuple[Connection, ...], stack: AsyncExitStack
    ) -> None:
        self._settings = settings
        self._connections = connections
        self._stack = stack
        self._open: dict[str, Tree] = {}

    async def locate(self, text: str) -> tuple[Tree, str]:
        """The tree that ``REGISTRY/PATH`` means, and the path in it; an empty text means all registries."""
        if not text.strip("/"):
            return await self._tree(None), ""
        _refuse_mounted(text, self._connections)
        connection, rest = locate(text, self._connections)
        return await self._tree(connection), rest + "/" * (text.endswith("/") and bool(rest))

    async def _tree(self, connection: Connection | None) -> Tree:
        key = connection.name if connection else ""
        if key not in self._open:
            opened = _opened(self._settings, connection, self._connections)
            self._open[key] = Tree(await self._stack.enter_async_context(opened), connection)
        return self._open[key]


def run(work: Callable[[Trees], Awaitable[T]], *, ends_in_order: bool = False, **overrides: object) -> T:
    """Run ``work`` with trees by the user's settings, of which ``overrides`` change some.

    ``ends_in_order``: Ctrl-C lets what is under way come to its end, so that what came of a blob is kept; a second one
    ends the process at once. Only for work that blocks nowhere: else the first one waits for that.
    """
    settings, connections = load(overrides)

    async def whole() -> T:
        async with AsyncExitStack() as stack:
            return await work(Trees(settings, connections, stack))

    async def till_interrupted() -> T:
        with _interruptible() as scope:
            result = await whole()
        if scope.cancel_called:
            raise KeyboardInterrupt
        return result

    return trio.run(till_interrupted if ends_in_order and _minds_interrupts() else whole)


def _minds_interrupts() -> bool:
    """Whether Ctrl-C is to end this process: not in the background of a shell without job control."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextmanager
def _interruptible() -> Iterator[trio.CancelScope]:
    """A block that the first Ctrl-C cancels, and nothing else: no line of code is broken off in its midst."""
    token = trio.lowlevel.current_trio_token()
    scope = trio.CancelScope()

    def cancel(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        token.run_sync_soon(scope.cancel)

    before = signal.signal(signal.SIGINT, cancel)
    try:
        with scope:
            yield scope
    finally:
        signal.signal(signal.SIGINT, before)


def _refuse_mounted(text: str, connections: Sequence[Connection]) -> None:
    """Someone in a mount says `regfs ls team/app`: better told so than that there is no host `team`."""
    from regfs.cli.mounts import mount_of
    from regfs.connections import find_connection

    host = text.partition("/")[0]
    if host == "localhost" or "." in host.strip(".") or ":" in host or find_connection(text, connections):
        return
    if os.path.lexists(text) and mount_of(Path(os.path.realpath(text))) is not None:
        raise Advised(
            "this is a path in a mount", "Plain `ls`, `cat` and `stat` work on it; here it is REGISTRY/PATH."
        )


@asynccontextmanager
async def _opened(
    settings: Settings, connection: Connection | None, connections: tuple[Connection, ...]
) -> AsyncIterator[FileSystem]:
    """A filesystem like a mount's, without one. Names are settled as a mount would: when something asks about them."""
    from regfs.app import App

    chosen = connections if connection is None else (connection,)
    app = App(settings, chosen, single=connection is not None, settle_at_lookup=settings.rw)
    async with app.running() as filesystem:
        yield filesystem


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
