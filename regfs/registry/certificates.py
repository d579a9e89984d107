"""Which certificate was it? Just enough of DER (ITU-T X.690) and X.509 (RFC 5280, 4.1) to name one. Pure.

The standard library reads only certificates that it has verified, and people ask about the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OID: Final = 0x06
_VERSION: Final = 0xA0
_COMMON_NAME: Final = bytes.fromhex("550403")
_ORGANISATION: Final = bytes.fromhex("55040a")
_LONGEST: Final = 64


def describe(der: bytes) -> str:
    """Name a certificate: for whom, by whom, and its SHA-256 fingerprint as `openssl x509 -fingerprint` shows it.

    What cannot be read is left out; the bytes are untrusted, and nothing is raised.
    """
    if not der:
        return ""
    digest = hashlib.sha256(der).hexdigest().upper()
    parts = [f"SHA-256 {':'.join(digest[i : i + 2] for i in range(0, 64, 2))}"]
    try:
        issuer, subject = names(der)
    except ValueError:
        return parts[0]
    if issuer:
        parts.insert(0, f"issued by {issuer!r}")
    if subject:
        parts.insert(0, f"for {subject!r}")
    return ", ".join(parts)


def names(der: bytes) -> tuple[str, str]:
    """Return the issuer's and the subject's common name (or organisation) of a certificate. ValueError: it is none."""
    certificate = next(_values(der, _SEQUENCE), b"")
    fields = list(_elements(next(_values(certificate, _SEQUENCE), b"")))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    # serial number, signature algorithm, issuer, validity, subject
    if len(fields) < 5:
        raise ValueError("not a certificate")
    return _name(fields[2][1]), _name(fields[4][1])


def _name(name: bytes) -> str:
    found: dict[bytes, str] = {}
    for relative in _values(name, _SET):
        for attribute in _values(relative, _SEQUENCE):
            pair = list(_elements(attribute))
            if len(pair) == 2 and pair[0][0] == _OID:
                found.setdefault(pair[0][1], pair[1][1].decode("utf-8", "replace"))
    text = found.get(_COMMON_NAME) or found.get(_ORGANISATION) or ""
    return "".join(letter for letter in text[:_LONGEST] if letter.isprintable())


def _values(data: bytes, tag: int) -> Iterator[bytes]:
    return (value for found, value in _elements(data) if found == tag)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if position + 2 > len(data):
            raise ValueError("cut short")
        tag, length = data[position], data[position + 1]
        position += 2
        if length >= 0x80:
            size = length & 0x7F
            if not 0 < size <= 4:
                raise ValueError("not a definite length")
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > len(data):
            raise ValueError("cut short")
        yield tag, data[position : position + length]
        position += length
