"""The composition root: what the settings and connections name, wired together. Nothing else wires.

From the registry upwards, each Source is: the provider's own, replaceable by a new sign-in, counted, guarded against
overload, renewed when somebody signs in, held until recovery is through, fenced, and without writes on a read-only mount.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from regfs import __version__, plugins
from regfs.advice import advice
from regfs.cache.fronted import FrontedStore
from regfs.config import Settings
from regfs.connection import Connection
from regfs.connections import ConnectionStore, all_connections
from regfs.errors import ConfigError, RegfsError, UnknownHost
from regfs.inside import LateImages
from regfs.opening import open_registries, with_provider_sources
from regfs.ports import Blobs, HttpPolicy, Images, Source
from regfs.recovery import Recovery, left_behind, state_folder
from regfs.tree.filesystem import FileSystem, TreeSettings
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

FIRST_CHECK: Final = 3.0
"""Seconds that the first check of a registry may take; the mount then goes on without its answer."""

ROOT: Final = 1
REFRESH: Final = b"user.regfs.refresh"
"""The attribute that forgets listings when it is read: `regfs refresh` reads it through the mount."""

_PROMPT: Final = 0.4
"""Seconds within which a registry that is well has answered the first check."""

_STORE_LOOK: Final = 1.0
_QUIET: Final = 2.0
_OF_THE_TREE: Final = ("name", "address", "provider", "namespaces", "only")
"""What of a connection the tree keeps: with one of these changed, the folder is made anew."""


@dataclass
class _Registry:
    """One registry that is open: ``base`` can be replaced, ``top`` is what the tree holds."""

    folder: str
    base: ReplaceableSource
    top: Source
    recovery: Recovery


@dataclass
class _Opened:
    connection: Connection
    registries: dict[str, _Registry] = field(default_factory=dict)
    failure: RegfsError | None = None


class App:
    """Registries behind one filesystem, with or without a mount.

    ``single``: the filesystem's root is the one registry. Otherwise each has a folder, and the sign-ins made meanwhile
    show as folders that come and go. ``settings.rw`` decides whether anything can be changed.
    """

    def __init__(
        self,
        settings: Settings,
        connections: Sequence[Connection],
        *,
        single: bool,
        settle_at_lookup: bool,
        store: ConnectionStore | None = None,
    ) -> None:
        self._settings = settings
        self._wanted = tuple(connections)
        self._single = single
        self._store = store or ConnectionStore()
        self._fingerprint = self._store.fingerprint()
        self._looked = float("-inf")
        self._opened: dict[str, _Opened] = {}
        self._keychain: OrderedKeychain | None = None
        self._nursery: trio.Nursery | None = None
        tree = TreeSettings(
            ttl=settings.ttl,
            writable=settings.rw,
            settle_at_lookup=settle_at_lookup,
            single=single,
            call_deadline=settings.call_deadline,
            show_fallback_tags=settings.show_fallback_tags,
            image_owners=settings.image_owners,
            blobs_at_once=max(1, settings.max_requests // 2),
        )
        self._content = FrontedStore(settings.cache_folder, settings.cache_size)
        self.filesystem = FileSystem(tree, clock=time, store=self._content, blob_store=self._content)
        self.filesystem.images = self._images
        self.filesystem.on_root_use = self._on_root_use
        self.filesystem.facts = self._signed_in

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the registries open until cancelled. Started: they are in the tree; none has been asked anything.

        Of a single registry, what prevents opening it is raised (PluginError, ConfigError …); of several, its folder says so.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.filesystem.start(nursery)
                nursery.start_soon(self._content.run)
                nursery.start_soon(self._sweep)
                for connection in self._wanted:
                    await self._open(connection)
                task_status.started()
                await self._watch_store()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FileSystem]:
        """The filesystem, served for the length of a block: for a command that works without a mount."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.serve)
            try:
                yield self.filesystem
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await self.aclose()

    async def first_check(self) -> list[str]:
        """Ask every registry, at once and for `FIRST_CHECK` seconds at most, whether it answers; a line for each that does not.

        Raises UnknownHost where the only registry's name does not resolve.
        """
        warnings: list[str] = []
        async with trio.open_nursery() as nursery:
            for opened in self._opened.values():
                if opened.failure is not None:
                    warnings.append(_warning(opened.failure, opened.connection))
                if not self._settings.rw:
                    warnings += left_behind(opened.connection)
                for key in opened.registries:
                    nursery.start_soon(self._check, opened, key, warnings)
        return warnings

    async def forget_listings(self) -> None:
        """Forget what was listed: the next look asks the registries."""
        count = await self.filesystem.getxattr(ROOT, REFRESH)
        log.info("forgot %s listings", count.decode())

    async def aclose(self) -> None:
        """Close all connections to registries."""
        for opened in self._opened.values():
            for registry in opened.registries.values():
                await registry.top.aclose()

    async def _check(self, opened: _Opened, key: str, warnings: list[str]) -> None:
        connection = opened.connection
        try:
            with trio.fail_after(FIRST_CHECK):
                await self._first_word(opened, key)
        except trio.TooSlowError:
            warnings.append(
                f"{connection.address} has not answered yet; the mount goes on by itself once it does"
            )
        except UnknownHost as error:
            if self._single:
                raise
            warnings.append(_warning(error, connection))
        except RegfsError as error:
            warnings.append(_warning(error, connection))

    async def _first_word(self, opened: _Opened, key: str) -> None:
        """What a registry says first: to the check itself, or, where that tries again and again, to one that asks once."""
        words: list[RegfsError | None] = []

        async def listen(check: Callable[[], Awaitable[None]]) -> None:
            try:
                await check()
                words.append(None)
            except RegfsError as error:
                words.append(error)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, opened.registries[key].top.check)
            nursery.start_soon(listen, lambda: self._ask_once(opened.connection, key))
        if words and words[0] is not None:
            raise words[0]

    async def _ask_once(self, connection: Connection, key: str) -> None:
        await trio.sleep(_PROMPT)
        sources = await self._sources(connection, replace(self._policy(), retries=0))
        try:
            if key in sources:
                await sources[key].check()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                for source in sources.values():
                    await source.aclose()

    def _signed_in(self, folder: str) -> Mapping[str, object]:
        """How a registry is signed in to: as far as it has asked for credentials, as whom."""
        for opened in self._opened.values():
            if any(registry.folder == folder for registry in opened.registries.values()):
                known = {} if self._keychain is None else self._keychain.last
                asked = known.get(opened.connection.name, "not asked for yet")
                return {"auth": opened.connection.auth, "signed_in": asked or "no"}
        return {}

    async def _sweep(self) -> None:
        """Tidy the cache, once the mount is up and nobody waits for it."""
        await trio.sleep(_QUIET)
        await self._content.sweep()

    def _images(self, blobs: Blobs) -> Images:
        assert self._nursery is not None, "serve() comes first"
        settings = self._settings
        return LateImages(
            blobs,
            self._nursery,
            raw_links=settings.symlinks == "raw",
            limits=dict(settings.image_limits),
            report=self.filesystem.report,
        )

    # ── opening and closing ──

    async def _open(self, connection: Connection) -> None:
        try:
            self._admit(connection, await self._sources(connection))
        except RegfsError as error:
            if self._single:
                raise
            self._fail(connection, error)

    def _fail(self, connection: Connection, error: RegfsError) -> None:
        log.warning("%s cannot be opened: %s", connection.name, error)
        self.filesystem.fail_registry(connection.name, error, connection)
        self._opened[connection.name] = _Opened(connection, failure=error)

    def _admit(self, connection: Connection, sources: Mapping[str, Source]) -> None:
        """Show the registries that a connection yields. Changes state without an await."""
        opened = self._opened[connection.name] = _Opened(connection)
        for key, source in sources.items():
            folder = connection.name if not key else f"{connection.name}_{key}"
            registry = opened.registries[key] = self._wrapped(folder, source, connection)
            self.filesystem.add_registry(folder, registry.top, connection)
            if self._settings.rw and self._nursery is not None:
                self._nursery.start_soon(self._recover, registry)

    def _wrapped(self, folder: str, source: Source, connection: Connection) -> _Registry:
        base = ReplaceableSource(source)
        recovery = Recovery(base)
        top: Source = GuardedSource(CountingSource(base))
        top = HeldSource(RenewingSource(top, lambda: self._signed_in_anew(connection.name)), recovery.ensure)
        if connection.only:
            top = FencedSource(top, connection.only)
        return _Registry(folder, base, top if self._settings.rw else ReadOnlySource(top), recovery)

    async def _sources(
        self, connection: Connection, policy: HttpPolicy | None = None
    ) -> Mapping[str, Source]:
        if self._keychain is None:
            from regfs.auth.keychain import default_keychain

            self._keychain = default_keychain(self._settings.credentials, single=self._single)
        keychain = with_provider_sources(connection, self._keychain)
        return await open_registries(connection, keychain, policy or self._policy(), state_folder(connection))

    def _policy(self) -> HttpPolicy:
        settings = self._settings
        return HttpPolicy(
            user_agent=f"regfs/{__version__}",
            call_deadline=settings.call_deadline,
            max_requests=settings.max_requests,
            retries=settings.retries,
            read_only=not settings.rw,
        )

    async def _recover(self, registry: _Registry) -> None:
        """In the background: a registry that is down now is recovered before the first deletion in it."""
        try:
            await registry.recovery.ensure()
        except RegfsError as error:
            log.warning("%s: what was left half done is not finished yet: %s", registry.folder, error)

    # ── sign-ins made while this runs ──

    async def _watch_store(self) -> None:
        """Follow sign-ins the moment they are made. Where that can't be had (a network's home), looking at the root does."""
        from regfs.watch import changes

        folder = self._store.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with aclosing(changes(folder)) as noticed:
                async for _ in noticed:
                    self._look_at_store()
        except OSError as error:
            log.info("sign-ins made elsewhere are noticed a little later: %s", error)

    def _on_root_use(self) -> None:
        if time.monotonic() - self._looked >= _STORE_LOOK:
            self._look_at_store()

    def _signed_in_anew(self, name: str) -> bool:
        """Whether ``name`` goes out with a new sign-in from now on."""
        before = self._opened[name].connection if name in self._opened else None
        self._look_at_store()
        return name in self._opened and self._opened[name].connection is not before

    def _look_at_store(self) -> None:
        """Follow what `regfs login` and `regfs logout` did. A stat, and nothing more while nothing has changed."""
        self._looked = time.monotonic()
        fingerprint = self._store.fingerprint()
        if fingerprint == self._fingerprint or self._nursery is None:
            return
        self._fingerprint = fingerprint
        try:
            known = all_connections(self._settings, self._store)
        except ConfigError as error:
            log.warning("the connections stay as they are: %s", error)
            return
        if not self._single:
            for name in self._opened.keys() - {connection.name for connection in known}:
                self._remove(name)
        for connection in self._same(known) if self._single else known:
            self._follow(connection)

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
            await self._open(connection)
            return
        try:
            sources = await self._sources(connection)
        except RegfsError as error:
            log.warning("%s stays signed in as it was: %s", connection.name, error)
            return
        if sources.keys() == opened.registries.keys():
            self._renew(opened, connection, sources)
        else:
            self._remove(connection.name)
            self._admit(connection, sources)

    def _renew(self, opened: _Opened, connection: Connection, sources: Mapping[str, Source]) -> None:
        log.info("%s: signed in anew", connection.name)
        opened.connection = connection
        for key, source in sources.items():
            registry = opened.registries[key]
            self._retire(registry.base.replace(source))
            self.filesystem.refresh_registry(self.filesystem.registries[registry.folder])

    def _remove(self, name: str) -> None:
        opened = self._opened.pop(name, None)
        if opened is None:
            return
        for registry in opened.registries.values():
            self.filesystem.remove_registry(registry.folder)
            self._retire(registry.top)
        if not opened.registries:
            self.filesystem.remove_registry(name)

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


def _warning(error: RegfsError, connection: Connection) -> str:
    if not error.registry:
        error.registry = connection.address
    return f"{error}. {advice(error)}"
