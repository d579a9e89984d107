"""A long listing is read while its later pages are still on their way."""

from __future__ import annotations

import pytest
import trio

from regfs.errors import ServerFailed
from regfs.testing.memory import Abilities, MemorySource
from tests.tree.kernel import Kernel, mounted, rooms, run


def many_tags(count: int = 100) -> MemorySource:
    source = MemorySource(abilities=Abilities(tags_per_page=10))
    source.push("team/app", [f"v{n:03}" for n in range(count)])
    return source


async def first_part(kernel: Kernel, path: str) -> tuple[int, list[str]]:
    """Open a folder and read what there is at once: the handle, and the names."""
    handle = await kernel.filesystem.opendir((await kernel.walk(path)).ino)
    return handle, [entry.name.decode() for entry in await kernel.filesystem.readdir(handle, 0)]


async def read_on(kernel: Kernel, handle: int, place: int) -> None:
    """Read an open folder from a place to its end."""
    while entries := list(await kernel.filesystem.readdir(handle, place)):
        place = entries[-1].next


def test_the_first_tags_are_read_before_the_last_have_come() -> None:
    async def test() -> None:
        source = many_tags()
        source.delay(1.0, "tags")
        async with mounted(source) as kernel:
            began = trio.current_time()
            handle, names = await first_part(kernel, "team/app")
            assert trio.current_time() - began < 3
            assert names[:10] == [f"v{n:03}" for n in range(10)]
            assert len(names) < 100
            kernel.filesystem.releasedir(handle)

    run(test)


def test_the_whole_listing_is_the_same_as_if_it_had_been_waited_for() -> None:
    async def test() -> None:
        source = many_tags()
        source.push("team/app/nested", "v1")
        source.push("team/app/v050", "x")
        source.delay(0.1, "tags")
        async with mounted(source) as kernel:
            slowly = await kernel.ls_l("team/app")
            again = await kernel.ls_l("team/app")
            assert [name for name, _ in slowly] == [f"v{n:03}" for n in range(100)] + ["nested", ".repos"]
            assert [(n, a.ino, a.time_ns, a.mode) for n, a in slowly] == [
                (n, a.ino, a.time_ns, a.mode) for n, a in again
            ]
            assert source.count("tags", "team/app") == 10

    run(test)


def test_each_entry_read_early_is_known_to_the_kernel_for_as_long_as_its_listing_holds() -> None:
    async def test() -> None:
        source = many_tags()
        source.delay(0.1, "tags")
        async with mounted(source, ttl=10) as kernel:
            early = (await kernel.ls_l("team/app"))[:10]
            assert all(9 < attributes.entry_timeout <= 10 for _, attributes in early)

    run(test)


def test_a_listing_that_fails_midway_is_an_error_and_not_a_short_listing() -> None:
    async def test() -> None:
        source = many_tags()
        source.delay(0.1, "tags")
        async with mounted(source) as kernel:
            handle, names = await first_part(kernel, "team/app")
            source.fail(ServerFailed("500"), "tags")
            with pytest.raises(ServerFailed):
                await read_on(kernel, handle, len(names))
            kernel.filesystem.releasedir(handle)
            assert "500" in kernel.filesystem.errors.lines()[-1]

    run(test)


def test_a_listing_slower_than_a_call_may_take_is_read_to_its_end_by_whoever_reads_along() -> None:
    async def test() -> None:
        source = many_tags()
        source.delay(5.0, "tags")
        async with mounted(source) as kernel:
            began = trio.current_time()
            assert len(await kernel.ls("team/app")) == 100
            assert trio.current_time() - began > 45
            assert source.count("tags", "team/app") == 10

    run(test)


def test_a_reader_that_leaves_early_leaves_nothing_behind() -> None:
    async def test() -> None:
        source = many_tags()
        source.delay(0.1, "tags")
        async with mounted(source) as kernel:
            handle, _ = await first_part(kernel, "team/app")
            kernel.filesystem.releasedir(handle)
            await trio.sleep(5)
            kernel.forget_all()
            assert len(kernel.filesystem._inodes) == 1

    run(test)


def test_a_tags_folder_is_never_taken_for_a_repository_that_bears_its_name() -> None:
    async def test() -> None:
        source = MemorySource(abilities=Abilities(tags_per_page=2))
        source.push("a", ["b", "c"])
        source.push("a/b", [f"v{n}" for n in range(9)])
        source.delay(0.5)
        async with mounted(source) as kernel:
            assert await kernel.ls("a/b") == ["manifest.json", "digest", "config.json", *rooms()]

    run(test)
