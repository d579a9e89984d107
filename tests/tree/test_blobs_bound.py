"""A blob that one reader gets from several transfers: wherever it changes, all of it is verified together."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.cache import download
from regfs.cache.disk import DiskStore
from regfs.cache.partial import Partial
from regfs.digest import Digest
from regfs.errors import ConnectionFailed, DigestMismatch
from regfs.ports import BlobStore, ContentReader
from regfs.tree import passing
from tests.tree.blob_source import KB, MB, BlobSource, content
from tests.tree.test_blobs import blobs_of, read_all, run, whole

DATA = content(41, 12 * MB + 3)
OTHER = DATA[:MB] + bytes([DATA[MB] ^ 1]) + DATA[MB + 1 :]
"""What another transfer may bring: one byte of the second MiB differs."""


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    """A store on disk."""
    return DiskStore(tmp_path / "cache", 1 << 30)


def of_data(data: bytes, **switches: object) -> BlobSource:
    """A registry that gives ``data`` for the digest of DATA."""
    return BlobSource(data, digest=Digest.of(DATA), **switches)  # type: ignore[arg-type]


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A disk that takes no more than that of a download, from now on."""
    append = Partial.append

    def full(self: Partial, chunks: Sequence[bytes | memoryview]) -> None:
        if self.head + sum(map(len, chunks)) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, chunks)

    monkeypatch.setattr(Partial, "append", full)


# ── the disk takes no more ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunk", [64 * KB, MB, 5 * MB])
def test_readers_go_on_behind_a_full_disk_and_nothing_is_sent_twice(
    chunk: int, disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 5 * MB)

    async def test() -> None:
        source = of_data(DATA, chunk=chunk)
        async with blobs_of(source, disk) as blobs:
            results: list[bytes] = []

            async def one(piece: int) -> None:
                reader = await blobs.open("team/app", source.descriptor)
                results.append(await whole(reader, piece))
                assert reader.verified
                await reader.aclose()

            async with trio.open_nursery() as nursery:
                for piece in (50_000, 128 * KB, MB):
                    nursery.start_soon(one, piece)
            assert [data == DATA for data in results] == [True] * 3
        assert source.asked[0] == (0, len(DATA))
        assert all(start >= 4 * MB for start, _ in source.asked[1:])

    run(test)


@pytest.mark.parametrize("wrong", ["the first", "the second"])
@pytest.mark.parametrize("piece", [50_000, MB, 5 * MB])
def test_what_comes_behind_a_full_disk_is_verified_with_what_came_before(
    piece: int, wrong: str, disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 5 * MB)
    late = DATA[:-MB] + bytes([DATA[-MB] ^ 1]) + DATA[-MB + 1 :]

    async def test() -> None:
        source = of_data(OTHER if wrong == "the first" else DATA)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            begun = await whole_until(reader, 2 * MB, piece)
            while source.open:  # noqa: ASYNC110 - the first transfer ends where the disk is full
                await trio.sleep(0.01)
            source.data = DATA if wrong == "the first" else late
            with pytest.raises(DigestMismatch):
                await whole(reader, piece, begun)
            assert not reader.verified
            await reader.aclose()
            assert len(source.asked) == 2
            source.data = DATA
            assert await read_all(blobs, source) == DATA, "nothing of it stays"

    run(test)


async def whole_until(reader: ContentReader, end: int, piece: int) -> int:
    """Read from the start on to ``end`` at least; how far it went."""
    at = 0
    while at < end:
        at += len(await reader.read(at, piece))
    return at


@pytest.mark.parametrize("same", [True, False])
def test_a_disk_that_cannot_be_read_any_more_is_replaced_by_what_hashes_to_the_same(
    same: bool, disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        source = of_data(DATA if same else OTHER, stop_at=8 * MB)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert len(await reader.read(0, 2 * MB)) == 2 * MB
            second = await blobs.open("team/app", source.descriptor)
            await whole_until(second, 7 * MB, MB)  # so far it came, and went out of memory

            async def fails(*_: object) -> bytes:
                raise OSError(errno.EIO, "Input/output error")

            monkeypatch.setattr(download, "read_at", fails)
            source.data = DATA
            source.go_on.set()
            if same:
                assert await whole(reader, MB, 2 * MB) == DATA[2 * MB :]
                assert reader.verified
            else:
                with pytest.raises(DigestMismatch):
                    await whole(reader, MB, 2 * MB)
            await second.aclose()
            await reader.aclose()

    run(test)


# ── another registry's download stands still ─────────────────────────────────────────────────────


@pytest.mark.parametrize("same", [True, False])
def test_what_another_registry_began_is_verified_with_what_this_one_ends(same: bool, disk: DiskStore) -> None:
    async def test() -> None:
        stuck = of_data(DATA if same else OTHER, stop_at=6 * MB)
        well = of_data(DATA)
        async with blobs_of(stuck, disk) as first, blobs_of(well, disk) as second:
            other = await first.open("team/app", stuck.descriptor)
            await whole_until(other, 5 * MB, MB)
            reader = await second.open("team/app", well.descriptor)
            if same:
                assert await whole(reader) == DATA
                assert well.asked[0][0] >= 5 * MB, "what came is not asked for again"
            else:
                with pytest.raises(DigestMismatch):
                    await whole(reader)
            stuck.go_on.set()
            await reader.aclose()
            await other.aclose()

    run(test)


def test_what_another_download_verifies_is_not_taken_for_what_passed_here(disk: DiskStore) -> None:
    async def test() -> None:
        stuck, well = of_data(DATA, stop_at=6 * MB), of_data(DATA)
        async with blobs_of(stuck, disk) as first, blobs_of(well, disk) as second:
            other = await first.open("team/app", stuck.descriptor)
            await whole_until(other, 5 * MB, MB)
            reader = await second.open("team/app", well.descriptor)
            end = await whole_until(reader, 8 * MB, MB)
            stuck.go_on.set()
            await whole(other, MB, 5 * MB)
            assert other.verified
            assert not reader.verified
            assert await whole(reader, MB, end) == DATA[end:]
            assert reader.verified
            await reader.aclose()
            await other.aclose()

    run(test)


# ── without a store ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("same", [True, False])
def test_a_slow_reader_that_a_passage_left_behind_gets_the_same_again_or_an_error(
    same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "_LAGGARD", 0.05)

    async def test() -> None:
        source = of_data(DATA if same else OTHER)
        async with blobs_of(source, None) as blobs:
            slow = await blobs.open("team/app", source.descriptor)
            assert len(await slow.read(0, 2 * MB)) == 2 * MB
            await trio.sleep(0.1)
            fast = await blobs.open("team/app", source.descriptor)
            end = await whole_until(fast, 11 * MB, MB)
            source.data = DATA
            if same:
                assert await whole(slow, MB, 2 * MB) == DATA[2 * MB :]
                assert slow.verified
            else:
                with pytest.raises(DigestMismatch):
                    await whole(slow, MB, 2 * MB)
            assert len(source.asked) == 2
            assert end < len(DATA)
            await fast.aclose()
            await slow.aclose()

    run(test)


@pytest.mark.parametrize("same", [True, False])
def test_who_reads_on_after_an_error_is_bound_to_what_came_before_it(same: bool) -> None:
    async def test() -> None:
        source = of_data(DATA if same else OTHER, cut_every=3 * MB)
        async with blobs_of(source, None) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            assert len(await reader.read(0, 2 * MB)) == 2 * MB
            source.cut_every = 0
            with pytest.raises(ConnectionFailed):
                await whole(reader, MB, 2 * MB)
            source.cut_every, source.data = None, DATA
            if same:
                assert await whole(reader, MB, 2 * MB) == DATA[2 * MB :]
            else:
                with pytest.raises(DigestMismatch):
                    await whole(reader, MB, 2 * MB)
            await reader.aclose()

    run(test)


# ── many reads at once ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("keeps", ["a store", "a full disk", "nothing"])
@pytest.mark.parametrize("size", [300 * KB, 5 * MB])
def test_of_reads_that_are_asked_for_at_once_not_all_of_a_wrong_blob_end_well(
    size: int, keeps: str, disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if keeps == "a full disk":
        fill_disk(monkeypatch, size // 2)
    store: BlobStore | None = None if keeps == "nothing" else disk

    async def test() -> None:
        data = content(42, size)
        source = BlobSource(data[:100] + b"?" + data[101:], digest=Digest.of(data))
        async with blobs_of(source, store) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            failed: list[int] = []

            async def read(start: int) -> None:
                try:
                    await reader.read(start, 128 * KB)
                except DigestMismatch:
                    failed.append(start)

            async with trio.open_nursery() as nursery:
                for start in range(0, size, 128 * KB):
                    nursery.start_soon(read, start)
            assert failed
            assert not reader.verified
            await reader.aclose()

    run(test)


# ── what a passage hashes to on its way ──────────────────────────────────────────────────────────


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_a_passage_knows_what_it_hashed_to_at_any_place(batch: list[bytes], drawn: st.DataObject) -> None:
    before, data = b"what came before", b"".join(batch)
    places = sorted(drawn.draw(st.sets(st.integers(1, len(data)))) if data else [])
    hashed = hashlib.sha256(before)
    marks = passing._hash_all(hashed, len(before), batch, [len(before) + place for place in places])
    assert hashed.hexdigest() == hashlib.sha256(before + data).hexdigest()
    assert [mark.offset - len(before) for mark in marks] == places
    for mark in marks:
        assert mark.hex == hashlib.sha256((before + data)[: mark.offset]).hexdigest()
