"""Layers through real mounts: bytes as stored, fetched once, whatever the registry and the network do meanwhile."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.testing.behaviour import Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Image, make_artifact, make_image, make_index
from tests.support import processes
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_programs
from tests.support.registry import DockerRegistry

MB = 1024 * 1024
LAYER = "team/app/v1/layers/00.tar.gz"


def big(megabytes: int, seed: int = 1) -> Image:
    """An image whose layer does not compress."""
    return make_image(f"big {seed}", files={"data": random.Random(seed).randbytes(megabytes * MB)})


@contextmanager
def serving(
    image: Image, home: Home, *flags: str, **switches: object
) -> Iterator[tuple[FakeRegistry, Mount]]:
    with FakeRegistry(Behaviour(**switches)) as registry:  # type: ignore[arg-type]
        registry.push("team/app", "v1", image)
        with mounted(*flags, registry.address, home=home) as mount:
            yield registry, mount


def sha256(mount: Mount, path: str = LAYER, timeout: float = 60.0) -> str:
    """What `sha256sum` says of a file in the mount."""
    done = mount.run(["sha256sum", path], timeout=timeout, check=True)
    return done.stdout.split()[0]


def layer_of(image: Image) -> tuple[bytes, str]:
    """The bytes of an image's only layer, and the digits of their digest."""
    return image.layers[0].raw, image.layers[0].digest.hex


def is_verified(mount: Mount, path: str = LAYER) -> bool:
    """What the attribute says."""
    return os.getxattr(mount.path / path, "user.oci.verified") == b"1"


# ── bytes as stored ──────────────────────────────────────────────────────────────────────────────


def test_a_layer_is_exactly_what_the_registry_stores(
    docker_registry: Callable[..., DockerRegistry], home: Home
) -> None:
    need_programs("skopeo", "sha256sum")
    registry = docker_registry()
    image = big(20)
    registry.push("team/app", ["v1"], image)
    digits = layer_of(image)[1]
    before = _blobs_asked(registry, digits)
    with mounted(registry.address, home=home) as mount:
        assert mount.list("team/app/v1/layers") == ["00.tar.gz"]
        assert sha256(mount) == layer_of(image)[1]
        assert sha256(mount) == layer_of(image)[1]
        assert is_verified(mount)
        assert _blobs_asked(registry, digits) == before + 1
        data = (mount.path / LAYER).read_bytes()
        with (mount.path / LAYER).open("rb") as file:
            for start in (0, 5 * MB + 3, len(data) - 10):
                file.seek(start)
                assert file.read(70_000) == data[start : start + 70_000]
    with mounted(registry.address, home=home) as mount:
        assert sha256(mount) == layer_of(image)[1]
        assert _blobs_asked(registry, digits) == before + 1, "a later daemon reads what an earlier one kept"


def _blobs_asked(registry: DockerRegistry, digits: str) -> int:
    return sum(line.method == "GET" and digits in line.target for line in registry.requests())


def test_many_readers_share_one_download(home: Home) -> None:
    image = big(16)
    with serving(image, home) as (registry, mount):
        registry.delay(0.3, "blob")
        command = f"for n in $(seq 16); do sha256sum {LAYER} & done; wait"
        done = mount.run(command, check=True)
        assert [line.split()[0] for line in done.stdout.splitlines()] == [layer_of(image)[1]] * 16
        assert registry.count("blob") == 1


def test_the_first_byte_comes_long_before_the_last(home: Home) -> None:
    with serving(big(8), home) as (registry, mount):
        gate = registry.stall("blob", after=MB)
        assert len(mount.run(["head", "-c", "1000", LAYER], timeout=5, check=True).stdout) > 0
        assert not is_verified(mount)
        gate.open()


def test_the_end_of_a_large_layer_costs_one_small_range(home: Home) -> None:
    image = big(24)
    data, _ = layer_of(image)
    with serving(image, home) as (registry, mount):
        done = subprocess.run(["tail", "-c", "100", mount.path / LAYER], capture_output=True, check=True)
        assert done.stdout == data[-100:]
        asked = [record for record in registry.requests if record.kind == "blob"]
        assert len(asked) == 1
        assert "range" in asked[0].headers
        assert not is_verified(mount)


def test_when_the_last_reader_leaves_the_download_stops_and_goes_on_later(home: Home) -> None:
    image = big(16)
    with serving(image, home) as (registry, mount):
        gate = registry.stall("blob", after=6 * MB)
        mount.run(f"head -c {5 * MB} {LAYER} > /dev/null", check=True)
        time.sleep(1)
        gate.open()
        registry.clear()
        processes.wait_until(lambda: _ended(registry), "the first transfer ends", 5)
        assert sha256(mount) == layer_of(image)[1]
        second = [record for record in registry.requests if record.kind == "blob"][-1]
        start = int(second.headers["range"].removeprefix("bytes=").split("-")[0])
        assert start >= 4 * MB


def _ended(registry: FakeRegistry) -> bool:
    return all(record.end is not None for record in registry.requests if record.kind == "blob")


# ── two daemons on one cache ─────────────────────────────────────────────────────────────────────


def test_two_daemons_share_a_cache_and_one_may_evict_what_the_other_reads(home: Home) -> None:
    images = [big(6, seed) for seed in range(4)]
    home.write_config('cache_size = "16 MiB"\n')
    with FakeRegistry() as registry:
        for number, image in enumerate(images):
            registry.push("team/app", f"v{number}", image)
        with (
            mounted(registry.address, home=home) as one,
            mounted(registry.address, home=home) as other,
        ):
            wrong: list[str] = []

            def read(mount: Mount, seed: int) -> None:
                chance = random.Random(seed)
                for _ in range(12):
                    number = chance.randrange(len(images))
                    found = sha256(mount, f"team/app/v{number}/layers/00.tar.gz")
                    if found != layer_of(images[number])[1]:
                        wrong.append(f"v{number}: {found}")

            threads = [
                threading.Thread(target=read, args=(mount, seed))
                for seed, mount in enumerate((one, other, one, other))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert wrong == []
            assert one.errors() == other.errors() == ""
        done = home.regfs("cache", "verify")
        assert done.returncode == 0, done.stdout + done.stderr


# ── registries and networks that fail ────────────────────────────────────────────────────────────


def test_a_registry_that_ignores_ranges_is_read_all_the_same(home: Home) -> None:
    image = big(12)
    data, digits = layer_of(image)
    with serving(image, home, ranges=False) as (_registry, mount):
        done = subprocess.run(["tail", "-c", "100", mount.path / LAYER], capture_output=True, check=True)
        assert done.stdout == data[-100:]
        assert sha256(mount) == digits


def test_a_registry_that_breaks_off_at_every_megabyte_is_read_all_the_same(home: Home) -> None:
    image = big(10)
    with serving(image, home) as (registry, mount):
        registry.truncate(MB, "blob")
        assert sha256(mount) == layer_of(image)[1]
        assert registry.count("blob") >= 10
        assert mount.errors() == ""


def test_a_registry_that_is_stopped_for_ten_seconds_is_read_on(
    docker_registry: Callable[..., DockerRegistry], home: Home
) -> None:
    registry = docker_registry()
    image = big(60)
    registry.push("team/app", ["v1"], image)
    with mounted(registry.address, home=home) as mount:
        reader = subprocess.Popen(["sha256sum", mount.path / LAYER], stdout=subprocess.PIPE, text=True)
        time.sleep(0.1)
        os.kill(registry.pid, signal.SIGSTOP)
        time.sleep(10)
        os.kill(registry.pid, signal.SIGCONT)
        said, _ = reader.communicate(timeout=60)
        assert said.split()[0] == layer_of(image)[1]


def test_a_signed_url_that_ends_meanwhile_is_asked_for_anew(home: Home) -> None:
    image = big(12)
    data, digits = layer_of(image)
    with serving(image, home, redirect_blobs="elsewhere", redirect_lifetime=0.5) as (registry, mount):
        registry.truncate(4 * MB, lambda record: record.kind == "blob" and record.listener != "registry")
        with (mount.path / LAYER).open("rb") as file:
            for start in (0, 3 * MB, 6 * MB, 9 * MB):
                file.seek(start)
                assert file.read(1000) == data[start : start + 1000]
                time.sleep(0.6)
        assert sha256(mount) == digits
        assert "X-Signature" not in mount.log() + mount.errors()


def test_a_hundred_and_twenty_stalled_readers_leave_a_neighbour_its_tenth_of_a_second(home: Home) -> None:
    images = [big(1, seed) for seed in range(120)]
    with FakeRegistry() as stalled, FakeRegistry() as well:
        for number, image in enumerate(images):
            stalled.push("team/app", f"v{number}", image)
        well.push("team/app", "v1")
        for registry in (stalled, well):
            home.regfs("login", registry.address, "--anonymous")
        names = [registry.address.replace(":", "_") for registry in (stalled, well)]
        with mounted(home=home) as mount:
            gate = stalled.stall("blob", after=MB // 2)
            paths = [mount.path / names[0] / f"team/app/v{n}/layers/00.tar.gz" for n in range(len(images))]
            for path in paths:
                path.stat()
            readers = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL) for path in paths]
            try:
                processes.wait_until(lambda: gate.waiting >= 8, "downloads stand still", 20)
                time.sleep(1)
                worst = 0.0
                for name in ("manifest.json", "digest", "config.json", "layers/00.tar.gz"):
                    began = time.monotonic()
                    (mount.path / names[1] / "team/app/v1" / name).read_bytes()
                    worst = max(worst, time.monotonic() - began)
                assert worst < 0.1
                began = time.monotonic()
                (mount.path / names[0] / "team/app/v1/manifest.json").read_bytes()
                assert time.monotonic() - began < 1, "names and manifests of the same registry still answer"
            finally:
                gate.open()
                for reader in readers:
                    reader.wait(timeout=60)


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────

WRONG: dict[str, Callable[[bytes], bytes]] = {
    "one byte is another": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "it is cut short": lambda data: data[:-1000],
    "it is longer": lambda data: data + b"more",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layer_is_never_read_to_its_end(wrong: str, home: Home) -> None:
    image = big(3)
    data, digits = layer_of(image)
    with serving(image, home) as (registry, mount):
        registry.corrupt_blob("team/app", image.layers[0].digest, WRONG[wrong](data))
        inodes = set()
        for _ in range(2):
            inodes.add((mount.path / LAYER).stat().st_ino)
            done = mount.run(f"LC_ALL=C cat {LAYER} > /dev/null")
            assert done.returncode != 0
            assert "Bad message" in done.stderr
        assert len(inodes) == 2, "who opens it again gets a new inode"
        assert not is_verified(mount)
        command = f"cat {LAYER} > /dev/null & cat {LAYER} > /dev/null & wait $! && exit 1; wait"
        assert "Bad message" in mount.run(f"LC_ALL=C; export LC_ALL; {command}").stderr
        assert "EBADMSG" not in mount.errors()
        assert "→" in mount.errors()
        mapped = subprocess.run([sys.executable, "-c", _READ_MAPPED, mount.path / LAYER], check=False)
        assert mapped.returncode != 0, "it is not read to its end as memory"
        registry.corrupt_blob("team/app", image.layers[0].digest, data)
        assert sha256(mount) == digits
        assert home.regfs("cache", "verify").returncode == 0


_READ_MAPPED = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    hashlib.sha256(mapped)
"""
"""Reads a file as memory; where that can't be had, the process ends by a signal."""


def test_a_layer_can_be_mapped_into_memory(home: Home) -> None:
    image = big(3)
    data, _ = layer_of(image)
    with serving(image, home) as (_registry, mount):
        for _ in range(2):
            with (
                (mount.path / LAYER).open("rb") as file,
                mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapped,
            ):
                assert hashlib.sha256(mapped).digest() == hashlib.sha256(data).digest()
            sha256(mount)


# ── without a cache ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("setting", ['cache_size = "0"', 'cache_dir = "/proc/nowhere"'])
def test_without_a_place_for_a_cache_layers_are_read_all_the_same(setting: str, home: Home) -> None:
    image = big(10)
    home.write_config(f"{setting}\n")
    with serving(image, home) as (registry, mount):
        done = mount.run(f"for n in $(seq 8); do sha256sum {LAYER} & done; wait", check=True)
        assert {line.split()[0] for line in done.stdout.splitlines()} == {layer_of(image)[1]}
        assert registry.count("blob") <= 3
        registry.corrupt_blob("team/app", image.layers[0].digest, layer_of(big(10, 2))[0])
        assert "Bad message" in mount.run(f"LC_ALL=C cat {LAYER} > /dev/null").stderr


# ── what it costs ────────────────────────────────────────────────────────────────────────────────


def test_a_large_layer_costs_the_daemon_little_memory(
    docker_registry: Callable[..., DockerRegistry], home: Home, tmp_path: Path
) -> None:
    registry = docker_registry()
    image = big(1)
    registry.push("team/app", ["v1"], image)
    size = 1024 * MB
    digits = _lay_sparse_layer(registry, image, size)
    with mounted(registry.address, home=home) as mount:
        mount.read("team/app/v1/manifest.json")
        before = _resident(mount.pid)
        assert sha256(mount, "team/app/large/layers/00.tar", timeout=120) == digits
        assert _resident(mount.pid) - before < 64 * MB


def _resident(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _lay_sparse_layer(registry: DockerRegistry, image: Image, size: int) -> str:
    """Push an image with a layer of zeros, which takes no room on disk; the digits of its digest."""
    hashed = hashlib.sha256()
    for _ in range(size // MB):
        hashed.update(bytes(MB))
    digits = hashed.hexdigest()
    config = image.config
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": image.manifest.media_type,
            "config": config.reference(),
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": f"sha256:{digits}",
                    "size": size,
                }
            ],
        }
    ).encode()
    blobs = registry.storage / "docker/registry/v2"
    digest = hashlib.sha256(raw).hexdigest()
    for data, name in ((raw, digest), (None, digits)):
        place = blobs / "blobs/sha256" / name[:2] / name
        place.mkdir(parents=True)
        if data is not None:
            (place / "data").write_bytes(data)
        else:
            with (place / "data").open("wb") as file:
                file.truncate(size)
    repository = blobs / "repositories/team/app"
    links = {
        f"_layers/sha256/{digits}": digits,
        f"_manifests/revisions/sha256/{digest}": digest,
        "_manifests/tags/large/current": digest,
        f"_manifests/tags/large/index/sha256/{digest}": digest,
    }
    for link, name in links.items():
        (repository / link).mkdir(parents=True)
        (repository / link / "link").write_text(f"sha256:{name}")
    return digits


def test_what_walks_a_registry_pulls_no_image(home: Home, tmp_path: Path) -> None:
    image = big(2)
    with serving(image, home) as (registry, mount):
        registry.push("team/app", "multi", make_index())
        registry.push("team/chart", "1.0", make_artifact())
        layers = {blob.digest for what in (image, *make_index().images) for blob in what.layers}
        commands = (
            "find . -name manifest.json",
            "du -sh .",
            "grep -r nothing-of-this . || true",
            f"cp -r team {tmp_path / 'copy'}",
            "ls -lR . > /dev/null",
            "tar c team > /dev/null",
            "find . -type f -exec file {} + > /dev/null",
        )
        for command in commands:
            mount.run(command, check=True)
        asked = {record.reference for record in registry.requests if record.kind == "blob"}
        assert not asked & {str(digest) for digest in layers}
        assert (tmp_path / "copy/app/v1/layers").is_symlink()
        shutil.rmtree(tmp_path / "copy")
