"""Tags under which clients keep what refers to an image: not listed, always there by name, gone with their repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio

from regfs.errors import NotEmpty, NotFound, Refused
from regfs.ports import TagPage
from regfs.reference import fallback_tag
from regfs.testing.images import make_artifact, make_image, make_referrers_index
from regfs.testing.memory import Abilities, MemorySource
from tests.tree.kernel import mounted, run

IMAGE = make_image("subject")
SBOM = make_artifact("application/spdx+json", subject=IMAGE.manifest)
FALLBACK = fallback_tag(IMAGE.digest)
COSIGN = [f"{FALLBACK}.{suffix}" for suffix in ("sig", "att", "sbom")]


def signed(tags: Sequence[str] = ("v1",), abilities: Abilities | None = None) -> MemorySource:
    """A repository whose images were signed in both of the ways that leave tags."""
    source = MemorySource(abilities=abilities)
    source.push("app", [FALLBACK], make_referrers_index([SBOM]))
    source.push("app", COSIGN, SBOM)
    if tags:
        source.push("app", tags, IMAGE)
    return source


def tags_of(source: MemorySource) -> list[str]:
    return list(source.content()["app"])


def test_they_are_not_listed_and_resolve_by_name() -> None:
    async def test() -> None:
        async with mounted(signed()) as kernel:
            assert await kernel.ls("app") == ["v1"]
            assert await kernel.ls("app/.tags") == ["v1"]
            for tag in (FALLBACK, *COSIGN):
                assert await kernel.cat(f"app/{tag}/digest")
                assert await kernel.exists(f"app/.tags/{tag}")
            other = fallback_tag(SBOM.digest)
            assert not await kernel.exists(f"app/{other}")
            assert not await kernel.exists(f"app/{other}.sig")

    run(test)


def test_a_listing_answers_for_them_without_a_request() -> None:
    async def test() -> None:
        source = signed(abilities=Abilities(digests_in_listings=True))
        async with mounted(source) as kernel:
            await kernel.ls("app")
            before = len(source.calls)
            assert await kernel.exists(f"app/{FALLBACK}.sig")
            assert not await kernel.exists(f"app/{fallback_tag(SBOM.digest)}.sig")
            assert len(source.calls) == before

    run(test)


def test_they_are_listed_where_somebody_asks_for_it() -> None:
    async def test() -> None:
        async with mounted(signed(), show_fallback_tags=True) as kernel:
            assert set(await kernel.ls("app")) == {"v1", FALLBACK, *COSIGN}

    run(test)


def test_a_repository_of_signatures_alone_does_not_seem_empty() -> None:
    """cosign can be told to keep its signatures in a repository of their own."""

    async def test() -> None:
        source = signed(tags=())
        async with mounted(source, writable=True) as kernel:
            assert set(await kernel.ls("app")) == {FALLBACK, *COSIGN}
            with pytest.raises(NotEmpty):
                await kernel.rmdir("app")
            assert len(tags_of(source)) == 4
            await kernel.rm_r("app")
            assert tags_of(source) == []
            assert source.count("tags") == 1

    run(test)


@pytest.mark.parametrize("per_page", [1, 2, 100])
def test_a_page_of_them_alone_does_not_end_a_listing_that_is_read_while_it_arrives(per_page: int) -> None:
    async def test() -> None:
        source = signed(("v1", "v2"), Abilities(tags_per_page=per_page))
        source.delay(1.0, "tags")
        async with mounted(source) as kernel:
            assert await kernel.ls("app") == ["v1", "v2"]

    run(test)


# ── deleting ──


def test_removing_a_repository_removes_them_too() -> None:
    async def test() -> None:
        source = signed(("v1", "v2"))
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
            assert tags_of(source) == []
            assert source.count("delete_tag") == 6
            assert not await kernel.exists("app")
            assert await kernel.ls() == []
            await trio.sleep(100)
            assert await kernel.ls() == []
            assert source.holds("app", SBOM.digest)

    run(test)


def test_a_repository_without_them_costs_no_request_more_to_remove() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", ["v1", "v2"], IMAGE)
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
            assert source.count("delete_tag") == 2
            assert source.count("tags") == 1

    run(test)


def test_deleting_every_tag_leaves_them_until_the_repository_is_removed() -> None:
    async def test() -> None:
        source = signed(("v1", "v2"))
        async with mounted(source, writable=True) as kernel:
            for tag in ("v1", "v2"):
                await kernel.rm_r(f"app/{tag}")
            assert set(tags_of(source)) == {FALLBACK, *COSIGN}
            await trio.sleep(11)
            assert set(await kernel.ls("app")) == {FALLBACK, *COSIGN}
            with pytest.raises(NotEmpty):
                await kernel.rmdir("app")

    run(test)


def test_removing_a_tag_leaves_what_refers_to_its_image() -> None:
    async def test() -> None:
        source = signed(("v1", "v2"))
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app/v1")
            assert set(tags_of(source)) == {"v2", FALLBACK, *COSIGN}

    run(test)


def test_one_of_them_is_deleted_by_its_name() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r(f"app/{COSIGN[0]}")
            assert COSIGN[0] not in tags_of(source)
            with pytest.raises(NotFound):
                await kernel.stat(f"app/{COSIGN[0]}/digest")
            assert await kernel.ls("app") == ["v1"]

    run(test)


def test_what_was_pushed_meanwhile_is_not_removed_with_them() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("app")
            await kernel.rm_r("app/v1")
            source.push("app", ["v9"], IMAGE)
            with pytest.raises(NotEmpty, match="v9"):
                await kernel.rmdir("app")
            assert set(tags_of(source)) == {"v9", FALLBACK, *COSIGN}

    run(test)


def test_where_they_cannot_be_deleted_the_repository_stays() -> None:
    async def test() -> None:
        source = signed()
        source.fail(Refused("kept by a rule"), "delete_tag", "app", COSIGN[1])
        async with mounted(source, writable=True) as kernel:
            with pytest.raises(Refused, match="kept by a rule"):
                await kernel.rm_r("app")
            assert COSIGN[1] in tags_of(source)
            source.clear()
            await trio.sleep(11)
            await kernel.rm_r("app")
            assert tags_of(source) == []

    run(test)


def test_a_registry_that_deletes_repositories_is_asked_once_they_are_gone() -> None:
    async def test() -> None:
        source = signed(abilities=Abilities(deletes_repositories=True))
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
            assert "app" not in source.content()

    run(test)


def test_one_that_was_pushed_again_after_its_deletion_is_there_again() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.rm(f"app/{COSIGN[0]}/manifest.json")
            await trio.sleep(1)
            source.push("app", [COSIGN[0]], SBOM)
            await trio.sleep(11)
            await kernel.ls("app")
            assert await kernel.cat(f"app/{COSIGN[0]}/manifest.json") == SBOM.manifest.raw

    run(test)


def test_a_registry_that_refuses_is_not_asked_about_all_of_them() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", ["v1"], IMAGE)
        source.push("app", [f"{fallback_tag(make_image(str(n)).digest)}.sig" for n in range(40)], SBOM)
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("app")
            await kernel.rm_r("app/v1")
            source.fail(Refused("no"), "delete_tag")
            with pytest.raises(Refused):
                await kernel.rmdir("app")
            assert source.count("delete_tag") <= 1 + 8

    run(test)


def test_removing_does_not_hold_up_the_registry_with_all_of_them_at_once() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", ["v1"], IMAGE)
        source.push("app", [f"{fallback_tag(make_image(str(n)).digest)}.sig" for n in range(40)], SBOM)
        source.delay(0.1, "delete_tag")
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
            assert tags_of(source) == []
            assert source.max_in_flight <= 8

    run(test)


def test_names_of_pages_are_counted_once_whatever_they_are() -> None:
    class Twice(MemorySource):
        async def tags(self, repository: str) -> AsyncIterator[TagPage]:
            for _ in range(2):
                yield TagPage(["v1", FALLBACK, "v1", "-bad"])

    async def test() -> None:
        source = Twice()
        source.push("app", ["v1", FALLBACK], IMAGE)
        async with mounted(source) as kernel:
            assert await kernel.ls("app") == ["v1"]

    run(test)
