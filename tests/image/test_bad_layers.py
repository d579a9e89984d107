"""A layer that is not what its digest says: no file in it is read to its end, and nothing of it is kept."""

from __future__ import annotations

import random
import zlib

import pytest
import trio
import trio.lowlevel

from regfs.digest import Digest
from regfs.errors import BadReply, DigestMismatch, NotFound, Unsupported
from regfs.image import pieces
from regfs.image.blocks import BLOCK
from regfs.image.checked import CHUNK
from regfs.image.layer import IndexedLayer
from regfs.image.members import MemberKind
from tests.image.hands import COMPRESSIONS, MIB, MemoryBlobs, descriptor_of, layers, run, tarred, whole
from tests.image.test_reading import words

FILES = {f"f{number}": words(number, 400_000) for number in range(8)}
WAYS = ["plain", "gzip", "gzip, many members", "zstd", "zstd, many frames"]


def flipped(blob: bytes, at: int) -> bytes:
    """One bit is another."""
    return blob[:at] + bytes([blob[at] ^ 16]) + blob[at + 1 :]


async def read_all(opened: IndexedLayer) -> int:
    """Read every file that it shows to the end; how many ended cleanly."""
    clean = 0
    for count in range(1, len(FILES) + 1):
        try:
            member = (await opened.upto(count))[count - 1]
            assert await whole(opened, member)
            clean += 1
        except (DigestMismatch, IndexError):
            continue
    return clean


@pytest.mark.parametrize("judges", [True, False], ids=["the blob is judged", "nobody judges it but the pass"])
@pytest.mark.parametrize("name", WAYS)
def test_a_flipped_bit_anywhere_lets_no_file_be_read_to_its_end(
    name: str, judges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", BLOCK)  # so that there are some, of zstd
    blob = COMPRESSIONS[name](tarred(FILES))

    async def test() -> None:
        chance = random.Random(name)
        for at in [0, 1, len(blob) - 1, *(chance.randrange(len(blob)) for _ in range(6))]:
            blobs = MemoryBlobs(judges=judges)
            blobs.data = {Digest.of(blob): flipped(blob, at)}
            async with layers(blobs) as opened:
                bad = await opened.open("team/app", descriptor_of(blob))
                assert await read_all(bad) == 0
                assert not bad.verified
                with pytest.raises((DigestMismatch, Unsupported)):
                    await bad.members()
                assert not any(blobs.kept.values())

    run(test)


@pytest.mark.parametrize("name", WAYS)
def test_what_was_read_before_the_verdict_was_not_verified(name: str) -> None:
    blob = COMPRESSIONS[name](tarred(FILES))

    async def test() -> None:
        blobs = MemoryBlobs()
        blobs.data = {Digest.of(blob): flipped(blob, len(blob) - 3000)}
        blobs.gate = MIB + 1000
        async with layers(blobs) as opened:
            bad = await opened.open("team/app", descriptor_of(blob))
            first = (await bad.upto(1))[0]
            assert await bad.read(first, 0, 1000) == FILES["f0"][:1000]
            assert not bad.verified
            blobs.let(None)
            with pytest.raises(DigestMismatch):
                await bad.read(first, 1000, MIB)

    run(test)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("change", [lambda blob: blob[:-1], lambda blob: blob + b"\0"], ids=["short", "long"])
def test_a_layer_that_is_shorter_or_longer_than_its_descriptor(name: str, change: object) -> None:
    blob = COMPRESSIONS[name](tarred(FILES))

    async def test() -> None:
        assert callable(change)
        blobs = MemoryBlobs(judges=False)
        blobs.data = {Digest.of(blob): change(blob)}
        async with layers(blobs) as opened:
            bad = await opened.open("team/app", descriptor_of(blob))
            assert await read_all(bad) == 0
            assert not any(blobs.kept.values())

    run(test)


@pytest.mark.parametrize("name", WAYS)
def test_the_next_one_who_asks_gets_it_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", BLOCK)
    blob = COMPRESSIONS[name](tarred(FILES))

    async def test() -> None:
        blobs = MemoryBlobs()
        blobs.data = {Digest.of(blob): flipped(blob, len(blob) // 2)}
        async with layers(blobs) as opened:
            asked = await opened.open("team/app", descriptor_of(blob))
            assert await read_all(asked) == 0
            blobs.data = {Digest.of(blob): blob}
            assert await read_all(asked) == len(FILES)
            assert asked.verified

    run(test)


@pytest.mark.parametrize("name", ["plain", "gzip", "zstd, many frames"])
def test_a_range_that_is_fetched_later_is_verified_too(name: str) -> None:
    blob = COMPRESSIONS[name](tarred(FILES))

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        async with layers(blobs) as opened:
            asked = await opened.open("team/app", descriptor_of(blob))
            members = await asked.members()
            await blobs.indexed()
        blobs.data = {Digest.of(blob): flipped(blob, len(blob) // 2)}
        blobs.judges = False
        async with layers(blobs) as opened:
            asked = await opened.open("team/app", descriptor_of(blob))
            assert asked.verified is False
            clean = 0
            for member in await asked.members():
                try:
                    assert await whole(asked, member) == FILES[member.path.decode()]
                    clean += 1
                except DigestMismatch:
                    continue
            assert asked.verified
            assert 3 <= clean < len(members)

    run(test)


@pytest.mark.parametrize("name", ["gzip", "zstd, many frames"])
def test_what_was_damaged_in_the_cache_under_a_running_daemon_is_fetched_anew(name: str) -> None:
    blob = COMPRESSIONS[name](tarred(FILES))

    async def test() -> None:
        blobs = MemoryBlobs(blob, is_local=True)
        async with layers(blobs) as opened:
            asked = await opened.open("team/app", descriptor_of(blob))
            members = await asked.members()
            blobs.data = {Digest.of(blob): blob[: len(blob) // 2] + bytes(len(blob) - len(blob) // 2)}

            async def mend() -> None:
                while blobs.closed < 2:  # the pass has let go of its own one before
                    await blobs.kept_more()
                blobs.data = {Digest.of(blob): blob}

            async with trio.open_nursery() as nursery:
                nursery.start_soon(mend)
                for member in members:
                    assert await whole(asked, member) == FILES[member.path.decode()]
                nursery.cancel_scope.cancel()

    run(test)


@pytest.mark.parametrize("damage", [b"", b"nonsense"])
def test_a_damaged_piece_is_made_again(damage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2 * BLOCK)
    blob = COMPRESSIONS["zstd"](tarred(FILES))

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        async with layers(blobs) as opened:
            asked = await opened.open("team/app", descriptor_of(blob))
            members = await asked.members()
            await blobs.indexed()
            for key in blobs.kept:
                if key[1].startswith("piece-"):
                    blobs.kept[key] = damage
            for member in reversed(members):
                assert await whole(asked, member) == FILES[member.path.decode()]
            assert sum(value != damage for value in blobs.kept.values()) > 5

    run(test)


def test_an_error_of_the_registry_reaches_who_asked_and_the_next_one_asks_anew() -> None:
    blob = COMPRESSIONS["gzip"](tarred(FILES))

    async def test() -> None:
        blobs = MemoryBlobs(blob)
        fails = [True]
        real = blobs.open

        async def failing(repository: str, descriptor: object) -> object:
            if fails.pop():
                fails.append(False)
                raise NotFound("no such blob", registry="localhost")
            fails.append(False)
            return await real(repository, descriptor)  # type: ignore[arg-type]

        blobs.open = failing  # type: ignore[assignment, method-assign]
        async with layers(blobs) as opened:
            asked = await opened.open("team/app", descriptor_of(blob))
            with pytest.raises(NotFound):
                await asked.members()
            assert len(await asked.members()) == len(FILES)

    run(test)


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (b"BZh91AY&SY", Unsupported),
        (b"\xfd7zXZ\x00\x00", Unsupported),
        (b"PK\x03\x04" + bytes(600), Unsupported),
        (b"hello, I am no archive at all\n" * 100, BadReply),
        (b"short", BadReply),
        (zlib.compress(b"x" * 1000, wbits=31), BadReply),
    ],
)
def test_what_is_no_layer_is_said_so(blob: bytes, error: type[Exception]) -> None:
    async def test() -> None:
        blobs = MemoryBlobs(blob)
        async with layers(blobs) as opened:
            asked = await opened.open("team/app", descriptor_of(blob))
            with pytest.raises(error):
                await asked.members()
            assert not blobs.kept

    run(test)


def test_chunks_are_hashed_whatever_pieces_they_come_in() -> None:
    from regfs.image.checked import ChunkHasher, wrong_chunks

    data = words(3, 3 * CHUNK + 77)
    expected = ChunkHasher()
    expected.update(data)
    hashes = expected.finish()
    for size in (1000, CHUNK - 1, CHUNK, CHUNK + 1):
        hasher = ChunkHasher()
        for at in range(0, len(data), size):
            hasher.update(data[at : at + size])
        assert hasher.finish() == hashes
    assert list(wrong_chunks(hashes, 0, data)) == []
    assert list(wrong_chunks(hashes, CHUNK, flipped(data, 2 * CHUNK + 5)[CHUNK:])) == [2 * CHUNK]
    assert {member.value for member in MemberKind} == set(range(7))
