"""Many processes on one cache, and what is left when one is killed: no wrong byte, no error, no leftover."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path

import trio

from regfs.cache.disk import DiskStore
from regfs.cache.folder import Folder
from regfs.cache.room import Room
from regfs.digest import Digest
from tests.cache.hands import MB, content, faults, fetched, files, has, run, taken
from tests.support import processes

REPOSITORY = Path(__file__).parents[2]
LIMIT = 8 * MB


def start(root: Path, log: Path, seed: int, seconds: float) -> object:
    """Start a worker; what it does is in ``log``."""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); sys.argv = ['worker.py', {str(root)!r}, '{LIMIT}', '{seed}', '{seconds}']\n"
        "import runpy; runpy.run_module('tests.cache.worker', run_name='__main__')",
    ]
    return processes.start(command, log)


def words(log: Path) -> Counter[str]:
    return Counter(log.read_text().split()) if log.exists() else Counter()


def test_a_cache_whose_daemons_are_killed_at_any_moment_verifies_clean_and_is_used_again(
    tmp_path: Path,
) -> None:
    root, log, chance = tmp_path / "cache", tmp_path / "log", random.Random(1)
    for kill in range(200):
        worker = start(root, log, kill, 60)
        before = sum(words(log).values())
        processes.wait_until(lambda n=before: sum(words(log).values()) > n, "the worker works")  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.15))
        worker.kill()  # type: ignore[attr-defined]
        worker.wait()  # type: ignore[attr-defined]
        assert "Traceback" not in log.read_text()
        assert faults(root) == [], f"after kill {kill}"
        assert taken(root) <= LIMIT
        done = words(log)
        if kill >= 25 and done["fetched"] + done["kept"] > 100:
            break
    assert done["fetched"] + done["kept"] > 100
    assert min(done["fetched"], done["kept"], done["small"], done["derived"]) > 5

    async def again() -> None:
        store = DiskStore(root, LIMIT)
        await store.sweep()
        assert [path.name for path in files(root, "partial") if path.name.startswith("tmp-")] == []
        before = len(files(root, "content"))
        assert before > 3
        await fetched(store, content(999, MB))
        assert await has(store, content(999, MB))
        assert taken(root) <= LIMIT

    run(again)


def test_processes_that_evict_what_others_read_see_no_wrong_byte_and_no_error(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    logs = [tmp_path / f"log-{n}" for n in range(3)]
    workers = [start(root, log, n, 4) for n, log in enumerate(logs)]
    most = 0
    while any(worker.poll() is None for worker in workers):  # type: ignore[attr-defined]
        if (root / "lock").exists():
            with Room(
                Folder(root), LIMIT
            ).locked():  # else what goes during the look would count beside what came
                most = max(most, taken(root))
        time.sleep(0.02)
    for worker, log in zip(workers, logs, strict=True):
        assert worker.wait() == 0, log.read_text()[-3000:]  # type: ignore[attr-defined]
    done = sum(map(words, logs), Counter[str]())
    assert done["kept"] > 10
    assert done["fetched"] > 10
    assert most <= LIMIT
    assert faults(root) == []
    assert files(root, "partial") == [] or all(
        Digest.from_file_name(p.name.partition(".")[0]) for p in files(root, "partial")
    )


def test_what_one_process_has_open_another_does_not_evict(tmp_path: Path) -> None:
    async def test() -> None:
        held = content(500, MB)
        store = DiskStore(tmp_path, LIMIT)
        await fetched(store, held)
        entry = await store.open(Digest.of(held), len(held))
        assert entry is not None
        worker = start(tmp_path, tmp_path / "log", 7, 1.5)
        while worker.poll() is None:  # type: ignore[attr-defined]
            assert await entry.read(0, 1000) == held[:1000]
            await trio.sleep(0.01)
        assert worker.wait() == 0  # type: ignore[attr-defined]
        assert words(tmp_path / "log")["fetched"] > 5
        assert (tmp_path / "content" / Digest.of(held).file_name).exists()
        await entry.aclose()

    run(test)


def test_two_processes_that_download_one_content_both_get_it(tmp_path: Path) -> None:
    async def test() -> None:
        data = content(501, MB)
        first, second = DiskStore(tmp_path, LIMIT), DiskStore(tmp_path, LIMIT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetched, first, data)
            nursery.start_soon(fetched, second, data)
        assert await has(first, data)
        assert files(tmp_path, "partial") == []
        assert len(files(tmp_path, "content")) == 1

    run(test)


def test_a_process_that_stands_still_while_it_makes_room_stops_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        kept, data = content(502, 1000), content(503, 1000)
        store = DiskStore(tmp_path, LIMIT)
        await store.put(Digest.of(kept), kept)
        with Room(Folder(tmp_path), LIMIT).locked():
            begin = time.monotonic()
            assert await store.get(Digest.of(kept)) == kept
            assert time.monotonic() - begin < 1
            await store.put(Digest.of(data), data)
            assert time.monotonic() - begin < 10
        assert await store.get(Digest.of(data)) is None
        await store.put(Digest.of(data), data)
        assert await store.get(Digest.of(data)) == data

    run(test)
