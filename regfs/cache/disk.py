"""Content by digest in a folder, shared by all processes of its owner.

Whatever is wrong with the disk costs only the keeping: what can't be kept is not there, and nothing here raises for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from regfs.cache.derived import open_derived, path_of, write_derived
from regfs.cache.download import Download, Reading
from regfs.cache.entry import Entry, open_content, remove_damaged, set_stamp
from regfs.cache.folder import Folder, UnsafeFolder, closing
from regfs.cache.followed import Followed, open_arriving
from regfs.cache.newfile import new_file
from regfs.cache.partial import Partial, Progress
from regfs.cache.plan import cost
from regfs.cache.room import Room
from regfs.cache.threads import in_thread, read_whole
from regfs.digest import Digest

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_WHOLE: Final = 64 * 1024 * 1024
"""The largest content that `DiskStore.get` and `put` hold in memory, in bytes."""

_REMEMBER: Final = 64


class DiskStore:
    """A ContentStore of at most ``limit`` bytes in ``root``, and the place of blobs that arrive in pieces.

    A root that can't be written to is read; one that others may write to is not used at all.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._folder = Folder(root)
        self._room = Room(self._folder, limit)
        self._downloads: dict[tuple[Digest, int], Download] = {}
        self._progress: OrderedDict[Digest, Progress] = OrderedDict()
        self._checked = threading.Lock()
        self._usable: bool | None = None

    async def sweep(self) -> None:
        """Remove what killed processes left half written, and what is over the limit. To be called once, when a daemon starts."""
        await in_thread(self._or, None, self._sweep)

    def _sweep(self) -> None:
        if self._folder.root.exists():
            self._room.shrink(self._room.limit)

    # ── small content, whole ──

    async def get(self, digest: Digest) -> bytes | None:
        """The whole content, hashed once more, or None."""
        return await in_thread(self._or, None, self._get, digest)

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep it, if there is room and it is what it should be."""
        if len(data) <= MAX_WHOLE:
            await in_thread(self._or, None, self._put, digest, data)

    def _get(self, digest: Digest) -> bytes | None:
        path = self._folder.content(digest)
        descriptor = open_content(path, digest)
        if descriptor is None:
            return None
        with closing(descriptor):
            size = os.fstat(descriptor).st_size
            if size > MAX_WHOLE:
                return None
            data = read_whole(descriptor, 0, size)
            if Digest.of(data, digest.algorithm) == digest:
                return data
            remove_damaged(descriptor, path)
        return None

    def _put(self, digest: Digest, data: bytes) -> None:
        path = self._folder.content(digest)
        descriptor = open_content(path, digest)
        if descriptor is not None:
            os.close(descriptor)
        elif Digest.of(data, digest.algorithm) != digest:
            logger.error("cache: what was to be kept as %s is something else", digest)
        elif self._may_write() and cost(len(data)) <= self._room.limit:
            with new_file(self._folder, self._room, path) as file:
                file.write(data)
                set_stamp(file.descriptor, digest)

    # ── content of any size ──

    async def open(self, digest: Digest, size: int) -> Entry | None:
        """Verified content of that size, held until it is closed; None where there is none."""
        return await in_thread(self._or, None, self._open, digest, size)

    async def download(self, digest: Digest, size: int) -> Reading | None:
        """Read a content of which not all is there: all who ask for it in this process share what arrives.

        Whoever gets a `Writer` from `Reading.claim` must fetch. None where it has no place: then read without the cache.
        """
        while (found := self._downloads.get((digest, size))) is None or not found.is_open:
            if found is not None and found.is_closing:
                await found.closed.wait()
                continue
            if found is not None:  # it proved wrong, and some still have it: whoever comes now begins anew
                del self._downloads[digest, size]
                with trio.CancelScope(shield=True):
                    await in_thread(found.drop)
            opened = await in_thread(self._or, None, self._open_partial, digest, size)
            if opened is None:
                return None
            if (digest, size) not in self._downloads:
                return self._start(opened).join()
            with trio.CancelScope(shield=True):  # somebody else was as quick
                await in_thread(partial(opened.close, resumable=True))
        return found.join()

    def _open(self, digest: Digest, size: int) -> Entry | None:
        path = self._folder.content(digest)
        descriptor = open_content(path, digest)
        if descriptor is None:
            return None
        entry = Entry(descriptor, path)
        if entry.size == size:
            return entry
        os.close(descriptor)  # it is right; what the caller's descriptor says of it is not
        return None

    def _open_partial(self, digest: Digest, size: int) -> Partial | Followed | None:
        if not self._may_write():
            return None
        opened = open_arriving(self._folder, self._room, digest, size)
        if isinstance(opened, Partial):
            opened.resume(self._progress.pop(digest, None))
        return opened

    def _start(self, opened: Partial | Followed) -> Download:
        digest, key = opened.digest, (opened.digest, opened.size)

        def forget(progress: Progress | None) -> None:
            if self._downloads.get(key) is download:
                del self._downloads[key]
            if progress is not None:
                self._progress[digest] = progress
                while len(self._progress) > _REMEMBER:
                    self._progress.popitem(last=False)

        download = Download(opened, self._folder.content(digest), forget)
        self._downloads[key] = download
        return download

    # ── what is derived from a content ──

    async def open_derived(self, digest: Digest, name: str, version: int) -> Entry | None:
        """What was kept under that name in that version of its format, verified and held until it is closed, or None."""
        return await in_thread(self._or, None, open_derived, path_of(self._folder, digest, name, version))

    async def put_derived(self, digest: Digest, name: str, version: int, chunks: Iterable[bytes]) -> None:
        """Keep what ``chunks`` give, if there is room; they are made in a thread, one after the other.

        Raises what they raise, unless that is an OSError."""
        path = path_of(self._folder, digest, name, version)
        await in_thread(self._or, None, self._put_derived, path, chunks)

    def _put_derived(self, path: Path, chunks: Iterable[bytes]) -> None:
        if self._may_write():
            write_derived(self._folder, self._room, path, chunks)

    # ── what a disk may do ──

    def _or(self, otherwise: T, work: Callable[..., T], *arguments: object) -> T:
        """The work's result, or ``otherwise`` where the disk or the folder does not allow it."""
        if not self._may_read():
            return otherwise
        try:
            return work(*arguments)
        except OSError as error:
            logger.info("cache: %s goes on without it: %s", self._folder.root, error.strerror or error)
            return otherwise

    def _may_read(self) -> bool:
        """Judge the folder once, and again while it is not there: it may have been made since."""
        with self._checked:
            if self._usable is None:
                try:
                    self._folder.check()
                    self._usable = True
                except UnsafeFolder as error:
                    logger.warning("the cache in %s is not used: %s", self._folder.root, error.strerror)
                    self._usable = False
                except OSError:
                    return True
            return self._usable

    def _may_write(self) -> bool:
        """Make the folders, also if somebody removed them. Raises OSError."""
        if self._room.limit == 0:
            return False
        self._folder.prepare()
        return True
