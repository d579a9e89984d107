"""The one pass over a layer: fetched, verified, decoded and walked at once, in bounded memory.

Three stages, each a step ahead of the next by two batches at most: bytes arrive and are hashed; they are decoded; the
archive is walked. What takes time runs in threads, none of which waits for the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from regfs.digest import Verifier
from regfs.errors import BadReply, DigestMismatch
from regfs.image import pieces
from regfs.image.archive_limits import ArchiveLimits
from regfs.image.bounds import as_text
from regfs.image.checked import ChunkHasher
from regfs.image.codecs import MAGIC, Codec, Decoder, OverLimit, codec_of, decoder_of
from regfs.image.indexfile import LayerIndex
from regfs.image.inflate import Corrupt
from regfs.image.limits import Limits
from regfs.image.spans import Spans
from regfs.image.table import MemberTable
from regfs.image.tarwalk import TarWalk
from regfs.manifest import Descriptor
from regfs.ports import Blobs, ContentReader

T = TypeVar("T")

READ: Final = 1024 * 1024
"""Bytes of the layer that are read at once, but for the first: who waits for a file at the beginning gets it sooner."""

_FIRST: Final = 128 * 1024

_BATCH: Final = 2 * 1024 * 1024
_TAKE: Final = 512 * 1024
_AHEAD: Final = 2
_FAULTS: Final = 100

Batch = list[bytes]


@dataclass
class Found:
    """What a pass has found so far; it grows while others read it. ``walked``: bytes of the archive it is past."""

    codec: Codec
    spans: Spans
    members: MemberTable = field(default_factory=MemberTable)
    faults: list[str] = field(default_factory=list)
    pieces: dict[int, bytes] = field(default_factory=dict)
    walked: int = 0

    def fault(self, line: str) -> None:
        """One more thing that is left out; of thousands, the first hundred are told."""
        if len(self.faults) < _FAULTS:
            self.faults.append(line)
        elif len(self.faults) == _FAULTS:
            self.faults.append("more is left out, which is not told one by one")


class OnePass:
    """Reads one layer from start to end. ``found`` is there once its compression is known.

    ``moved`` is called, on the loop, whenever there is more of it.
    """

    def __init__(
        self,
        blobs: Blobs,
        descriptor: Descriptor,
        reader: ContentReader,
        limits: Limits,
        archive_limits: ArchiveLimits,
        limiter: trio.CapacityLimiter,
        moved: Callable[[], None],
    ) -> None:
        self._blobs = blobs
        self._descriptor = descriptor
        self._reader = reader
        self._limits = limits
        self._archive_limits = archive_limits
        self._limiter = limiter
        self._moved = moved
        self._hasher = ChunkHasher()
        self._verifier: Verifier | None = None if reader.verified else descriptor.digest.verifier()
        self._given = 0
        self._over = False
        """Nothing that is read from now on is decoded."""
        self._piece: Batch = []
        self._piece_size = 0
        self._piece_number = 0
        self.found: Found | None = None

    async def run(self) -> LayerIndex:
        """Read all of it. Raises DigestMismatch, Unsupported, BadReply, and what reading raises; then nothing of it is kept."""
        try:
            return await self._run()
        except DigestMismatch:
            await self._drop_pieces()
            raise

    async def _run(self) -> LayerIndex:
        size = self._descriptor.size
        if self._reader.size != size:
            raise DigestMismatch(f"{self._descriptor.digest} has {self._reader.size} bytes, not {size}")
        head = await self._reader.read(0, min(size, _FIRST))
        codec = codec_of(head[:MAGIC])
        self.found = found = Found(codec, Spans(codec))
        decoder = decoder_of(codec, self._archive_limits, found.spans.add)
        walk = TarWalk(self._limits, self._archive_limits, found.members.append, found.fault)
        failure: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def stage(work: Callable[[], object]) -> None:
                try:
                    await work()  # type: ignore[misc]
                except Exception as error:  # raised below, without the nursery's group around it
                    failure.append(error)
                    nursery.cancel_scope.cancel()

            send_raw, raw = trio.open_memory_channel[bytes](_AHEAD)
            send_batch, batches = trio.open_memory_channel[Batch | str](_AHEAD)
            nursery.start_soon(stage, lambda: self._fetch(head, send_raw))
            nursery.start_soon(stage, lambda: self._decode(decoder, raw, send_batch))
            nursery.start_soon(stage, lambda: self._walk(walk, batches))
        if failure:
            raise failure[0]
        await self._verify()
        if not walk.is_archive:
            raise BadReply(f"layer {self._descriptor.digest} is no tar archive: {found.faults[-1]}")
        found.spans.finish(self._given)
        return LayerIndex(
            size,
            found.members,
            found.spans,
            self._hasher.finish(),
            found.pieces,
            found.faults,
            as_text(self._limits, self._archive_limits),
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def _verify(self) -> None:
        if self._verifier is not None and not self._reader.verified:
            self._verifier.finish(f"layer {self._descriptor.digest}")

    # ── the stages ──

    async def _fetch(self, piece: bytes, send: trio.MemorySendChannel[bytes]) -> None:
        async with send:
            at, size = 0, self._descriptor.size
            while at < size:
                if not piece:
                    raise DigestMismatch(f"{self._descriptor.digest} ends after {at} of its {size} bytes")
                await self._in_thread(lambda passing=piece: self._hash(passing))  # type: ignore[misc]
                at += len(piece)
                await send.send(piece)
                piece = await self._reader.read(at, min(READ, at, size - at)) if at < size else b""

    def _hash(self, piece: bytes) -> None:
        self._hasher.update(piece)
        if self._verifier is not None:
            self._verifier.update(piece)

    async def _decode(
        self,
        decoder: Decoder,
        raw: trio.MemoryReceiveChannel[bytes],
        send: trio.MemorySendChannel[Batch | str],
    ) -> None:
        async with send:
            async for piece in raw:
                if self._over or decoder.ended:
                    continue
                self._given += len(piece)
                decoder.give(piece)
                while not self._over:
                    batch, end = await self._in_thread(lambda: self._take(decoder))
                    if batch:
                        await send.send(batch)
                    if end is not None:
                        self._over = True
                        await send.send(end)
                    if not batch:
                        break
            if not self._over:
                await send.send("" if decoder.is_between else "its compressed data ends early")

    def _take(self, decoder: Decoder) -> tuple[Batch, str | None]:
        """A batch (nothing: more must be given), and the reason to stop behind it, if there is one."""
        batch: Batch = []
        size = 0
        try:
            while size < _BATCH and (data := decoder.take(_TAKE)):
                batch.append(data)
                size += len(data)
                self._check(decoder.out)
        except Corrupt as error:
            return batch, f"its compressed data is damaged ({error})"
        except OverLimit as error:
            return batch, str(error)
        return batch, None

    def _check(self, out: int) -> None:
        limits = self._archive_limits
        if out > limits.unpacked:
            raise OverLimit(f"it unpacks to more than the limit of {limits.unpacked:,} bytes")
        if out > limits.ratio_free and out > limits.ratio * self._given:
            raise OverLimit(f"it unpacks to more than {limits.ratio:,} times what it takes")

    async def _walk(self, walk: TarWalk, batches: trio.MemoryReceiveChannel[Batch | str]) -> None:
        found = self.found
        assert found is not None
        async for batch in batches:
            if walk.is_done:
                continue
            await self._in_thread(lambda given=batch: _give(walk, given))  # type: ignore[misc]
            if not isinstance(batch, str):
                if found.codec is not Codec.PLAIN:
                    await self._keep_pieces(batch)
                found.walked += sum(map(len, batch))
            if walk.is_done:
                self._over = True
                await self._keep_piece()
            self._moved()

    # ── pieces ──

    async def _keep_pieces(self, batch: Batch) -> None:
        for data in batch:
            room = pieces.PIECE - self._piece_size
            self._piece.append(data[:room])
            self._piece_size += len(self._piece[-1])
            if self._piece_size == pieces.PIECE:
                await self._keep_piece()
                self._piece_number += 1
                self._piece = [data[room:]]
                self._piece_size = len(data) - room

    async def _keep_piece(self) -> None:
        found = self.found
        assert found is not None
        if self._piece_size and pieces.is_needed(found.spans, self._piece_number):
            parts = self._piece
            kept, sha256 = await self._in_thread(lambda: pieces.packed(b"".join(parts)))
            await pieces.keep(self._blobs, self._descriptor.digest, self._piece_number, kept)
            found.pieces[self._piece_number] = sha256

    async def _drop_pieces(self) -> None:
        if self.found is not None:
            with trio.CancelScope(shield=True):
                for number in self.found.pieces:
                    await pieces.keep(self._blobs, self._descriptor.digest, number, b"")


def _give(walk: TarWalk, batch: Batch | str) -> None:
    if isinstance(batch, str):
        walk.finish(batch)
        return
    for data in batch:
        walk.give(data)
