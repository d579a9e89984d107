"""Daemons and commands on one cache that want one layer at once: it is fetched once, and whoever fetches may be killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image
from tests.support import processes
from tests.support.mounts import Home, Mount, force_unmount, mounted, regfs_command

MB = 1024 * 1024
LAYER = "team/app/v1/layers/00.tar.gz"
SIZE = 16 * MB
IMAGE = make_image("shared cache", files={"data": random.Random(81).randbytes(SIZE)})
DIGITS = IMAGE.layers[0].digest.hex


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", IMAGE)
        yield registry


@contextmanager
def two(registry: FakeRegistry, home: Home) -> Iterator[tuple[Mount, Mount]]:
    """Two daemons with one cache."""
    with mounted(registry.address, home=home) as one, mounted(registry.address, home=home) as other:
        yield one, other


def hashing(mount: Mount) -> subprocess.Popen[str]:
    """Somebody who reads the layer through a mount."""
    command = ["sha256sum", str(mount.path / LAYER)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(reader: subprocess.Popen[str]) -> str:
    """What it came to."""
    out, error = reader.communicate(timeout=60)
    assert reader.returncode == 0, error
    return out.split()[0]


def begins(registry: FakeRegistry) -> list[int]:
    """From which byte on the layer was asked for, each time."""
    ranges = [
        record.headers.get("range", "bytes=0-") for record in registry.requests if record.kind == "blob"
    ]
    return [int(text.removeprefix("bytes=").split("-")[0]) for text in ranges]


def test_two_daemons_that_read_one_layer_at_once_fetch_it_once(registry: FakeRegistry, home: Home) -> None:
    with two(registry, home) as (one, other):
        gate = registry.stall("blob", after=SIZE // 2)
        first = hashing(one)
        processes.wait_until(lambda: gate.waiting > 0, "the first one reads")
        second = hashing(other)
        done = other.run(["head", "-c", str(SIZE // 4), LAYER], check=False)
        assert done.returncode == 0, "what has come is there for both"
        gate.open()
        assert said(first) == said(second) == DIGITS
        assert begins(registry) == [0]
        assert one.errors() == other.errors() == ""
    assert home.regfs("cache", "verify").returncode == 0


def test_at_the_same_moment_too(registry: FakeRegistry, home: Home) -> None:
    registry.delay(0.2, "blob")
    with two(registry, home) as (one, other):
        readers = [hashing(mount) for mount in (one, other, one, other)]
        assert {said(reader) for reader in readers} == {DIGITS}
        assert begins(registry) == [0]


def test_a_command_reads_along_with_a_daemon(registry: FakeRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        gate = registry.stall("blob", after=SIZE // 2)
        first = hashing(mount)
        processes.wait_until(lambda: gate.waiting > 0, "the daemon reads")
        line = " ".join([*regfs_command(), "cat", f"{registry.address}/{LAYER} | sha256sum"])
        command = subprocess.Popen(
            ["sh", "-c", line], env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(1)
        gate.open()
        assert said(first) == said(command) == DIGITS
        assert begins(registry) == [0]


def test_when_the_one_that_fetches_is_killed_the_other_ends_with_what_is_missing(
    registry: FakeRegistry, home: Home
) -> None:
    chance = random.Random(82)
    for _ in range(4):
        registry.clear()
        registry.forget()
        stop = chance.randrange(MB, SIZE - MB)
        with mounted(registry.address, home=home) as other:
            with mounted(registry.address, home=home) as one:
                gate = registry.stall("blob", after=stop)
                first = hashing(one)
                processes.wait_until(lambda gate=gate: gate.waiting > 0, "the first one reads")  # type: ignore[misc]
                second = hashing(other)
                beginning = other.run(["head", "-c", str(stop // 2), LAYER])
                assert beginning.returncode == 0
                one.kill()
                force_unmount(one.path)
            gate.open()
            first.communicate(timeout=60)
            assert said(second) == DIGITS
            assert other.errors() == ""
            assert begins(registry)[0] == 0
            assert all(start >= stop // 2 for start in begins(registry)[1:])
        assert home.regfs("cache", "verify").returncode == 0
        assert home.regfs("cache", "prune", "--to", "0").returncode == 0


@pytest.mark.parametrize("same", [True, False])
def test_when_the_one_that_fetches_stands_still_the_other_goes_on_by_itself(
    same: bool, registry: FakeRegistry, home: Home
) -> None:
    good = IMAGE.layers[0].raw
    with two(registry, home) as (one, other):
        if not same:  # what the first one was given is wrong, and what the other one then gets is not
            registry.corrupt_blob("team/app", IMAGE.layers[0].digest, b"?" + good[1:])
        gate = registry.stall("blob", after=SIZE // 2)
        first = hashing(one)
        processes.wait_until(lambda: gate.waiting > 0, "the first one reads")
        second = hashing(other)
        assert other.run(["head", "-c", str(SIZE // 4), LAYER]).returncode == 0
        os.kill(one.pid, signal.SIGSTOP)
        try:
            registry.corrupt_blob("team/app", IMAGE.layers[0].digest, good)
            gate.open()
            out, _ = second.communicate(timeout=60)
            assert (second.returncode == 0) is same, "what came from both is verified together"
            assert not same or out.split()[0] == DIGITS
            assert begins(registry)[0] == 0
            assert all(start >= SIZE // 4 for start in begins(registry)[1:])
        finally:
            os.kill(one.pid, signal.SIGCONT)
        first.communicate(timeout=60)
        assert (first.returncode == 0) is same
        assert said(hashing(one)) == said(hashing(other)) == DIGITS
    assert home.regfs("cache", "verify").returncode == 0
