"""Names of repositories and namespaces as a tree of folders: what one list of a registry says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from regfs.errors import PagingLoop, TooLarge
from regfs.ports import NamespacePage
from regfs.reference import is_repository
from regfs.tree.listing import Age

MAX_REPOSITORIES = 1_000_000
"""The most names read of one list; one beyond that is taken for one that does not end."""

MAX_PAGES = 10_000
"""The most pages read of one namespace: some registries send empty ones without end."""

_MOST_OF_A_REASON = 300


@dataclass(slots=True)
class Names:
    """Names below ``root``: for each folder the next components, in the order they came.

    What is below one of its ``namespaces`` it does not say. ``age`` is there once it is whole.
    """

    root: str = ""
    repositories: dict[str, None] = field(default_factory=dict)
    namespaces: dict[str, None] = field(default_factory=dict)
    children: dict[str, dict[str, None]] = field(default_factory=dict)
    dropped: int = 0
    partial: str = ""
    lists_all: bool = True
    """Whether a name that is not here is not there (below ``root``, and not below one of the ``namespaces``)."""
    age: Age | None = None
    pages: int = 0

    def add(self, repository: str) -> None:
        """Add a repository and the folders that lead to it."""
        if repository in self.repositories:
            return
        self.repositories[repository] = None
        self.add_folder(repository)

    def add_folder(self, path: str) -> None:
        """Add a folder and those that lead to it, without saying that it is a repository."""
        while path:
            parent, _, name = path.rpartition("/")
            siblings = self.children.setdefault(parent, {})
            if name in siblings:
                return
            siblings[name] = None
            path = parent

    def discard(self, repository: str) -> None:
        """Remove a repository, and the folders that led only to it."""
        self.repositories.pop(repository, None)
        path = repository
        while path and path not in self.children and path not in self.repositories:
            parent, _, name = path.rpartition("/")
            siblings = self.children.get(parent, {})
            siblings.pop(name, None)
            if siblings or parent not in self.children:
                return
            del self.children[parent]
            path = parent

    def take(self, page: Iterable[str]) -> None:
        """Add a page of a catalog: names outside the grammar are dropped and counted."""
        for name in page:
            if is_repository(name):
                self.add(name)
            else:
                self.dropped += 1
        self._check_size()

    def take_namespace(self, page: NamespacePage) -> None:
        """Add a page of the namespace ``root``: what is outside the grammar, or outside ``root``, is dropped and counted."""
        self.pages += 1
        for name in page.namespaces:
            if self._is_within(name):
                self.namespaces[name] = None
                self.add_folder(name)
            else:
                self.dropped += 1
        for name in page.repositories:
            if name == self.root and name:
                self.repositories[name] = None
            elif self._is_within(name):
                self.add(name)
            else:
                self.dropped += 1
        if page.partial:
            self.partial = page.partial[:_MOST_OF_A_REASON]
            self.lists_all = False
        self._check_size()

    def _is_within(self, name: str) -> bool:
        return is_repository(name) and (not self.root or name.startswith(f"{self.root}/"))

    def _check_size(self) -> None:
        if len(self.repositories) + len(self.namespaces) > MAX_REPOSITORIES:
            raise TooLarge(
                f"more than {MAX_REPOSITORIES} repositories in one {'namespace' if self.root else 'registry'}"
            )
        if self.pages > MAX_PAGES:
            raise PagingLoop(f"the list of {self.root or 'the registry'} has over {MAX_PAGES} pages")

    def leads_on(self, path: str) -> bool:
        """Say whether ``path`` is the beginning of a longer name, or a namespace."""
        return path in self.children or path in self.namespaces

    def names(self, path: str) -> bool:
        """Say whether ``path`` is in it, as whatever."""
        return path in self.repositories or self.leads_on(path)

    def covers(self, path: str) -> bool:
        """Say whether it tells all that is below ``path``."""
        if not self.lists_all:
            return False
        return not self.namespaces or not any(name in self.namespaces for name in _to(self.root, path))

    def below(self, path: str) -> Iterable[str]:
        """The next components behind ``path``."""
        return self.children.get(path, {})


def _to(root: str, path: str) -> Iterator[str]:
    """``path`` and the folders that lead there from ``root``, without ``root``."""
    while path and path != root:
        yield path
        path = path.rpartition("/")[0]


def above(path: str) -> Iterator[str]:
    """The folders that lead to ``path``, from the nearest to the root (``""``)."""
    while path:
        path = path.rpartition("/")[0]
        yield path
