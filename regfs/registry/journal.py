"""The journal of deletions: what is needed to finish or undo one that was broken off, on disk before it begins.

An entry is one file, written whole and flushed to disk before it bears its name. Whoever wrote it holds a lock on it
(flock) for as long as the deletion runs; the lock ends with its process, however that ends, so what can be locked was
left behind. There is no secret in it: names, and a manifest's bytes. All here blocks, and belongs in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from regfs.digest import Digest
from regfs.errors import DigestMismatch, Refused, Unsupported
from regfs.reference import is_repository, is_tag

_ENTRY: Final = ".deletion"
_UNFINISHED: Final = ".unfinished"
_STALE_AFTER: Final = 3600.0

logger = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One deletion under way: the original manifest's bytes (``raw``), type and digest, and what was to be done.

    A deletion by a throw-away has that manifest's bytes in ``throw_away``. One by the registry's own tag deletion has
    in ``siblings`` the other tags that pointed to the original.
    """

    registry: str
    repository: str
    tag: str
    raw: bytes
    media_type: str
    digest: str
    throw_away: bytes = b""
    siblings: tuple[str, ...] = ()
    id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    version: Literal[1] = 1

    @property
    def throw_away_digest(self) -> Digest:
        """The throw-away's digest, by which it is deleted."""
        return Digest.of(self.throw_away)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.registry}/{self.repository}:{self.tag}"


class Journal:
    """The entries of one connection, in ``folder``, which is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def path(self, entry: Entry) -> Path:
        """Where an entry is kept."""
        return self._folder / f"{entry.id}{_ENTRY}"

    def record(self, entry: Entry) -> None:
        """Bring an entry to disk and hold it. Raises Refused where that fails: then nothing may be done."""
        try:
            _make_folder(self._folder)
            self._held[entry.id] = _write(self.path(entry), msgspec.json.encode(entry))
        except OSError as error:
            raise Refused(
                f"nothing is deleted without a journal entry on disk, and it cannot be written:"
                f" {self._folder}: {error.strerror}"
            ) from error

    def erase(self, entry: Entry) -> None:
        """End an entry whose deletion is finished or undone. A file that stays is harmless: recovery looks first."""
        try:
            self.path(entry).unlink(missing_ok=True)
            _flush_folder(self._folder)
        except OSError as error:
            logger.warning("cannot remove the journal entry %s: %s", self.path(entry), error.strerror)
        self.release(entry)

    def release(self, entry: Entry) -> None:
        """Leave an entry, as it is on disk, to recovery."""
        descriptor = self._held.pop(entry.id, None)
        if descriptor is not None:
            os.close(descriptor)

    def hold_leftovers(self, registry: str) -> tuple[list[Entry], list[str]]:
        """The entries of a registry that nobody works on, held until `erase` or `release`; and what cannot be read.

        A daemon that shares the folder and is alive keeps its entries. Raises Refused where the folder cannot be read.
        """
        entries, unreadable = [], []
        for path in self._files(_ENTRY):
            descriptor = _lock(path)
            if descriptor is None:
                continue
            try:
                entry = _read(descriptor, path)
            except (OSError, ValueError, msgspec.MsgspecError, Unsupported, DigestMismatch) as error:
                unreadable.append(f"the journal entry {path} cannot be read and is left alone: {error}")
                entry = None
            if entry is not None and entry.registry == registry:
                self._held[entry.id] = descriptor
                entries.append(entry)
            else:
                os.close(descriptor)
        self._sweep()
        return entries, unreadable

    def mark(self, fact: str, registry: str) -> None:
        """Remember a fact about a registry for good. Raises Refused where that fails."""
        path = self._mark(fact, registry)
        try:
            _make_folder(self._folder)
            os.close(_write(path, f"{registry}\n".encode()))
        except OSError as error:
            raise Refused(f"cannot write {path}: {error.strerror}") from error

    def is_marked(self, fact: str, registry: str) -> bool:
        """Whether `mark` was called for it, in this process or an earlier one."""
        return self._mark(fact, registry).exists()

    def _mark(self, fact: str, registry: str) -> Path:
        return self._folder / f"{fact}.{hashlib.sha256(registry.encode()).hexdigest()[:16]}"

    def _files(self, suffix: str) -> Sequence[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == suffix)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise Refused(f"cannot read the journal {self._folder}: {error.strerror}") from error

    def _sweep(self) -> None:
        """Remove what a process that was killed while writing left: it has no name yet, so nothing was begun."""
        for path in self._files(_UNFINISHED):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_AFTER:
                    path.unlink()


def _write(path: Path, data: bytes) -> int:
    """Write a file whole, or not at all; the descriptor, which holds the lock. The lock is there before the name is."""
    unfinished = path.with_name(f"{uuid.uuid4().hex}{_UNFINISHED}")
    descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
        unfinished.rename(path)
        _flush_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            unfinished.unlink()
        raise
    return descriptor


def _lock(path: Path) -> int | None:
    """Open and lock a file; None where another has it, or where it went meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _read(descriptor: int, path: Path) -> Entry:
    """Read an entry. What is to be sent to a registry later is held against its digest and grammar first."""
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        entry = msgspec.json.decode(file.read(), type=Entry)
    if f"{entry.id}{_ENTRY}" != path.name:
        raise ValueError("it bears another's name")
    if not is_repository(entry.repository) or not all(map(is_tag, (entry.tag, *entry.siblings))):
        raise ValueError("it names what no registry holds")
    Digest.parse(entry.digest).check(entry.raw, "the saved manifest")
    return entry


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    """A new name is on disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
