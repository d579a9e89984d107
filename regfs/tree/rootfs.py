"""The folder ``rootfs``: an image's merged file tree, each name a node whose attributes are the image's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import count
from typing import ClassVar, Final
from weakref import WeakSet

from regfs.errors import NoSuchAttribute, NotFound, Unsupported
from regfs.manifest import Manifest
from regfs.ports import ContentReader, EntryKind, Images, RootEntry, RootTree
from regfs.tree.attributes import Kind
from regfs.tree.manifestfiles import ManifestRoom
from regfs.tree.nodes import STEADY, Folder, Node, decoded, encoded
from regfs.tree.registry import Registry
from regfs.tree.rootlisting import RootListing
from regfs.tree.streamed import StreamedFile
from regfs.tree.tagfolder import ManifestFolder

_LATEST = 2**63 - 1
_SHOWN_NUMBERS: Final = 1 << 62
_MEMBERS: Final = 40
"""Bits of a member's identity in its image, as `regfs.image` makes it: layer and place in it."""
_READABLE = {EntryKind.FOLDER: 0o500}
_OWN_ATTRIBUTES = {b"user.oci.digest": "oci.digest", b"user.oci.verified": "oci.verified"}


class RootfsFolder(ManifestRoom):
    """The root of an image's tree; of an index, of the host's platform. Itself it costs nothing, whatever the image."""

    __slots__ = ("_early", "_had_early", "_last", "_numbers", "_provisional", "_tree")
    holds_any_name: ClassVar[bool] = True
    lists_for_good: ClassVar[bool] = True
    waits_for_data: ClassVar[bool] = True

    def __init__(self, parent: ManifestFolder, name: str, manifest: Manifest) -> None:
        super().__init__(parent, name, manifest)
        self._tree: RootTree | None = None
        self._last: tuple[Node, RootEntry] | None = None
        self._provisional: WeakSet[Node] = WeakSet()
        self._early: WeakSet[Node] = WeakSet()  # those, and what became of them
        self._had_early = (
            False  # told at each name of a listing, where to ask a WeakSet costs as much as the name
        )
        self._numbers = _SHOWN_NUMBERS | self._place() << _MEMBERS

    def _place(self) -> int:
        """The image's own number in this mount, whatever the kernel forgets."""
        numbers = self.folder.registry.image_numbers
        key = self.folder.repository, self.manifest.digest
        return numbers.get(key) or numbers.setdefault(key, next(_ROOTS))

    @property
    def as_in_image(self) -> bool:
        """Whether owners and modes are the image's, to the last bit."""
        return self.folder.registry.image_owners

    def as_shown(self, kind: EntryKind, mode: int, uid: int, gid: int) -> tuple[int, tuple[int, int] | None]:
        """Mode and owner as the mount shows them, from those of the image; an owner of None is the mount's."""
        if self.as_in_image:
            return mode, (uid, gid)
        return (0o777 if kind is EntryKind.LINK else mode | _READABLE.get(kind, 0o400)), None

    def number_of(self, identity: Hashable, node: Node | None = None) -> int:
        """The inode number to show, the same whenever it is asked for; 0: there is none but the kernel's.

        Programs that copy a tree tell by it which names are hard links to one file, long after the kernel forgot the first.
        A ``node`` that was provisional keeps the number that it had then.
        """
        if not isinstance(identity, int) or identity >> _MEMBERS or (self._had_early and node in self._early):
            return 0
        return self._numbers | identity

    def listed_number(self, folder: Node, name: bytes, identity: Hashable) -> int:
        """The inode number of a name that is listed, and of which there may be no node."""
        if not self._had_early:
            return self.number_of(identity)
        node = (folder.children or {}).get(decoded(name))
        return self.number_of(identity, node) or (node.ino if node is not None else 0)

    def time_of(self, mtime_ns: int) -> int:
        """A time as the mount shows it: none before 1970."""
        return min(max(mtime_ns, 0), _LATEST)

    async def tree(self) -> RootTree:
        """The merged tree. Raises Unsupported for what is no image."""
        if self._tree is None:
            registry, repository = self.folder.registry, self.folder.repository
            image = await registry.contents.image(repository, self.manifest)
            self._tree = await _images(registry).root(repository, image)
        return self._tree

    async def find(self, name: str) -> Node:
        return await self.look_up(self, name, encoded(name))

    async def entries(self) -> Sequence[Node]:
        return RootListing(self, self, b"", await (await self.tree()).entries(b""))

    async def look_up(self, folder: RootfsFolder | ImageFolder, name: str, path: bytes) -> Node:
        """The node of a path, whose last component is ``name`` in ``folder``. Raises NotFound."""
        known = folder.children.get(name) if folder.children is not None else None
        if known is not None and not self.is_provisional(known):
            return known
        return self.node(folder, await (await self.tree()).soon(path))

    def is_provisional(self, node: Node) -> bool:
        """Whether a name may yet come to stand for another node."""
        return self._had_early and node in self._provisional

    def node(self, folder: RootfsFolder | ImageFolder, entry: RootEntry) -> Node:
        """The node of an entry: one inode for all names of a file."""
        node = self.known(folder, entry.path, entry.kind, entry.links, entry.identity)
        if entry.is_provisional:
            node.identity = entry.identity
            self._provisional.add(node)
            self._early.add(node)
            self._had_early = True
        self._last = node, entry
        return node

    def known(
        self, folder: RootfsFolder | ImageFolder, path: bytes, kind: EntryKind, links: int, identity: Hashable
    ) -> ImageFolder | ImageFile | ImageLink | ImageFifo:
        """The node of what stands at ``path`` in ``folder``."""
        name = decoded(path.rpartition(b"/")[2])
        if self._had_early and self._provisional:
            self._replace(folder, name, kind, links, identity)
        if links > 1:
            linked = "linked", identity
            return self.child(linked, lambda: _NODES[kind](self, self, decoded(path), identity, linked))
        return folder.child(name, lambda: _NODES[kind](self, folder, name, identity, name))

    def _replace(self, folder: Node, name: str, kind: EntryKind, links: int, identity: Hashable) -> None:
        """Let a provisional node become that of an entry, if that is the same file, or a folder too; else it leaves its name."""
        children = folder.children or {}
        node = children.get(name)
        if node not in self._provisional or not isinstance(node, _ANY):
            return
        assert self._tree is not None, "its nodes came from it"
        is_same = identity in (node.identity, self._tree.became(node.identity)) and links == 1
        if isinstance(node, _NODES[kind]) and (is_same or isinstance(node, ImageFolder)):
            node.identity, self._last = identity, None
            self._provisional.discard(node)
        else:
            del children[name]
            node.key = object()

    def entry_of(self, node: ImageNode) -> RootEntry:
        """A node's entry. Only the last one is kept: the kernel may know a hundred thousand nodes."""
        if self._last is None or self._last[0] is not node:
            assert self._tree is not None, "its nodes came from it"
            self._last = node, self._tree.again(node.inner_path(), node.identity)
        return self._last[1]


class ImageNode(Node):
    """A name within an image's tree. Nothing about it ever changes, once it is not provisional any more."""

    __slots__ = ()
    waits_for_data: ClassVar[bool] = True
    of_image: ClassVar[bool] = True
    holds_any_name: ClassVar[bool] = True
    identity: Hashable
    root: RootfsFolder

    @property
    def entry(self) -> RootEntry:
        """What the tree says of it."""
        return self.root.entry_of(self)

    def inner_path(self) -> bytes:
        """The path within the root."""
        parts = []
        node: Node | None = self
        while node is not None and node is not self.root:
            parts.append(node.name)
            node = node.parent
        return encoded("/".join(reversed(parts)))

    @property
    def size(self) -> int:
        return self.entry.size

    @property
    def time_ns(self) -> int:
        return self.root.time_of(self.entry.mtime_ns)

    @property
    def holds_for(self) -> float:
        return 0.0 if self.root.is_provisional(self) else STEADY

    @property
    def mode(self) -> int:
        return self._shown()[0]

    @property
    def owner(self) -> tuple[int, int] | None:
        return self._shown()[1]

    def _shown(self) -> tuple[int, tuple[int, int] | None]:
        entry = self.entry
        return self.root.as_shown(entry.kind, entry.mode, entry.uid, entry.gid)

    @property
    def number(self) -> int:
        return self.root.number_of(self.identity, self)

    @property
    def links(self) -> int:
        return self.entry.links

    @property
    def device(self) -> int:
        return self.entry.device

    async def attribute(self, name: str) -> str:
        tree = await self.root.tree()
        if name == "oci.digest":
            layer = tree.layer_of(self.entry)
            if layer is not None:
                return str(layer)
        if name == "oci.verified" and self.entry.kind is EntryKind.FILE:
            reader = await tree.open(self.entry)
            try:
                return str(int(reader.verified))
            finally:
                await reader.aclose()
        raise NoSuchAttribute(f"{self.path()} has no attribute user.{name}")

    async def xattr(self, name: bytes) -> bytes | None:
        """An extended attribute by its full name: regfs's own, or the image's; None: there is none."""
        if name in _OWN_ATTRIBUTES:
            return (await self.attribute(_OWN_ATTRIBUTES[name])).encode()
        return None if name.startswith(b"system.") else self.entry.xattrs.get(name)

    def xattr_names(self) -> list[bytes]:
        """The full names of the image's extended attributes. regfs's own can be asked for, but programs that copy take none along.

        Those in ``system.`` (lists for access control) are left out: the kernel keeps them from a filesystem that doesn't act on them.
        """
        return [name for name in self.entry.xattrs if not name.startswith(b"system.")]


class ImageFolder(ImageNode, Folder):
    """A folder of an image."""

    __slots__ = ("identity", "root")
    kind = Folder.kind
    lists_for_good: ClassVar[bool] = True

    def __init__(self, root: RootfsFolder, parent: Node, name: str, identity: Hashable, key: object) -> None:
        super().__init__(parent, name, key)
        self.root, self.identity = root, identity

    async def find(self, name: str) -> Node:
        return await self.root.look_up(self, name, self.inner_path() + b"/" + encoded(name))

    async def entries(self) -> Sequence[Node]:
        path = self.inner_path()
        return RootListing(self, self.root, path + b"/", await (await self.root.tree()).entries(path))


class ImageFile(ImageNode, StreamedFile):
    """A file of an image: its bytes come out of the middle of a layer."""

    __slots__ = ("identity", "root")
    comes_early: ClassVar[bool] = True

    def __init__(self, root: RootfsFolder, parent: Node, name: str, identity: Hashable, key: object) -> None:
        super().__init__(parent, name)
        self.key = key
        self.root, self.identity = root, identity

    @property
    def holds_for(self) -> float:
        return 0.0 if self.is_poisoned else super().holds_for

    async def reader(self) -> ContentReader:
        tree = await self.root.tree()
        return tree.opened_of_late(self.identity) or await tree.open(self.entry)


class ImageLink(ImageNode):
    """A symbolic link of an image."""

    __slots__ = ("identity", "root")
    kind: ClassVar[Kind] = Kind.LINK

    def __init__(self, root: RootfsFolder, parent: Node, name: str, identity: Hashable, key: object) -> None:
        super().__init__(parent, name, key)
        self.root, self.identity = root, identity

    @property
    def mode(self) -> int:
        return 0o777

    def target(self) -> str:
        return decoded(self.entry.target)


class ImageFifo(ImageNode):
    """A named pipe of an image: its own for each mount, as nobody writes to it."""

    __slots__ = ("identity", "root")
    kind: ClassVar[Kind] = Kind.FIFO

    def __init__(self, root: RootfsFolder, parent: Node, name: str, identity: Hashable, key: object) -> None:
        super().__init__(parent, name, key)
        self.root, self.identity = root, identity

    async def content(self) -> bytes:
        raise Unsupported(f"{self.path()} is a {self.kind.value}: there is nothing to read")


class ImageCharacterDevice(ImageFifo):
    """A character device: shown, and dead, since mounts are ``nodev``."""

    __slots__ = ()
    kind: ClassVar[Kind] = Kind.CHARACTER_DEVICE


class ImageBlockDevice(ImageFifo):
    """A block device: shown, and dead, since mounts are ``nodev``."""

    __slots__ = ()
    kind: ClassVar[Kind] = Kind.BLOCK_DEVICE


_NODES: dict[EntryKind, type[ImageFolder | ImageFile | ImageLink | ImageFifo]] = {
    EntryKind.FILE: ImageFile,
    EntryKind.FOLDER: ImageFolder,
    EntryKind.LINK: ImageLink,
    EntryKind.FIFO: ImageFifo,
    EntryKind.CHARACTER_DEVICE: ImageCharacterDevice,
    EntryKind.BLOCK_DEVICE: ImageBlockDevice,
}


_ANY: Final = ImageFolder, ImageFile, ImageLink, ImageFifo

_ROOTS: Final = count(1)


def _images(registry: Registry) -> Images:
    if registry.images is None:
        raise NotFound("images are not shown here")
    return registry.images
