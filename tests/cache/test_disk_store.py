"""Content on disk: what is got is what was put, however little the disk can be relied on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from regfs.cache import derived
from regfs.cache.disk import DiskStore
from regfs.cache.entry import Entry, stamp
from regfs.digest import Digest
from regfs.ports import BlobStore
from tests.cache.hands import MB, content, faults, fetched, files, has, run, source, taken, whole


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_what_was_put_is_got_also_by_a_later_process(tmp_path: Path, algorithm: str) -> None:
    async def test() -> None:
        data = content(1, 5000)
        digest = Digest.of(data, algorithm)
        assert await DiskStore(tmp_path, MB).get(digest) is None
        await DiskStore(tmp_path, MB).put(digest, data)
        assert await DiskStore(tmp_path, MB).get(digest) == data
        assert [path.name for path in files(tmp_path, "content")] == [digest.file_name]
        assert files(tmp_path, "partial") == []

    run(test)


def test_bytes_that_are_not_what_their_digest_says_are_not_kept(tmp_path: Path) -> None:
    async def test() -> None:
        store = DiskStore(tmp_path, MB)
        await store.put(Digest.of(b"right"), b"wrong")
        assert await store.get(Digest.of(b"right")) is None
        assert files(tmp_path, "content") == []

    run(test)


def test_it_is_what_the_contract_of_a_store_says(tmp_path: Path) -> None:
    store: BlobStore = DiskStore(tmp_path, MB)
    assert store is not None


def test_an_empty_content_is_a_content(tmp_path: Path) -> None:
    async def test() -> None:
        store = DiskStore(tmp_path, MB)
        await store.put(Digest.of(b""), b"")
        assert await store.get(Digest.of(b"")) == b""
        await fetched(DiskStore(tmp_path / "other", MB), b"")
        assert await DiskStore(tmp_path / "other", MB).get(Digest.of(b"")) == b""

    run(test)


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))


def _cut(path: Path) -> None:
    os.truncate(path, 500)


def _lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("damage", [_flip, _cut, _lengthen])
@pytest.mark.parametrize("way", ["get", "open"])
def test_a_damaged_content_is_not_there_and_is_removed(tmp_path: Path, damage: object, way: str) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, MB), content(2, 3000)
        digest = Digest.of(data)
        await store.put(digest, data)
        assert callable(damage)
        damage(files(tmp_path, "content")[0])
        found = await (store.get(digest) if way == "get" else store.open(digest, len(data)))
        assert found is None
        assert files(tmp_path, "content") == []
        await store.put(digest, data)
        assert await store.get(digest) == data

    run(test)


def test_a_bit_that_flipped_on_the_disk_itself_is_found_by_get_and_by_verify(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, MB), content(3, 3000)
        for find in (lambda: store.get(Digest.of(data)), None):
            await store.put(Digest.of(data), data)
            (path,) = files(tmp_path, "content")
            _flip(path)
            os.utime(path, (time.time(), stamp(Digest.of(data))))
            if find is not None:
                assert await find() is None
            else:
                assert len(faults(tmp_path)) == 1
            assert files(tmp_path, "content") == []

    run(test)


@pytest.mark.parametrize("damage", [_flip, _cut, _lengthen])
def test_a_content_that_is_damaged_while_it_is_open_gives_no_wrong_byte(
    tmp_path: Path, damage: object
) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, MB), content(4, 3000)
        await store.put(Digest.of(data), data)
        entry = await store.open(Digest.of(data), len(data))
        assert entry is not None
        assert await entry.read(0, 100) == data[:100]
        assert callable(damage)
        damage(files(tmp_path, "content")[0])
        assert await entry.read(900, 2000) is None
        await entry.aclose()
        assert files(tmp_path, "content") == []

    run(test)


def test_a_content_that_is_removed_while_it_is_open_is_read_to_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 10 * MB), content(5, MB)
        await store.put(Digest.of(data), data)
        entry = await store.open(Digest.of(data), len(data))
        assert entry is not None
        files(tmp_path, "content")[0].unlink()
        assert await whole(entry) == data
        assert await store.open(Digest.of(data), len(data)) is None
        await entry.aclose()

    run(test)


def test_a_cache_that_is_removed_under_a_daemon_is_made_anew(tmp_path: Path) -> None:
    async def test() -> None:
        root, data = tmp_path / "cache", content(6, 1000)
        store = DiskStore(root, MB)
        await store.put(Digest.of(data), data)
        root.rename(tmp_path / "gone")
        assert await store.get(Digest.of(data)) is None
        await store.put(Digest.of(data), data)
        assert await store.get(Digest.of(data)) == data

    run(test)


def test_a_descriptor_with_a_wrong_size_is_not_served_and_does_no_harm(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, MB), content(7, 1000)
        await store.put(Digest.of(data), data)
        assert await store.open(Digest.of(data), 999) is None
        assert await has(store, data)

    run(test)


def test_it_stays_within_its_bound_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    async def test() -> None:
        store = DiskStore(tmp_path, 4 * MB)
        contents = [content(n, 300_000) for n in range(30)]
        for n, data in enumerate(contents):
            await store.put(Digest.of(data), data)
            _used(tmp_path, data, n)
            assert taken(tmp_path) <= 4 * MB
            if n:
                _used(tmp_path, contents[0], n)
        assert await has(store, contents[0])
        assert not await has(store, contents[1])
        assert await has(store, contents[-1])
        assert taken(tmp_path) > 2 * MB

    run(test)


def _used(root: Path, data: bytes, minute: int) -> None:
    """As if it had been used in that minute: a use is noted once a minute."""
    digest = Digest.of(data)
    os.utime(root / "content" / digest.file_name, (time.time() - 3600 + minute * 60, stamp(digest)))


def test_a_use_is_noted_at_most_once_a_minute_and_leaves_the_content_valid(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, MB), content(8, 1000)
        await store.put(Digest.of(data), data)
        (path,) = files(tmp_path, "content")
        for ago, noted in ((30, False), (90, True), (-90, True)):
            before = time.time() - ago
            os.utime(path, (before, stamp(Digest.of(data))))
            entry = await store.open(Digest.of(data), len(data))
            assert entry is not None
            await entry.aclose()
            assert (abs(path.stat().st_atime - before) > 1) == noted

    run(test)


def test_what_is_open_is_never_removed_to_make_room(tmp_path: Path) -> None:
    async def test() -> None:
        store, held = DiskStore(tmp_path, 2 * MB), content(9, MB)
        await store.put(Digest.of(held), held)
        entry = await store.open(Digest.of(held), len(held))
        assert isinstance(entry, Entry)
        for n in range(10, 15):
            await store.put(Digest.of(content(n, 700_000)), content(n, 700_000))
        assert await whole(entry) == held
        await entry.aclose()
        assert await has(store, held)
        assert taken(tmp_path) <= 2 * MB

    run(test)


def test_what_is_larger_than_the_cache_throws_nothing_out(tmp_path: Path) -> None:
    async def test() -> None:
        store, small = DiskStore(tmp_path, MB), content(20, 1000)
        await store.put(Digest.of(small), small)
        await store.put(Digest.of(content(21, 2 * MB)), content(21, 2 * MB))
        assert await store.download(Digest.of(b"x"), 2 * MB) is None
        assert await has(store, small)

    run(test)


def test_a_cache_of_no_size_keeps_nothing_and_makes_no_folder(tmp_path: Path) -> None:
    async def test() -> None:
        store = DiskStore(tmp_path / "cache", 0)
        await store.put(Digest.of(b"x"), b"x")
        assert await store.get(Digest.of(b"x")) is None
        assert await store.download(Digest.of(b"x"), 1) is None
        assert not (tmp_path / "cache").exists()

    run(test)


def test_a_folder_that_others_may_write_to_is_not_believed(tmp_path: Path) -> None:
    async def test() -> None:
        data = content(22, 1000)
        await DiskStore(tmp_path, MB).put(Digest.of(data), data)
        os.chmod(tmp_path, 0o777)  # noqa: PTH101
        store = DiskStore(tmp_path, MB)
        assert await store.get(Digest.of(data)) is None
        assert await store.download(Digest.of(b"x"), 1) is None

    run(test)


def test_a_link_or_a_pipe_in_a_contents_place_is_not_followed(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path / "cache", MB), content(23, 1000)
        await store.put(Digest.of(data), data)
        (path,) = files(tmp_path / "cache", "content")
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert await store.get(Digest.of(data)) is None
        path.unlink()
        os.mkfifo(path)
        assert await store.get(Digest.of(data)) is None

    run(test)


# ── what is derived ──


def test_what_was_derived_is_found_in_its_version_alone(tmp_path: Path) -> None:
    async def test() -> None:
        store, digest = DiskStore(tmp_path, 4 * MB), Digest.of(b"layer")
        await store.put_derived(digest, "index", 1, [b"a" * 10, b"b" * 10])
        entry = await store.open_derived(digest, "index", 1)
        assert entry is not None
        assert entry.size == 20
        assert await entry.read(8, 4) == b"aabb"
        await entry.aclose()
        assert await store.open_derived(digest, "index", 2) is None
        assert await store.open_derived(digest, "table", 1) is None
        await store.put_derived(digest, "index", 2, [b"new"])
        assert await store.open_derived(digest, "index", 1) is None
        assert len(files(tmp_path, "derived")) == 1

    run(test)


@pytest.mark.parametrize("damage", [_flip, _cut, _lengthen])
def test_a_damaged_derived_file_is_gone(tmp_path: Path, damage: object) -> None:
    async def test() -> None:
        store, digest = DiskStore(tmp_path, 4 * MB), Digest.of(b"layer")
        await store.put_derived(digest, "index", 1, [content(30, 3000)])
        assert callable(damage)
        damage(files(tmp_path, "derived")[0])
        assert await store.open_derived(digest, "index", 1) is None
        assert files(tmp_path, "derived") == []

    run(test)


def test_a_derived_file_that_nobody_wrote_to_is_opened_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        store, digest = DiskStore(tmp_path, 4 * MB), Digest.of(b"layer")
        await store.put_derived(digest, "index", 1, [content(30, 3000)])
        with monkeypatch.context() as patch:
            patch.setattr(derived, "is_intact", None)
            for _ in range(2):
                entry = await store.open_derived(digest, "index", 1)
                assert entry is not None
                assert await entry.read(0, 3000) == content(30, 3000)
                await entry.aclose()
        (file,) = files(tmp_path, "derived")
        os.utime(file, (time.time(), time.time()))
        entry = await store.open_derived(digest, "index", 1)
        assert entry is not None
        await entry.aclose()

    run(test)


def test_a_derived_file_that_could_not_be_made_whole_is_not_there(tmp_path: Path) -> None:
    def broken() -> object:
        yield b"x" * 100_000
        raise ValueError("the layer is damaged")

    async def test() -> None:
        store = DiskStore(tmp_path, 4 * MB)
        with pytest.raises(ValueError, match="the layer is damaged"):
            await store.put_derived(Digest.of(b"layer"), "index", 1, broken())  # type: ignore[arg-type]
        assert files(tmp_path, "derived") == files(tmp_path, "partial") == []

    run(test)


def test_what_was_derived_goes_with_its_content_and_holds_it_while_it_is_open(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 3 * MB), content(31, MB)
        digest = Digest.of(data)
        await store.put(digest, data)
        await store.put_derived(digest, "index", 1, [b"index"])
        entry = await store.open_derived(digest, "index", 1)
        assert entry is not None
        for n in range(32, 36):
            await store.put(Digest.of(content(n, MB)), content(n, MB))
        assert await has(store, data)
        await entry.aclose()
        old = time.time() - 3600
        os.utime(files(tmp_path, "derived")[0], (old, old))
        os.utime(tmp_path / "content" / digest.file_name, (old, stamp(digest)))
        for n in range(36, 40):
            await store.put(Digest.of(content(n, MB)), content(n, MB))
        assert not await has(store, data)
        assert files(tmp_path, "derived") == []
        assert await store.open_derived(digest, "index", 1) is None

    run(test)


def test_half_written_files_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    async def test() -> None:
        store, data = DiskStore(tmp_path, 20 * MB), content(40, 100_000)
        await store.put(Digest.of(b"x"), b"x")
        (tmp_path / "partial" / "tmp-dead").write_bytes(b"half")
        (tmp_path / "partial" / f"{Digest.of(b'y').file_name}.log").write_bytes(b"head 0 1 00\n")
        reading = await store.download(Digest.of(data), len(data))
        beside = await DiskStore(tmp_path, 20 * MB).download(Digest.of(data), len(data))
        assert reading is not None
        assert beside is not None
        await DiskStore(tmp_path, 20 * MB).sweep()
        names = [path.name for path in files(tmp_path, "partial")]
        assert len(names) == 2
        assert "tmp-dead" not in names
        assert Digest.of(data).file_name in names
        await reading.aclose()
        await beside.aclose()
        assert files(tmp_path, "partial") == []

    run(test)


def test_a_smaller_limit_holds_from_the_next_start_on(tmp_path: Path) -> None:
    async def test() -> None:
        for n in range(8):
            await fetched(DiskStore(tmp_path, 20 * MB), content(n, MB), source(content(n, MB)))
        assert taken(tmp_path) >= 8 * MB
        await DiskStore(tmp_path, 3 * MB).sweep()
        assert taken(tmp_path) <= 3 * MB

    run(test)
