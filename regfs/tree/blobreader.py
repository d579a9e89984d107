"""An open blob: where the bytes from ``start`` to ``end`` come from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from regfs.errors import AccessDenied, DigestMismatch, NotFound, RegfsError
from regfs.manifest import Descriptor
from regfs.ports import ArrivingContent, OpenContent
from regfs.tree.attributes import NOT_YET
from regfs.tree.passenger import FAR, Passenger
from regfs.tree.passing import SURE
from regfs.tree.seen import Seen
from regfs.tree.transfers import Filling

if TYPE_CHECKING:
    from regfs.tree.blobs import RegistryBlobs

_FIRST_RANGE: Final = 128 * 1024
_LARGEST_RANGE: Final = 4 * 1024 * 1024
_PIECE: Final = 1024 * 1024
_ELSEWHERE: Final = 3.0
"""Seconds that a download of another registry's may stand still before this one is asked."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """Bytes ``start`` to ``end``. ``in_order``: all before them was asked for too; ``completes``: all else was."""

    start: int
    end: int
    in_order: bool
    completes: bool

    @property
    def length(self) -> int:
        return self.end - self.start

    def left(self, content: ArrivingContent) -> int:
        """How many bytes have to come before they are there: nobody who reads in order gets a range that came by itself."""
        return max(0, self.end - content.head) if self.in_order else content.missing(self.end - 1)

    async def of(self, content: ArrivingContent) -> bytes | None:
        """Read them."""
        return await content.read(self.start, self.length, in_order=self.in_order)


class BlobReader:
    """An open blob: a `ContentReader`. Its bytes come from the store, from its download, by range, or as they pass."""

    def __init__(self, blobs: RegistryBlobs, repository: str, descriptor: Descriptor) -> None:
        self._blobs = blobs
        self._repository = repository
        self._descriptor = descriptor
        self._transfer = blobs.join(descriptor)
        self._stored: OpenContent | None = None
        self._arriving: ArrivingContent | None = None
        self._onward = Passenger(blobs, self._transfer, repository)
        self._seen = Seen(descriptor.size)
        self._next_range = (0, _FIRST_RANGE)
        self._has_read = False
        """Something that was not verified, of what arrives in the store."""
        self._finding = trio.Lock()
        self._is_stuck = False
        self._is_open = True

    @property
    def size(self) -> int:
        """In bytes, by the descriptor."""
        return self._descriptor.size

    @property
    def verified(self) -> bool:
        """Whether all of it is known to be what its digest says, of what this reader was given too."""
        if self._onward.rest is not None:  # what the store verifies later need not be what passed here
            return self._onward.is_proven
        return (
            self._onward.is_proven
            or self._stored is not None
            or (self._arriving is not None and self._arriving.verified)
        )

    @property
    def descriptor(self) -> int:
        """Of a file that holds the blob and nothing else, as long as this is open; `NOT_YET` where there is none."""
        return NOT_YET if self._stored is None or self._stored.descriptor is None else self._stored.descriptor

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
        wish = _Wish(
            start,
            end,
            in_order=self._seen.prefix >= start,
            completes=self._seen.completes(start, end),
        )
        self._seen.add(start, end)  # now: of those that read at once, the last one asks for the verdict
        try:
            return await self._read(wish)
        except DigestMismatch as error:
            self._transfer.wrong = self._transfer.wrong or error
            if self._arriving is not None and self._arriving.is_lost:
                self._arriving.condemn(error)
            raise

    def condemn(self, error: DigestMismatch) -> None:
        """See `Condemns.condemn`."""
        if self._arriving is not None:
            self._arriving.condemn(error)

    async def aclose(self) -> None:
        """See `ContentReader.aclose`."""
        if not self._is_open:
            return
        self._is_open = False
        self._blobs.leave(self._transfer)
        self._onward.leave()
        with trio.CancelScope(shield=True):
            for content in (self._stored, self._arriving):
                if content is not None:
                    await content.aclose()

    # ── where the bytes come from ──

    async def _read(self, wish: _Wish) -> bytes:
        for _ in range(3):
            if self._stored is not None:
                data = await self._stored.read(wish.start, wish.length)
                if data is not None:
                    return data
                await self._let_go()  # it was damaged or removed meanwhile: it is fetched anew
            if self._arriving is None:
                await self.find()
            content = self._arriving
            if self._stored is not None:
                continue
            if content is None or self._onward.rest is not None:
                break
            data = await self._from_arriving(content, wish)
            if data is not None and self._is_bound(wish):
                self._has_read = True
                return data
            if not content.verified and (self._has_read or self._is_stuck or content.is_lost):
                await self._part(content)
                break
            await self._let_go()
        return await self._apart(wish)

    def _is_bound(self, wish: _Wish) -> bool:
        """Whether what the store gave is what it is bound to, if it was left meanwhile."""
        rest = self._onward.rest
        return rest is None or wish.end <= rest.mark.offset

    async def _part(self, content: ArrivingContent) -> None:
        """Leave the store for good: what it gave so far binds whatever comes from now on."""
        async with self._finding:
            if self._onward.rest is None:
                self._onward.begin_behind(await content.rest())

    async def _apart(self, wish: _Wish) -> bytes:
        """What the store still has, and for what it has not, what passes."""
        rest, content = self._onward.rest, self._arriving
        start = wish.start
        begun = b""
        needs_verdict = wish.completes and wish.end < self.size <= SURE
        if rest is not None and content is not None and start < rest.offset and not needs_verdict:
            stop = min(wish.end, rest.offset)
            begun = await content.read(start, stop - start, in_order=True) or b""
            start += len(begun)
        if start == wish.end:
            return begun
        return begun + await self._onward.read(
            start, wish.end, in_order=wish.in_order, completes=wish.completes
        )

    async def _let_go(self) -> None:
        async with self._finding:
            contents, self._stored, self._arriving = (self._stored, self._arriving), None, None
            for content in contents:
                if content is not None:
                    await content.aclose()

    async def _from_arriving(self, content: ArrivingContent, wish: _Wish) -> bytes | None:
        """None: the store keeps no more of it."""
        start, end = wish.start, wish.end
        is_near = wish.in_order or wish.completes or not self._is_far(content, start)
        if not is_near and self._blobs.honours_ranges(self._repository):
            data = await self._by_range(content, start, end)
            if data is not None:
                return data
        for _ in range(3):
            if content.is_lost:
                return None
            if wish.completes and not content.verified:
                await self._until_verified(content)
                if content.is_lost:
                    return None
                if not content.verified and self._transfer.filling is not None:
                    continue
            elif wish.left(content) or end == self.size:
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
                data = await self._from_elsewhere(content, wish)
                if data is None and self._is_stuck:
                    return None
                if data is not None:
                    return data
                continue
            try:
                data = await self._transfer.patiently(lambda: wish.of(content), self._blobs.stall)
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
        return min(content.missing(start), start + 1 - come) > FAR

    async def _from_elsewhere(self, content: ArrivingContent, wish: _Wish) -> bytes | None:
        """What is here, or what another registry's reader downloads: its troubles are not ours. None: it does not come."""
        while True:
            before = self.size - content.head if wish.completes else wish.left(content)
            try:
                with trio.move_on_after(min(_ELSEWHERE, self._blobs.stall)) as scope:
                    if wish.completes:
                        await content.await_verdict()
                        if not content.verified:
                            return None
                    return await wish.of(content)
            except DigestMismatch:
                raise
            except RegfsError:
                return None
            left = self.size - content.head if wish.completes else wish.left(content)
            if scope.cancelled_caught and left >= before:
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
        if data is not None and content.missing(start) == 0 and content.missing(end - 1) == 0:
            return await content.read(start, end - start)  # what all will be compared with
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
