"""Layers over a registry and the cache on disk, as a mount has them: cold, later, evicted, damaged, broken off, wrong."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

import pytest
import trio

from regfs.cache.care import verify
from regfs.cache.disk import DiskStore
from regfs.errors import DigestMismatch
from regfs.image.layer import IndexedLayer, IndexedLayers
from regfs.ports import BlobStore
from regfs.tree.blobs import RegistryBlobs
from tests.image.hands import COMPRESSIONS, MIB, contents, run, tarred, whole
from tests.image.test_reading import words
from tests.tree.blob_source import BlobSource

FILES = {f"f{number}": words(number, 900_000) for number in range(12)}
WAYS = ["plain", "gzip", "zstd", "zstd, many frames"]


@lru_cache(maxsize=2)  # tests of one name run together
def packed(name: str) -> bytes:
    """These files in a layer."""
    return COMPRESSIONS[name](tarred(FILES))


@asynccontextmanager
async def mounted(source: BlobSource, store: BlobStore | None) -> AsyncIterator[IndexedLayer]:
    """The source's layer, as long as a mount lasts."""
    async with trio.open_nursery() as nursery:
        blobs = RegistryBlobs(source, store)  # type: ignore[arg-type]  # blobs are all it needs
        blobs.start(nursery)
        layers = IndexedLayers(blobs)
        layers.start(nursery)
        yield await layers.open("team/app", source.descriptor)
        nursery.cancel_scope.cancel()


async def all_right(opened: IndexedLayer) -> None:
    """Every file of it is what was written."""
    found = await contents(opened)
    assert {path.decode(): data for path, data in found.items()} == FILES


async def read_first(opened: IndexedLayer) -> bytes:
    """The first file, as soon as it is there."""
    return await whole(opened, (await opened.upto(1))[0])


async def indexed(root: Path) -> None:
    """Wait until the index is on disk."""
    while not list((root / "derived").glob("*.index.*")):  # noqa: ASYNC110 - nothing tells
        await trio.sleep(0.01)


def evict(root: Path, pattern: str) -> None:
    """Take files out of a cache, as another process would."""
    for path in root.glob(pattern):
        path.unlink()


@pytest.mark.parametrize("name", WAYS, scope="module")
@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["a cache", "no room"])
def test_a_layer_is_fetched_once_and_read_right(name: str, limit: int, tmp_path: Path) -> None:
    async def test() -> None:
        source = BlobSource(packed(name))
        async with mounted(source, DiskStore(tmp_path, limit)) as opened:
            await all_right(opened)
            assert opened.verified
        if limit:
            assert source.sent == len(packed(name))

    run(test)


@pytest.mark.parametrize("name", WAYS, scope="module")
def test_a_later_mount_asks_nothing_and_after_eviction_only_for_ranges(name: str, tmp_path: Path) -> None:
    async def test() -> None:
        source = BlobSource(packed(name))
        async with mounted(source, DiskStore(tmp_path, 1 << 30)) as opened:
            await opened.members()
            await indexed(tmp_path)
        sent = source.sent
        async with mounted(source, DiskStore(tmp_path, 1 << 30)) as opened:
            await all_right(opened)
        assert source.sent == sent
        evict(tmp_path, "content/*")
        async with mounted(source, DiskStore(tmp_path, 1 << 30)) as opened:
            members = {member.path: member for member in await opened.members()}
            assert source.sent == sent
            assert await whole(opened, members[b"f11"]) == FILES["f11"]
            await all_right(opened)
        evict(tmp_path, "derived/*.piece-*")
        evict(tmp_path, "content/*")
        async with mounted(source, DiskStore(tmp_path, 1 << 30)) as opened:
            await all_right(opened)
        assert [finding for finding in verify(tmp_path) if finding.fault] == []

    run(test)


@pytest.mark.parametrize("name", WAYS, scope="module")
def test_two_mounts_share_a_cache_that_is_too_small(name: str, tmp_path: Path) -> None:
    async def test() -> None:
        one, other = (
            BlobSource(packed(name)),
            BlobSource(COMPRESSIONS[name](tarred({"x": words(50, 7 * MIB)}))),
        )
        limit = len(packed(name)) + 3 * MIB

        async def read(source: BlobSource, seed: int) -> None:
            async with mounted(source, DiskStore(tmp_path, limit)) as opened:
                chance = random.Random(seed)
                members = list(await opened.members())
                for _ in range(25):
                    member = chance.choice(members)
                    start = chance.randrange(member.size)
                    written = FILES.get(member.path.decode()) or words(50, 7 * MIB)
                    assert await opened.read(member, start, 5000) == written[start : start + 5000]

        async with trio.open_nursery() as nursery:
            for seed in range(2):
                nursery.start_soon(read, one, seed)
                nursery.start_soon(read, other, seed)
        assert [finding for finding in verify(tmp_path) if finding.fault] == []

    run(test)


@pytest.mark.parametrize("name", WAYS, scope="module")
@pytest.mark.parametrize("way", ["broken off again and again", "ranges are not honoured"])
def test_a_registry_with_a_bad_road(name: str, way: str, tmp_path: Path) -> None:
    async def test() -> None:
        source = BlobSource(packed(name))
        if way == "ranges are not honoured":
            source.ranges = False
        else:
            source.cut_every = 400_000
        async with mounted(source, DiskStore(tmp_path, 1 << 30)) as opened:
            await all_right(opened)

    run(test)


@pytest.mark.parametrize("name", WAYS, scope="module")
@pytest.mark.parametrize("limit", [1 << 30, 0, None], ids=["a cache", "no room", "no cache"])
def test_a_wrong_layer_is_read_to_no_files_end_and_nothing_of_it_stays(
    name: str, limit: int | None, tmp_path: Path
) -> None:
    async def test() -> None:
        blob = packed(name)
        source = BlobSource(blob[:-2000] + bytes([blob[-2000] ^ 1]) + blob[-1999:])
        source.digest = BlobSource(blob).descriptor.digest
        store = None if limit is None else DiskStore(tmp_path, limit)
        async with mounted(source, store) as opened:
            with pytest.raises(DigestMismatch):
                await read_first(opened)
            assert not opened.verified
            with pytest.raises(DigestMismatch):
                await opened.members()
            source.data = blob
            await all_right(opened)
            assert opened.verified
        assert [finding for finding in verify(tmp_path) if finding.fault] == []

    run(test)


@pytest.mark.parametrize("name", WAYS, scope="module")
def test_content_that_is_damaged_on_disk_under_a_running_daemon_is_fetched_anew(
    name: str, tmp_path: Path
) -> None:
    async def test() -> None:
        source = BlobSource(packed(name))
        async with mounted(source, DiskStore(tmp_path, 1 << 30)) as opened:
            members = await opened.members()
            await indexed(tmp_path)
            for path in (tmp_path / "content").iterdir():
                with path.open("r+b") as file:
                    file.seek(len(packed(name)) // 4)
                    file.write(bytes(len(packed(name)) // 2))
            for member in members:
                assert await whole(opened, member) == FILES[member.path.decode()]

    run(test)
