"""A question indexes the layers it needs, those that are sure to be needed too at the same time, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from regfs.digest import Digest
from regfs.errors import DigestMismatch, NotADirectory, NotFound, Unsupported
from regfs.image.images import ImageTree, LayeredImages, why_unreadable
from regfs.image.limits import Limits
from regfs.image.members import MemberKind
from regfs.manifest import Descriptor, parse_manifest
from regfs.testing.images import make_artifact, make_index
from tests.support.archives import Item, MemoryLayer, archive, folder, hard, layered_image, link

BULK = 2 * 1024 * 1024


class MemoryLayers:
    """Layers by digest; each knows how often it was asked for its members."""

    def __init__(self, archives: Sequence[bytes]) -> None:
        self.all = [MemoryLayer(data) for data in archives]
        self._by_digest = {layer.digest: layer for layer in self.all}

    async def open(self, repository: str, descriptor: Descriptor) -> MemoryLayer:
        del repository
        return self._by_digest[descriptor.digest]

    @property
    def asked(self) -> list[bool]:
        return [layer.asked > 0 for layer in self.all]


class Given:
    """An image of these layers, the lowest first, and its tree."""

    def __init__(
        self, *layers: Sequence[Item], limits: Limits | None = None, kinds: Sequence[str] = ()
    ) -> None:
        archives = [archive(items) for items in layers]
        self.layers = MemoryLayers(archives)
        self.lines: list[str] = []
        self.images = LayeredImages(
            self.layers, limits=limits, report=lambda _where, line: self.lines.append(line)
        )
        made = layered_image(archives, media_types=kinds)
        self.manifest = parse_manifest(made.manifest.raw, made.manifest.media_type, made.digest)

    async def tree(self) -> ImageTree:
        return await self.images.root("team/app", self.manifest)


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test)


def bulk(seed: bytes) -> Item:
    return Item(b"bulk-" + seed, data=seed * BULK)


def test_to_open_an_image_asks_nothing() -> None:
    async def test() -> None:
        given = Given([Item(b"a")])
        await given.tree()
        assert given.layers.asked == [False]

    run(test)


def test_a_name_of_the_topmost_layer_needs_no_other() -> None:
    async def test() -> None:
        given = Given([bulk(b"1")], [Item(b"a")])
        tree = await given.tree()
        assert (await tree.find(b"a")).size == 0
        assert given.layers.asked == [False, True]
        with pytest.raises(NotFound):
            await tree.find(b"nowhere")
        assert given.layers.asked == [True, True]

    run(test)


def test_small_layers_below_are_indexed_along_with_the_one_that_is_needed() -> None:
    async def test() -> None:
        given = Given([bulk(b"1")], [Item(b"b")], [Item(b"a")])
        await (await given.tree()).find(b"a")
        assert given.layers.asked == [False, True, True]

    run(test)


def test_the_roots_listing_asks_for_all_layers_at_once() -> None:
    async def test() -> None:
        given = Given([bulk(b"1")], [bulk(b"2")], [bulk(b"3")])
        tree = await given.tree()
        assert [entry.path for entry in await tree.entries(b"")] == [b"bulk-1", b"bulk-2", b"bulk-3"]

    run(test)


def test_many_questions_at_once_get_the_same_answers() -> None:
    async def test() -> None:
        given = Given(
            [folder(b"d"), *(Item(b"d/%03d" % n, data=b"%d" % n) for n in range(300))], [bulk(b"1")]
        )
        tree = await given.tree()
        found: list[int] = []

        async def ask(name: bytes) -> None:
            found.append((await tree.find(name)).size)
            assert len(await tree.entries(b"d")) == 300

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(ask, b"d/%03d" % n)
        assert sorted(found) == [1] * 10 + [2] * 10

    run(test)


def test_a_link_of_a_layer_below_decides_where_a_member_belongs() -> None:
    async def test() -> None:
        given = Given(
            [folder(b"usr"), folder(b"usr/lib"), link(b"lib", b"usr/lib")], [Item(b"lib/so", data=b"x")]
        )
        tree = await given.tree()
        assert (await tree.find(b"usr/lib/so")).size == 1
        with pytest.raises(NotFound):
            await tree.find(b"lib/so")

    run(test)


def test_a_file_is_read_from_its_own_layer_and_a_hard_link_from_its_targets() -> None:
    async def test() -> None:
        given = Given([Item(b"a", data=b"below")], [hard(b"b", b"a"), Item(b"c", data=b"above")])
        tree = await given.tree()
        entry = await tree.find(b"b")
        assert (entry.links, entry.identity) == (2, (await tree.find(b"a")).identity)
        reader = await tree.open(entry)
        assert (reader.size, reader.verified) == (5, True)
        assert await reader.read(1, 3) == b"elo"
        assert tree.layer_of(entry) == given.manifest.layers[0].digest

    run(test)


def test_what_is_no_file_is_not_read_and_what_is_no_folder_not_listed() -> None:
    async def test() -> None:
        tree = await Given([folder(b"d"), Item(b"f"), link(b"l", b"d")]).tree()
        for path in (b"f", b"l", b"l/x"):
            with pytest.raises((NotADirectory, NotFound)):
                await tree.entries(path)

    run(test)


def test_a_wrong_layer_is_told_to_who_needs_it_and_asked_anew() -> None:
    async def test() -> None:
        given = Given([bulk(b"1")], [Item(b"a")])
        tree = await given.tree()
        given.layers.all[0].error = DigestMismatch("the bytes are not what the digest says")
        assert await tree.find(b"a")
        for _ in range(2):
            with pytest.raises(DigestMismatch):
                await tree.entries(b"")
        given.layers.all[0].error = None
        assert len(await tree.entries(b"")) == 2

    run(test)


def test_a_file_that_comes_short_is_an_error_never_an_early_end() -> None:
    async def test() -> None:
        given = Given([Item(b"a", data=b"x" * 1000)])
        tree = await given.tree()
        reader = await tree.open(await tree.find(b"a"))
        given.layers.all[0].data = given.layers.all[0].data[:700]
        with pytest.raises(DigestMismatch):
            await reader.read(0, 1000)

    run(test)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "elsewhere"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "elsewhere"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
        ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "kind"),
        ("", "kind"),
        ("application/vnd.oci.image.layer.v1.tar", ""),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", ""),
    ],
)
def test_a_layer_that_cannot_be_read_says_why(kind: str, reason: str) -> None:
    said = why_unreadable(Descriptor(kind, Digest.of(b""), 0))
    assert reason in said
    assert bool(said) is bool(reason)


def test_what_is_no_image_has_no_tree() -> None:
    async def test() -> None:
        images = LayeredImages(MemoryLayers([]))
        for made in (make_artifact(), make_index()):
            with pytest.raises(Unsupported):
                await images.root("team/app", made.parsed())

    run(test)


@pytest.mark.parametrize(
    ("limits", "item", "reason"),
    [
        (Limits(members=3), Item(b"late"), "over 3 members"),
        (Limits(path=20), Item(b"p" * 21), "over 20 bytes"),
        (Limits(name=5), Item(b"longer"), "over 5 bytes"),
        (Limits(depth=2), Item(b"1/2/3"), "over 2 folders deep"),
        (Limits(size=10), Item(b"huge", data=b"x" * 11), "a size of 11"),
    ],
)
def test_what_is_over_a_limit_is_left_out_with_a_line_and_the_rest_stays(
    limits: Limits, item: Item, reason: str
) -> None:
    async def test() -> None:
        given = Given([Item(b"a"), Item(b"b"), Item(b"c"), item], limits=limits)
        assert [entry.path for entry in await (await given.tree()).entries(b"")] == [b"a", b"b", b"c"]
        assert any(reason in line for line in given.lines), given.lines

    run(test)


def test_a_million_refused_members_make_few_lines() -> None:
    async def test() -> None:
        given = Given([Item(b"ok"), *(Item(b"ok/%d" % n, MemberKind.FIFO) for n in range(1000))])
        await (await given.tree()).find(b"ok")
        assert 1 < len(given.lines) < 50
        assert "980 more" in given.lines[-1]

    run(test)


def test_names_of_aufs_are_hidden_and_hard_links_to_them_work() -> None:
    async def test() -> None:
        given = Given(
            [Item(b".wh..wh.plnk/1", data=b"x"), hard(b"shown", b".wh..wh.plnk/1"), Item(b".wh..wh.aufs")]
        )
        tree = await given.tree()
        assert [entry.path for entry in await tree.entries(b"")] == [b"shown"]
        assert (await tree.find(b"shown")).links == 1
        with pytest.raises(NotFound):
            await tree.find(b".wh..wh.plnk/1")

    run(test)
