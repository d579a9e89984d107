"""What a `FakeRegistry` answers, before it goes on the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

_CODES: Final = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    429: "TOOMANYREQUESTS",
}


@dataclass
class Reply:
    """One reply. The body is ``body``, ``repeat`` times over: a huge one needs no memory."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    repeat: int = 1

    @property
    def size(self) -> int:
        """How many bytes the body has."""
        return len(self.body) * self.repeat

    @property
    def reason(self) -> str:
        """The status line's words."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Odd"


def json_reply(value: object, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """A reply that is JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, [("Content-Type", "application/json"), *headers], body)


def code_of(status: int) -> str:
    """The error code that goes with a status where nothing better is known."""
    return _CODES.get(status, "UNKNOWN")


def error_reply(status: int, code: str, message: str = "", *headers: tuple[str, str]) -> Reply:
    """A reply that is an error as the distribution specification shapes it."""
    entry = {"code": code, "message": message or code.lower().replace("_", " ")}
    return json_reply({"errors": [entry]}, status, *headers)
