"""A provider at its service, as the contract suites want it: a connection made as the daemon makes it, and what came of it.

`FakeHarness` is for every provider whose registry speaks V2; one that is another kind derives from `ConnectionHarness`
and says how content gets into its service, and how many requests reached it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from regfs import plugins
from regfs.connection import Connection
from regfs.ports import AuthMethod, Credential, HttpPolicy, Keychain, Provider, Source, Tools
from regfs.testing.behaviour import Auth, Behaviour, Paging
from regfs.testing.contract_tools import Harness
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Pushable

USER: Final = "tester"
SECRET: Final = "a-secret-that-nobody-may-see"


class ServiceHarness(Harness, Protocol):
    """A service, empty, and a provider's connection to it. Each test gets one of its own."""

    @property
    def provider(self) -> Provider:
        """The provider under test."""
        ...

    @property
    def connection(self) -> Connection:
        """The connection to the service, as a sign-in made it."""
        ...

    def tools(self, *, read_only: bool = False) -> Tools:
        """What the daemon would give the provider."""
        ...

    def open(self, *, read_only: bool = False) -> AbstractAsyncContextManager[Source]:
        """The connection's first registry; closed at the end. Entered within `trio.run`."""
        ...

    def requests(self) -> int:
        """How many requests reached the service so far, whoever sent them."""
        ...


@runtime_checkable
class Misleads(Protocol):
    """What a harness may be too: its service can be made to lead a client astray."""

    def ways(self) -> Mapping[str, Callable[[], None]]:
        """The ways, by name (paging without end, a redirect to another host …); each is switched on by a call."""
        ...

    def astray(self) -> Sequence[str]:
        """The requests that took credentials to a host they are not for."""
        ...


class OneCredential:
    """A keychain that has one credential for every connection, or none; ``asked`` counts."""

    def __init__(self, credential: Credential | None) -> None:
        self.credential = credential
        self.asked = 0

    async def get(self, connection: Connection) -> Credential | None:  # noqa: ARG002  the contract's
        """See `regfs.ports.Keychain.get`."""
        self.asked += 1
        return self.credential


class ConnectionHarness:
    """A connection of ``provider`` to ``address``. ``folder`` is empty, and the test's own.

    ``credential`` is what the keychain has; ``method`` the auth method, where it is not installed.
    """

    def __init__(
        self,
        provider: Provider,
        address: str,
        folder: Path,
        *,
        credential: Credential | None = None,
        method: AuthMethod | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.provider = provider
        self.folder = folder
        self.method = method or plugins.auth_method(provider.default_auth)
        self.keychain: Keychain = OneCredential(credential)
        self.connection = Connection(
            "registry",
            address,
            provider=provider.name,
            auth=self.method.name,
            options=tuple((options or {}).items()),
        )

    def tools(self, *, read_only: bool = False) -> Tools:
        """See `ServiceHarness.tools`."""
        policy = HttpPolicy("regfs-tests", call_deadline=20.0, retries=1, read_only=read_only)
        auth = self.method.flow(self.connection, self.keychain)
        return Tools(auth, policy, time, self.folder / "state", self.keychain)

    @asynccontextmanager
    async def open(self, *, read_only: bool = False) -> AsyncIterator[Source]:
        """See `ServiceHarness.open`."""
        sources = await self.provider.registries(self.connection, self.tools(read_only=read_only))
        try:
            yield next(iter(sources.values()))
        finally:
            for source in sources.values():
                await source.aclose()

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """Put content into the service; a subclass says how."""
        raise NotImplementedError("a harness says how content gets into its service")

    def requests(self) -> int:
        """How many requests reached the service; 0 for one that is asked nothing over a network."""
        return 0


class LeadsAstray:
    """What a harness with a `FakeRegistry` can make it do to its clients: see `Misleads`."""

    registry: FakeRegistry

    def ways(self) -> Mapping[str, Callable[[], None]]:
        """See `Misleads.ways`."""
        return {name: self._switch(changes) for name, changes in _WAYS.items()}

    def astray(self) -> Sequence[str]:
        """See `Misleads.astray`."""
        held = [line for line in self.registry.violations if "another host" in line]
        self.registry.violations.clear()
        return held

    def _switch(self, changes: Mapping[str, object]) -> Callable[[], None]:
        def switch() -> None:
            for name, value in changes.items():
                setattr(self.registry.behaviour, name, value)

        return switch


class FakeHarness(LeadsAstray, ConnectionHarness):
    """A provider whose registry speaks V2, at a `FakeRegistry` that the test has started.

    A registry that wants a sign-in is signed in to as ``tester``, with `SECRET` (see `signed_in`).
    """

    def __init__(
        self,
        registry: FakeRegistry,
        provider: Provider,
        folder: Path,
        *,
        method: AuthMethod | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        wanted = registry.behaviour.auth is not Auth.NONE
        credential = Credential(USER, registry.behaviour.users[USER]) if wanted else None
        super().__init__(
            provider, registry.address, folder, credential=credential, method=method, options=options
        )
        self.registry = registry

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        """See `Harness.push`."""
        self.registry.push(repository, tags, what)

    def requests(self) -> int:
        """See `ServiceHarness.requests`."""
        return len(self.registry.records)


def signed_in(behaviour: Behaviour | None = None) -> Behaviour:
    """A behaviour whose registry wants a token, and knows ``tester`` by `SECRET`; one that wants something keeps that."""
    given = behaviour or Behaviour()
    auth = Auth.BEARER if given.auth is Auth.NONE else given.auth
    return replace(given, auth=auth, users={USER: SECRET})


_WAYS: Final[Mapping[str, Mapping[str, object]]] = {
    "pages that lead back": {"tag_paging": Paging.LOOP, "catalog_paging": Paging.LOOP},
    "pages that stay empty": {"tag_paging": Paging.EMPTY, "catalog_paging": Paging.EMPTY},
    "the next page at another host": {
        "tag_paging": Paging.FOREIGN,
        "catalog_paging": Paging.FOREIGN,
        "page_size": 1,
    },
    "content at another host": {"redirect_blobs": "elsewhere", "redirect_manifests": "elsewhere"},
    "content at another host that asks for a sign-in": {
        "redirect_blobs": "elsewhere",
        "redirect_manifests": "elsewhere",
        "elsewhere_asks": True,
    },
    "redirects in a circle": {"redirect_blobs": "loop", "redirect_manifests": "loop"},
}
