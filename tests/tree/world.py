"""The model that properties of the tree are held to: all that a registry ever had, and a kernel that believes names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import trio

from regfs.digest import Digest
from regfs.reference import is_tag
from regfs.testing.images import Pushable, make_image, make_index
from regfs.testing.memory import MemorySource
from regfs.tree.attributes import Attributes
from tests.tree.kernel import Kernel

TTL = 10.0
LINGER = 60.0
REPOS = ".repos"
FILES = ("manifest.json", "digest", "config.json", "platforms")

REPOSITORIES = ("a", "a/b", "a/digest", "b", "c/d", "manifest.json")
TAGS = ("a", "b", "digest", "manifest.json", "V1")
UNGRAMMATICAL = ("-x", "x y", ".hidden", "a/../b")
IMAGES = tuple(make_image(f"properties {n}") for n in range(2))
INDEX = make_index(seed="properties")
PUSHED: tuple[Pushable, ...] = (*IMAGES, INDEX)
CONTENTS = {
    **{(image.digest, "config.json"): image.config.raw for image in IMAGES},
    (INDEX.digest, "config.json"): INDEX.images[0].config.raw,
    **{(what.digest, "digest"): f"{what.digest}\n".encode() for what in PUSHED},
    **{(what.digest, "manifest.json"): what.manifest.raw for what in PUSHED},
}
"""What a tag's files hold, by where the tag leads."""

never = float("-inf")
State = Mapping[str, Mapping[str, Digest]]


class CachingKernel(Kernel):
    """A kernel that believes a name for as long as it was told to, as the real one does."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel.filesystem)
        self._entries: dict[tuple[int, str], tuple[Attributes, float]] = {}
        self.filesystem.invalidate = lambda parent, name: self.drop(parent, name.decode())

    def drop(self, parent: int, name: str) -> None:
        """Believe a name no longer."""
        self._entries.pop((parent, name), None)

    async def lookup(self, parent: int, name: str) -> Attributes:
        known = self._entries.get((parent, name))
        if known is not None and trio.current_time() < known[1]:
            return known[0]
        found = await super().lookup(parent, name)
        self._believe(parent, name, found)
        return found

    async def readdir(self, ino: int) -> list[tuple[str, Attributes]]:
        entries = await super().readdir(ino)
        for name, attributes in entries:
            self._believe(ino, name, attributes)
        return entries

    def _believe(self, parent: int, name: str, attributes: Attributes) -> None:
        self._entries[parent, name] = attributes, trio.current_time() + attributes.entry_timeout

    async def remove(self, folder: int, name: str, how: Callable[[int, bytes], Awaitable[None]]) -> None:
        """unlink or rmdir: the name is forgotten where that worked."""
        await self.lookup(folder, name)
        await how(folder, name.encode())
        self.drop(folder, name)

    async def rm(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        await self.remove((await self.walk(parent)).ino, name, self.filesystem.unlink)

    async def rmdir(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        await self.remove((await self.walk(parent)).ino, name, self.filesystem.rmdir)

    def forget_from(self, ino: int) -> None:
        """Forget all inodes from ``ino`` on: children are numbered after their parents, so none is left without one."""
        gone = {number: self.lookups.pop(number) for number in list(self.lookups) if number >= ino}
        self._entries = {
            (parent, name): known
            for (parent, name), known in self._entries.items()
            if parent not in gone and known[0].ino not in gone
        }
        self.filesystem.forget(sorted(gone.items(), reverse=True))


@dataclass
class Version:
    """What the registry had, from the moment ``since`` until ``until``."""

    content: State
    since: float
    until: float = float("inf")


@dataclass
class World:
    """A registry in memory, a mount of it, and all that it ever had."""

    source: MemorySource
    kernel: CachingKernel
    writable: bool
    slow: Mapping[str, float]
    versions: list[Version] = field(default_factory=lambda: [Version({}, never)])
    deaths: dict[tuple[str, str], float] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    refreshed: float = never

    # ── the model ──

    def changed(self) -> None:
        """The registry's content is now another."""
        now = trio.current_time()
        self.versions[-1].until = now
        self.versions.append(Version(self.source.content(), now))

    def untouched(self) -> None:
        """The registry's content is what it was: nothing was deleted that was not named."""
        assert self.source.content() == self.versions[-1].content

    @property
    def limit(self) -> float:
        """The age of the oldest answer that may be shown."""
        return max(TTL, 10 * max(self.slow.values(), default=0.0))

    def recent(self, asked: float) -> Iterator[State]:
        """What the registry had of late, without what this mount had deleted by then."""
        for version in self.versions:
            if version.until >= max(asked - self.limit, self.refreshed):
                yield {
                    repository: {
                        tag: digest
                        for tag, digest in tags.items()
                        if is_tag(tag) and self.deaths.get((repository, tag), never) < version.until
                    }
                    for repository, tags in version.content.items()
                }

    def tags_of(self, repository: str, asked: float) -> list[Mapping[str, Digest] | None]:
        """A repository's tags of late; None: there was no such repository."""
        return [content.get(repository) for content in self.recent(asked)]

    def may_hide(self, repository: str, asked: float) -> bool:
        """Whether a repository may be left out: this mount emptied or removed it, and it was empty of late."""
        mine = repository in self.removed or any(name == repository for name, _ in self.deaths)
        return mine and any(not tags for tags in self.tags_of(repository, asked))

    def nested(self, path: str, asked: float) -> list[set[str]]:
        """What may be listed in a folder beside its tags."""
        found = []
        for content in self.recent(asked):
            below = [name for name in content if name.startswith(f"{path}/") or not path]
            sure = {_next(path, name) for name in below if not self.may_hide(name, asked)}
            maybe = {_next(path, name) for name in below} - sure
            found += list(_between(sure, maybe))
        return found

    def may_be_tag(self, path: str, asked: float) -> bool:
        """Whether a path may be a tag's folder: then what is in it are that tag's files."""
        repository, _, tag = path.rpartition("/")
        known = any(tag in content.get(repository, {}) for content in self.recent(asked))
        return known or self.buried(repository, tag)

    def buried(self, repository: str, tag: str) -> bool:
        """Whether a tag that this mount deleted may still resolve, as what was deleted."""
        return trio.current_time() - self.deaths.get((repository, tag), never) <= LINGER + 1

    def failures(self) -> int:
        """How many injected failures are still to come."""
        return sum(rule.times or 0 for rule in self.source._rules)


def _next(path: str, name: str) -> str:
    return name[len(path) :].lstrip("/").partition("/")[0]


def _between(sure: set[str], maybe: set[str]) -> Iterator[set[str]]:
    options = sorted(maybe)
    for size in range(len(options) + 1):
        for chosen in combinations(options, size):
            yield sure | set(chosen)


def folder_of(repository: str) -> str:
    """A repository's path, whatever tags bear the names on the way."""
    return repository.replace("/", f"/{REPOS}/")
