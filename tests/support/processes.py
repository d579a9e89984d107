"""Processes that tests start: each ends with the test, whatever happens to it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of every daemon that a child of ours leaves behind, so that none can be missed."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> dict[int, str]:
    """The living children of this process: pid and command line.

    One that has just ended may leave us its own children while we look, so that two looks have to agree.
    """
    before, found = None, _look_for_children()
    while found != before:
        before, found = found, _look_for_children()
    return {pid: _command_line(Path(f"/proc/{pid}")) for pid, state in found.items() if state != "Z"}


def _look_for_children() -> dict[int, str]:
    """The children of this process and their states, of which only "ended" is told from the others."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state, parent = _state(entry)
            if parent == os.getpid():
                found[int(entry.name)] = "Z" if state == "Z" else "alive"
    return found


def reap(pid: int) -> None:
    """Collect a child that has ended, so that it does not stay as a zombie."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def alive(pid: int) -> bool:
    """Whether a process lives: a zombie does not."""
    reap(pid)
    return _state(Path(f"/proc/{pid}"))[0] not in ("", "Z")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait for something that another process does. AssertionError with ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.005)


def wait_for_end(pid: int, seconds: float = 10.0) -> None:
    """Wait until a process has ended."""
    wait_until(lambda: not alive(pid), f"process {pid} ends", seconds)


def kill(pid: int) -> None:
    """Kill a process, if it still lives, and wait until it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_for_end(pid)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(pid: int, port: int) -> bool:
    """Whether that very process accepts connections on an IPv4 or IPv6 port: another's server does not count."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return bool(inodes) and not inodes.isdisjoint(_open_files(pid))


def start(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that dies when this process dies; both its outputs are appended to ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if env is None else dict(env),
            preexec_fn=_die_with_parent,
        )


def stop(process: subprocess.Popen[bytes], seconds: float = 5.0) -> None:
    """End a program: politely, then surely."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _state(entry: Path) -> tuple[str, int]:
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[1])


def _command_line(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _open_files(pid: int) -> set[str]:
    try:
        return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except (FileNotFoundError, ProcessLookupError):
        return set()
