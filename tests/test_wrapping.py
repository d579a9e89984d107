"""Sources around a Source: nothing goes round a fence, a read-only mount or an overload guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from regfs.errors import NotFound, NotSignedIn, Overloaded, RegfsError
from regfs.ports import (
    Counts,
    DeletesRepositories,
    DeletesTags,
    ListsReferrers,
    ListsRepositories,
    Recovers,
    ResolvesTags,
    Source,
)
from regfs.testing.images import make_artifact, make_image
from regfs.testing.memory import MemorySource
from regfs.wrapping import (
    CountingSource,
    FencedSource,
    GuardedSource,
    HeldSource,
    ReadOnlySource,
    RenewingSource,
    ReplaceableSource,
    WrappedSource,
)


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=MockClock(autojump_threshold=0))


def source() -> MemorySource:
    made = MemorySource()
    for repository in ("team/app", "team/tool", "other/app"):
        made.push(repository, "v1", make_image(repository))
    made.abilities.deletes_repositories = made.abilities.recovers = True
    return made


async def names(listed: Source) -> list[str]:
    lister = listed.capability(ListsRepositories)
    assert lister is not None
    return sorted([name async for page in lister.repositories() for name in page])


async def tags(listed: Source, repository: str) -> list[str]:
    return [name async for page in listed.tags(repository) for name in page.names]


class Stuck(WrappedSource):
    """Manifests come when the test says so."""

    def __init__(self, inner: Source) -> None:
        super().__init__(inner)
        self.go = trio.Event()
        self.in_flight = 0
        self.most = 0

    async def around(self, call: Callable[[], Awaitable[object]]) -> object:  # type: ignore[override]
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self.go.wait()
            return await call()
        finally:
            self.in_flight -= 1


async def ask(guarded: Source, outcomes: list[object]) -> None:
    try:
        outcomes.append(await guarded.manifest("team/app", "v1"))
    except RegfsError as error:
        outcomes.append(error)


def test_a_read_only_source_hands_out_nothing_that_changes_anything() -> None:
    async def test() -> None:
        reading = ReadOnlySource(source())
        for kind in (DeletesTags, DeletesRepositories, Recovers, dict):
            assert reading.capability(kind, "team/app") is None
        assert await names(reading) == ["other/app", "team/app", "team/tool"]
        assert await tags(reading, "team/app") == ["v1"]
        assert reading.capability(Counts) is not None

    run(test)


def test_outside_the_fence_nothing_is_there_and_nothing_is_asked() -> None:
    async def test() -> None:
        inner = source()
        fenced = FencedSource(inner, ["team/*"])
        assert await names(fenced) == ["team/app", "team/tool"]
        asked = len(inner.calls)
        resolver = fenced.capability(ResolvesTags)
        deleter = fenced.capability(DeletesTags)
        assert resolver is not None
        assert deleter is not None
        for refused in (
            partial(fenced.manifest, "other/app", "v1"),
            partial(tags, fenced, "other/app"),
            partial(resolver.resolve, "other/app", "v1"),
            partial(deleter.delete_tag, "other/app", "v1", None),
        ):
            with pytest.raises(NotFound):
                await refused()
        with pytest.raises(NotFound):
            fenced.capability(DeletesTags, "other/app")
        assert len(inner.calls) == asked
        assert await tags(fenced, "team/app") == ["v1"]

    run(test)


def test_what_refers_to_a_manifest_is_behind_the_fence_too_and_reading_it_changes_nothing() -> None:
    async def test() -> None:
        inner = source()
        image = make_image("subject")
        for repository in ("team/app", "other/app"):
            inner.push(repository, "v2", image)
            inner.push(repository, (), make_artifact(subject=image.manifest))
        for wrapped in (FencedSource(ReadOnlySource(inner), ["team/*"]), CountingSource(inner)):
            lister = wrapped.capability(ListsReferrers, "team/app")
            assert lister is not None
            pages = [page async for page in lister.referrers("team/app", image.digest)]
            assert [len(page.referrers) for page in pages] == [1]
            filtered = [page async for page in lister.referrers("team/app", image.digest, "a/b")]
            assert not filtered[0].referrers
        fenced = FencedSource(inner, ["team/*"])
        asked = len(inner.calls)
        with pytest.raises(NotFound):
            fenced.capability(ListsReferrers, "other/app")
        lister = fenced.capability(ListsReferrers, "team/app")
        assert lister is not None
        with pytest.raises(NotFound):
            [page async for page in lister.referrers("other/app", image.digest)]
        assert len(inner.calls) == asked

    run(test)


def test_a_healthy_registry_answers_two_hundred_at_once_and_thirty_two_at_a_time() -> None:
    async def test() -> None:
        stuck = Stuck(source())
        guarded = GuardedSource(stuck)
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask, guarded, outcomes)
            await trio.testing.wait_all_tasks_blocked()
            stuck.go.set()
        assert stuck.most == 32
        assert len(outcomes) == 200
        assert not [outcome for outcome in outcomes if isinstance(outcome, RegfsError)]

    run(test)


def test_a_stalled_registry_refuses_at_once_what_exceeds_its_queue_and_takes_calls_again_later() -> None:
    async def test() -> None:
        stuck = Stuck(source())
        guarded = GuardedSource(stuck)
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            for _ in range(32 + 64):
                nursery.start_soon(ask, guarded, outcomes)
            await trio.sleep(1.5)
            late: list[object] = []
            await ask(guarded, late)
            assert isinstance(late[0], Overloaded)
            stuck.go.set()
        assert not [outcome for outcome in outcomes if isinstance(outcome, RegfsError)]
        again: list[object] = []
        await ask(guarded, again)
        assert not isinstance(again[0], RegfsError)

    run(test)


def test_however_healthy_a_registry_is_its_queue_has_an_end() -> None:
    async def test() -> None:
        stuck = Stuck(source())
        guarded = GuardedSource(stuck)
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(ask, guarded, outcomes)
            await trio.testing.wait_all_tasks_blocked()
            assert len(outcomes) == 500 - 432
            stuck.go.set()

    run(test)


def test_a_long_idle_registry_is_not_taken_for_a_stalled_one() -> None:
    async def test() -> None:
        stuck = Stuck(source())
        guarded = GuardedSource(stuck)
        stuck.go.set()
        await guarded.manifest("team/app", "v1")
        await trio.sleep(1000)
        stuck.go = trio.Event()
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(ask, guarded, outcomes)
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == []
            stuck.go.set()

    run(test)


def test_a_cancelled_caller_gives_its_place_back() -> None:
    async def test() -> None:
        stuck = Stuck(source())
        guarded = GuardedSource(stuck)
        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(90):
                    nursery.start_soon(ask, guarded, [])
        stuck.go.set()
        await guarded.manifest("team/app", "v1")

    run(test)


def test_calls_are_counted_with_their_failures() -> None:
    async def test() -> None:
        counting = CountingSource(source())
        await counting.manifest("team/app", "v1")
        with pytest.raises(NotFound):
            await counting.manifest("team/app", "absent")
        counts = counting.capability(Counts)
        assert counts is not None
        assert counts.counters()["calls"] == 2
        assert counts.counters()["failed_calls"] == 1

    run(test)


@pytest.mark.parametrize("signed_in", [True, False])
def test_a_refused_call_is_made_again_only_where_somebody_signed_in_meanwhile(signed_in: bool) -> None:
    class Refusing(WrappedSource):
        tries = 0

        async def around(self, call: Callable[[], Awaitable[object]]) -> object:  # type: ignore[override]
            self.tries += 1
            if self.tries == 1:
                raise NotSignedIn("401")
            return await call()

    async def test() -> None:
        refusing = Refusing(source())
        renewing = RenewingSource(refusing, lambda: signed_in)
        if signed_in:
            await renewing.manifest("team/app", "v1")
            assert refusing.tries == 2
        else:
            with pytest.raises(NotSignedIn):
                await renewing.manifest("team/app", "v1")
            assert refusing.tries == 1

    run(test)


def test_no_deletion_begins_before_recovery_is_through() -> None:
    async def test() -> None:
        inner = source()
        recovered = trio.Event()
        deleter = HeldSource(inner, recovered.wait).capability(DeletesTags, "team/app")
        assert deleter is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deleter.delete_tag, "team/app", "v1", None)
            await trio.testing.wait_all_tasks_blocked()
            assert await tags(inner, "team/app") == ["v1"]
            recovered.set()
        assert await tags(inner, "team/app") == []

    run(test)


def test_what_stands_for_a_source_goes_to_its_replacement() -> None:
    async def test() -> None:
        before, after = MemorySource(), source()
        standing = ReplaceableSource(before)
        above = CountingSource(standing)
        assert await names(above) == []
        assert standing.replace(after) is before
        assert await tags(above, "team/app") == ["v1"]
        assert "team/app" in await names(above)

    run(test)
