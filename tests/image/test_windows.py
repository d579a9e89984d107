"""The windows of a layer's checkpoints are kept beside its index: a read asks for those that it needs, and none is missed."""

from __future__ import annotations

import random
import zlib

import pytest

from regfs.image import codecs, indexfile, windows
from regfs.image.layer import IndexedLayer
from tests.image.hands import MIB, MemoryBlobs, contents, gzipped, layer, run, tarred, whole
from tests.image.test_reading import words

FILES = {f"f{number}": words(number, MIB) for number in range(8)}
GROUP = 2


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint each half a megabyte, two windows in a group, none in the index."""
    monkeypatch.setattr(codecs, "SPACING", 300_000)
    monkeypatch.setattr(windows, "GROUP", GROUP)
    monkeypatch.setattr(windows, "FEW", 0)


async def index(blob: bytes, blobs: MemoryBlobs) -> None:
    """Have a layer indexed, and all of that kept."""
    async with layer(blob, blobs) as opened:
        await opened.members()
        await blobs.indexed()


async def read_anywhere(opened: IndexedLayer) -> None:
    chance = random.Random(5)
    for member in await opened.members():
        data = FILES[member.path.decode()]
        for _ in range(6):
            start = chance.randrange(MIB - 2)
            assert await opened.read(member, start, 1000) == data[start : start + 1000]


def groups(blobs: MemoryBlobs) -> dict[str, bytes]:
    """The groups that are kept, by name."""
    return {name: data for (_, name, _), data in blobs.kept.items() if name.startswith("windows-")}


def test_files_are_read_from_windows_that_are_kept_apart() -> None:
    blob = gzipped(tarred(FILES), 6, zlib.Z_SYNC_FLUSH, 50_000)

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        await index(blob, blobs)
        assert len(groups(blobs)) > 5
        assert len(blobs.kept_of(indexfile.NAME)) < 10_000
        async with layer(blob, blobs) as opened:
            await read_anywhere(opened)
        async with layer(blob, blobs) as opened:
            assert await contents(opened) == {name.encode(): data for name, data in FILES.items()}

    run(test)


def test_a_read_asks_for_the_windows_of_its_place_before_all_others() -> None:
    blob = gzipped(tarred(FILES), 6, zlib.Z_SYNC_FLUSH, 50_000)

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        await index(blob, blobs)
        async with layer(blob, blobs) as opened:
            *_, last = await opened.members()
            blobs.asked.clear()
            assert await opened.read(last, 5, 10) == FILES["f7"][5:15]
            (asked,) = blobs.asked
            assert asked in list(groups(blobs))[-3:]
            while len(blobs.asked) < len(groups(blobs)):
                await blobs.asked_more()
            assert sorted(set(blobs.asked)) == sorted(groups(blobs))

    run(test)


def test_windows_that_were_fetched_are_not_missed_when_the_cache_gives_them_up() -> None:
    blob = gzipped(tarred(FILES), 6, zlib.Z_SYNC_FLUSH, 50_000)

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        await index(blob, blobs)
        async with layer(blob, blobs) as opened:
            first, *_ = await opened.members()
            blobs.asked.clear()
            await opened.read(first, 5, 10)
            while len(blobs.asked) < len(groups(blobs)):
                await blobs.asked_more()
            for key in [key for key in blobs.kept if key[1].startswith("windows-")]:
                del blobs.kept[key]
            blobs.ranges.clear()
            await read_anywhere(opened)
            assert max(length for _, length in blobs.ranges) < len(blob) / 2

    run(test)


@pytest.mark.parametrize("damage", ["gone", "flipped", "another's"])
def test_where_windows_were_lost_files_are_still_right_and_the_next_mount_makes_the_index_anew(
    damage: str,
) -> None:
    blob = gzipped(tarred(FILES), 6, zlib.Z_SYNC_FLUSH, 50_000)

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        await index(blob, blobs)
        good = groups(blobs)
        for key in [key for key in blobs.kept if key[1] in ("windows-3", "windows-4")]:
            data = blobs.kept[key]
            if damage == "gone":
                del blobs.kept[key]
            else:
                blobs.kept[key] = data[:-1] + b"?" if damage == "flipped" else good["windows-1"]
        async with layer(blob, blobs) as opened:
            await read_anywhere(opened)
            while blobs.kept_of(indexfile.NAME):
                await blobs.kept_more()
            for member in await opened.members():
                assert await whole(opened, member) == FILES[member.path.decode()]
        async with layer(blob, blobs) as opened:
            await opened.members()
            await blobs.indexed()
        assert groups(blobs) == good

    run(test)


def test_few_windows_are_in_the_index_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "FEW", 10 * MIB)
    blob = gzipped(tarred(FILES), 6, zlib.Z_SYNC_FLUSH, 50_000)

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        await index(blob, blobs)
        assert groups(blobs) == {}
        async with layer(blob, blobs) as opened:
            await read_anywhere(opened)

    run(test)
