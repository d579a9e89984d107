"""A Source for a `FakeGitLab`, as the daemon would open it for a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from regfs.cli.sources import OneCredential
from regfs.connection import Connection
from regfs.opening import open_registries
from regfs.ports import Credential, HttpPolicy, ListsNamespaces, Source
from regfs.testing.contract_tools import run
from regfs.testing.images import Pushable
from tests.support.fake_gitlab import FakeGitLab
from tests.support.fake_gitlab_data import Token

T = TypeVar("T")


class GitLabHarness:
    """Opens Sources as whoever has ``token`` (None: nobody); ``options`` are the connection's."""

    def __init__(
        self,
        gitlab: FakeGitLab,
        token: Token | None,
        folder: Path,
        options: tuple[tuple[str, str], ...] = (),
        *,
        deadline: float = 10.0,
        retries: int = 2,
        read_only: bool = False,
    ) -> None:
        self._gitlab = gitlab
        self._token = token
        self._folder = folder
        self._options = options
        self._policy = HttpPolicy("regfs-tests", call_deadline=deadline, retries=retries, read_only=read_only)

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """Push, where need be into a new project; what GitLab's names cannot be is pushed past it."""
        where = self._gitlab if "/" in repository else self._gitlab.registry
        where.push(repository, tags, what)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Source]:
        """A new Source."""
        token = self._token
        credential = Credential(token.user, token.secret, origin="the test") if token else None
        connection = Connection("lab", self._gitlab.address, "gitlab", options=self._options)
        keychain = OneCredential(credential)
        (source,) = (await open_registries(connection, keychain, self._policy, self._folder)).values()
        try:
            yield source
        finally:
            await source.aclose()

    def run(self, body: Callable[[Source], Awaitable[T]]) -> T:
        """Open a Source and run ``body`` on it."""
        return run(self, body)


def inside(namespace: str) -> Callable[[Source], Awaitable[tuple[list[str], list[str], str]]]:
    """Namespaces and repositories of a namespace, sorted, and what is said to be missing."""

    async def body(source: Source) -> tuple[list[str], list[str], str]:
        lister = source.capability(ListsNamespaces)
        assert lister is not None
        pages = [page async for page in lister.namespace(namespace)]
        namespaces = sorted(name for page in pages for name in page.namespaces)
        repositories = sorted(name for page in pages for name in page.repositories)
        return namespaces, repositories, "; ".join(page.partial for page in pages if page.partial)

    return body
