"""A Source of the ghcr provider's for a fake GitHub, opened as the daemon opens it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.opening import open_registries
from regfs.ports import Credential, DeletesTags, HttpPolicy, ListsNamespaces, Recovers, Source
from regfs.testing.contract_tools import run
from regfs.testing.images import Pushable
from tests.support.fake_github import FakeGitHub

T = TypeVar("T")
APP: Final = "octo-org/app"


def scopes(*names: str) -> frozenset[str]:
    """A token's scopes."""
    return frozenset(names)


class Keychain:
    """Has one secret, or none."""

    def __init__(self, secret: str | None) -> None:
        self.secret = secret

    async def get(self, connection: Connection) -> Credential | None:
        """As in `regfs.ports.Keychain`."""
        return None if self.secret is None else Credential("anybody", self.secret, origin="the test")


class Setting:
    """A connection to a fake, with a token and a state folder."""

    def __init__(self, fake: FakeGitHub, state: Path, token: str | None = "ghp_good") -> None:
        self.fake = fake
        self.state = state
        self.token = token
        self.namespaces: tuple[str, ...] = ()
        self.read_only = False

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """As in `regfs.testing.contract.Harness`."""
        self.fake.push(repository, list(tags), what)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Source]:
        """As in `regfs.testing.contract.Harness`."""
        options = (("api", self.fake.api),)
        connection = Connection("r", self.fake.address, "ghcr", options=options, namespaces=self.namespaces)
        policy = HttpPolicy("regfs-tests", read_only=self.read_only, retries=1)
        (source,) = (await open_registries(connection, Keychain(self.token), policy, self.state)).values()
        try:
            yield source
        finally:
            await source.aclose()

    def run(self, body: Callable[[Source], Awaitable[T]]) -> T:
        """Open a Source, and do something with it."""
        return run(self, body)

    def namespace(self, name: str = "") -> tuple[list[str], list[str], str]:
        """Namespaces, repositories and what is said to be missing."""

        async def body(source: Source) -> tuple[list[str], list[str], str]:
            lists = source.capability(ListsNamespaces)
            assert lists is not None
            spaces: list[str] = []
            names: list[str] = []
            partial = ""
            async for page in lists.namespace(name):
                spaces += page.namespaces
                names += page.repositories
                partial = page.partial or partial
            return spaces, names, partial

        return self.run(body)

    def delete(self, tag: str, repository: str = APP, seen: Digest | None = None) -> str:
        """Delete one tag by a new daemon; the way in which that was done."""

        async def body(source: Source) -> str:
            deletes = source.capability(DeletesTags, repository)
            assert deletes is not None
            return (await deletes.delete_tag(repository, tag, seen)).way

        return self.run(body)

    def recover(self) -> Sequence[str]:
        """Start a new daemon, which recovers."""

        async def body(source: Source) -> Sequence[str]:
            recovers = source.capability(Recovers)
            assert recovers is not None
            return await recovers.recover()

        return self.run(body)

    def entries(self) -> list[Path]:
        """The journal's entries."""
        return list(self.state.glob("*.deletion"))
