"""A name of a layer that is still arriving is told as the tree would have it if the layer ended there, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.image import early
from regfs.image.early import Early, EarlyLayer
from regfs.image.limits import Limits
from regfs.image.members import Member, MemberKind
from regfs.image.merge import LayerMissing, Merge, Place, walk
from regfs.ports import EntryKind, RootEntry
from tests.image.strategies import NAMES, items, layers
from tests.support.archives import Item, archive, folder, hard, link, members_of


class Waits(Exception):
    """More of the layer is waited for."""


@dataclass
class Arriving:
    """An `Arrival` of which so much has come. ``more`` holds what comes next."""

    members: list[Member]
    later: list[Member] = field(default_factory=list)
    is_over: bool = False
    verified: bool = False
    digest: Digest = field(default_factory=lambda: Digest.of(b""))

    def check(self) -> None:
        """Nothing is wrong."""

    async def more(self, count: int) -> None:
        await trio.lowlevel.checkpoint()
        if not self.later:
            raise Waits
        while len(self.members) <= count and self.later:
            self.members.append(self.later.pop(0))

    async def read(self, member: Member, start: int, length: int) -> bytes:
        raise NotImplementedError


def tables_of(image: Sequence[Sequence[Item]]) -> list[list[Member]]:
    return [members_of(archive(some)) for some in image]


def merge_of(tables: Sequence[Sequence[Member]], lowest: int = 0) -> Merge:
    """The layers down to ``lowest``, as far as they need none below."""
    merge = Merge(len(tables), raw_links=True)
    for layer in range(lowest, len(tables)):
        merge.add(layer, tables[layer])
    return merge


def layer_of(merge: Merge, layer: int, arrival: Arriving, limits: Limits | None = None) -> EarlyLayer:
    return EarlyLayer(
        arrival, layer, limits or Limits(), lambda path: merge.leaves(path, layer), raw_links=True
    )


def told(arriving: EarlyLayer, paths: Sequence[bytes]) -> dict[bytes, RootEntry]:
    """What is told of these paths without waiting."""
    found: dict[bytes, RootEntry] = {}

    async def ask() -> None:
        for path in paths:
            try:
                entry = await arriving.find(path)
            except Waits:
                continue
            if entry is not None:
                found[path] = entry

    trio.run(ask)
    return found


def plainly(entry: RootEntry, *, links: bool) -> RootEntry:
    """An entry without what makes a provisional one such; ``links``: their number too."""
    return replace(entry, identity=None, is_provisional=False, links=entry.links if links else 0)


def above(tables: Sequence[Sequence[Member]], layer: int) -> Merge | None:
    """The layers above one; None where they can't be added without it."""
    try:
        return merge_of(tables, layer + 1)
    except LayerMissing:
        return None


@settings(max_examples=300, deadline=None)
@given(image=layers, at=st.integers(0, 4), share=st.floats(0, 1), folders=st.booleans())
def test_what_is_told_early_is_what_the_tree_has_of_what_has_come(
    image: list[list[Item]], at: int, share: float, folders: bool
) -> None:
    layer = at % len(image)
    if folders:
        image[layer][:0] = [folder(name) for name in NAMES]
    tables = tables_of(image)
    upper = above(tables, layer)
    if upper is None:
        return
    cut = round(share * len(tables[layer]))
    before = [*tables[:layer], tables[layer][:cut], *tables[layer + 1 :]]
    tree = merge_of(before)
    paths = {entry.path for entry in walk(tree)} | {member.path for member in tables[layer] if member.path}
    arrival = Arriving(tables[layer][:cut])
    arriving = layer_of(upper, layer, arrival)
    has_links = any(member.kind is MemberKind.HARD_LINK for table in tables[layer + 1 :] for member in table)
    for path, entry in told(arriving, sorted(paths)).items():
        expected = tree.find(path)
        assert expected is not None, path
        assert entry.is_provisional
        identity = entry.identity
        assert isinstance(identity, Early)
        assert identity.has_member == (expected.identity is not None), path
        if not identity.has_member:
            assert entry.kind is expected.kind is EntryKind.FOLDER
            continue  # its time is known at its layer's end
        assert plainly(entry, links=not has_links) == plainly(expected, links=not has_links), path
        assert Place(identity.layer, identity.number).identity == expected.identity, path


plain_folders = st.lists(st.sampled_from([b"a", b"b", b"a/c", b"b/c"]), unique=True, max_size=4)


@settings(max_examples=100, deadline=None)
@given(folders=plain_folders, others=st.lists(items(), max_size=8), is_lowest=st.booleans())
def test_a_layer_as_tools_make_them_is_told_in_full(
    folders: list[bytes], others: list[Item], is_lowest: bool
) -> None:
    parents = {b"", *folders}
    made = [folder(path) for path in sorted(folders) if path.rpartition(b"/")[0] in parents]
    there = {b"", *(item.path for item in made)}
    files = {
        item.path: item
        for item in others
        if item.path.rpartition(b"/")[0] in there
        and item.path not in there
        and item.kind not in (MemberKind.HARD_LINK, MemberKind.FOLDER)
        and b".wh." not in item.path
    }
    table = members_of(archive([*made, *files.values()]))
    upper = Merge(1 if is_lowest else 2)
    arriving = layer_of(upper, 0 if is_lowest else 1, Arriving(table))
    paths = [member.path for member in table]
    assert sorted(told(arriving, paths)) == sorted(set(paths))


def test_a_name_is_told_once_its_member_has_come_and_not_before() -> None:
    table = members_of(archive([folder(b"a"), Item(b"a/x", data=b"1"), Item(b"a/y", data=b"2")]))
    arrival = Arriving(table[:1], table[1:])
    arriving = layer_of(Merge(1), 0, arrival)
    found: list[RootEntry | None] = []

    async def ask() -> None:
        found.append(await arriving.find(b"a/x"))

    trio.run(ask)
    assert found[0] is not None
    assert (found[0].size, len(arrival.members)) == (1, 2)


def test_the_last_of_several_members_of_a_name_counts_as_soon_as_it_has_come() -> None:
    table = members_of(archive([Item(b"x", data=b"1"), Item(b"x", data=b"22"), link(b"x", b"y")]))
    seen = []
    for count in (1, 2, 3):
        entry = told(layer_of(Merge(1), 0, Arriving(table[:count])), [b"x"])[b"x"]
        seen.append((entry.kind, entry.size))
    assert seen == [(EntryKind.FILE, 1), (EntryKind.FILE, 2), (EntryKind.LINK, 1)]


def test_names_of_one_file_are_told_with_one_identity() -> None:
    made = [Item(b"x", data=b"1"), hard(b"y", b"x"), hard(b"z", b"./x"), Item(b"z", data=b"another")]
    found = told(layer_of(Merge(2), 1, Arriving(members_of(archive(made)))), [b"x", b"y", b"z"])
    assert found[b"x"].identity == found[b"y"].identity != found[b"z"].identity
    assert [found[path].links for path in (b"x", b"y", b"z")] == [2, 2, 1]


def test_a_name_that_the_layers_above_removed_does_not_count() -> None:
    tables = tables_of([[], [Item(b"x", data=b"1"), hard(b"y", b"x"), hard(b"z", b"x")], [Item(b".wh.y")]])
    found = told(layer_of(merge_of(tables, 2), 1, Arriving(tables[1])), [b"x", b"y", b"z"])
    assert {path: entry.links for path, entry in found.items()} == {b"x": 2, b"z": 2}


def test_a_path_that_climbs_is_taken_back_within_the_root() -> None:
    made = [folder(b"a"), Item(b"../a/../b", data=b"1"), hard(b"c", b"a/../../b")]
    found = told(layer_of(Merge(2), 1, Arriving(members_of(archive(made)))), [b"b", b"c"])
    assert {path: entry.links for path, entry in found.items()} == {b"b": 2, b"c": 2}


def test_in_the_lowest_layer_no_link_can_stand_in_a_folders_place() -> None:
    found = told(
        layer_of(Merge(1), 0, Arriving(members_of(archive([Item(b"a/b/x")])))), [b"a", b"a/b", b"a/b/x"]
    )
    assert [(entry.kind, entry.mode) for entry in found.values()] == [
        (EntryKind.FOLDER, 0o755),
        (EntryKind.FOLDER, 0o755),
        (EntryKind.FILE, 0o644),
    ]


WAITING = {
    "below a file": [Item(b"a"), Item(b"a/x")],
    "a file over its folder": [folder(b"a"), Item(b"a/x"), Item(b"a")],
    "through a link, over it": [folder(b"a"), Item(b"a/x"), link(b"b", b"a"), Item(b"b/x", data=b"2")],
    "below a hard link": [folder(b"c"), Item(b"c/f"), link(b"l", b"c"), hard(b"a", b"l/f"), Item(b"a/x")],
    "a hard link to a folder": [folder(b"a"), folder(b"b"), hard(b"a/x", b"b")],
    "a hard link to itself": [folder(b"a"), Item(b"a/x"), hard(b"a/x", b"a/x")],
    "a hard link to what comes later": [folder(b"a"), Item(b"a/x"), hard(b"a/x", b"later"), Item(b"later")],
    "a hard link through a link": [folder(b"a"), Item(b"a/f"), link(b"l", b"a"), hard(b"a/x", b"l/f")],
    "a hard link to what is hidden": [folder(b"a"), Item(b"a/.wh..wh.f"), hard(b"a/x", b"a/.wh..wh.f")],
    "a hard link to nothing": [folder(b"a"), hard(b"a/x", b"below")],
}
WAITING_ABOVE_OTHERS = {
    "a folder without a member": [Item(b"a/x")],
    "such a folder, behind it": [folder(b"a"), Item(b"a/x"), Item(b"c/y")],
}


@pytest.mark.parametrize(
    ("members", "is_lowest"),
    [
        *(
            pytest.param(made, low, id=f"{name}, {low}")
            for name, made in WAITING.items()
            for low in (True, False)
        ),
        *(pytest.param(made, False, id=name) for name, made in WAITING_ABOVE_OTHERS.items()),
    ],
)
def test_what_more_than_its_own_member_decides_waits(members: list[Item], is_lowest: bool) -> None:
    layer = 0 if is_lowest else 1
    assert told(layer_of(Merge(layer + 1), layer, Arriving(members_of(archive(members)))), [b"a/x"]) == {}


@pytest.mark.parametrize(
    "upper",
    [
        [Item(b".wh.a")],
        [folder(b"a"), Item(b"a/.wh.x")],
        [folder(b"a"), Item(b"a/.wh..wh..opq")],
        [folder(b"a"), Item(b"a/x")],
        [folder(b"a"), folder(b"a/x")],
        [Item(b"a")],
    ],
)
def test_what_the_layers_above_replace_or_hide_is_not_told(upper: list[Item]) -> None:
    tables = tables_of([[], [folder(b"a"), Item(b"a/x"), Item(b"a/z")], upper])
    arriving = layer_of(merge_of(tables, 2), 1, Arriving(tables[1]))
    assert b"a/x" not in told(arriving, [b"a/x"])


def test_what_a_limit_leaves_out_is_not_told() -> None:
    made = [folder(b"a"), Item(b"a/" + b"x" * 300), Item(b"/".join([b"d"] * 300))]
    paths = [item.path for item in made] + [b"d"]
    assert list(told(layer_of(Merge(1), 0, Arriving(members_of(archive(made)))), paths)) == [b"a"]


def test_paths_of_no_end_take_no_room() -> None:
    deep = [Item(b"%02d/" % number + b"d/" * 2000 + b"x") for number in range(20)]
    table = members_of(archive([*deep, Item(b"z")]))
    assert list(told(layer_of(Merge(1), 0, Arriving(table)), [b"z"])) == [b"z"]


def test_names_beyond_what_may_be_held_wait_for_the_layers_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "_ROOM", 100 * 150)
    table = members_of(archive([Item(b"%04d" % number) for number in range(300)]))
    assert len(told(layer_of(Merge(1), 0, Arriving(table[:100])), [member.path for member in table])) == 100
    assert told(layer_of(Merge(1), 0, Arriving(table)), [member.path for member in table]) == {}


def test_many_who_ask_at_once_are_told_the_same() -> None:
    names = [b"%05d" % number for number in range(10_000)]
    files = [Member(name, MemberKind.FILE, 0o644, size=int(name)) for name in names]
    links = [Member(name + b"-too", MemberKind.HARD_LINK, 0o644, target=name) for name in names]
    arriving = layer_of(Merge(1), 0, Arriving([*files, *links]))
    asked = [member.path for member in (*files[:20], *links[-20:])]
    found: dict[bytes, tuple[int, int]] = {}

    async def ask(path: bytes) -> None:
        entry = await arriving.find(path)
        assert entry is not None
        found[path] = entry.size, entry.links

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            for path in asked:
                nursery.start_soon(ask, path)

    trio.run(test)
    assert found == {path: (int(path[:5]), 2) for path in asked}
