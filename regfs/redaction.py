"""Blots out secrets in text that people or log files get to see. Pure, linear in the length of the text.

Two nets: the texts of secrets that were registered, in any common encoding; and shapes that only secrets have.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from re import Match
from typing import Final
from urllib.parse import quote, quote_plus

BLOT: Final = "[redacted]"
MIN_SECRET: Final = 4
"""A shorter secret is not registered: every other word would be blotted out."""

MAX_TEXT: Final = 64 * 1024
"""What is left of a longer text, in characters."""

_SHOWN_QUERY: Final = frozenset(
    ("n", "last", "page", "page_size", "service", "scope", "digest", "mount", "from", "artifactType")
)
"""What may be read in a query string; whatever else stands in one may be a signature."""

_HEADERS: Final = (
    r"(?:proxy-)?authorization|(?:set-)?cookie|x-registry-auth|x-amz-security-token|x-auth-token"
)
_KEYS: Final = (
    r"[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api_?key|access_?key(?:_?id)?|private_?key|credential)"
    r"|pass|pwd|sig|signature|x-(?:amz|goog)-[\w-]+|policy|key-pair-id"
)
_VALUE: Final = r"""b?(["'])(?:\\.|(?!\{quote}).)*\{quote}"""
_PLAIN_WORDS: Final = (
    r"(?:auth\w*|challenges?|tokens?|headers?|schemes?|credentials?|and|or|is|was|for|with)\b(?![=+/.])"
)


def _query(match: Match[str]) -> str:
    return "?" + "&".join(map(_query_pair, match[1].split("&")))


def _query_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    if name in _SHOWN_QUERY:
        return pair
    return f"{name}={BLOT}" if equals else BLOT


_Replacement = str | Callable[[Match[str]], str]
_RULES: Final[tuple[tuple[re.Pattern[str], _Replacement], ...]] = (
    # A header as it is sent, in a dict, or in a list of pairs: all that it holds.
    (
        re.compile(rf"(?i)\b({_HEADERS})([\"']?\s*[:=,]\s*)({_VALUE.format(quote=4)}|[^\r\n]*)"),
        rf"\1\2{BLOT}",
    ),
    # A query string: signatures of storage, tokens, upload states.
    (re.compile(r"(?<=[\w/])\?([^\s\"'<>?#]*=[^\s\"'<>#]*|[\w.~%+/-]{16,})"), _query),
    # User name and password before a host; a port or a digest is neither.
    (re.compile(r"(?<=://)(?:[^\s/:@]{0,256}:(?!\d+/)\S{0,512}|[^\s/@]{0,512})@(?!sha\d+:)"), f"{BLOT}@"),
    (re.compile(r"(?<![\w/@.:+-])[\w.+-]{1,256}:[^\s/@]{1,512}@(?!sha\d+:)(?=[\w\[])"), f"{BLOT}@"),
    # A scheme and its credentials; in lower case it may be prose.
    (re.compile(rf"\b(Bearer|Basic)\s+(?!{_PLAIN_WORDS}|\w+=\")[A-Za-z0-9._~+/=-]+"), rf"\1 {BLOT}"),
    (
        re.compile(r"(?i:\b(bearer|basic)\s+)(?=[\w.~+/-]*[0-9A-Z+/=])(?!\w+=\")[A-Za-z0-9._~+/=-]{4,}"),
        rf"\1 {BLOT}",
    ),
    # A JWT, and the tokens whose issuers made them easy to recognise.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,4}"), BLOT),
    (re.compile(r"\b(?:glpat-|gldt-|gh[pousr]_|github_pat_|dckr_[a-z]+_)[A-Za-z0-9_-]{8,}"), BLOT),
    # password=…, "identitytoken": "…", and the "auth" of Docker's config.
    (
        re.compile(
            rf"(?i)(?<![\w.-])([\"']?(?:{_KEYS})(?:[\"']\s*:|[\"']?\s*=)\s*|[\"']auth[\"']\s*:\s*)"
            rf"({_VALUE.format(quote=3)}|[^\s&,;\"'<>]+)"
        ),
        rf"\1{BLOT}",
    ),
)

_registered: set[str] = set()


def register_secret(text: str) -> None:
    """Blot out ``text`` from now on: as it is, quoted for URLs and JSON, and in base64 alone or within other text."""
    if len(text) >= MIN_SECRET:
        _registered.update(form for form in _forms(text) if len(form) >= MIN_SECRET)
        _known.cache_clear()


def forget_secret(text: str) -> None:
    """Blot it out no longer: it has ended, and every secret that is remembered makes each line of a log dearer."""
    _registered.difference_update(_forms(text))
    _known.cache_clear()


def redact(text: str) -> str:
    """``text`` without secrets, cut to 64 Ki characters; a text without any comes back as it was."""
    if _registered:
        text = _known().sub(BLOT, text)
    text = text[:MAX_TEXT]
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=1)
def _known() -> re.Pattern[str]:
    """All registered forms, the longest first: one secret may begin with another."""
    return re.compile("|".join(map(re.escape, sorted(_registered, key=len, reverse=True))))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield from _base64_forms(secret.encode("utf-8", "surrogatepass"))


def _base64_forms(data: bytes) -> Iterator[str]:
    """What base64 makes of ``data`` at each of the three places where it can begin within other text."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode()
        first = (before * 8 + 5) // 6
        last = (before + len(data)) * 8 // 6
        yield encoded[first:last]
        yield encoded[first:last].replace("+", "-").replace("/", "_")
