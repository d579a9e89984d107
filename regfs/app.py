"""The composition root: what the settings and connections name, wired together. Nothing else wires."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

from regfs.advice import advice
from regfs.cache.fronted import FrontedStore
from regfs.config import Settings
from regfs.connection import Connection
from regfs.connections import ConnectionStore, all_connections
from regfs.errors import ConfigError, RegfsError, UnknownHost
from regfs.inside import LateImages
from regfs.ports import Blobs, Images
from regfs.recovery import left_behind
from regfs.registries import Opened, Registries
from regfs.tree.filesystem import FileSystem, TreeSettings

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
        self._registries = Registries(settings, self.filesystem, self._look_at_store, single=single)
        self.filesystem.facts = self._registries.signed_in

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the registries open until cancelled. Started: they are in the tree; none has been asked anything.

        Of a single registry, what prevents opening it is raised (PluginError, ConfigError …); of several, its folder says so.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._registries.work_in(nursery)
                self.filesystem.start(nursery)
                nursery.start_soon(self._content.run)
                nursery.start_soon(self._sweep)
                for connection in self._wanted:
                    await self._registries.open(connection)
                task_status.started()
                await self._watch_store()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._registries.work_in(None)

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
            for opened in self._registries.opened:
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
        await self._registries.aclose()

    async def _check(self, opened: Opened, key: str, warnings: list[str]) -> None:
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

    async def _first_word(self, opened: Opened, key: str) -> None:
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
        once = replace(self._registries.policy(), retries=0)
        sources = await self._registries.sources(connection, once)
        try:
            if key in sources:
                await sources[key].check()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                for source in sources.values():
                    await source.aclose()

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
        self._registries.follow(known)


def _warning(error: RegfsError, connection: Connection) -> str:
    if not error.registry:
        error.registry = connection.address
    return f"{error}. {advice(error)}"
