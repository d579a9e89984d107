"""The windows of a layer's checkpoints, kept beside its index: most of what there is to keep, and a read needs one of them.

A few are kept in the index itself. More are kept in groups, each by itself in the cache; of 430 MB of gzip they are 6 MB
in 15 groups, where all else in the index is 1.4 MB. What the cache gave up of them is not made again: decoding then starts
at the checkpoint before, and the index is made anew when the layer is opened next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from regfs.digest import Digest
from regfs.ports import Blobs

GROUP: Final = 32
"""Windows in a group: of 64 MiB of the archive."""

FEW: Final = 256 * 1024
"""Bytes of windows that the index holds itself."""

VERSION: Final = 1

Window = bytes | memoryview


def grouped(windows: Sequence[Window]) -> list[bytes]:
    """The groups as they are kept; none where all are in the index."""
    if sum(map(len, windows)) <= FEW:
        return []
    return [
        msgspec.msgpack.encode([memoryview(window) for window in windows[at : at + GROUP]])
        for at in range(0, len(windows), GROUP)
    ]


def opened(group: bytes, sha256: bytes, count: int) -> list[memoryview] | None:
    """The windows of a group, if it is the right one. Belongs in a thread."""
    if hashlib.sha256(group).digest() != sha256:
        return None
    windows = msgspec.msgpack.decode(group, type=list[memoryview])
    return windows if len(windows) == count else None


async def keep(blobs: Blobs, digest: Digest, number: int, group: bytes) -> None:
    """Keep a group."""
    await blobs.keep_derived(digest, f"windows-{number}", VERSION, group)


async def kept(blobs: Blobs, digest: Digest, number: int) -> bytes | None:
    """What was kept, or None."""
    return await blobs.derived(digest, f"windows-{number}", VERSION)
