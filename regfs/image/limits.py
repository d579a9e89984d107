"""What an archive may cost, and why that much: layers are untrusted input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one layer and on one image. What is over one is left out, with a line in ``.regfs/errors``.

    ``members``: of one layer. The largest published images hold some 600,000 names in all their layers; each costs
    about 50 bytes of memory, and 270 while its layer is indexed, so this many cost 540 MB for that time, and a bomb ends there.
    ``path``: bytes of a path, hard link or symbolic link target. Linux's own PATH_MAX, over which no tool could name it.
    ``name``: bytes of one component. Linux's NAME_MAX: the kernel refuses a longer name before it asks.
    ``depth``: folders above a name. Deeper trees end recursive tools (`find`, `rm -r` by path) before they end.
    ``xattrs``: bytes of all names and values on one member. Linux keeps at most 64 KiB of names on one file.
    ``xattr``: bytes of one value; XATTR_SIZE_MAX, over which getxattr(2) can't hand it over.
    ``header``: bytes of one extended header (PAX records, a GNU long name) that are read into memory.
    ``sparse``: regions of one sparse file; at 16 bytes each, in memory.
    ``size``: bytes of one file as it unfolds, 2**63 - 1 at most: what a 64-bit offset can say. A sparse file costs
    nothing of what it claims, so this is no limit against bombs; those are read as they are asked for.
    """

    members: int = 2_000_000
    path: int = 4095
    name: int = 255
    depth: int = 255
    xattrs: int = 65_536 * 4
    xattr: int = 65_536
    header: int = 1024 * 1024
    sparse: int = 1_000_000
    size: int = 2**63 - 1
