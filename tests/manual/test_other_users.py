"""Who else on the machine gets into a mount, and what they may do there."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_programs, need_root

SHARED = ("--rw", "--allow-other", "--allow-other-write")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("team/app", ["v1", "v2"])
        yield registry


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can reach, as pytest's own are not."""
    need_root()
    need_programs("setpriv")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "mnt"


def as_nobody(mount: Mount, command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in the mount as a user who is neither root nor its owner."""
    who = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    script = f"LC_ALL=C; export LC_ALL; cd {mount.path} && {command}"
    return subprocess.run(
        [*who, "sh", "-c", script], cwd="/", capture_output=True, text=True, timeout=30, check=False
    )


def test_nobody_else_gets_in_unless_told_so(registry: FakeRegistry, home: Home, folder: Path) -> None:
    with mounted(registry.address, home=home, path=folder) as mount:
        done = as_nobody(mount, "ls")
        assert done.returncode != 0
        assert done.stdout == ""


def test_others_who_are_let_in_read_and_do_not_see_the_own_folder(
    registry: FakeRegistry, home: Home, folder: Path
) -> None:
    with mounted("--allow-other", registry.address, home=home, path=folder) as mount:
        assert as_nobody(mount, "ls team/app").stdout.split() == ["v1", "v2"]
        assert as_nobody(mount, "cat team/app/v1/digest").stdout.startswith("sha256:")
        assert "Permission denied" in as_nobody(mount, "cat .regfs/status.json").stderr
        assert "Read-only file system" in as_nobody(mount, "rm team/app/v1/manifest.json").stderr


def test_others_who_are_let_write_delete_a_tag_and_nothing_else(
    registry: FakeRegistry, home: Home, folder: Path
) -> None:
    with mounted(*SHARED, registry.address, home=home, path=folder) as mount:
        done = as_nobody(mount, "rm -r team/app/v1")
        assert (done.returncode, done.stderr) == (0, ""), mount.errors()
        assert registry.content()["team/app"].keys() == {"v2"}
        assert "Permission denied" in as_nobody(mount, "ls .regfs").stderr


def test_umask_takes_that_from_them_again(registry: FakeRegistry, home: Home, folder: Path) -> None:
    with mounted(*SHARED, "--umask", "022", registry.address, home=home, path=folder) as mount:
        assert "Permission denied" in as_nobody(mount, "rm -r team/app/v1").stderr
        assert registry.content()["team/app"].keys() == {"v1", "v2"}
        assert registry.writes() == []
