"""A program that waits for a registry can be ended: at once, whatever the registry does, and nobody else's answer with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from tests.manual.test_layers import LAYER, big, layer_of, sha256
from tests.support.mounts import Home, Mount, mounted

MB = 1024 * 1024
IMAGE = big(4)
RAW, DIGITS = layer_of(IMAGE)
SOON = 5.0


@pytest.fixture
def served(home: Home) -> Iterator[tuple[FakeRegistry, Mount]]:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", IMAGE)
        with mounted(registry.address, home=home) as mount:
            yield registry, mount


def waiting(mount: Mount, *command: str) -> subprocess.Popen[bytes]:
    """A program that is stuck in the mount by now."""
    process = subprocess.Popen(command, cwd=mount.path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while _state(process.pid) not in "SD" or "fuse" not in _where(process.pid):
        assert time.monotonic() < deadline, f"{_state(process.pid)} {_where(process.pid)}"
        time.sleep(0.02)
    return process


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _where(pid: int) -> str:
    return Path(f"/proc/{pid}/stack").read_text() if os.geteuid() == 0 else "fuse"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_reader_of_a_stalled_layer_ends_when_it_is_told_to(
    served: tuple[FakeRegistry, Mount], number: signal.Signals
) -> None:
    registry, mount = served
    gate = registry.stall("blob", after=MB)
    reader = waiting(mount, "cat", LAYER)
    began = time.monotonic()
    reader.send_signal(number)
    assert reader.wait(SOON) == -number
    assert time.monotonic() - began < SOON
    gate.open()
    assert sha256(mount) == DIGITS


def test_a_look_for_a_stalled_tag_ends_when_it_is_told_to(served: tuple[FakeRegistry, Mount]) -> None:
    registry, mount = served
    gate = registry.stall("manifest")
    reader = waiting(mount, "cat", "team/app/v1/manifest.json")
    reader.kill()
    assert reader.wait(SOON) == -signal.SIGKILL
    gate.open()
    assert mount.read("team/app/v1/manifest.json")


def test_one_reader_that_is_killed_leaves_the_others_their_bytes(served: tuple[FakeRegistry, Mount]) -> None:
    registry, mount = served
    gate = registry.stall("blob", after=MB)
    readers = [waiting(mount, "sha256sum", LAYER) for _ in range(3)]
    readers[0].kill()
    assert readers[0].wait(SOON) == -signal.SIGKILL
    gate.open()
    assert [reader.wait(30) for reader in readers[1:]] == [0, 0]


HANDLES = """
import os, signal, sys
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
descriptor, total = os.open(sys.argv[1], os.O_RDONLY), 0
while data := os.read(descriptor, 1 << 20):
    total += len(data)
print(total, bool(seen))
"""


def test_a_program_that_handles_a_signal_reads_on_undisturbed(served: tuple[FakeRegistry, Mount]) -> None:
    registry, mount = served
    gate = registry.stall("blob", after=MB)
    command = [sys.executable, "-c", HANDLES, LAYER]
    with subprocess.Popen(command, cwd=mount.path, stdout=subprocess.PIPE, text=True) as reader:
        time.sleep(1)  # twenty of its signals
        gate.open()
        out, _ = reader.communicate(timeout=30)
    assert out.split() == [str(len(RAW)), "True"]
