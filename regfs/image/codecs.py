"""How layers are compressed: decoders that go step by step, and say where one could start again in the middle.

Formats: RFC 1952 (gzip), RFC 8878 (zstd). What a layer is, its first bytes say; its media type is not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from regfs.errors import Unsupported
from regfs.image.archive_limits import ArchiveLimits
from regfs.image.inflate import GZIP, RAW, Corrupt, Inflater
from regfs.image.zstdlib import zstd

MAGIC: Final = 6
"""How many of a layer's first bytes `codec_of` needs."""

SPACING: Final = 2 * 1024 * 1024
"""Decompressed bytes between two checkpoints, at least. A read in the middle decodes half of that first, which takes 2 ms."""

_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
_TRAILER: Final = 8
_INFLATE: Final = 200 * 1024
_SLICE: Final = 64 * 1024
"""What a zstd decoder is given at once: it hands back what stands behind the frame as a copy."""

_OTHERS: Final = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}


class Codec(IntEnum):
    """A compression. The numbers are those of a stored index."""

    PLAIN = 0
    GZIP = 1
    ZSTD = 2


def codec_of(head: bytes) -> Codec:
    """What a layer is, by its first bytes. Raises Unsupported for a compression that no image may have."""
    if head.startswith(_GZIP_MAGIC[:2]):
        return Codec.GZIP
    if _is_zstd(head):
        return Codec.ZSTD
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise Unsupported(f"the layer is compressed with {name}, which is not read; gzip and zstd are")
    return Codec.PLAIN


def _is_zstd(head: bytes) -> bool:
    return head[:4] == _ZSTD_MAGIC or (head[1:4] == _ZSTD_SKIPPABLE and head[0] >> 4 == 5)


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """Where decoding can start: ``out`` bytes into the archive, ``at`` bytes into the layer as stored.

    The first ``bits`` bits are in the byte before ``at``. ``window``: the bytes before ``out`` that the next block may refer
    to; None: a gzip member or a zstd frame begins here.
    """

    out: int
    at: int
    bits: int = 0
    window: bytes | None = None

    @property
    def first(self) -> int:
        """The offset of the first byte that is needed."""
        return self.at - 1 if self.bits else self.at


START: Final = Checkpoint(0, 0)

Note = Callable[[Checkpoint], None]


class OverLimit(Exception):
    """The layer asks for more than `ArchiveLimits` allow; the message says what."""


class Decoder(Protocol):
    """Takes the layer's bytes and gives the archive's. Not for two threads at once."""

    out: int
    """Where in the archive the next byte that is taken belongs."""
    ended: bool
    """Nothing that follows belongs to the archive."""

    @property
    def weight(self) -> int:
        """Bytes of memory it takes, about."""
        ...

    @property
    def is_between(self) -> bool:
        """Whether the data may end here."""
        ...

    def give(self, data: bytes) -> None:
        """The layer's next bytes; not before `take` has given all of the ones before."""
        ...

    def take(self, most: int) -> bytes:
        """The archive's next bytes, at most that many; none: give more, or it has ended. Raises Corrupt, OverLimit."""
        ...


def decoder_of(
    codec: Codec, limits: ArchiveLimits, note: Note | None = None, start: Checkpoint = START
) -> Decoder:
    """A decoder that begins at ``start``: what it is given first is the layer's byte ``start.first``.

    ``note`` is called with each checkpoint, at `SPACING`; it may ask the decoder nothing.
    """
    if codec is Codec.GZIP:
        return GzipDecoder(limits, note, start)
    if codec is Codec.ZSTD:
        return ZstdDecoder(limits, note, start)
    return PlainDecoder(note, start)


def _window_of(head: bytes) -> int:
    """The window of a zstd frame (RFC 8878, 3.1.1.1.2), in bytes; of one that has none, 1 MiB, which is a guess."""
    if len(head) < 6 or head[4] & 0x20:
        return 1024 * 1024
    base = 1 << (10 + (head[5] >> 3))
    return base + base // 8 * (head[5] & 7)


class PlainDecoder:
    """No compression at all."""

    def __init__(self, note: Note | None, start: Checkpoint) -> None:
        self.out = start.out
        self.ended = False
        self.is_between = True
        self._note = note
        self._last = start.out
        self._data = b""
        self._at = 0

    @property
    def weight(self) -> int:
        """Bytes of memory it takes, about."""
        return len(self._data)

    def give(self, data: bytes) -> None:
        """The layer's next bytes."""
        self._data, self._at = data, 0

    def take(self, most: int) -> bytes:
        """The same bytes."""
        if self._note is not None and self._at < len(self._data) and self.out - self._last >= SPACING:
            self._last = self.out
            self._note(Checkpoint(self.out, self.out))
        most = min(most, self._last + SPACING - self.out) if self._note is not None else most
        taken = self._data[self._at : self._at + most]
        self._at += len(taken)
        self.out += len(taken)
        return taken


class _Framed:
    """What gzip members and zstd frames have in common: they stand one behind the other, and anything may follow."""

    def __init__(self, limits: ArchiveLimits, note: Note | None, start: Checkpoint) -> None:
        self.out = start.out
        self.ended = False
        self._limits = limits
        self._note = note
        self._last = start.out
        self._end = start.first
        self._frames = 0
        self._head = b""
        """The beginning of what may be a frame, of which too little is there to tell."""
        self._was_joined = False

    def _joined(self, data: bytes) -> bytes:
        self._end += len(data)
        self._was_joined = bool(self._head)
        joined = self._head + data if self._head else data
        self._head = b""
        return joined

    def _is_due(self) -> bool:
        return self._note is not None and self.out - self._last >= SPACING

    def _mark(self, checkpoint: Checkpoint) -> None:
        assert self._note is not None
        self._last = checkpoint.out
        self._note(checkpoint)

    def _mark_frame(self, at: int) -> None:
        # A frame that began in what was given before is passed over: whoever hashes spans has that no more.
        if self._is_due() and not self._was_joined:
            self._mark(Checkpoint(self.out, at))

    def _count_frame(self) -> None:
        self._frames += 1
        if self._frames > self._limits.frames:
            raise OverLimit(f"the layer has more than {self._limits.frames:,} compressed frames")


class GzipDecoder(_Framed):
    """gzip: members one behind the other; zeros or garbage after the last one are no part of it."""

    def __init__(self, limits: ArchiveLimits, note: Note | None, start: Checkpoint) -> None:
        super().__init__(limits, note, start)
        self._data = b""
        self._skip = 0
        self._in_member = False
        self._resume: Checkpoint | None = None
        self._raw = start.window is not None
        self._inflater = Inflater(RAW if self._raw else GZIP)
        if self._raw:
            self._resume = start
            self._in_member = True

    @property
    def weight(self) -> int:
        """Bytes of memory it takes, about."""
        return _INFLATE + len(self._data)

    @property
    def is_between(self) -> bool:
        """Whether the data may end here."""
        return not self._in_member and not self._skip and (self._frames > 0 or self.out > 0)

    def give(self, data: bytes) -> None:
        """The layer's next bytes."""
        data = self._joined(data)
        begin = 0
        if self._resume is not None and data:
            start, self._resume = self._resume, None
            self._inflater.start_at(start.bits, data[0], start.window or b"")
            begin = 1 if start.bits else 0
        self._data = data
        self._inflater.give(data, begin)

    def take(self, most: int) -> bytes:
        """The archive's next bytes, at most that many."""
        while not self.ended:
            if self._skip and not self._drop_trailer():
                break
            if not self._in_member and not self._begin():
                break
            to_block = self._is_due()
            data = self._inflater.take(most, to_block=to_block)
            self.out += len(data)
            if self._inflater.ended:
                self._finish_member()
            elif to_block and self._inflater.at_block:
                inflater = self._inflater
                self._mark(Checkpoint(self.out, self._end - inflater.left, inflater.bits, inflater.window()))
            elif not data and not self._inflater.left:
                break
            if data:
                return data
        return b""

    def _drop_trailer(self) -> bool:
        """Pass over the checksum that bare blocks leave behind."""
        left = self._inflater.left
        dropped = min(self._skip, left)
        self._skip -= dropped
        self._inflater.give(self._data, len(self._data) - left + dropped)
        return not self._skip

    def _begin(self) -> bool:
        """Begin a member, if one begins here. False: more is needed to tell, or it has ended."""
        left = self._inflater.left
        at = len(self._data) - left
        head = self._data[at : at + len(_GZIP_MAGIC)]
        if not _GZIP_MAGIC.startswith(head):
            if not self._frames and not self.out:
                raise Corrupt("unknown compression method")
            self.ended = True
            return False
        if len(head) < len(_GZIP_MAGIC):
            self._head = self._data[at:]
            self._inflater.give(b"")
            return False
        self._mark_frame(self._end - left)
        self._in_member = True
        return True

    def _finish_member(self) -> None:
        self._count_frame()
        self._in_member = False
        if self._raw:
            left = self._inflater.left
            self._raw = False
            self._skip = _TRAILER
            self._inflater = Inflater(GZIP)
            self._inflater.give(self._data, len(self._data) - left)
        else:
            self._inflater.reset()


class ZstdDecoder(_Framed):
    """zstd: frames one behind the other, of which skippable ones hold nothing."""

    def __init__(self, limits: ArchiveLimits, note: Note | None, start: Checkpoint) -> None:
        super().__init__(limits, note, start)
        self._options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: limits.window_log}
        self._frame: zstd.ZstdDecompressor | None = None
        self._data = b""
        self._at = 0
        self._window = 0

    @property
    def weight(self) -> int:
        """Bytes of memory it takes, about."""
        return self._window + len(self._data)

    @property
    def is_between(self) -> bool:
        """Whether the data may end here."""
        return self._frame is None and (self._frames > 0 or self.out > 0)

    def give(self, data: bytes) -> None:
        """The layer's next bytes."""
        self._data, self._at = self._joined(data), 0

    def take(self, most: int) -> bytes:
        """The archive's next bytes, at most that many."""
        while not self.ended:
            frame = self._frame or self._begin()
            if frame is None:
                break
            piece = b""
            if frame.needs_input:
                piece = self._data[self._at : self._at + _SLICE]
                if not piece:
                    break
                self._at += len(piece)
            data = self._decompress(frame, piece, most)
            self.out += len(data)
            if frame.eof:
                self._at -= len(frame.unused_data)
                self._frame = None
                self._count_frame()
            if data:
                return data
        return b""

    def _decompress(self, frame: zstd.ZstdDecompressor, piece: bytes, most: int) -> bytes:
        try:
            return frame.decompress(piece, most)
        except zstd.ZstdError as error:
            raise Corrupt(str(error)) from error

    def _begin(self) -> zstd.ZstdDecompressor | None:
        head = self._data[self._at : self._at + 4]
        if len(head) < 4:
            self._head = head
            self._at = len(self._data)
            return None
        if not _is_zstd(head):
            self.ended = True
            return None
        self._mark_frame(self._end - (len(self._data) - self._at))
        self._frame = zstd.ZstdDecompressor(options=self._options)
        self._window = _window_of(self._data[self._at : self._at + 6]) + _SLICE
        return self._frame
