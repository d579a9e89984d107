"""Reading in the middle of a compressed layer: from the nearest place where decoding can start, or where it stopped.

Readers that go on where they were cost what they read, since a stopped decoder is kept; those that jump cost half of
`SPACING` more. Neighbours wait for each other: two that want bytes of one span would decode the same twice.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

import trio

from regfs.digest import Digest
from regfs.errors import DigestMismatch
from regfs.image import pieces
from regfs.image.archive_limits import ArchiveLimits
from regfs.image.blocks import BLOCK, Bounded, Cursor
from regfs.image.codecs import Codec, OverLimit, decoder_of
from regfs.image.inflate import Corrupt
from regfs.image.spans import Span, Spans
from regfs.ports import Blobs

T = TypeVar("T")

_STEP: Final = 4 * 1024 * 1024
_SMALLEST: Final = 32 * 1024
_LARGEST: Final = 1024 * 1024
_SLACK: Final = 16 * 1024
_NEAR: Final = 4 * BLOCK
_PLACES: Final = 64


class Raw(Protocol):
    """Gives the layer's bytes as stored."""

    async def __call__(self, start: int, end: int) -> tuple[int, bytes]:
        """Bytes ``start`` to ``end`` at least, but not past the layer's end, with the offset of the first."""
        ...


class Budget:
    """What readers of all layers share: decoded blocks, stopped decoders, threads."""

    def __init__(self, blocks: int, cursors: int, threads: int) -> None:
        self.blocks: Bounded[bytes] = Bounded(blocks)
        self.cursors: Bounded[Cursor] = Bounded(cursors)
        self.limiter = trio.CapacityLimiter(threads)


class Unpacker:
    """Reads the archive in one layer, with what is found out about it, which may grow meanwhile."""

    def __init__(
        self,
        blobs: Blobs,
        digest: Digest,
        size: int,
        spans: Spans,
        kept: dict[int, bytes],
        raw: Raw,
        limits: ArchiveLimits,
        budget: Budget,
    ) -> None:
        self._blobs = blobs
        self._digest = digest
        self._size = size
        self._spans = spans
        self._pieces = kept
        self._raw = raw
        self._limits = limits
        self._budget = budget
        self._token = object()
        """What its blocks are kept under: another reader of the same layer trusts none of them."""
        self._numbers = itertools.count()
        self._places: dict[int, Hashable] = {}
        """Where cursors of this layer stand, and their keys in the budget."""
        self._locks: dict[int, tuple[trio.Lock, int]] = {}
        """By a span's number, or ``-1 - number`` of a piece: who decodes there, and how many want to."""

    async def read(self, start: int, end: int, known: int | None) -> bytes:
        """The archive's bytes from ``start`` to ``end``, of which those up to ``known`` (None: all) can be had. Raises DigestMismatch where they can't be had, and what reading raises."""
        if self._spans.codec is Codec.PLAIN:
            first, data = await self._raw(start, end)
            return data[start - first : end - first]
        parts = []
        while start < end:
            block = await self._block(start // BLOCK, end, known)
            part = block[start % BLOCK : start % BLOCK + end - start]
            if not part:
                raise DigestMismatch(f"layer {self._digest} unpacks to less than it did")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    async def _block(self, number: int, end: int, known: int | None) -> bytes:
        """A block, or as much of it as there is, at least up to the archive's byte ``end``."""
        if (found := self._budget.blocks.get((self._token, number))) is not None:
            return found
        piece = number * BLOCK // pieces.PIECE
        if piece in self._pieces:
            async with self._alone(-1 - piece):
                if (found := await self._from_piece(number, piece)) is not None:
                    return found
        span = await self._spans.startable(number * BLOCK, self._blobs, self._digest)
        async with self._alone(span.number):
            if (found := self._budget.blocks.get((self._token, number))) is not None:
                return found
            try:
                return await self._decoded(number, end, known, span)
            except (Corrupt, OverLimit) as error:
                raise DigestMismatch(f"layer {self._digest} can't be unpacked any more: {error}") from error

    # ── decoding ──

    async def _decoded(self, number: int, end: int, known: int | None, span: Span) -> bytes:
        start, stop = number * BLOCK, (number + 1) * BLOCK
        target = stop if known is None else min(stop, max(end, known))
        cursor = self._take_cursor(span, start) or self._new_cursor(span)
        wanted = b""
        while cursor.out < target:
            blocks, is_hungry = await self._in_thread(cursor, target)
            for index, block in blocks.items():
                self._budget.blocks.put((self._token, index), block, len(block))
                if index == number:
                    wanted = block
            if known is None:  # else the layer may be wrong yet, and nothing of it may stay
                await self._renew_pieces(cursor, blocks)
            if is_hungry and not await self._feed(cursor, target):
                break
        begin, part = cursor.partial()
        self._keep_cursor(cursor)
        return wanted or (part[start - begin :] if begin <= start else b"")

    async def _in_thread(self, cursor: Cursor, target: int) -> tuple[dict[int, bytes], bool]:
        return await trio.to_thread.run_sync(cursor.run, target, _STEP, limiter=self._budget.limiter)

    async def _feed(self, cursor: Cursor, target: int) -> bool:
        """Give it what it will need for the way to ``target``, by the share it has in the span. False: there is no more."""
        if cursor.ended or cursor.at >= self._size:
            return False
        span = self._spans.find(cursor.out)
        length = _SMALLEST
        if span.end is not None and span.out_end is not None:
            share = (target - cursor.out) / max(1, span.out_end - span.start.out)
            length = int((span.end - span.start.at) * share * 1.1) + _SLACK
        end = min(self._size, cursor.at + max(_SMALLEST, min(length, _LARGEST)))
        start, data = await self._raw(cursor.at, end)
        if start + len(data) <= cursor.at:
            return False
        cursor.give(start, data)
        return True

    # ── cursors ──

    def _new_cursor(self, span: Span) -> Cursor:
        decoder = decoder_of(self._spans.codec, self._limits, None, span.start)
        return Cursor(decoder, span.start.first)

    def _take_cursor(self, span: Span, start: int) -> Cursor | None:
        """The one that stands nearest before ``start``, in the same span. Whoever takes it has it alone."""
        places = [
            place
            for place in self._places
            if span.start.out <= place and (place <= start or place // BLOCK == start // BLOCK)
        ]
        while places:
            place = max(places)
            places.remove(place)
            cursor = self._budget.cursors.pop(self._places.pop(place))
            if cursor is not None and cursor.partial()[0] <= start:
                return cursor
        return None

    def _keep_cursor(self, cursor: Cursor) -> None:
        if cursor.ended:
            return
        key = (self._token, next(self._numbers))
        self._places[cursor.out] = key
        self._budget.cursors.put(key, cursor, cursor.weight)
        if len(self._places) > _PLACES:
            cursors = self._budget.cursors
            self._places = {place: kept for place, kept in self._places.items() if kept in cursors}

    # ── kept pieces ──

    async def _from_piece(self, number: int, index: int) -> bytes | None:
        """The block out of a piece that was kept, with its neighbours for those who come next."""
        start = number * BLOCK
        if (found := self._budget.blocks.get((self._token, number))) is not None:
            return found
        if start % pieces.PIECE and any(0 <= start - place <= _NEAR for place in self._places):
            return None  # a decoder stands right before it, since the cache had given the piece up
        kept = await pieces.kept(self._blobs, self._digest, index)
        if kept is None:
            return None
        piece = await trio.to_thread.run_sync(
            pieces.unpacked, kept, self._pieces[index], limiter=self._budget.limiter
        )
        if piece is None:
            return None
        first = index * pieces.PIECE // BLOCK
        for offset in range(0, len(piece), BLOCK):
            block = piece[offset : offset + BLOCK]
            if len(block) == BLOCK:
                self._budget.blocks.put((self._token, first + offset // BLOCK), block, BLOCK)
        at = number * BLOCK - index * pieces.PIECE
        return piece[at : at + BLOCK]

    async def _renew_pieces(self, cursor: Cursor, blocks: dict[int, bytes]) -> None:
        """Keep again what the cache gave up, where all of a piece is decoded anew on the way."""
        per_piece = pieces.PIECE // BLOCK
        for number, block in blocks.items():
            piece, place = divmod(number, per_piece)
            if piece not in self._pieces:
                continue
            if place == 0:
                cursor.passed.clear()
            if len(cursor.passed) == place:
                cursor.passed.append(block)
            if len(cursor.passed) == per_piece:
                await self._renew(piece, b"".join(cursor.passed))
                cursor.passed.clear()

    async def _renew(self, number: int, piece: bytes) -> None:
        kept, sha256 = await trio.to_thread.run_sync(pieces.packed, piece, limiter=self._budget.limiter)
        if sha256 == self._pieces[number]:
            await pieces.keep(self._blobs, self._digest, number, kept)

    @asynccontextmanager
    async def _alone(self, number: int) -> AsyncIterator[None]:
        """Be the only one who decodes in a span, or loads a piece."""
        lock, waiting = self._locks.get(number) or (trio.Lock(), 0)
        self._locks[number] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[number]
            if waiting == 1:
                del self._locks[number]
            else:
                self._locks[number] = lock, waiting - 1
