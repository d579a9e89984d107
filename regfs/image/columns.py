"""Columns of whole numbers as they are stored: little-endian, each as narrow as its numbers allow."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Final

import msgspec

_UNSIGNED: Final = "BHI"
_SIGNED: Final = "bhi"
_WIDEST: Final = "q"


class StoredColumn(msgspec.Struct, array_like=True):
    """``kind``: a letter of `array`, for the width of each number."""

    kind: str
    data: memoryview


def narrowed(column: Sequence[int]) -> StoredColumn:
    """A column to be stored. OverflowError for numbers of more than 64 bits."""
    low, high = (min(column), max(column)) if column else (0, 0)
    kinds = _UNSIGNED if low >= 0 else _SIGNED
    sign = 0 if low >= 0 else 1
    bits = max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + sign
    kind = next((kind for kind in kinds if bits <= 8 * array(kind).itemsize), _WIDEST)
    return StoredColumn(kind, memoryview(little(array(kind, column))))


def opened(stored: StoredColumn, count: int) -> Sequence[int]:
    """A column of ``count`` numbers that was stored, without a copy where that can be. ValueError where it is none."""
    if stored.kind not in (*_UNSIGNED, *_SIGNED, _WIDEST):
        raise ValueError(f"there are no columns of {stored.kind!r}")
    if len(stored.data) != count * array(stored.kind).itemsize:
        raise ValueError("columns of several lengths")
    if sys.byteorder == "big":
        return from_little(stored.kind, bytes(stored.data))
    view: memoryview = stored.data.cast(stored.kind)  # type: ignore[call-overload]  # a letter, as checked
    return view


def little(column: array[int]) -> bytes:
    """A column as little-endian bytes."""
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def from_little(kind: str, data: bytes) -> array[int]:
    """A column of type ``kind`` out of little-endian bytes. ValueError for half a number."""
    column = array(kind)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column
