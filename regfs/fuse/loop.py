"""The loop that takes the kernel's requests: the frequent ones are answered here, all others by libfuse.

pyfuse3's own loop passes the scheduler for each request and copies it into objects of its own. Here a request whose answer is at hand
is answered within the turn that took it; only one that has to wait leaves its task behind. libfuse keeps its place: for the
length of the mount it reads one end of a socket pair, where it is given what is not for us, and its answers are passed on.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from types import coroutine
from typing import Any, Final, Protocol

import trio

from regfs.fuse import wire
from regfs.fuse.wire import Header, Opcode

log = logging.getLogger(__name__)


Reply = bytes | None
"""What follows a reply's header; None: the kernel expects no reply."""

Answer = Callable[[Header, bytes], Awaitable[Reply]]
"""Answers a request, given its header and what follows it. Raises OSError, whose errno is the answer."""

_BUFFER: Final = (1 << 20) + 4096
"""The longest request, in bytes: a WRITE of 1 MiB. The kernel gives nothing to who has less room."""
_LOOK_FOR: Final = 50e-6
"""Seconds to look for the next request before sleeping, where the asking program has another core to run on."""
_TURN: Final = 0.001
"""Seconds of answering after which others of the program have a turn."""
_SPARE: Final = 16
_AT_ONCE: Final = 1000
"""Requests that may wait at the same time; more stay with the kernel."""

_BODY: Final = wire.PAYLOAD
_LONG_WAITS: Final = frozenset({Opcode.LOOKUP, Opcode.OPENDIR, Opcode.READ})
"""What may wait for a registry for long, and is given up when the asking process is killed."""

_KILLED: Final = 1 << signal.SIGKILL - 1
_UNANSWERED: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET})
_GONE: Final = frozenset({errno.ENODEV, errno.ECONNABORTED})
_NOTHING_YET: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOENT})
"""ENOENT: the process that asked was killed before its request was read."""


class Answers(Protocol):
    """Who answers: `regfs.fuse.direct`."""

    @property
    def by_opcode(self) -> Mapping[int, Answer]:
        """What is answered here; all else is libfuse's."""
        ...

    has_work: bool
    """Whether there is something to prepare for the request that most likely comes next."""

    async def work_ahead(self) -> None:
        """Prepare it, while whoever got the last answer wakes up. Never waits, and takes far less than a millisecond."""
        ...

    def number_of(self, error: Exception, where: str) -> int:
        """The errno to answer an exception with that came ``where``."""
        ...


class Loop:
    """Answers the kernel on ``device`` until the mount is taken away. ``rest`` is the socket behind which libfuse answers.

    One task watches the device. When an answer has to wait, another one takes over the watch.
    """

    def __init__(self, device: int, rest: socket.socket, answers: Answers) -> None:
        self._device = device
        self._rest = rest
        self._answers = answers
        self._by_opcode = answers.by_opcode
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._patience = _LOOK_FOR if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._is_watched = False
        self._waiting = 0
        self._waits: dict[int, tuple[trio.CancelScope, int]] = {}
        self._turn = 0.0
        self._spare = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Answer. Returns when the mount has gone."""
        os.set_blocking(self._device, False)
        self._rest.setblocking(False)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._pass_back)
            self._nursery.start_soon(self._watch)

    # ── the watch ──

    async def _watch(self) -> None:
        self._is_watched = True
        while True:
            length = self._taken()
            if length is None:
                await trio.lowlevel.wait_readable(self._device)
                continue
            if length == 0:
                assert self._nursery is not None
                self._nursery.cancel_scope.cancel()
                return
            head = wire.header(self._buffer)
            answer = self._by_opcode.get(head.opcode)
            if head.opcode == Opcode.INTERRUPT:
                self._interrupt(wire.handle(self._view[_BODY:length]))
            elif answer is None:
                await self._pass_on(length)
            elif await _watched(self._answer(answer, head, bytes(self._view[_BODY:length])), self._hand_over):
                self._waiting -= 1
                if not await self._is_wanted_again():
                    return
            if self._answers.has_work:
                await self._answers.work_ahead()
            if time.perf_counter() > self._turn + _TURN:
                await trio.lowlevel.checkpoint()
                self._turn = time.perf_counter()

    async def _is_wanted_again(self) -> bool:
        """Whether this task, whose request had to wait, watches again: nobody does, or somebody else has to wait."""
        if self._is_watched:
            if len(self._spare) >= _SPARE:
                return False
            await self._spare.park()
        self._is_watched = True
        return True

    def _hand_over(self) -> None:
        """Let another task watch: this one's request has to wait."""
        self._waiting += 1
        self._is_watched = False
        if self._waiting >= _AT_ONCE:
            return
        self._is_watched = True
        if self._spare:
            self._spare.unpark()
        else:
            assert self._nursery is not None
            self._nursery.start_soon(self._watch)

    def _taken(self) -> int | None:
        """The length of the request that is in the buffer now. None: none came; 0: the mount has gone."""
        end = 0.0
        while True:
            try:
                return os.readv(self._device, [self._buffer])
            except OSError as error:
                if error.errno in _GONE:
                    return 0
                if error.errno not in _NOTHING_YET:
                    raise
            now = time.perf_counter()
            if end == 0.0:
                end, self._turn = now + self._patience, now
            if now >= end:
                return None

    # ── one request ──

    async def _answer(self, answer: Answer, head: Header, body: bytes) -> None:
        if head.opcode not in _LONG_WAITS:
            await self._reply(answer, head, body)
            return
        with trio.CancelScope() as scope:
            self._waits[head.unique] = scope, head.pid
            try:
                await self._reply(answer, head, body)
            finally:
                del self._waits[head.unique]
        if scope.cancelled_caught:
            self._send(wire.reply_header(head.unique, 0, errno.EINTR))

    async def _reply(self, answer: Answer, head: Header, body: bytes) -> None:
        try:
            reply = await answer(head, body)
        except Exception as error:
            number = self._answers.number_of(error, Opcode(head.opcode).name.lower())
            if head.opcode not in _UNANSWERED:
                self._send(wire.reply_header(head.unique, 0, number))
        else:
            if reply is not None:
                self._send(wire.reply_header(head.unique, len(reply)), reply)

    def _interrupt(self, unique: int) -> None:
        """Let a request wait no more whose asker is being killed: until it is answered, the kernel keeps the process.

        Other signals are none of ours: a program that handles one would be told EINTR by a read, which few expect of a file.
        """
        scope, pid = self._waits.get(unique, (None, 0))
        if scope is not None and _is_dying(pid):
            scope.cancel()

    def _send(self, *parts: bytes) -> None:
        try:
            os.writev(self._device, parts)
        except OSError as error:
            # ENOENT: whoever asked was killed meanwhile, and the kernel no longer wants the answer.
            if error.errno not in _GONE and error.errno != errno.ENOENT:
                log.warning("the kernel does not take an answer: %s", error.strerror)

    # ── libfuse's requests ──

    async def _pass_on(self, length: int) -> None:
        while True:
            try:
                self._rest.send(self._view[:length])
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._rest)
            else:
                return

    async def _pass_back(self) -> None:
        send, receive = trio.open_memory_channel[bytes](math.inf)
        assert self._nursery is not None
        self._nursery.start_soon(self._notify, receive)
        while True:
            await trio.lowlevel.wait_readable(self._rest)
            try:
                reply = self._rest.recv(_BUFFER)
            except BlockingIOError:
                continue
            if wire.is_notification(reply):
                send.send_nowait(reply)
            else:
                self._send(reply)

    async def _notify(self, notifications: trio.MemoryReceiveChannel[bytes]) -> None:
        """Pass on what the kernel is to forget, from a thread: it may have to wait for an answer of ours first."""
        async for notification in notifications:
            await trio.to_thread.run_sync(self._send, notification, abandon_on_cancel=True)


def _is_dying(thread: int) -> bool:
    """Whether a thread has a SIGKILL before it: the kernel sends one to each thread of a process that a signal ends."""
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except OSError:
        return True
    pending = [line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(int(mask, 16) & _KILLED for mask in pending)


@coroutine
def _watched(work: Any, on_wait: Callable[[], None]) -> Generator[Any, Any, bool]:
    """Await ``work`` and say whether it had to wait; ``on_wait`` is called when it begins to. Its result is dropped."""
    try:
        trap = work.send(None)
    except StopIteration:
        return False
    on_wait()
    while True:
        try:
            given = yield trap
        except BaseException as error:  # the scheduler's own way to cancel: it goes where the wait is
            resume = partial(work.throw, error)
        else:
            resume = partial(work.send, given)
        try:
            trap = resume()
        except StopIteration:
            return True
