"""Small content is at hand in memory, and on the disk a moment later; where there is no disk, memory does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from regfs.cache.fronted import FrontedStore
from regfs.digest import Digest
from tests.cache.hands import content, fetched, files, has, run

DATA = content(1, 5000)
DIGEST = Digest.of(DATA)


@asynccontextmanager
async def running(root: Path, limit: int = 1 << 26) -> AsyncIterator[FrontedStore]:
    """A store, at work for the length of a block."""
    async with trio.open_nursery() as nursery:
        store = FrontedStore(root, limit)
        nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()


def test_what_one_daemon_kept_a_later_one_has(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path / "cache") as store:
            await store.put(DIGEST, DATA)
            assert await store.get(DIGEST) == DATA
        async with running(tmp_path / "cache") as store:
            assert await store.get(DIGEST) == DATA

    run(test)


def test_putting_does_not_wait_for_the_disk_and_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        contents = [content(seed, 3000) for seed in range(50)]
        async with running(tmp_path / "cache") as store:
            for data in contents:
                await store.put(Digest.of(data), data)
            assert files(tmp_path / "cache", "content") == []
        assert len(files(tmp_path / "cache", "content")) == 50

    run(test)


def test_what_is_made_is_made_when_it_is_needed(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path / "cache") as store:
            await trio.sleep(0.05)
            assert not (tmp_path / "cache").exists()
            assert await store.get(DIGEST) is None

    run(test)


def test_without_a_disk_memory_does(tmp_path: Path) -> None:
    async def test() -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        for root, limit in ((tmp_path / "none", 0), (Path("/proc/nowhere"), 1 << 26), (shared, 1 << 26)):
            async with running(root, limit) as store:
                await store.put(DIGEST, DATA)
                assert await store.get(DIGEST) == DATA
                assert await store.open(DIGEST, len(DATA)) is None
                assert await store.download(DIGEST, len(DATA)) is None
        assert not (tmp_path / "none").exists()
        assert list(shared.iterdir()) == []

    run(test)


def test_blobs_go_through_to_the_disk(tmp_path: Path) -> None:
    async def test() -> None:
        data = content(2, 300_000)
        async with running(tmp_path / "cache") as store:
            await store.sweep()
            await fetched(store, data)  # type: ignore[arg-type]  # it has the same methods
            assert await has(store, data)  # type: ignore[arg-type]
            await store.put_derived(Digest.of(data), "index", 1, [b"an ", b"index"])
            found = await store.open_derived(Digest.of(data), "index", 1)
            assert found is not None
            assert await found.read(0, 100) == b"an index"
            await found.aclose()

    run(test)
