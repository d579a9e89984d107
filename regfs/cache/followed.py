"""A content that another process is downloading, or has just downloaded, read along as it grows.

The other's file is read, and hashed here: nobody's word is taken for what it holds. What it says of itself is only how
far it is, and its lock whether it lives. All but `follow` blocks, and belongs in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import trio

from regfs.cache.entry import open_content, pieces
from regfs.cache.folder import LOG, Folder, is_at, lock
from regfs.cache.partial import Partial, Progress
from regfs.cache.plan import cost
from regfs.cache.record import Doing, Log, Told
from regfs.cache.room import Room
from regfs.cache.threads import in_thread
from regfs.digest import Digest
from regfs.errors import DigestMismatch

if TYPE_CHECKING:
    from hashlib import _Hash

    from regfs.cache.download import Download

logger = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds that another process's download may stand still: less than a reader's patience, who then gets it all the same."""

_MOMENT: Final = 0.5
"""Seconds that one who has just opened it has for beginning."""
_SHORTEST: Final = 0.002
_LONGEST: Final = 0.05
_STEP: Final = 8 * 1024 * 1024


def open_arriving(
    folder: Folder, room: Room, digest: Digest, size: int, *, along: bool = True
) -> Partial | Followed | None:
    """A content on its way: this process's to write, or written by another; None where it has no place. Raises OSError.

    Where another has it without going on, or it is not to be read ``along`` with, this one downloads it beside that.
    """
    if cost(size) > room.limit:
        return None
    with room.locked():
        taken = Partial.take(folder, room, digest, size)
        followed = None if taken is not None or not along else Followed.join(folder, room, digest, size)
    opened = taken or followed
    kept = None
    try:
        kept = Followed.kept(folder, room, digest, size)
        return kept or opened or Partial.beside(folder, room, digest, size)
    finally:
        if kept is not None and opened is not None:
            opened.close(resumable=False)


class Step(Enum):
    """What came of a look: it went on, it did not, all is there, its process is gone and this one has it now, it leads nowhere."""

    MOVED = auto()
    STOOD = auto()
    WHOLE = auto()
    TAKEN = auto()
    LOST = auto()


class Followed:
    """Another's download. ``head``: all before it is there and was hashed here. The interface of a `Partial`, as far as readers need it."""

    def __init__(
        self, folder: Folder, room: Room, descriptor: int, digest: Digest, size: int, told: Told
    ) -> None:
        self.digest = digest
        self.size = size
        self.head = 0
        self.descriptor = descriptor
        self.doing = told.doing
        self._writer = told.writer
        self._folder = folder
        self._room = room
        self._path = folder.partial(digest)
        self._named = folder.content(digest)
        self._log = Log(self._path.with_name(self._path.name + LOG))
        self._hash = hashlib.new(digest.algorithm)
        self._chain = (0, self._hash)
        self._is_handed_on = False
        self.is_kept = False
        """Whether it bore its name, and so was verified, before anything of it was read here."""

    @classmethod
    def kept(cls, folder: Folder, room: Room, digest: Digest, size: int) -> Followed | None:
        """The verified content of that size: it may have got its name since somebody looked for it. Raises OSError."""
        descriptor = open_content(folder.content(digest), digest)
        if descriptor is None:
            return None
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            return None
        found = cls(folder, room, descriptor, digest, size, Told("", size, Doing.RESTING))
        found.head, found.is_kept = size, True
        return found

    @classmethod
    def join(cls, folder: Folder, room: Room, digest: Digest, size: int) -> Followed | None:
        """The download of another process that is going on now. Under the lock of ``room``. Raises OSError."""
        path = folder.partial(digest)
        log = Log(path.with_name(path.name + LOG))
        told = log.told()
        if told is None or told.doing is Doing.RESTING or told.head > size or not log.is_fresh(PATIENCE):
            return None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        return cls(folder, room, descriptor, digest, size, told)

    # ── following ──

    def look(self) -> Step:
        """See how far it is, and hash what came. Raises OSError."""
        if self.head == self.size:
            return Step.WHOLE
        told = self._log.told()
        # What was said belongs to this file only if the file is in its place afterwards.
        if is_at(self.descriptor, self._path):
            if told is None or told.writer != self._writer:
                return Step.LOST
            end, self.doing = min(told.head, self.size), told.doing
        elif is_at(self.descriptor, self._named):
            end = self.size
            lock(self.descriptor, fcntl.LOCK_SH)  # against removal, as far as that is to be had
        else:
            return Step.LOST
        if end > self.head:
            return self._hash_to(min(end, self.head + _STEP))
        return Step.TAKEN if self._locks() else Step.STOOD

    def _locks(self) -> bool:
        """Whether the other one has let go of it, and now this process has it."""
        if not lock(self.descriptor, fcntl.LOCK_EX):
            return False
        told = self._log.told()
        if is_at(self.descriptor, self._path) and told is not None and told.writer == self._writer:
            return True
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return False

    def _hash_to(self, end: int) -> Step:
        hashed, head = self._hash.copy(), self.head
        for piece in pieces(self.descriptor, head, end):
            hashed.update(piece)
            head += len(piece)
        if head < end:
            return Step.LOST
        self._hash = hashed
        self._chain = (head, hashed)
        self.head = head
        return Step.WHOLE if head == self.size else Step.MOVED

    def take_over(self) -> Partial:
        """Go on in the other's place, once `look` said that it is gone: with its file, and what was hashed of that here."""
        partial = Partial(self._room, self.descriptor, self._path, self.digest, self.size)
        self._is_handed_on = True
        partial.resume(Progress(self.head, self._hash, partial.state()))
        partial.tell(Doing.FILLING)
        return partial

    def begin_anew(self) -> Partial | Followed:
        """Look anew, where nothing was read of the other's: what has got its name, or a download of this process's own. Raises OSError."""
        anew = open_arriving(self._folder, self._room, self.digest, self.size, along=False)
        if anew is None:
            raise OSError(errno.ENOSPC, "the cache has no room")
        self.close(resumable=False)
        return anew

    def still_stands(self) -> bool:
        """Whether what was read of it a moment ago was the writer's whom it is read along with: another may have begun anew."""
        told = self._log.told()
        if self._is_handed_on:
            return True
        if is_at(self.descriptor, self._path):
            return told is not None and told.writer == self._writer
        return is_at(self.descriptor, self._named)

    def verify(self) -> None:
        """Raise DigestMismatch unless all that was hashed here is right."""
        found = self._hash.hexdigest()
        if found != self.digest.hex:
            raise DigestMismatch(f"the bytes are {self.digest.algorithm}:{found}, not {self.digest}")

    # ── reading, as of a Partial ──

    def end_of(self, offset: int) -> int:
        """Up to where all is there from ``offset`` on."""
        return max(offset, self.head)

    def chain(self) -> tuple[int, _Hash]:
        """How far it came, and the hash up to there."""
        head, hashed = self._chain
        return head, hashed.copy()

    def close(self, *, resumable: bool) -> Progress | None:  # noqa: ARG002 - it is the other's to resume
        """Let go of it."""
        if not self._is_handed_on:
            os.close(self.descriptor)
        return None


# ── the loop that follows ──


async def follow(download: Download, followed: Followed, moved: Callable[[], None]) -> None:
    """Read along until all is there and verified, until the other ends and this process has its file, or until it leads nowhere.

    Calls ``moved`` when it went on. Raises DigestMismatch.
    """
    try:
        await _follow(download, followed, moved)
    except OSError as error:
        download.lose(error)


async def _follow(download: Download, followed: Followed, moved: Callable[[], None]) -> None:
    since, pause, doing = trio.current_time(), _SHORTEST, followed.doing
    while not download.is_lost:
        step = await in_thread(followed.look)
        if step is Step.WHOLE:
            await download.settle()
            return
        if step is Step.TAKEN:
            logger.info("cache: %s is taken over: who downloaded it has ended", followed.digest)
            download.go_on_with(await in_thread(followed.take_over))
            return
        if step is Step.MOVED:
            since, pause = trio.current_time(), _SHORTEST
            moved()
            download.changed()
            continue
        if followed.doing is not doing:
            since, doing = trio.current_time(), followed.doing
        patience = PATIENCE if doing is Doing.FILLING else _MOMENT
        if step is Step.LOST or trio.current_time() >= since + patience:
            await _do_without(download, followed)
            return
        await trio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST)


async def _do_without(download: Download, followed: Followed) -> None:
    if followed.head:  # some was read: who goes on must do so behind that, and not in the other's file
        download.lose(OSError(errno.ETIMEDOUT, "who else downloads it does not go on"))
        return
    download.go_on_with(await in_thread(followed.begin_anew))
