"""One OCI image layout on disk: its index, its blobs, and taking a tag out of it. All here blocks: call it in a thread.

Format: OCI image-spec 1.1, image-layout.md. What is on the disk is no more trusted than a registry's reply.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    Moved,
    NotFound,
    Refused,
    RegfsError,
    TooLarge,
    Unsupported,
)
from regfs.manifest import Descriptor
from regfs.reference import is_tag

MAX_INDEX: Final = 32 * 1024 * 1024
"""The largest index.json read, in bytes."""

REF_NAME: Final = "org.opencontainers.image.ref.name"

_MARKER: Final = "oci-layout"
_INDEX: Final = "index.json"
_VERSION: Final = "1.0.0"
_MAX_MARKER: Final = 4096
_LOCK_SECONDS: Final = 10.0
_LOCK_PAUSE: Final = 0.02


class _MarkerShape(msgspec.Struct, rename="camel"):
    image_layout_version: str


class _EntryShape(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None


_MARKER_DECODER: Final = msgspec.json.Decoder(_MarkerShape)
_ENTRY_DECODER: Final = msgspec.json.Decoder(_EntryShape)
_OBJECT_DECODER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY_DECODER: Final = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Index:
    """What an index.json says: where each tag points, and what it points at at all.

    ``skipped`` counts entries that cannot be used, and reference names that hold no tag.
    """

    tags: Mapping[str, Descriptor]
    media_types: Mapping[Digest, str]
    skipped: int = 0


def tag_of(reference_name: str) -> str | None:
    """The tag that a ``ref.name`` annotation names: it holds a tag, or, from some tools, a whole reference."""
    if is_tag(reference_name):
        return reference_name
    name = reference_name.partition("@")[0].rpartition("/")[2]
    _, colon, tag = name.rpartition(":")
    return tag if colon and is_tag(tag) else None


def is_layout(folder: Path) -> bool:
    """Whether there is an image layout in ``folder``, of whatever version."""
    return (folder / _MARKER).is_file() and (folder / _INDEX).is_file()


class Layout:
    """The layout in ``folder``. Nothing is read from outside ``root``, wherever symbolic links lead.

    ``name`` is how messages call it, ``registry`` what they say it is in.
    """

    def __init__(self, folder: Path, root: Path, name: str, registry: str) -> None:
        self._folder = folder
        self._root = root
        self._name = name
        self._registry = registry

    def index(self) -> Index:
        """Read index.json. Raises NotFound: no layout here; Unsupported: another version; BadReply: not valid."""
        with self._errors():
            self._check_version()
            with self._opened(self._folder / _INDEX) as descriptor:
                return self._parsed(_read(descriptor, MAX_INDEX))

    def fingerprint(self) -> tuple[int, int, int]:
        """Differs when index.json has changed, except within one tick of the disk's clock. Raises NotFound."""
        with self._errors():
            found = (self._folder / _INDEX).stat()
            return found.st_ino, found.st_mtime_ns, found.st_size

    def open_blob(self, digest: Digest) -> OpenBlob:
        """Open a blob. Raises NotFound."""
        with self._errors(f"blob {digest}"):
            return OpenBlob(self._open(self._folder / "blobs" / digest.algorithm / digest.hex))

    def remove_tag(self, tag: str, seen: Digest | None) -> None:
        """Take ``tag`` out of index.json, atomically; what it points at stays there, without a name if it had no other.

        Raises NotFound, Moved (it points elsewhere than ``seen``), Refused (index.json cannot be written),
        DeadlineExceeded (somebody else keeps it locked).
        """
        with self._errors("index.json", writing=True), self._locked_index() as (path, descriptor):
            self._check_version()
            raw = _read(descriptor, MAX_INDEX)
            current = self._parsed(raw).tags.get(tag)
            if current is None:
                raise NotFound(f"there is no tag {tag} in {self._name}", registry=self._registry)
            if seen is not None and current.digest != seen:
                raise Moved(f"{self._name}:{tag} is {current.digest} by now", registry=self._registry)
            self._replace(path, _without_tag(raw, tag))

    def _check_version(self) -> None:
        with self._opened(self._folder / _MARKER) as descriptor:
            try:
                version = _MARKER_DECODER.decode(_read(descriptor, _MAX_MARKER)).image_layout_version
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                raise BadReply(
                    f"{self._name}/{_MARKER} is not valid: {str(error)[:200]}", registry=self._registry
                ) from error
        if version != _VERSION:
            raise Unsupported(
                f"{self._name} is an OCI layout of version {version[:40]!r}; only {_VERSION} is known",
                registry=self._registry,
            )

    def _parsed(self, raw: bytes) -> Index:
        try:
            entries = _ARRAY_DECODER.decode(_OBJECT_DECODER.decode(raw).get("manifests", b"[]"))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise BadReply(
                f"{self._name}/{_INDEX} is not valid: {str(error)[:200]}", registry=self._registry
            ) from error
        return _indexed(entries)

    def _open(self, path: Path, access: int = os.O_RDONLY) -> int:
        """Open a regular file inside the root: a link out of it would show any file that the daemon may read."""
        real = Path(os.path.realpath(path, strict=True))
        if not real.is_relative_to(os.path.realpath(self._root)):
            raise NotFound(f"{path} leads out of {self._root}", registry=self._registry)
        descriptor = os.open(real, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFound(f"{path} is no regular file", registry=self._registry)
        return descriptor

    @contextmanager
    def _opened(self, path: Path, access: int = os.O_RDONLY) -> Iterator[int]:
        descriptor = self._open(path, access)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked_index(self) -> Iterator[tuple[Path, int]]:
        """index.json, locked. Whoever waited may hold a file that was replaced meanwhile: then it begins anew."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            # Open for writing, since a network disk gives no exclusive lock otherwise.
            with self._opened(self._folder / _INDEX, os.O_RDWR) as descriptor:
                path = Path(os.path.realpath(self._folder / _INDEX))
                if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.stat()):
                    yield path, descriptor
                    return
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{path} has been locked by another program for {_LOCK_SECONDS:g} s",
                    registry=self._registry,
                )
            time.sleep(_LOCK_PAUSE)

    @staticmethod
    def _replace(path: Path, data: bytes) -> None:
        """Put ``data`` in place of a file: a reader sees the old or the new one, also after a power failure."""
        descriptor, name = tempfile.mkstemp(prefix=".index.json.", dir=path.parent)
        try:
            _write(descriptor, data, path.stat())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        _flush_folder(path.parent)

    @contextmanager
    def _errors(self, what: str = "layout", *, writing: bool = False) -> Iterator[None]:
        """The disk's errors, as regfs has them."""
        try:
            yield
        except OSError as error:
            raise disk_error(error, f"{what} in {self._name}", self._registry, writing=writing) from error


class OpenBlob:
    """An open blob. Closed when the last who holds it lets go: a read that was given up may still run in a thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``; none at the end. Raises OSError."""
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        os.close(self._descriptor)


def disk_error(error: OSError, what: str, registry: str, *, writing: bool = False) -> RegfsError:
    """What an error of the disk's means to whoever asked for ``what``."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return NotFound(f"there is no {what}", registry=registry)
    if writing:
        return Refused(f"{what} cannot be written: {error.strerror}", registry=registry)
    if isinstance(error, PermissionError):
        return Forbidden(f"{what} cannot be read: {error.strerror}", registry=registry)
    return ConnectionFailed(f"{what} cannot be read: {error.strerror}", registry=registry)


def _indexed(entries: Sequence[msgspec.Raw]) -> Index:
    tags: dict[str, Descriptor] = {}
    media_types: dict[Digest, str] = {}
    skipped = 0
    for entry in entries:
        found = _entry(entry)
        if found is None:
            skipped += 1
            continue
        descriptor, reference_name = found
        media_types.setdefault(descriptor.digest, descriptor.media_type)
        tag = tag_of(reference_name) if reference_name is not None else None
        if tag is not None:
            tags.setdefault(tag, descriptor)
        elif reference_name is not None:
            skipped += 1
    return Index(tags, media_types, skipped)


def _entry(raw: msgspec.Raw) -> tuple[Descriptor, str | None] | None:
    """An entry's descriptor and reference name; None for one that cannot be used."""
    try:
        shape = _ENTRY_DECODER.decode(raw)
        digest = Digest.parse(shape.digest)
    except (msgspec.MsgspecError, ValueError, RecursionError, Unsupported):
        return None
    if shape.size < 0:
        return None
    return Descriptor(shape.media_type, digest, shape.size), (shape.annotations or {}).get(REF_NAME)


def _without_tag(raw: bytes, tag: str) -> bytes:
    """index.json without a tag. Values that are kept are kept byte for byte, known or not.

    An entry goes where another one keeps its digest; the last one of a digest loses its name only.
    """
    document = _OBJECT_DECODER.decode(raw)
    entries = _ARRAY_DECODER.decode(document["manifests"])
    read = [_entry(entry) for entry in entries]
    named = [found is not None and found[1] is not None and tag_of(found[1]) == tag for found in read]
    held = {found[0].digest for found, gone in zip(read, named, strict=True) if found and not gone}
    kept: list[msgspec.Raw] = []
    for entry, found, gone in zip(entries, read, named, strict=True):
        if not gone or found is None:
            kept.append(entry)
        elif found[0].digest not in held:
            held.add(found[0].digest)
            kept.append(_nameless(entry))
    document["manifests"] = msgspec.Raw(msgspec.json.encode(kept))
    return msgspec.json.encode(document)


def _nameless(entry: msgspec.Raw) -> msgspec.Raw:
    fields = _OBJECT_DECODER.decode(entry)
    annotations = _OBJECT_DECODER.decode(fields.pop("annotations"))
    annotations.pop(REF_NAME)
    if annotations:
        fields["annotations"] = msgspec.Raw(msgspec.json.encode(annotations))
    return msgspec.Raw(msgspec.json.encode(fields))


def _read(descriptor: int, limit: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > limit:
        raise TooLarge(f"a file of {size} bytes is over the limit of {limit}")
    parts: list[bytes] = []
    while part := os.pread(descriptor, limit + 1, sum(map(len, parts))):
        parts.append(part)
        if sum(map(len, parts)) > limit:
            raise TooLarge(f"a file is over the limit of {limit} bytes")
    return b"".join(parts)


def _write(descriptor: int, data: bytes, like: os.stat_result) -> None:
    """Write, with the mode and, where we may, the owner of the file that it replaces; then bring it to the disk."""
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        with suppress(PermissionError):
            os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
