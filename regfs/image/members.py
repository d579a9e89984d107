"""What a layer's index says of each member of its archive, and how a layer is asked."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from regfs.digest import Digest
from regfs.manifest import Descriptor


class MemberKind(IntEnum):
    """What a member of an archive is. The numbers are those of ``typeflag`` in POSIX.1 ustar, which a stored index keeps.

    ``1`` is a hard link. A contiguous file (``7``), a GNU sparse file (``S``) and the old ``\\0`` are a FILE.
    """

    FILE = 0
    HARD_LINK = 1
    LINK = 2
    CHARACTER_DEVICE = 3
    BLOCK_DEVICE = 4
    FOLDER = 5
    FIFO = 6


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One member, in the order of the archive; nothing in it has been judged but its length.

    ``path``: as `clean_path` leaves it; ``b""`` is the root; ``..`` may be in it. ``mode``: permission bits with setuid,
    setgid and sticky. ``mtime_ns``: nanoseconds since 1970. ``size``: of a FILE as it unfolds, holes of a sparse one
    included, in bytes; else 0. ``offset``: of its data in the decompressed stream. ``target``: of a LINK as written, of a
    HARD_LINK as `clean_path` leaves it. ``device``: as `os.makedev` makes it. ``xattrs``: pairs of full name and value, from
    PAX ``SCHILY.xattr.NAME`` (raw value) and ``LIBARCHIVE.xattr.NAME`` (base64, name URL-encoded); the last of a name.
    ``sparse``: None, or where the data stands, as pairs of offset in the file and length, ascending and apart;
    the archive has them one behind the other from ``offset`` on, and all else is zeros.
    """

    path: bytes
    kind: MemberKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    offset: int = 0
    target: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[tuple[int, int], ...] | None = None


WHITEOUT: Final = b".wh."
"""How a name begins that removes another one from the layers below (OCI image-spec, layer.md, "Whiteouts")."""

OPAQUE: Final = b".wh..wh..opq"
"""The name that removes all that the layers below have in its folder."""


def clean_path(raw: bytes) -> bytes:
    """A path from an archive without a leading slash, ``.`` components and doubled slashes; ``..`` stays."""
    return b"/".join(part for part in raw.split(b"/") if part not in (b"", b"."))


class Arrival(Protocol):
    """One pass over a layer, and what can be had of it before it ends. Nothing of it is verified before ``is_right``.

    What a pass gave is bound to it: once it has ended wrong, or was broken off, each question raises what ended it, though
    another pass may have begun.
    """

    @property
    def digest(self) -> Digest:
        """Of the layer as stored."""
        ...

    @property
    def members(self) -> Sequence[Member]:
        """Those that the pass is past, with all their data, in order. It grows."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        ...

    @property
    def verified(self) -> bool:
        """Whether it has ended, and the layer is what its digest says."""
        ...

    def check(self) -> None:
        """Raise what ended it, if the layer is not whole or not right."""
        ...

    async def more(self, count: int) -> None:
        """Wait until there are more than ``count`` members, or it has ended well. Raises what ended it else."""
        ...

    async def read(self, member: Member, start: int, length: int) -> bytes:
        """As `Layer.read`, of a member that is there; a file's last byte comes with the layer's verdict."""
        ...


def stretches(member: Member, start: int, end: int) -> list[tuple[int, int, int | None]]:
    """A range of a file in parts: from, to, and where in the archive that is; None: nowhere, it is a hole."""
    if member.sparse is None:
        return [(start, end, member.offset + start)]
    found: list[tuple[int, int, int | None]] = []
    place = member.offset
    for offset, length in member.sparse:
        begin, stop = max(start, offset), min(end, offset + length)
        if begin < stop:
            if start < begin:
                found.append((start, begin, None))
            found.append((begin, stop, place + begin - offset))
            start = stop
        place += length
        if start >= end:
            break
    if start < end:
        found.append((start, end, None))
    return found


class Layer(Protocol):
    """One layer of an image, indexed by the one pass that first reads it, or from an index that was kept.

    Every method raises what reading a blob raises: DigestMismatch once the layer is known to be wrong, NotFound,
    Unsupported for a compression that regfs doesn't read, BadReply for what is no archive, TooLarge over a limit of the whole.
    """

    @property
    def digest(self) -> Digest:
        """Of the layer as stored."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether all of it is indexed; `members` then answers at once."""
        ...

    @property
    def verified(self) -> bool:
        """Whether the layer's bytes were verified by its digest, in this run or by the one that kept the index."""
        ...

    @property
    def faults(self) -> Sequence[str]:
        """What the pass had to leave out (over a limit, damaged, cut short), a line each; final once `is_complete`."""
        ...

    async def members(self) -> Sequence[Member]:
        """All members, once the whole layer is indexed: the same object each time. It need not hold them as objects."""
        ...

    async def upto(self, count: int) -> Sequence[Member]:
        """The members so far, once there are ``count`` of them or the layer is complete. The sequence may grow later."""
        ...

    def arrive(self) -> Arrival:
        """The pass that is under way, begun if there is none. Of a layer that ``is_complete``: one that is over."""
        ...

    async def read(self, member: Member, start: int, length: int) -> bytes:
        """Bytes of a FILE of this layer, holes as zeros; fewer than ``length`` only at its ``size``."""
        ...


class Layers(Protocol):
    """Opens layers: one `Layer` for all who ask for a digest, as long as anyone holds it."""

    async def open(self, repository: str, descriptor: Descriptor) -> Layer:
        """A layer of a repository. Asks nothing yet, and starts no pass before it is asked something."""
        ...
