"""A file in a layer reads as the unpacked file does: any range, in any order, by many, however the layer is compressed."""

from __future__ import annotations

import random
from functools import cache, lru_cache

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regfs.image import codecs, pieces
from regfs.image import layer as layer_module
from regfs.image.blocks import BLOCK
from regfs.image.layer import IndexedLayer
from regfs.image.members import Member
from regfs.image.zstdlib import zstd
from tests.image.hands import (
    COMPRESSIONS,
    MIB,
    MemoryBlobs,
    contents,
    descriptor_of,
    frames,
    gzipped,
    layer,
    layers,
    run,
    tarred,
    whole,
)

NAMED = sorted(COMPRESSIONS)


@cache
def words(seed: int, size: int) -> bytes:
    """Bytes that compress about as binaries do."""
    chance = random.Random(seed)
    vocabulary = [chance.randbytes(chance.randrange(3, 12)) for _ in range(2000)]
    return b"".join(chance.choices(vocabulary, k=size // 4))[:size]


@cache
def files() -> dict[str, bytes]:
    """Small ones around block sizes, and one larger than everything that is decoded at once."""
    sizes = [0, 1, 511, 512, 513, 5_000, BLOCK - 1, BLOCK, 300_001]
    small = {f"etc/{number}": words(number, size) for number, size in enumerate(sizes)}
    return {**small, "lib/large": words(99, 7 * MIB + 12_345), "last": words(98, 777)}


@lru_cache(maxsize=2)  # tests of one name run together
def packed(name: str) -> bytes:
    """An archive of these files, compressed in that way."""
    return COMPRESSIONS[name](tarred(files()))


async def read_anywhere(opened: IndexedLayer, seed: int, times: int) -> None:
    """Compare random ranges of random files."""
    chance = random.Random(seed)
    members = {member.path.decode(): member for member in await opened.members()}
    for _ in range(times):
        name = chance.choice(sorted(members))
        data = files()[name]
        start = chance.randrange(len(data) + 1)
        length = chance.choice([1, 100, 4096, BLOCK, BLOCK + 1, MIB])
        got = await opened.read(members[name], start, length)
        assert got == data[start : start + length], f"{name}, {length} bytes from {start}"


@pytest.mark.parametrize("name", NAMED, scope="module")
def test_every_file_is_read_whole(name: str) -> None:
    async def test() -> None:
        async with layer(packed(name)) as opened:
            found = await contents(opened)
            assert {path.decode(): data for path, data in found.items()} == files()
            assert opened.faults == []

    run(test)


@pytest.mark.parametrize("name", NAMED, scope="module")
def test_many_read_any_ranges_at_once(name: str) -> None:
    async def test() -> None:
        async with layer(packed(name)) as opened, trio.open_nursery() as nursery:
            for seed in range(8):
                nursery.start_soon(read_anywhere, opened, seed, 12)

    run(test)


@pytest.mark.parametrize("name", NAMED, scope="module")
def test_a_later_mount_reads_by_the_kept_index_without_another_pass(name: str) -> None:
    async def test() -> None:
        blob = packed(name)
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            await opened.members()
            await blobs.indexed()
        blobs.ranges.clear()
        async with layer(blob, blobs) as opened:
            members = {member.path: member for member in await opened.members()}
            assert blobs.ranges == []
            assert opened.verified
            assert await whole(opened, members[b"last"]) == files()["last"]
            if name not in ("zstd", "zstd -1", "zstd, garbage behind it"):  # short of where pieces begin
                assert sum(length for _, length in blobs.ranges) < len(blob) / 2
            await read_anywhere(opened, 5, 30)

    run(test)


@pytest.mark.parametrize("name", ["zstd", "zstd -1", "gzip"])
def test_what_the_cache_gives_up_meanwhile_is_made_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2 * BLOCK)
    monkeypatch.setattr(layer_module, "BLOCKS", 3 * BLOCK)

    async def test() -> None:
        blob = packed(name)
        blobs = MemoryBlobs(blob)

        async def evict() -> None:
            chance = random.Random(3)
            while True:
                for key in list(blobs.kept):
                    if chance.random() < 0.3:
                        del blobs.kept[key]
                await trio.sleep(0.001)

        async with layer(blob, blobs) as opened, trio.open_nursery() as nursery:
            await opened.members()
            if name.startswith("zstd"):
                assert any(kept.startswith("piece-") for _, kept, _ in blobs.kept)
            nursery.start_soon(evict)
            for seed in range(4):
                await read_anywhere(opened, seed, 10)
            nursery.cancel_scope.cancel()

    run(test)


def test_a_piece_that_was_given_up_is_kept_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2 * BLOCK)

    async def test() -> None:
        blob = packed("zstd")
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            members = {member.path: member for member in await opened.members()}
            had = {name for _, name, _ in blobs.kept if name.startswith("piece-")}
            blobs.kept.clear()
            assert await whole(opened, members[b"lib/large"]) == files()["lib/large"]
            again = {name for _, name, _ in blobs.kept if name.startswith("piece-")}
            # the last one holds the archive's end, where no file is
            assert len(had - again) <= 2
            assert len(again) > 20

    run(test)


def test_a_frame_without_checkpoints_is_not_decoded_from_its_start_for_each_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2 * BLOCK)

    async def test() -> None:
        blob = packed("zstd")
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            members = {member.path: member for member in await opened.members()}
            await blobs.indexed()
            blobs.ranges.clear()
            assert (
                await opened.read(members[b"lib/large"], 6 * MIB, 100)
                == files()["lib/large"][6 * MIB : 6 * MIB + 100]
            )
            assert blobs.ranges == []

    run(test)


@pytest.mark.parametrize("name", ["gzip", "zstd, many frames", "plain", "pigz"])
def test_a_read_of_a_layer_that_is_far_away_is_one_range(name: str) -> None:
    async def test() -> None:
        blob = packed(name)
        blobs = MemoryBlobs(blob, judges=False)
        async with layer(blob, blobs) as opened:
            members = {member.path: member for member in await opened.members()}
            await blobs.indexed()
            for start in (5 * MIB, 3 * MIB, MIB):
                blobs.ranges.clear()
                await opened.read(members[b"lib/large"], start, 1000)
                assert len(blobs.ranges) == 1
                assert blobs.ranges[0][1] < 2 * MIB

    run(test)


def test_a_reader_that_goes_on_decodes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "SPACING", 64 * MIB)
    monkeypatch.setattr(layer_module, "BLOCKS", 2 * BLOCK)
    monkeypatch.setattr(pieces, "is_needed", lambda spans, number: False)

    async def test() -> None:
        blob = packed("gzip")
        blobs = MemoryBlobs(blob, is_local=True)
        async with layer(blob, blobs) as opened:
            members = {member.path: member for member in await opened.members()}
            blobs.ranges.clear()
            assert await whole(opened, members[b"lib/large"], BLOCK) == files()["lib/large"]
            assert sum(length for _, length in blobs.ranges) < len(blob) * 1.2

    run(test)


archives = st.lists(
    st.tuples(st.integers(0, 40), st.one_of(st.integers(0, 2000), st.integers(0, 400_000))), max_size=12
).map(lambda sizes: {f"f{index}": words(seed, size) for index, (seed, size) in enumerate(sizes)})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    archive=archives,
    name=st.sampled_from(NAMED),
    spacing=st.sampled_from([1, 20_000, 150_000]),
    seed=st.integers(0, 99),
)
def test_any_archive_reads_as_it_was_written(
    archive: dict[str, bytes], name: str, spacing: int, seed: int
) -> None:
    async def test() -> None:
        blob = COMPRESSIONS[name](tarred(archive))
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            await compare(opened)
            await blobs.indexed()
        async with layer(blob, blobs) as opened:
            await compare(opened)

    async def compare(opened: IndexedLayer) -> None:
        chance = random.Random(seed)
        ranges: list[tuple[Member, int, int]] = []
        for member in await opened.members():
            ranges += [(member, chance.randrange(member.size + 1), chance.randrange(200_000)) for _ in "12"]
        chance.shuffle(ranges)
        for member, start, length in ranges:
            expected = archive[member.path.decode()][start : start + length]
            assert await opened.read(member, start, length) == expected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecs, "SPACING", spacing)
        patch.setattr(pieces, "PIECE", BLOCK)
        run(test)


# ── while the layer arrives ──


def test_a_file_is_served_once_the_pass_is_behind_it_and_its_end_with_the_layers_verdict() -> None:
    async def test() -> None:
        blob = gzipped(tarred({"first": words(1, 100_000), "second": words(2, 6 * MIB)}))
        blobs = MemoryBlobs(blob)
        blobs.gate = 2 * MIB
        async with layer(blob, blobs) as opened:
            first = (await opened.upto(1))[0]
            assert await opened.read(first, 0, 99_999) == words(1, 100_000)[:-1]
            assert not opened.verified
            assert not opened.is_complete
            ends: list[bytes] = []

            async def read_end() -> None:
                ends.append(await opened.read(first, 99_000, 1000))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_end)
                await trio.sleep(0.1)
                assert ends == []
                blobs.let(None)
            assert ends == [words(1, 100_000)[-1000:]]
            assert opened.verified

    run(test)


@pytest.mark.parametrize("compress", [gzipped, frames, lambda data: zstd.compress(data, 3), bytes])
def test_ranges_are_right_while_the_layer_arrives(compress: object) -> None:
    async def test() -> None:
        assert callable(compress)
        content = {f"f{number}": words(number, 400_000) for number in range(20)}
        blob = compress(tarred(content))
        blobs = MemoryBlobs(blob)
        blobs.gate = 0
        async with layer(blob, blobs) as opened, trio.open_nursery() as nursery:

            async def arrive() -> None:
                while blobs.gate is not None and blobs.gate < len(blob):
                    blobs.let(blobs.gate + 200_000)
                    await trio.sleep(0.005)
                blobs.let(None)

            nursery.start_soon(arrive)
            for count in range(1, 20):
                member = (await opened.upto(count))[count - 1]
                expected = content[member.path.decode()]
                for start in (0, 250_000, 399_000):
                    assert await opened.read(member, start, 900) == expected[start : start + 900]

    run(test)


def test_who_asks_for_members_waits_for_no_more_than_it_asks_for() -> None:
    async def test() -> None:
        blob = tarred({f"f{number}": words(number, 300_000) for number in range(20)})
        blobs = MemoryBlobs(blob)
        blobs.gate = 3 * MIB
        async with layer(blob, blobs) as opened:
            some = await opened.upto(5)
            assert [member.path for member in some][:5] == [b"f0", b"f1", b"f2", b"f3", b"f4"]
            with trio.move_on_after(0.1) as waited:
                await opened.upto(15)
            assert waited.cancelled_caught
            blobs.let(None)
            assert len(await opened.upto(99)) == 20
            assert await opened.members() is await opened.members()

    run(test)


def test_one_pass_serves_all_who_ask_at_once() -> None:
    async def test() -> None:
        blob = packed("gzip")
        blobs = MemoryBlobs(blob)
        async with layers(blobs) as opened, trio.open_nursery() as nursery:
            one = await opened.open("team/app", descriptor_of(blob))
            assert await opened.open("team/other", descriptor_of(blob)) is one
            assert blobs.opened == 0
            for _ in range(10):
                nursery.start_soon(one.members)
        assert sum(length for _, length in blobs.ranges) == len(blob)

    run(test)


def test_a_layer_that_nobody_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regfs.image.layerbytes.IDLE", 0.05)

    async def test() -> None:
        blob = packed("gzip")
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            members = await opened.members()
            await blobs.all_closed()
            assert await whole(opened, members[3]) == files()["etc/3"]
            assert blobs.opened == 2

    run(test)


def test_nothing_stays_open_when_the_mount_ends() -> None:
    async def test() -> None:
        blob = packed("gzip")
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            members = await opened.members()
            await whole(opened, members[3])
            assert blobs.closed == 1
        assert blobs.closed == blobs.opened == 2

    run(test)
