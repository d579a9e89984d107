"""The count of what is taken is never less than what is there, whatever several processes do in turn."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.cache.derived import path_of, write_derived
from regfs.cache.folder import Folder
from regfs.cache.partial import Partial
from regfs.cache.room import Lease, Room
from regfs.digest import Digest
from tests.cache.hands import MB, content, taken

LIMIT = 2 * MB
CONTENTS = [content(n, 150_000 * (n + 1)) for n in range(5)]
DIGESTS = [Digest.of(data) for data in CONTENTS]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["append", "append", "append", "range", "close", "drop", "derive", "recount", "halve"]
        ),
        st.integers(0, 4),
        st.integers(1, 200_000),
    ),
    max_size=40,
)


class Processes:
    """Two processes on one folder, one of which downloads and one of which makes room."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        self.folder.prepare()
        self.room, self.other = Room(self.folder, LIMIT), Room(self.folder, LIMIT)
        self.open: dict[int, Partial] = {}

    def partial(self, number: int) -> Partial:
        if number not in self.open:
            with self.room.locked():
                found = Partial.take(self.folder, self.room, DIGESTS[number], len(CONTENTS[number]))
            assert found is not None
            self.open[number] = found
            while found.recall():
                pass
        return self.open[number]

    def step(self, what: str, number: int, size: int) -> None:
        data = CONTENTS[number]
        if what == "append":
            partial = self.partial(number)
            partial.append([data[partial.head : partial.head + size]])
            if partial.head == len(data):
                partial.verify()
                partial.keep(self.folder.content(DIGESTS[number]))
                self.close(number)
        elif what == "range":
            self.partial(number).put(size % len(data), data[size % len(data) :][:50_000], proven=False)
        elif what in ("close", "drop"):
            self.close(number, resumable=what == "close")
        elif what == "derive":
            write_derived(
                self.folder, self.other, path_of(self.folder, DIGESTS[number], "index", 1), [bytes(size)]
            )
        else:
            self.other.shrink(LIMIT if what == "recount" else LIMIT // 2)

    def close(self, number: int, *, resumable: bool = True) -> None:
        if number in self.open:
            self.open.pop(number).close(resumable=resumable)

    def counted(self) -> int:
        text = self.folder.lock.read_text().split() if self.folder.lock.exists() else []
        return int(text[0]) if text else 0


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pt-cache-"))
    yield folder
    shutil.rmtree(folder)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_the_count_is_never_less_than_what_is_there_nor_more_than_the_limit(
    scratch: Path, steps: list[tuple[str, int, int]]
) -> None:
    shutil.rmtree(scratch / "cache", ignore_errors=True)
    both = Processes(scratch / "cache")
    with ExitStack() as stack:
        for number in range(len(CONTENTS)):
            stack.callback(both.close, number)
        for what, number, size in steps:
            with suppress(OSError):  # there is no room
                both.step(what, number, size)
            there = taken(scratch / "cache")
            assert there <= LIMIT
            assert there <= both.counted(), f"after {what} {number} {size}"
    both.other.shrink(0)
    assert taken(scratch / "cache") == 0


def test_room_that_was_counted_anew_is_not_given_back_once_more(tmp_path: Path) -> None:
    both = Processes(tmp_path)
    gone, stays = Lease(both.room), Lease(both.other)
    gone.cover(MB, MB)  # its file is removed, and before it says so another process counts
    both.other.shrink(LIMIT)
    stays.cover(MB, MB)
    gone.end(0)
    assert both.counted() >= MB
    stays.end(0)
    assert both.counted() == 0
