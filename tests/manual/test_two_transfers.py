"""A layer that comes in two transfers, since the disk was full in between: what one reader gets is verified together."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Image, make_image
from tests.support import processes
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_root

MB = 1024 * 1024
LAYER = "team/app/v1/layers/00.tar.gz"
IMAGE = make_image("two transfers", files={"data": random.Random(71).randbytes(24 * MB)})
MAPPED = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    flags = getattr(mmap, sys.argv[2])
    mapped = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
    print(hashlib.sha256(mapped).hexdigest())
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB, for a layer of 24."""
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none", disk], capture_output=True
    )
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def flipped(at: int) -> bytes:
    """The layer with one other bit."""
    data = layer(IMAGE)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def layer(image: Image) -> bytes:
    return image.layers[0].raw


@contextmanager
def reading(
    reader: str, first: bytes, second: bytes, disk: Path, home: Home
) -> Iterator[tuple[FakeRegistry, Mount, subprocess.Popen[str]]]:
    """Someone who reads the layer, of which the first transfer brings ``first``, and any later one ``second``."""
    home.write_config(f'cache_dir = "{disk}/cache"\n')
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", IMAGE)
        with mounted(registry.address, home=home) as mount:
            registry.corrupt_blob("team/app", IMAGE.layers[0].digest, first)
            gate = registry.stall("blob", after=2 * MB)
            path = str(mount.path / LAYER)
            command = {
                "cat": ["cat", path],
                "mmap, private": [sys.executable, "-c", MAPPED, path, "MAP_PRIVATE"],
                "mmap, shared": [sys.executable, "-c", MAPPED, path, "MAP_SHARED"],
            }[reader]
            out = home.path / "out"
            with out.open("wb") as file:
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True)
                processes.wait_until(lambda: registry.count("blob") == 1, "the layer is asked for")
                registry.corrupt_blob("team/app", IMAGE.layers[0].digest, second)
                gate.open()
                yield registry, mount, process


KINDS = ["cat", "mmap, private", "mmap, shared"]


@pytest.mark.parametrize("reader", KINDS)
def test_a_disk_that_is_full_in_mid_layer_costs_no_byte_twice(
    reader: str, small_disk: Path, home: Home
) -> None:
    with reading(reader, layer(IMAGE), layer(IMAGE), small_disk, home) as (registry, mount, process):
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        out = (home.path / "out").read_bytes()
        found = hashlib.sha256(out).hexdigest() if reader == "cat" else out.decode().strip()
        assert found == IMAGE.layers[0].digest.hex
        begins = [
            record.headers.get("range", "bytes=0-") for record in registry.requests if record.kind == "blob"
        ]
        assert begins[0] == "bytes=0-"
        assert len(begins) == 2, "the disk was full, and the rest came by itself"
        assert int(begins[1].removeprefix("bytes=").split("-")[0]) > 4 * MB
        assert mount.errors() == ""


@pytest.mark.parametrize("reader", KINDS)
@pytest.mark.parametrize("wrong", ["the first", "the second"])
def test_two_transfers_that_are_not_of_one_layer_are_read_to_no_clean_end(
    wrong: str, reader: str, small_disk: Path, home: Home
) -> None:
    good = layer(IMAGE)
    first, second = (flipped(MB), good) if wrong == "the first" else (good, flipped(len(good) - MB))
    with reading(reader, first, second, small_disk, home) as (_, mount, process):
        _, said = process.communicate(timeout=60)
        if reader == "cat":
            assert process.returncode == 1
            assert "Bad message" in said or "EBADMSG" in said
            assert (home.path / "out").stat().st_size < len(good)
        else:
            assert process.returncode == -signal.SIGBUS, said
        assert IMAGE.layers[0].digest.hex in mount.errors()
        done = mount.run(["sha256sum", LAYER])
        if wrong == "the first":
            assert done.stdout.split()[0] == IMAGE.layers[0].digest.hex, "it is asked for anew"
        else:
            assert done.returncode != 0
