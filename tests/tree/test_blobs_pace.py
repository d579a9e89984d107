"""A reader keeps the pace of the network: not that of a disk behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.cache.disk import DiskStore
from regfs.cache.partial import Partial
from tests.tree.blob_source import KB, MB, BlobSource, content
from tests.tree.test_blobs import blobs_of, run, whole


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    """A store on disk."""
    return DiskStore(tmp_path / "cache", 1 << 30)


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch, method: str) -> Iterator[threading.Event]:
    """A `Partial` whose ``method`` does nothing until the event, or the block's end."""
    go_on = threading.Event()
    real = getattr(Partial, method)

    def waits(*arguments: object) -> object:
        assert go_on.wait(30)
        return real(*arguments)

    monkeypatch.setattr(Partial, method, waits)
    try:
        yield go_on
    finally:
        go_on.set()


def test_what_only_the_disk_does_not_have_yet_is_not_asked_for_twice(
    disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(2, 12 * MB)

    async def test() -> None:
        source = BlobSource(data, chunk=256 * KB, pause=0.001)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            with held_up(monkeypatch, "append"):
                for start in range(0, 4 * MB + 1, 256 * KB):
                    assert await reader.read(start, 256 * KB) == data[start : start + 256 * KB]
                assert source.asked == [(0, len(data))]
            assert await whole(reader, 256 * KB, start) == data[start:]
            await reader.aclose()
        assert source.asked == [(0, len(data))]

    run(test)


def test_the_last_bytes_wait_for_their_verification_and_not_until_the_disk_has_them_for_good(
    disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(3, 3 * MB + 5)

    async def test() -> None:
        source = BlobSource(data)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            with held_up(monkeypatch, "keep"):
                assert await whole(reader) == data
                assert reader.verified
                assert await disk.open(source.descriptor.digest, len(data)) is None
                second = await blobs.open("team/app", source.descriptor)
                assert second.verified
                assert await whole(second) == data
            await second.aclose()
            await reader.aclose()
        kept = await disk.open(source.descriptor.digest, len(data))
        assert kept is not None
        await kept.aclose()
        assert source.asked == [(0, len(data))]

    run(test)


def test_the_last_bytes_come_only_with_the_word_that_all_are_right(
    disk: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(4, 2 * MB)

    async def test() -> None:
        source = BlobSource(data)
        async with blobs_of(source, disk) as blobs:
            reader = await blobs.open("team/app", source.descriptor)
            with held_up(monkeypatch, "verify") as go_on:
                timer = threading.Timer(0.2, go_on.set)
                timer.start()
                assert await whole(reader) == data
                assert go_on.is_set()
                timer.join()
            await reader.aclose()

    run(test)
