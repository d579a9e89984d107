"""Replies, and what they mean where they are not what was asked for. Pure: no I/O, no clock.

Errors: OCI distribution-spec 1.1, "Error Codes"; any body is possible, and all of it is untrusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from regfs.errors import (
    BadReply,
    Forbidden,
    NotARegistry,
    NotFound,
    NotSignedIn,
    RateLimited,
    Refused,
    RegfsError,
    ServerFailed,
    TooLarge,
    Unsupported,
)
from regfs.registry.retry import retry_after

MAX_WORDS: Final = 200
"""How much of a registry's own words is shown, in characters."""
MAX_WARNINGS: Final = 4096
"""How much of a registry's Warning headers is kept, in bytes."""

_MOST_JSON: Final = 64 * 1024
_MOST_ERRORS: Final = 20
_SECRETS: Final = re.compile(
    r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9+/=._~-]{6,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+)*"
    r"|(?<=[?&;\s\"'])[A-Za-z0-9_.-]*(?:password|passwd|secret|token|signature|credential)[A-Za-z0-9_.-]*[\"']?\s*[=:]\s*[\"']?[^\s&\"']+"
    r"|(?<=://)[^/\s@]+@"
)
_WARNING: Final = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. ``headers`` do not care about case; ``url`` is where it came from in the end, redirects followed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


def error_codes(body: bytes) -> tuple[str, ...]:
    """Return the codes of a spec's errors document (``MANIFEST_UNKNOWN`` …), in its order; none for any other body."""
    return tuple(code for code, _ in _errors(body) if code)


def error_for(reply: Reply, registry: str, what: str = "", now: float | None = None) -> RegfsError:
    """Return the error that an unwelcome reply means; ``what`` says what was asked for, as a person would.

    ``now`` (seconds since 1970) is for a Retry-After that is a date; without it the reply's own Date counts.
    """
    said = words_of(reply)
    codes = error_codes(reply.body)
    subject = what or "the request"
    if reply.status == 429 or "TOOMANYREQUESTS" in codes:
        return RateLimited(
            f"{registry} has had too many requests: {subject}",
            retry_after=retry_after(reply.headers, _moment(reply) if now is None else now),
            registry=registry,
            words=said,
        )
    kind, fact = _kind(reply.status, codes)
    return kind(f"{registry} {fact}: {subject}", registry=registry, words=said)


def check_error(reply: Reply, registry: str) -> RegfsError | None:
    """Return what a reply to ``GET /v2/`` says against this registry; None: it is one, and it answers this caller.

    A 404, or a page for people where a registry would say JSON, is NotARegistry.
    """
    if reply.status == 200 and _looks_like_registry(reply):
        return None
    if reply.status == 401 and "www-authenticate" not in reply.headers and _is_html(reply):
        return _not_a_registry(reply, registry)
    if reply.status in (200, 204, 301, 302, 303, 307, 308, 400, 404, 405, 410):
        return _not_a_registry(reply, registry)
    return error_for(reply, registry, "whether it is a registry")


def words_of(reply: Reply) -> str:
    """Return the registry's own words: its errors document's, or a short excerpt; blotted, printable, at most 200."""
    errors = _errors(reply.body)
    if errors:
        texts = [f"{code}: {message}" if code and message else code or message for code, message in errors]
        return excerpt("; ".join(dict.fromkeys(filter(None, texts))))
    text = reply.body[:4096].decode("utf-8", "replace")
    if _is_html(reply):
        title = re.search(r"(?is)<title[^>]*>([^<]*)", text)
        text = title[1] if title else re.sub(r"(?s)<[^>]*>", " ", text)
    return excerpt(text)


def excerpt(text: str) -> str:
    """Shorten untrusted text for people: one line, printable, secret-shaped parts blotted out, at most 200 characters."""
    line = " ".join(_SECRETS.sub("[…]", text[:4096]).split())
    line = "".join(letter for letter in line if letter.isprintable() and letter != "\ufffd")
    return line if len(line) <= MAX_WORDS else line[: MAX_WORDS - 1] + "…"


def warnings_of(values: Iterable[str]) -> list[str]:
    """Return the texts of ``Warning: 299 - "text"`` headers (distribution-spec 1.1, "Warnings"), for people."""
    found = [re.sub(r"\\(.)", r"\1", match) for value in values for match in _WARNING.findall(value[:4096])]
    return list(dict.fromkeys(filter(None, map(excerpt, found))))


def _kind(status: int, codes: tuple[str, ...]) -> tuple[type[RegfsError], str]:
    match status:
        case 401:
            return NotSignedIn, "wants a sign-in, or does not take this one"
        case 403:
            return Forbidden, "does not allow this"
        case 404 | 410:
            return NotFound, "does not have it"
        case 405 | 501:
            return Unsupported, "does not support this"
        case 413:
            return TooLarge, "finds it too large"
        case 409 | 412 | 423 | 451:
            return Refused, f"refuses this ({status})"
    if "UNSUPPORTED" in codes:
        return Unsupported, "does not support this"
    if "DENIED" in codes:
        return Forbidden, "does not allow this"
    if status >= 500 or status == 408:
        return ServerFailed, f"failed with status {status}"
    if 300 <= status < 400 and status != 304:
        return BadReply, f"answered with a redirect ({status}) that is not followed"
    return BadReply, f"answered with status {status}"


def _errors(body: bytes) -> list[tuple[str, str]]:
    if body.lstrip()[:1] != b"{" or len(body) > _MOST_JSON:
        return []
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    listed = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        return []
    return [_error(item) for item in listed[:_MOST_ERRORS] if isinstance(item, dict)]


def _error(item: Mapping[object, object]) -> tuple[str, str]:
    code, message = item.get("code"), item.get("message")
    return (
        code[:64] if isinstance(code, str) else "",
        message[:4096] if isinstance(message, str) else "",
    )


def _is_html(reply: Reply) -> bool:
    start = reply.body[:256].lstrip()[:15].lower()
    return "html" in reply.headers.get("content-type", "").lower() or start.startswith(
        (b"<!doctype html", b"<html")
    )


def _looks_like_registry(reply: Reply) -> bool:
    if "docker-distribution-api-version" in reply.headers:
        return True
    return not _is_html(reply) and reply.body.strip()[:1] in (b"", b"{", b"[", b"t", b'"')


def _not_a_registry(reply: Reply, registry: str) -> NotARegistry:
    return NotARegistry(
        f"{registry} answers, but not as a container registry does (status {reply.status} for /v2/)",
        registry=registry,
        words=words_of(reply),
    )


def _moment(reply: Reply) -> float:
    try:
        return parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
