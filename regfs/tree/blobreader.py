"""An open blob: where the bytes from ``start`` to ``end`` come from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from regfs.errors import AccessDenied, DigestMismatch, NotFound, RegfsError
from regfs.manifest import Descriptor
from regfs.ports import ArrivingContent, OpenContent
from regfs.tree.passing import Passing
from regfs.tree.seen import Seen
from regfs.tree.transfers import Filling

if TYPE_CHECKING:
    from regfs.tree.blobs import RegistryBlobs

_FAR: Final = 4 * 1024 * 1024
"""How many bytes have to come in order before a reader's range is asked for by itself."""
_FIRST_RANGE: Final = 128 * 1024
_LARGEST_RANGE: Final = 4 * 1024 * 1024
_PIECE: Final = 1024 * 1024
_ELSEWHERE: Final = 3.0
"""Seconds that a download of another registry's may stand still before this one is asked."""


class BlobReader:
    """An open blob: a `ContentReader`. Its bytes come from the store, from its download, by range, or as they pass."""

    def __init__(self, blobs: RegistryBlobs, repository: str, descriptor: Descriptor) -> None:
        self._blobs = blobs
        self._repository = repository
        self._descriptor = descriptor
        self._transfer = blobs.join(descriptor)
        self._stored: OpenContent | None = None
        self._arriving: ArrivingContent | None = None
        self._passing: Passing | None = None
        self._seen = Seen(descriptor.size)
        self._next_range = (0, _FIRST_RANGE)
        self._proven = False
        self._finding = trio.Lock()
        self._is_stuck = False
        self._is_open = True

    @property
    def size(self) -> int:
        """In bytes, by the descriptor."""
        return self._descriptor.size

    @property
    def verified(self) -> bool:
        """Whether all of it is known to be what its digest says."""
        return (
            self._proven
            or self._stored is not None
            or (self._arriving is not None and self._arriving.verified)
        )

    async def find(self) -> None:
        """Open what the store has of it, verified or on its way."""
        async with self._finding:
            store = self._blobs.store
            if store is None or self._stored is not None or self._arriving is not None:
                return
            self._stored = await store.open(self._descriptor.digest, self.size)
            if self._stored is None:
                self._arriving = await store.download(self._descriptor.digest, self.size)

    async def read(self, start: int, length: int) -> bytes:
        """See `ContentReader.read`."""
        end = min(start + length, self.size)
        if start >= end:
            return b""
        self._transfer.check()
        try:
            data = await self._read(start, end)
        except DigestMismatch as error:
            self._transfer.wrong = self._transfer.wrong or error
            raise
        self._seen.add(start, end)
        return data

    async def aclose(self) -> None:
        """See `ContentReader.aclose`."""
        if not self._is_open:
            return
        self._is_open = False
        self._blobs.leave(self._transfer)
        if self._passing is not None:
            self._passing.leave(self)
        with trio.CancelScope(shield=True):
            for content in (self._stored, self._arriving):
                if content is not None:
                    await content.aclose()

    # ── where the bytes come from ──

    async def _read(self, start: int, end: int) -> bytes:
        for _ in range(3):
            if self._stored is not None:
                data = await self._stored.read(start, end - start)
                if data is not None:
                    return data
                await self._let_go()  # it was damaged or removed meanwhile: it is fetched anew
            if self._stored is None and self._arriving is None:
                await self.find()
            if (self._arriving is None and self._stored is None) or self._is_stuck:
                break
            if self._arriving is not None:
                data = await self._from_arriving(self._arriving, start, end)
                if data is not None:
                    return data
                await self._let_go()
        return await self._as_it_passes(start, end)

    async def _let_go(self) -> None:
        async with self._finding:
            contents, self._stored, self._arriving = (self._stored, self._arriving), None, None
            for content in contents:
                if content is not None:
                    await content.aclose()

    async def _from_arriving(self, content: ArrivingContent, start: int, end: int) -> bytes | None:
        """None: the store keeps no more of it."""
        completes = self._seen.completes(start, end)
        if not completes and self._is_far(content, start) and self._blobs.honours_ranges(self._repository):
            data = await self._by_range(content, start, end)
            if data is not None:
                return data
        for _ in range(3):
            if completes and not content.verified:
                await self._until_verified(content)
            elif content.missing(end - 1) or end == self.size:
                self._blobs.fill(self._transfer, content, self._repository)
            filling = self._transfer.filling
            if end < self.size and filling is not None:
                data = await self._transfer.patiently(
                    partial(self._as_it_comes, filling, start, end), self._blobs.stall
                )
                if data is not None:
                    return data
                if filling.error is not None and filling.repository == self._repository:
                    raise filling.error.with_traceback(None)
            if filling is None:
                data = await self._from_elsewhere(content, start, end)
                if data is None and self._is_stuck:
                    return None
                if data is not None:
                    return data
                continue
            try:
                data = await self._transfer.patiently(
                    lambda: content.read(start, end - start), self._blobs.stall
                )
            except (NotFound, AccessDenied):
                if filling.repository == self._repository:
                    raise
                continue  # another repository does not show it: this one may
            if data is not None:
                return data
        return None

    def _is_far(self, content: ArrivingContent, start: int) -> bool:
        """Whether much has to come before the byte at ``start``. What only the disk does not have yet has come."""
        filling = self._transfer.filling
        come = 0 if filling is None else filling.recent.end
        return min(content.missing(start), start + 1 - come) > _FAR

    async def _from_elsewhere(self, content: ArrivingContent, start: int, end: int) -> bytes | None:
        """What is here, or what another registry's reader downloads: its troubles are not ours. None: it does not come."""
        while True:
            before = content.missing(end - 1)
            try:
                with trio.move_on_after(min(_ELSEWHERE, self._blobs.stall)) as scope:
                    return await content.read(start, end - start)
            except DigestMismatch:
                raise
            except RegfsError:
                return None
            if scope.cancelled_caught and content.missing(end - 1) >= before:
                self._is_stuck = True
                return None

    async def _as_it_comes(self, filling: Filling, start: int, end: int) -> bytes | None:
        """What is just coming, before the disk has it; None: it is elsewhere, or the download has ended."""
        transfer = self._transfer
        while filling.recent.is_next(start):
            data = filling.recent.cut(start, end)
            if data is not None or transfer.filling is not filling:
                return data
            await filling.recent.change()
            transfer.check()
        return None

    async def _until_verified(self, content: ArrivingContent) -> None:
        """Wait until all is downloaded and verified. Raises what prevents it."""
        transfer = self._transfer
        while not content.verified:
            self._blobs.fill(transfer, content, self._repository)
            filling = transfer.filling
            if filling is None:
                return  # a download of another registry's, or none: reading waits for that
            await transfer.patiently(content.await_verdict, self._blobs.stall)
            if content.verified:
                return  # nobody waits until the disk has it for good
            await transfer.patiently(filling.done.wait, self._blobs.stall)
            transfer.check()
            if filling.error is not None and filling.repository == self._repository:
                raise filling.error.with_traceback(None)
            if filling.error is None and not content.verified:
                return

    # ── by range ──

    async def _by_range(self, content: ArrivingContent, start: int, end: int) -> bytes | None:
        """Bytes far ahead of what has come, asked for by themselves; None where that is not to be had."""
        transfer = self._transfer
        while (asked := transfer.range_over(start)) is not None:
            await transfer.patiently(asked.done.wait, self._blobs.stall)
        if content.missing(start) == 0 and content.missing(end - 1) == 0:
            return await content.read(start, end - start)
        expected, window = self._next_range
        window = min(window * 2, _LARGEST_RANGE) if start == expected else _FIRST_RANGE
        stop = min(max(end, start + window), self.size)
        self._next_range = stop, window
        try:
            async with transfer.asking(start, stop):
                data = await transfer.patiently(
                    lambda: self._fetch_range(content, start, end, stop), self._blobs.stall
                )
        except DigestMismatch:
            raise
        except RegfsError:
            return None  # in order it may still come, or say why not
        transfer.check()
        return data

    async def _fetch_range(self, content: ArrivingContent, start: int, end: int, stop: int) -> bytes | None:
        wanted = bytearray()
        piece = bytearray()
        at = start
        async with self._blobs.range(self._transfer, self._repository, start, stop) as chunks:
            async for chunk in chunks:
                wanted += chunk[: max(0, end - start - len(wanted))]
                piece += chunk
                if len(piece) >= _PIECE:
                    await content.put(at, bytes(piece))
                    at += len(piece)
                    piece.clear()
        if piece:
            await content.put(at, bytes(piece))
        return bytes(wanted) if len(wanted) == end - start else None

    # ── as it passes ──

    async def _as_it_passes(self, start: int, end: int) -> bytes:
        """Without a store. Who reads from the start on gets the last bytes only with the word that all were right."""
        completes = self._seen.completes(start, end)
        is_in_order = self._seen.prefix >= start
        for _ in range(3):
            if not is_in_order and not self._is_near(start):
                return await self._unkept(start, end)
            passing = self._blobs.passing(self._transfer, start, self._repository)
            if self._passing is not None and self._passing is not passing:
                self._passing.leave(self)
            self._passing = passing
            data = await self._transfer.patiently(
                partial(passing.read, self, start, end, verdict=completes), self._blobs.stall
            )
            if data is not None:
                self._proven = self._proven or (completes and passing.is_whole)
                return data
        return await self._unkept(start, end)

    def _is_near(self, start: int) -> bool:
        return start < _FAR or any(one.will_bring(start) for one in self._transfer.passings)

    async def _unkept(self, start: int, end: int) -> bytes:
        """A range by itself, kept nowhere."""

        async def fetch() -> bytes:
            data = bytearray()
            async with self._blobs.range(self._transfer, self._repository, start, end, needed=True) as chunks:
                async for chunk in chunks:
                    data += chunk
            return bytes(data)

        return await self._transfer.patiently(fetch, self._blobs.stall)
