"""What a 401 asks for: the WWW-Authenticate grammar of RFC 9110, 11.6.1, read as leniently as registries write it.

Nothing here raises: whatever cannot be read is skipped, so that one odd challenge never hides a good one beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SEPARATORS: Final = re.compile(r"[\s,]*")
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\\?\Z)', re.DOTALL)
_BARE: Final = re.compile(r'[^\s,"]*')
_TOKEN68: Final = re.compile(r"[ \t]+([A-Za-z0-9\-._~+/]+=*)(?=[ \t]*(?:,|\Z))")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_JUNK: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|.', re.DOTALL)

MAX_LENGTH: Final = 16 * 1024
"""Characters of one header that are looked at; real ones are under 1 KiB."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge. ``scheme`` and the parameters' names are lower-case; ``token68`` stands where parameters would."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    token68: str = ""

    @property
    def realm(self) -> str:
        """The realm: for Bearer the token endpoint's URL; empty where there is none."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        """The service that a token is for; empty where there is none."""
        return self.parameters.get("service", "")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes asked for, sorted and without doubles: registries give them in random order."""
        return tuple(sorted(set(self.parameters.get("scope", "").split())))

    @property
    def error(self) -> str:
        """``insufficient_scope``, ``invalid_token`` or empty."""
        return self.parameters.get("error", "")


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read the challenges of all ``WWW-Authenticate`` headers of a reply, in order. Never raises."""
    return [challenge for header in headers for challenge in _parse(header[:MAX_LENGTH])]


def first_supported(challenges: Iterable[Challenge]) -> Challenge | None:
    """Choose the first challenge that can be met. A Bearer challenge without a realm says not where tokens are had."""
    for challenge in challenges:
        if challenge.scheme == "basic" or (challenge.scheme == "bearer" and challenge.realm):
            return challenge
    return None


def _parse(text: str) -> Iterator[Challenge]:
    """Walk one header. A word before ``=`` is a parameter of the challenge under way; any other word starts a new one."""
    scheme: str | None = None
    parameters: dict[str, str] = {}
    token68 = ""
    at = _skip(_SEPARATORS, text, 0)
    while at < len(text):
        word = _TOKEN.match(text, at)
        if word is None:
            at = _skip(_JUNK, text, at)
        elif equals := _EQUALS.match(text, word.end()):
            value, at = _value(text, equals.end())
            parameters.setdefault(word[0].lower(), value)
        else:
            if scheme is not None:
                yield Challenge(scheme, parameters, token68)
            scheme, parameters, token68, at = word[0].lower(), {}, "", word.end()
            if credentials := _TOKEN68.match(text, at):
                token68, at = credentials[1], credentials.end()
        at = _skip(_SEPARATORS, text, at)
    if scheme is not None:
        yield Challenge(scheme, parameters, token68)


def _value(text: str, at: int) -> tuple[str, int]:
    """A parameter's value, and where it ends. An unterminated string goes to the end of the header."""
    if quoted := _QUOTED.match(text, at):
        return _ESCAPE.sub(r"\1", quoted[1]), quoted.end()
    end = _skip(_BARE, text, at)
    return text[at:end], end


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
