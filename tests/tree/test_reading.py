"""What a user may rely on when reading, and what each question costs."""

from __future__ import annotations

import json

import pytest
import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    DeadlineExceeded,
    DigestMismatch,
    ListingRefused,
    ModeForbids,
    NotARegistry,
    NotFound,
    ReadOnly,
    RegfsError,
    ServerFailed,
    TooLarge,
    Unreachable,
)
from regfs.manifest import Platform
from regfs.ports import RawManifest
from regfs.testing.images import DEFAULT_CREATED, make_image, make_index
from regfs.testing.memory import Abilities, MemorySource
from regfs.tree.attributes import Kind
from tests.tree.kernel import mounted, rooms, run


def asked(source: MemorySource) -> list[tuple[str, str, str]]:
    """What was asked of the registry, in order."""
    return [(call.method, call.repository, call.reference) for call in source.calls]


def source_with(*references: str, abilities: Abilities | None = None) -> MemorySource:
    """A registry that holds an image for each ``repository:tag``."""
    source = MemorySource(abilities=abilities)
    for reference in references:
        repository, _, tag = reference.partition(":")
        source.push(repository, tag)
    return source


def test_reading_a_manifest_by_its_path_costs_one_request() -> None:
    async def test() -> None:
        source = source_with("team/app:v1")
        async with mounted(source) as kernel:
            raw = await kernel.cat("team/app/v1/manifest.json")
            assert json.loads(raw)["schemaVersion"] == 2
            assert asked(source) == [("manifest", "team/app", "v1")]
            digest = (await kernel.cat("team/app/v1/digest")).decode().strip()
            assert Digest.of(raw) == Digest.parse(digest)
            assert len(source.calls) == 1

    run(test)


def test_a_tag_lists_its_manifest_first() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source) as kernel:
            assert await kernel.ls("app/v1") == ["manifest.json", "digest", "config.json", *rooms()]

    run(test)


def test_config_json_has_the_configs_exact_bytes() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("app", "v1")
        async with mounted(source) as kernel:
            assert await kernel.cat("app/v1/config.json") == image.config.raw
            assert (await kernel.stat("app/v1/config.json")).size == len(image.config.raw)

    run(test)


def test_listing_a_repository_costs_its_tag_pages_and_the_catalog_once() -> None:
    async def test() -> None:
        source = MemorySource(abilities=Abilities(tags_per_page=10))
        source.push("team/app", [f"v{n}" for n in range(95)])
        async with mounted(source) as kernel:
            assert len(await kernel.ls_l("team/app")) == 95
            assert source.count("tags") == 10
            assert source.count("repositories") == 1
            assert len(source.calls) == 11
            await kernel.ls_l("team/app")
            assert len(source.calls) == 11

    run(test)


@pytest.mark.parametrize("path", ["nosuch", "team/nosuch", "team/app/nosuch", "team/app/v1/nosuch"])
def test_an_absent_name_is_not_there_and_leaves_no_trace(path: str) -> None:
    async def test() -> None:
        source = source_with("team/app:v1")
        async with mounted(source) as kernel:
            assert not await kernel.exists(path)
            with pytest.raises(NotFound):
                await kernel.ls(path)
            assert await kernel.ls() == ["team"]
            assert await kernel.ls("team") == ["app"]
            assert await kernel.ls("team/app") == ["v1"]

    run(test)


@pytest.mark.parametrize(
    "path",
    [".Trash-0", ".git", "Team/app", "a:b:c", "team/app/v1/x y", "x" * 300, "autorun.inf", "\N{SNOWMAN}"],
)
def test_a_name_that_no_registry_can_have_is_never_asked_for(path: str) -> None:
    async def test() -> None:
        source = source_with("team/app:v1")
        async with mounted(source) as kernel:
            with pytest.raises(NotFound):
                await kernel.stat(path)
            assert not [
                call for call in source.calls if call.reference != "v1" and call.method != "repositories"
            ]

    run(test)


@pytest.mark.parametrize("settle", [False, True])
def test_names_that_a_tag_has_serve_as_repositories_and_tags_too(settle: bool) -> None:
    async def test() -> None:
        source = source_with(
            "a/b/oci:v1", "digest:v1", "a/manifest.json:config.json", "app:manifest.json", "a:b"
        )
        async with mounted(source, settle_at_lookup=settle) as kernel:
            for path in ("digest/v1", "a/manifest.json/config.json", "app/manifest.json"):
                assert await kernel.cat(f"{path}/manifest.json")
                assert "manifest.json" in await kernel.ls(path)
            assert sorted(await kernel.ls()) == ["a", "app", "digest"]

    run(test)


def test_a_repository_called_oci_below_another_is_found() -> None:
    async def test() -> None:
        source = source_with("a/b/oci:v1")
        async with mounted(source) as kernel:
            assert await kernel.cat("a/b/oci/v1/manifest.json")
        async with mounted(source) as kernel:
            assert await kernel.ls("a/b") == ["oci"]
            assert await kernel.ls("a/b/oci") == ["v1"]

    run(test)


def test_a_tag_wins_over_a_nested_repository_and_repos_holds_the_other() -> None:
    async def test() -> None:
        source = source_with("a:b", "a/b:v1", "a:c")
        async with mounted(source) as kernel:
            assert sorted(await kernel.ls("a")) == [".repos", "b", "c"]
            assert "manifest.json" in await kernel.ls("a/b")
            assert await kernel.ls("a/.repos") == ["b"]
            assert await kernel.ls("a/.repos/b") == ["v1"]
            assert await kernel.cat("a/.repos/b/v1/digest") != await kernel.cat("a/b/digest")
            assert await kernel.cat("a/.tags/b/digest") == await kernel.cat("a/b/digest")

    run(test)


def test_any_manifest_of_a_repository_is_found_by_its_digest() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("app", "v1")
        other = source.push_image("other", "v1")
        async with mounted(source) as kernel:
            folder = f"app/.digests/{image.digest.file_name}"
            assert await kernel.cat(f"{folder}/manifest.json") == image.manifest.raw
            assert await kernel.ls(folder) == ["manifest.json", "digest", "config.json", *rooms()]
            assert asked(source) == [("manifest", "app", str(image.digest))]
            await kernel.cat("other/v1/manifest.json")
            assert not await kernel.exists(f"app/.digests/{other.digest.file_name}")
            assert not await kernel.exists(f"nosuch/.digests/{image.digest.file_name}")

    run(test)


def test_an_index_shows_its_platforms_as_links_to_digests() -> None:
    async def test() -> None:
        source = MemorySource()
        index = make_index()
        source.push("team/app", "v1", index)
        async with mounted(source) as kernel:
            names = await kernel.ls("team/app/v1")
            assert names[:2] == ["manifest.json", "digest"]
            assert names[-1] == "platforms"
            asked_before = len(source.calls)
            platforms = await kernel.ls_l("team/app/v1/platforms")
            assert all(attributes.kind is Kind.LINK for _, attributes in platforms)
            assert len(source.calls) == asked_before
            for name, _ in platforms:
                assert json.loads(await kernel.cat(f"team/app/v1/platforms/{name}/manifest.json"))["config"]
                tags = await kernel.cat(f"team/app/.tags/v1/platforms/{name}/digest")
                digests = f"team/app/.digests/{index.digest.file_name}/platforms/{name}/digest"
                assert tags == await kernel.cat(digests)

    run(test)


def test_listing_an_index_fetches_no_platforms_manifest_until_its_size_is_asked() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", "v1", make_index())
        async with mounted(source) as kernel:
            assert "config.json" in await kernel.ls("app/v1")
            assert source.count("manifest") == 1
            config = await kernel.stat("app/v1/config.json")
            assert source.count("manifest") == 2
            assert config.size == len(await kernel.cat("app/v1/config.json"))

    run(test)


def test_a_pasted_reference_resolves_as_a_link_and_is_not_listed() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("team/app", "v1")
        async with mounted(source) as kernel:
            raw = await kernel.cat("team/app:v1/manifest.json")
            assert raw == image.manifest.raw
            assert raw == await kernel.cat(f"team/app@{image.digest}/manifest.json")
            assert await kernel.ls("team") == ["app"]

    run(test)


def test_a_hundred_readers_of_one_cold_manifest_cause_one_request() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        source.delay(1.0)
        async with mounted(source) as kernel, trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(kernel.cat, "app/v1/manifest.json")
        assert len(source.calls) == 1

    run(test)


def test_a_moved_tag_is_seen_within_the_limit_and_an_open_file_shows_one_version() -> None:
    async def test() -> None:
        source = MemorySource()
        first = source.push_image("app", "v1")
        async with mounted(source, ttl=10) as kernel:
            opened = await kernel.walk("app/v1/manifest.json")
            handle = (await kernel.filesystem.open(opened.ino, False)).handle
            second = source.push_image("app", "v1", make_image("second"))
            assert await kernel.cat("app/v1/manifest.json") == first.manifest.raw
            await trio.sleep(10.1)
            assert await kernel.cat("app/v1/manifest.json") == second.manifest.raw
            assert await kernel.filesystem.read(handle, 0, 99999) == first.manifest.raw
            assert (await kernel.walk("app/v1/manifest.json")).ino != opened.ino

    run(test)


def test_a_pushed_tag_and_repository_are_listed_within_the_limit() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source, ttl=10) as kernel:
            assert await kernel.ls("app") == ["v1"]
            source.push("app", "v2")
            source.push("new", "v1")
            await trio.sleep(10.1)
            assert await kernel.ls("app") == ["v1", "v2"]
            assert await kernel.ls() == ["app", "new"]

    run(test)


def test_refresh_shows_at_once_what_was_pushed() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source, ttl=1000) as kernel:
            await kernel.ls("app")
            source.push("app", "v2")
            assert await kernel.ls("app") == ["v1"]
            length, value = [await kernel.xattr("app", "user.regfs.refresh") for _ in range(2)]
            assert length == value
            assert int(value) >= 1
            assert await kernel.ls("app") == ["v1", "v2"]

    run(test)


def test_an_absent_name_is_remembered_for_the_limit_and_no_longer() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source, ttl=10) as kernel:
            assert not await kernel.exists("app/v2")
            before = len(source.calls)
            assert not await kernel.exists("app/v2")
            assert len(source.calls) == before
            source.push("app", "v2")
            await trio.sleep(10.1)
            assert await kernel.exists("app/v2")

    run(test)


def test_a_listing_in_use_is_renewed_before_readers_have_to_wait() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source, ttl=10) as kernel:
            await kernel.ls("app")
            await trio.sleep(8)
            before = source.count("tags")
            await kernel.ls("app")
            await trio.sleep(0.1)
            assert source.count("tags") == before + 1

    run(test)


def test_a_slow_catalog_delays_a_repositorys_listing_two_seconds_and_marks_it_partial() -> None:
    async def test() -> None:
        source = source_with("app:v1", "app/nested:v1")
        source.delay(10, "repositories")
        async with mounted(source) as kernel:
            inode = (await kernel.stat("app")).ino
            began = trio.current_time()
            assert await kernel.ls("app") == ["v1"]
            assert trio.current_time() - began <= 2.1
            assert await kernel.filesystem.getxattr(inode, b"user.regfs.partial") == b"1"
            await trio.sleep(10)
            assert await kernel.ls("app") == ["v1", "nested"]
            assert "shown in part" in kernel.filesystem.errors.lines()[0]

    run(test)


def test_a_catalog_that_may_not_be_listed_is_walkable_by_name() -> None:
    for writable in (False, True):

        async def test(writable: bool = writable) -> None:
            source = source_with("library/app:v1", abilities=Abilities(listing_refused=True))
            async with mounted(source, writable=writable) as kernel:
                with pytest.raises(ListingRefused):
                    await kernel.ls()
                assert (await kernel.stat("library")).mode == 0o111
                with pytest.raises(RegfsError):
                    await kernel.ls("library")
                assert await kernel.cat("library/app/v1/manifest.json")
                assert not await kernel.exists("library/app/typo")
                with pytest.raises(NotFound):
                    await kernel.cat("library/app/typo/manifest.json")
                assert await kernel.ls() == ["library"]
                assert await kernel.ls("library") == ["app"]

        run(test)


@pytest.mark.parametrize("error", [Unreachable("gone", registry="r"), NotARegistry("rubbish", registry="r")])
def test_where_the_registry_is_gone_a_listing_is_that_error_whatever_was_walked_to(error: RegfsError) -> None:
    async def test() -> None:
        source = source_with("team/app:v1", "other/lib:v1")
        async with mounted(source) as kernel:
            assert await kernel.cat("team/app/v1/manifest.json")
            assert sorted(await kernel.ls()) == ["other", "team"]
            await trio.sleep(120)
            source.fail(error)
            with pytest.raises(type(error)):
                await kernel.ls()
            source.clear()
            await trio.sleep(120)
            assert sorted(await kernel.ls()) == ["other", "team"]

    run(test)


def test_a_typo_below_a_repository_is_absent_where_no_catalog_can_be_had() -> None:
    async def test() -> None:
        source = source_with("library/app:v1", abilities=Abilities(listing_refused=True))
        async with mounted(source) as kernel:
            with pytest.raises(NotFound):
                await kernel.cat("library/app/typo/manifest.json")
            assert not await kernel.exists("library/app/typo")

    run(test)


def test_configured_namespaces_are_listed_where_the_registry_does_not_list() -> None:
    async def test() -> None:
        source = source_with("library/app:v1", abilities=Abilities(listing_refused=True))
        connection = Connection("memory", "memory.test", namespaces=("library", "team/tools"))
        async with mounted(source, connection) as kernel:
            assert sorted(await kernel.ls()) == ["library", "team"]
            assert await kernel.ls("team") == ["tools"]

    run(test)


def test_a_fence_hides_what_is_outside_it_without_a_request() -> None:
    async def test() -> None:
        source = source_with("team/app:v1", "team/tool:v1", "other/app:v1")
        connection = Connection("memory", "memory.test", only=("team/*",))
        async with mounted(source, connection) as kernel:
            assert not await kernel.exists("other")
            with pytest.raises(NotFound):
                await kernel.cat("other/app/v1/manifest.json")
            assert source.calls == []
            assert await kernel.ls() == ["team"]
            assert await kernel.ls("team") == ["app", "tool"]

    run(test)


def test_a_tag_is_found_though_the_registry_fails_on_repositories_that_are_not_there() -> None:
    async def test() -> None:
        source = source_with("team/app:v1")
        source.fail(ServerFailed("500"), "tags", "team/app/v1")
        async with mounted(source) as kernel:
            assert await kernel.exists("team/app/v1")
            source.fail(ServerFailed("500"), "tags", "team/app/v2")
            with pytest.raises(ServerFailed):
                await kernel.stat("team/app/v2")

    run(test)


def test_a_namespace_that_was_seen_by_a_name_in_it_is_believed_no_longer_than_a_listing() -> None:
    async def test() -> None:
        source = source_with("team/app:v1", "other:v1")
        async with mounted(source, ttl=10) as kernel:
            assert await kernel.cat("team/app/v1/manifest.json")
            assert await kernel.exists("team")
            assert source.count("repositories") == 0
            del source._repositories["team/app"]
            await trio.sleep(11)
            assert not await kernel.exists("team")

    run(test)


def test_a_walking_reader_finds_the_next_manifests_fetched_ahead_and_nothing_is_asked_twice() -> None:
    async def test() -> None:
        source = MemorySource()
        for repository in range(20):
            source.push(f"bench/r{repository:02}", [f"t{tag}" for tag in range(5)])
        source.delay(0.02)
        async with mounted(source) as kernel:
            began = trio.current_time()
            paths = [path async for path in kernel.find() if path.endswith("manifest.json")]
            took = trio.current_time() - began
            assert len(paths) == 100
            assert source.count("manifest") == 100
            assert source.count("tags") == 20
            assert source.max_in_flight >= 8
            assert took < 120 * 0.02 / 4

    run(test)


def test_a_reader_that_walks_in_sorted_order_is_served_ahead_too() -> None:
    async def test() -> None:
        source = MemorySource()
        tags = [f"t{n:02}" for n in range(40)]
        source.push("app", sorted(tags, key=lambda tag: tag[::-1]))
        source.delay(0.02)
        async with mounted(source) as kernel:
            assert await kernel.ls("app") != tags
            began = trio.current_time()
            for tag in tags:
                await kernel.cat(f"app/{tag}/manifest.json")
            assert source.count("manifest") == 40
            assert trio.current_time() - began < 40 * 0.02 / 4

    run(test)


def test_listing_repositories_one_after_another_fetches_no_manifest() -> None:
    async def test() -> None:
        source = MemorySource()
        for repository in range(40):
            source.push(f"r{repository:02}", ["v1", "v2"])
        async with mounted(source) as kernel:
            for name in await kernel.ls():
                await kernel.ls(name)
            assert source.count("manifest") == 0
            assert source.count("tags") == 40

    run(test)


def test_nothing_is_fetched_ahead_of_a_metered_registry_and_stat_costs_no_manifest() -> None:
    async def test() -> None:
        source = MemorySource(abilities=Abilities(metered=True))
        source.push("app", [f"v{n}" for n in range(10)])
        async with mounted(source) as kernel:
            for tag in await kernel.ls("app"):
                await kernel.stat(f"app/{tag}")
            assert source.count("manifest") == 0
            await kernel.cat("app/v1/manifest.json")
            await kernel.cat("app/v1/manifest.json")
            await kernel.cat("app/v2/manifest.json")
            assert source.count("manifest") == 1

    run(test)


def test_a_manifest_that_is_not_what_its_digest_says_is_not_shown() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("app", "v1")
        lie = RawManifest(make_image("lie").manifest.raw, image.manifest.media_type, image.digest)
        source.answer("app", image.digest, lie)
        async with mounted(source) as kernel:
            with pytest.raises(DigestMismatch):
                await kernel.cat("app/v1/manifest.json")
            with pytest.raises(DigestMismatch):
                await kernel.cat(f"app/.digests/{image.digest.file_name}/manifest.json")
            assert "app/v1/manifest.json" in kernel.filesystem.errors.lines()[0]

    run(test)


def test_a_config_that_is_not_what_its_digest_says_is_not_shown() -> None:
    async def test() -> None:
        for wrong in (b"x", b""):
            source = MemorySource()
            image = source.push_image("app", "v1")
            same_size = bytes(len(image.config.raw))
            source.corrupt_blob("app", image.config.digest, wrong or same_size)
            async with mounted(source) as kernel:
                with pytest.raises(RegfsError):
                    await kernel.cat("app/v1/config.json")

    run(test)


def test_a_manifest_beyond_the_limit_is_refused() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("app", "v1")
        source.answer("app", image.digest, RawManifest(b" " * 5_000_000, image.manifest.media_type))
        async with mounted(source) as kernel:
            with pytest.raises(TooLarge):
                await kernel.cat("app/v1/manifest.json")

    run(test)


def test_a_call_ends_within_its_deadline_and_leaves_a_line_that_says_what_to_do() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        source.hold()
        async with mounted(source) as kernel:
            began = trio.current_time()
            for ask in (kernel.cat("app/v1/manifest.json"), kernel.ls("app"), kernel.ls()):
                with pytest.raises(DeadlineExceeded):
                    await ask
            assert trio.current_time() - began <= 95
            assert all("→" in line for line in kernel.filesystem.errors.lines())
            assert await kernel.filesystem.getattr(1)

    run(test)


def test_a_registry_that_comes_back_serves_again() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source) as kernel:
            source.fail(Unreachable("down"))
            for path in ("", "app"):
                with pytest.raises(Unreachable):
                    await kernel.ls(path)
            source.clear()
            assert await kernel.ls("app") == ["v1"]
            assert await kernel.ls() == ["app"]

    run(test)


def test_names_outside_the_grammar_are_dropped_and_counted() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", ["v1", "../etc", "a/b", "x" * 200, "", "sha256-" + "a" * 64])
        source.push("Bad/Name", "v1")
        async with mounted(source) as kernel:
            assert await kernel.ls() == ["app"]
            assert await kernel.ls("app") == ["v1"]
            status = kernel.filesystem.status()
            assert status["registries"][0]["dropped_names"] == 5  # type: ignore[index]

    run(test)


def test_a_tags_time_is_the_images_where_that_is_free_and_else_when_it_was_first_seen() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source) as kernel:
            seen = dict(await kernel.ls_l("app"))["v1"].time_ns
            await trio.sleep(3)
            source.push("app", "v2")
            await trio.sleep(8)
            later = dict(await kernel.ls_l("app"))
            assert later["v1"].time_ns == seen
            assert later["v2"].time_ns >= seen + 10 * 10**9
            await kernel.cat("app/v1/config.json")
            shown = (await kernel.stat("app/v1")).time_ns
            await trio.sleep(30)
            assert (await kernel.stat("app/v1")).time_ns == shown

    run(test)


@pytest.mark.parametrize("settle_at_lookup", [False, True])
def test_a_tags_time_is_the_images_once_its_config_was_read_and_no_time_shown_before(
    settle_at_lookup: bool,
) -> None:
    async def test() -> None:
        source = source_with("app:v1", "app:v2")
        async with mounted(source, settle_at_lookup=settle_at_lookup) as kernel:
            await kernel.ls("app")
            await kernel.cat("app/v1/config.json")
            made = int(DEFAULT_CREATED.timestamp() * 1e9)
            for path in ("app/v1", "app/v1/config.json", "app/v1/manifest.json", "app/.tags/v1"):
                assert (await kernel.stat(path)).time_ns == made
            assert dict(await kernel.ls_l("app"))["v1"].time_ns == made
            seen = (await kernel.stat("app/v2/config.json")).time_ns
            await kernel.cat("app/v2/config.json")
            assert (await kernel.stat("app/v2")).time_ns == seen > made

    run(test)


def test_a_folder_known_in_part_is_told_of_once_a_minute_and_pushes_no_failure_out_of_the_log() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        source.fail(ListingRefused("not for you"), "repositories")
        async with mounted(source) as kernel:
            log = kernel.filesystem.errors
            for _ in range(10):
                await kernel.ls("app")
            assert [line for line in log.lines() if "app: shown in part" in line] == log.lines()[-1:]
            await trio.sleep(61)
            await kernel.ls("app")
            assert sum("app: shown in part" in line for line in log.lines()) == 2

    run(test)


def test_access_is_what_the_mode_says() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        source.fail(ListingRefused("not for you"), "repositories")
        async with mounted(source) as kernel:
            access = kernel.filesystem.access
            file, tag = (await kernel.walk("app/v1/digest")).ino, (await kernel.walk("app/v1")).ino
            await access(file, 4)
            await access(tag, 5)
            with pytest.raises(ModeForbids):
                await access(file, 1)
            unknown = (await kernel.walk("library")).ino
            await access(unknown, 1)
            with pytest.raises(ModeForbids):
                await access(unknown, 4)
            for ino in (file, tag, unknown):
                with pytest.raises(ReadOnly):
                    await access(ino, 2)

    run(test)


def test_extended_attributes_tell_digest_type_and_size() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("team/app", "v1")
        async with mounted(source) as kernel:
            for path in ("team/app/v1", "team/app/v1/manifest.json", "team/app/.tags/v1"):
                assert await kernel.xattr(path, "user.oci.digest") == str(image.digest)
                assert await kernel.xattr(path, "user.oci.mediatype") == image.manifest.media_type
                assert await kernel.xattr(path, "user.oci.size") == str(len(image.manifest.raw))
            config = await kernel.xattr("team/app/v1/config.json", "user.oci.digest")
            assert config == str(image.config.digest)
            assert await kernel.xattr("team/app/v1", "user.regfs.reference") == "memory.test/team/app:v1"

    run(test)


def test_the_descriptor_of_a_listed_tag_needs_no_request_to_be_named() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source) as kernel:
            inode = dict(await kernel.ls_l("app"))["v1"].ino
            before = len(source.calls)
            assert b"user.oci.digest" in await kernel.filesystem.listxattr(inode)
            assert len(source.calls) == before

    run(test)


def test_the_own_folder_is_found_by_name_and_in_no_listing() -> None:
    async def test() -> None:
        source = source_with("app:v1")
        async with mounted(source) as kernel:
            assert await kernel.ls() == ["app"]
            assert await kernel.ls(".regfs") == ["README", "status.json", "errors", "metrics"]
            status = json.loads(await kernel.cat(".regfs/status.json"))
            assert status["registries"][0]["address"] == "memory.test"
            assert b"regfs_" in await kernel.cat(".regfs/metrics")
            assert (await kernel.stat(".regfs")).mode == 0o700

    run(test)


def test_inodes_are_let_go_when_the_kernel_forgets_and_are_found_again() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("app", [f"v{n}" for n in range(500)])
        async with mounted(source) as kernel:
            await kernel.ls("app")
            assert len(kernel.filesystem._inodes) > 500
            kernel.forget_all()
            assert len(kernel.filesystem._inodes) == 1
            assert len(await kernel.ls("app")) == 500

    run(test)


def test_an_index_without_the_hosts_platform_has_no_config_json() -> None:
    async def test() -> None:
        source = MemorySource()
        index = make_index([make_image("s390", platform=Platform("linux", "s390x"))])
        source.push("app", "v1", index)
        async with mounted(source) as kernel:
            names = ["manifest.json", "digest", *rooms(image=False), "platforms"]
            assert await kernel.ls("app/v1") == names
            assert not await kernel.exists("app/v1/config.json")

    run(test)
