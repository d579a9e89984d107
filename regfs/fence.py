"""Which repositories a mount may show: the fence of ``only = ["team/*"]``."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Fence:
    """Globs of repository names: ``*`` matches within a component, ``**`` across them. No globs: everything.

    A name outside it is absent without a request, since on a public registry strangers can publish names that
    programs probe.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        self._globs = [glob.strip("/").split("/") for glob in globs]

    def __bool__(self) -> bool:
        return bool(self._globs)

    def holds(self, repository: str) -> bool:
        """Say whether a repository is inside."""
        if not self._globs:
            return True
        parts = repository.split("/")
        return any(_matches(glob, parts) for glob in self._globs)

    def leads_to(self, prefix: str) -> bool:
        """Say whether ``prefix`` (empty: the root) is inside, or a folder on the way to something that is."""
        if not self._globs or not prefix:
            return True
        parts = prefix.split("/")
        return self.holds(prefix) or any(_may_follow(glob, parts) for glob in self._globs)


def _matches(glob: list[str], parts: list[str]) -> bool:
    if not glob:
        return not parts
    if glob[0] == "**":
        return any(_matches(glob[1:], parts[i:]) for i in range(len(parts) + 1))
    return bool(parts) and _component_matches(glob[0], parts[0]) and _matches(glob[1:], parts[1:])


def _may_follow(glob: list[str], parts: list[str]) -> bool:
    """Say whether some name that ``glob`` matches begins with ``parts`` and goes on."""
    if not parts:
        return bool(glob)
    if not glob:
        return False
    if glob[0] == "**":
        return True
    return _component_matches(glob[0], parts[0]) and _may_follow(glob[1:], parts[1:])


def _component_matches(glob: str, part: str) -> bool:
    pattern = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in glob)
    return re.fullmatch(pattern, part) is not None
