"""What the tests of the cache do again and again: contents, a source that can be slow or broken, reading to the end."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from regfs.cache.care import verify
from regfs.cache.disk import DiskStore
from regfs.cache.download import Reading
from regfs.cache.entry import Entry
from regfs.digest import Digest
from regfs.ports import Fetch

MB = 1024 * 1024


def content(number: int, size: int) -> bytes:
    """Bytes that are the same in each process for one number."""
    return random.Random(number).randbytes(size)


def source(data: bytes, chunk: int = 64 * 1024, log: list[int] | None = None, pause: float = 0) -> Fetch:
    """A registry that gives ``data`` from an offset on; the offsets that were asked for go into ``log``."""

    @asynccontextmanager
    async def fetch(start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        if log is not None:
            log.append(start)

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(start, len(data), chunk):
                await trio.sleep(pause)
                yield data[at : at + chunk]

        yield chunks()

    return fetch


async def whole(opened: Reading | Entry, piece: int = 100_000) -> bytes | None:
    """All bytes of an open content, read in pieces; None where they were not to be had."""
    read = bytearray()
    while len(read) < opened.size:
        data = await opened.read(len(read), piece)
        if data is None:
            return None
        read += data
    return bytes(read)


async def fetched(
    store: DiskStore, data: bytes, fetch: Fetch | None = None, digest: Digest | None = None
) -> None:
    """Download ``data`` into a store, as one reader does."""
    reading = await store.download(digest or Digest.of(data), len(data))
    assert reading is not None
    writer = reading.claim()
    assert writer is not None
    try:
        await writer.fill(fetch or source(data))
    finally:
        await reading.aclose()


async def has(store: DiskStore, data: bytes) -> bool:
    """Whether a store gives exactly these bytes."""
    entry = await store.open(Digest.of(data), len(data))
    if entry is None:
        return False
    assert await whole(entry) == data
    await entry.aclose()
    return True


def files(root: Path, place: str) -> list[Path]:
    """The files in a folder of the cache."""
    folder = root / place
    return sorted(folder.iterdir()) if folder.exists() else []


def taken(root: Path) -> int:
    """What the cache takes on disk, in bytes."""
    found = 0
    for place in ("content", "partial", "derived"):
        for path in files(root, place):
            try:
                found += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return found


def faults(root: Path) -> list[str]:
    """What is wrong in a cache."""
    return [f"{finding.path.name}: {finding.fault}" for finding in verify(root) if finding.fault]


def run(test: Callable[[], object]) -> None:
    """Run an async test, for a minute at most."""

    async def limited() -> None:
        with trio.fail_after(60):
            await test()  # type: ignore[misc]

    trio.run(limited)
