"""Listings that come in pages, and their age."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from regfs.errors import DeadlineExceeded

P = TypeVar("P")

_RENEW_AT = 0.7
"""The part of its limit after which a listing in use is renewed, so that readers seldom wait for it."""


@dataclass(frozen=True, slots=True)
class Age:
    """When a listing was asked for, and when it would have come had it not paused, in seconds of a monotonic clock.

    It may be as old as the larger of ``ttl`` and ten times what fetching it took: a listing that is slow to come
    must not be asked for all the time.
    """

    started: float
    finished: float

    def limit(self, ttl: float) -> float:
        """How old it may be, in seconds."""
        return max(ttl, 10 * (self.finished - self.started)) if ttl > 0 else 0.0

    def left(self, now: float, ttl: float) -> float:
        """For how many seconds more it may be shown; not positive: no longer."""
        return self.started + self.limit(ttl) - now

    def is_fresh(self, now: float, ttl: float) -> bool:
        """Say whether it may still be shown."""
        return self.left(now, ttl) > 0

    def wants_renewal(self, now: float, ttl: float) -> bool:
        """Say whether it is time to ask anew although it may still be shown."""
        return now - self.started > self.limit(ttl) * _RENEW_AT


class Fetch(Generic[P]):
    """One listing on its way. It can pause behind its first page, which already tells that the thing listed exists.

    ``paused`` is for how many seconds it did: they are no part of what fetching took.
    """

    def __init__(self, started: float, *, whole: bool) -> None:
        self.started = started
        self.first = trio.Event()
        self.done = trio.Event()
        self.error: Exception | None = None
        self.paused = 0.0
        self._whole = trio.Event()
        if whole:
            self._whole.set()

    def want_whole(self) -> None:
        """Go on behind the first page."""
        self._whole.set()

    async def run(
        self,
        ask: Callable[[], AsyncIterator[P]],
        take: Callable[[P], None],
        page_deadline: float,
        pause: float,
    ) -> None:
        """Pull every page through ``take``; the outcome is in ``error``. A pause of over ``pause`` seconds ends it."""
        try:
            pages = ask()
            async with closing_pages(pages):
                await self._pull(pages, take, page_deadline, pause)
        except Exception as error:  # it belongs to those who wait; here it would end the mount
            self.error = error
        except BaseException:
            self.error = DeadlineExceeded("the mount is going down")
            raise
        finally:
            self.first.set()
            self.done.set()

    async def _pull(
        self, pages: AsyncIterator[P], take: Callable[[P], None], page_deadline: float, pause: float
    ) -> None:
        while True:
            try:
                with trio.fail_after(page_deadline):
                    page = await anext(pages)
            except StopAsyncIteration:
                return
            except trio.TooSlowError:
                raise DeadlineExceeded(f"no page of the listing within {page_deadline:g} s") from None
            take(page)
            self.first.set()
            since = trio.current_time()
            with trio.move_on_after(pause) as patience:
                await self._whole.wait()
            self.paused += trio.current_time() - since
            if patience.cancelled_caught and not self._whole.is_set():
                raise Paused

    def raise_error(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.error is not None:
            raise self.error.with_traceback(None)


@asynccontextmanager
async def closing_pages(pages: AsyncIterator[P]) -> AsyncIterator[None]:
    """Close an iterator that was left early; one that is no generator has nothing to close."""
    try:
        yield
    finally:
        close = getattr(pages, "aclose", None)
        if close is not None:
            await close()


class Paused(Exception):
    """Nobody wanted the rest of a listing: not an error, and never seen outside this floor."""
