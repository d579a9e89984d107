"""What the kernel asks, translated to the filesystem and back. All behaviour is in `regfs.tree`."""

# ruff: noqa: ARG002 - the handlers' signatures are pyfuse3's

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from regfs.errors import RegfsError
from regfs.fuse.errnos import errno_of
from regfs.tree.attributes import Attributes, Kind

if TYPE_CHECKING:
    from regfs.tree.filesystem import FileSystem

log = logging.getLogger(__name__)

HANDLERS: Final = (
    "lookup", "forget", "getattr", "setattr", "readlink", "access",
    "open", "read", "write", "flush", "release", "fsync", "poll",
    "opendir", "readdir", "releasedir", "fsyncdir", "statfs",
    "create", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename",
    "getxattr", "setxattr", "listxattr", "removexattr",
)  # fmt: skip
"""Every request that pyfuse3 can hand to us. Each is answered through `_answering`, whichever class defines it."""

FILE_TYPE: Final = {
    Kind.FOLDER: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.LINK: stat.S_IFLNK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
_PAGE: Final = 4096
_READS: Final = (1024 * 1024, 128 * 1024)
"""How much programs like `cat` and `cp` are told to read at once of a file that is larger."""
_PRETENDED_BLOCKS: Final = (
    2**38
)  # 1 PiB of free pages: `df` hides a filesystem of size 0, and monitors alarm at a full one


_OWNER_WRITES: Final = 0o200
_OTHERS_READ: Final = 0o044


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whom files belong to, as the mount's options say; ``umask`` takes permission bits away.

    ``shared``: who may read may also write what the owner may write. The kernel compares the bits of a mount that lets
    others in, so without it they could delete nothing.
    """

    uid: int
    gid: int
    umask: int = 0
    shared: bool = False

    @property
    def owner(self) -> tuple[int, int]:
        """User and group."""
        return self.uid, self.gid

    def permissions(self, mode: int) -> int:
        """The permission bits that a name shows whose owner has ``mode``."""
        if self.shared and mode & _OWNER_WRITES:
            mode |= (mode & _OTHERS_READ) >> 1
        return mode & 0o7777 & ~self.umask


Handler = Callable[..., Awaitable[Any]]


def _answering(name: str, handler: Handler) -> Handler:
    """Wrap a handler so that it answers with an errno whatever happens.

    pyfuse3 ends the mount on any exception but FUSEError, and on that one too where it expects no answer (forget).
    """

    @functools.wraps(handler)
    async def answer(self: RegfsOperations, *arguments: Any) -> Any:
        try:
            return await handler(self, *arguments)
        except Exception as error:
            number = self.number_of(error, name)
        if name == "forget":
            return None
        raise FUSEError(number)

    answer.__dict__["answers"] = True
    return answer


class _AnsweringOperations(pyfuse3.Operations):
    """Wraps every handler of each class below it, inherited ones included."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in HANDLERS:
            handler = getattr(cls, name)
            if not hasattr(handler, "answers"):
                setattr(cls, name, _answering(name, handler))


class RegfsOperations(_AnsweringOperations):
    """The handlers. ``wait_in_page_cache``: False keeps reads that may wait out of the kernel's few cached reads."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self, filesystem: FileSystem, ownership: Ownership, *, wait_in_page_cache: bool = True
    ) -> None:
        super().__init__()
        self._filesystem = filesystem
        self.ownership = ownership
        self.wait_in_page_cache = wait_in_page_cache

    def number_of(self, error: Exception, where: str) -> int:
        """The errno to answer ``error`` with. One that nobody foresaw is logged with its traceback and noted."""
        if isinstance(error, FUSEError):
            return error.errno
        if isinstance(error, RegfsError):
            log.debug("%s: %s: %s", where, type(error).__name__, error)
            return errno_of(error)
        log.error("%s: unexpected %s", where, type(error).__name__, exc_info=error)
        self._filesystem.note(error, where)
        return errno.EIO

    # ── names and attributes ──

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._filesystem.lookup(parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._filesystem.forget(inode_list)

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._filesystem.getattr(inode))

    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        await self._filesystem.access(inode, mode)
        return True

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return await self._filesystem.readlink(inode)

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        return await self._filesystem.getxattr(inode, name)

    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        return await self._filesystem.listxattr(inode)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = _PAGE
        answer.f_blocks = answer.f_bfree = answer.f_bavail = _PRETENDED_BLOCKS
        answer.f_ffree = answer.f_favail = _PRETENDED_BLOCKS
        answer.f_files = _PRETENDED_BLOCKS + self._filesystem.statfs().files
        answer.f_namemax = 255
        return answer

    # ── files ──

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        opened = await self._filesystem.open(inode, writing)
        uncached = not (self.wait_in_page_cache or opened.keep_cache)
        return FileInfo(
            fh=opened.handle, direct_io=opened.direct_io or uncached, keep_cache=opened.keep_cache
        )

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._filesystem.read(fh, off, size)

    async def release(self, fh: int) -> None:
        await self._filesystem.release(fh)

    # flush, fsync, fsyncdir and poll stay ENOSYS: the kernel then stops asking, and answers each with success itself.

    # ── folders ──

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return await self._filesystem.opendir(inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for entry in await self._filesystem.readdir(fh, start_id):
            attributes = entry.attributes
            if not pyfuse3.readdir_reply(token, entry.name, self._entry(attributes), entry.next):
                break
            self._filesystem.remember(
                attributes.ino
            )  # the kernel counts a lookup for what fitted, and only that

    async def releasedir(self, fh: int) -> None:
        self._filesystem.releasedir(fh)

    # ── changes ──

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._filesystem.unlink(parent_inode, name)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._filesystem.rmdir(parent_inode, name)

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> NoReturn:
        self._filesystem.refuse_write("setattr", inode, None)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> NoReturn:
        self._filesystem.refuse_write("create", parent_inode, name)

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> NoReturn:
        self._filesystem.refuse_write("mknod", parent_inode, name)

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> NoReturn:
        self._filesystem.refuse_write("mkdir", parent_inode, name)

    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> NoReturn:
        self._filesystem.refuse_write("symlink", parent_inode, name)

    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> NoReturn:
        self._filesystem.refuse_write("link", new_parent_inode, new_name)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> NoReturn:
        self._filesystem.refuse_write("rename", parent_inode_old, name_old)

    async def write(self, fh: int, off: int, buf: bytes) -> NoReturn:
        # No file is ever opened for writing, so this names no inode; the kernel should not have asked.
        self._filesystem.refuse_write("write", pyfuse3.ROOT_INODE, None)

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> NoReturn:
        self._filesystem.refuse_write("setxattr", inode, name)

    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> NoReturn:
        self._filesystem.refuse_write("removexattr", inode, name)

    def _entry(self, attributes: Attributes) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = (
            attributes.ino
        )  # pyfuse3 takes the kernel's name for it from here: no other number can be shown
        entry.st_mode = file_mode(attributes, self.ownership)
        # Of a folder, 1 tells `find` that the link count says nothing about sub-folders.
        entry.st_nlink = attributes.links
        entry.st_uid, entry.st_gid = attributes.owner or self.ownership.owner
        entry.st_rdev = attributes.device
        entry.st_size = attributes.size
        entry.st_blksize = preferred_read(attributes.size)
        entry.st_blocks = (attributes.size + 511) // 512
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = attributes.time_ns
        entry.entry_timeout = attributes.entry_timeout
        entry.attr_timeout = attributes.attr_timeout
        return entry


def file_mode(attributes: Attributes, ownership: Ownership) -> int:
    """The kind of file and the permissions, as ``st_mode`` has them."""
    mode = attributes.mode
    if attributes.kind is not Kind.LINK and attributes.owner is None:
        mode = ownership.permissions(mode)
    return FILE_TYPE[attributes.kind] | mode


def preferred_read(size: int) -> int:
    """How many bytes programs are told to read at once of a file of ``size``."""
    return _READS[0] if size > _READS[0] else _READS[1] if size > _READS[1] else _PAGE
