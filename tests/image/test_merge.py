"""The tree of an image is what its layers make one after another, whichever part of it is asked for first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings

from regfs.image import merge_layer
from regfs.image.codecs import Codec
from regfs.image.indexfile import LayerIndex, pack, unpack
from regfs.image.limits import Limits
from regfs.image.members import Member, MemberKind
from regfs.image.merge import LayerMissing, Merge, walk
from regfs.image.spans import Spans
from regfs.image.table import MemberTable
from regfs.ports import EntryKind, EntryRow, RootEntry
from tests.image.plain_merge import Extractor
from tests.image.strategies import layers
from tests.support.archives import Item, archive, folder, hard, link, members_of


def merged(tables: Sequence[Sequence[Member]], faults: list[str] | None = None) -> Merge:
    """All layers merged, the lowest first."""
    said = [] if faults is None else faults
    merge = Merge(len(tables), raw_links=True, on_fault=lambda _layer, line: said.append(line))
    for layer, table in enumerate(tables):
        merge.add(layer, table)
    return merge


def plain(tables: Sequence[Sequence[Member]]) -> Extractor:
    extractor = Extractor()
    for layer, table in enumerate(tables):
        extractor.apply(layer, table)
    return extractor


_KINDS = {
    EntryKind.FILE: MemberKind.FILE,
    EntryKind.FOLDER: MemberKind.FOLDER,
    EntryKind.LINK: MemberKind.LINK,
    EntryKind.FIFO: MemberKind.FIFO,
}


@settings(max_examples=400, deadline=None)
@given(layers)
def test_the_tree_equals_what_an_extractor_makes(image: list[list[Item]]) -> None:
    tables = [members_of(archive(items)) for items in image]
    extractor = plain(tables)
    expected = dict(extractor.walk())
    merge = merged(tables)
    found = {entry.path: entry for entry in walk(merge)}
    assert sorted(found) == sorted(expected)
    things = [id(thing) for thing in expected.values()]
    for path, thing in expected.items():
        entry = found[path]
        assert _KINDS[entry.kind] is thing.kind, path
        if thing.kind is not MemberKind.FOLDER:
            assert entry.links == things.count(id(thing)), path
            place = merge.place_of(entry)
            assert (place.layer, place.member) == thing.content, path
        if thing.member is not None and thing.content is not None:
            member = tables[thing.content[0]][thing.content[1]]
            assert (entry.mode, entry.uid, entry.gid, entry.mtime_ns) == _facts(
                thing.member if thing.kind is MemberKind.FOLDER else member
            ), path
            assert entry.target == member.target


def _facts(member: Member) -> tuple[int, int, int, int]:
    return member.mode, member.uid, member.gid, member.mtime_ns


@settings(max_examples=150, deadline=None)
@given(layers)
def test_a_question_asked_first_is_answered_as_one_asked_last(image: list[list[Item]]) -> None:
    tables = [members_of(archive(items)) for items in image]
    whole = merged(tables)
    for entry in walk(whole):
        lazy = Merge(len(tables), raw_links=True)
        assert _asked(lazy, tables, entry.path) == entry
        assert lazy.again(entry.path, entry.identity) == entry


def _asked(merge: Merge, tables: Sequence[Sequence[Member]], path: bytes) -> RootEntry | None:
    while True:
        try:
            return merge.find(path)
        except LayerMissing as missing:
            _add(merge, tables, missing.layer)


def _add(merge: Merge, tables: Sequence[Sequence[Member]], layer: int) -> None:
    try:
        merge.add(layer, tables[layer])
    except LayerMissing as missing:
        _add(merge, tables, missing.layer)
        _add(merge, tables, layer)


# ── as they are kept ──


def kept(table: Sequence[Member], limits: Limits | None = None) -> MemberTable:
    """A layer's members as they come out of an index that was kept."""
    spans = Spans(Codec.PLAIN)
    spans.finish(0)
    index = LayerIndex(0, MemberTable.of_members(table), spans, b"", {}, [], "")
    return unpack(pack(index, limits), 0).members


@settings(max_examples=200, deadline=None)
@given(layers)
def test_layers_whose_index_was_kept_make_the_same_tree(image: list[list[Item]]) -> None:
    tables = [members_of(archive(items)) for items in image]
    said: list[str] = []
    said_again: list[str] = []
    fresh = merged(tables, said)
    loaded = merged([kept(table) for table in tables], said_again)
    assert list(walk(loaded)) == list(walk(fresh))
    assert said_again == said


@settings(max_examples=200, deadline=None)
@given(layers)
def test_a_row_says_what_its_entry_says(image: list[list[Item]]) -> None:
    tables = [kept(members_of(archive(items))) for items in image]
    for raw_links in (False, True):
        merge = Merge(len(tables), raw_links=raw_links)
        for layer, table in enumerate(tables):
            merge.add(layer, table)
        for path in [b"", *(entry.path for entry in walk(merge) if entry.kind is EntryKind.FOLDER)]:
            entries = merge.entries(path)
            assert entries is not None
            assert [entry.path for entry in entries] == sorted(entry.path for entry in entries)
            expected = [_row(entry) for entry in entries]
            assert list(entries.rows(0, len(entries))) == expected
            assert list(entries.rows(1, 3)) == expected[1:3]
            assert list(entries.rows(len(entries), 99)) == []


def _row(entry: RootEntry) -> EntryRow:
    e = entry
    return e.path.rpartition(b"/")[2], e.kind, e.mode, e.uid, e.gid, e.size, e.mtime_ns, e.links, e.identity


def _paths(merge: Merge) -> Iterator[bytes]:
    return (entry.path for entry in walk(merge))


BIG = [folder(b"usr"), *(Item(b"usr/%d" % number, data=b"x" * number) for number in range(600))]


def test_what_a_kept_layer_makes_is_not_found_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    table = kept(members_of(archive(BIG)))
    monkeypatch.setattr(merge_layer, "build_layer", None)
    merge = merged([table])
    found = merge.find(b"usr/77")
    assert found is not None
    assert found.size == 77
    assert [entry.path for entry in merge.entries(b"usr") or ()] == sorted(b"usr/%d" % n for n in range(600))
    assert merge.member(merge.place_of(found)).path == b"usr/77"


def test_a_kept_layer_is_looked_at_anew_within_other_limits() -> None:
    table = kept(members_of(archive(BIG)), Limits(members=3))
    assert list(_paths(merged([table]))) == [b"usr", *sorted(b"usr/%d" % n for n in range(600))]
    said: list[str] = []
    merge = Merge(1, Limits(members=3), on_fault=lambda _layer, line: said.append(line))
    merge.add(0, table)
    assert list(_paths(merge)) == [b"usr", b"usr/0", b"usr/1"]
    assert said == ["over 3 members: the rest is left out"]


def test_a_kept_layer_whose_folder_is_a_link_below_goes_where_that_leads() -> None:
    below = [folder(b"real"), link(b"lib", b"real")]
    above = [Item(b"lib/x"), Item(b"other/y")]
    merge = merged([kept(members_of(archive(items))) for items in (below, above)])
    assert list(_paths(merge)) == [b"lib", b"other", b"other/y", b"real", b"real/x"]


def test_a_folder_of_a_kept_layer_counts_the_names_that_other_layers_give_its_files() -> None:
    below = [folder(b"a"), Item(b"a/x"), Item(b"a/y")]
    above = [hard(b"z", b"a/x")]
    merge = merged([kept(members_of(archive(items))) for items in (below, above)])
    entries = merge.entries(b"a")
    assert entries is not None
    assert [(row[0], row[7]) for row in entries.rows(0, 2)] == [(b"x", 2), (b"y", 1)]
