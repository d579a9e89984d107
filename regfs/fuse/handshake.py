"""Own the reply to the kernel's INIT, so that it asks for more than libfuse would.

For its length the session reads one end of a socket pair instead of /dev/fuse. The INIT is relayed to it, its reply is
changed on the way back, and then the descriptor is /dev/fuse again. Nothing depends on it: a mount without it has
lookups of one folder one after another, and twelve requests of the background kind in flight.

Layouts: linux/fuse.h, ``fuse_in_header``, ``fuse_init_in``, ``fuse_out_header``, ``fuse_init_out``.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from dataclasses import dataclass, replace
from typing import Final

import pyfuse3
import trio

log = logging.getLogger(__name__)

MAX_BACKGROUND: Final = 256
"""Requests of the background kind (read-ahead, mostly) that the kernel keeps in flight; its default is 12."""
_CONGESTION: Final = MAX_BACKGROUND * 3 // 4

_INIT: Final = 26
_MAJOR: Final = 7
_PARALLEL_DIROPS: Final = 1 << 18
_CACHE_SYMLINKS: Final = 1 << 23  # sound here: the target of a link's inode never changes
_EXTENDED: Final = 1 << 30  # there are flags above the 32nd
_SHARED_MAPS: Final = 1 << 36  # since Linux 6.6: sound here, where nobody writes
_PASSTHROUGH: Final = 1 << 37  # since Linux 6.9
_WANTED: Final = _PARALLEL_DIROPS | _CACHE_SYMLINKS | _SHARED_MAPS | _PASSTHROUGH

_REQUEST: Final = struct.Struct(
    "=II32xIIII"
)  # len, opcode, then behind the header: major, minor, max_readahead, flags
_REPLY: Final = struct.Struct(
    "=IiQIIIIHH"
)  # len, error, unique, major, minor, max_readahead, flags, background, congestion
_MORE_OFFERED: Final = 56  # offsets of the flags above the 32nd, in the request and in the reply
_MORE_WANTED: Final = 48
_STACK_DEPTH: Final = 1  # files that the kernel reads by itself lie on a filesystem that stands on no other
_WORD: Final = struct.Struct("=I")
_BUFFER: Final = 1 << 20
_PATIENCE: Final = 2.0


class HandshakeFailed(Exception):
    """The INIT is spent and was not answered: the mount has to be made anew. Never leaves this room."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What was negotiated: False and 0 are libfuse's own ways. ``minor``: the kernel's version of protocol 7."""

    parallel_lookups: bool = False
    cached_links: bool = False
    shared_maps: bool = False
    passthrough: bool = False
    max_background: int = 0
    minor: int = 0


def shake_hands(descriptor: int) -> Handshake:
    """Answer INIT on ``descriptor``, just mounted. In the main thread, outside trio.

    Raises HandshakeFailed if the request was taken and could not be answered. What fails before that costs nothing.
    """
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        log.warning("going on without parallel lookups: %s", error)
        return Handshake()
    with ours, theirs:
        device = os.dup(descriptor)
        try:
            return _relay(descriptor, device, ours, theirs)
        except (OSError, struct.error, ExceptionGroup) as error:
            raise HandshakeFailed(str(error)) from error
        finally:
            os.dup2(device, descriptor, inheritable=False)
            os.close(device)


def _relay(descriptor: int, device: int, ours: socket.socket, theirs: socket.socket) -> Handshake:
    request = os.read(device, _BUFFER)
    offered, kernels_minor = _offered(request)
    ours.send(request)
    os.dup2(theirs.fileno(), descriptor, inheritable=False)
    trio.run(_let_session_answer, ours)
    ours.setblocking(False)
    reply = ours.recv(_BUFFER)
    return _send(device, reply, offered, kernels_minor)


async def _let_session_answer(ours: socket.socket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        with trio.move_on_after(_PATIENCE):
            await trio.lowlevel.wait_readable(ours)
        nursery.cancel_scope.cancel()


def _offered(request: bytes) -> tuple[int, int]:
    """The feature bits that the kernel offers in its INIT, and its minor version of protocol 7 (0: of another one)."""
    _, opcode, major, minor, _, flags = _REQUEST.unpack_from(request)
    if opcode != _INIT:
        raise OSError(errno.EPROTO, f"the first request is {opcode}, not INIT")
    more = flags & _EXTENDED and len(request) >= _MORE_OFFERED + _WORD.size
    offered = flags | _WORD.unpack_from(request, _MORE_OFFERED)[0] << 32 if more else flags
    return int(offered), int(minor) if major == _MAJOR else 0


def ask_for_more(reply: bytes, offered: int) -> tuple[bytes, Handshake]:
    """Change an INIT reply so that it asks for what we want and the kernel offers; the reply, and what it now asks for."""
    length, failure, unique, major, minor, read_ahead, flags, _, _ = _REPLY.unpack_from(reply)
    if failure:
        return reply, Handshake()
    rest = bytearray(reply[_REPLY.size :])
    flags |= _WANTED & offered & 0xFFFFFFFF
    more = (_WANTED & offered) >> 32
    place = _MORE_WANTED - _REPLY.size
    if more and len(rest) >= place + 2 * _WORD.size:
        more |= _WORD.unpack_from(rest, place)[0] if flags & _EXTENDED else 0
        flags |= _EXTENDED
        _WORD.pack_into(rest, place, more)
        if more << 32 & _PASSTHROUGH:
            _WORD.pack_into(rest, place + _WORD.size, _STACK_DEPTH)
    else:
        more = 0
    head = _REPLY.pack(length, failure, unique, major, minor, read_ahead, flags, MAX_BACKGROUND, _CONGESTION)
    got = Handshake(
        bool(flags & _PARALLEL_DIROPS),
        bool(flags & _CACHE_SYMLINKS),
        bool(more << 32 & _SHARED_MAPS),
        bool(more << 32 & _PASSTHROUGH),
        MAX_BACKGROUND,
    )
    return head + bytes(rest), got


def _send(device: int, reply: bytes, offered: int, minor: int) -> Handshake:
    changed, got = ask_for_more(reply, offered)
    try:
        os.write(device, changed)
    except OSError as error:
        log.warning("going on without parallel lookups: the kernel does not take our INIT reply: %s", error)
        os.write(device, reply)
        return Handshake()
    return replace(got, minor=minor)
