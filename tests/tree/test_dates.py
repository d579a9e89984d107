"""Dates and digests that come with a listing cost nothing, and what they say of a tag is what the tag shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trio

from regfs.digest import Digest
from regfs.ports import Cost, TagFacts
from regfs.testing.images import make_image
from regfs.testing.memory import Abilities, MemorySource
from tests.tree.kernel import mounted, run

DAY = datetime(2024, 3, 1, 12, 0, 0, tzinfo=UTC)


class Dated(MemorySource):
    """Lists each tag with the date of its own push, and with its digest if ``digests``."""

    def __init__(self, *, digests: bool = False) -> None:
        super().__init__(abilities=Abilities(dates=Cost.FREE, digests_in_listings=digests))
        self.pushed: dict[str, datetime | None] = {}

    def put(self, tag: str, days: int, seed: str = "") -> None:
        """Push an image under ``tag``, ``days`` after the first of March."""
        self.push("app", tag, make_image(seed or tag))
        self.pushed[tag] = DAY + timedelta(days=days)

    def _facts(self, home, tag: str) -> TagFacts:  # type: ignore[no-untyped-def]
        return TagFacts(home.tags[tag] if self.abilities.digests_in_listings else None, self.pushed.get(tag))


def ns(days: int) -> int:
    """The time shown for a tag of that day."""
    return int((DAY + timedelta(days=days)).timestamp()) * 10**9


@pytest.mark.parametrize("digests", [False, True])
def test_tags_bear_the_dates_of_their_listing_in_the_registrys_order(digests: bool) -> None:
    async def test() -> None:
        source = Dated(digests=digests)
        for tag, days in (("b", 2), ("a", 3), ("c", 1)):
            source.put(tag, days)
        async with mounted(source) as kernel:
            listed = await kernel.ls_l("app")
            assert [name for name, _ in listed] == ["b", "a", "c"]
            assert [attributes.time_ns for _, attributes in listed] == [ns(2), ns(3), ns(1)]
            newest_first = sorted(listed, key=lambda entry: -entry[1].time_ns)
            assert [name for name, _ in newest_first] == ["a", "b", "c"]
            for tag, days in (("b", 2), ("a", 3)):
                assert (await kernel.stat(f"app/{tag}")).time_ns == ns(days)
            assert source.count("manifest") == source.count("resolve") == 0
            assert source.count("tags") == 1
            assert (await kernel.stat("app/a/manifest.json")).time_ns == ns(3)
            assert (await kernel.stat("app/a")).time_ns == ns(3)

    run(test)


@pytest.mark.parametrize("digests", [False, True])
def test_two_tags_of_one_digest_keep_each_its_own_date(digests: bool) -> None:
    async def test() -> None:
        source = Dated(digests=digests)
        source.put("v1", 1, seed="same")
        source.put("latest", 5, seed="same")
        async with mounted(source) as kernel:
            for _ in range(2):
                shown = {name: attributes.time_ns for name, attributes in await kernel.ls_l("app")}
                assert shown == {"v1": ns(1), "latest": ns(5)}
                for tag, days in (("v1", 1), ("latest", 5)):
                    assert (await kernel.stat(f"app/{tag}/manifest.json")).time_ns == ns(days)
                    assert (await kernel.stat(f"app/{tag}/config.json")).time_ns == ns(days)

    run(test)


@pytest.mark.parametrize("digests", [False, True])
def test_a_date_stays_when_its_listing_is_too_old_to_be_shown(digests: bool) -> None:
    async def test() -> None:
        source = Dated(digests=digests)
        source.put("v1", 1)
        async with mounted(source) as kernel:
            await kernel.ls_l("app")
            await trio.sleep(1000)
            assert (await kernel.stat("app/v1")).time_ns == ns(1)
            assert (await kernel.stat("app/v1/manifest.json")).time_ns == ns(1)
            assert (await kernel.stat("app/v1")).time_ns == ns(1)

    run(test)


def test_a_tag_that_moved_shows_the_date_of_its_new_push() -> None:
    async def test() -> None:
        source = Dated(digests=True)
        source.put("v1", 1, seed="old")
        async with mounted(source) as kernel:
            await kernel.ls_l("app")
            source.put("v1", 9, seed="new")
            await trio.sleep(11)
            assert dict(await kernel.ls_l("app"))["v1"].time_ns == ns(9)
            assert (await kernel.stat("app/v1/manifest.json")).time_ns == ns(9)

    run(test)


@pytest.mark.parametrize("when", [datetime(1970, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), None])
def test_a_date_that_can_be_none_counts_as_unknown_and_looks_new(when: datetime | None) -> None:
    async def test() -> None:
        source = Dated()
        source.put("v1", 1)
        source.pushed["v1"] = when
        async with mounted(source) as kernel:
            assert dict(await kernel.ls_l("app"))["v1"].time_ns >= 1_790_000_000 * 10**9

    run(test)


def test_a_date_without_a_zone_is_taken_for_utc() -> None:
    async def test() -> None:
        source = Dated()
        source.put("v1", 1)
        source.pushed["v1"] = (DAY + timedelta(days=1)).replace(tzinfo=None)
        async with mounted(source) as kernel:
            assert dict(await kernel.ls_l("app"))["v1"].time_ns == ns(1)

    run(test)


def test_a_digest_in_the_listing_is_an_attribute_for_nothing() -> None:
    async def test() -> None:
        source = Dated(digests=True)
        source.put("v1", 1)
        async with mounted(source) as kernel:
            await kernel.ls("app")
            before = len(source.calls)
            found = await kernel.xattr("app/v1", "user.oci.digest")
            assert Digest.parse(found) == make_image("v1").digest
            assert len(source.calls) == before
            assert await kernel.xattr("app/.tags/v1", "user.oci.digest") == found
            assert len(source.calls) == before

    run(test)
