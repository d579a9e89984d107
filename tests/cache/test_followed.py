"""Processes that want one content at once: one fetches it, the others read along, and go on where that one ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from regfs.cache import followed
from regfs.cache.disk import DiskStore
from regfs.cache.download import Reading
from regfs.cache.folder import LOG
from regfs.cache.record import Doing, Log, Told
from regfs.digest import Digest
from regfs.errors import DigestMismatch
from regfs.ports import Fetch
from tests.cache.hands import MB, content, faults, fetched, files, has, run, source, whole

LIMIT = 100 * MB
DATA = content(601, 6 * MB + 11)


async def opened(store: DiskStore, data: bytes = DATA) -> Reading:
    reading = await store.download(Digest.of(data), len(data))
    assert reading is not None
    return reading


class Gated:
    """A registry that waits before the byte at ``stop`` until it is told to go on, and notes what it was asked for."""

    def __init__(self, data: bytes = DATA, stop: int = 3 * MB) -> None:
        self.data = data
        self.stop = stop
        self.go_on = trio.Event()
        self.asked: list[int] = []

    @asynccontextmanager
    async def fetch(self, start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append(start)

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(start, len(self.data), 64 * 1024):
                if at + 64 * 1024 > self.stop:
                    await self.go_on.wait()
                await trio.lowlevel.checkpoint()
                yield self.data[at : at + 64 * 1024]

        yield chunks()


async def fill(reading: Reading, fetch: Fetch, task_status: trio.TaskStatus[None]) -> None:
    writer = reading.claim()
    assert writer is not None
    task_status.started()
    await writer.fill(fetch)


def test_a_second_process_reads_along_and_fetches_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        registry, other = Gated(), Gated()
        first, second = await opened(DiskStore(tmp_path, LIMIT)), await opened(DiskStore(tmp_path, LIMIT))
        async with trio.open_nursery() as nursery:
            await nursery.start(fill, first, registry.fetch)
            assert await first.read(2 * MB, 100) == DATA[2 * MB : 2 * MB + 100]
            await nursery.start(fill, second, other.fetch)
            assert await second.read(2 * MB, 100) == DATA[2 * MB : 2 * MB + 100], "it is there before the end"
            assert not second.verified
            registry.go_on.set()
            assert await whole(second) == DATA
            assert second.verified
        assert (registry.asked, other.asked) == ([0], [])
        await first.aclose()
        await second.aclose()
        assert await has(DiskStore(tmp_path, LIMIT), DATA)
        assert files(tmp_path, "partial") == []
        assert faults(tmp_path) == []

    run(test)


def test_who_reads_along_takes_over_when_the_first_ends_and_fetches_only_what_is_missing(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        registry, other = Gated(), Gated()
        first, second = await opened(DiskStore(tmp_path, LIMIT)), await opened(DiskStore(tmp_path, LIMIT))
        async with trio.open_nursery() as nursery:
            await nursery.start(fill, first, registry.fetch)
            await nursery.start(fill, second, other.fetch)
            assert await second.read(0, 1000) == DATA[:1000]
            assert await first.read(2 * MB, 100) == DATA[2 * MB : 2 * MB + 100]
            await first.aclose()
            other.go_on.set()
            assert await whole(second) == DATA
        assert len(other.asked) == 1
        assert other.asked[0] >= 2 * MB
        await second.aclose()
        assert await has(DiskStore(tmp_path, LIMIT), DATA)
        assert files(tmp_path, "partial") == []

    run(test)


def test_what_stands_still_in_another_process_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "PATIENCE", 0.3)

    async def test() -> None:
        registry = Gated()
        first, second = await opened(DiskStore(tmp_path, LIMIT)), await opened(DiskStore(tmp_path, LIMIT))
        async with trio.open_nursery() as nursery:
            await nursery.start(fill, first, registry.fetch)
            await nursery.start(fill, second, source(DATA))
            assert await second.read(0, 1000) == DATA[:1000]
            assert await second.read(5 * MB, 1000) is None
            assert second.is_lost
            rest = await second.rest()
            assert 2 * MB < rest.offset <= 3 * MB
            assert rest.mark.hex == Digest.of(DATA[: rest.offset]).hex, "who goes on knows what came before"
            registry.go_on.set()
        await first.aclose()
        await second.aclose()
        assert await has(DiskStore(tmp_path, LIMIT), DATA)

    run(test)


def test_what_is_wrong_is_wrong_for_all_who_read_along(tmp_path: Path) -> None:
    async def test() -> None:
        wrong = DATA[:MB] + b"?" + DATA[MB + 1 :]
        registry = Gated(wrong)
        first, second = await opened(DiskStore(tmp_path, LIMIT)), await opened(DiskStore(tmp_path, LIMIT))
        outcomes: list[str] = []

        async def filling(reading: Reading, fetch: Fetch, task_status: trio.TaskStatus[None]) -> None:
            with pytest.raises(DigestMismatch):
                await fill(reading, fetch, task_status)
            outcomes.append("filled")

        async with trio.open_nursery() as nursery:
            await nursery.start(filling, first, registry.fetch)
            await nursery.start(filling, second, source(DATA))
            assert await second.read(0, 100) == DATA[:100]
            registry.go_on.set()
            with pytest.raises(DigestMismatch):
                await whole(second)
        assert outcomes == ["filled"] * 2
        await first.aclose()
        await second.aclose()
        assert files(tmp_path, "content") == files(tmp_path, "partial") == []
        await fetched(DiskStore(tmp_path, LIMIT), DATA)

    run(test)


def test_who_has_it_open_and_fetches_nothing_holds_up_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        idle = await opened(DiskStore(tmp_path, LIMIT))
        with trio.fail_after(3):
            store = DiskStore(tmp_path, LIMIT)
            reading = await opened(store)
            async with trio.open_nursery() as nursery:
                await nursery.start(fill, reading, source(DATA))
                assert await whole(reading) == DATA
            await reading.aclose()
            assert await has(store, DATA)
        await idle.aclose()

    run(test)


def test_nothing_is_taken_for_the_writers_that_another_wrote_meanwhile(tmp_path: Path) -> None:
    async def test() -> None:
        registry = Gated()
        first, second = await opened(DiskStore(tmp_path, LIMIT)), await opened(DiskStore(tmp_path, LIMIT))
        log = Log(tmp_path / "partial" / (Digest.of(DATA).file_name + LOG))
        async with trio.open_nursery() as nursery:
            await nursery.start(fill, first, registry.fetch)
            await nursery.start(fill, second, source(DATA))
            assert await second.read(0, 1000) == DATA[:1000]
            assert await first.read(3 * MB - 1000, 1000) == DATA[3 * MB - 1000 : 3 * MB]
            log.tell(
                Told("0123456789abcdef", 3 * MB, Doing.FILLING)
            )  # the first was killed, and a third began
            assert await second.read(0, 1000) is None
            registry.go_on.set()
        await first.aclose()
        await second.aclose()

    run(test)


@pytest.mark.parametrize("log", [b"", b"told\n", b"head 0 5 00\n", b"told " + b"\xff" * 45])
def test_a_log_that_tells_nothing_sensible_is_not_followed(log: bytes, tmp_path: Path) -> None:
    async def test() -> None:
        first = await opened(DiskStore(tmp_path, LIMIT))
        (tmp_path / "partial" / (Digest.of(DATA).file_name + LOG)).write_bytes(log)
        await fetched(DiskStore(tmp_path, LIMIT), DATA)
        assert await has(DiskStore(tmp_path, LIMIT), DATA)
        await first.aclose()

    run(test)
