"""Tokens that are had, and those under way: one is fetched for all who wait for it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import trio

from regfs.auth.tokens import Ask, Grant
from regfs.errors import RegfsError

MAX_TOKENS: Final = 1024
MARGIN: Final = 0.2
"""The part of its lifetime for which a token is renewed rather than used, at most `MAX_MARGIN` seconds."""
MAX_MARGIN: Final = 30.0

Key = tuple[int, Ask]
"""Whose token, and what for. The number is the generation of the credential it was fetched with."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, from when on it is better renewed, and when it ends (trio's time)."""

    value: str = field(repr=False)
    renew: float
    ends: float


class Flight:
    """A token under way. When `done` is set it has a token or an error, or neither: its task was cancelled."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.token: Token | None = None
        self.error: RegfsError | None = None


class TokenCache:
    """All tokens of one connection. Every method is synchronous, so that what it changes is never seen half done."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[Key, Token] = OrderedDict()
        self._flights: dict[Key, Flight] = {}

    def get(self, key: Key) -> Token | None:
        """A token that can be sent now. One that is soon to end is given only while its successor is under way."""
        token = self._tokens.get(key)
        now = trio.current_time()
        if token is None or now >= token.ends:
            return None
        return token if now < token.renew or key in self._flights else None

    def board(self, key: Key) -> tuple[Flight, bool]:
        """The flight for ``key``, and whether the caller is the one to fly it (and must `land` it)."""
        if key in self._flights:
            return self._flights[key], False
        flight = self._flights[key] = Flight()
        return flight, True

    def land(self, key: Key, flight: Flight, result: Token | RegfsError | None) -> None:
        """End a flight: with a token, with the error that all who wait get, or (None) abandoned to the next of them."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        if isinstance(result, Token):
            flight.token = result
            self._keep(key, result)
        else:
            flight.error = result
        flight.done.set()

    def drop(self, key: Key, value: str) -> None:
        """Forget a token that was refused, unless another has taken its place."""
        if key in self._tokens and self._tokens[key].value == value:
            del self._tokens[key]

    def clear(self) -> None:
        """Forget all tokens. Flights land under keys that nobody asks for any more."""
        self._tokens.clear()

    def _keep(self, key: Key, token: Token) -> None:
        self._tokens[key] = token
        self._tokens.move_to_end(key)
        if len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)


def dated(grant: Grant, asked: float) -> Token:
    """Set a grant's lifetime against trio's clock, from when it was asked for."""
    margin = min(grant.lifetime * MARGIN, MAX_MARGIN)
    return Token(grant.token, asked + grant.lifetime - margin, asked + grant.lifetime)
