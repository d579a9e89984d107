"""A download on disk that is not yet whole: written from its beginning on, and in ranges ahead of that.

All here blocks and belongs in threads: one that writes at the head, any that write ranges and read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regfs.cache.entry import PIECE, pieces, set_stamp
from regfs.cache.folder import LOG, Folder, is_at, open_to_change, settle, write_all
from regfs.cache.plan import cost
from regfs.cache.record import LONGEST_LINE, TOLD_LENGTH, Doing, Log, Received, Told
from regfs.cache.room import Lease, Room
from regfs.cache.spans import Spans
from regfs.digest import Digest
from regfs.errors import DigestMismatch

if TYPE_CHECKING:
    from hashlib import _Hash

_RECORD_EVERY: Final = 4 * 1024 * 1024
_SMALL: Final = 256 * 1024
"""Bytes of a content that comes so soon that telling others would cost more than that they fetch it too."""
_ALONGSIDE: Final = 256 * 1024
"""Bytes from which hashing in one thread while another writes is worth the switch between them."""


@cache
def _hashers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4, "regfs-hash")


def _update(hashed: _Hash, chunks: Sequence[bytes | memoryview]) -> None:
    for chunk in chunks:
        hashed.update(chunk)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download was when it was closed: who goes on in the same process need not hash it again."""

    head: int
    hashed: _Hash
    state: tuple[int, int, int]


class Partial:
    """One download's file. ``head``: all before it was received and hashed; ``size``: what its descriptor says."""

    def __init__(self, room: Room, descriptor: int, path: Path, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self.head = 0
        self.descriptor = descriptor
        self._room = room
        self._path = path
        self._hash = hashlib.new(digest.algorithm)
        self._log = Log(path.with_name(path.name + LOG))
        self._log_room = cost(TOLD_LENGTH + size // _RECORD_EVERY * LONGEST_LINE)
        there = self._allocated()
        self._lease = Lease(room, cost(there) + cost(self._log.allocated()) if there else 0)
        self._to_prove = self._log.read(size)
        self._recorded: list[Received] = []
        self._spans, self._proven = Spans(), Spans()
        self._unchecked = [line for line in self._to_prove if line.kind != "head"]
        self._to_prove = [line for line in self._to_prove if line.kind == "head"]
        for line in self._unchecked:
            self._spans.add(line.start, line.end)
        self._guard = threading.Lock()
        self._write_guard = threading.Lock()
        self._turn = threading.Lock()
        """Had by who writes at the head or a range: else a range could replace what was hashed at the head."""
        self._name = os.urandom(8).hex()
        self._doing = Doing.OPENING
        self._is_told = size > _SMALL and path.name == digest.file_name
        self._modified = self.state()
        self._is_changed = False
        self._kept = False

    @classmethod
    def take(cls, folder: Folder, room: Room, digest: Digest, size: int) -> Partial | None:
        """The one that is there, or a new one; None where another process has it. Under the lock of ``room``. Raises OSError."""
        path = folder.partial(digest)
        descriptor = open_to_change(path, os.O_CREAT)
        if descriptor is None:
            return None
        taken = cls(room, descriptor, path, digest, size)
        taken.tell(Doing.OPENING)  # who reads along takes nobody's word but that of the one who writes now
        return taken

    @classmethod
    def beside(cls, folder: Folder, room: Room, digest: Digest, size: int) -> Partial:
        """One beside another process's, in a file that can't be resumed. Raises OSError."""
        descriptor, path = folder.new_file()
        return cls(room, descriptor, path, digest, size)

    def tell(self, doing: Doing) -> None:
        """Let other processes know how far it is, and whether it goes on."""
        self._doing = doing
        if not self._kept and self._is_told:
            self._log.tell(self._told())

    def _told(self) -> Told:
        return Told(self._name, self.head, self._doing)

    # ── going on with what is there ──

    def resume(self, progress: Progress | None) -> None:
        """Take up what this process left, if nobody touched it since."""
        if progress is not None and progress.state == self.state() and progress.head <= self.size:
            self.head, self._hash = progress.head, progress.hashed
            self._recorded = [line for line in self._to_prove if line.end <= self.head]
            self._to_prove = []

    def recall(self) -> bool:
        """Prove the next piece of what is there by hashing it; False once there is no more. Raises OSError."""
        if self._doing is not Doing.FILLING:
            self._doing = Doing.FILLING
            if self._to_prove:
                self.tell(Doing.FILLING)
        if not self._to_prove:
            self._begin_log_anew()
            return False
        line = self._to_prove.pop(0)
        hashed, head = self._hash.copy(), self.head
        for piece in pieces(self.descriptor, head, line.end):
            hashed.update(piece)
            head += len(piece)
        if head == line.end and hashed.hexdigest() == line.hex:
            self._hash, self.head = hashed, head
            self._recorded.append(line)
        else:
            self._to_prove = []
        return True

    def _begin_log_anew(self) -> None:
        # A range that is being written is not counted yet, and must not be cut off.
        with self._turn, self._guard:
            self._check_unchanged()
            os.ftruncate(self.descriptor, max([self.head, *(end for _, end in self._spans)]))
            self._modified = self.state()
            lines = [*self._recorded, *self._unchecked]
            if lines or self._is_told:
                self._log.rewrite(self._told(), lines)
            else:
                self._log.remove()
        self._lease.end(cost(self._allocated()) + cost(self._log.allocated()))

    # ── writing ──

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Write and hash what comes next. DigestMismatch where it is not what was read there before; OSError: no room."""
        with self._turn:
            self._append_in_turn(chunks)
        self.tell(Doing.FILLING)

    def _append_in_turn(self, chunks: Sequence[bytes | memoryview]) -> None:
        size = sum(map(len, chunks))
        hashed = self._hash.copy()
        if size < _ALONGSIDE:
            _update(hashed, chunks)
            self._append(chunks)
        else:
            hashing = _hashers().submit(_update, hashed, chunks)
            try:
                self._append(chunks)
            finally:
                hashing.result()
        with self._guard:
            self._hash = hashed
            self.head += size
        if self.head - (self._recorded[-1].end if self._recorded else 0) >= _RECORD_EVERY:
            self._record()

    def _append(self, chunks: Sequence[bytes | memoryview]) -> None:
        at = self.head
        for chunk in chunks:
            self._compare(chunk, at)
            self._write(chunk, at)
            at += len(chunk)

    def put(self, start: int, data: bytes, *, proven: bool) -> None:
        """Write a range. What is there already stays as it is, unless it was not proven and this is. Raises OSError."""
        with self._turn:
            self._put_in_turn(start, data, proven=proven)

    def _put_in_turn(self, start: int, data: bytes, *, proven: bool) -> None:
        end = start + len(data)
        with self._guard:
            there = self._proven.covers(start, end) or end <= self.head
            if there or (not proven and self._spans.covers(start, end)):
                return
            gaps = Spans()
            gaps.add(start, end)
            for low, high in list(self._proven if proven else self._spans):
                gaps.remove(low, high)
            gaps.remove(0, self.head)
        view = memoryview(data)
        for low, high in gaps:
            self._write(view[low - start : high - start], low)
        self._log.add(Received("proven" if proven else "span", start, end, self._hex(data)))
        with self._guard:
            self._spans.add(start, end)
            if proven:
                self._proven.add(start, end)

    def _write(self, data: bytes | memoryview, start: int) -> None:
        # Half a grant is taken at a time: with what is on its way, and the log, that is less than others reckon with.
        step = min(PIECE, self._room.grant // 4)
        view = memoryview(data)
        for at in range(0, len(view), step):
            self._write_piece(view[at : at + step], start + at)

    def _write_piece(self, piece: memoryview, start: int) -> None:
        with self._write_guard:
            self._lease.cover(self._allocated() + len(piece) + self._log_room, self.size)
            self._check_unchanged()
            self._write_or_make_room(piece, start)
            self._modified = self.state()

    def _check_unchanged(self) -> None:
        """What was hashed as it came must still be what stands there. Raises OSError: somebody else wrote into the file."""
        if self.state() != self._modified:
            self._is_changed = True
            raise OSError(errno.EIO, "somebody else changes it")

    def _write_or_make_room(self, piece: memoryview, start: int) -> None:
        try:
            write_all(self.descriptor, piece, start)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or not self._room.squeeze(self._room.grant):
                raise
            write_all(self.descriptor, piece, start)

    def _compare(self, data: bytes | memoryview, start: int) -> None:
        """What comes must be what ranges brought before: who read those would else be told that all was right."""
        end = start + len(data)
        with self._guard:
            given = Spans()
            for low, high in self._spans:
                given.add(max(low, start), min(high, end))
            for line in self._unchecked:  # nobody in this process has read those
                given.remove(line.start, line.end)
        for low, high in given:
            if b"".join(pieces(self.descriptor, low, high)) != data[low - start : high - start]:
                raise DigestMismatch(
                    f"{self.digest}: bytes {low} to {high} differ from those that came before"
                )

    def _record(self) -> None:
        line = Received("head", 0, self.head, self._hash.hexdigest())
        self._recorded.append(line)
        self._log.add(line)

    # ── reading ──

    def end_of(self, offset: int) -> int:
        """Up to where all is there from ``offset`` on; ``offset`` itself where it is not."""
        with self._guard:
            end = max(offset, self.head)
            return max(end, self._spans.end_of(end if offset <= self.head else offset))

    def is_proven(self, start: int, end: int) -> bool:
        """Whether that range was verified by a digest of its own, in this process."""
        with self._guard:
            return self._proven.covers(start, end)

    def check(self, start: int, end: int) -> bool:
        """Hash the ranges in there that an earlier process wrote; False where one is damaged, and now forgotten. Raises OSError."""
        with self._guard:
            lines = [line for line in self._unchecked if line.start < end and line.end > start]
        good = True
        for line in lines:
            data = b"".join(pieces(self.descriptor, line.start, line.end))
            intact = len(data) == line.end - line.start and self._hex(data) == line.hex
            good = good and intact
            with self._guard:
                if line in self._unchecked:
                    self._unchecked.remove(line)
                    self._settle_span(line, intact=intact)
        return good

    def needs_check(self, start: int, end: int) -> bool:
        """Whether an earlier process wrote some of that range, and nobody looked at it since."""
        if not self._unchecked or end <= self.head:
            return False
        with self._guard:
            return any(line.start < end and line.end > start for line in self._unchecked)

    def _settle_span(self, line: Received, *, intact: bool) -> None:
        if not intact:
            self._spans.remove(line.start, line.end)
        elif line.kind == "proven":
            self._proven.add(line.start, line.end)

    # ── its end ──

    def chain(self) -> tuple[int, _Hash]:
        """How far it came in order, and the hash up to there."""
        with self._guard:
            return self.head, self._hash.copy()

    def verify(self) -> None:
        """Raise DigestMismatch unless it is whole and right."""
        if self.head != self.size:
            raise DigestMismatch(f"{self.digest}: {self.head} bytes came, its descriptor says {self.size}")
        found = self._hash.hexdigest()
        if found != self.digest.hex:
            raise DigestMismatch(f"the bytes are {self.digest.algorithm}:{found}, not {self.digest}")

    def keep(self, path: Path) -> None:
        """Give it its digest's name, which it must have been verified for. Raises OSError; then it bears none."""
        self._check_unchanged()
        set_stamp(self.descriptor, self.digest)
        settle(self.descriptor, self._path, path)
        self._kept = True
        self._log.remove()
        self._lease.end(cost(self._allocated()))

    def drop(self) -> None:
        """Remove it. Who reads it still can, as long as it is open."""
        if self._kept:
            return
        if is_at(self.descriptor, self._path):
            self._log.remove()
            with suppress(OSError):
                self._path.unlink()
        self._lease.end(0)

    def close(self, *, resumable: bool) -> Progress | None:
        """Close it, and leave it to be resumed where that makes sense and was asked for; how far it then was."""
        progress = None
        try:
            there = self.head or self._spans or self._to_prove
            if not self._kept and not (resumable and there and not self._is_changed and self._is_canonical()):
                self.drop()
            elif not self._kept:
                progress = self._leave()
        except OSError:
            self.drop()
        finally:
            os.close(self.descriptor)
        return progress

    def _leave(self) -> Progress | None:
        if self.head > (self._recorded[-1].end if self._recorded else 0):
            self._record()
        self._lease.end(cost(self._allocated()) + cost(self._log.allocated()))
        if self._to_prove or self.state() != self._modified:
            return None  # it was changed by somebody else, or left before all that is there was looked at
        return Progress(self.head, self._hash, self.state())

    def _is_canonical(self) -> bool:
        return self._path.name == self.digest.file_name and is_at(self.descriptor, self._path)

    def _allocated(self) -> int:
        return os.fstat(self.descriptor).st_blocks * 512

    def state(self) -> tuple[int, int, int]:
        """What changes with every write."""
        found = os.fstat(self.descriptor)
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _hex(self, data: bytes) -> str:
        return hashlib.new(self.digest.algorithm, data).hexdigest()
