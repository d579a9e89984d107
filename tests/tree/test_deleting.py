"""What a user may rely on when deleting: that tag, nothing else, and every recursive remover exits clean."""

from __future__ import annotations

import pytest
import trio

from regfs.errors import (
    DeletionDisabled,
    Moved,
    NotEmpty,
    NotFound,
    ReadOnly,
    Refused,
    RegfsError,
    Unreachable,
    Unsupported,
)
from regfs.ports import Answer
from regfs.testing.images import make_image, make_index
from regfs.testing.memory import Abilities, MemorySource
from tests.tree.kernel import Kernel, mounted, rooms, run


def three_tags_of_one_digest() -> MemorySource:
    source = MemorySource()
    source.push("team/app", ["v1", "v2", "v3"])
    return source


@pytest.mark.parametrize("folder", ["team/app/v1", "team/app/.tags/v1"])
def test_removing_a_tags_folder_deletes_that_tag_only(folder: str) -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        digest = source.content()["team/app"]["v1"]
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r(folder)
            assert await kernel.ls("team/app") == ["v2", "v3"]
            assert source.content() == {"team/app": {"v2": digest, "v3": digest}}
            assert source.holds("team/app", digest)
            assert source.count("delete_tag") == 1
            assert not await kernel.exists("team/app/v1")

    run(test)


def test_removing_an_index_does_not_walk_into_its_platforms() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", ["v1", "v2"], make_index())
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("app/v1")
            assert await kernel.ls("app") == ["v2"]
            assert await kernel.ls("app/v2/platforms")

    run(test)


def test_a_deleted_tag_still_has_the_names_it_had_until_they_are_removed() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("team/app/v1")
            await kernel.rm("team/app/v1/manifest.json")
            before = len(source.calls)
            assert await kernel.ls("team/app/v1") == ["digest", "config.json", *rooms()]
            await kernel.rm("team/app/v1/digest")
            assert await kernel.ls("team/app/v1") == ["config.json", *rooms()]
            with pytest.raises(NotFound):
                await kernel.cat("team/app/v1/manifest.json")
            await kernel.rmdir("team/app/v1")
            assert len(source.calls) == before
            assert not await kernel.exists("team/app/v1")

    run(test)


def test_a_tombstone_ends_by_itself_after_a_minute() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            await kernel.rm("team/app/v1/manifest.json")
            assert await kernel.exists("team/app/v1")
            await trio.sleep(61)
            assert not await kernel.exists("team/app/v1")
            assert await kernel.ls("team/app") == ["v2", "v3"]

    run(test)


def test_a_tag_pushed_again_after_its_deletion_is_shown_within_the_limit() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True, ttl=10) as kernel:
            await kernel.ls("team/app")
            await kernel.rm_r("team/app/v1")
            image = source.push_image("team/app", "v1", make_image("again"))
            await trio.sleep(11)
            assert "v1" in await kernel.ls("team/app")
            assert await kernel.cat("team/app/v1/manifest.json") == image.manifest.raw

    run(test)


def test_a_listing_that_was_under_way_does_not_bring_a_deleted_tag_back() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            await kernel.cat("team/app/v1/manifest.json")
            source.delay(5, "tags")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kernel.ls, "team/app")
                await trio.sleep(1)
                await kernel.filesystem.unlink((await kernel.walk("team/app/v1")).ino, b"manifest.json")
            assert await kernel.ls("team/app") == ["v2", "v3"]

    run(test)


def test_rmdir_of_what_holds_something_deletes_nothing() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            for path in ("team/app/v1", "team/app/.tags/v1", "team/app", "team"):
                with pytest.raises(NotEmpty):
                    await kernel.rmdir(path)
            assert source.count("delete_tag") == 0

    run(test)


def test_rmdir_of_the_mounts_own_folder_is_refused() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            for path in (".regfs", "team/app/.tags", "team/app/.digests"):
                with pytest.raises(Refused):
                    await kernel.rmdir(path)
                assert "unexpected" not in kernel.filesystem.errors.lines()[-1]
            assert source.count("delete_tag") == 0

    run(test)


async def assert_refused(kernel: Kernel, path: str, error: type[RegfsError] = Refused) -> None:
    with pytest.raises(error):
        await kernel.rm(path)
    assert path.rpartition("/")[2] in kernel.filesystem.errors.lines()[-1] or error is not Refused


def test_only_a_tags_manifest_can_be_removed() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        name = source.content()["team/app"]["v1"].file_name
        async with mounted(source, writable=True) as kernel:
            for path in ("v1/digest", "v1/config.json", f".digests/{name}/manifest.json", "../app:v1"):
                await assert_refused(kernel, f"team/app/{path}".replace("app/../", ""))
            assert source.count("delete_tag") == 0

    run(test)


def test_a_read_only_mount_refuses_and_asks_nothing() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source) as kernel:
            await kernel.ls("team/app/v1")
            before = len(source.calls)
            with pytest.raises(ReadOnly):
                await kernel.rm("team/app/v1/manifest.json")
            with pytest.raises(ReadOnly):
                await kernel.rmdir("team/app/v1")
            with pytest.raises(ReadOnly):
                kernel.filesystem.refuse_write("mkdir", 1, b"new")
            assert len(source.calls) == before

    run(test)


def test_other_writes_are_refused_with_a_line_that_says_so() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            with pytest.raises(Refused):
                kernel.filesystem.refuse_write("mkdir", 1, b"new")
            assert "new" in kernel.filesystem.errors.lines()[-1]

    run(test)


@pytest.mark.parametrize(
    ("abilities", "error"),
    [
        (Abilities(deletes_tags=None), Unsupported),
        (Abilities(deletes_tags=Answer.NO), Refused),
        (Abilities(deletes_tags=Answer.UNKNOWN), None),
    ],
)
def test_a_refused_deletion_leaves_the_tag_as_it_was(
    abilities: Abilities, error: type[RegfsError] | None
) -> None:
    async def test() -> None:
        source = MemorySource(abilities=abilities)
        source.push("app", ["v1", "v2"])
        failure = error or DeletionDisabled
        if error is None:
            source.fail(DeletionDisabled("off", setting="storage.delete.enabled"), "delete_tag")
        async with mounted(source, writable=True) as kernel:
            with pytest.raises(failure):
                await kernel.rm_r("app/v1")
            assert await kernel.ls("app") == ["v1", "v2"]
            assert await kernel.cat("app/v1/manifest.json")
            if error is None:
                assert "storage.delete.enabled" in kernel.filesystem.errors.lines()[-1]

    run(test)


def test_a_tag_that_moved_since_it_was_looked_at_is_not_deleted() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True, ttl=10) as kernel:
            await kernel.ls("team/app/v1")
            folder = (await kernel.walk("team/app/v1")).ino
            source.push("team/app", "v1", make_image("moved"))
            await trio.sleep(11)
            with pytest.raises(Moved):
                await kernel.filesystem.unlink(folder, b"manifest.json")
            assert "v1" in source.content()["team/app"]

    run(test)


def test_removing_a_repository_deletes_its_tags_one_by_one_and_hides_it() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        source.push("team/other", "v1")
        source.push("team/app/nested", "v1")
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("team/app")
            assert source.count("delete_tag") == 4
            assert await kernel.ls("team") == ["other"]
            assert not await kernel.exists("team/app")
            assert "v1" in source.content()["team/other"]

    run(test)


def test_removing_a_namespace_empties_it() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        source.push("team/deep/down/app", "v1")
        source.push("other", "v1")
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("team")
            assert await kernel.ls() == ["other"]
            assert not await kernel.exists("team")
            assert not any(source.content()["team/app"])

    run(test)


def test_an_emptied_repository_resolves_for_a_minute_and_returns_when_a_tag_appears() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("team/app", "v1")
        async with mounted(source, writable=True, ttl=10) as kernel:
            await kernel.ls("team/app")
            await kernel.rm_r("team/app/v1")
            assert await kernel.ls() == []
            assert await kernel.ls("team/app") == []
            await trio.sleep(61)
            assert not await kernel.exists("team/app")
            assert await kernel.ls() == []
            source.push("team/app", "v2")
            await trio.sleep(11)
            assert await kernel.cat("team/app/v2/manifest.json")
            assert await kernel.ls("team/app") == ["v2"]
            assert await kernel.ls() == ["team"]

    run(test)


def test_a_repository_whose_nested_one_a_tag_hides_is_removed_with_all_in_it() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("team/web", ["1.0", "cli"])
        source.push("team/web/cli", "2.0")
        async with mounted(source, writable=True) as kernel:
            assert await kernel.ls("team/web") == ["1.0", "cli", ".repos"]
            with pytest.raises(NotEmpty):
                await kernel.rmdir("team/web/.repos")
            await kernel.rm_r("team/web")
            assert not any(source.content().values())
            assert not await kernel.exists("team/web")

    run(test)


def test_rmdir_asks_no_registry_to_delete_a_repository() -> None:
    """Whoever empties one has named its tags: not the manifests that people pin by digest, nor what else it is set up with."""

    async def test() -> None:
        source = MemorySource(abilities=Abilities(deletes_repositories=True))
        source.push("team/app", ["v1", "v2"])
        source.push("team/web", "v1")
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("team/app")
            await kernel.rm_r("team/web/v1")
            await kernel.rmdir("team/web")
            assert source.count("delete_tag") == 3
            assert source.count("delete_repository") == 0
            assert await kernel.ls() == []

    run(test)


def test_a_repository_that_was_pushed_to_meanwhile_shows_it_with_the_next_listing() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("team/app", "v1")
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("team/app")
            await kernel.rm_r("team/app/v1")
            source.push("team/app", "v2")
            await trio.sleep(11)
            with pytest.raises(NotEmpty):
                await kernel.rmdir("team/app")
            assert await kernel.ls("team/app") == ["v2"]

    run(test)


def test_rmdir_of_an_emptied_namespace_sees_what_has_come_to_it_since() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("team/app", "v1")
        async with mounted(source, writable=True) as kernel:
            await kernel.rm_r("team/app")
            source.push("team/new", "v1")
            await trio.sleep(11)
            with pytest.raises(NotEmpty, match="new"):
                await kernel.rmdir("team")
            assert await kernel.ls("team") == ["new"]

    run(test)


def test_a_deletion_goes_to_its_end_though_the_caller_has_run_out_of_time() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            await kernel.ls("team/app/v1")
            source.delay(40, "delete_tag")
            with pytest.raises(RegfsError):
                await kernel.rm("team/app/v1/manifest.json")
            await trio.sleep(20)
            assert await kernel.ls("team/app") == ["v2", "v3"]

    run(test)


def test_what_remains_of_a_tag_that_could_not_be_deleted_says_the_same_reason() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            source.fail(DeletionDisabled("deletion is off", setting="delete.enabled"), "delete_tag", times=1)
            for name in ("manifest.json", "digest", "config.json"):
                with pytest.raises(DeletionDisabled):
                    await kernel.rm(f"team/app/v1/{name}")
            assert "delete.enabled" in kernel.filesystem.errors.lines()[-1]
            await kernel.rm_r("team/app/v1")
            assert await kernel.ls("team/app") == ["v2", "v3"]

    run(test)


def test_a_registry_that_deletes_nothing_is_not_asked_again_at_once_and_the_setting_is_named_each_time() -> (
    None
):
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            source.fail(DeletionDisabled("deletion is off", setting="delete.enabled"), "delete_tag", times=1)
            with pytest.raises(DeletionDisabled):
                await kernel.rm("team/app/v1/manifest.json")
            source.abilities = Abilities(deletes_tags=Answer.NO)
            with pytest.raises(DeletionDisabled) as raised:
                await kernel.rm("team/app/v2/manifest.json")
            assert raised.value.setting == "delete.enabled"
            assert source.count("delete_tag") == 1

    run(test)


def test_a_failed_deletion_can_be_tried_again() -> None:
    async def test() -> None:
        source = three_tags_of_one_digest()
        async with mounted(source, writable=True) as kernel:
            source.fail(Unreachable("down"), "delete_tag", times=1)
            with pytest.raises(Unreachable):
                await kernel.rm("team/app/v1/manifest.json")
            await kernel.rm_r("team/app/v1")
            assert await kernel.ls("team/app") == ["v2", "v3"]

    run(test)
