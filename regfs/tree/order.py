"""The order in which a folder's names were listed, and in which a reader goes through them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import cached_property


class Way(Enum):
    """In which order a reader walks."""

    LISTED = "as listed: find, rm -r"
    SORTED = "sorted: a shell's *, ls -R"

    def of(self, names: Iterable[str]) -> Sequence[str]:
        """``names`` in the order of a listing, brought into this order."""
        return sorted(names) if self is Way.SORTED else list(names)


class Order:
    """A listing's names. Its indexes are made when a reader first seems to walk: most folders are never walked."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)

    def way(self, before: str, after: str) -> Way | None:
        """The way in which ``after`` comes right behind ``before``; None: in neither."""
        if before not in self._places or after not in self._places:
            return None
        return next((way for way in Way if next(iter(self.behind(before, way)), None) == after), None)

    def behind(self, name: str, way: Way) -> Sequence[str]:
        """What comes behind ``name``; nothing where it is not there."""
        place = self._places.get(name)
        if place is None:
            return ()
        if way is Way.SORTED:
            return self._sorted[bisect_right(self._sorted, name) :]
        return self.names[place + 1 :]
