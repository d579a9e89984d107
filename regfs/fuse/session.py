"""The mount itself: mounting, the handshake with the kernel, the loop that answers it, unmounting."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pyfuse3
import trio

from regfs.errors import MountError
from regfs.fuse import wire
from regfs.fuse.backing import Backings
from regfs.fuse.direct import DirectAnswers
from regfs.fuse.handshake import Handshake, HandshakeFailed, shake_hands
from regfs.fuse.loop import Loop
from regfs.fuse.mount_table import mount_at
from regfs.fuse.operations import RegfsOperations

log = logging.getLogger(__name__)

FSNAME: Final = "regfs"
"""What stands first in a mount's source: `regfs#localhost:5000`, or `regfs` alone. A stale mount is ours by it."""

_MAX_TASKS: Final = 1000
_MIN_TASKS: Final = 8
_GRACE: Final = 1.0
_READ_AHEAD_KIB: Final = 1024
_LOOK_FOR: Final = 50e-6
"""Seconds to look for the next request before sleeping, where the asking program has another core to run on."""


def source_name(address: str) -> str:
    """How a mount of ``address`` is called in the mount table (libfuse takes ASCII only)."""
    plain = address.encode("ascii", "replace").decode().replace(",", "?").replace("\\", "?")
    return f"{FSNAME}#{plain}" if plain else FSNAME


def mount_options(address: str, *, writable: bool, allow_other: bool) -> set[str]:
    """The options that libfuse mounts with.

    ``ro`` spares a GETATTR after each listing and lets the kernel say EROFS itself. ``default_permissions`` makes the kernel
    ask for the attributes of each name it passes, so it comes only where other users are let in.
    """
    options = {f"fsname={source_name(address)}", "subtype=regfs", "nosuid", "nodev"}
    if not writable:
        options.add("ro")
    if allow_other:
        options |= {"allow_other", "default_permissions"}
    return options


class Session:
    """One mount, from `open` to `close`. pyfuse3 holds one a process.

    ``answers`` answer the frequent requests directly, where the kernel's INIT could be answered by us; the operations all others.
    """

    def __init__(
        self,
        operations: RegfsOperations,
        mountpoint: Path,
        options: set[str],
        answers: DirectAnswers | None = None,
    ) -> None:
        self._operations = operations
        self._answers = answers
        self._mountpoint = mountpoint
        self._options = options
        self.handshake = Handshake()

    def open(self) -> None:
        """Mount, and answer the kernel's INIT. Must run in the main thread, outside trio. MountError: could not."""
        self._init()
        try:
            self.handshake = shake_hands(session_descriptor())
        except HandshakeFailed as error:
            log.warning("going on without parallel lookups: %s", error)
            pyfuse3.close(unmount=True)
            self._init()
        self._operations.wait_in_page_cache = self.handshake.max_background > 0

    async def serve(self) -> None:
        """Answer the kernel until the mount is taken away or `stop` is called."""
        _raise_read_ahead(self._mountpoint)
        if self._answers is not None and self.handshake.minor >= wire.LEAST_MINOR:
            await self._serve_directly(self._answers, session_descriptor())
            return
        with _careful_waits(session_descriptor()):
            await pyfuse3.main(min_tasks=_MIN_TASKS, max_tasks=_MAX_TASKS)

    async def _serve_directly(self, answers: DirectAnswers, descriptor: int) -> None:
        """Answer what is frequent ourselves; libfuse reads a socket meanwhile, where it finds the rest."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device = os.dup(descriptor)
        with ours, theirs:
            os.dup2(theirs.fileno(), descriptor, inheritable=False)
            answers.backings = Backings(device) if self.handshake.passthrough else None
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pyfuse3.main)
                    await Loop(device, ours, answers).run()
                    nursery.cancel_scope.cancel()
            finally:
                if answers.backings is not None:
                    answers.backings.close()
                os.dup2(device, descriptor, inheritable=False)
                os.close(device)

    async def stop(self, scope: trio.CancelScope) -> None:
        """End `serve`. Calls under way have a second; then ``scope``, which `serve` runs in, is cancelled."""
        pyfuse3.terminate()
        await trio.sleep(_GRACE)
        scope.cancel()

    def invalidate(self, parent: int, name: bytes) -> None:
        """Make the kernel forget an entry, from a thread: from inside a handler that would lock up."""
        pyfuse3.invalidate_entry_async(pyfuse3.InodeT(parent), name, ignore_enoent=True)

    def close(self) -> None:
        """Unmount, lazily if something still stands in the mount; harmless where it is unmounted already."""
        pyfuse3.close(unmount=True)

    def _init(self) -> None:
        with _captured_stderr() as said:
            try:
                pyfuse3.init(self._operations, str(self._mountpoint), self._options)
            except RuntimeError as error:
                raise MountError(_refusal(self._mountpoint, said() or str(error))) from error


def _refusal(mountpoint: Path, words: str) -> str:
    lacking = "not permitted" in words.lower()
    mend = (
        " In a container: run it with `--cap-add SYS_ADMIN` (and `--security-opt apparmor=unconfined`)."
        if lacking
        else ""
    )
    return f"{mountpoint} cannot be mounted on: {words}.{mend}"


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what libfuse and fusermount3 write to descriptor 2, since it is the only place where they say why."""
    sys.stderr.flush()
    kept, words = os.dup(2), os.memfd_create("stderr")
    os.dup2(words, 2)

    def said() -> str:
        lines = os.pread(words, 4096, 0).decode(errors="replace").split("\n")
        return "; ".join(line.strip() for line in lines if line.strip())

    try:
        yield said
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(words)


def _raise_read_ahead(mountpoint: Path) -> None:
    """Let the kernel read in 1 MiB steps where we may say so (root), in place of 128 KiB."""
    mount = mount_at(mountpoint)
    if mount is not None and os.geteuid() == 0:
        with contextlib.suppress(OSError):
            Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(str(_READ_AHEAD_KIB))


def session_descriptor() -> int:
    """The descriptor that pyfuse3's session reads: it says so nowhere. MountError: there is none."""
    for name in sorted(os.listdir("/proc/self/fd"), key=int, reverse=True):  # noqa: PTH208 - the names alone are wanted
        with contextlib.suppress(OSError):
            if os.fstat(int(name)).st_rdev == _FUSE_DEVICE:
                return int(name)
    raise MountError("the FUSE device is not open")


_FUSE_DEVICE: Final = os.makedev(10, 229)


@contextlib.contextmanager
def _careful_waits(descriptor: int) -> Iterator[None]:
    """Let pyfuse3 read the device only when a request is there at that very moment.

    The kernel withdraws a request (or the interrupt of one that was just answered) when its process is killed. Between epoll's
    word that there is one and the read, other tasks run; the read would then block the whole loop until somebody else
    asks something. pyfuse3 takes its event loop from a module attribute, as its asyncio mode does.

    A program that walks a tree asks again within microseconds of an answer; to sleep and be woken takes longer than that.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    patience = _LOOK_FOR if len(os.sched_getaffinity(0)) > 1 else 0.0

    async def wait_readable(waited: int) -> None:
        if waited == descriptor and _comes_within(patience, poll):
            return  # without a checkpoint: pyfuse3 passes one for each request, at its lock
        await trio.lowlevel.wait_readable(waited)
        while waited == descriptor and not poll.poll(0):
            await trio.lowlevel.wait_readable(waited)

    module = vars(pyfuse3)
    module["trio"] = _Variant(trio, lowlevel=_Variant(trio.lowlevel, wait_readable=wait_readable))
    try:
        yield
    finally:
        module["trio"] = trio


def _comes_within(seconds: float, poll: select.poll) -> bool:
    """Look for a request without sleeping."""
    end = time.perf_counter() + seconds
    while not poll.poll(0):
        if time.perf_counter() >= end:
            return False
    return True


class _Variant:
    """A module with some of its names replaced."""

    def __init__(self, module: ModuleType, **replaced: object) -> None:
        self._module = module
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)
