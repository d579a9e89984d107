"""Archives that lie, bombs, and cut-off ones: each costs itself, what is sound before it stays readable, and a line says so."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.errors import RegfsError
from regfs.image.archive_limits import ArchiveLimits
from regfs.image.codecs import GzipDecoder
from regfs.image.limits import Limits
from regfs.image.members import Member
from regfs.image.zstdlib import zstd
from tests.image.hands import (
    COMPRESSIONS,
    MIB,
    MemoryBlobs,
    contents,
    gzipped,
    layer,
    run,
    tarred,
    whole,
)
from tests.image.test_archives import signed, walked
from tests.image.test_reading import words

SOUND = {"a": b"first", "b": b"second" * 1000}


def good() -> bytes:
    """The two sound members, whole blocks, nothing behind them."""
    made = tarred(SOUND, tarfile.USTAR_FORMAT)
    return made[: 512 + 512 + 512 + 6144]


def header(
    name: bytes = b"bad", size: bytes = b"00000000000\0", kind: bytes = b"0", **fields: bytes
) -> bytes:
    """A header made by hand; ``at124=…`` puts bytes at an offset."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for place, value in fields.items():
        at = int(place.removeprefix("at"))
        block[at : at + len(value)] = value
    return signed(block)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header with these records, as they are."""
    body = b"".join(records)
    filled = body + bytes(-len(body) % 512)
    return header(b"pax", b"%011o\0" % len(body), kind) + filled


def record(key: bytes, value: bytes) -> bytes:
    """A record with the right length."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


END = bytes(1024)

DAMAGED: dict[str, bytes] = {
    "a wrong checksum": header()[:148] + b"0000001\0" + header()[156:] + END,
    "a header cut short": header()[:300],
    "a file cut short": header(size=b"00000010000\0") + b"x" * 100,
    "a size that lies": header(size=b"77777777777\0") + b"x" * 1000,
    "a size beyond 64 bits": header(size=b"\x80" + b"\xff" * 11) + END,
    "a size below zero": header(size=b"\xff" * 12) + END,
    "a size that is no number": header(size=b"hello world\0") + END,
    "a PAX header of megabytes": header(b"pax", b"00040000000\0", b"x") + bytes(8 * MIB) + header() + END,
    "a PAX header cut short": pax(record(b"path", b"x" * 600))[:700],
    "a PAX record whose length lies": pax(b"99999 path=x\n") + header() + END,
    "a PAX record of length zero": pax(b"0 path=x\n") + header() + END,
    "a PAX record without a key": pax(b"6 =x\n\n") + header() + END,
    "a PAX size that is no number": pax(record(b"size", b"many")) + header() + END,
    "a PAX size that lies": pax(record(b"size", b"9" * 18)) + header() + END,
    "extended headers without end": pax(record(b"path", b"x")) * 100 + header() + END,
    "noise": bytes(range(256)) * 8,
}

UNUSABLE: dict[str, bytes] = {
    "a type nobody knows": header(kind=b"Z", size=b"00000000010\0") + bytes(512),
    "a path that is too long": pax(record(b"path", b"x/" * 4000)) + header(),
    "a target that is too long": pax(record(b"linkpath", b"x/" * 4000)) + header(kind=b"2"),
    "a NUL in a path": pax(record(b"path", b"x\0y")) + header(),
    "an attribute that is too long": pax(record(b"SCHILY.xattr.user.x", b"y" * 70_000)) + header(),
    "attributes that are too many": pax(
        *(record(b"SCHILY.xattr.user.%d" % n, b"y" * 60_000) for n in range(5))
    )
    + header(),
    "an attribute that is not base64": pax(record(b"LIBARCHIVE.xattr.user.x", b"?*")) + header(),
    "an owner that is no number": header(at108=b"someone\0"),
    "a sparse map that goes back": pax(
        record(b"GNU.sparse.size", b"100"), record(b"GNU.sparse.map", b"50,10,20,5")
    )
    + header(size=b"00000000017\0")
    + bytes(512),
    "a sparse map that passes the end": pax(
        record(b"GNU.sparse.size", b"10"), record(b"GNU.sparse.map", b"5,10")
    )
    + header(size=b"00000000012\0")
    + bytes(512),
    "a sparse map of more than there is": pax(
        record(b"GNU.sparse.size", b"1000000"), record(b"GNU.sparse.map", b"0,999999")
    )
    + header(size=b"00000000010\0")
    + bytes(512),
    "a sparse map of half a region": pax(
        record(b"GNU.sparse.size", b"9"), record(b"GNU.sparse.map", b"1,2,3")
    )
    + header(),
    "a sparse map in the data that does not end": pax(
        record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.realsize", b"9")
    )
    + header(size=b"00000001000\0")
    + b"999\n" * 128,
    "an old sparse map that lies": header(
        kind=b"S",
        size=b"00000000010\0",
        at386=b"00000000000\x00" + b"77777777777\x00",
        at483=b"00000000010\0",
    )
    + bytes(512),
}


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_what_the_walk_cannot_go_on_from_leaves_what_is_before_it(name: str) -> None:
    async def test() -> None:
        for compress in (bytes, gzipped):
            async with layer(compress(good() + DAMAGED[name])) as opened:
                found = await contents(opened)
                assert {path.decode(): data for path, data in found.items()} == SOUND
                (fault,) = opened.faults
                assert "what is before that stays" in fault
                assert "\n" not in fault

    run(test)


@pytest.mark.parametrize("name", sorted(UNUSABLE))
def test_a_member_that_cannot_be_shown_costs_no_other(name: str) -> None:
    archive = good() + UNUSABLE[name] + header(b"behind") + END
    members, faults, _ = walked(archive)
    assert [member.path for member in members] == [b"a", b"b", b"behind"]
    (fault,) = faults
    assert "is left out: " in fault
    assert "\n" not in fault


def test_members_behind_the_end_are_ignored() -> None:
    archive = good() + END + header(b"hidden") + END
    assert [member.path for member in walked(archive)[0]] == [b"a", b"b"]
    lone = good() + bytes(512) + header(b"hidden") + END
    members, (fault,), _ = walked(lone)
    assert [member.path for member in members] == [b"a", b"b"]
    assert "lone block of zeros" in fault


def test_what_follows_the_end_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzipped(tarred(SOUND)) + gzipped(bytes(200 * MIB))
    taken = 0
    take = GzipDecoder.take

    def counted(decoder: GzipDecoder, most: int) -> bytes:
        nonlocal taken
        data = take(decoder, most)
        taken += len(data)
        return data

    monkeypatch.setattr(GzipDecoder, "take", counted)

    async def test() -> None:
        async with layer(bomb) as opened:
            assert len(await opened.members()) == 2
            assert opened.faults == []

    run(test)
    assert taken < 20 * MIB


@pytest.mark.parametrize("compress", [gzipped, lambda data: zstd.compress(data, 3)], ids=["gzip", "zstd"])
@pytest.mark.parametrize(
    ("limits", "word"),
    [(ArchiveLimits(unpacked=4 * MIB), "limit"), (ArchiveLimits(ratio=50, ratio_free=2 * MIB), "times")],
)
def test_a_bomb_ends_at_the_limit(
    compress: Callable[[bytes], bytes], limits: ArchiveLimits, word: str
) -> None:
    blob = compress(good() + header(b"bomb", b"%011o\0" % (400 * MIB)) + bytes(400 * MIB) + END)
    assert len(blob) < MIB

    async def test() -> None:
        async with layer(blob, archive_limits=limits) as opened:
            found = await contents(opened)
            assert {path.decode(): data for path, data in found.items()} == SOUND
            assert word in opened.faults[0]

    run(test)


def test_frames_without_number_end_at_the_limit() -> None:
    async def test() -> None:
        empty = zlib.compress(b"", wbits=31)
        blob = gzipped(good()) + empty * 5000 + gzipped(header(b"c") + END)
        async with layer(blob, archive_limits=ArchiveLimits(frames=1000)) as opened:
            assert len(await opened.members()) == 2
            assert "frames" in opened.faults[0]
        async with layer(blob) as opened:
            assert len(await opened.members()) == 3

    run(test)


def test_a_zstd_frame_that_wants_too_much_memory_is_not_read() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 24,
        zstd.CompressionParameter.compression_level: 3,
    }
    squeezer = zstd.ZstdCompressor(options=options)
    blob = squeezer.compress(tarred(SOUND)) + squeezer.flush()

    async def test() -> None:
        async with layer(blob, archive_limits=ArchiveLimits(window_log=20)) as opened:
            with pytest.raises(RegfsError):
                await opened.members()

    run(test)


def test_more_members_than_the_limit_are_not_held() -> None:
    archive = b"".join(header(b"%d" % number) for number in range(50))
    members, (fault,), _ = walked(archive, limits=Limits(members=20))
    assert len(members) == 20
    assert "more than 20 members" in fault


def test_of_thousands_of_faults_a_hundred_are_told() -> None:
    archive = good() + header(kind=b"Z") * 5000 + END

    async def test() -> None:
        async with layer(archive) as opened:
            assert len(await opened.members()) == 2
            assert len(opened.faults) == 101

    run(test)


@pytest.mark.parametrize("name", ["gzip", "gzip, many members", "zstd", "zstd, many frames", "plain"])
def test_a_layer_that_was_pushed_cut_short_is_read_up_to_there(name: str) -> None:
    archive = tarred({f"f{number}": bytes([number]) * 100_000 + b"end" for number in range(20)})
    blob = COMPRESSIONS[name](archive)
    blob = blob[: len(blob) * 3 // 4]

    async def test() -> None:
        async with layer(blob) as opened:
            members = await opened.members()
            assert 5 <= len(members) < 20
            for member in members:
                number = int(member.path[1:])
                assert await whole(opened, member) == bytes([number]) * 100_000 + b"end"
            assert opened.faults

    run(test)


def test_compressed_data_that_is_wrong_by_itself_is_read_up_to_there() -> None:
    written = {f"f{number}": words(number, 3000) for number in range(500)}
    blob = gzipped(tarred(written))
    half = len(blob) // 2
    broken = blob[:half] + b"\xff" * 100 + blob[half + 100 :]

    async def test() -> None:
        async with layer(broken) as opened:
            found = await contents(opened)
            assert 200 < len(found) < 300
            right = [path for path, data in found.items() if written.get(path.decode()) == data]
            assert len(right) >= len(found) - 40  # a block of deflate ends long after the damage in it
            assert "stays" in opened.faults[0]

    run(test)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=3000), piece=st.sampled_from([1, 100, 512, 5000]))
def test_noise_in_the_place_of_headers_never_ends_in_an_exception(data: bytes, piece: int) -> None:
    members, faults, _ = walked(good() + data, piece)
    assert [member.path for member in members[:2]] == [b"a", b"b"]
    assert all("\n" not in fault for fault in faults)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=6),
    kind=st.sampled_from(b"0125xgLKS7"),
)
def test_any_header_with_a_right_checksum_is_taken_or_told(changes: list[tuple[int, int]], kind: int) -> None:
    block = bytearray(header(kind=bytes([kind]), size=b"00000001000\0"))
    for at, value in changes:
        block[at] = value
    members, faults, _ = walked(good() + signed(block) + bytes(512) + header(b"behind") + END)
    assert [member.path for member in members[:2]] == [b"a", b"b"]
    assert len(members) > 2 or faults
    for member in members:
        assert_sane(member)


def assert_sane(member: Member) -> None:
    """What everybody who gets a member relies on."""
    assert 0 <= member.mode <= 0o7777
    assert 0 <= member.size < 2**63
    assert b"\0" not in member.path
    assert not member.path.startswith(b"/")
    end = 0
    for offset, length in member.sparse or ():
        assert offset >= end
        assert length > 0
        end = offset + length
        assert end <= member.size


def test_a_million_members_are_held_in_little_memory() -> None:
    import tracemalloc

    from regfs.image.table import MemberTable

    block = header(b"usr/share/some/folder/with/a/file-000000")
    tracemalloc.start()
    table = MemberTable()
    found, faults, _ = walked(block * 3)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100_000):
        table.append(found[0])
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert not faults
    assert taken < 15_000_000
    assert table[99_999] == found[0]


def test_nothing_of_a_bomb_is_kept_but_its_index() -> None:
    blob = gzipped(good() + header(b"bomb", b"%011o\0" % (100 * MIB)) + bytes(100 * MIB))

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs, archive_limits=ArchiveLimits(unpacked=16 * MIB)) as opened:
            await opened.members()
            await blobs.indexed()
            faults = opened.faults
        assert sum(map(len, blobs.kept.values())) < MIB
        blobs.ranges.clear()
        async with layer(blob, blobs, archive_limits=ArchiveLimits(unpacked=16 * MIB)) as opened:
            assert len(await opened.members()) == 2
            assert opened.faults == faults
            assert blobs.ranges == []

    run(test)


def test_tarfile_agrees_that_these_are_hand_made_headers_of_a_real_archive() -> None:
    made = good() + pax(record(b"path", b"long/" * 40 + b"name")) + header() + END
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        assert [info.name for info in tar] == ["a", "b", "long/" * 40 + "name"]


def test_a_limit_that_was_raised_lets_in_what_was_left_out() -> None:
    blob = gzipped(good() + header(b"large", b"%011o\0" % (20 * MIB)) + bytes(20 * MIB) + END)

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        async with layer(blob, blobs, archive_limits=ArchiveLimits(unpacked=16 * MIB)) as opened:
            assert len(await opened.members()) == 2
            await blobs.indexed()
        async with layer(blob, blobs) as opened:
            assert len(await opened.members()) == 3
            assert opened.faults == []

    run(test)
