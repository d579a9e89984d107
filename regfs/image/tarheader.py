"""What stands in a tar header: numbers, names, PAX records. Pure functions over bytes nobody vouches for.

Formats: POSIX.1-2017 "pax" (ustar, extended headers), GNU tar manual "Basic Tar Format" (base-256 numbers, sparse maps),
libarchive tar(5) (which also says what old tars write).
"""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import unquote_to_bytes

BLOCK: Final = 512

_SCHILY: Final = b"SCHILY.xattr."
_LIBARCHIVE: Final = b"LIBARCHIVE.xattr."
_SECOND: Final = 1_000_000_000


class Damaged(ValueError):
    """A header that no tar writes: where the next one is can't be known."""


class Unusable(ValueError):
    """A member that can't be shown as it claims to be; those after it can."""


def number(field: bytes) -> int:
    """A number in octal digits, or in base 256 where the first bit is set. Raises Damaged."""
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        # Some writers put the NULs before the digits.
        digits = field.strip(b" \0").partition(b"\0")[0]
        if not digits:
            return 0
    if not digits.isdigit():
        raise Damaged(f"not a number: {digits[:12]!r}")
    try:
        return int(digits, 8)
    except ValueError:
        raise Damaged(f"not an octal number: {digits[:12]!r}") from None


def text(field: bytes) -> bytes:
    """A string up to its NUL."""
    return field.partition(b"\0")[0]


def is_sound(block: bytes) -> bool:
    """Whether a header's checksum is right, summed over signed or unsigned bytes: old tars did either."""
    try:
        claimed = number(block[148:156])
    except Damaged:
        return False
    field = block[148:156]
    unsigned = sum(block) - sum(field) + 8 * 32
    if claimed == unsigned:
        return True
    return claimed == unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def name_of(block: bytes) -> bytes:
    """A member's name, with the prefix that ustar (and star) keeps apart."""
    name = text(block[:100])
    if block[257:263] != b"ustar\0":
        return name
    is_star = block[508:512] == b"tar\0"
    prefix = text(block[345:476] if is_star else block[345:500])
    return prefix + b"/" + name if prefix else name


Records = list[tuple[bytes, bytes]]


def records(body: bytes) -> Records:
    """The records of a PAX header, ``LENGTH KEY=VALUE\\n`` each, in their order. Raises Damaged."""
    found = []
    at = 0
    while at < len(body):
        if body[at] == 0 and not body[at:].strip(b"\0"):
            break  # some writers fill up with NULs and count them
        space = body.find(b" ", at, at + 20)
        digits = body[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        if end <= space or end > len(body) or body[end - 1] != 0x0A:
            raise Damaged("a PAX record whose length is wrong")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise Damaged("a PAX record without a key")
        found.append((key, value))
        at = end
    return found


def decimal(value: bytes) -> int:
    """A whole number in a PAX record. Raises Damaged."""
    digits = value[1:] if value[:1] == b"-" else value
    if not digits.isdigit() or len(digits) > 20:
        raise Damaged(f"not a number in a PAX record: {value[:20]!r}")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """A time in a PAX record, ``1350244992.023960108``, in nanoseconds since 1970. Raises Damaged."""
    whole, _, fraction = value.partition(b".")
    if fraction and not fraction.isdigit():
        raise Damaged(f"not a time in a PAX record: {value[:30]!r}")
    part = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    sign = -1 if whole[:1] == b"-" else 1
    return (decimal(whole) if whole not in (b"", b"-") else 0) * _SECOND + sign * part


def xattr(key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """The extended attribute that a PAX record holds; None: it holds none. Raises Unusable."""
    if key.startswith(_SCHILY):
        return key[len(_SCHILY) :], value
    if key.startswith(_LIBARCHIVE):
        try:
            decoded = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            raise Unusable("an extended attribute that is not base64") from None
        return unquote_to_bytes(key[len(_LIBARCHIVE) :]), decoded
    return None
