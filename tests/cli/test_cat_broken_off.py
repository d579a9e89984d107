"""`regfs cat` of a large layer that is broken off: what came is kept, and the next one goes on behind it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from tests.support import processes
from tests.support.layered import PLAIN, image, layer
from tests.support.mounts import Home, regfs_command

BIG = image(layer({"noise": random.Random(1).randbytes(6_000_000)}, media_type=PLAIN))
LAYER = BIG.layers[0]
STALLS_AT = 3_000_000


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("team/big", "v1", BIG)
        yield registry


@pytest.fixture
def path(registry: FakeRegistry) -> str:
    return f"{registry.address}/team/big/v1/layers/00.tar"


def started(home: Home, path: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    argv = [*regfs_command(), "cat", path]
    return subprocess.Popen(argv, env=home.env, stdout=output, stderr=subprocess.PIPE, start_new_session=True)


def on_disk(home: Home) -> int:
    """How much of a download is there, in bytes."""
    partial = home.path / ".cache" / "regfs" / "partial"
    return sum(place.stat().st_blocks * 512 for place in partial.glob("*"))


def asked_from(registry: FakeRegistry) -> list[int]:
    """Where each request for the layer began."""
    ranges = [
        r.headers.get("range", "bytes=0-") for r in registry.requests if r.reference == str(LAYER.digest)
    ]
    return [int(told.removeprefix("bytes=").partition("-")[0]) for told in ranges]


def reads_on(registry: FakeRegistry, home: Home, path: str) -> int:
    """Read all of it; where the one request for it began."""
    registry.clear()
    registry.forget()
    done = subprocess.run(
        [*regfs_command(), "cat", path], env=home.env, capture_output=True, timeout=60, check=True
    )
    assert done.stdout == LAYER.raw
    (start,) = asked_from(registry)
    return start


@pytest.mark.parametrize("moment", range(4))
def test_what_ctrl_c_broke_off_is_taken_up(
    registry: FakeRegistry, home: Home, path: str, moment: int
) -> None:
    gate = registry.stall(lambda record: record.reference == str(LAYER.digest), after=STALLS_AT)
    process = started(home, path)
    enough = (1, 700_000, 1_400_000, 2_500_000)[moment]
    processes.wait_until(lambda: on_disk(home) > enough, "bytes come")
    there = on_disk(home)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert words == b"\n", "the line in which the terminal shows ^C is ended, and nothing more"
    gate.open()
    assert STALLS_AT >= reads_on(registry, home, path) >= there - 100_000


def test_so_is_what_came_while_nobody_took_the_output(registry: FakeRegistry, home: Home, path: str) -> None:
    gate = registry.stall(lambda record: record.reference == str(LAYER.digest), after=STALLS_AT)
    process = started(home, path, subprocess.PIPE)
    processes.wait_until(lambda: on_disk(home) > 2_500_000, "bytes come")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == -signal.SIGINT
    process.communicate()
    gate.open()
    assert reads_on(registry, home, path) > 2_400_000


def test_so_is_what_came_before_the_reader_of_the_pipe_left(
    registry: FakeRegistry, home: Home, path: str
) -> None:
    gate = registry.stall(lambda record: record.reference == str(LAYER.digest), after=STALLS_AT)
    process = started(home, path, subprocess.PIPE)
    assert process.stdout is not None
    processes.wait_until(lambda: on_disk(home) > 2_500_000, "bytes come")
    process.stdout.close()
    words = process.stderr.read() if process.stderr is not None else b""
    assert (process.wait(timeout=30), words) == (-signal.SIGPIPE, b"")
    gate.open()
    assert reads_on(registry, home, path) > 2_400_000


def test_one_whose_interrupts_are_ignored_goes_on(registry: FakeRegistry, home: Home, path: str) -> None:
    """As in the background of a script: Ctrl-C there is not for it."""
    gate = registry.stall(lambda record: record.reference == str(LAYER.digest), after=STALLS_AT)
    command = " ".join(regfs_command())
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; exec {command} cat {path}"],
        env=home.env,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    processes.wait_until(lambda: on_disk(home) > 2_500_000, "bytes come")
    process.send_signal(signal.SIGINT)
    gate.open()
    assert process.communicate(timeout=30)[0] == LAYER.raw
    assert process.returncode == 0


IN_THE_MIDST = """
import sys, trio
from regfs.cli import walk

async def work(trees):
    print("begun", flush=True)
    sys.stdin.readline()
    print("this line was gone through", flush=True)
    await trio.sleep_forever()

walk.run(work, ends_in_order=True)
"""


def test_ctrl_c_breaks_off_no_line_of_code(home: Home, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", IN_THE_MIDST],
        env=home.env,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    processes.wait_until(lambda: _dies_by_interrupts(process.pid), "it was taken")
    said, words = process.communicate("\n", timeout=30)
    assert said == "this line was gone through\n"
    assert "KeyboardInterrupt" in words
    assert process.returncode != 0


STUCK = """
import trio
from regfs.cli import walk

async def stuck(trees):
    print("begun", flush=True)
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

walk.run(stuck, ends_in_order=True)
"""


def test_a_second_ctrl_c_waits_for_nothing(home: Home, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], env=home.env, stdout=subprocess.PIPE, cwd=tmp_path, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    processes.wait_until(lambda: _dies_by_interrupts(process.pid), "the first one was taken")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == -signal.SIGINT
    process.stdout.close()


def _dies_by_interrupts(pid: int) -> bool:
    """Whether nothing catches SIGINT there (proc(5), SigCgt)."""
    (caught,) = (
        line.split()[1]
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("SigCgt")
    )
    return not int(caught, 16) >> (signal.SIGINT - 1) & 1
