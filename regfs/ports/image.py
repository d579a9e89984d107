"""What is inside an image: blobs to read, and the merged tree of its layers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from regfs.digest import Digest
from regfs.errors import DigestMismatch
from regfs.manifest import Descriptor, Manifest


class ContentReader(Protocol):
    """An open file: a blob's bytes as stored, or a file's within an image."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def verified(self) -> bool:
        """Whether all of it is known to be what the digests say."""
        ...

    async def read(self, start: int, length: int) -> bytes:
        """``length`` bytes from offset ``start``, fewer only at the end; waits for them, 30 s without progress at most.

        Raises DigestMismatch where they are known to be wrong, or are the last ones and the whole proves to be wrong.
        """
        ...

    async def aclose(self) -> None:
        """Read no more."""
        ...


@runtime_checkable
class Condemns(Protocol):
    """A reader of bytes that may prove wrong by what somebody else knows of them."""

    def condemn(self, error: DigestMismatch) -> None:
        """They did: nothing that was not verified stays, and who opens it anew gets others."""
        ...


class Blobs(Protocol):
    """A registry's blobs, through the store where there is one: a blob is fetched once, however many read it."""

    async def open(self, repository: str, descriptor: Descriptor) -> ContentReader:
        """A blob to read in any order. Raises NotFound, and what a Source raises."""
        ...

    async def derived(self, digest: Digest, name: str, version: int) -> bytes | None:
        """What was made from a blob and kept, whole; None: it has to be made (anew)."""
        ...

    async def keep_derived(self, digest: Digest, name: str, version: int, data: bytes) -> None:
        """Keep it, if there is room."""
        ...


class EntryKind(Enum):
    """What a name in an image's root tree is."""

    __hash__ = object.__hash__  # Enum's own is Python code, and listings look kinds up by the ten thousand

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class RootEntry:
    """One name of an image's root tree, as the merge of its layers has it.

    ``path``: within the root, without a slash at either end, ``b""`` the root; any bytes but NUL. ``mode``: the permission
    bits with setuid, setgid and sticky. Owners as in the image. ``mtime_ns``: nanoseconds since 1970. ``links``: how many
    names the file has in the merged tree, which share ``identity``. ``target``: a link's, as it is to be shown.
    ``device``: of a device node, as `os.makedev` makes it. ``xattrs``: full names (``user.x``, ``security.capability``).
    ``is_provisional``: see `RootTree.soon`.
    """

    path: bytes
    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    links: int = 1
    identity: Hashable = None
    target: bytes = b""
    device: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    is_provisional: bool = False


EntryRow = tuple[bytes, EntryKind, int, int, int, int, int, int, Hashable]
"""What a listing shows of an entry: name, kind, mode, uid, gid, size, mtime_ns, links, identity; each as in `RootEntry`."""


class RootEntries(Sequence[RootEntry]):
    """What a folder holds, by name in byte order, made as it is asked for."""

    def rows(self, start: int, stop: int) -> Sequence[EntryRow]:
        """The entries from ``start`` to before ``stop``, fewer only at the end, as rows: far cheaper than one by one."""
        return [
            (
                e.path.rpartition(b"/")[2],
                e.kind,
                e.mode,
                e.uid,
                e.gid,
                e.size,
                e.mtime_ns,
                e.links,
                e.identity,
            )
            for e in self[start:stop]
        ]


class RootTree(Protocol):
    """An image's merged file tree, read lazily: a question fetches and indexes what layers it needs, and no more."""

    async def find(self, path: bytes) -> RootEntry:
        """The entry of that very path: links in it are not followed. Raises NotFound, and what reading a layer raises."""
        ...

    async def soon(self, path: bytes) -> RootEntry:
        """As `find`, but a name of a layer that is still arriving may be answered before that layer's end: provisionally.

        Another entry may take its place once more of the layer is known, and its bytes are not verified before the layer is:
        so it is asked for each time.
        """
        ...

    def became(self, identity: Hashable) -> Hashable:
        """The identity of the final entry that a provisional one has become; None: its layer is not whole, or not right."""
        ...

    async def entries(self, path: bytes) -> RootEntries:
        """What a folder holds, by name in byte order. Raises NotFound, NotADirectory."""
        ...

    async def open(self, entry: RootEntry) -> ContentReader:
        """A file to read. Its reader is not ``verified`` until its layer is."""
        ...

    def opened_of_late(self, identity: Hashable) -> ContentReader | None:
        """The reader of a file that was opened a while ago and is verified, for another open; None: `open` it."""
        ...

    def again(self, path: bytes, identity: Hashable) -> RootEntry:
        """An entry that was found before, made anew from its path and identity: for who has to hold many."""
        ...

    def layer_of(self, entry: RootEntry) -> Digest | None:
        """The digest of the layer that an entry comes from; None: no layer has a member for it."""
        ...


class Images(Protocol):
    """Shows what is inside images."""

    async def root(self, repository: str, image: Manifest) -> RootTree:
        """The merged tree of an image's layers; asks nothing yet. Raises Unsupported for what is no image."""
        ...
