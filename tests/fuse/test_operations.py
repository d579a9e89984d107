"""What the kernel is told, seen through a real mount of a filesystem of a few names."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from regfs.fuse.mount_table import mount_at
from regfs.fuse.operations import HANDLERS
from tests.fuse.small_mount import CONTENT, MANY, SLOW, STATE, TIME_NS
from tests.support.needs import need_fuse, need_root


@dataclass
class Small:
    """A small mount that is up."""

    folder: Path
    log: Path
    ready: dict[str, Any]

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(os.getxattr(self.folder, STATE))
        return found


@contextlib.contextmanager
def small_mount(tmp_path: Path, *arguments: str) -> Iterator[Small]:
    need_fuse()
    need_root()
    folder, log = tmp_path / "mnt", tmp_path / "log"
    folder.mkdir()
    program = [sys.executable, str(Path(__file__).with_name("small_mount.py")), str(folder), *arguments]
    with (
        log.open("wb") as errors,
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        try:
            word, _, ready = process.stdout.readline().decode().partition(" ")
            assert word == "ready", log.read_text()
            yield Small(folder, log, json.loads(ready))
            assert process.poll() is None, log.read_text()
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
            try:
                process.wait(10)
            finally:
                process.kill()


@pytest.fixture(params=["direct", "libfuse"])
def loop(request: pytest.FixtureRequest) -> str:
    """Who takes the requests: each test holds for both."""
    return str(request.param)


@pytest.fixture
def small(tmp_path: Path, loop: str) -> Iterator[Small]:
    with small_mount(tmp_path, "--loop", loop) as mounted:
        yield mounted


def test_every_handler_that_pyfuse3_has_is_answered() -> None:
    handlers = {
        name
        for name, member in vars(pyfuse3.Operations).items()
        if inspect.iscoroutinefunction(member) and not name.startswith("_")
    }
    assert handlers == set(HANDLERS)


def test_attributes_arrive_as_the_filesystem_says_them(small: Small) -> None:
    found = (small.folder / "hello").stat()
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o444
    assert found.st_size == len(CONTENT)
    assert found.st_mtime_ns == TIME_NS
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    assert found.st_blocks == 1
    assert (small.folder / "link").readlink() == Path("hello")
    assert (small.folder / "hello").read_bytes() == CONTENT


def test_a_folder_has_one_link_so_that_find_looks_into_every_entry(small: Small) -> None:
    assert small.folder.stat().st_nlink == 1
    assert (small.folder / "sub").stat().st_nlink == 1


def test_df_shows_the_mount_and_no_full_filesystem(small: Small) -> None:
    found = os.statvfs(small.folder)
    assert found.f_blocks > 0
    assert found.f_bavail == found.f_blocks
    assert found.f_files > found.f_ffree > 0


def test_the_kernels_lookup_counts_come_back_exactly(small: Small) -> None:
    for _ in range(3):
        assert len(list((small.folder / "many").iterdir())) == MANY
        list(os.scandir(small.folder))
    with os.scandir(small.folder / "many") as begun:
        next(begun)  # leaves a reply of which only a part was taken
    assert small.state()["lookups"] > MANY
    Path("/proc/sys/vm/drop_caches").write_text("2")
    deadline = time.monotonic() + 10
    while (left := small.state()["lookups"]) and time.monotonic() < deadline:
        time.sleep(0.05)
        Path("/proc/sys/vm/drop_caches").write_text("2")
    assert left == 0
    assert small.state()["open"] == {"folders": 0}


def test_lookups_in_one_folder_run_together(small: Small) -> None:
    assert small.ready["parallel"]
    threads = [
        threading.Thread(target=os.stat, args=(small.folder / f"slow-{number}",)) for number in range(12)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert SLOW <= time.monotonic() - start < 4 * SLOW


@pytest.mark.parametrize("how", ["refused", "lost"])
def test_a_handshake_that_fails_costs_nothing_but_the_parallel_lookups(tmp_path: Path, how: str) -> None:
    with small_mount(tmp_path, "--handshake", how) as mounted:
        assert not mounted.ready["parallel"]
        assert (mounted.folder / "hello").read_bytes() == CONTENT
        assert "going on without parallel lookups" in mounted.log.read_text()
        names = [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(mounted.folder) in line
        ]
        assert len(names) == 1


def test_the_mount_is_named_and_cannot_run_setuid_programs(small: Small) -> None:
    found = mount_at(small.folder)
    assert found is not None
    assert (found.type, found.source, found.is_ours) == ("fuse.regfs", "regfs#small:1", True)
    assert {"ro", "nosuid", "nodev"} <= found.options


def test_a_read_only_mount_says_erofs(small: Small) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: (small.folder / "new").mkdir(),
        lambda: (small.folder / "hello").unlink(),
        lambda: (small.folder / "hello").write_bytes(b""),
        lambda: os.utime(small.folder / "hello"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="Read-only") as refusal:
            attempt()
        assert refusal.value.errno == errno.EROFS


PROBES: dict[str, Callable[[Path], object]] = {
    "lookup": lambda root: (root / "hello").stat(),
    "getattr": lambda root: root.stat(),
    "setattr": lambda root: (root / "hello").chmod(0o600),
    "readlink": lambda root: (root / "link").readlink(),
    "access": lambda root: _access(root / "hello"),
    "open": lambda root: (root / "hello").open("rb"),
    "read": lambda root: (root / "hello").read_bytes(),
    "flush": lambda root: os.close(os.open(root / "hello", os.O_RDONLY)),
    "fsync": lambda root: _on_descriptor(root / "hello", os.fsync),
    "opendir": lambda root: list(root.iterdir()),
    "readdir": lambda root: list(root.iterdir()),
    "fsyncdir": lambda root: _on_descriptor(root, os.fsync),
    "statfs": lambda root: os.statvfs(root),
    "create": lambda root: (root / "new").write_bytes(b"x"),
    "mknod": lambda root: os.mknod(root / "new", 0o600 | stat.S_IFIFO),
    "mkdir": lambda root: (root / "new").mkdir(),
    "symlink": lambda root: (root / "new").symlink_to("x"),
    "link": lambda root: os.link(root / "hello", root / "new"),
    "unlink": lambda root: (root / "hello").unlink(),
    "rmdir": lambda root: (root / "sub").rmdir(),
    "rename": lambda root: (root / "hello").rename(root / "new"),
    "getxattr": lambda root: os.getxattr(root / "hello", "user.x"),
    "setxattr": lambda root: os.setxattr(root / "hello", "user.x", b"1"),
    "listxattr": lambda root: os.listxattr(root / "hello"),
    "removexattr": lambda root: os.removexattr(root / "hello", "user.x"),
}
UNANSWERED = {
    "forget": "the kernel expects no answer",
    "release": "the kernel ignores the answer",
    "releasedir": "the kernel ignores the answer",
    "write": "no file is ever opened for writing",
    "poll": "a poll that fails is ready, says the kernel",
}


def _access(path: Path) -> None:
    done = subprocess.run(["test", "-r", str(path)], check=False)
    assert done.returncode == 1
    code = "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True); libc.access(sys.argv[1].encode(), 4); print(ctypes.get_errno())"
    number = int(subprocess.check_output([sys.executable, "-c", code, str(path)]))
    raise OSError(number, os.strerror(number))


def _on_descriptor(path: Path, call: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        call(descriptor)
    finally:
        os.close(descriptor)


def test_there_is_a_probe_for_every_handler() -> None:
    assert set(PROBES) | set(UNANSWERED) == set(HANDLERS)


@pytest.mark.parametrize("handler", sorted(PROBES))
def test_an_exception_nobody_foresaw_is_eio_and_a_log_line_and_the_mount_lives(
    tmp_path: Path, handler: str, loop: str
) -> None:
    with small_mount(tmp_path, "--loop", loop, "--plant", handler, "--writable") as mounted:
        with pytest.raises(OSError, match="Input/output error") as failure:
            PROBES[handler](mounted.folder)
        assert failure.value.errno == errno.EIO
        log = mounted.log.read_text()
        assert f"planted in {handler}" in log
        assert "Traceback" in log
        if handler != "getattr":
            assert any(f"planted in {handler}" in note for note in mounted.state()["notes"])


@pytest.mark.parametrize("handler", ["forget", "release", "releasedir"])
def test_a_failure_that_the_kernel_does_not_hear_of_is_logged_and_the_mount_lives(
    tmp_path: Path, handler: str, loop: str
) -> None:
    with small_mount(tmp_path, "--loop", loop, "--plant", handler) as mounted:
        assert list(mounted.folder.iterdir())
        assert (mounted.folder / "hello").read_bytes() == CONTENT
        Path("/proc/sys/vm/drop_caches").write_text("2")
        deadline = time.monotonic() + 10
        while f"planted in {handler}" not in mounted.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (mounted.folder / "hello").read_bytes() == CONTENT


def test_with_writing_allowed_what_cannot_be_written_yet_is_eperm(tmp_path: Path, loop: str) -> None:
    with small_mount(tmp_path, "--loop", loop, "--writable") as mounted:
        for name in (
            "create",
            "mkdir",
            "symlink",
            "link",
            "rename",
            "setattr",
            "setxattr",
            "unlink",
            "rmdir",
        ):
            with pytest.raises(OSError, match="not permitted") as failure:
                PROBES[name](mounted.folder)
            assert failure.value.errno == errno.EPERM, name
