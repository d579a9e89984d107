"""A trio loop in a thread of its own: what the servers for tests are made of, whose clients may block or use another loop."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio


class LoopThread:
    """Runs ``main`` in a daemon thread called ``name``, from `start` to `stop`, any number of times.

    ``main`` is given a function, which it calls once it serves. At `stop` it is cancelled.
    """

    def __init__(self, name: str, main: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._name = name
        self._main = main
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Return once it serves. Raises what ended it before that: OSError where a port is taken."""
        self._ready.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Cancel it, and return once it has ended."""
        if self._thread is not None:
            self.soon(lambda: self._scope.cancel())
            self._thread.join()
            self._thread = None

    def soon(self, action: Callable[[], object]) -> None:
        """Do something in the loop, at its next step; nothing where it has ended."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(action)

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            await self._main(self._ready.set)
