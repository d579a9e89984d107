"""A disk that is full or read-only: reading goes on, with what is there and without keeping more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from regfs.cache.care import prune, usage
from regfs.cache.disk import DiskStore
from regfs.cache.fill import fill
from regfs.digest import Digest
from tests.cache.hands import MB, content, faults, fetched, files, has, run, source, whole
from tests.support.needs import need_root

LIMIT = 100 * MB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none", disk], capture_output=True
    )
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def occupy(disk: Path) -> Path:
    """Fill a disk to its last byte, with what is none of the cache's business."""
    other = disk / "other"
    with other.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return other


def test_on_a_full_disk_reading_goes_on_and_later_all_is_kept_again(small_disk: Path) -> None:
    async def test() -> None:
        root, kept, data = small_disk / "cache", content(1, 100_000), content(2, MB)
        store = DiskStore(root, LIMIT)
        await store.put(Digest.of(kept), kept)
        entry = await store.open(Digest.of(kept), len(kept))
        assert entry is not None
        other = occupy(small_disk)
        for n in range(10, 20):
            await store.put(Digest.of(content(n, 50_000)), content(n, 50_000))
            await store.put_derived(Digest.of(kept), "index", 1, [b"x" * 100_000])
        reading = await store.download(Digest.of(data), len(data))
        if reading is not None:
            async with trio.open_nursery() as nursery:
                writer = reading.claim()
                assert writer is not None
                nursery.start_soon(fill, writer, source(data))
                assert await whole(reading) is None
            await reading.aclose()
        assert await whole(entry) == kept
        await entry.aclose()
        assert faults(root) == []
        assert [path.name for path in files(root, "partial") if path.name.startswith("tmp-")] == []
        other.unlink()
        await fetched(store, data)
        assert await has(store, data)

    run(test)


def test_on_a_disk_that_others_filled_what_is_new_takes_the_place_of_what_is_old(small_disk: Path) -> None:
    async def test() -> None:
        root = small_disk / "cache"
        store = DiskStore(root, LIMIT)
        for n in range(4):
            await store.put(Digest.of(content(n, 500_000)), content(n, 500_000))
        occupy(small_disk)
        await store.put(Digest.of(content(9, 400_000)), content(9, 400_000))
        assert await has(store, content(9, 400_000))
        assert not await has(store, content(0, 500_000))
        await fetched(store, content(8, 300_000))
        assert await has(store, content(8, 300_000))
        assert faults(root) == []

    run(test)


def test_a_read_only_cache_is_read_and_nothing_fails(small_disk: Path) -> None:
    async def test() -> None:
        root, kept, data = small_disk / "cache", content(3, 100_000), content(4, 100_000)
        await DiskStore(root, LIMIT).put(Digest.of(kept), kept)
        await DiskStore(root, LIMIT).put_derived(Digest.of(kept), "index", 1, [b"derived"])
        await trio.to_thread.run_sync(
            lambda: subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        )
        store = DiskStore(root, LIMIT)
        await store.sweep()
        assert await store.get(Digest.of(kept)) == kept
        assert await has(store, kept)
        derived = await store.open_derived(Digest.of(kept), "index", 1)
        assert derived is not None
        assert await derived.read(0, 100) == b"derived"
        await derived.aclose()
        await store.put(Digest.of(data), data)
        await store.put_derived(Digest.of(data), "index", 1, [b"x"])
        assert await store.download(Digest.of(data), len(data)) is None
        assert await store.get(Digest.of(data)) is None
        assert faults(root) == []
        assert usage(root)["content"].files == 1
        with pytest.raises(OSError, match="Read-only"):
            prune(root, LIMIT, 0)

    run(test)


def test_where_the_folder_cannot_be_made_nothing_fails(tmp_path: Path) -> None:
    async def test() -> None:
        files_place = tmp_path / "file"
        await trio.Path(files_place).write_bytes(b"")
        store = DiskStore(files_place / "cache", LIMIT)
        await store.sweep()
        await store.put(Digest.of(b"x"), b"x")
        assert await store.get(Digest.of(b"x")) is None
        assert await store.open(Digest.of(b"x"), 1) is None
        assert await store.download(Digest.of(b"x"), 1) is None

    run(test)
