"""What an image's tree says of a file while its layer is still arriving, and what becomes of that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from regfs.digest import Digest
from regfs.errors import ConnectionFailed, DigestMismatch, NotFound
from regfs.image.images import ImageTree, LayeredImages
from regfs.image.limits import Limits
from regfs.image.unpack import Unpacker
from regfs.image.zstdlib import zstd
from regfs.manifest import parse_manifest
from regfs.ports import EntryKind, RootEntry
from tests.image.hands import MIB, MemoryBlobs, frames, gzipped, layers, members, run
from tests.image.test_reading import words
from tests.support.archives import Item, archive, folder, hard, layered_image, link

SMALL = words(1, 100_000)
BULK = Item(b"bulk", data=words(2, 12 * MIB))
"""What comes behind the files that are asked for; at `HELD` its layer's bytes are held back."""
HELD = 2 * MIB

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzipped,
    "gzip, many members": members,
    "zstd": zstd.compress,
    "zstd, many frames": frames,
}


class Image:
    """An image of these layers, the lowest first; of its bytes so many come as ``blobs.gate`` says."""

    def __init__(
        self, *made: Sequence[Item], compress: Callable[[bytes], bytes] = bytes, limits: Limits | None = None
    ) -> None:
        self.blobs_of_layers = [compress(archive(items)) for items in made]
        self.blobs = MemoryBlobs(*self.blobs_of_layers)
        self.blobs.gate = HELD
        self.limits = limits
        image = layered_image(self.blobs_of_layers)
        self.manifest = parse_manifest(image.manifest.raw, image.manifest.media_type, image.digest)

    def damage(self, layer: int, change: Callable[[bytes], bytes]) -> None:
        """The registry has something else under a layer's digest."""
        blob = self.blobs_of_layers[layer]
        self.blobs.data[Digest.of(blob)] = change(blob)

    @asynccontextmanager
    async def mounted(self) -> AsyncIterator[ImageTree]:
        """Its tree, as long as a mount lasts."""
        async with layers(self.blobs, self.limits) as opened:
            yield await LayeredImages(opened, limits=self.limits).root("team/app", self.manifest)


def flipped(blob: bytes) -> bytes:
    """One bit near the end is another."""
    return blob[:-5000] + bytes([blob[-5000] ^ 1]) + blob[-4999:]


async def waits(question: Callable[[], object]) -> bool:
    """Whether a question is not answered by and by."""
    with trio.move_on_after(0.1) as scope:
        await question()  # type: ignore[misc]  # they are all coroutine functions
    return scope.cancelled_caught


@pytest.mark.parametrize("way", COMPRESSED)
def test_a_file_is_read_while_its_layer_arrives_but_for_its_last_byte(way: str) -> None:
    async def test() -> None:
        image = Image([folder(b"etc"), Item(b"etc/x", data=SMALL), BULK], compress=COMPRESSED[way])
        async with image.mounted() as tree:
            entry = await tree.soon(b"etc/x")
            assert (entry.size, entry.mode, entry.is_provisional) == (len(SMALL), 0o644, True)
            assert tree.layer_of(entry) == image.manifest.layers[0].digest
            assert tree.again(entry.path, entry.identity) == entry
            reader = await tree.open(entry)
            assert await reader.read(0, len(SMALL) - 1) == SMALL[:-1]
            assert await reader.read(500, 1000) == SMALL[500:1500]
            assert not reader.verified
            assert await waits(lambda: reader.read(len(SMALL) - 1, 1))
            assert tree.became(entry.identity) is None
            image.blobs.let(None)
            assert await reader.read(0, 2 * len(SMALL)) == SMALL
            assert reader.verified
            final = await tree.soon(b"etc/x")
            assert not final.is_provisional
            assert final == await tree.find(b"etc/x")
            assert tree.became(entry.identity) == final.identity

    run(test)


def test_only_who_asks_for_it_is_told_early_and_listings_wait() -> None:
    async def test() -> None:
        image = Image([folder(b"etc"), Item(b"etc/x", data=SMALL), BULK])
        async with image.mounted() as tree:
            assert (await tree.soon(b"etc")).kind is EntryKind.FOLDER
            assert await waits(lambda: tree.find(b"etc/x"))
            assert await waits(lambda: tree.entries(b"etc"))
            assert await waits(lambda: tree.soon(b"etc/nowhere"))
            image.blobs.let(None)
            assert [entry.path for entry in await tree.entries(b"etc")] == [b"etc/x"]
            with pytest.raises(NotFound):
                await tree.soon(b"etc/nowhere")

    run(test)


def test_all_kinds_of_names_are_told_early() -> None:
    async def test() -> None:
        image = Image([folder(b"a", 0o700), link(b"a/l", b"/x"), hard(b"a/h", b"a/l"), BULK])
        async with image.mounted() as tree:
            found = [await tree.soon(path) for path in (b"a", b"a/l", b"a/h")]
            image.blobs.let(None)
            final = [await tree.find(path) for path in (b"a", b"a/l", b"a/h")]
            shown = [(entry.kind, entry.mode, entry.target, entry.links) for entry in found]
            assert shown == [(entry.kind, entry.mode, entry.target, entry.links) for entry in final]
            assert [tree.became(entry.identity) for entry in found] == [entry.identity for entry in final]

    run(test)


@pytest.mark.parametrize(
    ("later", "size"),
    [([Item(b"x", data=b"later")], 5), ([Item(b"y", data=b"1"), hard(b"x", b"y")], 1)],
    ids=["another member", "a hard link"],
)
def test_what_comes_later_in_the_layer_takes_a_names_place(later: list[Item], size: int) -> None:
    async def test() -> None:
        image = Image([Item(b"x", data=SMALL), BULK, *later])
        async with image.mounted() as tree:
            entry = await tree.soon(b"x")
            reader = await tree.open(entry)
            image.blobs.let(None)
            assert (await tree.find(b"x")).size == size
            final = await tree.soon(b"x")
            assert final.size == size
            assert tree.became(entry.identity) != final.identity
            assert await reader.read(0, len(SMALL)) == SMALL  # an open file is the one that was opened

    run(test)


def test_layers_above_that_are_indexed_have_the_first_word() -> None:
    async def test() -> None:
        lower = [folder(b"a"), Item(b"a/x", data=SMALL), Item(b"a/y", data=SMALL), Item(b"a/z"), BULK]
        image = Image(lower, [folder(b"a", 0o700), Item(b"a/x", data=b"above"), Item(b"a/.wh.y")])
        async with image.mounted() as tree:
            assert (await tree.soon(b"a/z")).is_provisional
            for path in (b"a", b"a/x"):
                assert not (await tree.soon(path)).is_provisional
            with pytest.raises(NotFound):
                await tree.soon(b"a/y")

    run(test)


def test_small_layers_below_come_along() -> None:
    async def test() -> None:
        image = Image([Item(b"low")], [Item(b"x", data=SMALL), BULK])
        async with image.mounted() as tree:
            await tree.soon(b"x")
            await image.blobs.indexed()
            assert len(image.blobs.kept) == 1

    run(test)


def test_a_layer_whose_index_was_kept_is_told_of_for_good() -> None:
    async def test() -> None:
        image = Image([Item(b"x", data=SMALL), BULK])
        image.blobs.let(None)
        async with image.mounted() as tree:
            await tree.find(b"x")
            await image.blobs.indexed()
        image.blobs.gate = 0
        async with image.mounted() as tree:
            assert not (await tree.soon(b"x")).is_provisional

    run(test)


# ── a layer that is not what its digest says ──


@pytest.mark.parametrize("way", COMPRESSED)
def test_no_file_of_a_wrong_layer_is_read_to_its_end(way: str) -> None:
    async def test() -> None:
        image = Image([Item(b"x", data=SMALL), Item(b"empty"), BULK], compress=COMPRESSED[way])
        image.damage(0, flipped)
        async with image.mounted() as tree:
            entry, empty = await tree.soon(b"x"), await tree.soon(b"empty")
            readers = [await tree.open(entry), await tree.open(entry)]
            assert await readers[0].read(0, 5000) == SMALL[:5000]
            assert not readers[0].verified
            ends: list[bytes] = []

            async def read_end(one: RootEntry, start: int) -> None:
                with pytest.raises(DigestMismatch):
                    ends.append(await (await tree.open(one)).read(start, MIB))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_end, entry, 0)
                nursery.start_soon(read_end, entry, len(SMALL) - 1)
                nursery.start_soon(read_end, empty, 0)
                await trio.sleep(0.05)
                image.blobs.let(None)
            assert ends == []
            assert not any(image.blobs.kept.values())
            opened = image.blobs.opened
            for reader in readers:
                with pytest.raises(DigestMismatch):
                    await reader.read(0, 10)
                assert not reader.verified
            assert image.blobs.opened == opened

    run(test)


def test_what_was_told_of_a_wrong_layer_stays_wrong_when_the_next_one_gets_the_right_one() -> None:
    async def test() -> None:
        image = Image([Item(b"x", data=SMALL), BULK])
        image.damage(0, flipped)
        async with image.mounted() as tree:
            wrong = await tree.soon(b"x")
            reader = await tree.open(wrong)
            await reader.read(0, 10)
            image.blobs.let(None)
            with pytest.raises(DigestMismatch):
                await reader.read(0, len(SMALL))
            image.damage(0, bytes)
            image.blobs.gate = HELD
            again = await tree.soon(b"x")
            assert again.is_provisional
            assert again.identity != wrong.identity
            with pytest.raises(DigestMismatch):
                await reader.read(0, 10)
            with pytest.raises(DigestMismatch):
                await tree.open(wrong)
            image.blobs.let(None)
            final = await tree.find(b"x")
            assert tree.became(again.identity) == final.identity
            assert tree.became(wrong.identity) is None
            with pytest.raises(DigestMismatch):
                await reader.read(0, len(SMALL))

    run(test)


def test_a_read_that_is_under_way_when_a_layer_proves_wrong_gives_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = trio.Event()
    unpacked = Unpacker.read

    async def slow(self: Unpacker, start: int, end: int, known: int | None) -> bytes:
        data = await unpacked(self, start, end, known)
        await go_on.wait()
        return data

    monkeypatch.setattr(Unpacker, "read", slow)

    async def test() -> None:
        image = Image([Item(b"x", data=SMALL), BULK])
        image.damage(0, flipped)
        async with image.mounted() as tree:
            reader = await tree.open(await tree.soon(b"x"))

            async def read() -> None:
                with pytest.raises(DigestMismatch):
                    await reader.read(0, 10)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked(0.05)
                image.blobs.let(None)
                with pytest.raises(DigestMismatch):
                    await tree.find(b"x")
                go_on.set()

    run(test)


def test_what_a_registry_says_in_the_middle_reaches_the_reader_and_the_next_one_asks_anew() -> None:
    async def test() -> None:
        image = Image([Item(b"x", data=SMALL), BULK])
        async with image.mounted() as tree:
            entry = await tree.soon(b"x")
            reader = await tree.open(entry)
            image.blobs.fails = ConnectionFailed("the connection was lost")
            image.blobs.let(None)
            with pytest.raises(ConnectionFailed):
                await reader.read(0, len(SMALL))
            image.blobs.fails = None
            with pytest.raises(ConnectionFailed):
                await reader.read(0, 10)
            found = await tree.soon(b"x")
            assert await (await tree.open(found)).read(0, len(SMALL)) == SMALL

    run(test)
