"""Work that many wait for and one does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from regfs.errors import DeadlineExceeded

T = TypeVar("T")


class Flight(Generic[T]):
    """One piece of work under way."""

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.result: T
        self.error: Exception | None = None

    async def outcome(self) -> T:
        """What came of it, once it has landed. Raises what the work raised."""
        await self.landed.wait()
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self.result


class Flights:
    """Runs each piece of work once, however many ask for it meanwhile, and to its end, though all who asked may leave."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._flights: dict[Hashable, Flight[object]] = {}
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Run the work in ``nursery`` from now on."""
        self._nursery = nursery

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    def launch(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> Flight[T]:
        """Begin ``work`` unless it is under way. Synchronous: between the look-up and the start nothing else can run."""
        flight: Flight[T] | None = self._flights.get(key)  # type: ignore[assignment]  # the key fixes T
        if flight is None:
            assert self._nursery is not None, "start() comes first"
            flight = Flight()
            self._flights[key] = flight  # type: ignore[assignment]
            self._nursery.start_soon(self._fly, key, flight, work)
        return flight

    async def share(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of ``work``, begun now or by someone earlier. Raises what it raises."""
        return await self.launch(key, work).outcome()

    async def _fly(self, key: Hashable, flight: Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        try:
            with trio.move_on_after(self._deadline) as scope:
                flight.result = await work()
            if scope.cancelled_caught:
                flight.error = DeadlineExceeded(f"no answer within {self._deadline:g} s")
        except Exception as error:  # it belongs to those who wait; here it would end the mount
            flight.error = error
        except BaseException:
            flight.error = DeadlineExceeded("the mount is going down")
            raise
        finally:
            del self._flights[key]
            flight.landed.set()
