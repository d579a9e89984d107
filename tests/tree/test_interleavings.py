"""Readers of one blob that cross at any moment: each thread's work is held up once, until all else stands still."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from regfs.cache import disk, download, entry, followed, threads, writer
from regfs.cache.disk import DiskStore
from tests.tree.blob_source import KB, BlobSource, content
from tests.tree.test_blobs import blobs_of, read_all, run

DATA = content(31, 300 * KB + 5)
MOST = 60
"""More calls of threads than two readers make."""


class Held:
    """Calls of the cache's threads, counted; the one with number ``place`` waits before it begins, or before its answer is heard."""

    def __init__(self, place: int, *, answer: bool) -> None:
        self.place = place
        self.answer = answer
        self.count = 0

    async def __call__(self, work: Callable[..., Any], *arguments: object) -> object:
        self.count += 1
        is_held = self.count == self.place
        if is_held and not self.answer:
            await _until_all_stands()
        try:
            return await threads.in_thread(work, *arguments)
        finally:
            if is_held and self.answer:
                with trio.CancelScope(shield=True):
                    await _until_all_stands()


async def _until_all_stands() -> None:
    await trio.testing.wait_all_tasks_blocked(0.03)


def hold(monkeypatch: pytest.MonkeyPatch, held: Held) -> None:
    for module in (disk, download, entry, followed, writer):
        monkeypatch.setattr(module, "in_thread", held)


@pytest.mark.parametrize("answer", [False, True], ids=["the call", "the answer"])
def test_whatever_is_held_up_a_blob_is_fetched_once(
    answer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def once(place: int, readers: Callable[..., Awaitable[None]]) -> bool:
        source = BlobSource(DATA)
        held = Held(place, answer=answer)
        hold(monkeypatch, held)
        store = DiskStore(tmp_path / f"{place}-{answer}", 1 << 30)
        async with blobs_of(source, store) as blobs, trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(readers, blobs, source)
        assert source.asked == [(0, len(DATA))], f"call {place} was held up"
        return held.count >= place

    async def readers(blobs: Any, source: BlobSource) -> None:
        for _ in range(2):
            assert await read_all(blobs, source) == DATA

    async def test() -> None:
        for place in range(1, MOST):
            if not await once(place, readers):
                return
        raise AssertionError("not all calls were held up")

    run(test)
