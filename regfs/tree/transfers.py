"""A blob on its way: what all its readers share, with a store that keeps it or without one.

Times in seconds of trio's clock, sizes in bytes.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from regfs.errors import DeadlineExceeded, DigestMismatch
from regfs.manifest import Descriptor
from regfs.ports import ContentWriter, Fetch
from regfs.tree.passing import Passing
from regfs.tree.recent import Recent

T = TypeVar("T")


@dataclass
class Filling:
    """A download that goes on behind its readers."""

    repository: str
    recent: Recent = field(default_factory=Recent)
    done: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


@dataclass(eq=False)
class RangeAsked:
    """A range that one reader fetches and others may wait for."""

    start: int
    end: int
    done: trio.Event = field(default_factory=trio.Event)


class Turns:
    """How many of a registry's blobs are fetched at once, so that other calls find its connections free.

    ``moved``: when any of them last went on.
    """

    def __init__(self, at_once: int) -> None:
        self._free = trio.Semaphore(at_once)
        self.moved = -math.inf

    @asynccontextmanager
    async def one(self, transfer: Transfer) -> AsyncIterator[None]:
        """Wait for a turn and have it, for the length of a block."""
        transfer.queued += 1
        try:
            await self._free.acquire()
        finally:
            transfer.queued -= 1
        try:
            yield
        finally:
            self._free.release()


class Transfer:
    """What the readers of one blob share: when it last went on, who fetches what, and whether it proved to be wrong."""

    def __init__(self, descriptor: Descriptor, turns: Turns) -> None:
        self.descriptor = descriptor
        self.readers = 0
        self.queued = 0
        self._turns = turns
        self._moved = -math.inf
        self.wrong: DigestMismatch | None = None
        self.filling: Filling | None = None
        self.ranges: list[RangeAsked] = []
        self.passings: list[Passing] = []

    def progress(self) -> None:
        """Something came."""
        self._moved = self._turns.moved = trio.current_time()

    @property
    def moved(self) -> float:
        """When it last went on; while it waits for its turn, when the others did."""
        return max(self._moved, self._turns.moved) if self.queued else self._moved

    def check(self) -> None:
        """Raise DigestMismatch where it is known to be wrong."""
        if self.wrong is not None:
            raise DigestMismatch(self.wrong.message, registry=self.wrong.registry)

    async def patiently(self, wait: Callable[[], Awaitable[T]], stall: float) -> T:
        """Wait as long as the blob goes on. Raises DeadlineExceeded ``stall`` seconds after the last that came."""
        begun = trio.current_time()
        while True:
            limit = max(begun, self.moved) + stall
            with trio.move_on_at(limit) as scope:
                return await wait()
            assert scope.cancelled_caught
            if max(begun, self.moved) + stall <= trio.current_time():
                raise DeadlineExceeded(f"nothing of {self.descriptor.digest} came for {stall:g} s")

    def range_over(self, start: int) -> RangeAsked | None:
        """The fetch under way that brings the byte at ``start``."""
        return next((asked for asked in self.ranges if asked.start <= start < asked.end), None)

    @asynccontextmanager
    async def asking(self, start: int, end: int) -> AsyncIterator[RangeAsked]:
        """Let others know, for the length of a block, that a range is being fetched."""
        asked = RangeAsked(start, end)
        self.ranges.append(asked)
        try:
            yield asked
        finally:
            self.ranges.remove(asked)
            asked.done.set()

    async def fill(self, writer: ContentWriter, filling: Filling, fetch: Fetch) -> None:
        """Bring it to its end, as who claimed it must. What goes wrong is left in ``filling``."""
        try:
            await writer.fill(fetch, self.progress)
        except DigestMismatch as error:
            self.wrong = filling.error = error
        except Exception as error:  # it belongs to those who wait; in the nursery it would end the mount
            filling.error = error
        finally:
            if self.filling is filling:
                self.filling = None
            filling.done.set()
            filling.recent.wake()
