"""What has to go to make room: decided purely, from what a look at the folder found."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 4096
"""What even an empty file takes: its inode and name. A million small files are not free."""


@dataclass(frozen=True, slots=True)
class Group:
    """Everything that goes together: a content with what was derived from it. Sizes in bytes, ``used`` in nanoseconds.

    ``size`` is what its files take on disk; ``used`` is when any of them was last used.
    """

    name: str
    size: int
    used: int


def cost(allocated: int) -> int:
    """What a file that has ``allocated`` bytes of disk counts for."""
    return max(BLOCK, -(-allocated // BLOCK) * BLOCK)


def excess(used: int, wanted: int, limit: int) -> int:
    """How much must go so that ``wanted`` more bytes fit: a tenth of the limit more than is needed, so as not to begin anew at once.

    0: they fit as it is.
    """
    over = used + wanted - limit
    return min(used, over + limit // 10) if over > 0 else 0


def victims(groups: Iterable[Group], free: int, held: Collection[str] = ()) -> list[str]:
    """Which groups to remove, in this order, to free ``free`` bytes: the least recently used first, never one in ``held``.

    All that may go, where even that is not enough.
    """
    chosen: list[str] = []
    freed = 0
    for group in sorted(groups, key=lambda group: (group.used, group.name)):
        if freed >= free:
            break
        if group.name not in held:
            chosen.append(group.name)
            freed += group.size
    return chosen
