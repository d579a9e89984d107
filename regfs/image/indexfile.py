"""A layer's index as it is kept: a magic word, the format's version, a hash of the rest, and the rest.

The rest is MessagePack around compressed columns of little-endian integers, so that 100,000 members are read in some
milliseconds. It holds the tree that the members make too: who looks for one name pays for no other.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from regfs.image.checked import CHUNK, HASH
from regfs.image.layertree import LayerTree, StoredTree
from regfs.image.limits import Limits
from regfs.image.merge_layer import tree_of
from regfs.image.spans import Spans, StoredSpans
from regfs.image.table import MemberTable, StoredTable
from regfs.image.zstdlib import zstd

NAME: Final = "index"
"""Under what name it is kept beside its layer."""

VERSION: Final = 4
"""Of the format. Another one is not read, and made anew."""

_MAGIC: Final = b"regfs layer index"


class LayerIndex(msgspec.Struct):
    """All that one pass over a layer found. ``hashes``: of each `CHUNK` of the layer; ``pieces``: SHA-256 of each kept piece.

    ``limits``: those it was made with, as text; where something was left out, other limits may let it in.
    """

    size: int
    members: MemberTable
    spans: Spans
    hashes: bytes
    pieces: dict[int, bytes]
    faults: list[str]
    limits: str


class _Stored(msgspec.Struct, array_like=True):
    size: int
    members: StoredTable
    tree: StoredTree
    spans: StoredSpans
    hashes: bytes
    pieces: dict[int, bytes]
    faults: list[str]
    limits: str


class Unreadable(ValueError):
    """No index, a damaged one, or one of another version."""


def pack(index: LayerIndex, limits: Limits | None = None) -> bytes:
    """An index as bytes, with the tree that its members make within ``limits``: 50 ms for 10,000 of them, so it belongs in a thread.

    From then on the members are held as they were stored, in less memory.
    """
    tree = tree_of(index.members, limits or Limits())
    members = index.members.stored()
    index.members.settle(members)
    stored = _Stored(
        index.size,
        members,
        tree.stored(),
        index.spans.stored(),
        index.hashes,
        index.pieces,
        index.faults,
        index.limits,
    )
    body = msgspec.msgpack.encode(stored)
    return _head(body) + body


def unpack(data: bytes, size: int) -> LayerIndex:
    """The index of a layer of ``size`` bytes. Raises Unreadable."""
    view = memoryview(data)
    body = view[len(_head(b"")) :]
    if view[: len(data) - len(body)] != _head(body):
        raise Unreadable("it is damaged, or of another version")
    try:
        stored = msgspec.msgpack.decode(body, type=_Stored)
        if stored.size != size or len(stored.hashes) != -(-size // CHUNK) * HASH:
            raise Unreadable("it is of another layer")
        members = MemberTable.of(stored.members)
        members.tree = LayerTree.of(members, stored.tree)
        return LayerIndex(
            size,
            members,
            Spans.of(stored.spans),
            stored.hashes,
            stored.pieces,
            stored.faults,
            stored.limits,
        )
    except (zstd.ZstdError, msgspec.MsgspecError, ValueError) as error:
        raise Unreadable(str(error)) from error


def _head(body: bytes | memoryview) -> bytes:
    return _MAGIC + VERSION.to_bytes(2, "little") + hashlib.sha256(body).digest()
