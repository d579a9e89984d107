"""Requests that are answered without libfuse: their bytes, who is told how much, and what waits for whom."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from regfs.fuse import loop, wire
from regfs.fuse.direct import Curious, DirectAnswers
from regfs.fuse.loop import Loop
from regfs.fuse.operations import Ownership, RegfsOperations
from regfs.fuse.wire import Header, Opcode
from regfs.tree.attributes import Attributes, DirEntry, Kind

if TYPE_CHECKING:
    from regfs.tree.filesystem import FileSystem

READER, OTHER = 100, 200
FOLDER, ANOTHER = 7, 8


# ── who is told how much ──


def test_who_only_lists_is_told_names() -> None:
    curious = Curious()
    assert all(curious.reads(READER, node) for node in (FOLDER, ANOTHER, FOLDER))


def test_who_looks_up_what_it_listed_is_told_all_from_then_on() -> None:
    curious = Curious()
    curious.reads(READER, FOLDER)
    curious.looks_up(READER, FOLDER)
    assert not curious.reads(READER, ANOTHER)
    assert curious.reads(OTHER, ANOTHER)


def test_a_name_looked_up_elsewhere_tells_nothing_of_the_listing() -> None:
    curious = Curious()
    curious.reads(READER, FOLDER)
    curious.looks_up(READER, ANOTHER)
    curious.looks_up(OTHER, FOLDER)
    assert curious.reads(READER, ANOTHER)


def test_of_ten_thousand_threads_only_the_last_are_remembered() -> None:
    curious = Curious()
    for thread in range(10_000):
        curious.reads(thread, FOLDER)
    assert len(vars(curious)["_reading"]) <= 1000


# ── the bytes ──


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=50))
def test_a_batch_of_what_is_forgotten_is_read_whole(pairs: list[tuple[int, int]]) -> None:
    body = struct.pack("=II", len(pairs), 0) + b"".join(struct.pack("=QQ", *pair) for pair in pairs)
    assert wire.forgotten(body) == pairs


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name), st.integers(0, 2**63))
def test_a_listed_name_is_padded_to_eight_bytes_and_says_what_it_is(name: bytes, number: int) -> None:
    packed = wire.named(number, 0o120000, name, 5)
    assert len(packed) % 8 == 0
    assert not any(packed[:128])  # no inode: the kernel counts no lookup
    ino, following, length, kind = struct.unpack_from("=QQII", packed, 128)
    assert (ino, following, kind) == (number or wire.UNKNOWN_INODE, 5, 0o120000 >> 12)
    assert packed[152 : 152 + length] == name


# ── what waits for whom ──


class Scripted:
    """Answers that do what a test says."""

    def __init__(self, **answers: Callable[[Header, bytes], Awaitable[bytes | None]]) -> None:
        self.by_opcode: Mapping[int, Callable[[Header, bytes], Awaitable[bytes | None]]] = {
            Opcode[name.upper()]: answer for name, answer in answers.items()
        }

    has_work = False

    async def work_ahead(self) -> None:
        raise AssertionError("there is none")

    def number_of(self, error: Exception, where: str) -> int:
        return 5


class Kernel:
    """The other end of a device that is a socket: one message a request, one a reply."""

    def __init__(self) -> None:
        self.end, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.rest, self.libfuse = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.end, self.libfuse):
            each.setblocking(False)

    def ask(self, opcode: int, unique: int, body: bytes = b"") -> None:
        self.end.send(struct.pack("=IIQQIII8x", 40 + len(body), opcode, unique, 1, 0, 0, 1) + body)

    async def answer(self, of: socket.socket | None = None) -> tuple[int, int, bytes]:
        """The next reply: which request it answers, the errno, and the rest."""
        source = of or self.end
        await trio.lowlevel.wait_readable(source)
        reply = source.recv(1 << 20)
        _, error, unique = struct.unpack_from("=IiQ", reply)
        return unique, -error, reply[16:]

    def run(self, answers: Scripted, play: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(Loop(self.device.fileno(), self.rest, answers).run)
                    await play()
                    nursery.cancel_scope.cancel()

        trio.run(main)
        for each in (self.end, self.device, self.rest, self.libfuse):
            each.close()


def test_a_request_that_waits_holds_up_no_other() -> None:
    kernel, release = Kernel(), trio.Event()

    async def lookup(head: Header, body: bytes) -> bytes:
        await release.wait()
        return b"late"

    async def getattr_(head: Header, body: bytes) -> bytes:
        return b"at once"

    async def play() -> None:
        for unique in range(1, 101):
            kernel.ask(Opcode.LOOKUP, unique)
        kernel.ask(Opcode.GETATTR, 200)
        assert await kernel.answer() == (200, 0, b"at once")
        release.set()
        assert {(await kernel.answer())[0] for _ in range(100)} == set(range(1, 101))
        kernel.ask(Opcode.GETATTR, 300)
        assert await kernel.answer() == (300, 0, b"at once")

    kernel.run(Scripted(lookup=lookup, getattr=getattr_), play)


def test_when_too_many_wait_the_next_stays_with_the_kernel_until_one_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_AT_ONCE", 20)
    kernel, release = Kernel(), trio.Event()
    begun: list[int] = []

    async def lookup(head: Header, body: bytes) -> bytes:
        begun.append(head.unique)
        await release.wait()
        return b""

    async def play() -> None:
        for unique in range(1, 51):
            kernel.ask(Opcode.LOOKUP, unique)
        await trio.testing.wait_all_tasks_blocked()
        assert len(begun) == 20
        release.set()
        assert {(await kernel.answer())[0] for _ in range(50)} == set(range(1, 51))

    kernel.run(Scripted(lookup=lookup), play)


def test_a_steady_stream_of_requests_leaves_others_of_the_program_their_turn() -> None:
    kernel, worked = Kernel(), trio.Event()

    async def getattr_(head: Header, body: bytes) -> bytes:
        if not worked.is_set():
            kernel.ask(Opcode.GETATTR, head.unique + 1)  # the next one is there before this one is answered
        return b""

    async def play() -> None:
        kernel.ask(Opcode.GETATTR, 1)
        await trio.lowlevel.checkpoint()
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        worked.set()

    kernel.run(Scripted(getattr=getattr_), play)


def test_what_is_not_answered_here_goes_to_libfuse_and_its_answer_comes_back() -> None:
    kernel = Kernel()

    async def play() -> None:
        kernel.ask(17, 9, b"statfs")
        await trio.lowlevel.wait_readable(kernel.libfuse)
        request = kernel.libfuse.recv(4096)
        assert wire.header(request)[:3] == (46, 17, 9)
        kernel.libfuse.send(struct.pack("=IiQ", 18, 0, 9) + b"ok")
        assert await kernel.answer() == (9, 0, b"ok")

    kernel.run(Scripted(), play)


def test_an_error_is_answered_by_its_number_unless_the_kernel_expects_none() -> None:
    kernel = Kernel()

    async def fail(head: Header, body: bytes) -> bytes:
        raise OSError

    async def play() -> None:
        kernel.ask(Opcode.FORGET, 1, bytes(8))
        kernel.ask(Opcode.LOOKUP, 2, b"x\0")
        assert await kernel.answer() == (2, 5, b"")

    kernel.run(Scripted(forget=fail, lookup=fail), play)


# ── what is prepared ahead ──


class Listing:
    """A filesystem with one folder that lists ``names`` for good, each of them a folder; it counts lookups."""

    def __init__(self, names: int) -> None:
        self.names = names
        self.lookups = 0

    async def opendir(self, ino: int) -> int:
        return 1

    def lists_for_good(self, ino: int) -> bool:
        return True

    async def readdir(self, handle: int, start: int) -> Iterator[DirEntry]:
        found = Attributes(9, Kind.FOLDER, 0o555, 0, 0, 1.0, 1.0)
        return iter([DirEntry(b"name-%04d" % place, found, place + 1) for place in range(start, self.names)])

    readdir_plainly = readdir

    def remember(self, ino: int) -> None:
        self.lookups += 1

    def forget(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.lookups -= sum(count for _, count in pairs)

    def releasedir(self, handle: int) -> None:
        pass


def answers_over(listing: Listing) -> DirectAnswers:
    files = cast("FileSystem", listing)
    return DirectAnswers(files, RegfsOperations(files, Ownership(0, 0)))


def ask_for(handle: int, start: int, room: int) -> bytes:
    return struct.pack("=QQI", handle, start, room)


FROM = Header(0, 0, 0, FOLDER, 0, 0, READER)
_ENTRY = 128 + 24 + 16


@pytest.mark.parametrize(("names", "room"), [(3, 4096), (500, 32768), (500, 1024)])
def test_a_listing_prepared_ahead_is_the_one_that_is_asked_for(names: int, room: int) -> None:
    listing = Listing(names)
    answers = answers_over(listing)

    async def play() -> list[bytes]:
        seen: list[bytes] = []
        await answers.readdir(FROM, ask_for(7, 0, room))  # how much room there is shows at the first one
        before = listing.lookups
        await answers.opendir(FROM, b"")
        assert answers.has_work
        await answers.work_ahead()
        assert not answers.has_work
        while data := await answers.readdir(FROM, ask_for(1, len(seen), room)):
            assert len(data) <= room
            seen += [data[at + 152 : at + 161] for at in range(0, len(data), _ENTRY)]
        await answers.releasedir(FROM, struct.pack("=Q", 1))
        assert listing.lookups - before == names
        return seen

    assert trio.run(play) == [b"name-%04d" % place for place in range(names)]


def test_a_listing_prepared_and_never_asked_for_counts_no_lookup() -> None:
    listing = Listing(10)
    answers = answers_over(listing)

    async def play() -> None:
        for _ in range(3):
            await answers.opendir(FROM, b"")
            await answers.work_ahead()
        await answers.releasedir(FROM, struct.pack("=Q", 1))

    trio.run(play)
    assert listing.lookups == 0
