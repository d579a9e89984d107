"""A kernel for tests of the tree: it calls the operations as the real one does, and counts lookups as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from regfs.cache.memory import MemoryStore
from regfs.connection import Connection
from regfs.errors import IsADirectory, NotFound
from regfs.ports import Source
from regfs.tree.attributes import Attributes, Kind
from regfs.tree.filesystem import FileSystem, TreeSettings


def rooms(*, image: bool = True) -> list[str]:
    """The links in a tag's folder, without ``rootfs``, for which `mounted` has nothing that reads images."""
    return ["layers", "referrers", "oci"] if image else ["referrers", "oci"]


class TrioClock:
    """Time by trio's clock, which tests set; 1970 is 2026 here."""

    def monotonic(self) -> float:
        return trio.current_time()

    def time(self) -> float:
        return 1_790_000_000 + trio.current_time()


class Kernel:
    """Walks paths and does what programs do, by the same operations in the same order."""

    def __init__(self, filesystem: FileSystem) -> None:
        self.filesystem = filesystem
        self.lookups: dict[int, int] = {}

    async def walk(self, path: str) -> Attributes:
        """Look up each component; links are followed, a last one before a slash. Like the kernel, it asks for no attributes on the way."""
        attributes = Attributes(1, Kind.FOLDER, 0o555, 0, 0, 0, 0)
        done: list[tuple[str, Attributes]] = []
        names = [name for name in path.split("/") if name]
        while names:
            name = names.pop(0)
            if name == "..":
                done.pop()
                attributes = done[-1][1] if done else Attributes(1, Kind.FOLDER, 0o555, 0, 0, 0, 0)
                continue
            found = await self.lookup(attributes.ino, name)
            if found.kind is Kind.LINK and (names or path.endswith("/")):
                names = (await self.filesystem.readlink(found.ino)).decode().split("/") + names
                continue
            attributes = found
            done.append((name, found))
        return attributes

    async def lookup(self, parent: int, name: str) -> Attributes:
        found = await self.filesystem.lookup(parent, name.encode())
        self.lookups[found.ino] = self.lookups.get(found.ino, 0) + 1
        return found

    async def stat(self, path: str) -> Attributes:
        found = await self.walk(path)
        return found if found.attr_timeout > 0 else await self.filesystem.getattr(found.ino)

    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
        except NotFound:
            return False
        return True

    async def ls(self, path: str = "") -> list[str]:
        return [name for name, _ in await self.ls_l(path)]

    async def ls_l(self, path: str = "") -> list[tuple[str, Attributes]]:
        await self.stat(path)
        return await self.readdir((await self.walk(path)).ino)

    async def readdir(self, ino: int) -> list[tuple[str, Attributes]]:
        handle = await self.filesystem.opendir(ino)
        try:
            entries: list[tuple[str, Attributes]] = []
            place, before = 0, -1
            while place != before:
                before = place
                for entry in await self.filesystem.readdir(handle, place):
                    self.filesystem.remember(entry.attributes.ino)
                    self.lookups[entry.attributes.ino] = self.lookups.get(entry.attributes.ino, 0) + 1
                    entries.append((entry.name.decode(), entry.attributes))
                    place = entry.next
            return entries
        finally:
            self.filesystem.releasedir(handle)

    async def cat(self, path: str) -> bytes:
        found = await self.walk(path)
        if found.kind is Kind.FOLDER:
            self.filesystem.releasedir(await self.filesystem.opendir(found.ino))
            raise IsADirectory(path)
        opened = await self.filesystem.open(found.ino, False)
        try:
            data = b""
            while chunk := await self.filesystem.read(opened.handle, len(data), 4096):
                data += chunk
            return data
        finally:
            await self.filesystem.release(opened.handle)

    async def rm(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        folder = (await self.walk(parent)).ino
        await self.lookup(folder, name)
        await self.filesystem.unlink(folder, name.encode())

    async def rmdir(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        folder = (await self.walk(parent)).ino
        await self.lookup(folder, name)
        await self.filesystem.rmdir(folder, name.encode())

    async def rm_r(self, path: str) -> None:
        """As `rm -r` goes: list, remove each, look the folder up again, rmdir."""
        for name, attributes in await self.ls_l(path):
            if attributes.kind is Kind.FOLDER:
                await self.rm_r(f"{path}/{name}")
            else:
                await self.rm(f"{path}/{name}")
        await self.stat(path)
        await self.rmdir(path)

    async def find(self, path: str = "") -> AsyncIterator[str]:
        """Every path below, as `find` goes: one folder after the other, in listing order."""
        for name, attributes in await self.ls_l(path):
            below = f"{path}/{name}".strip("/")
            yield below
            if attributes.kind is Kind.FOLDER:
                async for deeper in self.find(below):
                    yield deeper

    async def xattr(self, path: str, name: str) -> str:
        found = await self.walk(path)
        return (await self.filesystem.getxattr(found.ino, name.encode())).decode()

    def forget_all(self) -> None:
        """Forget every inode, as the kernel does under memory pressure."""
        lookups, self.lookups = self.lookups, {}
        self.filesystem.forget(sorted(lookups.items(), reverse=True))


@asynccontextmanager
async def mounted(
    source: Source,
    connection: Connection | None = None,
    *,
    writable: bool = False,
    settle_at_lookup: bool | None = None,
    ttl: float = 10.0,
    show_fallback_tags: bool = False,
) -> AsyncIterator[Kernel]:
    """One registry as a mount without a mount."""
    settings = TreeSettings(
        ttl=ttl,
        writable=writable,
        settle_at_lookup=writable if settle_at_lookup is None else settle_at_lookup,
        show_fallback_tags=show_fallback_tags,
    )
    filesystem = FileSystem(settings, clock=TrioClock(), store=MemoryStore())
    async with trio.open_nursery() as nursery:
        filesystem.start(nursery)
        filesystem.add_registry("memory", source, connection or Connection("memory", "memory.test"))
        yield Kernel(filesystem)
        nursery.cancel_scope.cancel()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test with a clock that jumps ahead when nothing else is left to do."""

    async def main() -> None:
        await test()

    trio.run(main, clock=MockClock(autojump_threshold=0))
