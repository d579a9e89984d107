"""Which certificate a registry shows: for a person whose sign-in failed over it. Decides nothing about trust."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

_TIMEOUT: Final = 5.0
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the ssl module has no name for."""


def describe(host: str, port: int) -> str:
    """The certificate that ``host`` shows, in one line, or "" where none can be had: subject, issuer, end, fingerprint."""
    try:
        der = _shown(host, port)
        facts = _decoded(host, port, der)
    except (OSError, ValueError):
        return ""
    fingerprint = hashlib.sha256(der).hexdigest()
    return f"{_facts_text(facts)}SHA-256 {fingerprint}"


def _shown(host: str, port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _connected(host, port, context) as connection:
        return connection.getpeercert(binary_form=True) or b""


def _decoded(host: str, port: int, der: bytes) -> Mapping[str, Any]:
    """The certificate's fields. Python decodes only what was verified, so it is made its own anchor, at any time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    context.load_verify_locations(cadata=der)
    try:
        with _connected(host, port, context) as connection:
            return connection.getpeercert() or {}
    except OSError:
        return {}


def _connected(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection((host, port), timeout=_TIMEOUT)
    try:
        return context.wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise


def _facts_text(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    names = ", ".join(value for _, value in facts.get("subjectAltName", ())) or "no name"
    subject, issuer = _common_name(facts.get("subject", ())), _common_name(facts.get("issuer", ()))
    signer = "itself" if facts.get("subject") == facts.get("issuer") else f"{issuer!r}"
    return f"{subject!r} for {names}, signed by {signer}, valid until {facts.get('notAfter', '?')}, "


def _common_name(name: Any) -> str:
    pairs = [pair for group in name for pair in group]
    for wanted in ("commonName", "organizationName"):
        for key, value in pairs:
            if key == wanted:
                return str(value)
    return "unnamed"
