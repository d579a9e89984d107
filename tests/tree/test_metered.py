"""A registry that counts manifest requests: HEAD decides, a manifest is fetched once, and nothing ahead of its reader."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import trio

from regfs.errors import DigestMismatch, RateLimited
from regfs.manifest import Descriptor
from regfs.ports import ResolvesTags
from regfs.testing.images import make_image, make_index
from regfs.testing.memory import Abilities, MemorySource
from regfs.tree import quota
from tests.tree.kernel import mounted, run


def metered(*, resolves_tags: bool = True) -> MemorySource:
    """A registry with a quota, and two tags of one image beside one of another."""
    source = MemorySource("hub.test", Abilities(metered=True, resolves_tags=resolves_tags))
    source.push("app", ["v1", "stable"], make_image("one"))
    source.push("app", "v2", make_image("two"))
    return source


def test_a_listing_and_looking_at_tags_and_at_a_manifests_size_cost_no_manifest() -> None:
    async def test() -> None:
        source = metered()
        async with mounted(source) as kernel:
            await kernel.ls_l("app")
            for tag in ("v1", "stable", "v2"):
                await kernel.stat(f"app/{tag}")
            assert source.count("resolve") == 0
            size = (await kernel.stat("app/v1/manifest.json")).size
            assert size == len(make_image("one").manifest.raw)
            digest = str(make_image("one").digest)
            assert await kernel.cat("app/v1/digest") == f"{digest}\n".encode()
            for name in ("oci.digest", "oci.size", "oci.mediatype"):
                assert await kernel.xattr("app/v1", f"user.{name}")
                assert await kernel.xattr("app/v1/manifest.json", f"user.{name}")
            assert source.count("manifest") == 0
            assert source.count("resolve") == 1

    run(test)


def test_a_tag_that_nobody_listed_costs_a_head() -> None:
    async def test() -> None:
        source = metered()
        async with mounted(source) as kernel:
            await kernel.stat("app/v1")
            await kernel.stat("app/v1/manifest.json")
            assert source.count("manifest") == 0
            assert not await kernel.exists("app/nosuch/manifest.json")
            assert source.count("manifest") == 0

    run(test)


@pytest.mark.parametrize("resolves", [True, False])
def test_a_manifest_is_fetched_once_however_often_and_by_whichever_tag_it_is_read(resolves: bool) -> None:
    async def test() -> None:
        source = metered(resolves_tags=resolves)
        async with mounted(source) as kernel:
            for _ in range(3):
                assert await kernel.cat("app/v1/manifest.json") == make_image("one").manifest.raw
            if resolves:
                await kernel.cat("app/stable/manifest.json")
                await trio.sleep(11)
                await kernel.cat("app/v1/manifest.json")
                await kernel.ls("app/v1")
            assert source.count("manifest") == 1

    run(test)


def test_readers_of_two_tags_of_one_digest_at_once_fetch_it_once() -> None:
    async def test() -> None:
        source = metered()
        source.delay(1, "manifest")
        async with mounted(source) as kernel, trio.open_nursery() as nursery:
            for tag in ("v1", "stable") * 5:
                nursery.start_soon(kernel.cat, f"app/{tag}/manifest.json")
        assert source.count("manifest") == 1
        assert source.count("resolve") == 2

    run(test)


def test_a_push_is_seen_within_the_limit_and_costs_one_manifest_more() -> None:
    async def test() -> None:
        source = metered()
        async with mounted(source) as kernel:
            await kernel.cat("app/v1/manifest.json")
            source.push("app", "v1", make_index(seed="new"))
            await trio.sleep(11)
            assert await kernel.cat("app/v1/manifest.json") == make_index(seed="new").manifest.raw
            assert source.count("manifest") == 2

    run(test)


def test_nothing_is_fetched_ahead_of_a_walker() -> None:
    async def test() -> None:
        source = MemorySource(abilities=Abilities(metered=True))
        for number in range(30):
            source.push("app", f"v{number:02}", make_image(str(number)))
        async with mounted(source) as kernel:
            for name in (await kernel.ls("app"))[:4]:
                await kernel.cat(f"app/{name}/manifest.json")
            await trio.sleep(1)
            assert source.count("manifest") == 4
            assert source.count("resolve") == 4

    run(test)


def test_deleting_a_tag_does_not_fetch_its_manifest() -> None:
    async def test() -> None:
        source = metered()
        async with mounted(source, writable=True) as kernel:
            await kernel.rm("app/v1/manifest.json")
            assert await kernel.ls("app") == ["stable", "v2"]
            assert source.count("manifest") == 0
            assert source.content()["app"].keys() == {"stable", "v2"}
            await kernel.rm_r("app/stable")
            assert await kernel.ls("app") == ["v2"]

    run(test)


class _Liar(MemorySource):
    """HEAD gives another size than the manifest has."""

    def capability(self, kind, repository=None):  # type: ignore[no-untyped-def]
        return self if kind is ResolvesTags else super().capability(kind, repository)

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        found = await MemorySource.capability(self, ResolvesTags).resolve(repository, tag)  # type: ignore[union-attr]
        return replace(found, size=found.size - 7)


def test_a_size_that_was_wrong_in_the_head_cuts_nothing_off() -> None:
    async def test() -> None:
        source = _Liar(abilities=Abilities(metered=True))
        image = source.push_image("app", "v1")
        async with mounted(source) as kernel:
            ino = (await kernel.walk("app/v1/manifest.json")).ino
            opened = await kernel.filesystem.open(ino, False)
            assert opened.direct_io, "else the kernel would read no further than the wrong size"
            assert await kernel.filesystem.read(opened.handle, 0, 99999) == image.manifest.raw
            assert (await kernel.filesystem.getattr(ino)).size == len(image.manifest.raw)

    run(test)


def test_bytes_are_proved_against_the_digest_of_the_head() -> None:
    async def test() -> None:
        source = metered()
        async with mounted(source) as kernel:
            await kernel.stat("app/v1/manifest.json")
            lie = await source.manifest("app", "v2")
            source.answer("app", make_image("one").digest, replace(lie, claimed=None))
            with pytest.raises(DigestMismatch):
                await kernel.cat("app/v1/manifest.json")

    run(test)


def test_what_is_left_of_the_quota_is_in_the_status_and_in_the_error_that_ends_it() -> None:
    async def test() -> None:
        source = metered()
        async with mounted(source) as kernel:
            await kernel.cat("app/v1/manifest.json")
            status = json.loads(await kernel.cat(".regfs/status.json"))
            assert status["registries"][0]["quota"] == {"limit": 100, "remaining": 99, "window": 21600}
            source.fail(RateLimited("too many requests", retry_after=7, registry="hub.test"), "manifest")
            with pytest.raises(RateLimited, match="98 of 100 manifest requests are left") as caught:
                await kernel.cat("app/v2/manifest.json")
            assert caught.value.retry_after == 7
            line = kernel.filesystem.errors.lines()[-1]
            assert "too many requests; 98 of 100 manifest requests are left (counted over 6 h)" in line
            assert "Wait 7 seconds" in line

    run(test)


def test_a_quota_is_told_as_far_as_it_is_known() -> None:
    assert quota.in_words({}) == ""
    assert quota.in_words({"limit": 100}) == ""
    assert quota.in_words({"remaining": 3}) == "3 manifest requests are left"
    assert quota.in_words({"remaining": 0, "limit": 10, "window": 90}) == (
        "0 of 10 manifest requests are left (counted over 90 s)"
    )
    error = RateLimited("429", registry="hub.test")
    assert quota.with_quota(error, MemorySource()) is error
