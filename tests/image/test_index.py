"""The index that is kept of a layer: small, checked, made anew where it is damaged or of another version."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.image import indexfile
from regfs.image.checked import CHUNK, HASH
from regfs.image.codecs import Checkpoint, Codec
from regfs.image.indexfile import LayerIndex, Unreadable, pack, unpack
from regfs.image.members import Member, MemberKind
from regfs.image.spans import Spans
from regfs.image.table import MemberTable
from tests.image.hands import MemoryBlobs, gzipped, layer, run, tarred, whole
from tests.image.test_reading import words

whole_numbers = st.integers(-(2**63) + 1, 2**63 - 1)
regions = st.lists(st.integers(1, 1000), max_size=6).map(
    lambda steps: tuple((sum(steps[:at]), 1) for at in range(1, len(steps) + 1))
)
members = st.builds(
    Member,
    path=st.binary(max_size=40).map(lambda path: path.replace(b"\0", b"")),
    kind=st.sampled_from(MemberKind),
    mode=st.integers(0, 0o7777),
    uid=whole_numbers,
    gid=whole_numbers,
    mtime_ns=whole_numbers,
    size=st.integers(0, 2**63 - 1),
    offset=st.integers(0, 2**63 - 1),
    target=st.binary(max_size=20),
    device=st.integers(0, 2**63),
    xattrs=st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=2).map(tuple),
    sparse=st.one_of(st.none(), regions),
)


def index_of(found: list[Member], size: int = 3 * CHUNK + 5) -> LayerIndex:
    """An index with these members and a few checkpoints."""
    table = MemberTable()
    for member in found:
        table.append(member)
    spans = Spans(Codec.GZIP)
    spans.add(Checkpoint(2_000_000, 700_000, 3, words(1, 32_768)))
    spans.add(Checkpoint(4_000_000, 780_000))
    spans.finish(size)
    return LayerIndex(size, table, spans, bytes(4 * HASH), {2: b"h" * 32}, ["a fault"], "limits")


@settings(max_examples=100, deadline=None)
@given(found=st.lists(members, max_size=8))
def test_what_is_kept_comes_back_as_it_was(found: list[Member]) -> None:
    index = index_of(found)
    again = unpack(pack(index), index.size)
    assert list(index.members) == found
    assert list(again.members) == found
    assert again.members[:] == found
    assert [again.members[-number] for number in range(1, len(found) + 1)] == found[::-1]
    assert (again.hashes, again.pieces, again.faults) == (index.hashes, index.pieces, index.faults)
    assert again.limits == index.limits
    assert len(again.spans) == 3
    for out in (0, 1_999_999, 2_000_000, 3_999_999, 4_000_000, 10**9):
        assert again.spans.find(out) == index.spans.find(out)
    assert again.spans.find(2_500_000).start.window == words(1, 32_768)


def test_damage_anywhere_is_noticed() -> None:
    index = index_of([Member(b"path/%d" % number, MemberKind.FILE, 0o644) for number in range(100)])
    good = pack(index)
    chance = random.Random(1)
    for at in [*range(60), *(chance.randrange(len(good)) for _ in range(200))]:
        with pytest.raises(Unreadable):
            unpack(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], index.size)
        with pytest.raises(Unreadable):
            unpack(good[:at], index.size)
    for other in (b"", good + b"x"):
        with pytest.raises(Unreadable):
            unpack(other, index.size)


def test_the_index_of_a_layer_of_another_size_is_not_taken() -> None:
    index = index_of([])
    with pytest.raises(Unreadable):
        unpack(pack(index), index.size + 1)


@pytest.mark.parametrize("damage", ["flipped", "cut short", "empty", "another version", "not one at all"])
def test_a_damaged_index_is_made_anew(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"f{number}": words(number, 50_000) for number in range(10)}
    blob = gzipped(tarred(files))

    def damaged(data: bytes) -> bytes:
        as_it_was = unpack(data, len(blob))
        if damage == "another version":
            with monkeypatch.context() as patch:
                patch.setattr(indexfile, "VERSION", indexfile.VERSION - 1)
                return pack(as_it_was)
        return {
            "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
            "cut short": data[: len(data) // 2],
            "empty": b"",
            "not one at all": b"hello",
        }[damage]

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            await opened.members()
            await blobs.indexed()
        (key,) = (key for key in blobs.kept if key[1] == indexfile.NAME)
        good = blobs.kept[key]
        blobs.kept[key] = damaged(good)
        async with layer(blob, blobs) as opened:
            for member in await opened.members():
                assert await whole(opened, member) == files[member.path.decode()]
            while blobs.kept[key] != good:
                await blobs.kept_more()
        blobs.ranges.clear()
        async with layer(blob, blobs) as opened:
            assert len(await opened.members()) == 10
            assert blobs.ranges == []

    run(test)


def test_an_index_is_small() -> None:
    files = {f"usr/share/folder{number // 50}/file-{number}": b"x" * (number % 700) for number in range(5000)}
    blob = gzipped(tarred(files))

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs) as opened:
            await opened.members()
            await blobs.indexed()
        kept = blobs.kept[Digest.of(blob), indexfile.NAME, indexfile.VERSION]
        assert len(kept) < 5000 * 8 + 40_000

    run(test)


def test_a_table_is_a_sequence_that_grows() -> None:
    table = MemberTable()
    assert list(table) == []
    with pytest.raises(IndexError):
        table[0]
    one = Member(b"a", MemberKind.FILE, 0o644, size=5)
    table.append(one)
    reading = iter(table)
    assert next(reading) == one
    two = Member(b"", MemberKind.FOLDER, 0o755, xattrs=((b"user.x", b"1"),))
    table.append(two)
    assert next(reading) == two
    assert table[-1] == two
    assert table[0:1] == [one]
    assert len(table) == 2


def test_members_that_were_kept_are_held_in_a_third_of_the_memory() -> None:
    import tracemalloc

    path = b"usr/share/some/folder/with/a/file-%06d"
    tracemalloc.start()
    index = index_of([])
    for number in range(50_000):
        index.members.append(Member(path % number, MemberKind.FILE, 0o644, size=number, mtime_ns=number))
    before = tracemalloc.get_traced_memory()[0]
    pack(index)
    index.members.tree = None
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after < before / 3
    assert index.members[49_999].path == path % 49_999
