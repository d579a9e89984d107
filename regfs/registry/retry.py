"""Whether a failed request is sent again, and when: a pure decision.

Retried are 408, 429, 500, 502, 503, 504 and lost connections, of idempotent requests only (RFC 9110, 9.2.2). DELETE is
idempotent there, and still not counted as such: its second answer would be 404, which says nothing about the first.
Like every other request it is sent again only where surely nothing was done: where no connection was made, and after 429,
by which a server says that it did not act on a request (RFC 6585, 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
IDEMPOTENT: Final = frozenset({"GET", "HEAD"})

_NOT_ACTED_ON: Final = 429
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 5.0
_A_TIMESTAMP: Final = 1_000_000_000.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended: with a status, or (None) with a lost connection. ``sent``: something may have gone out."""

    status: int | None = None
    sent: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """What one call allows. Times in seconds; ``retries`` are attempts beyond the first."""

    retries: int
    deadline: float
    idempotent: bool


def is_idempotent(method: str) -> bool:
    """Say whether a request of this method may be sent twice without a second thought."""
    return method.upper() in IDEMPOTENT


def decide(
    attempt: int, outcome: Outcome, rules: Rules, *, elapsed: float, now: float, jitter: float
) -> float | None:
    """Return how many seconds to wait before the next attempt; None: there is none.

    ``attempt`` counts from 1. ``elapsed`` is what the call has used of its deadline, ``now`` the time since 1970 (for a
    Retry-After that is a date), ``jitter`` a random number from 0 to 1. No wait reaches the deadline.
    """
    if attempt > rules.retries or not _may_repeat(outcome, rules.idempotent):
        return None
    wait = _wait(attempt, outcome, now, jitter)
    return wait if elapsed + wait < rules.deadline else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read Retry-After (RFC 9110, 10.2.3) as seconds from ``now``: a number, an HTTP date, or a number since 1970.

    Where there is none, RateLimit-Reset says it: GitLab sends that alone from some of its limits.
    """
    named = (headers[name] for name in ("retry-after", "x-retry-after", "ratelimit-reset") if name in headers)
    text = next(named, "").strip()[:64]
    if not text:
        return None
    if text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
        return max(0.0, seconds - now) if seconds >= _A_TIMESTAMP else seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _may_repeat(outcome: Outcome, idempotent: bool) -> bool:
    if outcome.status is None:
        return idempotent or not outcome.sent
    return outcome.status == _NOT_ACTED_ON or (idempotent and outcome.status in RETRIED)


def _wait(attempt: int, outcome: Outcome, now: float, jitter: float) -> float:
    if outcome.status is None and outcome.sent and attempt == 1:
        return 0.0  # most likely a kept connection that the other side had closed: a new one will do
    asked = retry_after(outcome.headers, now) if outcome.status is not None else None
    if asked is not None:
        return asked
    wait = min(_FIRST_WAIT * 2.0 ** min(attempt - 1, 16), _LONGEST_WAIT)
    return wait * (0.5 + 0.5 * jitter)
