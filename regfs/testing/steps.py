"""Whether code blocks trio's loop: files and programs that a task uses itself, and steps that compute for too long."""

from __future__ import annotations

import base64
import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import trio

_BLOCKS: Final = frozenset(
    {
        "open",
        "os.listdir",
        "os.scandir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "subprocess.Popen",
        "socket.getaddrinfo",
        "sqlite3.connect",
        "time.sleep",
    }
)
_watching: list[Steps] = []
_hooked = False


class Steps(trio.abc.Instrument):
    """Watches the steps of all tasks of a `trio.run` that it is an instrument of.

    ``longest`` is the most processor time that one step took, in seconds: what others do on the machine counts for
    nothing. ``blocking`` are the audit events of what no task may do itself, each with the function that did it.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.blocking: list[str] = []
        self._thread = 0
        self._start: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  the instrument's
        """See `trio.abc.Instrument`."""
        self._thread = threading.get_ident()
        self._start = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  the instrument's
        """See `trio.abc.Instrument`."""
        if self._start is not None:
            self.longest = max(self.longest, time.thread_time() - self._start)
        self._start = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the `trio.run` within the block. The collector rests: what it does is nobody's."""
        global _hooked
        if not _hooked:
            sys.addaudithook(_hook)  # which cannot be taken away again
            _hooked = True
        collects = gc.isenabled()
        gc.disable()
        self._thread = 0
        self._start = None
        _watching.append(self)
        try:
            yield
        finally:
            _watching.remove(self)
            if collects:
                gc.enable()

    def see(self, event: str) -> None:
        """Note an audit event, where it happens on the loop's own thread."""
        if self._thread == threading.get_ident():
            caller = _caller()
            if not caller.startswith("trio."):  # it looks up numbers itself, which asks nobody
                self.blocking.append(f"{event} by {caller}")


@cache
def parsing_time(size: int) -> float:
    """The processor time that it takes here to parse JSON with ``size`` bytes in base64, in seconds."""
    text = json.dumps({"data": base64.b64encode(bytes(size)).decode()})
    start = time.thread_time()
    json.loads(text)
    return time.thread_time() - start


def _hook(event: str, arguments: tuple[Any, ...]) -> None:  # noqa: ARG001  what was used may be a secret
    if event in _BLOCKS:
        for steps in list(_watching):
            steps.see(event)


def _caller() -> str:
    """The nearest function that is the plugin's or regfs's, not Python's own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "") in _LIBRARY:
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"


_LIBRARY: Final = frozenset(
    {__name__, "pathlib", "os", "io", "codecs", "shutil", "tempfile", "json", "socket"}
)
