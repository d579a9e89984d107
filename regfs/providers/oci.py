"""A folder of OCI image layouts as a registry: ``oci:/path``. It speaks no HTTP.

Each layout below the folder is a repository, named by its path. Where the folder is a layout itself, that is the only
repository, and it bears the folder's own name. A tag is what index.json names one.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    ConnectionFailed,
    DigestMismatch,
    NotARegistry,
    NotFound,
    RegfsError,
    TooLarge,
    Unsupported,
)
from regfs.manifest import MAX_MANIFEST, Descriptor, parse_manifest
from regfs.ports import (
    Answer,
    Claim,
    Counts,
    DeletesTags,
    Deletion,
    Field,
    ListsReferrers,
    ListsRepositories,
    RawManifest,
    ReferrerPage,
    ResolvesTags,
    TagPage,
)
from regfs.reference import MAX_REPOSITORY, TagOrDigest, is_component, is_repository

if TYPE_CHECKING:
    import trio

    from regfs.connection import Connection
    from regfs.ports import Source, Tools
    from regfs.providers.oci_layout import Index, Layout, OpenBlob
    from regfs.providers.oci_referrers import Subjects

C = TypeVar("C")
T = TypeVar("T")

PREFIX: Final = "oci:"
MAX_FOLDERS: Final = 100_000
"""How many folders a listing of repositories looks into."""

_HOST_AND_PORT: Final = re.compile(r"oci:[0-9]+(?:/|$)")
_PAGE: Final = 1000
_CHUNK: Final = 256 * 1024
_THREADS: Final = 16
_INDEXES: Final = 8
_SETTLED_NS: Final = 2_000_000_000


class OciLayoutProvider:
    """OCI image layouts on disk."""

    name = "oci"
    title = "Folder of OCI image layouts"
    default_auth = "anonymous"
    many = True
    capabilities: Sequence[type] = (ListsRepositories, ListsReferrers, ResolvesTags, DeletesTags, Counts)

    @property
    def fields(self) -> Sequence[Field]:
        """Nothing: the disk's permissions decide."""
        return ()

    def claim(self, address: str) -> Claim | None:
        """Take ``oci:PATH``, made absolute. The rest begins with the layout, or follows the longest folder that there is."""
        text = address.strip()
        if not text.startswith(PREFIX) or _HOST_AND_PORT.match(text):
            return None
        path = text.removeprefix(PREFIX)
        if not path or "\0" in path:
            raise ValueError("oci: is followed by the path of a folder, such as oci:/srv/images")
        whole = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links
        folder = next((p for p in (whole, *whole.parents[:-1]) if os.path.isdir(p)), whole)  # noqa: PTH112 - raises nothing
        if (folder / "oci-layout").is_file() and is_component(folder.name):
            # A layout is a repository of the folder it lies in: `oci:/srv/images/app` lists the tags of `app`.
            folder = folder.parent
        rest = () if folder == whole else whole.relative_to(folder).parts
        if rest and (folder / "oci-layout").is_file():
            rest = (_own_name(folder), *rest)
        return Claim(f"{PREFIX}{folder}", "/".join(rest), 100)

    async def registries(self, connection: Connection, tools: Tools) -> Mapping[str, Source]:
        """One registry: the folder. Does not look at it yet."""
        return {"": OciLayoutSource(connection.address, read_only=tools.http.read_only)}


class OciLayoutSource:
    """A Source on a folder of layouts. Every access to the disk is in a thread of its own few, and is not waited for
    once it is given up: a network disk that stalls takes nobody with it. A ``read_only`` one deletes nothing."""

    def __init__(self, address: str, *, read_only: bool = False) -> None:
        import trio

        self.name = address
        self._read_only = read_only
        self._root = Path(address.removeprefix(PREFIX))
        self._limiter: trio.CapacityLimiter = trio.CapacityLimiter(_THREADS)
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()
        self._indexes: OrderedDict[str, tuple[tuple[int, int, int], Index]] = OrderedDict()
        self._referred: OrderedDict[str, tuple[Index, Subjects]] = OrderedDict()

    async def check(self) -> None:
        """Look whether the folder can be read. Raises ConnectionFailed: it is not there; NotARegistry; Forbidden."""
        await self._in_thread(self._check)

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """The tags in a layout's index.json, in its order."""
        names = list((await self._in_thread(self._index, repository)).tags)
        for start in range(0, max(1, len(names)), _PAGE):
            yield TagPage(names[start : start + _PAGE])

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """A manifest's bytes, by tag or by digest."""
        return await self._in_thread(self._manifest, repository, reference)

    def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `regfs.ports.Source.blob`. DigestMismatch where the file has another size than its descriptor says."""
        stop = descriptor.size if end is None else end
        if not 0 <= start <= stop <= descriptor.size:
            raise ValueError(f"the range {start} to {stop} is not within {descriptor.size} bytes")
        return self._blob(repository, descriptor, start, stop)

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:  # noqa: ARG002 - one answer for all repositories
        """Lists repositories and referrers, resolves and deletes tags, counts."""
        if kind is DeletesTags and self._read_only:
            return None
        made: Mapping[type, Callable[[OciLayoutSource], object]] = {
            ListsRepositories: _Lists,
            ListsReferrers: _ListsReferrers,
            ResolvesTags: _Resolves,
            DeletesTags: _Deletes,
            Counts: _Counts,
        }
        return cast(C, made[kind](self)) if kind in made else None

    async def aclose(self) -> None:
        """Nothing is open between calls."""

    # ── in threads ───────────────────────────────────────────────────────────────────────────────

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        import trio

        try:
            return await trio.to_thread.run_sync(
                call, *arguments, abandon_on_cancel=True, limiter=self._limiter
            )
        except OSError as error:
            raise _disk_error(error, str(self._root), self.name) from error

    def _check(self) -> None:
        try:
            with os.scandir(self._root):
                pass
        except FileNotFoundError as error:
            raise ConnectionFailed(f"there is no folder {self._root}", registry=self.name) from error
        except NotADirectoryError as error:
            raise NotARegistry(f"{self._root} is no folder", registry=self.name) from error

    def _count(self, **counted: int) -> None:
        with self._lock:
            self._counters.update(counted)

    def _layout(self, repository: str) -> Layout:
        from regfs.providers.oci_layout import Layout, is_layout

        self._check()
        folder = self._root / repository if is_repository(repository) else None
        if is_layout(self._root):
            folder = self._root if repository == _own_name(self._root) else None
        if folder is None or not _is_inside(folder, self._root) or not is_layout(folder):
            raise NotFound(f"there is no repository {repository[:255]} in {self._root}", registry=self.name)
        return Layout(folder, self._root, repository, self.name)

    def _index(self, repository: str) -> Index:
        """What index.json says now: read anew unless it is the same file, unchanged for longer than a clock's tick."""
        layout = self._layout(repository)
        fingerprint = layout.fingerprint()
        known = self._indexes.get(repository)
        if known is not None and known[0] == fingerprint:
            return known[1]
        index = layout.index()
        self._count(reads=1, skipped_names=index.skipped)
        if time.time_ns() - fingerprint[1] > _SETTLED_NS:
            self._keep(repository, fingerprint, index)
        return index

    def _keep(self, repository: str, fingerprint: tuple[int, int, int], index: Index) -> None:
        with self._lock:
            self._indexes[repository] = fingerprint, index
            while len(self._indexes) > _INDEXES:
                self._indexes.popitem(last=False)

    def _subjects(self, repository: str) -> Subjects:
        """What refers to what, by index.json as it is now."""
        from regfs.providers.oci_referrers import subjects_of

        index = self._index(repository)
        known = self._referred.get(repository)
        if known is not None and known[0] is index:
            return known[1]
        try:
            subjects = subjects_of(self._layout(repository), index)
        except RegfsError as error:
            error.registry = self.name
            raise
        with self._lock:
            self._referred[repository] = index, subjects
            while len(self._referred) > _INDEXES:
                self._referred.popitem(last=False)
        return subjects

    def _manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        index = self._index(repository)
        digest = (
            reference
            if isinstance(reference, Digest)
            else self._resolved(index, repository, reference).digest
        )
        blob = self._layout(repository).open_blob(digest)
        if blob.size > MAX_MANIFEST:
            raise TooLarge(f"the manifest has {blob.size} bytes", registry=self.name)
        raw = b"".join(_parts(blob, 0, blob.size))
        media_type = index.media_types.get(digest)
        if media_type is None and not _is_manifest(raw, digest):
            raise NotFound(f"there is no manifest {digest} in {repository}", registry=self.name)
        self._count(reads=1, bytes=len(raw))
        return RawManifest(raw, media_type or "", digest)

    def _resolved(self, index: Index, repository: str, tag: str) -> Descriptor:
        found = index.tags.get(tag)
        if found is None:
            raise NotFound(f"there is no tag {tag[:128]} in {repository}", registry=self.name)
        return found

    @asynccontextmanager
    async def _blob(
        self, repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        blob = await self._in_thread(lambda: self._layout(repository).open_blob(descriptor.digest))
        if blob.size != descriptor.size:
            raise DigestMismatch(
                f"{repository}@{descriptor.digest} is a file of {blob.size} bytes, not of {descriptor.size}",
                registry=self.name,
            )
        async with aclosing(self._chunks(blob, start, stop)) as chunks:
            yield chunks

    async def _chunks(self, blob: OpenBlob, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        while start < stop:
            part = await self._in_thread(blob.read, min(_CHUNK, stop - start), start)
            if not part:
                raise DigestMismatch("a blob became shorter while it was read", registry=self.name)
            start += len(part)
            self._count(bytes=len(part))
            yield part

    def _repositories(self) -> list[str]:
        from regfs.providers.oci_layout import is_layout

        self._check()
        if is_layout(self._root):
            return [_own_name(self._root)]
        return [str(folder.relative_to(self._root)) for folder in self._folders() if is_layout(folder)]

    def _folders(self) -> Iterator[Path]:
        """All folders below the root. A link can be a repository, but nothing is looked for below one: no circles."""
        waiting = [self._root]
        seen = 0
        while waiting:
            for child, is_link in _subfolders(waiting.pop()):
                seen += 1
                if seen > MAX_FOLDERS:
                    raise TooLarge(f"{self._root} has more than {MAX_FOLDERS} folders", registry=self.name)
                if is_link and not _is_inside(child, self._root):
                    continue
                if not is_link and len(str(child.relative_to(self._root))) < MAX_REPOSITORY:
                    waiting.append(child)
                yield child


class _Capability:
    def __init__(self, source: OciLayoutSource) -> None:
        self._source = source


class _Lists(_Capability):
    async def repositories(self) -> AsyncIterator[Sequence[str]]:
        names = await self._source._in_thread(self._source._repositories)
        for start in range(0, max(1, len(names)), _PAGE):
            yield names[start : start + _PAGE]


class _ListsReferrers(_Capability):
    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        subjects = await self._source._in_thread(self._source._subjects, repository)
        found = [d for d in subjects.get(digest, ()) if artifact_type in ("", d.artifact_type)]
        for start in range(0, len(found), _PAGE):
            yield ReferrerPage(found[start : start + _PAGE])


class _Resolves(_Capability):
    async def resolve(self, repository: str, tag: str) -> Descriptor:
        return await self._source._in_thread(self._resolve, repository, tag)

    def _resolve(self, repository: str, tag: str) -> Descriptor:
        source = self._source
        found = source._resolved(source._index(repository), repository, tag)
        source._layout(repository).open_blob(found.digest)
        return found


class _Deletes(_Capability):
    def can_delete(self) -> Answer:
        """The file's permissions say it, and the disk is not asked before it has to be."""
        return Answer.UNKNOWN

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        import trio

        source = self._source
        # Not given up half way: whoever is told that it failed must find the tag as it was.
        await trio.to_thread.run_sync(
            lambda: source._layout(repository).remove_tag(tag, seen), limiter=source._limiter
        )
        source._count(deletions=1)
        return Deletion("the layout's index.json")


class _Counts(_Capability):
    def counters(self) -> Mapping[str, int]:
        return dict(self._source._counters)


def _own_name(root: Path) -> str:
    """The repository's name where the folder is a layout itself: the folder's, in the spelling that names allow."""
    name = root.name
    return name if is_component(name) else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "image"


def _is_manifest(raw: bytes, digest: Digest) -> bool:
    """Whether a blob that index.json does not name is a manifest: the part of an index, or one whose tag is gone."""
    try:
        parse_manifest(raw, "", digest)
    except (BadReply, TooLarge, Unsupported):
        return False
    return True


def _parts(blob: OpenBlob, start: int, stop: int) -> Iterator[bytes]:
    while start < stop and (part := blob.read(stop - start, start)):
        start += len(part)
        yield part


def _is_inside(folder: Path, root: Path) -> bool:
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))


def _subfolders(folder: Path) -> list[tuple[Path, bool]]:
    """The folders in a folder, and which are links. One that cannot be read holds nothing; blobs are no repositories."""
    try:
        with os.scandir(folder) as entries:
            found = [(Path(entry.path), entry.is_symlink()) for entry in entries if entry.is_dir()]
    except OSError:
        return []
    blobs = folder / "blobs" if (folder / "oci-layout").is_file() else None
    return [(path, is_link) for path, is_link in found if path != blobs]


def _disk_error(error: OSError, what: str, registry: str) -> RegfsError:
    from regfs.providers.oci_layout import disk_error

    return disk_error(error, what, registry)
