"""What stands behind an inode: nodes, and the operations that are legal on each kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import ClassVar, TypeVar

from regfs.errors import (
    IsADirectory,
    NoSuchAttribute,
    NotADirectory,
    NotFound,
    Refused,
    RegfsError,
)
from regfs.tree.attributes import Kind

N = TypeVar("N", bound="Node")

STEADY = 3600.0
"""Seconds for which a name holds that nothing can change."""


class Node:
    """One name in the mount. It lives while the kernel knows it, or while one of its children lives."""

    __slots__ = ("__weakref__", "children", "ino", "key", "lookups", "name", "parent")
    kind: ClassVar[Kind] = Kind.FILE
    waits_for_data: ClassVar[bool] = False
    """Whether asking about it may have to wait for blobs, whose readers watch over their progress themselves."""
    of_image: ClassVar[bool] = False
    """Within an image's file tree: owner, links, device and extended attributes are the image's."""
    holds_any_name: ClassVar[bool] = False
    """A folder whose names may be any bytes."""
    lists_for_good: ClassVar[bool] = False
    """A folder whose listing, once it was given, never changes under its inode."""

    def __init__(self, parent: Node | None, name: str, key: Hashable = None) -> None:
        self.parent = parent
        self.name = name
        self.key = key or name
        self.ino = 0
        self.lookups = 0
        self.children: dict[Hashable, Node] | None = None

    # ── for messages ──

    def path(self) -> str:
        """The path within the mount, without a leading slash."""
        parts = [node.name for node in self.lineage() if node.name]
        return "/".join(reversed(parts))

    def lineage(self) -> Iterator[Node]:
        """The node, its parent, and so on to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def child(self, key: Hashable, make: Callable[[], N]) -> N:
        """The child that is known by ``key``, made if there is none. A key always stands for one class of node."""
        children = self.children = {} if self.children is None else self.children
        node = children.get(key)
        if node is None:
            node = children[key] = make()
        return node  # type: ignore[return-value]  # a key always stands for one class

    # ── what a node can say and do; each kind overrides what it can ──

    async def settle(self) -> None:
        """Make sure that the name is there, asking what is still open. Raises NotFound."""

    @property
    def mode(self) -> int | None:
        """Permission bits, where they differ from the mount's."""
        return None

    @property
    def owner(self) -> tuple[int, int] | None:
        """User and group, where they are not the mount's."""
        return None

    @property
    def links(self) -> int:
        """How many names share this inode."""
        return 1

    @property
    def device(self) -> int:
        """Of a device node, as `os.makedev` makes it."""
        return 0

    @property
    def number(self) -> int:
        """The inode number to show; 0: the one by which the kernel knows it."""
        return 0

    @property
    def size(self) -> int:
        """In bytes; known once settled."""
        return 0

    @property
    def time_ns(self) -> int:
        """In nanoseconds since 1970."""
        return self.parent.time_ns if self.parent is not None else 0

    @property
    def open_time_ns(self) -> int | None:
        """The time to show in passing, where reading may still tell a better one; None: `time_ns` is final."""
        return None

    @property
    def holds_for(self) -> float:
        """For how many seconds the kernel may believe that the name stands for this node."""
        return 0.0

    async def find(self, name: str) -> Node:
        """The node that ``name`` stands for in this folder. Raises NotFound."""
        raise NotADirectory(f"{self.path()} is not a folder: it holds no {name}")

    async def entries(self) -> Sequence[Node]:
        """What this folder lists, in order."""
        raise NotADirectory(f"{self.path()} is not a folder")

    async def content(self) -> bytes:
        """The whole content of this file."""
        raise IsADirectory(f"{self.path()} is a folder")

    @property
    def is_steady(self) -> bool:
        """True for a file whose bytes never change under its inode."""
        return False

    def target(self) -> str:
        """Where this link leads."""
        raise NotFound(f"{self.path()} is no link")

    async def unlink(self, name: str) -> None:
        """Remove the file ``name`` from this folder."""
        raise Refused(f"{name} cannot be removed: only a tag's manifest.json can")

    async def rmdir(self, name: str) -> None:
        """Remove the folder ``name`` from this folder."""
        raise Refused(f"{name} cannot be removed")

    @property
    def partial(self) -> str:
        """Why a folder does not show all that it holds; empty: it does."""
        return ""

    def attribute_names(self) -> list[str]:
        """The extended attributes, by their names in ``user.``."""
        return []

    async def xattr(self, name: bytes) -> bytes | None:  # noqa: ARG002  # what an image's nodes answer
        """One extended attribute of an image, by its full name; None: there is none."""
        return None

    def xattr_names(self) -> list[bytes]:
        """The full names of an image's extended attributes."""
        return []

    async def attribute(self, name: str) -> str:
        """One extended attribute, by its name in ``user.``. Raises NoSuchAttribute."""
        raise NoSuchAttribute(f"{self.path()} has no attribute user.{name}")


def encoded(name: str) -> bytes:
    """A name as the kernel has it."""
    return name.encode("utf-8", "surrogateescape")


def decoded(name: bytes) -> str:
    """A name that may be any bytes."""
    return name.decode("utf-8", "surrogateescape")


class Folder(Node):
    """A folder."""

    __slots__ = ()
    kind: ClassVar[Kind] = Kind.FOLDER


class Link(Node):
    """A symbolic link whose target never changes."""

    __slots__ = ("_holds_for", "_target")
    kind: ClassVar[Kind] = Kind.LINK

    def __init__(self, parent: Node, name: str, target: str, holds_for: float, key: Hashable = None) -> None:
        super().__init__(parent, name, key)
        self._target = target
        self._holds_for = holds_for

    @property
    def size(self) -> int:
        return len(self._target.encode())

    @property
    def holds_for(self) -> float:
        return self._holds_for

    def target(self) -> str:
        return self._target


class GoneFile(Node):
    """A file of a tag that was deleted a moment ago: it is there to be removed."""

    __slots__ = ()

    async def content(self) -> bytes:
        raise NotFound(f"{self.path()}: the tag has been deleted")


class GoneFolder(Folder):
    """A folder of a tag that was deleted a moment ago: it reads as empty."""

    __slots__ = ()

    async def find(self, name: str) -> Node:
        raise NotFound(f"{self.path()}/{name}: the tag has been deleted")

    async def entries(self) -> Sequence[Node]:
        return []


class BrokenFolder(Folder):
    """A connection that could not be made: everything about it says why, but its name is there."""

    __slots__ = ("_born", "_error")

    def __init__(self, parent: Node, name: str, error: RegfsError, born: int) -> None:
        super().__init__(parent, name)
        self._error = error
        self._born = born

    @property
    def time_ns(self) -> int:
        return self._born

    async def find(self, name: str) -> Node:  # noqa: ARG002  # whatever the name, the answer is the same
        raise self._error.with_traceback(None)

    async def entries(self) -> Sequence[Node]:
        raise self._error.with_traceback(None)
