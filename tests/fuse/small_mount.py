"""Mount a filesystem of a few names, in a process of its own: what fuse/ is tested with, without a registry.

Run as a program: ``small_mount.py DIR [--plant] [--writable] [--handshake as-is|refused|lost] [--loop direct|libfuse]``. It prints ``ready``; what it
counts is in the root's extended attribute ``user.state``.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import trio

from regfs.errors import (
    AttributeUnsupported,
    IsADirectory,
    NoSuchAttribute,
    NotFound,
    ReadOnly,
    Refused,
)
from regfs.fuse import direct, handshake, operations, wire
from regfs.fuse.session import Session, mount_options
from regfs.tree.attributes import Attributes, DirEntry, Kind, OpenFile, Statfs

if TYPE_CHECKING:
    from regfs.tree.filesystem import FileSystem

SLOW = 0.5
MANY = 3000
CONTENT = b"hello, kernel\n"
STATE = b"user.state"
TIME_NS = 1_500_000_000_123_456_789


class SmallFileSystem:
    """``hello`` (a file), ``link`` to it, ``sub`` and ``many`` (folders), and ``slow-…``: files that take 0.5 s to look up."""

    def __init__(self, *, writable: bool) -> None:
        self.writable = writable
        self.lookups: Counter[int] = Counter()
        self.notes: list[str] = []
        self.open_handles: Counter[str] = Counter()
        self.inodes: dict[bytes, int] = {b"hello": 2, b"link": 3, b"sub": 4, b"many": 5}

    def _attributes(self, ino: int) -> Attributes:
        if ino in (1, 4, 5):
            return Attributes(ino, Kind.FOLDER, 0o755 if self.writable else 0o555, 0, TIME_NS, 0.0, 0.0)
        if ino == 3:
            return Attributes(ino, Kind.LINK, 0o777, len(b"hello"), TIME_NS, 0.0, 0.0)
        return Attributes(ino, Kind.FILE, 0o444, len(CONTENT), TIME_NS, 0.0, 0.0)

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        if name.startswith(b"slow-"):
            await trio.sleep(SLOW)
        ino = self.inodes.get(name) if parent == 1 else None
        if name.startswith((b"slow-", b"entry-")):
            ino = self.inodes.setdefault(name, 100 + len(self.inodes))
        if ino is None:
            raise NotFound(f"no {name!r}")
        self.lookups[ino] += 1
        return self._attributes(ino)

    def forget(self, pairs: Iterable[tuple[int, int]]) -> None:
        for ino, count in pairs:
            self.lookups[ino] -= count

    async def getattr(self, ino: int) -> Attributes:
        return self._attributes(ino)

    async def access(self, ino: int, mode: int) -> None:
        pass

    async def readlink(self, ino: int) -> bytes:
        return b"hello"

    async def opendir(self, ino: int) -> int:
        self.open_handles["folders"] += 1
        return ino

    async def readdir(self, handle: int, start: int) -> Iterator[DirEntry]:
        return self._entries(handle, start)

    async def readdir_plainly(self, handle: int, start: int) -> Iterator[DirEntry]:
        return await self.readdir(handle, start)

    def lists_for_good(self, ino: int) -> bool:
        return False

    def _entries(self, handle: int, start: int) -> Iterator[DirEntry]:
        names = [b"entry-%d" % number for number in range(MANY)] if handle == 5 else list(self.inodes)[:4]
        for position, name in enumerate(names[start:], start + 1):
            ino = self.inodes.setdefault(name, 100 + len(self.inodes))
            yield DirEntry(name, self._attributes(ino), position)

    def remember(self, ino: int) -> None:
        self.lookups[ino] += 1

    def releasedir(self, handle: int) -> None:
        self.open_handles["folders"] -= 1

    async def open(self, ino: int, writing: bool) -> OpenFile:
        if writing:
            raise Refused("no writing")
        if ino == 1:
            raise IsADirectory("a folder")
        self.open_handles["files"] += 1
        return OpenFile(handle=ino, direct_io=False, keep_cache=False)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        return CONTENT[offset : offset + size]

    async def release(self, handle: int) -> None:
        self.open_handles["files"] -= 1

    async def unlink(self, parent: int, name: bytes) -> None:
        raise Refused("no deleting")

    async def rmdir(self, parent: int, name: bytes) -> None:
        raise Refused("no deleting")

    def refuse_write(self, what: str, ino: int, name: bytes | None) -> NoReturn:
        raise Refused(what) if self.writable else ReadOnly(what)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        if not name.startswith(b"user."):
            raise AttributeUnsupported("outside user.")
        if name == STATE:
            held = sum(count for inode, count in self.lookups.items() if inode != 1)
            return json.dumps({"notes": self.notes, "lookups": held, "open": self.open_handles}).encode()
        raise NoSuchAttribute(f"no {name!r}")

    async def listxattr(self, ino: int) -> list[bytes]:
        return [STATE]

    def statfs(self) -> Statfs:
        return Statfs(files=len(self.inodes))

    def note(self, error: BaseException, where: str) -> None:
        self.notes.append(f"{where}: {error!r}")


PLANTED = "planted in "


def _bomb(name: str) -> operations.Handler:
    async def handler(self: operations.RegfsOperations, *arguments: Any) -> bytes:
        if name == "getxattr" and arguments[1] == STATE:  # the tests' own way in
            return await self._filesystem.getxattr(*arguments[:2])
        raise ZeroDivisionError(PLANTED + name)

    return handler


def planted(only: str) -> type[operations.RegfsOperations]:
    """Operations whose handler ``only`` fails as nobody foresaw."""
    return cast(
        "type[operations.RegfsOperations]",
        type("Planted", (operations.RegfsOperations,), {only: _bomb(only)}),
    )


def planted_directly(only: str) -> type[direct.DirectAnswers]:
    """The same of what answers without libfuse."""
    if not hasattr(direct.DirectAnswers, only):
        return direct.DirectAnswers
    answer = getattr(direct.DirectAnswers, only)

    async def handler(self: direct.DirectAnswers, head: wire.Header, body: bytes) -> bytes | None:
        if STATE in body:  # the tests' own way in
            return cast("bytes | None", await answer(self, head, body))
        raise ZeroDivisionError(PLANTED + only)

    return cast("type[direct.DirectAnswers]", type("Planted", (direct.DirectAnswers,), {only: handler}))


def _refuse_first_write(device: int, data: bytes) -> int:
    os.write = _write
    raise OSError(errno.EINVAL, "the test's kernel refuses the reply")


_write = os.write


async def _never_answer(ours: object) -> None:
    return None


def arrange(how: str) -> None:
    """Make the handshake fail: the kernel refuses our reply, or the session never gives one."""
    if how == "refused":
        os.write = _refuse_first_write  # type: ignore[assignment]
    if how == "lost":
        handshake._let_session_answer = _never_answer


def main() -> None:
    """Mount until unmounted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plant", default="")
    parser.add_argument("--writable", action="store_true")
    parser.add_argument("--handshake", default="as-is")
    parser.add_argument("--loop", default="direct")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    small = SmallFileSystem(writable=options.writable)
    kind = planted(options.plant) if options.plant else operations.RegfsOperations
    ops = kind(cast("FileSystem", small), operations.Ownership(os.getuid(), os.getgid(), 0o022))
    way = planted_directly(options.plant) if options.plant else direct.DirectAnswers
    answers = way(cast("FileSystem", small), ops) if options.loop == "direct" else None
    arrange(options.handshake)
    session = Session(
        ops, options.folder, mount_options("small:1", writable=options.writable, allow_other=False), answers
    )
    session.open()
    print("ready", json.dumps({"parallel": session.handshake.parallel_lookups}), flush=True)
    trio.run(session.serve)
    session.close()


if __name__ == "__main__":
    main()
