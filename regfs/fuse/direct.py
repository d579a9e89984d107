"""The frequent requests, answered without libfuse: each is read from its bytes, and its reply laid out as the kernel takes it."""

# ruff: noqa: ARG002 - all handlers take what `regfs.fuse.loop.Answer` gives

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from pyfuse3 import FUSEError

from regfs.fuse import wire
from regfs.fuse.backing import Backings, Changed
from regfs.fuse.loop import Answer, Reply
from regfs.fuse.operations import FILE_TYPE, RegfsOperations, file_mode, preferred_read
from regfs.fuse.wire import Attr, Header, Opcode
from regfs.tree.attributes import Attributes, DirEntry, PlainEntry

if TYPE_CHECKING:
    from regfs.tree.filesystem import FileSystem

_NANO: Final = 1_000_000_000


class DirectAnswers:
    """`regfs.fuse.loop.Answers` over the same filesystem as ``operations``, which answer what is not answered here.

    ``backings``: set where the kernel may read files by itself.
    """

    def __init__(self, filesystem: FileSystem, operations: RegfsOperations) -> None:
        self._filesystem = filesystem
        self._operations = operations
        self.backings: Backings | None = None
        self._curious = Curious()
        self._opened = 0, True
        self._room = _ROOM
        self._ahead = _NO_PAGE
        self.has_work = False
        self.by_opcode: Mapping[int, Answer] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.FORGET: self.forget,
            Opcode.BATCH_FORGET: self.forget,
            Opcode.GETATTR: self.getattr,
            Opcode.ACCESS: self.access,
            Opcode.READLINK: self.readlink,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.OPEN: self.open,
            Opcode.READ: self.read,
            Opcode.RELEASE: self.release,
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIRPLUS: self.readdir,
            Opcode.RELEASEDIR: self.releasedir,
        }

    def number_of(self, error: Exception, where: str) -> int:
        """See `regfs.fuse.loop.Answers.number_of`."""
        return self._operations.number_of(error, where)

    # ── names and attributes ──

    async def lookup(self, head: Header, body: bytes) -> Reply:
        self._curious.looks_up(head.pid, head.node)
        return self._entry(await self._filesystem.lookup(head.node, wire.name(body)))

    async def forget(self, head: Header, body: bytes) -> Reply:
        one = head.opcode == Opcode.FORGET
        self._filesystem.forget([(head.node, wire.handle(body))] if one else wire.forgotten(body))
        return None

    async def getattr(self, head: Header, body: bytes) -> Reply:
        found = await self._filesystem.getattr(head.node)
        return wire.attributes(int(found.attr_timeout * _NANO), self._attr(found))

    async def access(self, head: Header, body: bytes) -> Reply:
        await self._filesystem.access(head.node, wire.word(body))
        return b""

    async def readlink(self, head: Header, body: bytes) -> Reply:
        return await self._filesystem.readlink(head.node)

    async def getxattr(self, head: Header, body: bytes) -> Reply:
        value = await self._filesystem.getxattr(head.node, wire.attribute_name(body))
        return _fitting(value, wire.word(body))

    async def listxattr(self, head: Header, body: bytes) -> Reply:
        names = await self._filesystem.listxattr(head.node)
        return _fitting(b"".join(name + b"\0" for name in names), wire.word(body))

    # ── files ──

    async def open(self, head: Header, body: bytes) -> Reply:
        flags = wire.word(body)
        writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        opened = await self._filesystem.open(head.node, writing)
        if opened.descriptor is not None and self.backings is not None:
            backing = await self._backing(self.backings, head.node, opened.handle, opened.descriptor)
            if backing:
                return wire.opened(opened.handle, wire.PASSTHROUGH, backing)
        uncached = opened.direct_io or not (self._operations.wait_in_page_cache or opened.keep_cache)
        return wire.opened(opened.handle, uncached * wire.DIRECT_IO + opened.keep_cache * wire.KEEP_CACHE)

    async def _backing(self, backings: Backings, node: int, handle: int, descriptor: int) -> int:
        try:
            return backings.opened(node, handle, descriptor)
        except Changed:
            # The kernel looks the name up once more, and finds an inode that nobody has open.
            self._filesystem.give_way(node)
            await self._filesystem.release(handle)
            raise FUSEError(errno.ESTALE) from None

    async def read(self, head: Header, body: bytes) -> Reply:
        return await self._filesystem.read(*wire.reading(body))

    async def release(self, head: Header, body: bytes) -> Reply:
        handle = wire.handle(body)
        if self.backings is not None:
            self.backings.closed(handle)
        await self._filesystem.release(handle)
        return b""

    # ── folders ──

    async def opendir(self, head: Header, body: bytes) -> Reply:
        handle = await self._filesystem.opendir(head.node)
        if not self._filesystem.lists_for_good(head.node):
            return wire.opened(handle, 0)
        self.has_work = True
        self._opened = handle, self._curious.wants_names(head.pid)
        return wire.opened(handle, wire.CACHE_DIR | wire.KEEP_CACHE)

    async def work_ahead(self) -> None:
        """See `regfs.fuse.loop.Answers.work_ahead`: the listing of a folder that was just opened."""
        self.has_work = False
        handle, plainly = self._opened
        self._forget_ahead(self._ahead)
        self._ahead = await self._page(handle, 0, self._room, plainly=plainly)

    async def readdir(self, head: Header, body: bytes) -> Reply:
        handle, start, self._room = wire.reading(body)
        plainly = self._curious.reads(head.pid, head.node)
        page, self._ahead = self._ahead, _NO_PAGE
        if (page.handle, start, page.plainly) != (handle, 0, plainly) or len(page.data) > self._room:
            self._forget_ahead(page)
            page = await self._page(handle, start, self._room, plainly=plainly)
        return page.data

    async def _page(self, handle: int, start: int, room: int, *, plainly: bool) -> Page:
        """As many entries as there is room for."""
        files = self._filesystem
        found: list[bytes] = []
        told: list[int] = []
        for entry in await (files.readdir_plainly if plainly else files.readdir)(handle, start):
            packed = self._listed(entry)
            room -= len(packed)
            if room < 0:
                break
            found.append(packed)
            if isinstance(entry, DirEntry):
                files.remember(entry.attributes.ino)  # the kernel counts a lookup for what it is given
                told.append(entry.attributes.ino)
        return Page(handle, plainly, b"".join(found), told)

    def _forget_ahead(self, page: Page) -> None:
        """Take back the lookups of what the kernel did not ask for."""
        self._filesystem.forget([(ino, 1) for ino in page.told])

    def _listed(self, entry: DirEntry | PlainEntry) -> bytes:
        if isinstance(entry, PlainEntry):
            return wire.named(entry.number, FILE_TYPE[entry.kind], entry.name, entry.next)
        attr = self._attr(entry.attributes)
        return wire.listed(self._packed(entry.attributes, attr), attr, entry.name, entry.next)

    async def releasedir(self, head: Header, body: bytes) -> Reply:
        handle = wire.handle(body)
        if handle == self._ahead.handle:
            page, self._ahead = self._ahead, _NO_PAGE
            self._forget_ahead(page)
        self._filesystem.releasedir(handle)
        return b""

    # ── attributes as the kernel takes them ──

    def _entry(self, found: Attributes) -> bytes:
        return self._packed(found, self._attr(found))

    def _packed(self, found: Attributes, attr: Attr) -> bytes:
        return wire.entry(found.ino, int(found.entry_timeout * _NANO), int(found.attr_timeout * _NANO), attr)

    def _attr(self, found: Attributes) -> Attr:
        seconds, rest = divmod(found.time_ns, _NANO)
        uid, gid = found.owner or self._operations.ownership.owner
        return Attr(
            found.number or found.ino, found.size, (found.size + 511) // 512, seconds, seconds, seconds, rest, rest, rest,
            file_mode(found, self._operations.ownership), found.links, uid, gid, found.device & 0xFFFFFFFF,
            preferred_read(found.size),
        )  # fmt: skip


class Page(NamedTuple):
    """What a READDIRPLUS is answered with, and the inodes that the kernel counts a lookup of by it."""

    handle: int
    plainly: bool
    data: bytes
    told: Sequence[int]


_NO_PAGE: Final = Page(0, True, b"", ())
_ROOM: Final = 4096
"""Bytes that a READDIRPLUS may have, until one has said it."""


class Curious:
    """Which threads of programs want to know more of what a folder lists than names and kinds, by what they did before.

    `find` and `ls` want no more, and are spared the making of an inode for each name. `ls -l` looks up what it was told the names
    of, `grep -r` too: from then on it is told all at once.
    """

    def __init__(self) -> None:
        self._reading: OrderedDict[int, int] = OrderedDict()

    def reads(self, pid: int, node: int) -> bool:
        """Note that a thread reads a folder; say whether names are enough for it."""
        if not self.wants_names(pid):
            return False
        self._reading[pid] = node
        if len(self._reading) > _THREADS:
            self._reading.popitem(last=False)
        return True

    def wants_names(self, pid: int) -> bool:
        """Whether names are enough for a thread, as far as is known."""
        return self._reading.get(pid) != _WANTS_ALL

    def looks_up(self, pid: int, node: int) -> None:
        """Note that a thread looks up a name in a folder, which it would not do for one that it was told all about."""
        if self._reading.get(pid) == node:
            self._reading[pid] = _WANTS_ALL


_WANTS_ALL: Final = 0
_THREADS: Final = 1000
"""How many threads are remembered."""


def _fitting(value: bytes, room: int) -> bytes:
    """A value, or its length for who has no room yet. FUSEError (ERANGE): there is too little room."""
    if room == 0:
        return wire.size_of(value)
    if len(value) > room:
        raise FUSEError(errno.ERANGE)
    return value
