"""The four ways in which tars say where a sparse file has data (GNU tar manual, "Sparse Formats")."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from regfs.image.feed import Feed
from regfs.image.tarheader import BLOCK, Records, Unusable, decimal, number

Regions = list[tuple[int, int]]
"""Pairs of offset and length."""

_GNU_ENTRIES: Final = slice(386, 482)
_GNU_MORE: Final = 482
_GNU_SIZE: Final = slice(483, 495)
_NEXT_ENTRIES: Final = slice(0, 504)
_NEXT_MORE: Final = 504


@dataclass(slots=True)
class Sparse:
    """A sparse file's ``size`` as it unfolds and its map; ``used`` bytes of its data were the map. ``trouble``: it has none."""

    size: int = 0
    regions: Regions | None = None
    used: int = 0
    trouble: str = ""

    def checked(self, stored: int) -> tuple[tuple[int, int], ...]:
        """The map without empty regions: in order, apart, within the size, and of ``stored`` bytes at most. Raises Unusable."""
        if self.trouble or self.regions is None:
            raise Unusable(self.trouble or "it is sparse and has no map")
        found: Regions = []
        end = total = 0
        for offset, length in self.regions:
            if offset < end or length < 0 or offset + length > self.size:
                raise Unusable("its sparse map has regions that overlap, go back, or pass its end")
            end = offset + length
            total += length
            if found and length and sum(found[-1]) == offset:
                found[-1] = (found[-1][0], found[-1][1] + length)
            elif length:
                found.append((offset, length))
        if total > stored:
            raise Unusable("its sparse map tells of more bytes than the archive holds of it")
        return tuple(found)


def sparse_of(
    feed: Feed, block: bytes, pax: Records, values: dict[bytes, bytes], stored: int, limit: int
) -> Generator[None, None, Sparse | None]:
    """What a file's headers say of its holes, with what stands before its data; None: it has none.

    A map of more than ``limit`` regions, or one that makes no sense, costs the file and not those behind it.
    """
    if block[156] == ord("S"):
        return (yield from _old_gnu(feed, block, limit))
    if values.get(b"GNU.sparse.major") == b"1":
        return (yield from _in_data(feed, values, stored, limit))
    return _in_records(pax, values, limit)


def _old_gnu(feed: Feed, block: bytes, limit: int) -> Generator[None, None, Sparse]:
    found = Sparse()
    fields = [block[_GNU_ENTRIES]]
    more = block[_GNU_MORE]
    count = 4
    while more:
        following = yield from feed.exactly(BLOCK)
        more = following[_NEXT_MORE]
        count += 21
        if count <= limit + 21:
            fields.append(following[_NEXT_ENTRIES])
    try:
        found.size = number(block[_GNU_SIZE])
        found.regions = [entry for part in fields for entry in _old_entries(part)]
        _check_count(len(found.regions), limit)
    except ValueError as error:
        found.trouble = str(error)
    return found


def _old_entries(part: bytes) -> Regions:
    entries = [part[at : at + 24] for at in range(0, len(part) - 23, 24)]
    return [(number(entry[:12]), number(entry[12:])) for entry in entries if entry[12]]


def _in_records(pax: Records, values: dict[bytes, bytes], limit: int) -> Sparse | None:
    """Formats 0.0 (two records a region) and 0.1 (one list)."""
    if b"GNU.sparse.map" in values:
        numbers = values[b"GNU.sparse.map"].split(b",") if values[b"GNU.sparse.map"] else []
        offsets, lengths = numbers[::2], numbers[1::2]
    elif b"GNU.sparse.size" in values:
        offsets = [value for key, value in pax if key == b"GNU.sparse.offset"]
        lengths = [value for key, value in pax if key == b"GNU.sparse.numbytes"]
    else:
        return None
    found = Sparse()
    try:
        found.size = decimal(values.get(b"GNU.sparse.size") or values.get(b"GNU.sparse.realsize") or b"")
        found.regions = list(zip(map(decimal, offsets), map(decimal, lengths), strict=True))
        _check_count(len(found.regions), limit)
    except ValueError as error:
        found.trouble = str(error)
    return found


def _in_data(
    feed: Feed, values: dict[bytes, bytes], stored: int, limit: int
) -> Generator[None, None, Sparse]:
    """Format 1.0: decimal lines before the data, filled up to a block: how many regions, then offset and length of each."""
    found = Sparse()
    try:
        found.size = decimal(values.get(b"GNU.sparse.realsize") or b"")
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            if found.used + BLOCK > stored:
                raise Unusable("its sparse map passes its end")
            block = yield from feed.exactly(BLOCK)
            found.used += BLOCK
            *whole, rest = (rest + block).split(b"\n")
            if len(rest) > BLOCK:
                raise Unusable("its sparse map has no lines")
            lines += whole
            if lines and wanted == 1:
                _check_count(decimal(lines[0]), limit)
                wanted += 2 * decimal(lines[0])
        numbers = [decimal(line) for line in lines[1:wanted]]
        found.regions = list(zip(numbers[::2], numbers[1::2], strict=True))
    except ValueError as error:
        found.trouble = str(error)
    return found


def _check_count(count: int, limit: int) -> None:
    if not 0 <= count <= limit:
        raise Unusable(f"its sparse map has {count:,} regions, over the limit of {limit:,}")
