"""Time, for whoever waits or dates."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, so that tests can set it."""

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        ...

    def time(self) -> float:
        """Seconds since 1970."""
        ...
