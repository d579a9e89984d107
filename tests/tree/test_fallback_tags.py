"""Tags under which clients keep what refers to an image: not listed, there by name, and deleted by their names alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import NotEmpty, NotFound
from regfs.ports import TagPage
from regfs.reference import fallback_tag
from regfs.testing.images import make_artifact, make_image, make_referrers_index
from regfs.testing.memory import Abilities, MemorySource
from tests.tree.kernel import Kernel, mounted, run

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


def told(kernel: Kernel) -> list[str]:
    """The lines that say that something is left."""
    return [line for line in kernel.filesystem.errors.lines() if "clients keep for themselves" in line]


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


def test_removing_a_repository_deletes_what_is_listed_and_hides_it() -> None:
    async def test() -> None:
        source = signed(("v1", "v2"))
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
            assert set(tags_of(source)) == {FALLBACK, *COSIGN}
            assert source.count("delete_tag") == 2
            assert not await kernel.exists("app")
            for _ in range(8):
                assert await kernel.ls() == []
                assert not await kernel.exists("app")
                await trio.sleep(11)
            assert source.count("delete_tag") == 2

    run(test)


def test_what_is_left_is_told_once_and_how_to_see_and_delete_it() -> None:
    async def test() -> None:
        async with mounted(signed(), writable=True) as kernel:
            await kernel.rm_r("app")
            (line,) = told(kernel)
            assert " app: 4 tags that clients keep for themselves are left in the registry" in line
            for way in ("show_fallback_tags", "`regfs ls memory.test/app`", "`regfs rm memory.test/app:TAG`"):
                assert way in line, line

    run(test)


def test_one_that_was_deleted_by_its_name_before_is_not_counted_as_left() -> None:
    async def test() -> None:
        async with mounted(signed(), writable=True) as kernel:
            await kernel.ls("app")
            for tag in (FALLBACK, *COSIGN[1:]):
                await kernel.rm_r(f"app/{tag}")
            await kernel.rm_r("app")
            (line,) = told(kernel)
            assert " one tag that clients keep for themselves is left in the registry" in line
            assert COSIGN[0] in line

    run(test)


@pytest.mark.parametrize("looks", [True, False])
def test_what_is_told_at_rmdir_is_what_is_left_then(looks: bool) -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("app")
            await kernel.rm_r("app/v1")
            for tag in (FALLBACK, *COSIGN[1:]):
                source.remove_tag("app", tag)
            await trio.sleep(11)
            if looks:
                assert await kernel.ls("app") == []
            await kernel.rmdir("app")
            assert " one tag that clients keep for themselves is left in the registry" in told(kernel)[-1]

    run(test)


def test_a_repository_without_them_costs_no_request_more_to_remove_and_nothing_is_told() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", ["v1", "v2"], IMAGE)
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
            assert source.count("delete_tag") == 2
            assert source.count("tags") == 1
            assert kernel.filesystem.errors.lines() == []

    run(test)


@pytest.mark.parametrize("wait", [0, 11, 40])
def test_rmdir_of_a_repository_that_was_emptied_by_hand_deletes_nothing(wait: float) -> None:
    async def test() -> None:
        source = signed(("v1", "v2"))
        async with mounted(source, writable=True) as kernel:
            assert await kernel.ls("app") == ["v1", "v2"]
            for tag in ("v1", "v2"):
                await kernel.rm_r(f"app/{tag}")
            await trio.sleep(wait)
            assert await kernel.ls("app") == []
            await kernel.rmdir("app")
            assert source.count("delete_tag") == 2
            assert set(tags_of(source)) == {FALLBACK, *COSIGN}
            assert len(told(kernel)) == 1
            assert not await kernel.exists("app")

    run(test)


@pytest.mark.parametrize("slowness", [0.0, 4.0])
@pytest.mark.parametrize("ttl", [0.0, 10.0])
def test_removing_ends_well_however_long_it_takes(slowness: float, ttl: float) -> None:
    """Listings that are asked for meanwhile no longer have the tags that were deleted."""

    async def test() -> None:
        source = MemorySource()
        for repository in ("team/app", "team/deep/tool"):
            source.push(repository, [f"{FALLBACK}.sig"], SBOM)
            source.push(repository, [f"v{n}" for n in range(9)], IMAGE)
        source.delay(slowness, "delete_tag")
        async with mounted(source, writable=True, ttl=ttl) as kernel:
            await kernel.rm_r("team")
            assert source.count("delete_tag") == 18
            assert await kernel.ls() == []
            assert not await kernel.exists("team")
            assert len(told(kernel)) == 2

    run(test)


def test_a_repository_is_emptied_too_whose_tags_were_never_listed() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.rm("app/v1/manifest.json")
            assert await kernel.ls("app") == []
            await kernel.rmdir("app")
            assert source.count("delete_tag") == 1
            assert len(told(kernel)) == 1
            await trio.sleep(100)
            assert not await kernel.exists("app")

    run(test)


def test_forgetting_listings_in_the_midst_of_a_removal_does_not_bring_them_up() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("app")
            kernel.filesystem.refresh()
            await kernel.rm_r("app/v1")
            kernel.filesystem.refresh()
            await kernel.rmdir("app")
            assert source.count("delete_tag") == 1
            assert not await kernel.exists("app")

    run(test)


def test_an_emptied_repository_returns_with_an_ordinary_tag_and_not_with_another_of_them() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
            source.push("app", [f"{fallback_tag(SBOM.digest)}.sig"], SBOM)
            await trio.sleep(61)
            assert await kernel.ls() == []
            source.push("app", ["v2"], IMAGE)
            await trio.sleep(11)
            assert await kernel.ls() == ["app"]
            assert await kernel.ls("app") == ["v2"]

    run(test)


def test_a_fresh_mount_lists_what_is_left_and_removes_it() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app")
        async with mounted(source, writable=True) as kernel:
            assert await kernel.ls() == ["app"]
            assert set(await kernel.ls("app")) == {FALLBACK, *COSIGN}
            await kernel.rm_r("app")
            assert tags_of(source) == []
            assert told(kernel) == []
            assert await kernel.ls() == []

    run(test)


def test_where_they_are_listed_they_are_removed_with_all_the_others() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True, show_fallback_tags=True) as kernel:
            await kernel.rm_r("app/v1")
            assert set(await kernel.ls("app")) == {FALLBACK, *COSIGN}
            with pytest.raises(NotEmpty):
                await kernel.rmdir("app")
            await kernel.rm_r("app")
            assert tags_of(source) == []
            assert told(kernel) == []

    run(test)


def test_they_are_listed_once_somebody_else_has_deleted_all_the_others() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            assert await kernel.ls("app") == ["v1"]
            source.remove_tag("app", "v1")
            await trio.sleep(11)
            assert set(await kernel.ls("app")) == {FALLBACK, *COSIGN}
            with pytest.raises(NotEmpty):
                await kernel.rmdir("app")
            assert source.count("delete_tag") == 0

    run(test)


def test_of_a_repository_that_holds_nothing_else_each_is_removed_like_any_tag() -> None:
    async def test() -> None:
        source = signed(tags=())
        async with mounted(source, writable=True) as kernel:
            for left, tag in enumerate([*COSIGN, FALLBACK]):
                await kernel.rm_r(f"app/{tag}")
                assert len(tags_of(source)) == 3 - left
                assert set(await kernel.ls("app")) == set(tags_of(source))
            await kernel.rmdir("app")
            assert await kernel.ls() == []
            assert told(kernel) == []
            source.push("app", COSIGN[:1], SBOM)
            await trio.sleep(11)
            assert await kernel.ls() == ["app"], "it holds nothing else now as before"
            assert await kernel.ls("app") == COSIGN[:1]

    run(test)


def test_removing_a_tag_leaves_what_refers_to_its_image() -> None:
    async def test() -> None:
        source = signed(("v1", "v2"))
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app/v1")
            assert set(tags_of(source)) == {"v2", FALLBACK, *COSIGN}
            assert told(kernel) == []

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


def test_what_was_pushed_meanwhile_stays_and_shows_with_the_next_listing() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("app")
            await kernel.rm_r("app/v1")
            source.push("app", ["v9"], IMAGE)
            await trio.sleep(11)
            with pytest.raises(NotEmpty, match="v9"):
                await kernel.rmdir("app")
            assert set(tags_of(source)) == {"v9", FALLBACK, *COSIGN}
            assert await kernel.ls("app") == ["v9"]

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


# ── whatever is done ──


class Signed:
    """A repository of two ordinary tags and two of the others, and what a mount that comes and goes may say of it."""

    ordinary = ("v1", "v2")
    kept = (FALLBACK, f"{FALLBACK}.sig")

    def __init__(self, source: MemorySource, kernel: Kernel) -> None:
        self.source, self.kernel = source, kernel
        self.is_emptied = False

    @property
    def held(self) -> set[str]:
        return set(self.source.content().get("app", {}))

    @property
    def shown(self) -> set[str]:
        """What a listing is to have, once it is not older than the last change."""
        ordinary = self.held.intersection(self.ordinary)
        return ordinary or (set() if self.is_emptied else self.held)

    async def push(self, tag: str) -> None:
        self.source.push("app", [tag], IMAGE if tag in self.ordinary else SBOM)

    async def look(self, _tag: str) -> None:
        await trio.sleep(11)
        is_there = "app" in await self.kernel.ls()
        assert is_there or not self.shown
        shown = set(await self.kernel.ls("app")) if await self.kernel.exists("app") else set()
        assert shown == self.shown
        if shown.intersection(self.ordinary):
            self.is_emptied = False

    async def remove(self, tag: str) -> None:
        """`rm -r TAG`: that one goes, if it is there, and no other."""
        await self.look(tag)
        before = self.held
        try:
            await self.kernel.rm_r(f"app/{tag}")
        except NotFound:
            assert self.is_emptied or tag not in before
            assert self.held == before
            return
        assert self.held == before - {tag}
        self.note_emptied(before)

    async def remove_all(self, tag: str) -> None:
        """`rm -r REPOSITORY`: what is listed goes, and nothing else, and it ends well."""
        await self.look(tag)
        before, listed = self.held, self.shown
        if not await self.kernel.exists("app"):
            return
        await self.kernel.rm_r("app")
        assert self.held == before - listed
        assert not await self.kernel.exists("app")
        assert "app" not in await self.kernel.ls()
        self.note_emptied(before)

    async def rmdir(self, tag: str) -> None:
        """rmdir of whatever: nothing goes, and nothing is asked to."""
        before, asked = self.held, self.source.count("delete_tag")
        for path in (f"app/{tag}", f"app/.tags/{tag}", "app"):
            with suppress(NotEmpty, NotFound):
                await self.kernel.rmdir(path)
        assert (self.held, self.source.count("delete_tag")) == (before, asked)

    async def wait(self, _tag: str) -> None:
        await trio.sleep(61)

    def note_emptied(self, before: set[str]) -> None:
        had_ordinary = not before.isdisjoint(self.ordinary)
        self.is_emptied = self.is_emptied or (had_ordinary and self.held.isdisjoint(self.ordinary))


Step = tuple[Callable[[Signed, str], Awaitable[None]], str]
STEPS = st.tuples(
    st.sampled_from(
        [Signed.push, Signed.push, Signed.look, Signed.remove, Signed.remove_all, Signed.rmdir, Signed.wait]
    ),
    st.sampled_from([*Signed.ordinary, *Signed.kept]),
)


@given(st.lists(STEPS, min_size=4, max_size=25))
def test_whatever_is_done_what_nobody_named_or_saw_listed_stays(steps: list[Step]) -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("other", ["v1"], IMAGE)
        async with mounted(source, writable=True) as kernel:
            signed = Signed(source, kernel)
            for step, tag in steps:
                await step(signed, tag)

    run(test)
