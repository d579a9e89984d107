"""The rules of layers one by one, each in the smallest image that shows it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from regfs.image.members import MemberKind
from regfs.image.merge import Merge, walk
from regfs.ports import EntryKind
from tests.support.archives import Item, archive, folder, hard, link, members_of

A_OVER = [folder(b"a"), Item(b"a/x", data=b"below")]


def tree(*layers: Sequence[Item]) -> tuple[list[bytes], list[str]]:
    """The paths of an image of these layers, the lowest first, and what is said to be left out."""
    said: list[str] = []
    merge = Merge(len(layers), on_fault=lambda _layer, line: said.append(line))
    for number, items in enumerate(layers):
        merge.add(number, members_of(archive(items)))
    return [entry.path for entry in walk(merge)], said


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ([Item(b".wh.a")], []),
        ([Item(b"a/.wh.x")], [b"a"]),
        ([Item(b"a/.wh..wh..opq")], [b"a"]),
        ([Item(b".wh..wh..opq")], []),
        ([Item(b"a/.wh..wh..opq"), Item(b"a/y")], [b"a", b"a/y"]),
        ([Item(b"a/y"), Item(b"a/.wh..wh..opq")], [b"a", b"a/y"]),
        ([folder(b"a"), Item(b".wh.a")], [b"a"]),
        ([Item(b"a/x"), Item(b"a/.wh.x")], [b"a", b"a/x"]),
        ([Item(b"a")], [b"a"]),
        ([Item(b"a"), folder(b"a")], [b"a"]),
        ([link(b"a", b"b"), folder(b"a")], [b"a"]),
        ([folder(b"a")], [b"a", b"a/x"]),
        ([Item(b"b/.wh.c")], [b"a", b"a/x"]),
        ([Item(b"b/.wh..wh..opq")], [b"a", b"a/x"]),
        ([link(b"b", b"a"), Item(b"b/y")], [b"a", b"b", b"a/x", b"a/y"]),
        ([link(b"b", b"/../a"), Item(b"b/../z")], [b"a", b"b", b"z", b"a/x"]),
    ],
)
def test_what_an_upper_layer_does_to_a_folder_with_a_file(over: list[Item], expected: list[bytes]) -> None:
    paths, said = tree(A_OVER, over)
    assert sorted(paths) == sorted(expected)
    assert said == []


@pytest.mark.parametrize("target", [b"..", b"b", b"/b"])
def test_a_folder_in_the_place_of_a_link_below_is_entered_by_nobody_through_that_link(target: bytes) -> None:
    below = [folder(b"b"), folder(b"b/c"), Item(b"b/f"), link(b"a", target)]
    paths, said = tree(below, [folder(b"a"), Item(b"a/c/x")])
    assert paths == [b"a", b"a/c", b"a/c/x", b"b", b"b/c", b"b/f"]
    assert said == []
    paths, said = tree(below, [folder(b"a"), hard(b"h", b"a/f")])
    assert paths == [b"a", b"b", b"b/c", b"b/f"]
    assert ["h is left out" in line for line in said] == [True]


def test_a_member_that_takes_the_place_of_a_link_on_the_way_to_its_own_folder_ends_that_way() -> None:
    paths, said = tree([link(b"d", b".")], [Item(b"d/c"), Item(b"d/d"), Item(b"d/e")])
    assert paths == [b"c", b"d"]
    assert said == ["d/e is left out: its folder d is no folder"]
    paths, said = tree([link(b"d", b"."), Item(b"d/c"), Item(b"d/d"), Item(b"d/e")])
    assert paths == [b"c", b"d"]
    assert said == ["d/e is left out: its folder d is no folder"]


def test_members_of_one_folder_are_judged_one_by_one() -> None:
    long = b"x" * 256
    paths, said = tree(
        [Item(b"a/x"), Item(b"a/" + long), Item(b"a/.wh.y"), Item(b"a/.wh..wh.plnk"), Item(b"a/z")]
    )
    assert paths == [b"a", b"a/x", b"a/z"]
    assert len(said) == 1
    assert "over 255 bytes" in said[0]


def test_a_folder_of_three_layers_has_the_attributes_of_the_topmost_that_has_a_member_for_it() -> None:
    merge = Merge(3)
    for number, items in enumerate(([folder(b"a", 0o700)], [folder(b"a", 0o711)], [Item(b"a/x")])):
        merge.add(number, members_of(archive(items)))
    found = merge.find(b"a")
    assert found is not None
    assert found.mode == 0o711


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([hard(b"h", b"nowhere")], "no file below"),
        ([folder(b"d"), hard(b"h", b"d")], "a folder"),
        ([hard(b"h", b"/")], "the root"),
        ([Item(b".wh.a"), hard(b"h", b"a")], "not there"),
        ([Item(b"f"), Item(b"f/x")], "no folder"),
        ([link(b"l", b"l"), Item(b"l/x")], "without an end"),
        ([Item(b".wh.")], "removes nothing"),
        ([Item(b".wh..")], "removes nothing"),
        ([Item(b".wh.d/x")], "name of a whiteout"),
        ([Item(b"./", MemberKind.FIFO)], "the root"),
    ],
)
def test_what_cannot_be_made_is_left_out_with_a_line(items: list[Item], reason: str) -> None:
    paths, said = tree([Item(b"sound")], items)
    assert b"sound" in paths
    assert any(reason in line for line in said), said


def test_a_line_about_a_strange_name_steers_no_terminal() -> None:
    _, said = tree([hard(b"\x1b[2J\n" + b"x" * 300, b"nowhere")])
    assert all(line.isprintable() for line in said)
    assert all(len(line) < 400 for line in said)


def test_an_image_without_layers_is_an_empty_root() -> None:
    merge = Merge(0)
    root = merge.find(b"")
    assert root is not None
    assert root.kind is EntryKind.FOLDER
    assert list(merge.entries(b"") or ()) == []
