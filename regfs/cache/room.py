"""Room in the cache: taken before it is filled, in sum over all processes that use the folder, and made by removing.

What is taken is counted in the lock file, so that to take some is a lock and two small reads. The count is never less
than what is there: room is counted before it is filled, and a process that is killed gives none back. It is counted
anew, from the files themselves, once it seems used up. All here blocks, and belongs in a thread.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regfs.cache.folder import LOG, TEMPORARY, Folder, closing, is_in_use, lock, open_to_change
from regfs.cache.plan import Group, cost, excess, victims

logger = logging.getLogger(__name__)

_GRANT: Final = 4 * 1024 * 1024
_SMALLEST_GRANT: Final = 64 * 1024

_PATIENCE: Final = 5.0
"""Seconds to wait for another process that makes room: it may be stopped, and reading must go on."""


@dataclass
class _Found:
    """A group as it is being looked up."""

    size: int = 0
    used: int = 0
    paths: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Count:
    """How much is taken, in bytes, by the count with that number and what was taken and given since."""

    used: int
    number: int


class Room:
    """The bound of one folder, as this process was told it; another may have been told another."""

    def __init__(self, folder: Folder, limit: int) -> None:
        self._folder = folder
        self.limit = limit
        self.grant = min(_GRANT, max(_SMALLEST_GRANT, limit // 64))
        """How much more, in bytes, may have been taken for a file that is being written than it shows."""

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Be the only one, of all processes, that takes or makes room; the lock file's descriptor. Raises OSError."""
        import fcntl

        with closing(os.open(self._folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as descriptor:
            deadline = time.monotonic() + _PATIENCE
            while not lock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has held {self._folder.lock} for {_PATIENCE:g} s")
                time.sleep(0.001)
            yield descriptor

    def take(self, size: int) -> int | None:
        """Take ``size`` bytes of room, made by removing if need be: the number of the count it is in; None: there is none.

        Raises OSError. What it is for must be visible as being written before, and fall short of what was taken for it
        by at most `grant`: another process may count anew at any time.
        """
        if cost(size) > self.limit:
            return None
        with self.locked() as descriptor:
            count = _counted(descriptor)
            if count is None or count.used + size > self.limit:
                groups = self._look()
                used = sum(group.size for group in groups.values())
                used = self._remove(groups, excess(used, size, self.limit))
                count = _Count(used, count.number + 1 if count else time.time_ns())
            fits = count.used + size <= self.limit
            _write_count(descriptor, _Count(count.used + size if fits else count.used, count.number))
            return count.number if fits else None

    def give(self, size: int, number: int) -> None:
        """Give room back that was taken in count ``number``: a later count knows already what became of it."""
        with suppress(OSError), self.locked() as descriptor:
            count = _counted(descriptor)
            if count is not None and count.number == number:
                _write_count(descriptor, _Count(max(0, count.used - size), number))

    def squeeze(self, size: int) -> bool:
        """Free ``size`` bytes of a disk that is full, though the cache is not; whether that was possible. Raises OSError."""
        before, after = self._reduce(lambda used: used - size)
        return before - after >= size

    def shrink(self, limit: int) -> tuple[int, int]:
        """Remove what is over ``limit``, leftovers first; what was there before and after, in bytes. Raises OSError."""
        return self._reduce(lambda _: limit)

    def _reduce(self, goal: Callable[[int], int]) -> tuple[int, int]:
        with self.locked() as descriptor:
            groups = self._look()
            before = sum(group.size for group in groups.values())
            after = self._remove(groups, max(0, before - goal(before)))
            count = _counted(descriptor)
            _write_count(descriptor, _Count(after, count.number + 1 if count else time.time_ns()))
            return before, after

    def _remove(self, groups: dict[str, _Found], free: int) -> int:
        """Remove groups until ``free`` bytes are free; how much is in use then."""
        used = sum(group.size for group in groups.values())
        goal = used - free
        held: set[str] = set()
        as_groups = [Group(name, found.size, found.used) for name, found in groups.items()]
        while used > goal and (chosen := victims(as_groups, used - goal, held)):
            for name in chosen:
                held.add(name)  # gone or in use: in either case not to be chosen again
                if _removed(groups[name].paths):
                    used -= groups[name].size
                    logger.debug("cache: %s removed", name)
        return used

    def _look(self) -> dict[str, _Found]:
        """What there is. Leftovers of processes that were killed are removed on the way."""
        groups: dict[str, _Found] = {}
        # What is given its name meanwhile must be met at least once: where it comes from is looked at first.
        for folder in (self._folder.partials, self._folder.derived, self._folder.contents):
            for path, found in _files(folder):
                size = cost(found.st_blocks * 512)
                if folder is self._folder.partials:
                    if _is_leftover(path):
                        path.unlink(missing_ok=True)
                        continue
                    size += 0 if path.suffix == LOG or not is_in_use(path) else self.grant
                used = found.st_atime_ns if folder is self._folder.contents else _last(found)
                # A content's name has no dot; what belongs to it continues behind one.
                group = groups.setdefault(path.name.partition(".")[0], _Found())
                group.size += size
                group.used = max(group.used, used)
                group.paths.append(path)
        return groups


class Lease:
    """What was taken for one file that is being written."""

    def __init__(self, room: Room, taken: int = 0) -> None:
        self._room = room
        self._number: int | None = None
        self._guard = threading.Lock()
        self.taken = taken

    def cover(self, size: int, most: int) -> None:
        """Take so much that it is enough for ``size`` bytes, ahead of what is needed but never for over ``most``. Raises OSError."""
        with self._guard:
            wanted = size - self.taken
            if wanted <= 0:
                return
            wanted = max(wanted, min(self._room.grant // 2, cost(most)))
            number = self._room.take(wanted)
            if number is None:
                raise OSError(errno.ENOSPC, "the cache has no room")
            self._number = number
            self.taken += wanted

    def end(self, used: int) -> None:
        """Give back all but ``used`` bytes. Where all was counted anew since the last were taken, the next count does.

        What was taken before a count is in it, by `Room.grant` at the latest, so that not more is given than was counted.
        """
        with self._guard:
            unused, self.taken = self.taken - used, min(self.taken, used)
            if unused > 0 and self._number is not None:
                self._room.give(unused, self._number)


def _last(found: os.stat_result) -> int:
    return max(found.st_atime_ns, found.st_mtime_ns)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        with suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def _is_leftover(path: Path) -> bool:
    """What nobody writes any more, and nobody can go on with."""
    if path.suffix == LOG:
        return not path.with_suffix("").exists()
    return path.name.startswith(TEMPORARY) and not is_in_use(path)


def _removed(paths: list[Path]) -> bool:
    """Remove the files of a group, what is derived from a content before the content; False where one is in use."""
    with ExitStack() as stack:
        for path in paths:
            if path.suffix == LOG:
                continue  # goes with its partial download, under whose lock it is
            try:
                descriptor = open_to_change(path)
            except OSError:
                return False
            if descriptor is None:
                return False  # in use, or under another name by now, where it still takes its room
            stack.enter_context(closing(descriptor))
        try:
            for path in sorted(paths, key=lambda path: (path.suffix == "", path.parent.name == "content")):
                path.unlink(missing_ok=True)
        except OSError:
            return False
    return True


def _counted(descriptor: int) -> _Count | None:
    words = os.pread(descriptor, 64, 0).split()
    return (
        _Count(int(words[0]), int(words[1])) if len(words) == 2 and all(map(bytes.isdigit, words)) else None
    )


def _write_count(descriptor: int, count: _Count) -> None:
    text = f"{count.used:020d} {count.number:020d}\n".encode()
    if os.pwrite(descriptor, text, 0) != len(text):
        os.ftruncate(descriptor, 0)
