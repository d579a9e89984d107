"""How the kernel's requests and our replies to them are laid out: linux/fuse.h, protocol 7.28 and later. Pure.

Only those that `regfs.fuse.direct` answers are here; libfuse knows the others.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

PAYLOAD: Final = 40
"""Where a request's own words begin, behind its header (``fuse_in_header``)."""

LEAST_MINOR: Final = 28
"""Of the protocol, 7 being its major version: the first that lets the kernel keep what a folder holds (Linux 4.20)."""

UNKNOWN_INODE: Final = 0xFFFFFFFF
"""The number of a listed name of which only that and its kind are told; libfuse's own ``FUSE_UNKNOWN_INO``."""


class Opcode(IntEnum):
    """What a request wants (``enum fuse_opcode``)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    ACCESS = 34
    INTERRUPT = 36
    BATCH_FORGET = 42
    READDIRPLUS = 44


DIRECT_IO: Final = 1 << 0
"""How a file is opened (``FOPEN_DIRECT_IO``): reads reach us as they are made."""
KEEP_CACHE: Final = 1 << 1
"""``FOPEN_KEEP_CACHE``: what the kernel kept of an earlier open is still right."""
CACHE_DIR: Final = 1 << 3
"""``FOPEN_CACHE_DIR``: the kernel may keep what a folder lists."""
PASSTHROUGH: Final = 1 << 7
"""``FOPEN_PASSTHROUGH``: the kernel reads a file of its own in place of asking us."""


class Header(NamedTuple):
    """What every request begins with: ``node`` is the inode that it is about, ``pid`` the thread that asks."""

    length: int
    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int


class Attr(NamedTuple):
    """``struct fuse_attr``: times as whole seconds and nanoseconds apart; ``mode`` with the kind of file."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int = 0


_HEADER: Final = Struct("=IIQQIII8x")
_REPLY: Final = Struct("=IiQ")
_ATTR: Final = "6Q10I"
_ENTRY: Final = Struct(f"=QQQQII{_ATTR}")
_ATTR_OUT: Final = Struct(f"=QI4x{_ATTR}")
_LISTED: Final = Struct("=QQII")
_OPEN_OUT: Final = Struct("=QIi")
_SIZE_OUT: Final = Struct("=I4x")
_PAIR: Final = Struct("=QQ")
_READ: Final = Struct("=QQI")
_WORD: Final = Struct("=I")
_LONG: Final = Struct("=Q")
_NANO: Final = 1_000_000_000
_NO_ENTRY: Final = bytes(_ENTRY.size)
_ALIGN: Final = 7
_PADDING: Final = tuple(bytes(count) for count in range(8))

REPLY_HEADER: Final = _REPLY.size
"""Bytes of ``fuse_out_header``."""


def header(request: bytes | bytearray | memoryview) -> Header:
    """A request's header."""
    return Header._make(_HEADER.unpack_from(request))


# ── what requests say, behind their header ──


def name(body: bytes) -> bytes:
    """The name that a LOOKUP asks for."""
    return body[: body.index(b"\0")]


def word(body: bytes) -> int:
    """The first 32 bits: flags of an OPEN, the mask of an ACCESS, the size that a GETXATTR or LISTXATTR has room for."""
    return int(_WORD.unpack_from(body)[0])


def attribute_name(body: bytes) -> bytes:
    """The name that a GETXATTR asks for."""
    return body[8 : body.index(b"\0", 8)]


def handle(body: bytes | memoryview) -> int:
    """The handle that a RELEASE or RELEASEDIR gives back; the lookups of a FORGET; the request that an INTERRUPT is about."""
    return int(_LONG.unpack_from(body)[0])


def reading(body: bytes) -> tuple[int, int, int]:
    """Handle, offset and size of a READ or READDIRPLUS."""
    return _READ.unpack_from(body)


def forgotten(body: bytes) -> list[tuple[int, int]]:
    """Inodes and lookups of a BATCH_FORGET."""
    count = word(body)
    return [(node, lookups) for node, lookups in _PAIR.iter_unpack(body[8 : 8 + count * _PAIR.size])]


# ── replies ──


def reply_header(unique: int, size: int, error: int = 0) -> bytes:
    """What stands before ``size`` bytes of a reply; ``error``: an errno, and then there are none."""
    return _REPLY.pack(_REPLY.size + size, -error, unique)


def is_notification(reply: bytes) -> bool:
    """Whether what libfuse sends is no reply, but tells the kernel something by itself."""
    return bool(_REPLY.unpack_from(reply)[2] == 0)


def entry(node: int, valid_ns: int, attr_valid_ns: int, attr: Attr) -> bytes:
    """The reply to a LOOKUP (``fuse_entry_out``): an inode, for how long name and attributes hold, the attributes."""
    valid, valid_rest = divmod(valid_ns, _NANO)
    attr_valid, attr_rest = divmod(attr_valid_ns, _NANO)
    return _ENTRY.pack(node, 0, valid, attr_valid, valid_rest, attr_rest, *attr)


def attributes(valid_ns: int, attr: Attr) -> bytes:
    """The reply to a GETATTR (``fuse_attr_out``)."""
    valid, rest = divmod(valid_ns, _NANO)
    return _ATTR_OUT.pack(valid, rest, *attr)


def opened(handle: int, flags: int, backing: int = 0) -> bytes:
    """The reply to an OPEN or OPENDIR (``fuse_open_out``). ``backing``: of `PASSTHROUGH`, the kernel's number for the file."""
    return _OPEN_OUT.pack(handle, flags, backing)


def size_of(value: bytes) -> bytes:
    """The reply to a GETXATTR or LISTXATTR that has room for nothing (``fuse_getxattr_out``)."""
    return _SIZE_OUT.pack(len(value))


def listed(entry: bytes, attr: Attr, name: bytes, next_place: int) -> bytes:
    """One name in the reply to a READDIRPLUS (``fuse_direntplus``), with the inode that it stands for."""
    return entry + _LISTED.pack(attr.ino, next_place, len(name), attr.mode >> 12) + _padded(name)


def named(ino: int, kind: int, name: bytes, next_place: int) -> bytes:
    """One name in the reply to a READDIRPLUS without its inode: the kernel counts no lookup, and asks when somebody wants more.

    ``kind`` as in ``st_mode``.
    """
    return _NO_ENTRY + _LISTED.pack(ino or UNKNOWN_INODE, next_place, len(name), kind >> 12) + _padded(name)


def _padded(name: bytes) -> bytes:
    return name + _PADDING[-len(name) & _ALIGN]
