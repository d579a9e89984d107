"""One reader's way through a blob without the store: along passages, each bound to what he was given before."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from regfs.errors import ConnectionFailed
from regfs.ports import Mark, Rest
from regfs.tree.passing import SURE, Passing
from regfs.tree.transfers import Transfer

if TYPE_CHECKING:
    from regfs.tree.blobs import RegistryBlobs

FAR: Final = 4 * 1024 * 1024
"""How many bytes have to come in order before a reader's range is asked for by itself."""

_TRIES: Final = 4


class Passenger:
    """Reads what passes. Who reads from the start on gets the last bytes only with the word that all he was given were right.

    ``rest``: where the store came to an end. All that he was given before he changed his passage, or left the store,
    is in ``marks``: a passage that does not hash to the same up to there is wrong.
    """

    def __init__(self, blobs: RegistryBlobs, transfer: Transfer, repository: str) -> None:
        self.rest: Rest | None = None
        self.is_proven = False
        self._blobs = blobs
        self._transfer = transfer
        self._repository = repository
        self._marks: list[Mark] = []
        self._passing: Passing | None = None

    def begin_behind(self, rest: Rest) -> None:
        """Go on behind what the store has."""
        self.rest = rest
        self._marks.append(rest.mark)

    async def read(self, start: int, end: int, *, in_order: bool, completes: bool) -> bytes:
        """Bytes ``start`` to ``end``. ``in_order``: all before them was read; ``completes``: all else was.

        Read in another order, a blob that is larger than what passages keep is not verified.
        """
        size = self._transfer.descriptor.size
        completes_small = completes and size <= SURE
        verdict = end == size or completes_small
        for _ in range(_TRIES):
            if not in_order and not completes_small and not self._is_near(start):
                return await self._unkept(start, end)
            passing = self._board(start, end)
            data = await self._transfer.patiently(
                partial(passing.read, self, start, end, verdict=verdict), self._blobs.stall
            )
            if data is not None:
                self.is_proven = self.is_proven or (completes and passing.is_whole)
                return data
        if in_order:  # a range by itself could be anything
            raise ConnectionFailed(
                f"bytes {start} to {end} of {self._transfer.descriptor.digest} did not come"
            )
        return await self._unkept(start, end)

    def leave(self) -> None:
        """Read no more."""
        if self._passing is not None:
            self._passing.leave(self)

    def _board(self, start: int, end: int) -> Passing:
        own = self._passing
        if own is None or not own.comes_to(start, end):
            if own is not None:
                self._marks.append(own.mark())
                own.leave(self)
            own = self._passing = self._blobs.passing(
                self._transfer, start, end, self._repository, self.rest, self._marks
            )
        return own

    def _is_near(self, start: int) -> bool:
        return start < FAR or any(one.will_bring(start) for one in self._transfer.passings)

    async def _unkept(self, start: int, end: int) -> bytes:
        """A range by itself, kept nowhere."""

        async def fetch() -> bytes:
            data = bytearray()
            async with self._blobs.range(self._transfer, self._repository, start, end, needed=True) as chunks:
                async for chunk in chunks:
                    data += chunk
            return bytes(data)

        return await self._transfer.patiently(fetch, self._blobs.stall)
