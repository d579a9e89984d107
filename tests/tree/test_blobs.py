"""Blobs: one download for all who read, at any place, in any order; what is wrong is never taken for right."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from regfs.cache.care import verify
from regfs.cache.disk import DiskStore
from regfs.digest import Digest
from regfs.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    DigestMismatch,
    Forbidden,
    NotFound,
    RegfsError,
    Unsupported,
)
from regfs.manifest import Descriptor
from regfs.ports import BlobStore, ContentReader
from regfs.tree.blobs import RegistryBlobs
from tests.tree.blob_source import KB, MB, BlobSource, content

DATA = content(1, 3 * MB + 17)


@pytest.fixture(params=["store", "no store", "a store without room"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore | None:
    """Where blobs are kept: on disk, nowhere, or on a disk that takes nothing."""
    limits = {"store": 1 << 30, "a store without room": 0}
    return DiskStore(tmp_path / "cache", limits[request.param]) if request.param in limits else None


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    """A store on disk."""
    return DiskStore(tmp_path / "cache", 1 << 30)


@asynccontextmanager
async def blobs_of(
    source: BlobSource, store: BlobStore | None, stall: float = 30.0
) -> AsyncIterator[RegistryBlobs]:
    async with trio.open_nursery() as nursery:
        blobs = RegistryBlobs(source, store, stall=stall)  # type: ignore[arg-type]  # blobs are all it needs
        blobs.start(nursery)
        yield blobs
        nursery.cancel_scope.cancel()


async def whole(reader: ContentReader, piece: int = 128 * KB, start: int = 0) -> bytes:
    data = bytearray()
    while chunk := await reader.read(start + len(data), piece):
        data += chunk
    return bytes(data)


async def read_all(blobs: RegistryBlobs, source: BlobSource, repository: str = "team/app") -> bytes:
    reader = await blobs.open(repository, source.descriptor)
    try:
        return await whole(reader)
    finally:
        await reader.aclose()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """With the real clock: a store works in threads, which trio's test clock does not see."""

    async def limited() -> None:
        with trio.fail_after(60):
            await test()

    trio.run(limited)


# ── one download for all ─────────────────────────────────────────────────────────────────────────


def test_a_blob_read_to_its_end_is_its_bytes_and_is_verified(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA)
        async with blobs_of(source, store) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert source.asked == []
            assert await whole(reader) == DATA
            assert reader.verified
            await reader.aclose()
        assert source.asked == [(0, len(DATA))]

    run(test)


def test_however_many_read_at_once_it_is_fetched_once(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA, pause=0.001)
        async with blobs_of(source, store) as blobs:
            results: list[bytes] = []

            async def one() -> None:
                results.append(await read_all(blobs, source))

            async with trio.open_nursery() as nursery:
                for _ in range(12):
                    nursery.start_soon(one)
            assert results == [DATA] * 12
        assert source.asked == [(0, len(DATA))]
        assert source.sent == len(DATA)

    run(test)


def test_the_first_byte_does_not_wait_for_the_last(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA, stop_at=256 * KB)
        async with blobs_of(source, store) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert await reader.read(0, 100) == DATA[:100]
            assert not reader.verified
            source.go_on.set()
            await reader.aclose()

    run(test)


def test_a_reader_that_is_cancelled_does_not_stop_the_others(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA, pause=0.003)
        async with blobs_of(source, store) as blobs:
            async with trio.open_nursery() as nursery:
                result: list[bytes] = []

                async def stays() -> None:
                    result.append(await read_all(blobs, source))

                async def goes() -> None:
                    with trio.move_on_after(0.02):
                        await read_all(blobs, source)

                nursery.start_soon(goes)
                nursery.start_soon(stays)
            assert result == [DATA]

    run(test)


def test_with_the_last_reader_the_download_stops_and_is_taken_up_later(disk: DiskStore) -> None:
    async def test() -> None:
        source = BlobSource(DATA, pause=0.005)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            await reader.read(MB, 10)
            await reader.aclose()
            with trio.fail_after(2):
                await source.closed.wait()
            assert source.sent < len(DATA)
            assert await read_all(blobs, source) == DATA
        assert source.asked[1][0] >= MB

    run(test)


def test_no_more_than_a_few_blobs_are_downloaded_at_once(disk: DiskStore) -> None:
    async def test() -> None:
        source = BlobSource(DATA, pause=0.002)
        async with blobs_of(source, disk) as blobs:
            others = [Descriptor("x", Digest.of(bytes([n])), len(DATA)) for n in range(20)]

            async def one(descriptor: Descriptor) -> None:
                reader = await blobs.open("team/app", descriptor)
                await reader.read(0, 10)
                await reader.aclose()

            async with trio.open_nursery() as nursery:
                for descriptor in others:
                    nursery.start_soon(one, descriptor)
        assert source.max_open <= 8

    run(test)


# ── at any place ─────────────────────────────────────────────────────────────────────────────────


def test_ranges_in_any_order_are_the_blobs_bytes(store: BlobStore | None) -> None:
    async def test() -> None:
        data = content(2, 12 * MB + 5)
        source = BlobSource(data)
        chance = random.Random(3)
        async with blobs_of(source, store) as blobs:

            async def reads() -> None:
                reader = await blobs.open("team/app", source.descriptor)
                for _ in range(25):
                    start = chance.randrange(len(data))
                    length = chance.choice([1, 4 * KB, 128 * KB, 2 * MB])
                    assert await reader.read(start, length) == data[start : start + length]
                await reader.aclose()

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(reads)

    run(test)


def test_a_reader_far_ahead_is_served_by_a_range_and_nothing_else_is_fetched(disk: DiskStore) -> None:
    async def test() -> None:
        data = content(4, 24 * MB)
        source = BlobSource(data)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert await reader.read(20 * MB, 1000) == data[20 * MB : 20 * MB + 1000]
            assert await reader.read(20 * MB + 1000, 1000) == data[20 * MB + 1000 : 20 * MB + 2000]
            assert not reader.verified
            await reader.aclose()
        assert source.asked == [(20 * MB, 20 * MB + 128 * KB)]

    run(test)


def test_a_registry_that_ignores_ranges_is_read_on(disk: DiskStore) -> None:
    async def test() -> None:
        data = content(5, 16 * MB)
        source = BlobSource(data, ranges=False)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            for start in (12 * MB, 9 * MB, 15 * MB):
                assert await reader.read(start, 5000) == data[start : start + 5000]
            assert await whole(reader) == data
            await reader.aclose()
        assert len(source.asked) == 2
        assert source.sent < 18 * MB, "the answer to the range is not read"

    run(test)


def test_no_range_reaches_past_the_end(store: BlobStore | None) -> None:
    async def test() -> None:
        data = content(6, 9 * MB + 3)
        source = BlobSource(data)
        async with blobs_of(source, store) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert await reader.read(len(data) - 5, 128 * KB) == data[-5:]
            assert await reader.read(len(data), 10) == b""
            assert await reader.read(len(data) + 10, 10) == b""
            await reader.aclose()

    run(test)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


def test_a_download_that_is_broken_off_goes_on_where_it_was(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA, cut_every=MB)
        async with blobs_of(source, store) as blobs:
            assert await read_all(blobs, source) == DATA
        assert [start for start, _ in source.asked] == [0, MB, 2 * MB, 3 * MB]

    run(test)


def test_what_brings_nothing_again_and_again_is_an_error(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA, cut_every=0)
        async with blobs_of(source, store) as blobs:
            with pytest.raises(ConnectionFailed):
                await read_all(blobs, source)
            source.cut_every = None
            assert await read_all(blobs, source) == DATA

    run(test)


def test_a_blob_that_stands_still_is_an_error_in_time(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA, stop_at=MB, pause=0.005)
        async with blobs_of(source, store, stall=0.5) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert await reader.read(0, 100) == DATA[:100]
            begun = trio.current_time()
            with pytest.raises(DeadlineExceeded):
                await reader.read(2 * MB, 100)
            assert 0.4 < trio.current_time() - begun < 3
            source.go_on.set()
            assert await whole(reader) == DATA
            await reader.aclose()

    run(test)


def test_a_slow_blob_is_no_error(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(content(7, 20 * 64 * KB), pause=0.1)
        async with blobs_of(source, store, stall=0.5) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert await reader.read(19 * 64 * KB, 10) == source.data[19 * 64 * KB :][:10]
            await reader.aclose()

    run(test)


def _flipped() -> bytes:
    return DATA[:MB] + bytes([DATA[MB] ^ 1]) + DATA[MB + 1 :]


WRONG = {
    "one byte is another": _flipped(),
    "it is cut short": DATA[:-1000],
    "it is longer": DATA + b"more",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_no_whole_read_of_a_wrong_blob_ends_well(wrong: str, store: BlobStore | None, tmp_path: Path) -> None:
    async def test() -> None:
        source = _Lying(WRONG[wrong], digest=Digest.of(DATA), size=len(DATA), pause=0.001)
        async with blobs_of(source, store) as blobs:

            async def one(piece: int) -> None:
                reader = await blobs.open("team/app", source.descriptor)
                with pytest.raises(DigestMismatch):
                    await whole(reader, piece)
                assert not reader.verified
                with pytest.raises(DigestMismatch):
                    await reader.read(0, 10)
                await reader.aclose()

            async with trio.open_nursery() as nursery:
                for piece in (4 * KB, 128 * KB, 4 * MB):
                    nursery.start_soon(one, piece)
            asked = len(source.asked)
            with pytest.raises(DigestMismatch):
                await read_all(blobs, source)
            assert len(source.asked) > asked, "the next one asks anew"
            assert not await blobs.is_verified(source.descriptor)
            source.data = DATA
            assert await read_all(blobs, source) == DATA
        assert [finding for finding in verify(tmp_path / "cache") if finding.fault] == []

    run(test)


class _Lying(BlobSource):
    """Ends as `V2Source` does where a reply is shorter or longer than the descriptor says."""

    async def _chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        async for piece in super()._chunks(start, stop):
            yield piece
        if len(self.data) < (self.size or 0):
            raise DigestMismatch("it ends before its descriptor says")
        if len(self.data) > (self.size or 0) and stop == self.size:
            yield b"more"


def test_read_backwards_it_is_verified_all_the_same(disk: DiskStore) -> None:
    async def test() -> None:
        data = content(8, 12 * MB)
        wrong = data[: 6 * MB] + b"?" + data[6 * MB + 1 :]
        source = BlobSource(wrong, digest=Digest.of(data), size=len(data))
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            for start in range(11 * MB, 0, -MB):
                await reader.read(start, MB)
            with pytest.raises(DigestMismatch):
                await reader.read(0, MB)
            await reader.aclose()

    run(test)


def test_what_a_registry_says_reaches_the_reader(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA, errors={"gone": NotFound("no blob"), "closed": Forbidden("no")})
        async with blobs_of(source, store) as blobs:
            for repository, kind in (("gone", NotFound), ("closed", Forbidden)):
                with pytest.raises(kind):
                    await read_all(blobs, source, repository)
            assert await read_all(blobs, source) == DATA

    run(test)


def test_a_repository_that_does_not_show_a_blob_does_not_hide_it_in_another(disk: DiskStore) -> None:
    async def test() -> None:
        source = BlobSource(DATA, pause=1, errors={"gone": NotFound("no blob")})
        async with blobs_of(source, disk) as blobs:
            results: list[bytes | RegfsError] = []

            async def one(repository: str) -> None:
                try:
                    results.append(await read_all(blobs, source, repository))
                except NotFound as error:
                    results.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, "gone")
                await source.was_asked.wait()
                source.pause = 0
                nursery.start_soon(one, "team/app")
            assert DATA in results
            assert any(isinstance(result, NotFound) for result in results)

    run(test)


def test_a_foreign_layer_that_the_registry_lacks_is_not_fetched_elsewhere(disk: DiskStore) -> None:
    async def test() -> None:
        source = BlobSource(DATA, errors={"team/app": NotFound("no blob")})
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", Descriptor(kind, Digest.of(DATA), len(DATA)))
            with pytest.raises(Unsupported, match="foreign layer"):
                await reader.read(0, 10)
            await reader.aclose()

    run(test)


# ── the store ────────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_costs_no_request(disk: DiskStore) -> None:
    async def test() -> None:
        source = BlobSource(DATA)
        async with blobs_of(source, disk) as blobs:
            assert not await blobs.is_verified(source.descriptor)
            assert await read_all(blobs, source) == DATA
            assert await blobs.is_verified(source.descriptor)
            source.asked.clear()
            reader = await blobs.open("team/app", source.descriptor)
            assert reader.verified
            assert await reader.read(MB, 100) == DATA[MB : MB + 100]
            await reader.aclose()
        assert source.asked == []

    run(test)


def test_what_is_damaged_while_it_is_read_is_fetched_anew(disk: DiskStore, tmp_path: Path) -> None:
    async def test() -> None:
        source = BlobSource(DATA)
        async with blobs_of(source, disk) as blobs:
            assert await read_all(blobs, source) == DATA
            reader = await blobs.open("team/app", source.descriptor)
            assert await reader.read(0, 100) == DATA[:100]
            [file] = (tmp_path / "cache" / "content").iterdir()
            file.chmod(0o600)
            os.truncate(file, 1000)
            assert await whole(reader) == DATA
            assert reader.verified
            await reader.aclose()

    run(test)


def test_what_is_removed_is_fetched_anew(disk: DiskStore, tmp_path: Path) -> None:
    async def test() -> None:
        source = BlobSource(DATA)
        async with blobs_of(source, disk) as blobs:
            assert await read_all(blobs, source) == DATA
            for file in (tmp_path / "cache" / "content").iterdir():
                file.unlink()
            assert await read_all(blobs, source) == DATA
        assert len(source.asked) == 2

    run(test)


def test_what_is_derived_is_kept_with_its_blob(store: BlobStore | None) -> None:
    async def test() -> None:
        source = BlobSource(DATA)
        async with blobs_of(source, store) as blobs:
            await read_all(blobs, source)
            await blobs.keep_derived(source.descriptor.digest, "index", 1, b"an index")
            found = await blobs.derived(source.descriptor.digest, "index", 1)
            assert await blobs.derived(source.descriptor.digest, "index", 2) is None
            kept = await blobs.is_verified(source.descriptor)
            assert found == (b"an index" if kept else None)

    run(test)


def test_many_who_read_where_a_store_has_room_for_little_get_the_right_bytes(tmp_path: Path) -> None:
    async def test() -> None:
        store = DiskStore(tmp_path / "cache", 12 * MB)
        sources = [BlobSource(content(seed, 7 * MB), cut_every=5 * MB // 2) for seed in (9, 10, 11)]

        async def one(blobs: RegistryBlobs, source: BlobSource, piece: int) -> None:
            for _ in range(3):
                reader = await blobs.open("team/app", source.descriptor)
                assert Digest.of(await whole(reader, piece)) == source.descriptor.digest
                await reader.aclose()

        async with AsyncExitStack() as stack:
            all_blobs = [await stack.enter_async_context(blobs_of(source, store)) for source in sources]
            async with trio.open_nursery() as nursery:
                for blobs, source in zip(all_blobs, sources, strict=True):
                    for piece in (40_000, 300_000, MB):
                        nursery.start_soon(one, blobs, source, piece)

    run(test)


def test_a_registry_that_stands_still_holds_up_no_other_that_has_the_same_blob(disk: DiskStore) -> None:
    async def test() -> None:
        stuck, well = BlobSource(DATA, stop_at=MB), BlobSource(DATA)
        async with blobs_of(stuck, disk) as first, blobs_of(well, disk) as second:
            reader = await first.open("team/app", stuck.descriptor)
            assert await reader.read(0, 100) == DATA[:100]
            begun = trio.current_time()
            assert await read_all(second, well) == DATA
            assert trio.current_time() - begun < 8
            stuck.go_on.set()
            await reader.aclose()

    run(test)


def test_an_error_of_one_registry_is_none_of_anothers(disk: DiskStore) -> None:
    async def test() -> None:
        closed = BlobSource(DATA, pause=0.5, errors={"team/app": Forbidden("no")})
        well = BlobSource(DATA)
        async with blobs_of(closed, disk) as first, blobs_of(well, disk) as second:
            async with trio.open_nursery() as nursery:
                results: list[bytes] = []

                async def refused() -> None:
                    with pytest.raises(Forbidden):
                        await read_all(first, closed)

                async def served() -> None:
                    results.append(await read_all(second, well))

                nursery.start_soon(refused)
                await closed.was_asked.wait()
                nursery.start_soon(served)
            assert results == [DATA]

    run(test)
