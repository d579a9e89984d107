"""Where in a TOML document a key stands: the standard library's parser gives no lines."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from typing import Final

KeyPath = tuple[str | int, ...]
"""Keys from the top, with an int for the place in an array: ``("registries", "work", "only", 0)``."""

_ABSENT: Final = object()


class TomlLines:
    """Find lines in a document that is known to parse.

    A statement ends with its line, so a document cut after one parses, and cut within one does not. The line of a key
    is the one after the last cut that parses and does not hold the key yet.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._cut = cache(self._parsed)

    def line(self, path: KeyPath) -> int | None:
        """The line, counted from 1, on which the statement that brings ``path`` begins; None if nothing brings it."""
        lacking, holding = 0, len(self._lines)
        if not _holds(self._cut(holding), path):
            return None
        while (cut := self._near_middle(lacking, holding)) is not None:
            if _holds(self._cut(cut), path):
                holding = cut
            else:
                lacking = cut
        return lacking + 1

    def _near_middle(self, low: int, high: int) -> int | None:
        """The cut that parses, strictly between the two, nearest below the middle, else above it."""
        middle = (low + high) // 2
        places: Iterable[int] = (*range(middle, low, -1), *range(middle + 1, high))
        return next((place for place in places if place > low and self._cut(place) is not None), None)

    def _parsed(self, count: int) -> dict[str, object] | None:
        try:
            return tomllib.loads("\n".join(self._lines[:count]))
        except (tomllib.TOMLDecodeError, RecursionError):
            return None


def _holds(document: object, path: KeyPath) -> bool:
    for key in path:
        if isinstance(document, dict):
            document = document.get(key, _ABSENT)
        elif isinstance(document, list) and isinstance(key, int):
            document = document[key] if key < len(document) else _ABSENT
        else:
            return False
        if document is _ABSENT:
            return False
    return True
