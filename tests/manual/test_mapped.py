"""Files that are mapped into memory, privately or shared: the right bytes, or a signal, and never wrong ones."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image
from tests.support import processes
from tests.support.mounts import Home, mounted

MB = 1024 * 1024
DATA = random.Random(91).randbytes(3 * MB + 77)
IMAGE = make_image("mapped", files={"data": DATA, "small": DATA[:5000]})
BLOB = IMAGE.layers[0].raw
FILES = {
    "team/app/v1/layers/00.tar.gz": BLOB,
    "team/app/v1/rootfs/data": DATA,
    "team/app/v1/rootfs/small": DATA[:5000],
}
READ = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, flags=getattr(mmap, sys.argv[2]), prot=mmap.PROT_READ)
size = len(mapped)
order = {"forwards": range(0, size, 4096), "backwards": reversed(range(0, size, 4096))}[sys.argv[3]]
pages = {start: mapped[start : start + 4096] for start in order}
print(hashlib.sha256(b"".join(pages[start] for start in sorted(pages))).hexdigest())
"""
"""Maps a file, closes it, and reads it page by page."""


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", IMAGE)
        yield registry


def read_mapped(path: Path, flags: str, order: str = "forwards") -> subprocess.CompletedProcess[str]:
    """Read a file as memory."""
    return subprocess.run(
        [sys.executable, "-c", READ, path, flags, order],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("order", ["forwards", "backwards"])
@pytest.mark.parametrize("flags", ["MAP_PRIVATE", "MAP_SHARED"])
@pytest.mark.parametrize("name", FILES)
def test_a_mapped_file_has_its_bytes_when_they_come_and_later(
    name: str, flags: str, order: str, registry: FakeRegistry, home: Home
) -> None:
    with mounted(registry.address, home=home) as mount:
        for _ in range(3):
            done = read_mapped(mount.path / name, flags, order)
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip() == hashlib.sha256(FILES[name]).hexdigest()
    with mounted(registry.address, home=home) as mount:
        done = read_mapped(mount.path / name, flags, order)
        assert done.stdout.strip() == hashlib.sha256(FILES[name]).hexdigest()


@pytest.mark.parametrize("cache", ["a cache", "no cache"])
@pytest.mark.parametrize("flags", ["MAP_PRIVATE", "MAP_SHARED"])
@pytest.mark.parametrize("name", FILES)
def test_of_a_wrong_layer_nothing_is_mapped_to_its_end(
    name: str, flags: str, cache: str, registry: FakeRegistry, home: Home
) -> None:
    if cache == "no cache":
        home.write_config('cache_size = "0"\n')
    digest = IMAGE.layers[0].digest
    at = len(BLOB) // 2
    registry.corrupt_blob("team/app", digest, BLOB[:at] + bytes([BLOB[at] ^ 1]) + BLOB[at + 1 :])
    with mounted(registry.address, home=home) as mount:
        for _ in range(2):
            done = read_mapped(mount.path / name, flags)
            assert done.stdout == ""
            if "rootfs" in name and done.returncode == 1:  # the layer proved wrong before the file was open
                assert "Bad message" in done.stderr
            else:
                assert done.returncode == -signal.SIGBUS, done.stderr
        registry.corrupt_blob("team/app", digest, BLOB)
        done = read_mapped(mount.path / name, flags)
        assert done.stdout.strip() == hashlib.sha256(FILES[name]).hexdigest()


@pytest.mark.parametrize("flags", ["MAP_PRIVATE", "MAP_SHARED"])
def test_a_file_of_a_layer_that_became_wrong_is_not_mapped_to_its_end(
    flags: str, registry: FakeRegistry, home: Home
) -> None:
    name = "team/app/v1/rootfs/data"
    cache = home.path / ".cache" / "regfs"
    with mounted(registry.address, home=home) as mount:
        assert read_mapped(mount.path / name, flags).returncode == 0
        processes.wait_until(lambda: list((cache / "derived").glob("*.index.*")) != [], "the index is kept")
    for kept in (*cache.glob(f"content/*{IMAGE.layers[0].digest.hex}"), *cache.glob("derived/*piece*")):
        kept.unlink()
    at = len(BLOB) // 2
    wrong = BLOB[:at] + bytes([BLOB[at] ^ 1]) + BLOB[at + 1 :]
    registry.corrupt_blob("team/app", IMAGE.layers[0].digest, wrong)
    with mounted(registry.address, home=home) as mount:
        done = read_mapped(mount.path / name, flags)
        assert done.returncode == -signal.SIGBUS, done.stderr
        assert done.stdout == ""
        registry.corrupt_blob("team/app", IMAGE.layers[0].digest, BLOB)
        done = read_mapped(mount.path / name, flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == hashlib.sha256(DATA).hexdigest()
