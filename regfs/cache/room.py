"""Room in the cache: taken before it is filled, in sum over all processes that use the folder, and made by removing.

What is taken is counted in the lock file, so that to take some is a lock and two small reads. The count is never less
than what is there: room is counted before it is filled, and a process that is killed gives none back. It is counted
anew, from the files themselves, once it seems used up. All here blocks, and belongs in a thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
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

    def take(self, size: int) -> bool:
        """Take ``size`` bytes of room, made by removing if need be; False where that can't be. Raises OSError."""
        if cost(size) > self.limit:
            return False
        with self.locked() as counter:
            used = _counted(counter)
            if used is None or used + size > self.limit:
                used = self._make(size)
            fits = used + size <= self.limit
            _count(counter, used + size if fits else used)
            return fits

    def give(self, size: int) -> None:
        """Give room back that was taken and not used, or is free again."""
        with suppress(OSError), self.locked() as counter:
            used = _counted(counter)
            if used is not None:
                _count(counter, max(0, used - size))

    def squeeze(self, size: int) -> bool:
        """Free ``size`` bytes of a disk that is full, though the cache is not; whether that was possible. Raises OSError."""
        with self.locked() as counter:
            groups = self._look()
            before = sum(group.size for group in groups.values())
            after = self._remove(groups, size)
            _count(counter, after)
            return before - after >= size

    def shrink(self, limit: int) -> tuple[int, int]:
        """Remove what is over ``limit``, leftovers first; what was there before and after, in bytes. Raises OSError."""
        with self.locked() as counter:
            groups = self._look()
            before = sum(group.size for group in groups.values())
            after = self._remove(groups, max(0, before - limit))
            _count(counter, after)
            return before, after

    def _make(self, size: int) -> int:
        groups = self._look()
        used = sum(group.size for group in groups.values())
        return self._remove(groups, excess(used, size, self.limit))

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
        for folder in (self._folder.derived, self._folder.partials, self._folder.contents):
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
            if descriptor is not None:
                stack.enter_context(closing(descriptor))
            elif path.exists():
                return False
        try:
            for path in sorted(paths, key=lambda path: (path.suffix == "", path.parent.name == "content")):
                path.unlink(missing_ok=True)
        except OSError:
            return False
    return True


def _counted(descriptor: int) -> int | None:
    text = os.pread(descriptor, 64, 0).strip()
    return int(text) if text.isdigit() else None


def _count(descriptor: int, used: int) -> None:
    text = f"{used:020d}\n".encode()
    if os.pwrite(descriptor, text, 0) != len(text):
        os.ftruncate(descriptor, 0)
