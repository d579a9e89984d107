"""Properties of the tree's parts: the inode table, the log of errors, the fence, and the walker."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from regfs.fence import Fence
from regfs.testing.memory import MemorySource
from regfs.tree.errorlog import KEEP_LINES, ErrorLog
from regfs.tree.inodes import ROOT, Inodes
from regfs.tree.nodes import Folder, Node
from tests.tree.kernel import mounted, run

# ── the inode table ──


class InodeTable(RuleBasedStateMachine):
    """A kernel that looks names up, lists folders and forgets, against counts of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Folder(None, "")
        self.inodes = Inodes(self.root)
        self.counts: Counter[int] = Counter()
        self.parents: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def known(self, draw: st.DataObject) -> Node:
        """A folder that the kernel may use: the root, or one that it has looked up."""
        return self.inodes[draw.draw(st.sampled_from([ROOT, *sorted(self.counts)]))]

    @rule(data=st.data(), name=st.sampled_from("abc"))
    def look_up(self, data: st.DataObject, name: str) -> None:
        parent = self.known(data)
        node = parent.child(name, lambda: Folder(parent, name))
        self.inodes.remember(node)
        self.note(node)

    @rule(data=st.data(), name=st.sampled_from("abc"))
    def look_up_what_is_absent(self, data: st.DataObject, name: str) -> None:
        parent = self.known(data)
        self.inodes.drop_if_unused(parent.child(name, lambda: Folder(parent, name)))

    @rule(data=st.data(), taken=st.lists(st.sampled_from("abc"), unique=True))
    def list(self, data: st.DataObject, taken: list[str]) -> None:
        """Of the entries the kernel takes some; the others must leave nothing."""
        parent = self.known(data)
        for name in "abc":
            node = parent.child(name, lambda n=name: Folder(parent, n))  # type: ignore[misc]
            self.inodes.number(node)
            if name in taken:
                self.inodes.remember(node)
                self.note(node)
            self.inodes.drop_if_unused(node)

    @rule(data=st.data(), name=st.sampled_from("abc"))
    def look_up_while_it_is_forgotten(self, data: st.DataObject, name: str) -> None:
        """A node is found; before it is remembered, another look-up of it fails and lets it go."""
        parent = self.known(data)
        node = parent.child(name, lambda: Folder(parent, name))
        self.inodes.drop_if_unused(node)
        self.inodes.remember(node)
        self.note(node)

    def note(self, node: Node) -> None:
        assert node.parent is not None
        place = (node.parent.ino, node.name)
        assert (
            self.parents.setdefault(node.ino, place[0]),
            self.names.setdefault(node.ino, place[1]),
        ) == place
        self.counts[node.ino] += 1

    @precondition(lambda self: self.counts)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """The kernel forgets some of the lookups of an inode: the last only once it holds no child of it."""
        ino = data.draw(st.sampled_from(sorted(self.counts)))
        held = any(self.parents[other] == ino for other in self.counts)
        most = self.counts[ino] - held
        lookups = data.draw(st.integers(0, most))
        self.inodes.forget(ino, lookups)
        self.counts[ino] -= lookups
        self.counts = +self.counts

    @invariant()
    def the_table_holds_what_the_kernel_holds(self) -> None:
        assert {node.ino for node in self.inodes.nodes()} == {ROOT, *self.counts}
        assert {ino: self.inodes[ino].lookups for ino in self.counts} == dict(self.counts)

    @invariant()
    def a_nodes_children_are_those_of_the_table(self) -> None:
        for node in self.inodes.nodes():
            below = {name: child.ino for name, child in (node.children or {}).items()}
            assert below == {self.names[ino]: ino for ino in self.counts if self.parents[ino] == node.ino}


TestInodeTable = InodeTable.TestCase
TestInodeTable.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


# ── the log of errors ──


@dataclass
class Reader:
    """A `tail -f`: what it has read so far."""

    offset: int
    data: bytes = b""


@dataclass
class Followed:
    """A log with its readers, and every line that was ever added."""

    log: ErrorLog = field(default_factory=ErrorLog)
    readers: list[Reader] = field(default_factory=list)
    added: int = 0


@settings(deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 150)),
            st.tuples(st.just("open"), st.just(0)),
            st.tuples(st.just("close"), st.just(0)),
            st.tuples(st.just("read"), st.integers(1, 5000)),
        ),
        max_size=25,
    )
)
def test_who_follows_the_log_of_errors_misses_no_line_of_it(steps: list[tuple[str, int]]) -> None:
    followed = Followed()
    log = followed.log
    for what, number in steps:
        if what == "add":
            for _ in range(number):
                log.add("a/b", f"line {followed.added}", 0.0)
                followed.added += 1
        elif what == "open":
            log.open()
            followed.readers.append(Reader(log.size))
        elif what == "close" and followed.readers:
            reader = followed.readers.pop()
            reader.data += log.read(reader.offset, log.size)
            numbers = [int(line.rpartition(b" ")[2]) for line in reader.data.splitlines()]
            assert numbers == list(range(followed.added - len(numbers), followed.added))
            log.close()
        elif what == "read":
            for reader in followed.readers:
                piece = log.read(reader.offset, number)
                reader.offset += len(piece)
                reader.data += piece
        kept = [int(line.rpartition(" ")[2]) for line in log.lines()]
        assert kept == list(range(max(0, followed.added - KEEP_LINES), followed.added))
        assert followed.readers or len(log.read(0, log.size).splitlines()) <= KEEP_LINES


@given(where=st.text(max_size=50), what=st.text(max_size=300), time=st.floats(0, 4e9))
def test_an_error_is_one_printable_line_whatever_a_registry_says(where: str, what: str, time: float) -> None:
    log = ErrorLog()
    log.add(where, what, time)
    (line,) = log.lines()
    assert line.isprintable()
    assert log.read(0, log.size).decode().endswith("\n")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line)


# ── the fence ──

GLOBS = st.lists(
    st.lists(st.sampled_from(["a", "b", "*", "**", "a*", "?", "*b"]), min_size=1, max_size=3).map("/".join),
    min_size=1,
    max_size=3,
)
COMPONENTS = ("a", "b", "ab")


def matches(glob: str, name: str) -> bool:
    """The fence's rule again, by one regular expression over all components."""
    parts = {"**": "(?:/[^/]+)*"}
    pattern = "".join(
        parts.get(part) or "/" + part.replace("*", "[^/]*").replace("?", "[^/]") for part in glob.split("/")
    )
    return re.fullmatch(pattern, f"/{name}") is not None


def all_names(depth: int) -> Iterator[str]:
    """Every name of up to ``depth`` components."""
    for length in range(1, depth + 1):
        yield from map("/".join, product(COMPONENTS, repeat=length))


@settings(deadline=None, max_examples=60)
@given(globs=GLOBS)
def test_a_fence_holds_what_its_globs_match_and_leads_to_what_it_holds(globs: list[str]) -> None:
    fence = Fence(globs)
    assert fence
    held = {name for name in all_names(5) if any(matches(glob, name) for glob in globs)}
    for name in all_names(5):
        assert fence.holds(name) == (name in held), name
    for name in all_names(2):
        leads = any(other == name or other.startswith(f"{name}/") for other in held)
        assert fence.leads_to(name) == leads, name
    assert fence.leads_to("")


@given(name=st.sampled_from(sorted(all_names(3))))
def test_no_fence_holds_everything(name: str) -> None:
    fence = Fence([])
    assert not fence
    assert fence.holds(name)
    assert fence.leads_to(name)


# ── the walker ──

AHEAD = 16


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    delay=st.sampled_from([0.0, 0.02, 1.0]),
    thinking=st.sampled_from([0.0, 0.001, 0.5, 6.0]),
    stop_after=st.integers(1, 120),
)
def test_a_walker_is_fetched_ahead_of_by_sixteen_at_most_and_nothing_is_asked_twice(
    sizes: list[int], delay: float, thinking: float, stop_after: int
) -> None:
    async def test() -> None:
        import trio

        source = MemorySource()
        for number, size in enumerate(sizes):
            source.push(f"r{number}", [f"t{n:02}" for n in range(size)])
        source.delay(delay, "manifest")
        async with mounted(source, ttl=10_000) as kernel:
            visited = 0
            for number in range(len(sizes)):
                for tag in await kernel.ls(f"r{number}"):
                    if visited == stop_after:
                        break
                    await kernel.cat(f"r{number}/{tag}/manifest.json")
                    visited += 1
                    assert source.count("manifest") - visited <= AHEAD
                    await trio.sleep(thinking)
            await trio.sleep(100)
            assert source.count("manifest") - visited <= AHEAD
            asked = Counter((call.method, call.repository, call.reference) for call in source.calls)
            assert [call for call, times in asked.items() if times > 1] == []

    run(test)
