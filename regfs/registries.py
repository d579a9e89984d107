"""The registries that are open, by connection: each wrapped for the tree, signed in anew, and closed when it goes.

From the registry upwards, each Source is: the provider's own, replaceable by a new sign-in, counted, guarded against
overload, renewed when somebody signs in, held until recovery is through, fenced, and without writes on a read-only mount.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from regfs import __version__, plugins
from regfs.config import Settings
from regfs.connection import Connection
from regfs.errors import RegfsError
from regfs.opening import open_registries, with_provider_sources
from regfs.ports import HttpPolicy, Source
from regfs.recovery import Recovery, state_folder
from regfs.tree.filesystem import FileSystem
from regfs.wrapping import (
    CountingSource,
    FencedSource,
    GuardedSource,
    HeldSource,
    ReadOnlySource,
    RenewingSource,
    ReplaceableSource,
)

if TYPE_CHECKING:
    from regfs.auth.keychain import OrderedKeychain

log = logging.getLogger(__name__)

_OF_THE_TREE: Final = ("name", "address", "provider", "namespaces", "only")
"""What of a connection the tree keeps: with one of these changed, the folder is made anew."""


@dataclass
class OpenRegistry:
    """One registry that is open: ``base`` can be replaced, ``top`` is what the tree holds."""

    folder: str
    base: ReplaceableSource
    top: Source
    recovery: Recovery


@dataclass
class Opened:
    """What a connection yielded: its registries by the rest of their folder's name, or why there are none."""

    connection: Connection
    registries: dict[str, OpenRegistry] = field(default_factory=dict)
    failure: RegfsError | None = None


class Registries:
    """The registries of a filesystem. ``look`` is called where a sign-in that was made meanwhile is to be noticed at once.

    ``single``: the filesystem's root is the one registry, which stays; what prevents opening it is raised.
    """

    def __init__(
        self, settings: Settings, filesystem: FileSystem, look: Callable[[], None], *, single: bool
    ) -> None:
        self._settings = settings
        self._filesystem = filesystem
        self._look = look
        self._single = single
        self._opened: dict[str, Opened] = {}
        self._keychain: OrderedKeychain | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def opened(self) -> Collection[Opened]:
        """What every connection yielded, in the order they were opened."""
        return self._opened.values()

    def work_in(self, nursery: trio.Nursery | None) -> None:
        """Where what goes on in the background runs from now on; None: nowhere."""
        self._nursery = nursery

    async def aclose(self) -> None:
        """Close all connections to registries."""
        for opened in self.opened:
            for registry in opened.registries.values():
                await registry.top.aclose()

    def signed_in(self, folder: str) -> Mapping[str, object]:
        """How a registry is signed in to: as far as it has asked for credentials, as whom."""
        for opened in self.opened:
            if any(registry.folder == folder for registry in opened.registries.values()):
                known = {} if self._keychain is None else self._keychain.last
                asked = known.get(opened.connection.name, "not asked for yet")
                return {"auth": opened.connection.auth, "signed_in": asked or "no"}
        return {}

    async def open(self, connection: Connection) -> None:
        """Show what a connection yields, or in its folder why it can't be opened."""
        try:
            self._admit(connection, await self.sources(connection))
        except RegfsError as error:
            if self._single:
                raise
            self._fail(connection, error)

    def _fail(self, connection: Connection, error: RegfsError) -> None:
        log.warning("%s cannot be opened: %s", connection.name, error)
        self._filesystem.fail_registry(connection.name, error, connection)
        self._opened[connection.name] = Opened(connection, failure=error)

    def _admit(self, connection: Connection, sources: Mapping[str, Source]) -> None:
        """Show the registries that a connection yields. Changes state without an await."""
        opened = self._opened[connection.name] = Opened(connection)
        for key, source in sources.items():
            folder = connection.name if not key else f"{connection.name}_{key}"
            registry = opened.registries[key] = self._wrapped(folder, source, connection)
            self._filesystem.add_registry(folder, registry.top, connection)
            if self._settings.rw and self._nursery is not None:
                self._nursery.start_soon(self._recover, registry)

    def _wrapped(self, folder: str, source: Source, connection: Connection) -> OpenRegistry:
        base = ReplaceableSource(source)
        recovery = Recovery(base)
        top: Source = GuardedSource(CountingSource(base))
        top = HeldSource(RenewingSource(top, lambda: self._signed_in_anew(connection.name)), recovery.ensure)
        if connection.only:
            top = FencedSource(top, connection.only)
        return OpenRegistry(folder, base, top if self._settings.rw else ReadOnlySource(top), recovery)

    async def sources(self, connection: Connection, policy: HttpPolicy | None = None) -> Mapping[str, Source]:
        """The connection's Sources, bare, by the rest of their folder's name. Raises what providers do."""
        if self._keychain is None:
            from regfs.auth.keychain import default_keychain

            self._keychain = default_keychain(self._settings.credentials, single=self._single)
        keychain = with_provider_sources(connection, self._keychain)
        return await open_registries(connection, keychain, policy or self.policy(), state_folder(connection))

    def policy(self) -> HttpPolicy:
        """How requests are sent, as the settings say."""
        settings = self._settings
        return HttpPolicy(
            user_agent=f"regfs/{__version__}",
            call_deadline=settings.call_deadline,
            max_requests=settings.max_requests,
            retries=settings.retries,
            read_only=not settings.rw,
        )

    async def _recover(self, registry: OpenRegistry) -> None:
        """In the background: a registry that is down now is recovered before the first deletion in it."""
        try:
            await registry.recovery.ensure()
        except RegfsError as error:
            log.warning("%s: what was left half done is not finished yet: %s", registry.folder, error)

    # ── sign-ins made while this runs ──

    def follow(self, known: Sequence[Connection]) -> None:
        """Take the connections as they are now: what is new is opened, what is gone is closed."""
        if not self._single:
            for name in self._opened.keys() - {connection.name for connection in known}:
                self._remove(name)
        for connection in self._same(known) if self._single else known:
            self._follow(connection)

    def _signed_in_anew(self, name: str) -> bool:
        """Whether ``name`` goes out with a new sign-in from now on."""
        before = self._opened[name].connection if name in self._opened else None
        self._look()
        return name in self._opened and self._opened[name].connection is not before

    def _same(self, known: Sequence[Connection]) -> Sequence[Connection]:
        """The only registry stays what it is; what may have changed is how it is signed in to."""
        return [
            replace(connection, **{key: getattr(opened.connection, key) for key in _OF_THE_TREE})
            for opened in self._opened.values()
            for connection in known
            if (connection.name, connection.address) == (opened.connection.name, opened.connection.address)
        ]

    def _follow(self, connection: Connection) -> None:
        """Take a connection as it is now, at once where that waits for nothing: the `ls` that noticed it then shows it."""
        if connection.provider in plugins.OURS["provider"]:
            _run_without_waiting(self._update(connection))
        elif self._nursery is not None:
            self._nursery.start_soon(self._update, connection)

    async def _update(self, connection: Connection) -> None:
        opened = self._opened.get(connection.name)
        if opened is not None and opened.connection == connection:
            return
        same_tree = opened is not None and all(
            getattr(opened.connection, key) == getattr(connection, key) for key in _OF_THE_TREE
        )
        if opened is None or not same_tree:
            self._remove(connection.name)
            await self.open(connection)
            return
        try:
            sources = await self.sources(connection)
        except RegfsError as error:
            log.warning("%s stays signed in as it was: %s", connection.name, error)
            return
        if sources.keys() == opened.registries.keys():
            self._renew(opened, connection, sources)
        else:
            self._remove(connection.name)
            self._admit(connection, sources)

    def _renew(self, opened: Opened, connection: Connection, sources: Mapping[str, Source]) -> None:
        log.info("%s: signed in anew", connection.name)
        opened.connection = connection
        for key, source in sources.items():
            registry = opened.registries[key]
            self._retire(registry.base.replace(source))
            self._filesystem.refresh_registry(self._filesystem.registries[registry.folder])

    def _remove(self, name: str) -> None:
        opened = self._opened.pop(name, None)
        if opened is None:
            return
        for registry in opened.registries.values():
            self._filesystem.remove_registry(registry.folder)
            self._retire(registry.top)
        if not opened.registries:
            self._filesystem.remove_registry(name)

    def _retire(self, source: Source) -> None:
        """Close a Source once the calls that it has under way are surely over."""

        async def close_later() -> None:
            await trio.sleep(self._settings.call_deadline)
            await source.aclose()

        if self._nursery is not None:
            self._nursery.start_soon(close_later)


def _run_without_waiting(steps: Coroutine[Any, Any, None]) -> None:
    """Run what is asynchronous by its contract only: our own providers know their registries without asking."""
    try:
        steps.send(None)
    except StopIteration:
        return
    steps.close()
    raise AssertionError("a provider of ours waits when it is opened")
