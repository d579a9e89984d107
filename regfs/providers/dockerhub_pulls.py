"""Docker Hub's pull limit: what the registry says of it, and what ends it.

Docker's manual, "Docker Hub pull usage and limits": GET of a manifest is a pull, HEAD is none, both say what is left.
"""

from __future__ import annotations

import re
import time
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any, Final

from regfs.errors import RateLimited
from regfs.providers.dockerhub import NAME
from regfs.registry.client import Client
from regfs.registry.replies import Reply, words_of
from regfs.registry.retry import retry_after

_LIMIT: Final = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w=(\d{1,9}))?\s*(?:[,;].*)?")


def quota_of(headers: Mapping[str, str]) -> dict[str, int]:
    """Read ``ratelimit-limit: 100;w=21600`` and ``ratelimit-remaining``: limit, remaining, window (seconds)."""
    found: dict[str, int] = {}
    for name in ("limit", "remaining"):
        match = _LIMIT.fullmatch(headers.get(f"ratelimit-{name}", ""))
        if match is not None:
            found[name] = int(match[1])
            if match[2] is not None:
                found["window"] = int(match[2])
    return found


def spent(quota: Mapping[str, int], reply: Reply, what: str) -> RateLimited:
    """The error of a 429 after which no pull is left."""
    window = quota.get("window")
    over = f" in {_span(window)}" if window else ""
    limit = f" of {quota['limit']}" if "limit" in quota else ""
    asked = retry_after(reply.headers, time.time())
    wait = asked if asked is not None else float(window) if window else None
    when = f"; there are more in {'' if asked is not None else 'at most '}{_span(wait)}" if wait else ""
    return RateLimited(
        f"{NAME} has no pull left: {quota.get('remaining', 0)}{limit}{over}{when}: {what}",
        retry_after=wait,
        registry=NAME,
        words=words_of(reply),
    )


class PullClient(Client):
    """A client of the registry that keeps what replies say of the pull limit, and does not run against it."""

    last_quota: Mapping[str, int] = MappingProxyType({})

    async def request(
        self, method: str, target: str, *, expect: Container[int] = (200,), what: str = "", **more: Any
    ) -> Reply:
        """See `Client.request`. A 429 that says that no pull is left is not asked again: it stays so for hours."""
        for welcome in (_With429(expect), expect):
            reply = await super().request(method, target, expect=welcome, what=what, **more)
            quota = quota_of(reply.headers)
            self.last_quota = quota or self.last_quota
            if reply.status in expect:
                break
            if quota.get("remaining") == 0 or _says_so(reply):
                raise spent({**self.last_quota, "remaining": 0}, reply, what or f"{method} {target}")
        return reply


class _With429(Container[int]):
    def __init__(self, others: Container[int]) -> None:
        self._others = others

    def __contains__(self, status: object) -> bool:
        return status == 429 or status in self._others


def _says_so(reply: Reply) -> bool:
    return b"pull rate limit" in reply.body[:4096]


def _span(seconds: float | None) -> str:
    """Seconds as people say them."""
    whole = max(1, round(seconds or 0))
    for unit, length in (("hour", 3600), ("minute", 60)):
        if whole >= 2 * length or whole == length:
            count = -(-whole // length)
            return f"{count} {unit}{'s' * (count != 1)}"
    return f"{whole} second{'s' * (whole != 1)}"
