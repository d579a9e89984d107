"""Sources around a Source: what all registries share, whatever their protocol.

Each wraps what the inner Source hands out too, so that no capability goes round it. A capability of a class that this
module does not know passes a `ReadOnlySource` not at all, and the others as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Final, TypeVar, cast

import trio

from regfs.digest import Digest
from regfs.errors import NotFound, NotSignedIn, Overloaded
from regfs.fence import Fence
from regfs.manifest import Descriptor
from regfs.ports import (
    Answer,
    Counts,
    DatesTags,
    DeletesRepositories,
    DeletesTags,
    Deletion,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    ListsRepositories,
    Metered,
    NamespacePage,
    RawManifest,
    ReferrerPage,
    ResolvesTags,
    Source,
    TagPage,
)
from regfs.reference import TagOrDigest

C = TypeVar("C")
T = TypeVar("T")


class WrappedSource:
    """A Source that passes everything to another. What is overridden in a subclass also governs the capabilities.

    `around` surrounds each call, and each page or chunk of those that give several. A class that overrides neither
    `around` nor `admit` lets a manifest through with a single call: seven of these stand on every way to the registry.
    """

    _passes: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        """Learn what the class overrides."""
        cls._passes = cls.around is WrappedSource.around and cls.admit is WrappedSource.admit

    def __init__(self, inner: Source) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """The inner Source's name."""
        return self._inner.name

    async def around(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call. What a subclass overrides."""
        return await call()

    def admit(self, repository: str) -> None:
        """Raise where nothing may be asked about ``repository``. What a subclass overrides."""

    def shown(self, repositories: Sequence[str]) -> Sequence[str]:
        """What of a page of repositories' names is passed on. What a subclass overrides."""
        return repositories

    def leads_on(self, namespace: str) -> bool:  # noqa: ARG002 - a fence looks at it
        """Whether anything below ``namespace`` may be asked about. What a subclass overrides."""
        return True

    async def check(self) -> None:
        """See `regfs.ports.Source.check`."""
        await self.around(self._inner.check)

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """See `regfs.ports.Source.tags`."""
        self.admit(repository)
        async with aclosing(self.each(self._inner.tags(repository))) as pages:
            async for page in pages:
                yield page

    def manifest(self, repository: str, reference: TagOrDigest) -> Coroutine[object, object, RawManifest]:
        """See `regfs.ports.Source.manifest`. What `admit` raises comes with the call, not with its await."""
        if self._passes:
            return self._inner.manifest(repository, reference)
        self.admit(repository)
        return self.around(partial(self._inner.manifest, repository, reference))

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """See `regfs.ports.Source.blob`. The request is one call; the reader's own pace afterwards is nobody's load."""
        self.admit(repository)
        stream = self._inner.blob(repository, descriptor, start, end)
        chunks = await self.around(stream.__aenter__)
        try:
            yield chunks
        except BaseException as error:
            if not await stream.__aexit__(type(error), error, error.__traceback__):
                raise
        else:
            await stream.__aexit__(None, None, None)

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """See `regfs.ports.Source.capability`: the inner one's, wrapped."""
        if repository is not None:
            self.admit(repository)
        found = self._inner.capability(kind, repository)
        wrapper = _WRAPPERS.get(kind)
        return found if found is None or wrapper is None else cast("C", wrapper(found, self))

    async def aclose(self) -> None:
        """See `regfs.ports.Source.aclose`."""
        await self._inner.aclose()

    async def each(self, pages: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Pass an iteration on, each step of it as one call."""
        end = object()

        async def step() -> T | object:
            return await anext(pages, end)

        try:
            while (page := await self.around(step)) is not end:
                yield cast("T", page)
        finally:
            if isinstance(pages, AsyncGenerator):
                await pages.aclose()


class _Lists:
    def __init__(self, inner: ListsRepositories, source: WrappedSource) -> None:
        self._inner, self._source = inner, source

    async def repositories(self) -> AsyncIterator[Sequence[str]]:
        async with aclosing(self._source.each(self._inner.repositories())) as pages:
            async for page in pages:
                yield self._source.shown(page)


class _ListsNamespaces:
    def __init__(self, inner: ListsNamespaces, source: WrappedSource) -> None:
        self._inner, self._source = inner, source

    async def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        source = self._source
        if not source.leads_on(name):
            raise NotFound(f"{name} is outside what this mount shows", registry=source.name)
        async with aclosing(source.each(self._inner.namespace(name))) as pages:
            async for page in pages:
                namespaces = [found for found in page.namespaces if source.leads_on(found)]
                yield NamespacePage(namespaces, source.shown(page.repositories), page.partial)


class _ListsReferrers:
    def __init__(self, inner: ListsReferrers, source: WrappedSource) -> None:
        self._inner, self._source = inner, source

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        self._source.admit(repository)
        pages = self._inner.referrers(repository, digest, artifact_type)
        async with aclosing(self._source.each(pages)) as each:
            async for page in each:
                yield page


class _Resolves:
    def __init__(self, inner: ResolvesTags, source: WrappedSource) -> None:
        self._inner, self._source = inner, source

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        self._source.admit(repository)
        return await self._source.around(lambda: self._inner.resolve(repository, tag))


class _Deletes:
    def __init__(self, inner: DeletesTags, source: WrappedSource) -> None:
        self._inner, self._source = inner, source

    def can_delete(self) -> Answer:
        return self._inner.can_delete()

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        self._source.admit(repository)
        return await self._source.around(lambda: self._inner.delete_tag(repository, tag, seen))


class _DeletesRepositories:
    def __init__(self, inner: DeletesRepositories, source: WrappedSource) -> None:
        self._inner, self._source = inner, source

    async def delete_repository(self, repository: str) -> None:
        self._source.admit(repository)
        await self._source.around(lambda: self._inner.delete_repository(repository))


_WRAPPERS: Final[Mapping[type, Callable[[Any, WrappedSource], object]]] = {
    ListsRepositories: _Lists,
    ListsNamespaces: _ListsNamespaces,
    ListsReferrers: _ListsReferrers,
    ResolvesTags: _Resolves,
    DeletesTags: _Deletes,
    DeletesRepositories: _DeletesRepositories,
}


class ReadOnlySource(WrappedSource):
    """Hands out no capability that could change the registry, nor one that this version does not know."""

    _READS: Final = frozenset(
        {
            ListsRepositories,
            ListsNamespaces,
            ListsReferrers,
            ResolvesTags,
            HonoursRanges,
            Metered,
            DatesTags,
            Counts,
        }
    )

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """See `regfs.ports.Source.capability`."""
        return super().capability(kind, repository) if kind in self._READS else None


class FencedSource(WrappedSource):
    """Makes no call about a repository outside the fence: it is NotFound there, and in no list."""

    def __init__(self, inner: Source, globs: Sequence[str]) -> None:
        super().__init__(inner)
        self._fence = Fence(globs)

    def admit(self, repository: str) -> None:
        """Raise NotFound outside the fence."""
        if not self._fence.holds(repository):
            raise NotFound(f"{repository} is outside what this mount shows", registry=self.name)

    def shown(self, repositories: Sequence[str]) -> Sequence[str]:
        """Those inside the fence."""
        return [name for name in repositories if self._fence.holds(name)]

    def leads_on(self, namespace: str) -> bool:
        """Whether something inside the fence can be there."""
        return self._fence.leads_to(namespace)


class GuardedSource(WrappedSource):
    """Keeps a stalled registry from holding every caller: at most 32 calls in flight, and a bounded queue.

    A call is refused (Overloaded) when 64 wait and nothing has been answered for a second, or when 400 wait: a healthy
    registry that is asked much at once answers all of it, a stalled one says so at once.
    """

    IN_FLIGHT: Final = 32
    WAITING: Final = 64
    PATIENCE: Final = 1.0
    MOST_WAITING: Final = 400

    def __init__(self, inner: Source) -> None:
        super().__init__(inner)
        self._slots = trio.Semaphore(self.IN_FLIGHT)
        self._waiting = 0
        self._last_progress = float("-inf")

    async def around(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call in its turn. Raises Overloaded."""
        await self._take_slot()
        try:
            return await call()
        finally:
            self._slots.release()
            self._last_progress = trio.current_time()

    async def _take_slot(self) -> None:
        if self._slots.value == self.IN_FLIGHT:
            self._last_progress = trio.current_time()  # idle until now, which is not stalled
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            self._refuse_when_stuck()
            self._waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1

    def _refuse_when_stuck(self) -> None:
        stalled = trio.current_time() - self._last_progress > self.PATIENCE
        if self._waiting >= self.MOST_WAITING or (self._waiting >= self.WAITING and stalled):
            raise Overloaded(f"{self._waiting} calls already wait on {self.name}", registry=self.name)


class CountingSource(WrappedSource):
    """Counts calls, for `Counts`: under ``calls`` and ``failed_calls``, beside what the inner Source counts itself."""

    def __init__(self, inner: Source) -> None:
        super().__init__(inner)
        self._calls: Counter[str] = Counter(calls=0, failed_calls=0)

    async def around(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call and count it."""
        self._calls["calls"] += 1
        try:
            return await call()
        except Exception:
            self._calls["failed_calls"] += 1
            raise

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """See `regfs.ports.Source.capability`: counters are always to be had."""
        return cast("C", self) if kind is Counts else super().capability(kind, repository)

    def counters(self) -> Mapping[str, int]:
        """The inner Source's counters and ours."""
        inner = self._inner.capability(Counts)
        return {**(inner.counters() if inner is not None else {}), **self._calls}


class RenewingSource(WrappedSource):
    """Asks once more when the registry wants a sign-in and there is a newer one.

    ``renew`` looks whether somebody signed in meanwhile: cheap, and True where the next call goes out with that.
    """

    def __init__(self, inner: Source, renew: Callable[[], bool]) -> None:
        super().__init__(inner)
        self._renew = renew

    async def around(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call, twice where that may help."""
        try:
            return await call()
        except NotSignedIn:
            if not self._renew():
                raise
        return await call()


class HeldSource(WrappedSource):
    """Lets no deletion begin before ``ready`` is through: what an earlier daemon left half done comes first."""

    def __init__(self, inner: Source, ready: Callable[[], Awaitable[None]]) -> None:
        super().__init__(inner)
        self._ready = ready

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """See `regfs.ports.Source.capability`."""
        found = super().capability(kind, repository)
        if found is not None and kind is DeletesTags:
            return cast("C", _HeldDeletes(cast("DeletesTags", found), self._ready))
        return found


class _HeldDeletes:
    def __init__(self, inner: DeletesTags, ready: Callable[[], Awaitable[None]]) -> None:
        self._inner, self._ready = inner, ready

    def can_delete(self) -> Answer:
        return self._inner.can_delete()

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        await self._ready()
        return await self._inner.delete_tag(repository, tag, seen)


class ReplaceableSource(WrappedSource):
    """Stands for a Source that may be replaced: by one that is signed in otherwise, while those above keep this one."""

    def replace(self, inner: Source) -> Source:
        """Pass calls to ``inner`` from now on; the one before, whose calls under way go on."""
        before, self._inner = self._inner, inner
        return before
