"""The cache's folder: what its files are called, how they are locked, and how one is written before it bears a name.

```
content/sha256-HEX            verified content
partial/sha256-HEX[.log]      a download not yet whole, and what of it was received when
partial/tmp-…                 what is being written
derived/sha256-HEX.NAME.N     made from a content: a layer's index, in version N of its format
lock                          locked while room is made or taken; holds how much is taken
```

A file in use is locked (flock): shared by who reads it, exclusively by who writes or removes it. A lock ends with its
process, however that ends. All here blocks, and belongs in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from regfs.digest import Digest

TEMPORARY: Final = "tmp-"
LOG: Final = ".log"

_NO_LOCKS_HERE: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_TAG: Final = "CACHEDIR.TAG"
_TAG_TEXT: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# regfs keeps what it read of registries here; all of it can be fetched again.\n"
)
"""What tells backup programs that they may pass over a folder (bford.info/cachedir)."""


class UnsafeFolder(OSError):
    """The folder belongs to, or may be changed by, somebody else: what it holds can't be believed."""


class Folder:
    """Where everything is. Nothing is made before it is needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents = root / "content"
        self.partials = root / "partial"
        self.derived = root / "derived"
        self.lock = root / "lock"

    def content(self, digest: Digest) -> Path:
        """Where a verified content is."""
        return self.contents / digest.file_name

    def partial(self, digest: Digest) -> Path:
        """Where a download that can be resumed is."""
        return self.partials / digest.file_name

    def prepare(self) -> None:
        """Make the folders. Raises OSError, and UnsafeFolder."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check()
        for folder in (self.contents, self.partials, self.derived):
            folder.mkdir(mode=0o700, exist_ok=True)
        tag = self.root / _TAG
        if not tag.exists():
            with suppress(OSError):
                tag.write_text(_TAG_TEXT)

    def check(self) -> None:
        """Raise UnsafeFolder where others than this user could have put something here; OSError where nothing is there."""
        found = self.root.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise UnsafeFolder(
                errno.EPERM, "others can write there, so what it holds can't be believed", str(self.root)
            )

    def new_file(self) -> tuple[int, Path]:
        """A new file under a name that says nothing: its descriptor, locked against removal, and its path. Raises OSError."""
        for _ in range(10):
            path = self.partials / f"{TEMPORARY}{uuid.uuid4().hex}"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            # A sweep between these two lines takes it for a leftover: then the next name is tried.
            if lock(descriptor, fcntl.LOCK_EX) and os.fstat(descriptor).st_nlink:
                return descriptor, path
            os.close(descriptor)
        raise BlockingIOError(errno.EAGAIN, "cannot be locked", str(self.partials))


def lock(descriptor: int, operation: int) -> bool:
    """Lock an open file without waiting; False where somebody else's lock forbids it. Raises OSError where there are no locks."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_to_read(path: Path) -> int | None:
    """Open a file and hold it against removal; None where it is not there, is no plain file, or is being removed.

    Raises OSError for what a disk may say besides.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        held = lock(descriptor, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            os.close(descriptor)
            raise
        held = True  # nothing can be removed there either, since that wants a lock
    found = os.fstat(descriptor)
    if held and found.st_nlink and stat.S_ISREG(found.st_mode):
        return descriptor
    os.close(descriptor)
    return None


def open_to_change(path: Path, flags: int = 0) -> int | None:
    """Open a file that nobody else has open, and lock it; None where it is not there or is in use. Raises OSError."""
    try:
        descriptor = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        return None
    try:
        if lock(descriptor, fcntl.LOCK_EX) and is_at(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still bears that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def is_in_use(path: Path) -> bool:
    """Whether somebody has a file open that is there."""
    try:
        descriptor = open_to_change(path)
    except OSError:
        return True
    if descriptor is None:
        return path.exists()
    os.close(descriptor)
    return False


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, start: int) -> None:
    """Write all of ``data`` at offset ``start``. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, start)
        start += written
        view = view[written:]


def flush_folder(path: Path) -> None:
    """A new name is on disk only once its folder is. Raises OSError."""
    with closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
        os.fsync(descriptor)


def settle(descriptor: int, temporary: Path, path: Path) -> None:
    """Give a file that is written its name. Raises OSError; then it has none.

    Its bytes are on disk before: after a power cut a name never leads to less. The folder is not flushed: a name that
    is lost is fetched again.
    """
    os.fsync(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    temporary.rename(path)
