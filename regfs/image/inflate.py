"""zlib's inflate with what Python's `zlib` keeps to itself: stopping at a block's end, and starting there again.

The functions are called in place: in the zlib-ng that the package `zlib_ng` brings (its extension module exports them,
1.5 times as fast as zlib), or else in the system's libz, which is wherever Python's own `zlib` is. Which of them can
be used is found out by trying, once. Measured on a layer of 1.2 GB: zlib-ng 635 MB/s, libz 410, the package
`indexed_gzip` 125; ISA-L is faster than all, and can neither stop at a block nor say where it is.

API: zlib.h, https://zlib.net/manual.html (Z_BLOCK, inflatePrime, inflateSetDictionary, inflateGetDictionary).
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from typing import Any, Final

import msgspec

WINDOW: Final = 32 * 1024
"""How far back deflate refers, in bytes: what has to be known to start in the middle."""

GZIP: Final = 31
"""Window bits of a stream in gzip's envelope, whose checksum is then verified."""

RAW: Final = -15
"""Window bits of bare deflate blocks."""

_Z_NO_FLUSH, _Z_BLOCK = 0, 5
_Z_OK, _Z_STREAM_END, _Z_NEED_DICT, _Z_BUF_ERROR = 0, 1, 2, -5
_BITS, _AT_BLOCK = 7, 128
"""In ``data_type`` after a call with Z_BLOCK: how many bits of the last byte are unused, and that a block has ended; 64: it was the last."""


class Corrupt(ValueError):
    """Compressed data that can't be what a compressor wrote."""


_HEAD: Final[list[Any]] = [
    ("next_in", ctypes.c_void_p),
    ("avail_in", ctypes.c_uint),
    ("total_in", ctypes.c_size_t),
    ("next_out", ctypes.c_void_p),
    ("avail_out", ctypes.c_uint),
    ("total_out", ctypes.c_size_t),
    ("msg", ctypes.c_char_p),
    ("state", ctypes.c_void_p),
    ("zalloc", ctypes.c_void_p),
    ("zfree", ctypes.c_void_p),
    ("opaque", ctypes.c_void_p),
    ("data_type", ctypes.c_int),
]


class _ZlibStream(ctypes.Structure):
    _fields_ = (*_HEAD, ("adler", ctypes.c_ulong), ("reserved", ctypes.c_ulong))


class _ZngStream(ctypes.Structure):
    _fields_ = (*_HEAD, ("adler", ctypes.c_uint32), ("reserved", ctypes.c_ulong))


class _Library(msgspec.Struct, frozen=True):
    name: str
    stream: type[ctypes.Structure]
    version: bytes
    init: Any
    inflate: Any
    end: Any
    reset: Any
    prime: Any
    set_dictionary: Any
    get_dictionary: Any


def _functions(
    library: ctypes.CDLL, prefix: str, version: str, stream: type[ctypes.Structure], name: str
) -> _Library:
    def bound(function: str, *arguments: Any, result: Any = ctypes.c_int) -> Any:
        found = getattr(library, function)
        found.argtypes, found.restype = arguments, result
        return found

    pointer = ctypes.POINTER(stream)
    number, text, memory = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
    length = ctypes.c_uint
    return _Library(
        name,
        stream,
        bound(version, result=text)(),
        bound(f"{prefix}inflateInit2_", pointer, number, text, number),
        bound(f"{prefix}inflate", pointer, number),
        bound(f"{prefix}inflateEnd", pointer),
        bound(f"{prefix}inflateReset", pointer),
        bound(f"{prefix}inflatePrime", pointer, number, number),
        bound(f"{prefix}inflateSetDictionary", pointer, text, length),
        bound(f"{prefix}inflateGetDictionary", pointer, memory, ctypes.POINTER(length)),
    )


def _zlib_ng() -> _Library:
    from zlib_ng import zlib_ng

    return _functions(ctypes.CDLL(zlib_ng.__file__), "zng_", "zlibng_version", _ZngStream, "zlib-ng")


def _libz() -> _Library:
    return _functions(ctypes.CDLL("libz.so.1"), "", "zlibVersion", _ZlibStream, "libz")


@functools.cache
def library() -> _Library:
    """The first one that passes a trial. OSError: there is none."""
    for find in (_zlib_ng, _libz):
        try:
            found = find()
            if _works(found):
                return found
        except (ImportError, OSError, AttributeError, Corrupt):
            continue
    raise OSError("there is neither the package zlib-ng nor the system's libz.so.1")


def _works(candidate: _Library) -> bool:
    """Inflate something in two halves, parted at a block's end in mid-byte: nobody else's structure may be taken on trust."""
    text = bytes(range(256)) * 300
    squeezer = zlib.compressobj(6, zlib.DEFLATED, RAW)
    first = squeezer.compress(text) + squeezer.flush(zlib.Z_BLOCK)
    packed = first + squeezer.compress(text[::-1]) + squeezer.flush()
    whole = Inflater(RAW, candidate)
    whole.give(packed)
    unpacked = whole.take(len(text) * 3, to_block=True)
    if unpacked != text or not whole.at_block:
        return False
    at, bits = len(packed) - whole.left, whole.bits
    rest = Inflater(RAW, candidate)
    rest.start_at(bits, packed[at - 1] if bits else 0, whole.window())
    rest.give(packed[at:])
    return rest.take(len(text) * 3) == text[::-1]


class Inflater:
    """One stream of deflate blocks, decompressed step by step. Not for two threads at once.

    ``left``: bytes of what was given that are not used up. ``ended``: the stream's own end was met. ``at_block``: the last
    `take` ended between two blocks, of which the next begins ``bits`` bits before the first byte that is left.
    """

    def __init__(self, window_bits: int, found: _Library | None = None) -> None:
        self._library = found or library()
        self._stream: Any = self._library.stream()
        self._pointer = ctypes.pointer(self._stream)
        self._given: bytes = b""
        self._room: Any = None
        size = ctypes.sizeof(self._library.stream)
        self._alive = False
        self._check(self._library.init(self._pointer, window_bits, self._library.version, size))
        self._alive = True
        self.ended = False
        self.at_block = False

    def __del__(self) -> None:
        if getattr(self, "_alive", False):
            self._alive = False
            self._library.end(self._pointer)

    @property
    def left(self) -> int:
        """Bytes of what was given that are not used up."""
        return int(self._stream.avail_in)

    @property
    def bits(self) -> int:
        """How many bits of the last byte that was used up belong to what comes next."""
        return int(self._stream.data_type) & _BITS

    def start_at(self, bits: int, before: int, window: bytes) -> None:
        """Start between two blocks: with the last ``bits`` bits of the byte ``before``, after the bytes of ``window``."""
        if bits:
            self._check(self._library.prime(self._pointer, bits, before >> (8 - bits)))
        if window:
            self._check(self._library.set_dictionary(self._pointer, window, len(window)))

    def give(self, data: bytes, start: int = 0) -> None:
        """The next bytes, from ``start`` in ``data`` on, in place of those that are left."""
        self._given = data
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._stream.next_in = (address or 0) + start
        self._stream.avail_in = len(data) - start

    def take(self, most: int, *, to_block: bool = False) -> bytes:
        """At most ``most`` bytes; fewer where more has to be given, at the stream's end, or (``to_block``) at a block's.

        Raises Corrupt.
        """
        if self._room is None or len(self._room) < most:
            self._room = ctypes.create_string_buffer(most)
        stream = self._stream
        stream.next_out = ctypes.addressof(self._room)
        stream.avail_out = most
        result = self._library.inflate(self._pointer, _Z_BLOCK if to_block else _Z_NO_FLUSH)
        if result == _Z_STREAM_END:
            self.ended = True
        elif result not in (_Z_OK, _Z_BUF_ERROR):
            self._check(result)
        self.at_block = to_block and stream.data_type & ~_BITS == _AT_BLOCK
        return ctypes.string_at(self._room, most - stream.avail_out)

    def window(self) -> bytes:
        """The last bytes that were taken, at most 32 KiB: what the next block may refer to."""
        room = ctypes.create_string_buffer(WINDOW)
        length = ctypes.c_uint(0)
        self._check(self._library.get_dictionary(self._pointer, room, ctypes.byref(length)))
        return room.raw[: length.value]

    def reset(self) -> None:
        """Start over, with another stream of the same kind; what is left stays."""
        given, left = self._given, self.left
        self._check(self._library.reset(self._pointer))
        self.give(given, len(given) - left)
        self.ended = False

    def _check(self, result: int) -> None:
        if result != _Z_OK:
            words = self._stream.msg.decode("ascii", "replace") if self._stream.msg else f"code {result}"
            raise Corrupt(words)
