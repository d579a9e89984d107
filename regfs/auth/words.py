"""A server's own words about a refusal: shortened, printable, and never with a secret of ours echoed in them."""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec

from regfs.ports import Credential

MAX_WORDS: Final = 200
_BLOT: Final = "[…]"
_TOKEN_SHAPED: Final = re.compile(r"[A-Za-z0-9_\-+/=.]{40,}")


class _Said(msgspec.Struct):
    message: str = ""
    detail: object = None


class _Body(msgspec.Struct):
    errors: list[_Said] = []
    error_description: str = ""
    details: object = None
    detail: object = None
    message: str = ""


def words_of(body: bytes, credential: Credential | None = None) -> str:
    """What a JSON reply says in plain words, in any of the shapes that registries and token servers use; else nothing."""
    try:
        said = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    details = next((text for text in (said.details, said.detail) if isinstance(text, str)), "")
    listed = "; ".join(error.message for error in said.errors[:3] if error.message)
    return blotted(listed or said.error_description or details or said.message, credential)


def blotted(text: str, credential: Credential | None = None) -> str:
    """Take the credential, in each way it may be spelled, and token-shaped text out of ``text``; shorten it to a line."""
    for secret in _spellings(credential):
        text = text.replace(secret, _BLOT)
    line = "".join(character if character.isprintable() else " " for character in text)
    line = _TOKEN_SHAPED.sub(_BLOT, line)
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]}…"


def _spellings(credential: Credential | None) -> list[str]:
    if credential is None or not credential.secret:
        return []
    secret = credential.secret
    pair = base64.b64encode(f"{credential.username}:{secret}".encode()).decode("ascii")
    spellings = {secret, quote(secret, safe=""), quote_plus(secret), pair, pair.rstrip("=")}
    return sorted(spellings, key=len, reverse=True)
