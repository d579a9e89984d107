"""Decompressed pieces of a layer that are kept where decoding can't start in the middle.

zstd has no seeking inside a frame, and most tools write a layer as one frame; nor has a deflate block that goes on for
megabytes. There the archive is kept beside the layer in pieces, lightly compressed, each by itself in the cache and in its
budget: a read then costs one piece (4 MiB) and not all that is before it. What the cache gave up is made again.
Measured on 319 MB of programs, 113 MB as one frame of level 3: they take 131 MB, and compressing them 0.6 s beside 0.5 s
for decoding the layer.
"""

from __future__ import annotations

import hashlib
from typing import Final

from regfs.digest import Digest
from regfs.image.spans import Spans
from regfs.image.zstdlib import zstd
from regfs.ports import Blobs

PIECE: Final = 4 * 1024 * 1024
"""Bytes of the archive in each piece but the last."""

VERSION: Final = 1
_LEVEL: Final = 1
"""On the same data -5 took 0.4 s for 0.6, and 180 MB for 131: they are in the cache's budget, and made once."""


def is_needed(spans: Spans, number: int) -> bool:
    """Whether decoding can't start near the piece's beginning."""
    return number > 0 and spans.starts_before(number * PIECE, number * PIECE - PIECE)


def packed(piece: bytes) -> tuple[bytes, bytes]:
    """A piece as it is kept, and its SHA-256. Belongs in a thread."""
    return zstd.compress(piece, _LEVEL), hashlib.sha256(piece).digest()


def unpacked(kept: bytes, sha256: bytes) -> bytes | None:
    """The piece, if it is the right one. Belongs in a thread."""
    try:
        piece = zstd.decompress(kept) if kept else b""
    except zstd.ZstdError:
        return None
    return piece if hashlib.sha256(piece).digest() == sha256 else None


async def keep(blobs: Blobs, digest: Digest, number: int, kept: bytes) -> None:
    """Keep it; nothing (``b""``): as good as not there."""
    await blobs.keep_derived(digest, f"piece-{number}", VERSION, kept)


async def kept(blobs: Blobs, digest: Digest, number: int) -> bytes | None:
    """What was kept, or None."""
    return await blobs.derived(digest, f"piece-{number}", VERSION)
