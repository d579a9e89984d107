"""The in-memory Source does what tests arrange: it records, holds, delays and fails calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock

from regfs.errors import DeletionDisabled, ListingRefused, Moved, NotFound, ServerFailed, TooLarge
from regfs.manifest import OCI_MANIFEST
from regfs.ports import (
    Answer,
    Cost,
    DatesTags,
    DeletesTags,
    ListsRepositories,
    Metered,
    Recovers,
    ResolvesTags,
)
from regfs.testing.images import Content, make_image
from regfs.testing.memory import Abilities, MemorySource
from regfs.testing.rules import Call


def run(body: Callable[[], Awaitable[None]]) -> None:
    trio.run(body, clock=MockClock(autojump_threshold=0))


def test_every_call_is_recorded_with_what_it_was_for() -> None:
    source = MemorySource()
    image = source.push("team/app", ["v1", "v2"])

    async def body() -> None:
        await source.check()
        await source.manifest("team/app", "v1")
        await source.manifest("team/app", image.digest)
        assert [list(page.names) async for page in source.tags("team/app")] == [["v1", "v2"]]

    run(body)
    assert source.calls == [
        Call("check"),
        Call("manifest", "team/app", "v1"),
        Call("manifest", "team/app", str(image.digest)),
        Call("tags", "team/app"),
    ]
    assert source.count("manifest") == 2
    assert source.count(repository="team/app") == 3


def test_each_page_of_a_listing_is_a_call() -> None:
    source = MemorySource(abilities=Abilities(tags_per_page=2, repositories_per_page=1))
    source.push("a", ["v1", "v2", "v3"])
    source.push("b")

    async def body() -> None:
        lister = source.capability(ListsRepositories)
        assert lister is not None
        assert [list(page.names) async for page in source.tags("a")] == [["v1", "v2"], ["v3"]]
        assert [list(page) async for page in lister.repositories()] == [["a"], ["b"]]
        assert [list(page.names) async for page in source.tags("b")] == [[]]

    run(body)
    assert (source.count("tags", "a"), source.count("repositories")) == (2, 2)


def test_a_gate_holds_the_calls_it_is_for_until_it_is_opened() -> None:
    source = MemorySource()
    source.push("a", "v1")
    source.push("b", "v1")
    gate = source.hold("manifest", "a")
    done: list[str] = []

    async def get(repository: str) -> None:
        await source.manifest(repository, "v1")
        done.append(repository)

    async def body() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(get, "a")
            nursery.start_soon(get, "b")
            await trio.testing.wait_all_tasks_blocked()
            assert (done, gate.waiting, source.max_in_flight) == (["b"], 3, 4)
            gate.open()

    run(body)
    assert done == ["b", "a", "a", "a"]
    assert (gate.waiting, gate.arrived, source.in_flight) == (0, 3, 0)


def test_a_delay_passes_by_the_clock_that_the_test_sets() -> None:
    source = MemorySource()
    source.push("a", "v1")
    source.delay(25.0, "tags")

    async def body() -> None:
        start = trio.current_time()
        await source.manifest("a", "v1")
        assert trio.current_time() == start
        assert [page async for page in source.tags("a")]
        assert trio.current_time() == start + 25.0

    run(body)


def test_a_failure_happens_as_often_as_the_test_says() -> None:
    source = MemorySource()
    source.push("a", "v1")
    source.fail(ServerFailed("500"), "manifest", times=2)

    async def body() -> None:
        for _ in range(2):
            with pytest.raises(ServerFailed):
                await source.manifest("a", "v1")
        assert (await source.manifest("a", "v1")).media_type == OCI_MANIFEST

    run(body)


def test_a_capability_that_is_switched_off_is_not_handed_out() -> None:
    source = MemorySource(abilities=Abilities(False, False, False, None))
    kinds: tuple[type, ...] = (ListsRepositories, ResolvesTags, DeletesTags, Metered, Recovers, DatesTags)
    assert [kind for kind in kinds if source.capability(kind) is not None] == []
    source.abilities = Abilities(metered=True, recovers=True, dates=Cost.FREE)
    for kind in kinds:
        assert isinstance(source.capability(kind), kind)


def test_a_refused_listing_and_a_disabled_deletion_say_so() -> None:
    source = MemorySource(abilities=Abilities(listing_refused=True, deletes_tags=Answer.NO))
    source.push("a", "v1")

    async def body() -> None:
        lister, deleter = source.capability(ListsRepositories), source.capability(DeletesTags)
        assert lister is not None
        assert deleter is not None
        with pytest.raises(ListingRefused):
            [page async for page in lister.repositories()]
        with pytest.raises(DeletionDisabled):
            await deleter.delete_tag("a", "v1", None)

    run(body)
    assert source.content()["a"].keys() == {"v1"}


def test_a_tag_that_moved_is_not_deleted() -> None:
    source = MemorySource()
    old, new = source.push("a", "v1"), make_image("new")
    source.push("a", "v1", new)

    async def body() -> None:
        deleter = source.capability(DeletesTags)
        assert deleter is not None
        with pytest.raises(Moved):
            await deleter.delete_tag("a", "v1", old.digest)

    run(body)
    assert source.content() == {"a": {"v1": new.digest}}


def test_free_facts_come_with_the_listing() -> None:
    source = MemorySource(abilities=Abilities(dates=Cost.FREE, digests_in_listings=True))
    made = datetime(2020, 2, 3, tzinfo=UTC)
    image = make_image(created=made)
    source.push("a", "v1", image)

    async def body() -> None:
        facts = (await anext(source.tags("a"))).facts["v1"]
        assert (facts.digest, facts.created) == (image.digest, made)

    run(body)


def test_a_manifest_over_the_limit_is_too_large() -> None:
    source = MemorySource()
    source.push_manifest("a", ["big"], Content(OCI_MANIFEST, b" " * (4 * 1024 * 1024 + 1)))

    async def body() -> None:
        with pytest.raises(TooLarge):
            await source.manifest("a", "big")
        with pytest.raises(NotFound):
            await source.manifest("a", "other")

    run(body)
