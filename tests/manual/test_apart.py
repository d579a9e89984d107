"""What happens to one registry does not show in another."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from tests.support import processes
from tests.support.mounts import Home, Mount, mounted

READERS = 120
QUESTIONS = {
    "lookups": "stat team/new{n}/x{n}",
    "manifests": "cat team/app/t{n}/manifest.json",
    "configs": "cat team/app/v{n}/config.json",
}


class Two:
    """A mount of two registries, ``slow`` and ``quick``."""

    def __init__(self, mount: Mount, slow: FakeRegistry, quick: FakeRegistry) -> None:
        self.mount = mount
        self.slow = slow
        self.quick = quick


@pytest.fixture
def two(home: Home) -> Iterator[Two]:
    with ExitStack() as stack:
        slow = stack.enter_context(FakeRegistry())
        quick = stack.enter_context(FakeRegistry())
        slow.push(
            "team/app", ["cached", *(f"t{n}" for n in range(READERS)), *(f"v{n}" for n in range(READERS))]
        )
        for n in range(60):
            quick.push("team/app", f"v{n}")
        home.write_config(
            f"""
            [registries.slow]
            address = "{slow.address}"
            [registries.quick]
            address = "{quick.address}"
            """
        )
        yield Two(stack.enter_context(mounted("--ttl", "60", home=home)), slow, quick)


@contextmanager
def readers(mount: Mount, question: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Many processes that ask the slow registry, and what is left of them is killed at the end."""
    folder = mount.path / "slow"
    started = [
        subprocess.Popen(
            question.format(n=n).split(), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for n in range(READERS)
    ]
    try:
        yield started
    finally:
        for reader in started:
            reader.kill()
        for reader in started:
            reader.wait(timeout=60)


def seconds(path: Path) -> float:
    """How long one read takes, without the start of a process."""
    began = time.perf_counter()
    assert path.read_bytes()
    return time.perf_counter() - began


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_stalled_registry_with_120_readers_delays_no_other_and_no_cached_answer(
    two: Two, kind: str
) -> None:
    mount = two.mount
    cached = mount.path / "slow/team/app/cached/manifest.json"
    cached.read_bytes()
    if kind == "configs":
        mount.run("cat slow/team/app/v*/manifest.json", check=True)
    gate = two.slow.stall()
    with readers(mount, QUESTIONS[kind]) as started:
        processes.wait_until(lambda: two.slow.in_flight >= 1, "the slow registry is asked")
        processes.wait_until(lambda: sum(waiting(reader.pid) for reader in started) >= 60, "readers wait")
        took = [seconds(mount.path / f"quick/team/app/v{n}/manifest.json") for n in range(60)]
        assert sorted(took)[len(took) // 2] < 0.1
        assert sorted(took)[-3] < 0.1, took
        assert seconds(cached) < 0.1
        assert mount.run("ls -l . && df .", timeout=5).returncode == 0
        interrupt(started)
        assert seconds(mount.path / "quick/team/app/v1/manifest.json") < 0.1
        gate.open()
    processes.wait_until(
        lambda: mount.run("cat slow/team/app/t1/digest").returncode == 0, "the slow one serves again"
    )


def waiting(pid: int) -> bool:
    """Whether a process waits in the kernel for our answer."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text() in ("request_wait_answer", "fuse_wait_answer") or (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "SD"
        )
    except OSError:
        return False


def interrupt(started: list[subprocess.Popen[bytes]]) -> None:
    for number, reader in enumerate(started):
        reader.send_signal(signal.SIGINT if number % 2 else signal.SIGKILL)


def test_a_dead_registry_keeps_nobody_from_the_folder_that_holds_the_mounts(two: Two) -> None:
    two.slow.stop()
    began = time.perf_counter()
    assert two.mount.run("ls -l .", timeout=5, check=True).stdout.count("\n") == 3
    assert two.mount.run(["ls", "-l", str(two.mount.path.parent)], timeout=5).returncode == 0
    assert two.mount.run("df .", timeout=5).returncode == 0
    assert two.mount.run("ls quick/team/app", timeout=5).returncode == 0
    assert time.perf_counter() - began < 2


def test_two_hundred_readers_of_a_healthy_registry_are_all_served(two: Two) -> None:
    two.quick.push("team/many", [f"t{n}" for n in range(200)])
    two.quick.delay(0.02)
    started = [
        subprocess.Popen(
            ["cat", f"quick/team/many/t{n}/manifest.json"], cwd=two.mount.path, stdout=subprocess.DEVNULL
        )
        for n in range(200)
    ]
    assert [reader.wait(timeout=60) for reader in started] == [0] * 200
