"""Which files differ between two images: what the layers of one of them name, compared, is all that differs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.cli.differences import Change, shared_below
from regfs.cli.filediff import Comparison, FileTree, Touched
from regfs.digest import Digest
from regfs.errors import NotFound
from regfs.image.members import OPAQUE, WHITEOUT, Member, MemberKind
from regfs.image.merge import LayerMissing, Merge
from regfs.manifest import Descriptor
from regfs.ports import ContentReader, RootEntries, RootEntry, RootTree

T = TypeVar("T")
Layer = tuple[Member, ...]


@dataclass
class MemoryReader:
    data: bytes
    size: int = 0
    verified: bool = True

    async def read(self, start: int, length: int) -> bytes:
        return self.data[start : start + length]

    async def aclose(self) -> None:
        """Nothing is held."""


@dataclass
class MemoryRoot:
    """A RootTree over layers in memory; a file's bytes are its ``offset`` digit, ``size`` times. Notes what it looks into."""

    layers: Sequence[Layer]
    used: set[int] = field(default_factory=set)
    opened: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.merge = Merge(len(self.layers))

    def _ask(self, question: Callable[[bytes], T], path: bytes) -> T:
        while True:
            try:
                return question(path)
            except LayerMissing as missing:
                self._add(missing.layer)

    def _add(self, layer: int) -> None:
        self.used.add(layer)
        try:
            self.merge.add(layer, self.layers[layer])
        except LayerMissing as missing:
            self._add(missing.layer)
            self._add(layer)

    async def find(self, path: bytes) -> RootEntry:
        found: RootEntry | None = self._ask(self.merge.find, path)
        if found is None:
            raise NotFound(repr(path))
        return found

    async def soon(self, path: bytes) -> RootEntry:
        return await self.find(path)

    def opened_of_late(self, identity: Hashable) -> ContentReader | None:
        return None

    def became(self, identity: Hashable) -> Hashable:
        return identity

    async def entries(self, path: bytes) -> RootEntries:
        found: RootEntries | None = self._ask(self.merge.entries, path)
        if found is None:
            raise NotFound(repr(path))
        return found

    def again(self, path: bytes, identity: Hashable) -> RootEntry:
        found = self.merge.again(path, identity)
        assert found is not None
        return found

    def layer_of(self, entry: RootEntry) -> Digest | None:
        return (
            None
            if entry.identity is None
            else descriptors(self.layers)[self.merge.place_of(entry).layer].digest
        )

    async def open(self, entry: RootEntry) -> MemoryReader:
        self.opened.append(entry.path)
        member = self.merge.member(self.merge.place_of(entry))
        return MemoryReader(bytes([48 + member.offset % 10]) * member.size)


def descriptors(layers: Sequence[Layer]) -> list[Descriptor]:
    return [Descriptor("", Digest.of(repr(layer).encode()), 1) for layer in layers]


def tree(layers: Sequence[Layer]) -> tuple[FileTree, MemoryRoot]:
    root = MemoryRoot(layers)
    as_port: RootTree = root
    return FileTree(as_port, descriptors(layers)), root


def compared(a: Sequence[Layer], b: Sequence[Layer]) -> tuple[list[Change], MemoryRoot, MemoryRoot]:
    (one, root_a), (other, root_b) = tree(a), tree(b)
    shared = shared_below(one.layers, other.layers)
    touched = Touched()
    for layer in (*a[shared:], *b[shared:]):
        touched.take(layer)
    return trio.run(Comparison(one, other).changes, touched), root_a, root_b


def shown(changes: Sequence[Change]) -> list[str]:
    return [f"{c.sign} {c.name}" + (f" {','.join(c.what)}" if c.what else "") for c in changes]


def a_file(path: str, size: int = 1, seed: int = 0, **more: Any) -> Member:
    return Member(path.encode(), MemberKind.FILE, 0o644, size=size, offset=seed, **more)


def a_folder(path: str) -> Member:
    return Member(path.encode(), MemberKind.FOLDER, 0o755)


def a_link(path: str, target: str) -> Member:
    return Member(path.encode(), MemberKind.LINK, 0o777, target=target.encode())


def without(path: str) -> Member:
    folder, _, name = path.rpartition("/")
    return a_file(f"{folder}/{WHITEOUT.decode()}{name}".lstrip("/"), 0)


def emptied(path: str) -> Member:
    return a_file(f"{path}/{OPAQUE.decode()}", 0)


BASE: Layer = (
    a_folder("etc"),
    a_file("etc/a", seed=1),
    a_file("etc/b", seed=2),
    a_folder("opt"),
    a_file("opt/x"),
)


def test_added_removed_and_changed_files_are_told_apart() -> None:
    top: Layer = (a_file("etc/a", seed=3), without("etc/b"), a_file("new"))
    changes, _, _ = compared([BASE], [BASE, top])
    assert shown(changes) == ["~ etc/a content", "- etc/b", "+ new"]


def test_mode_owner_size_type_and_target_are_named() -> None:
    old: Layer = (a_file("a", 1), a_file("b"), a_link("l", "x"), a_file("t"))
    new: Layer = (a_file("a", 2), a_file("b", uid=7), a_link("l", "y"), a_folder("t"))
    changes, _, _ = compared([old], [new])
    assert shown(changes) == ["~ a size,content", "~ b owner", "~ l target", "~ t type,mode"]


def test_a_file_that_was_written_anew_with_the_same_bytes_is_no_difference() -> None:
    old: Layer = (a_file("a", mtime_ns=1),)
    new: Layer = (a_file("a", mtime_ns=2_000_000_000),)
    assert compared([old], [new])[0] == []
    (one, _), (other, _) = tree([old]), tree([new])
    touched = Touched({b"a"})
    assert shown(trio.run(Comparison(one, other, times=True).changes, touched)) == ["~ a time"]


def test_same_size_and_time_is_not_taken_for_the_same_bytes() -> None:
    changes, _, _ = compared([(a_file("a", 5, seed=1),)], [(a_file("a", 5, seed=2),)])
    assert shown(changes) == ["~ a content"]


def test_what_only_one_image_has_is_named_with_all_that_is_in_it() -> None:
    changes, _, _ = compared([BASE], [BASE, (without("opt"),)])
    assert shown(changes) == ["- opt", "- opt/x"]


def test_an_emptied_folder_is_compared_as_a_whole() -> None:
    changes, _, _ = compared([BASE], [BASE, (a_folder("etc"), emptied("etc"), a_file("etc/b", seed=2))])
    assert shown(changes) == ["- etc/a"]


def test_a_layer_that_names_files_through_a_link_is_understood() -> None:
    base: Layer = (a_folder("usr"), a_folder("usr/lib"), a_link("lib", "usr/lib"))
    changes, _, _ = compared([base], [base, (a_file("lib/x"),)])
    assert shown(changes) == ["+ usr/lib/x"]


def test_layers_that_both_have_at_the_bottom_are_not_looked_into_where_the_answer_does_not_need_them() -> (
    None
):
    old: Layer = (a_folder("app"), a_file("app/x", seed=1), a_file("app/y"))
    new: Layer = (a_folder("app"), a_file("app/x", seed=2), a_file("app/y"))
    changes, root_a, root_b = compared([BASE, old], [BASE, new])
    assert shown(changes) == ["~ app/x content"]
    assert root_a.used == root_b.used == {1}


def test_no_file_of_a_layer_that_both_have_is_read() -> None:
    base: Layer = (*BASE, a_folder("usr"), a_link("lib", "usr"))
    changes, root_a, root_b = compared(
        [base], [base, (a_file("lib/x"),)]
    )  # all is looked at, since a link is in the way
    assert shown(changes) == ["+ usr/x"]
    assert root_a.opened == root_b.opened == []


# ── whatever the layers: the same as comparing everything ──

PATHS = ["a", "b", "a/a", "a/b", "a/b/a", "b/a", "l", "l/a"]

members = st.one_of(
    st.builds(a_file, st.sampled_from(PATHS), st.integers(0, 2), st.integers(0, 2)),
    st.builds(a_folder, st.sampled_from(PATHS)),
    st.builds(a_link, st.sampled_from(PATHS), st.sampled_from(["a", "b/a", "/b", "nowhere"])),
    st.builds(without, st.sampled_from(PATHS)),
    st.builds(emptied, st.sampled_from(["a", "a/b", "b", "l"])),
)
layers = st.lists(st.lists(members, max_size=5).map(tuple), max_size=3)


@settings(max_examples=300, deadline=None)
@given(layers, layers, layers)
def test_what_the_layers_name_is_all_that_can_differ(
    below: list[Layer], one: list[Layer], other: list[Layer]
) -> None:
    a, b = below + one, below + other
    changes, _, _ = compared(a, b)
    (tree_a, _), (tree_b, _) = tree(a), tree(b)
    assert shown(changes) == shown(trio.run(Comparison(tree_a, tree_b).everything))
