"""The folder ``rootfs``: an image's merged file tree, each name a node whose attributes are the image's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Final, overload
from weakref import WeakSet

from regfs.errors import NoSuchAttribute, NotFound, Unsupported
from regfs.manifest import Manifest
from regfs.ports import ContentReader, EntryKind, Images, RootEntry, RootTree
from regfs.tree.attributes import Kind
from regfs.tree.manifestfiles import ManifestRoom
from regfs.tree.nodes import STEADY, Folder, NamedListing, Node, decoded, encoded
from regfs.tree.registry import Registry
from regfs.tree.streamed import StreamedFile
from regfs.tree.tagfolder import ManifestFolder

_LATEST = 2**63 - 1
_READABLE = {EntryKind.FOLDER: 0o500}
_OWN_ATTRIBUTES = {b"user.oci.digest": "oci.digest", b"user.oci.verified": "oci.verified"}


class RootListing(NamedListing):
    """What a folder holds; its nodes are made as they are read. Names of one file share a node, so a place has a name too."""

    def __init__(
        self, folder: RootfsFolder | ImageFolder, root: RootfsFolder, found: Sequence[RootEntry]
    ) -> None:
        self._folder = folder
        self._root = root
        self._found = found
        self._last: tuple[int, RootEntry] | None = None

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, place: int) -> Node: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Node]: ...
    def __getitem__(self, place: int | slice) -> Node | Sequence[Node]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        return self._root.node(self._folder, self._entry(place))

    def name(self, place: int) -> bytes:
        """The name that stands at a place."""
        return self._entry(place).path.rpartition(b"/")[2]

    def _entry(self, place: int) -> RootEntry:
        if self._last is None or self._last[0] != place:
            self._last = place, self._found[place]
        return self._last[1]


class RootfsFolder(ManifestRoom):
    """The root of an image's tree; of an index, of the host's platform. Itself it costs nothing, whatever the image."""

    __slots__ = ("_last", "_provisional", "_tree")
    holds_any_name: ClassVar[bool] = True
    waits_for_data: ClassVar[bool] = True

    def __init__(self, parent: ManifestFolder, name: str, manifest: Manifest) -> None:
        super().__init__(parent, name, manifest)
        self._tree: RootTree | None = None
        self._last: tuple[Node, RootEntry] | None = None
        self._provisional: WeakSet[Node] = WeakSet()

    @property
    def as_in_image(self) -> bool:
        """Whether owners and modes are the image's, to the last bit."""
        return self.folder.registry.image_owners

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
        return RootListing(self, self, await (await self.tree()).entries(b""))

    async def look_up(self, folder: RootfsFolder | ImageFolder, name: str, path: bytes) -> Node:
        """The node of a path, whose last component is ``name`` in ``folder``. Raises NotFound."""
        known = folder.children.get(name) if folder.children is not None else None
        if known is not None and not self.is_provisional(known):
            return known
        return self.node(folder, await (await self.tree()).soon(path))

    def is_provisional(self, node: Node) -> bool:
        """Whether a name may yet come to stand for another node."""
        return bool(self._provisional) and node in self._provisional

    def node(self, folder: RootfsFolder | ImageFolder, entry: RootEntry) -> Node:
        """The node of an entry: one inode for all names of a file."""
        name = decoded(entry.path.rpartition(b"/")[2])
        if self._provisional:
            self._replace(folder, name, entry)
        if entry.links > 1:
            key = ("linked", entry.identity)
            node = self.child(key, lambda: _made(self, self, decoded(entry.path), entry, key))
        else:
            node = folder.child(name, lambda: _made(self, folder, name, entry, name))
        if entry.is_provisional:
            node.identity = entry.identity
            self._provisional.add(node)
        self._last = node, entry
        return node

    def _replace(self, folder: Node, name: str, entry: RootEntry) -> None:
        """Let a provisional node become that of an entry, if that is the same file, or a folder too; else it leaves its name."""
        children = folder.children or {}
        node = children.get(name)
        if node not in self._provisional or not isinstance(node, _ANY):
            return
        assert self._tree is not None, "its nodes came from it"
        is_same = entry.identity in (node.identity, self._tree.became(node.identity)) and entry.links == 1
        if isinstance(node, _NODES[entry.kind]) and (is_same or isinstance(node, ImageFolder)):
            node.identity = entry.identity
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
        return min(max(self.entry.mtime_ns, 0), _LATEST)

    @property
    def holds_for(self) -> float:
        return 0.0 if self.root.is_provisional(self) else STEADY

    @property
    def mode(self) -> int:
        mode = self.entry.mode
        return mode if self.root.as_in_image else mode | _READABLE.get(self.entry.kind, 0o400)

    @property
    def owner(self) -> tuple[int, int] | None:
        return (self.entry.uid, self.entry.gid) if self.root.as_in_image else None

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

    def __init__(self, root: RootfsFolder, parent: Node, name: str, entry: RootEntry, key: object) -> None:
        super().__init__(parent, name, key)
        self.root, self.identity = root, entry.identity

    async def find(self, name: str) -> Node:
        return await self.root.look_up(self, name, self.inner_path() + b"/" + encoded(name))

    async def entries(self) -> Sequence[Node]:
        return RootListing(self, self.root, await (await self.root.tree()).entries(self.inner_path()))


class ImageFile(ImageNode, StreamedFile):
    """A file of an image: its bytes come out of the middle of a layer."""

    __slots__ = ("identity", "root")
    comes_early: ClassVar[bool] = True

    def __init__(self, root: RootfsFolder, parent: Node, name: str, entry: RootEntry, key: object) -> None:
        super().__init__(parent, name)
        self.key = key
        self.root, self.identity = root, entry.identity

    @property
    def holds_for(self) -> float:
        return 0.0 if self.is_poisoned else super().holds_for

    async def reader(self) -> ContentReader:
        return await (await self.root.tree()).open(self.entry)


class ImageLink(ImageNode):
    """A symbolic link of an image."""

    __slots__ = ("identity", "root")
    kind: ClassVar[Kind] = Kind.LINK

    def __init__(self, root: RootfsFolder, parent: Node, name: str, entry: RootEntry, key: object) -> None:
        super().__init__(parent, name, key)
        self.root, self.identity = root, entry.identity

    @property
    def mode(self) -> int:
        return 0o777

    def target(self) -> str:
        return decoded(self.entry.target)


class ImageFifo(ImageNode):
    """A named pipe of an image: its own for each mount, as nobody writes to it."""

    __slots__ = ("identity", "root")
    kind: ClassVar[Kind] = Kind.FIFO

    def __init__(self, root: RootfsFolder, parent: Node, name: str, entry: RootEntry, key: object) -> None:
        super().__init__(parent, name, key)
        self.root, self.identity = root, entry.identity

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


def _made(
    root: RootfsFolder, parent: Node, name: str, entry: RootEntry, key: object
) -> ImageFolder | ImageFile | ImageLink | ImageFifo:
    return _NODES[entry.kind](root, parent, name, entry, key)


def _images(registry: Registry) -> Images:
    if registry.images is None:
        raise NotFound("images are not shown here")
    return registry.images
