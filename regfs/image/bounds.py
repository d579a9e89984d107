"""Whether an index that was kept still holds within the limits of now."""

from __future__ import annotations

import re
from typing import Final

from regfs.image.archive_limits import ArchiveLimits
from regfs.image.limits import Limits

_LIMIT: Final = re.compile(r"(\w+)=(\d+)")

_SEEN_TO_LATER: Final = frozenset({"members", "path", "name", "depth", "size"})
"""What the merge looks at too, each time: lowered, these leave out what is in the index."""

_NOT_OF_THE_PASS: Final = frozenset({"name", "depth"})
"""What only the merge looks at: the index lacks nothing for these."""


def as_text(limits: Limits, archive_limits: ArchiveLimits) -> str:
    """What a pass was bound by."""
    return f"{limits} {archive_limits}"


def still_holds(made_within: str, now: str, *, lacks: bool) -> bool:
    """Whether an index made within some limits (as `as_text` has them) says what one of ``now`` would.

    ``lacks``: something was left out of it. A limit that was raised may let that in; one that was lowered may leave out
    what is in it.
    """
    before, after = _numbers(made_within), _numbers(now)
    if before.keys() != after.keys():
        return False
    raised = {name for name, limit in after.items() if limit > before[name]}
    lowered = {name for name, limit in after.items() if limit < before[name]}
    return lowered <= _SEEN_TO_LATER and not (lacks and raised - _NOT_OF_THE_PASS)


def _numbers(limits: str) -> dict[str, int]:
    return {name: int(limit) for name, limit in _LIMIT.findall(limits)}
