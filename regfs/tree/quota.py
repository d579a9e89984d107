"""What is left of a quota of manifest requests, in words."""

from __future__ import annotations

from collections.abc import Mapping

from regfs.errors import RateLimited
from regfs.ports import Metered, Source

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def quota_of(source: Source) -> Mapping[str, int]:
    """What a Source knows of its quota; empty where it has none, or nothing is known yet."""
    metered = source.capability(Metered)
    return dict(metered.quota()) if metered is not None else {}


def in_words(quota: Mapping[str, int]) -> str:
    """A quota for people: ``3 of 100 manifest requests are left (counted over 6 h)``; empty where too little is known."""
    limit, remaining, window = (quota.get(name) for name in ("limit", "remaining", "window"))
    if remaining is None:
        return ""
    of = f" of {limit}" if limit is not None else ""
    each = f" (counted over {_duration(window)})" if window else ""
    return f"{remaining}{of} manifest requests are left{each}"


def with_quota(error: RateLimited, source: Source) -> RateLimited:
    """The same error, with what is left of the quota where that is known."""
    words = in_words(quota_of(source))
    if not words or words in error.message:
        return error
    return RateLimited(
        f"{error.message}; {words}",
        retry_after=error.retry_after,
        registry=error.registry or source.name,
        words=error.words,
    )


def _duration(seconds: int) -> str:
    return next((f"{seconds // size} {unit}" for size, unit in _UNITS if seconds % size == 0), f"{seconds} s")
