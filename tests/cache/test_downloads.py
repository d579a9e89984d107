"""A content that is read while it arrives: fetched once for all, never wrong, taken up again where it was broken off."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from regfs.cache.care import prune
from regfs.cache.disk import DiskStore
from regfs.cache.download import Reading
from regfs.cache.fill import fill
from regfs.cache.folder import Folder
from regfs.cache.partial import Partial
from regfs.cache.record import Received
from regfs.cache.room import Room
from regfs.cache.writer import Writer
from regfs.digest import Digest
from regfs.errors import ConnectionFailed, DigestMismatch, ServerFailed
from tests.cache.hands import MB, content, faults, fetched, files, has, run, source, taken, whole


async def opened(store: DiskStore, data: bytes, size: int | None = None) -> Reading:
    reading = await store.download(Digest.of(data), len(data) if size is None else size)
    assert reading is not None
    return reading


def claimed(reading: Reading) -> Writer:
    writer = reading.claim()
    assert writer is not None
    return writer


def test_many_readers_share_one_download_and_each_gets_every_byte(tmp_path: Path) -> None:
    async def test() -> None:
        store, data, asked = DiskStore(tmp_path, 50 * MB), content(1, 3 * MB), list[int]()
        got: list[bytes | None] = []

        async def read(piece: int) -> None:
            reading = await opened(store, data)
            writer = reading.claim()
            if writer is not None:
                nursery.start_soon(fill, writer, source(data, log=asked))
            got.append(await whole(reading, piece))
            await reading.aclose()

        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(read, 50_000 + 1000 * n)
        assert asked == [0]
        assert got == [data] * 40
        assert await has(store, data)
        assert files(tmp_path, "partial") == []

    run(test)


def test_the_first_byte_is_there_before_the_second_comes(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 50 * MB), content(2, 1000)
        reading, go_on = await opened(store, data), trio.Event()

        async def work(writer: Writer) -> None:
            await writer.write(data[:1])
            await go_on.wait()
            await writer.write(data[1:])
            await writer.finish()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claimed(reading).run, work)
            assert await reading.read(0, 1) == data[:1]
            assert not reading.verified
            assert reading.missing(0) == 0
            assert reading.missing(10) == 10
            go_on.set()
            assert await reading.read(0, 5000) == data
        assert reading.verified
        await reading.aclose()

    run(test)


@pytest.mark.parametrize("wrong", ["flipped", "short", "long", "far too long"])
@pytest.mark.parametrize("size", [3000, 5 * MB])
def test_a_wrong_content_fails_all_who_read_it_and_nothing_of_it_stays(
    tmp_path: Path, wrong: str, size: int
) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 50 * MB), content(3, size)
        sent = {
            "flipped": data[: size // 2] + bytes([data[size // 2] ^ 1]) + data[size // 2 + 1 :],
            "short": data[:-1],
            "long": data + b"x",
            "far too long": data + data,
        }[wrong]
        readings = [await opened(store, data) for _ in range(3)]
        outcomes = []

        async def read(reading: Reading) -> None:
            with pytest.raises(DigestMismatch):
                outcomes.append(await whole(reading))
            with pytest.raises(DigestMismatch):
                await reading.read(0, 1)

        async with trio.open_nursery() as nursery:
            for reading in readings:
                nursery.start_soon(read, reading)
            with pytest.raises(DigestMismatch):
                await fill(claimed(readings[0]), source(sent))
        assert outcomes == []
        for reading in readings:
            assert reading.claim() is None
            await reading.aclose()
        assert files(tmp_path, "content") == files(tmp_path, "partial") == []
        await fetched(store, data)
        assert await has(store, data)

    run(test)


def test_who_still_has_a_wrong_content_open_keeps_nobody_from_getting_the_right_one(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 50 * MB), content(19, MB)
        reading = await opened(store, data)
        with pytest.raises(DigestMismatch):
            await fill(claimed(reading), source(b"?" + data[1:]))
        await fetched(store, data)
        assert await has(store, data)
        with pytest.raises(DigestMismatch):
            await reading.read(0, 1)
        await reading.aclose()
        assert await has(store, data)
        assert files(tmp_path, "partial") == []

    run(test)


def test_a_descriptor_that_promises_more_than_there_is_fails_though_the_hash_is_right(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 50 * MB), content(17, 1000)
        reading = await opened(store, data, 1001)
        with pytest.raises(DigestMismatch, match="1000 bytes came, its descriptor says 1001"):
            await claimed(reading).fill(source(data))
        await reading.aclose()
        assert files(tmp_path, "content") == files(tmp_path, "partial") == []

    run(test)


def interrupted(data: bytes, after: int, error: Exception, log: list[int]) -> Callable[..., object]:
    """A source that breaks off after so many bytes, each time."""

    @asynccontextmanager
    async def fetch(start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        log.append(start)

        async def chunks() -> AsyncIterator[bytes]:
            end = min(len(data), start + after)
            for at in range(start, end, 30_000):
                await trio.lowlevel.checkpoint()
                yield data[at : min(at + 30_000, end)]
            if end < len(data):
                raise error

        yield chunks()

    return fetch


def test_a_transfer_that_is_reset_at_every_megabyte_goes_on_where_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        store, data, asked = DiskStore(tmp_path, 50 * MB), content(4, 5 * MB + 17), list[int]()
        await fetched(store, data, interrupted(data, MB, ConnectionFailed("reset"), asked))  # type: ignore[arg-type]
        assert asked == [n * MB for n in range(6)]
        assert await has(store, data)

    run(test)


def test_a_transfer_that_brings_nothing_is_given_up_and_its_readers_are_told(tmp_path: Path) -> None:
    async def test() -> None:
        store, data, asked = DiskStore(tmp_path, 50 * MB), content(5, MB), list[int]()
        reading = await opened(store, data)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(ConnectionFailed):
                    await whole(reading)

            nursery.start_soon(read)
            with pytest.raises(ConnectionFailed):
                await fill(claimed(reading), interrupted(data, 0, ConnectionFailed("reset"), asked))  # type: ignore[arg-type]
        assert asked == [0, 0, 0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill, claimed(reading), source(data))
            assert await whole(reading) == data
        await reading.aclose()

    run(test)


@pytest.mark.parametrize("same_process", [True, False])
def test_what_came_before_a_failure_is_not_fetched_again(tmp_path: Path, same_process: bool) -> None:
    async def test() -> None:
        store, data, asked = DiskStore(tmp_path, 50 * MB), content(6, 12 * MB), list[int]()
        with pytest.raises(ServerFailed):
            await fetched(store, data, interrupted(data, 9 * MB, ServerFailed("500"), asked))  # type: ignore[arg-type]
        assert files(tmp_path, "content") == []
        assert taken(tmp_path) >= 9 * MB
        later = store if same_process else DiskStore(tmp_path, 50 * MB)
        await fetched(later, data, source(data, log=asked))
        assert asked == [0, 9 * MB]
        assert await has(later, data)
        assert files(tmp_path, "partial") == []

    run(test)


@pytest.mark.parametrize("at", [100, 5 * MB, 9 * MB - 1])
def test_a_partial_download_that_was_damaged_is_used_up_to_there_at_most(tmp_path: Path, at: int) -> None:
    async def test() -> None:
        store, data, asked = DiskStore(tmp_path, 50 * MB), content(7, 12 * MB), list[int]()
        with pytest.raises(ServerFailed):
            await fetched(store, data, interrupted(data, 9 * MB, ServerFailed("500"), asked))  # type: ignore[arg-type]
        with (tmp_path / "partial" / Digest.of(data).file_name).open("r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ 255]))
        await fetched(store, data, source(data, log=asked))
        assert asked[1] <= at
        assert at < 6 * MB or asked[1] >= 4 * MB
        assert await has(store, data)

    run(test)


def test_when_the_last_reader_leaves_the_transfer_ends_and_the_rest_is_fetched_later(tmp_path: Path) -> None:
    async def test() -> None:
        store, data, asked = DiskStore(tmp_path, 50 * MB), content(8, 2 * MB), list[int]()
        first, second = await opened(store, data), await opened(store, data)
        waits = trio.Event()

        async def work(writer: Writer) -> None:
            await writer.write(data[:MB])
            waits.set()
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claimed(first).run, work)
            await waits.wait()
            assert await first.read(0, MB) == data[:MB]
            await first.aclose()
            assert await second.read(0, 10) == data[:10]
            await second.aclose()
        await fetched(store, data, source(data, log=asked))
        assert asked == [MB]
        assert await has(store, data)

    run(test)


def test_a_reader_that_opens_while_the_last_one_leaves_gets_all(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 50 * MB), content(9, 300_000)

        async def one() -> None:
            for _ in range(5):
                reading = await opened(store, data)
                writer = reading.claim()
                async with trio.open_nursery() as nursery:
                    if writer is not None:
                        nursery.start_soon(fill, writer, source(data))
                    found = await reading.read(0, 1000)
                    assert found in (data[:1000], None)
                    await reading.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
        await fetched(store, data)
        assert await has(store, data)
        assert files(tmp_path, "partial") == []

    run(test)


def test_who_is_cancelled_at_any_moment_holds_nothing_any_more(tmp_path: Path) -> None:
    async def test() -> None:
        store, data, small = DiskStore(tmp_path, 50 * MB), content(15, 400_000), content(16, 1000)
        await store.put(Digest.of(small), small)

        async def use() -> None:
            entry = await store.open(Digest.of(small), len(small))
            assert entry is not None
            async with (
                aclosing(entry),
                aclosing(await opened(store, data)) as reading,
                trio.open_nursery() as nursery,
            ):
                writer = reading.claim()
                if writer is not None:
                    nursery.start_soon(writer.fill, source(data, 20_000, pause=0.0005))
                await whole(reading, 10_000)

        for milliseconds in range(20):
            with trio.move_on_after(milliseconds / 1000):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(use)
        assert prune(tmp_path, 50 * MB, 0)[1] == 0
        assert files(tmp_path, "content") == files(tmp_path, "partial") == []

    run(test)


def test_where_nobody_fetches_a_reader_is_told_that_nothing_comes(tmp_path: Path) -> None:
    async def test() -> None:
        reading = await opened(DiskStore(tmp_path, 50 * MB), content(10, 1000))
        assert await reading.read(0, 10) is None
        await reading.aclose()

    run(test)


def test_a_file_that_somebody_changes_while_it_is_written_never_bears_the_digest(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 50 * MB), content(14, 3 * MB)
        reading = await opened(store, data)

        async def work(writer: Writer) -> None:
            await writer.write(data[:MB])
            assert await reading.read(0, MB) == data[:MB]
            await trio.sleep(0.02)
            with (tmp_path / "partial" / Digest.of(data).file_name).open("r+b") as file:
                file.write(b"wrong")
            await trio.sleep(0.02)
            await writer.write(data[MB:])
            await writer.finish()

        await claimed(reading).run(work)
        assert await reading.read(2 * MB, MB) is None
        await reading.aclose()
        assert files(tmp_path, "content") == files(tmp_path, "partial") == []
        await fetched(store, data)
        assert await has(store, data)

    run(test)


# ── ranges ahead ──


def test_a_range_fetched_by_itself_is_read_at_once_and_by_a_later_process(tmp_path: Path) -> None:
    async def test() -> None:
        data = content(11, 8 * MB)
        reading = await opened(DiskStore(tmp_path, 50 * MB), data)
        assert reading.missing(6 * MB) == 6 * MB + 1
        assert await reading.put(6 * MB, data[6 * MB : 7 * MB])
        assert await reading.put(3 * MB, data[3 * MB : 4 * MB], proven=True)
        assert reading.missing(6 * MB) == 0
        assert await reading.read(6 * MB, MB) == data[6 * MB : 7 * MB]
        assert not reading.is_proven(6 * MB, 7 * MB)
        assert reading.is_proven(3 * MB, 4 * MB)
        await reading.aclose()
        later = await opened(DiskStore(tmp_path, 50 * MB), data)
        assert await later.read(3 * MB + 5, 1000) == data[3 * MB + 5 : 3 * MB + 1005]
        assert later.is_proven(3 * MB, 4 * MB)
        assert await later.read(6 * MB, MB) == data[6 * MB : 7 * MB]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill, claimed(later), source(data))
            assert await whole(later) == data
        await later.aclose()
        assert faults(tmp_path) == []

    run(test)


def test_a_download_that_begins_while_a_range_is_written_leaves_that_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.prepare()
    data, room = content(18, 3 * MB), Room(folder, 50 * MB)
    with room.locked():
        partial = Partial.take(folder, room, Digest.of(data), len(data))
    assert partial is not None
    begins = threading.Thread(target=partial.recall)
    add = partial._log.add

    def add_late(line: Received) -> None:  # the range is on disk, and nobody knows of it yet
        begins.start()
        begins.join(0.3)
        add(line)

    partial._log.add = add_late  # type: ignore[method-assign]
    partial.put(MB, data[MB : 2 * MB], proven=False)
    begins.join()
    partial._log.add = add  # type: ignore[method-assign]
    partial.put(2 * MB, data[2 * MB :], proven=False)
    assert partial.end_of(MB) == 3 * MB
    assert os.pread(partial.descriptor, 2 * MB, MB) == data[MB:]
    partial.close(resumable=False)


def test_a_range_that_was_damaged_on_disk_is_not_served_later(tmp_path: Path) -> None:
    async def test() -> None:
        data = content(12, 8 * MB)
        reading = await opened(DiskStore(tmp_path, 50 * MB), data)
        await reading.put(6 * MB, data[6 * MB : 7 * MB], proven=True)
        await reading.aclose()
        with (tmp_path / "partial" / Digest.of(data).file_name).open("r+b") as file:
            file.seek(6 * MB + 7)
            file.write(b"wrong")
        later = await opened(DiskStore(tmp_path, 50 * MB), data)
        assert await later.read(6 * MB, 1000) is None
        assert later.missing(6 * MB) > 0
        await later.aclose()

    run(test)


@pytest.mark.parametrize("proven", [True, False])
def test_a_transfer_that_differs_from_a_range_that_was_read_is_wrong_at_once(
    proven: bool, tmp_path: Path
) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 50 * MB), content(13, 4 * MB)
        reading = await opened(store, data)
        assert await reading.put(MB, data[MB : 2 * MB], proven=proven)
        bad = data[: MB + 9] + b"bad" + data[MB + 12 :]
        with pytest.raises(DigestMismatch, match="differ from those that came before"):
            await fill(claimed(reading), source(bad))
        await reading.aclose()
        assert files(tmp_path, "partial") == []

    run(test)


# ── bounds ──


def test_what_is_being_written_counts_and_makes_room_for_itself(tmp_path: Path) -> None:
    async def test() -> None:
        limit = 24 * MB
        store = DiskStore(tmp_path, limit)
        for n in range(20, 26):
            data, most = content(n, 5 * MB), 0
            reading = await opened(store, data)

            async def work(writer: Writer, data: bytes = data) -> None:
                nonlocal most
                for at in range(0, len(data), 100_000):
                    await writer.write(data[at : at + 100_000])
                    most = max(most, taken(tmp_path))
                await writer.finish()

            await claimed(reading).run(work)
            await reading.aclose()
            assert most <= limit
            assert await has(store, data)
        assert not await has(store, content(20, 5 * MB))

    run(test)


def test_where_everything_is_open_a_download_goes_on_without_a_place(tmp_path: Path) -> None:
    async def test() -> None:
        store = DiskStore(tmp_path, 8 * MB)
        held = content(30, 6 * MB)
        await fetched(store, held)
        entry = await store.open(Digest.of(held), len(held))
        assert entry is not None
        data = content(31, 5 * MB)
        reading = await opened(store, data)
        outcome = []

        async def read() -> None:
            outcome.append(await whole(reading))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await fill(claimed(reading), source(data))
        assert outcome == [None]
        await reading.aclose()
        assert await whole(entry) == held
        await entry.aclose()
        assert not await has(store, data)
        assert taken(tmp_path) <= 8 * MB

    run(test)


def test_a_large_content_passes_through_little_memory(tmp_path: Path) -> None:
    async def test() -> None:
        size = 300 * MB
        block = content(40, MB)
        digest = _digest_of(block, 300)
        store = DiskStore(tmp_path, 500 * MB)

        @asynccontextmanager
        async def fetch(start: int) -> AsyncIterator[AsyncIterator[bytes]]:
            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(start // MB, 300):
                    await trio.lowlevel.checkpoint()
                    yield bytes(block)

            yield chunks()

        reading = await store.download(digest, size)
        assert reading is not None
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill, claimed(reading), fetch)
            for at in range(0, size, MB):
                assert await reading.read(at, MB) == block
        await reading.aclose()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024

    run(test)


def _digest_of(block: bytes, times: int) -> Digest:
    import hashlib

    hashed = hashlib.sha256()
    for _ in range(times):
        hashed.update(block)
    return Digest("sha256", hashed.hexdigest())
