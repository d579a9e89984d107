"""The demo: it does what it shows, on every kind of machine, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.needs import need_fuse, need_programs, need_root

DEMO = Path(__file__).parent.parent / "scripts" / "demo"


def demo(
    folder: Path,
    *options: str,
    script: Path = DEMO,
    around: Sequence[str] = (),
    path: str = os.environ["PATH"],
) -> str:
    """Run the demo, by ``around``, with its temporary folder in ``folder``, and return what it showed."""
    done = subprocess.run(
        [*around, script, *options],
        env={**os.environ, "TMPDIR": str(folder), "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outputs(shown: str) -> list[tuple[str, str]]:
    """Each command that was shown, with what it printed."""
    found = re.findall(r"(?m)^\$ (.*)\n((?:(?![$#] |$).*\n)*)", shown)
    assert found
    return found


def printed(shown: str, pattern: str) -> list[str]:
    """What the commands that match ``pattern`` printed."""
    return [output for command, output in outputs(shown) if re.search(pattern, command)]


def check_nothing_is_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert not [mount for mount in fuse_mounts() if mount.is_relative_to(folder)]
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            assert f"HOME={folder}/".encode() not in environ.read_bytes()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue


def check_that_a_sibling_lived(shown: str, *, ls: str, cat: str) -> None:
    before, after = (set(output.split()) for output in printed(shown, ls))
    assert {"v1", "stable", "multi"} <= before
    assert before & {"v1", "stable", "multi"} - after == {"v1"}
    deleted, sibling = printed(shown, cat)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", deleted)
    assert sibling == deleted


def check_what_was_read(shown: str) -> None:
    digest = printed(shown, r"v1/digest$")[0].strip().removeprefix("sha256:")
    (summed,) = printed(shown, "sha256sum")
    assert summed.split()[0] == digest
    assert any('"schemaVersion": 2' in output for output in printed(shown, r"v1/manifest\.json"))
    (platforms,) = printed(shown, "platforms$")
    assert set(platforms.split()) == {"linux-amd64", "linux-arm64-v8"}


@pytest.mark.parametrize("options", [(), ("--without-registry",)], ids=["registry", "layout"])
def test_the_demo_mounts_reads_and_deletes_one_of_two_tags(options: tuple[str, ...], tmp_path: Path) -> None:
    need_fuse()
    need_programs("docker-registry", "skopeo", "jq")
    shown = demo(tmp_path, *options)
    check_what_was_read(shown)
    check_that_a_sibling_lived(shown, ls=r"^ls (-l )?registry/team/app$", cat=r"^cat .*/digest$")
    if not options:
        (listed,) = printed(shown, "^skopeo list-tags")
        assert '"stable"' in listed
        assert '"v1"' not in listed
    check_nothing_is_left(tmp_path)


@pytest.mark.parametrize("options", [(), ("--without-registry",)], ids=["registry", "layout"])
def test_without_fuse_the_demo_shows_the_same_by_ls_and_cat(options: tuple[str, ...], tmp_path: Path) -> None:
    need_programs("docker-registry", "skopeo", "jq")
    shown = demo(tmp_path, "--without-fuse", *options)
    check_what_was_read(shown)
    check_that_a_sibling_lived(shown, ls=r"^regfs ls .*/team/app$", cat=r"^regfs cat .*/digest$")
    check_nothing_is_left(tmp_path)


def test_where_there_is_no_dev_fuse_the_demo_says_what_brings_it(tmp_path: Path) -> None:
    need_root()
    need_programs("unshare", "docker-registry", "skopeo", "jq")
    # A /dev with the least in it, in a mount namespace of the demo's own.
    hide = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && ln -s /proc/self/fd /dev/fd"
    around = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{hide} && exec "$0" "$@"']
    shown = demo(tmp_path, around=around)
    assert "--device /dev/fuse" in shown
    check_what_was_read(shown)
    check_nothing_is_left(tmp_path)


def test_where_nothing_may_be_mounted_the_demo_says_what_allows_it(tmp_path: Path) -> None:
    need_root()
    need_fuse()
    need_programs("setpriv", "docker-registry", "skopeo", "jq")
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    shown = demo(tmp_path, around=without)
    assert "--cap-add SYS_ADMIN" in shown
    check_what_was_read(shown)
    check_nothing_is_left(tmp_path)


def test_where_there_is_no_registry_server_the_demo_says_so_and_goes_on(tmp_path: Path) -> None:
    need_programs("jq")
    programs = tmp_path / "bin"
    programs.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            link = programs / program.name
            if program.name not in ("docker-registry", "skopeo") and not link.is_symlink():
                link.symlink_to(program)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # The system's folders are taken out of the way by a PATH of links; what the demo itself appends is not.
    copy = tmp_path / "clone" / "scripts" / "demo"
    copy.parent.mkdir(parents=True)
    copy.write_text(DEMO.read_text())
    copy.chmod(0o755)
    (copy.parent.parent / ".venv").symlink_to(DEMO.parent.parent / ".venv")
    shown = demo(scratch, "--without-fuse", script=copy, path=str(programs))
    assert "There is no registry server here" in shown
    check_what_was_read(shown)
    check_nothing_is_left(scratch)
