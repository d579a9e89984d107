"""The mount, without a mount: inodes, handles and the operations that the kernel asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn

import trio

from regfs import __version__
from regfs.advice import advice
from regfs.connection import Connection
from regfs.errors import (
    AttributeUnsupported,
    DeadlineExceeded,
    FileError,
    ModeForbids,
    NotFound,
    ReadOnly,
    RegfsError,
    Replaced,
    WriteRefused,
)
from regfs.ports import Blobs, BlobStore, Clock, ContentStore, Images, Source
from regfs.tree import own
from regfs.tree.attributes import Attributes, DirEntry, Kind, OpenFile, PlainEntry, Statfs
from regfs.tree.blobs import RegistryBlobs
from regfs.tree.errorlog import ErrorLog
from regfs.tree.incoming import Incoming, entries_as_they_come
from regfs.tree.inodes import ROOT, Inodes
from regfs.tree.knowledge import Role
from regfs.tree.names import Listed, NameFolder, RegistryRoot
from regfs.tree.nodes import BrokenFolder, Folder, Node, decoded, encoded
from regfs.tree.opened import Bytes, Opened, Streamed
from regfs.tree.registry import Registry
from regfs.tree.rooms import furnish
from regfs.tree.rootlisting import RootListing
from regfs.tree.roots import ConnectionsRoot
from regfs.tree.status import counters, describe
from regfs.tree.streamed import StreamedFile
from regfs.tree.tagfolder import TAG_NAMES, ManifestFolder
from regfs.tree.walker import Walker

REFRESH = "regfs.refresh"
"""The extended attribute that forgets listings when it is read; it is in no list of attributes."""

_ASKED_AGAIN = 0.1
"""Seconds within which the length of an attribute and then its value are asked for."""


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """How a mount behaves. Times in seconds. ``image_owners``: files in images belong to whom the image says.

    ``single``: one registry is the root; else one folder a connection. ``settle_at_lookup``: a name is settled when
    it is looked up, since writers and permission checks believe a positive lookup. ``blobs_at_once``: how many of one
    registry are downloaded together.
    """

    ttl: float = 10.0
    writable: bool = False
    settle_at_lookup: bool = False
    single: bool = True
    call_deadline: float = 30.0
    show_fallback_tags: bool = False
    image_owners: bool = False
    blobs_at_once: int = 8


class FileSystem:
    """What a mount shows, operation by operation. Everything it raises is one of `regfs.errors`."""

    def __init__(
        self,
        settings: TreeSettings,
        *,
        clock: Clock,
        store: ContentStore,
        blob_store: BlobStore | None = None,
    ) -> None:
        furnish()
        self.settings = settings
        self.errors = ErrorLog()
        self.registries: dict[str, Registry] = {}
        self.on_root_use: Callable[[], None] = lambda: None
        self.invalidate: Callable[[int, bytes], None] = lambda _parent, _name: None
        self.facts: Callable[[str], Mapping[str, object]] = lambda _registry: {}
        self.images: Callable[[Blobs], Images] | None = None
        """Makes what shows images of one registry, from its blobs. Set before registries are added."""
        self._clock = clock
        self._store = store
        self._blob_store = blob_store
        self._born = int(clock.time() * 1e9)
        self._nursery: trio.Nursery | None = None
        self._walker = Walker()
        self._handles: dict[int, Opened] = {}
        self._next_handle = 1
        self._refreshed = (0, 0, 0.0)
        self._root: Folder = ConnectionsRoot(self._born, lambda: self.on_root_use())
        self._inodes = Inodes(self._root)

    # ── what is mounted ──

    def start(self, nursery: trio.Nursery) -> None:
        """Work in ``nursery`` from now on."""
        self._nursery = nursery
        self._walker.start(nursery)
        for registry in self.registries.values():
            registry.start(nursery)

    def add_registry(self, name: str, source: Source, connection: Connection) -> None:
        """Show a registry; in a mount of a single one, as the root."""
        blobs = RegistryBlobs(source, self._blob_store, at_once=self.settings.blobs_at_once)
        registry = Registry(
            name,
            source,
            connection,
            clock=self._clock,
            store=self._store,
            blobs=blobs,
            ttl=self.settings.ttl,
            deadline=self.settings.call_deadline,
            show_fallback_tags=self.settings.show_fallback_tags,
            images=None if self.images is None else self.images(blobs),
            image_owners=self.settings.image_owners,
        )
        below = "" if self.settings.single else f"{name}/"
        registry.report = lambda path, what: self.report(f"{below}{path}", what)
        if self._nursery is not None:
            registry.start(self._nursery)
        self.registries[name] = registry
        parent = None if self.settings.single else self._root
        self._show(name, RegistryRoot(parent, "" if self.settings.single else name, registry), connection)

    def fail_registry(self, name: str, error: RegfsError, connection: Connection) -> None:
        """Show a registry that cannot be had: its name is there, and everything in it says why."""
        self.registries.pop(name, None)
        folder = BrokenFolder(self._root, "" if self.settings.single else name, error, self._born)
        self._show(name, folder, connection)
        self.note(error, name)

    def remove_registry(self, name: str) -> None:
        """Show a registry no longer. What is open stays open."""
        self.registries.pop(name, None)
        if isinstance(self._root, ConnectionsRoot):
            self._root.shown.pop(name, None)
            self.invalidate(ROOT, name.encode())

    def _show(self, name: str, folder: Folder, connection: Connection) -> None:
        if self.settings.single:
            folder.parent = None
            self._root = folder
            self._inodes.set_root(folder)
        elif isinstance(self._root, ConnectionsRoot):
            self._root.shown[name] = (folder, connection)
            self.invalidate(ROOT, name.encode())

    # ── names ──

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """The node that ``name`` stands for in a folder, remembered once more until `forget`. Raises NotFound."""
        folder = self._inodes[parent]
        text = decoded(name) if folder.holds_any_name else _decoded(name)
        with self._operation(folder, text):
            node = await self._find(folder, text)
            if self.settings.settle_at_lookup:
                await self._settle_new(node)
        self._inodes.remember(node)
        return self._attributes_in_passing(node)

    async def _find(self, folder: Node, name: str) -> Node:
        if folder is self._root and name == own.NAME:
            return folder.child(name, lambda: own.OwnFolder(folder, self._own_files(), self._born))
        if isinstance(folder, NameFolder) and name in TAG_NAMES:
            self._walker.visited(folder)
        return await folder.find(name)

    async def _settle_new(self, node: Node) -> None:
        """Settle what was just found. A name that proves to be absent leaves nothing in its folder."""
        try:
            await node.settle()
        except BaseException:
            self._inodes.drop_if_unused(node)
            raise

    def forget(self, pairs: Iterable[tuple[int, int]]) -> None:
        """The kernel forgets inodes: pairs of an inode and how many of its lookups are taken back."""
        for ino, lookups in pairs:
            self._inodes.forget(ino, lookups)

    def remember(self, ino: int) -> None:
        """The kernel took an entry of `readdir`: one lookup more."""
        self._inodes.remember(self._inodes[ino])

    async def getattr(self, ino: int) -> Attributes:
        """A node's attributes, once it is sure that the name is there. Raises NotFound."""
        node = self._inodes[ino]
        with self._operation(node):
            await node.settle()
        return self._attributes(node)

    async def access(self, ino: int, mode: int) -> None:
        """Make sure that the name is there and may be used as ``mode`` says (R 4, W 2, X 1)."""
        node = self._inodes[ino]
        with self._operation(node):
            await node.settle()
            if mode & 2 and not self.settings.writable:
                raise ReadOnly("the mount is read-only; mount it with --rw to delete tags")
            # Only who mounted comes here: for others the kernel compares the bits itself.
            if mode & 7 & ~self._bits_for_owner(node):
                raise ModeForbids(f"the mode of {node.path()} does not allow that")

    def _bits_for_owner(self, node: Node) -> int:
        """What who mounted may do. It is root where the image's own owners are shown, whom the bits don't bind."""
        mode = self._mode(node)
        if node.owner is None:
            return mode >> 6 & 7
        return 7 if node.kind is Kind.FOLDER or mode & 0o111 else 6

    async def readlink(self, ino: int) -> bytes:
        """Where a link leads."""
        return encoded(self._inodes[ino].target())

    # ── folders ──

    async def opendir(self, ino: int) -> int:
        """List a folder, as it is now; the handle is for `readdir`."""
        node = self._inodes[ino]
        if isinstance(node, RegistryRoot) and not node.is_listed:
            # `df` opens the mount's root, and must not wait for a registry: whoever reads the folder does.
            return self._handle(node)
        return self._handle(await self._entries(node))

    async def _entries(self, node: Node) -> Sequence[Node] | Incoming:
        if isinstance(node, NameFolder):
            self._walker.visited(node)
        with self._operation(node):
            if isinstance(node, NameFolder) and not self.settings.writable:
                entries = await entries_as_they_come(node)
            else:
                entries = await node.entries()
        self._note_partial(node)
        return entries

    def lists_for_good(self, ino: int) -> bool:
        """Whether the kernel may keep what it was told that a folder holds."""
        return self._inodes[ino].lists_for_good

    async def readdir(self, handle: int, start: int) -> Iterator[DirEntry]:
        """Entries from position ``start`` on: none only at the folder's end. Raises as `opendir` does."""
        entries = self._handles[handle]
        if isinstance(entries, RootListing):
            return entries.read(start, self._inodes, self._attributes)
        if isinstance(entries, RegistryRoot):
            entries = self._handles[handle] = await self._entries(entries)
        if isinstance(entries, Incoming):
            with self._operation(entries.folder):
                readable = await entries.upto(start)
            if entries.is_complete:
                self._handles[handle] = readable
                self._note_partial(entries.folder)
            return self._read(readable, start)
        assert isinstance(entries, Sequence)
        return self._read(entries, start)

    async def readdir_plainly(self, handle: int, start: int) -> Iterator[DirEntry | PlainEntry]:
        """The same for who wants names: within an image nothing more is told of files."""
        entries = self._handles[handle]
        if isinstance(entries, RootListing):
            return entries.read_plainly(start, self._inodes, self._attributes)
        return await self.readdir(handle, start)

    def _read(self, entries: Sequence[Node], start: int) -> Iterator[DirEntry]:
        known = entries.stretch() if isinstance(entries, Listed) else _nothing_known
        for place in range(start, len(entries)):
            node = entries[place]
            try:
                yield DirEntry(node.name.encode(), self._attributes(node, known(node)), place + 1)
            finally:
                self._inodes.drop_if_unused(node)

    def releasedir(self, handle: int) -> None:
        """The folder is closed."""
        entries = self._handles.pop(handle)
        if isinstance(entries, list):
            for node in entries:
                self._inodes.drop_if_unused(node)

    # ── files ──

    async def open(self, ino: int, writing: bool) -> OpenFile:
        """Open a file: it shows one version to its end."""
        node = self._inodes[ino]
        if writing:
            self.refuse_write("write", ino, None)
        if isinstance(node, own.ErrorsFile):
            node.log.open()
            return OpenFile(self._handle(node.log), direct_io=True, keep_cache=False)
        if isinstance(node, StreamedFile):
            return await self._open_streamed(node)
        with self._operation(node):
            content = await node.content()
        steady = node.is_steady
        return OpenFile(self._handle(Bytes(content)), direct_io=not steady, keep_cache=steady)

    async def _open_streamed(self, node: StreamedFile) -> OpenFile:
        if node.is_poisoned:
            # The kernel kept the name; told this, it asks for it once more, and opens what that gives.
            raise Replaced(f"{node.path()} stands for another file by now")
        with self._operation(node):
            reader = await node.reader()
            opened = Streamed(node, reader)
        # The kernel has few reads of the cached kind, and one may wait for a registry as long as it is not all here.
        return OpenFile(
            self._handle(opened), not opened.is_verified, opened.keeps_pages, node.descriptor_of(reader)
        )

    def give_way(self, ino: int) -> None:
        """Let the name of a file stand for another inode from now on."""
        node = self._inodes[ino]
        assert isinstance(node, StreamedFile), "nothing else has bytes on the disk"
        node.poison()

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Bytes of an open file; fewer than ``size`` only at its end, and before a last byte that has to wait."""
        content = self._handles[handle]
        if isinstance(content, Streamed):
            try:
                return await content.read(offset, size)
            except RegfsError as error:
                self.note(error, content.file.path())
                raise
        assert not isinstance(content, Sequence | RegistryRoot | Incoming)
        return content.read(offset, size)

    async def release(self, handle: int) -> None:
        """The file is closed."""
        content = self._handles.pop(handle)
        if isinstance(content, Streamed):
            await content.close()
            return
        assert not isinstance(content, Sequence | RegistryRoot | Incoming)
        content.close()

    # ── removing, and what is refused ──

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file: of a tag's folder manifest.json, which deletes the tag. All else is refused."""
        folder = self._inodes[parent]
        text = _decoded(name)
        with self._operation(folder, text):
            self._need_writable()
            await folder.unlink(text)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove a folder that holds nothing any more."""
        folder = self._inodes[parent]
        text = _decoded(name)
        with self._operation(folder, text):
            self._need_writable()
            await folder.rmdir(text)

    def refuse_write(self, what: str, ino: int, name: bytes | None) -> NoReturn:
        """Refuse what this version does not do: ReadOnly, or Refused with a line in ``.regfs/errors``."""
        with self._operation(self._inodes[ino], "" if name is None else _decoded(name)):
            self._need_writable()
            raise WriteRefused(
                f"{what} is not possible yet: in this version --rw deletes tags and nothing else"
            )

    def _need_writable(self) -> None:
        if not self.settings.writable:
            raise ReadOnly("the mount is read-only; mount it with --rw to delete tags")

    # ── extended attributes ──

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """One extended attribute. Outside ``user.`` it is AttributeUnsupported at once, so that `ls -l` stops asking."""
        node = self._inodes[ino]
        if node.of_image:
            with self._operation(node):
                found = await node.xattr(name)
            if found is not None:
                return found
        namespace, _, rest = _decoded(name).partition(".")
        if namespace != "user":
            raise AttributeUnsupported(f"there are no attributes outside user.: {rest[:80]}")
        if rest == REFRESH and node.kind is Kind.FOLDER:
            return str(self._refresh_for_a_reader(ino)).encode()
        with self._operation(node):
            return (await node.attribute(rest)).encode()

    async def listxattr(self, ino: int) -> list[bytes]:
        """The names of a node's extended attributes."""
        node = self._inodes[ino]
        if node.of_image:
            return node.xattr_names()
        with self._operation(node):
            if isinstance(node, ManifestFolder) and node.holds_for <= 0:
                await node.settle()
            return [f"user.{name}".encode() for name in node.attribute_names()]

    def statfs(self) -> Statfs:
        """For `df`: at once, whatever the registries do."""
        return Statfs(files=len(self._inodes))

    # ── what the daemon itself asks ──

    def refresh(self, ino: int = ROOT) -> int:
        """Forget the listings of a folder and below, in the kernel too; how many there were."""
        node = self._inodes[ino]
        if isinstance(node, ConnectionsRoot):
            return sum(self.refresh_registry(registry) for registry in self.registries.values())
        owner = next((n for n in node.lineage() if isinstance(n, ManifestFolder)), None)
        if owner is None:
            return 0
        prefix = owner.full if isinstance(owner, NameFolder) else owner.repository
        count = owner.registry.forget(prefix)
        if isinstance(owner, NameFolder) and owner.may_be_tag:
            count += owner.registry.contents.forget(owner.repository)
        self._invalidate_below(node)
        return count

    def _refresh_for_a_reader(self, ino: int) -> int:
        """Programs ask for an attribute twice, for its length first: the second answer is the first one's count."""
        now = self._clock.monotonic()
        last_ino, last_count, last_time = self._refreshed
        count = self.refresh(ino)
        if count == 0 and ino == last_ino and now - last_time < _ASKED_AGAIN:
            count = last_count
        self._refreshed = ino, count, now
        return count

    def report(self, where: str, what: str) -> None:
        """Add a line to ``.regfs/errors`` on what lasts, unless it was told a moment ago."""
        self.errors.add_state(where, what, self._clock.time())

    def refresh_registry(self, registry: Registry) -> int:
        """Forget everything that a registry said."""
        count = registry.forget()
        for node in self._inodes.nodes():
            if isinstance(node, RegistryRoot) and node.registry is registry:
                self._invalidate_below(node)
        return count

    def _invalidate_below(self, node: Node) -> None:
        for child in list((node.children or {}).values()):
            self._invalidate_below(child)
            if child.lookups > 0 and node.ino:
                self.invalidate(node.ino, child.name.encode())

    def note(self, error: BaseException, where: str) -> None:
        """Add a line to ``.regfs/errors``."""
        if isinstance(error, RegfsError):
            what = f"{error} → {advice(error)}"
        else:
            what = f"unexpected {type(error).__name__} → please report this; the daemon's log has the details"
        self.errors.add(where or "/", what, self._clock.time())

    def status(self) -> dict[str, object]:
        """What ``.regfs/status.json`` holds."""
        return {
            "version": __version__,
            "writable": self.settings.writable,
            "ttl": self.settings.ttl,
            "single": self.settings.single,
            "inodes": len(self._inodes),
            "registries": [
                describe(registry, self.facts(registry.name)) for registry in self.registries.values()
            ],
            "errors": self.errors.lines()[-5:],
        }

    def _own_files(self) -> dict[str, Callable[[Node, str], Node]]:
        def metrics() -> str:
            return own.as_metrics({r.name: counters(r) for r in self.registries.values()})

        return {
            "README": lambda parent, name: own.Snapshot(parent, name, lambda: own.README),
            "status.json": lambda parent, name: own.Snapshot(
                parent, name, lambda: own.as_json(self.status())
            ),
            "errors": lambda parent, name: own.ErrorsFile(parent, name, self.errors),
            "metrics": lambda parent, name: own.Snapshot(parent, name, metrics),
        }

    # ── around every operation ──

    def _operation(self, node: Node, name: str = "") -> _Operation:
        """A deadline on what waits, and a line in ``.regfs/errors`` for what fails."""
        return _Operation(self, node, name)

    def _note_partial(self, node: Node) -> None:
        if isinstance(node, NameFolder) and node.full in node.registry.partial:
            reason = node.registry.partial[node.full]
            self.errors.add_state(node.path() or "/", f"shown in part: {reason}", self._clock.time())
        elif node.partial:
            self.errors.add_state(node.path(), f"shown in part: {node.partial}", self._clock.time())

    def _attributes(self, node: Node, known: tuple[int, float] | None = None) -> Attributes:
        """A node's attributes; ``known``: its time and how long its name holds, where those are at hand."""
        self._inodes.number(node)
        if known is not None:
            folder_mode = 0o755 if self.settings.writable else 0o555
            return Attributes(node.ino, Kind.FOLDER, folder_mode, 0, known[0], known[1], known[1])
        holds_for = max(0.0, node.holds_for)
        attributes = Attributes(
            node.ino, node.kind, self._mode(node), node.size, node.time_ns, holds_for, holds_for
        )
        if node.of_image:
            attributes.owner, attributes.links, attributes.device = node.owner, node.links, node.device
            attributes.number = node.number
        return attributes

    def _attributes_in_passing(self, node: Node) -> Attributes:
        """The attributes for a lookup. A time that may still become a better one is not to be kept: `getattr` settles it."""
        if isinstance(node, NameFolder) and not isinstance(node.role, Role):
            # Nothing is known of it: asked for once, and not for each attribute.
            ino = self._inodes.number(node)
            return Attributes(ino, node.kind, self._mode(node), 0, node.registry.born, 0.0, 0.0)
        open_time = node.open_time_ns
        if open_time is None:
            return self._attributes(node)
        holds_for = max(0.0, node.holds_for)
        ino = self._inodes.number(node)
        return Attributes(ino, node.kind, self._mode(node), node.size, open_time, holds_for, 0.0)

    def _mode(self, node: Node) -> int:
        mode = node.mode
        if mode is not None:
            return mode
        if node.kind is Kind.LINK:
            return 0o777
        if node.kind is Kind.FOLDER:
            return 0o755 if self.settings.writable else 0o555
        return 0o644 if self.settings.writable else 0o444

    def _handle(self, content: Opened) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = content
        return handle


class _Operation:
    """See `FileSystem._operation`; a class, since each name of a path passes here, and a generator takes four times as long."""

    __slots__ = ("_files", "_name", "_node", "_scope")

    def __init__(self, files: FileSystem, node: Node, name: str) -> None:
        self._files, self._node, self._name = files, node, name
        self._scope = None if node.waits_for_data else trio.move_on_after(files.settings.call_deadline)

    def __enter__(self) -> None:
        if self._scope is not None:
            self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_late = False
        if self._scope is not None:
            self._scope.__exit__(kind, error, trace)
            is_late = self._scope.cancelled_caught
        if is_late:
            error = DeadlineExceeded(f"no answer within {self._files.settings.call_deadline:g} s")
        if isinstance(error, RegfsError) and not isinstance(error, NotFound | FileError | ReadOnly):
            self._files.note(error, f"{self._node.path()}/{self._name}".strip("/"))
        if is_late and error is not None:
            raise error


def _nothing_known(_node: Node) -> None:
    """Nothing is known of it beforehand."""


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NotFound("a name that is not UTF-8 is no registry's") from None
