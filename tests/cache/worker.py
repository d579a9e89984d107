"""A process that uses a cache as a daemon does, until it is killed or its time is over: ``worker.py ROOT LIMIT SEED SECONDS``.

Prints a word for each thing done; a wrong byte, or anything raised, ends it with a traceback.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import trio

from regfs.cache.disk import DiskStore
from regfs.cache.fill import fill
from regfs.digest import Digest
from tests.cache.hands import content, source, whole

CONTENTS = 24


def size_of(number: int) -> int:
    return 20_000 + number * 97_003


async def read_blob(store: DiskStore, number: int) -> str:
    data = content(number, size_of(number))
    digest = Digest.of(data)
    entry = await store.open(digest, len(data))
    if entry is not None:
        found = await whole(entry)
        await entry.aclose()
        assert found in (data, None)
        return "kept"
    reading = await store.download(digest, len(data))
    if reading is None:
        return "passed"
    async with trio.open_nursery() as nursery:
        writer = reading.claim()
        if writer is not None:
            nursery.start_soon(fill, writer, source(data, 50_000))
        found = await whole(reading)
        await reading.aclose()
    assert found in (data, None)
    return "fetched" if found else "lost"


async def use_small(store: DiskStore, number: int) -> str:
    data = content(number, 3000 + number)
    found = await store.get(Digest.of(data))
    assert found in (data, None)
    if found is None:
        await store.put(Digest.of(data), data)
    return "small"


async def use_derived(store: DiskStore, number: int) -> str:
    digest = Digest.of(content(number, size_of(number)))
    data = content(number, 150_000)
    entry = await store.open_derived(digest, "index", 1)
    if entry is None:
        await store.put_derived(digest, "index", 1, [data[:70_000], data[70_000:]])
        return "derived"
    assert await whole(entry) in (data, None)
    await entry.aclose()
    return "derived"


async def work(root: Path, limit: int, seed: int, seconds: float) -> None:
    chance, end = random.Random(seed), time.monotonic() + seconds
    store = DiskStore(root, limit)
    await store.sweep()

    async def one() -> None:
        while time.monotonic() < end:
            do = chance.choice([read_blob, read_blob, use_small, use_derived])
            print(await do(store, chance.randrange(CONTENTS)), flush=True)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)


if __name__ == "__main__":
    trio.run(work, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
