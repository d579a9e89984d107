"""Walks an archive while it passes by, and hands over its members: each once all of its data has passed.

What GNU tar, libarchive and Go's archive/tar agree on is followed. At the first thing that none of them could go on from
the walk ends, and what was before stays; a member that can't be shown is left out, and the walk goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from regfs.image.archive_limits import ArchiveLimits
from regfs.image.feed import Feed, Walk
from regfs.image.limits import Limits
from regfs.image.members import Member, MemberKind, clean_path
from regfs.image.tarheader import (
    BLOCK,
    Damaged,
    Records,
    Unusable,
    decimal,
    is_sound,
    name_of,
    nanoseconds,
    number,
    records,
    text,
    xattr,
)
from regfs.image.tarsparse import Sparse, sparse_of

_SECOND: Final = 1_000_000_000
_ZEROS: Final = bytes(BLOCK)
_MAX_64: Final = 2**63 - 1

_KINDS: Final = {
    0: MemberKind.FILE,
    ord("0"): MemberKind.FILE,
    ord("7"): MemberKind.FILE,
    ord("S"): MemberKind.FILE,
    ord("1"): MemberKind.HARD_LINK,
    ord("2"): MemberKind.LINK,
    ord("3"): MemberKind.CHARACTER_DEVICE,
    ord("4"): MemberKind.BLOCK_DEVICE,
    ord("5"): MemberKind.FOLDER,
    ord("6"): MemberKind.FIFO,
}
_EXTENDED: Final = frozenset(b"xXgLKNV")
"""Headers that are no member: PAX (``X``: Solaris'), GNU long names, old GNU long names, a volume's label."""


class _End(Exception):
    """Nothing more comes."""


@dataclass(slots=True)
class _Ahead:
    """What extended headers say of the member behind them."""

    name: bytes = b""
    target: bytes = b""
    pax: Records = field(default_factory=list)
    count: int = 0


class TarWalk:
    """Give it the archive piece by piece. ``add`` gets each member, ``fault`` a line for each thing that is left out.

    ``is_done``: at its end, by the archive's own word or since it can't go on. ``is_archive``: False once it proves to be none.
    """

    def __init__(
        self,
        limits: Limits,
        archive_limits: ArchiveLimits,
        add: Callable[[Member], None],
        fault: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._extended = archive_limits.extended
        self._add = add
        self._fault = fault
        self._feed = Feed()
        self._count = 0
        self._last = b""
        self.is_done = False
        self.is_archive = True
        self._walk = self._guarded()
        next(self._walk)

    def give(self, piece: bytes) -> None:
        """The archive's next bytes."""
        if not self.is_done and self._feed.put(piece):
            next(self._walk, None)

    def finish(self, reason: str = "") -> None:
        """Nothing more comes; ``reason`` says why, where it should have."""
        if not self.is_done:
            with suppress(StopIteration):
                self._walk.throw(_End(reason))

    def _guarded(self) -> Walk:
        try:
            yield from self._members()
        except _End as end:
            self.is_archive = self._feed.offset >= BLOCK
            why = f"{end}" if str(end) else "it is cut short"
            self._fault(f"the archive ends early{self._place()}: {why}; what is before that stays")
        except Damaged as damage:
            self.is_archive = self._count > 0 or self._feed.offset > BLOCK
            self._fault(f"the archive is damaged{self._place()}: {damage}; what is before that stays")
        self.is_done = True

    def _place(self) -> str:
        behind = f", behind {os.fsdecode(self._last)[:200]!r}" if self._last else ""
        return f" at byte {self._feed.offset}{behind}"

    def _members(self) -> Walk:
        ahead = _Ahead()
        while (block := (yield from self._header(ahead))) is not None:
            if block[156] in _EXTENDED:
                yield from self._extend(ahead, block)
                continue
            self._count += 1
            if self._count > self._limits.members:
                raise Damaged(f"more than {self._limits.members:,} members")
            yield from self._member(block, ahead)
            ahead = _Ahead()

    def _header(self, ahead: _Ahead) -> Generator[None, None, bytes | None]:
        """The next header; None at the archive's end.

        That many tars lack the two blocks of zeros there is no fault, nor that some (umoci's) lack the zeros behind their
        last member's content too.
        """
        try:
            yield from self._feed.to_multiple(BLOCK)
            yield from self._feed.reached()
        except _End as end:
            if ahead.count or str(end):
                raise
            return None
        block = yield from self._feed.exactly(BLOCK)
        if block == _ZEROS:
            yield from self._look_behind_end()
            return None
        if not is_sound(block):
            raise Damaged("what stands there is no tar header")
        return block

    def _look_behind_end(self) -> Walk:
        try:
            second = yield from self._feed.exactly(BLOCK)
        except _End:
            return
        if second != _ZEROS:
            self._fault("the archive has a lone block of zeros; what is behind it is ignored")

    def _extend(self, ahead: _Ahead, block: bytes) -> Walk:
        ahead.count += 1
        size = number(block[124:136])
        if ahead.count > self._extended:
            raise Damaged(f"more than {self._extended} extended headers before one member")
        if not 0 <= size <= self._limits.header:
            raise Damaged(f"an extended header of {size:,} bytes, over the limit of {self._limits.header:,}")
        body = yield from self._feed.exactly(size)
        kind = chr(block[156])
        if kind in "xX":
            ahead.pax.extend(records(body))
        elif kind == "L":
            ahead.name = text(body)
        elif kind == "K":
            ahead.target = text(body)
        elif kind == "g":
            # Runtimes (Go's archive/tar, and what they make of it) take a global header for an entry of its own and ignore it,
            # and with it what stands before it. To apply it, as POSIX says, would show another tree than the one that runs.
            ahead.pax.clear()
            ahead.name = ahead.target = b""

    def _member(self, block: bytes, ahead: _Ahead) -> Walk:
        values = dict(ahead.pax)
        name = values.get(b"GNU.sparse.name") or values.get(b"path") or ahead.name or name_of(block)
        self._last = name
        kind = _KINDS.get(block[156])
        stored = decimal(values[b"size"]) if values.get(b"size") else number(block[124:136])
        if not 0 <= stored <= _MAX_64:
            raise Damaged(f"a size of {stored} bytes")
        if kind not in (MemberKind.FILE, None):
            stored = 0
        sparse = None
        if kind is MemberKind.FILE and (block[156] == ord("S") or ahead.pax):
            sparse = yield from sparse_of(self._feed, block, ahead.pax, values, stored, self._limits.sparse)
            stored -= sparse.used if sparse else 0
        offset = self._feed.offset
        yield from self._feed.past(stored)
        if block[156] == 0 and name.endswith(b"/"):
            kind, stored = MemberKind.FOLDER, 0  # as tars wrote folders before there was a type for them
        try:
            target = values.get(b"linkpath") or ahead.target or text(block[157:257])
            self._add(self._made(block, kind, name, values, target, offset, stored, sparse))
        except (Unusable, Damaged) as reason:
            self._fault(f"{os.fsdecode(name)[:200]!r} is left out: {reason}")

    def _made(
        self,
        block: bytes,
        kind: MemberKind | None,
        name: bytes,
        values: dict[bytes, bytes],
        target: bytes,
        offset: int,
        stored: int,
        sparse: Sparse | None,
    ) -> Member:
        if kind is None:
            raise Unusable(f"it is of a type that regfs doesn't know, {chr(block[156])!r}")
        path = self._path(name)
        if kind is MemberKind.LINK:
            if len(target) > self._limits.path:
                raise Unusable(f"its target is longer than {self._limits.path:,} bytes")
        else:
            target = self._path(target) if kind is MemberKind.HARD_LINK else b""
        is_device = kind in (MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE)
        size = sparse.size if sparse else stored
        if size > self._limits.size:
            raise Unusable(f"its size is over the limit of {self._limits.size:,} bytes")
        return Member(
            path,
            kind,
            number(block[100:108]) & 0o7777,
            _bounded(decimal(values[b"uid"]) if values.get(b"uid") else number(block[108:116])),
            _bounded(decimal(values[b"gid"]) if values.get(b"gid") else number(block[116:124])),
            _bounded(
                nanoseconds(values[b"mtime"]) if values.get(b"mtime") else number(block[136:148]) * _SECOND
            ),
            size,
            offset if kind is MemberKind.FILE else 0,
            target,
            _device(block) if is_device else 0,
            self._xattrs(values) if values else (),
            sparse.checked(stored) if sparse else None,
        )

    def _path(self, raw: bytes) -> bytes:
        path = clean_path(raw)
        if len(path) > self._limits.path:
            raise Unusable(f"its path is longer than {self._limits.path:,} bytes")
        if b"\0" in path:
            raise Unusable("its path holds a NUL")
        return path

    def _xattrs(self, values: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
        found = dict(pair for key, value in values.items() if (pair := xattr(key, value)))
        if sum(len(key) + len(value) for key, value in found.items()) > self._limits.xattrs:
            raise Unusable(f"its extended attributes take more than {self._limits.xattrs:,} bytes")
        if any(len(value) > self._limits.xattr for value in found.values()):
            raise Unusable(f"an extended attribute is longer than {self._limits.xattr:,} bytes")
        return tuple(found.items())


def _bounded(value: int) -> int:
    """What 64 bits can say, as near as can be."""
    return max(-_MAX_64, min(value, _MAX_64))


def _device(block: bytes) -> int:
    try:
        return os.makedev(number(block[329:337]), number(block[337:345]))
    except (OverflowError, ValueError):
        raise Unusable("it is a device of a number that can't be") from None
