"""Layers that are in the cache: root's kernel reads them from there by itself, and what anybody sees stays the same."""

from __future__ import annotations

import hashlib
import mmap
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from tests.manual.test_layers import LAYER, big, layer_of, sha256
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_root

MB = 1024 * 1024
IMAGE = big(6)
RAW, DIGITS = layer_of(IMAGE)


READ = """
import hashlib, os, sys
hashed, descriptor = hashlib.sha256(), int(sys.argv[1])
while data := os.read(descriptor, 1 << 20):
    hashed.update(data)
print(hashed.hexdigest())
"""
"""Reads an open file and asks nothing else about it."""


@contextmanager
def kept(home: Home) -> Iterator[tuple[FakeRegistry, Mount]]:
    """A mount whose cache has the layer."""
    need_root()
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", IMAGE)
        with mounted(registry.address, home=home) as mount:
            assert sha256(mount) == DIGITS
        with mounted(registry.address, home=home) as mount:
            yield registry, mount


def in_cache(home: Home) -> Path:
    """The cache's own file of the layer."""
    (found,) = (path for path in home.path.rglob(f"*{DIGITS}*") if path.stat().st_size == len(RAW))
    return found


def fetched(registry: FakeRegistry) -> int:
    """How often the layer was asked for."""
    return sum(DIGITS in request.target for request in registry.requests)


def kernel_can() -> bool:
    """Linux 6.9 and later."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(minor.partition("-")[0])) >= (6, 9)


def test_a_kept_layer_is_read_without_the_daemon(home: Home) -> None:
    with kept(home) as (_registry, mount), (mount.path / LAYER).open("rb") as layer:
        if not kernel_can():
            assert hashlib.sha256(layer.read()).hexdigest() == DIGITS
            return
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            done = subprocess.run(
                [sys.executable, "-c", READ, str(layer.fileno())],
                pass_fds=[layer.fileno()], capture_output=True, text=True, timeout=30, check=True,
            )  # fmt: skip
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        assert done.stdout.strip() == DIGITS


def test_a_kept_layer_can_be_mapped(home: Home) -> None:
    with kept(home) as (_registry, mount), (mount.path / LAYER).open("rb") as layer:
        for kind in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
            with mmap.mmap(layer.fileno(), 0, flags=kind, prot=mmap.PROT_READ) as mapped:
                assert hashlib.sha256(mapped).hexdigest() == DIGITS


def test_what_is_open_stays_readable_when_the_cache_loses_it(home: Home) -> None:
    with kept(home) as (registry, mount), (mount.path / LAYER).open("rb") as layer:
        assert layer.read(MB) == RAW[:MB]
        in_cache(home).unlink()
        assert layer.read() == RAW[MB:]
        before = fetched(registry)
        assert sha256(mount) == DIGITS
        assert fetched(registry) == before, "whoever has it open shares it"
    with kept(home) as (registry, mount):
        in_cache(home).unlink()
        before = fetched(registry)
        assert sha256(mount) == DIGITS
        assert fetched(registry) == before + 1


@pytest.mark.parametrize("is_open", [False, True])
def test_what_was_changed_in_the_cache_is_fetched_anew_also_while_somebody_has_it_open(
    home: Home, *, is_open: bool
) -> None:
    with kept(home) as (registry, mount):
        before = fetched(registry)
        layer = (mount.path / LAYER).open("rb") if is_open else None
        place = in_cache(home)
        place.chmod(0o600)
        with place.open("r+b") as file:
            file.seek(MB)
            file.write(bytes([RAW[MB] ^ 1]))
        assert sha256(mount) == DIGITS
        assert sha256(mount) == DIGITS
        assert fetched(registry) == before + 1
        if layer is not None:
            layer.close()


def test_a_reader_from_before_the_layer_was_there_goes_on_beside_those_that_come_after(home: Home) -> None:
    need_root()
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", IMAGE)
        with mounted(registry.address, home=home) as mount, (mount.path / LAYER).open("rb") as early:
            assert early.read(10) == RAW[:10]
            assert sha256(mount) == DIGITS
            with (mount.path / LAYER).open("rb") as late:
                assert late.read() == RAW
                assert early.read() == RAW[10:]
            assert sha256(mount) == DIGITS
        assert fetched(registry) == 1


def test_one_layer_by_two_paths_is_the_same(home: Home) -> None:
    with kept(home) as (_registry, mount):
        other = f"team/app/v1/oci/blobs/sha256/{DIGITS}"
        with (mount.path / LAYER).open("rb") as first, (mount.path / other).open("rb") as second:
            assert first.read() == second.read() == RAW
