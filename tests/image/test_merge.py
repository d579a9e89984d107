"""The tree of an image is what its layers make one after another, whichever part of it is asked for first."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings

from regfs.image.members import Member, MemberKind
from regfs.image.merge import LayerMissing, Merge, walk
from regfs.ports import EntryKind, RootEntry
from tests.image.plain_merge import Extractor
from tests.image.strategies import layers
from tests.support.archives import Item, archive, members_of


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
