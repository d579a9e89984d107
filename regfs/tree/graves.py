"""What this mount has deleted, and for how long its names go on resolving.

Recursive removers look at a folder again after they have emptied it, so a name must not vanish at once: a deleted
tag is a tombstone for a while, and an emptied repository or namespace an empty folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from regfs.ports import Clock
from regfs.reference import is_fallback_tag
from regfs.tree.taglists import TagList

LINGER = 60.0
"""Seconds for which a tombstone or an emptied folder still resolves."""


@dataclass(slots=True)
class Tombstone:
    """A deleted tag: the names that are still to be found in its folder."""

    names: dict[str, None]
    died: float
    ended: bool = False


@dataclass(slots=True)
class _Emptied:
    """A repository that is hidden, and what is left in it of the tags that clients keep for themselves.

    ``wants_ordinary``: ordinary tags were deleted here, so those that are left do not bring it back.
    """

    wants_ordinary: bool
    left: list[str]


def _above(path: str) -> Iterator[str]:
    """The folders that lead to a repository."""
    while path := path.rpartition("/")[0]:
        yield path


class Graves:
    """The deletions of one registry. Pure: it asks the clock and nothing else."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tags: dict[str, dict[str, Tombstone]] = {}
        self._hidden: dict[str, _Emptied] = {}
        self._lingering: dict[str, float] = {}

    def bury(self, repository: str, tag: str, names: Iterable[str]) -> None:
        """A tag was deleted just now; ``names`` are to be found in its folder until they are removed too."""
        self._tags.setdefault(repository, {})[tag] = Tombstone(dict.fromkeys(names), self._clock.monotonic())

    def tombstone(self, repository: str, tag: str) -> Tombstone | None:
        """The tombstone of a tag that still resolves."""
        if not self._tags:
            return None
        grave = self._tags.get(repository, {}).get(tag)
        if grave is None or grave.ended or self._clock.monotonic() - grave.died > LINGER:
            return None
        return grave

    def end(self, repository: str, tag: str) -> None:
        """The tombstone's folder was removed: the name is gone."""
        grave = self._tags.get(repository, {}).get(tag)
        if grave is not None:
            grave.ended = True

    def revive(self, repository: str, tag: str) -> None:
        """The tag is there again."""
        self._tags.get(repository, {}).pop(tag, None)

    def is_dead(self, repository: str, tag: str, asked: float) -> bool:
        """Say whether what the registry said at ``asked`` about a tag is older than its deletion here."""
        if not self._tags:
            return False
        grave = self._tags.get(repository, {}).get(tag)
        return grave is not None and asked <= grave.died

    def has_deleted(self, repository: str) -> bool:
        """Say whether a tag of the repository was deleted here of late."""
        return repository in self._tags

    def has_emptied(self, repository: str, tags: TagList) -> bool:
        """Say whether ordinary tags were deleted here, and a listing has none that lives. To be asked before `settle`."""
        if not self._has_deleted_ordinary(repository):
            return False
        return tags.kept_alone or not self.living(repository, tags)

    def _has_deleted_ordinary(self, repository: str) -> bool:
        return not all(map(is_fallback_tag, self._tags.get(repository, ())))

    def living(self, repository: str, tags: TagList) -> list[str]:
        """The names of a listing, without those that were deleted here after it was asked for.

        Of a repository whose ordinary tags were all deleted here those that clients keep for themselves are no sign of life.
        """
        if tags.kept_alone and self._wants_ordinary(repository):
            return []
        graves = self._tags.get(repository)
        if not graves:
            return list(tags.names)
        return self._not_dead(repository, tags.names, tags)

    def _not_dead(self, repository: str, names: Iterable[str], tags: TagList) -> list[str]:
        return [name for name in names if not self.is_dead(repository, name, tags.age.started)]

    def _wants_ordinary(self, repository: str) -> bool:
        emptied = self._hidden.get(repository)
        return emptied is not None and emptied.wants_ordinary

    def settle(self, repository: str, tags: TagList) -> None:
        """A listing has come: what is in it and was deleted before it was asked for lives again; old graves go."""
        graves = self._tags.get(repository, {})
        for name in [n for n, grave in graves.items() if grave.died < tags.age.started]:
            if tags.has(name) or self.tombstone(repository, name) is None:
                del graves[name]
        if not graves:
            self._tags.pop(repository, None)
        if self.living(repository, tags):
            self._hidden.pop(repository, None)
            self._lingering.pop(repository, None)
            for namespace in _above(repository):
                self._lingering.pop(namespace, None)
        elif repository in self._hidden:
            self._hidden[repository].left = self._not_dead(repository, tags.kept, tags)

    def hide(self, repository: str, tags: TagList | None) -> None:
        """A repository has no tag any more, by its last listing: it leaves the listings; see `linger` for what resolves."""
        wants_ordinary = self._wants_ordinary(repository) or self._has_deleted_ordinary(repository)
        left = [] if tags is None else self._not_dead(repository, tags.kept, tags)
        self._hidden[repository] = _Emptied(wants_ordinary, left)

    def linger(self, paths: Iterable[str]) -> None:
        """Emptied folders resolve for a while as empty ones."""
        self._lingering.update(dict.fromkeys(paths, self._clock.monotonic()))

    def left_in(self, repository: str) -> list[str]:
        """The tags that clients keep for themselves in a hidden repository, as far as a listing has told."""
        emptied = self._hidden.get(repository)
        return [] if emptied is None else emptied.left

    def is_hidden(self, repository: str) -> bool:
        """Say whether a repository is left out of listings until a tag appears in it."""
        return repository in self._hidden

    def hidden_below(self, path: str) -> list[str]:
        """The hidden repositories of a folder (empty: the root) and below."""
        return [name for name in self._hidden if not path or name == path or name.startswith(f"{path}/")]

    def lingers(self, path: str) -> bool:
        """Say whether an emptied repository or namespace still resolves."""
        since = self._lingering.get(path)
        return since is not None and self._clock.monotonic() - since <= LINGER

    def remove_folder(self, path: str) -> None:
        """An emptied folder was removed: it resolves no longer."""
        self._lingering.pop(path, None)
