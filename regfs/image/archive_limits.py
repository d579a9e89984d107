"""What it may cost to walk a compressed layer, and why that much: layers are untrusted input."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds on the one pass over a layer. At one of them the walk ends: what was before stays, with a line that says so.

    ``unpacked``: bytes that a layer decompresses to. A core unpacks half a gigabyte a second, so this many take some
    four minutes, ten times what the largest published layers need.
    ``ratio``: how many times larger than what was read of it, over ``ratio_free`` bytes. Deflate can't do better than 1,032;
    zstd makes 30,000 of zeros, and no disk image that people publish is that empty over gigabytes.
    ``frames``: gzip members or zstd frames. eStargz and zstd:chunked begin one for each file and each 4 MiB of it; one
    costs some 10 µs even where it holds nothing, and the smallest has 9 bytes.
    ``window_log``: of a zstd frame, as a power of two of bytes: that much memory it takes to read. 27 (128 MiB) is what
    the format's own tools stop at unless told otherwise.
    ``extended``: extended headers that may stand before one member. Tools write one of each kind, at most five.
    """

    unpacked: int = 128 * GIB
    ratio: int = 1200
    ratio_free: int = GIB
    frames: int = 4_000_000
    window_log: int = 27
    extended: int = 16
