"""What keeps a mount from coming up is said in words that mend it, and leaves nothing behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from regfs.fuse.mount_table import mount_at
from tests.mount.users import UserHome
from tests.support import processes
from tests.support.mounts import Home, mounted, regfs_command
from tests.support.needs import need_fuse, need_programs, need_root

NOWHERE = "127.0.0.1:1"


def refused(home: Home, *arguments: str | Path) -> str:
    done = home.regfs("mount", *arguments)
    assert done.returncode != 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def in_namespace(home: Home, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script (``REGFS`` is the command) in a mount namespace of its own: what it does to /dev or /etc is seen by nobody else."""
    need_root()
    need_programs("unshare")
    return subprocess.run(
        ["unshare", "-m", "sh", "-e", "-c", script.replace("REGFS", " ".join(regfs_command()))],
        env=home.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_folder_that_is_not_empty(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "thesis.tex").write_text("x")
    message = refused(home, NOWHERE, tmp_path / "mnt")
    assert "is not empty" in message
    assert "thesis.tex" in message
    assert mount_at(tmp_path / "mnt") is None


def test_a_file(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mnt").write_text("x")
    assert "is a file" in refused(home, NOWHERE, tmp_path / "mnt")


def test_a_folder_that_is_mounted_already(home: Home) -> None:
    with mounted(NOWHERE, home=home, expected_in_log=[".*"]) as mount:
        message = refused(home, NOWHERE, mount.path)
        assert "already a mount of regfs" in message
        assert f"regfs umount {mount.path}" in message
        assert mount.is_mounted


def test_a_folder_that_something_else_is_mounted_on(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    done = in_namespace(home, f"mount -t tmpfs none {tmp_path}/mnt; REGFS mount {NOWHERE} {tmp_path}/mnt")
    assert done.returncode == 1
    assert "is already mounted on" in done.stderr
    assert "tmpfs" in done.stderr


def test_no_fuse_device_names_the_flags_for_a_container_and_what_works_without(
    home: Home, tmp_path: Path
) -> None:
    script = (
        "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; "
        f"REGFS mount {NOWHERE} {tmp_path}/mnt"
    )
    done = in_namespace(home, script)
    assert done.returncode == 1
    assert "--device /dev/fuse --cap-add SYS_ADMIN" in done.stderr
    assert "regfs ls" in done.stderr


def test_letting_others_delete_must_be_said_twice(home: Home, tmp_path: Path) -> None:
    assert "--allow-other-write" in refused(home, "--rw", "--allow-other", NOWHERE, tmp_path / "mnt")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("suid", "refused"),
        ("dev", "refused"),
        ("tll=3", "did you mean ttl?"),
        ("ttl=soon", "seconds"),
        ("uid=no-such-user", "no such user"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(home: Home, tmp_path: Path, option: str, words: str) -> None:
    message = refused(home, "-o", f"ro,{option}", NOWHERE, tmp_path / "mnt")
    assert f"-o {option.partition('=')[0]}" in message
    assert words in message
    assert not (tmp_path / "mnt").exists()


def test_mount_without_a_folder_is_a_usage_error(home: Home) -> None:
    assert home.regfs("mount").returncode == 2


def test_ownership_and_umask_are_as_the_options_say(home: Home) -> None:
    with mounted("-o", "uid=1234,gid=4321,umask=077", NOWHERE, home=home, expected_in_log=[".*"]) as mount:
        found = mount.path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 4321, 0o500)


def test_mount_8_mounts_by_the_type_of_the_filesystem(home: Home, tmp_path: Path) -> None:
    need_fuse()
    need_programs("mount.fuse3")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "regfs"
    program.write_text(f'#!/bin/sh\nexec {" ".join(regfs_command())} "$@"\n')
    program.chmod(0o755)
    # mount(8) hands on no PATH, so the program has to be where the system's are
    done = in_namespace(
        home,
        f"mount --bind {tmp_path}/bin /usr/local/bin; mkdir -p {tmp_path}/mnt; "
        f"mount -t fuse.regfs -o _netdev,noatime,x-systemd.automount,ttl=5 {NOWHERE} {tmp_path}/mnt; "
        f"grep {tmp_path}/mnt /proc/self/mountinfo; umount {tmp_path}/mnt",
    )
    assert done.returncode == 0, done.stderr
    assert f"fuse.regfs regfs\\043{NOWHERE}" in done.stdout
    assert " ro,nosuid,nodev" in done.stdout
    for pid, line in processes.children().items():
        if str(tmp_path) in line:
            processes.wait_for_end(pid)


def test_a_user_who_is_not_root_is_told_the_exact_command_for_a_missing_folder(user_home: UserHome) -> None:
    done = user_home.mount("/missing/here")
    assert done.returncode == 1
    assert "`sudo mkdir -p /missing/here && sudo chown " in done.stderr


def test_a_user_may_not_mount_on_a_folder_of_somebody_else(user_home: UserHome, tmp_path: Path) -> None:
    done = user_home.mount("/usr/share/doc/fuse3")
    assert done.returncode == 1
    assert "is not yours to mount on" in done.stderr


def test_a_user_is_told_how_allow_other_is_allowed(user_home: UserHome) -> None:
    done = user_home.mount("$HOME/mnt", "--allow-other")
    assert done.returncode == 1
    assert "echo user_allow_other | sudo tee -a /etc/fuse.conf" in done.stderr


def test_a_user_without_fusermount3_is_told_the_package(user_home: UserHome) -> None:
    done = user_home.mount(
        "$HOME/mnt", before='touch "$HOME/none"; mount --bind "$HOME/none" "$(command -v fusermount3)"'
    )
    assert done.returncode == 1
    assert "fuse3" in done.stderr


def test_a_user_whose_fuse_device_is_closed_is_told_how_to_open_it(user_home: UserHome) -> None:
    done = user_home.mount("$HOME/mnt", before="chmod 600 /dev/fuse")
    assert done.returncode == 1
    assert "/dev/fuse cannot be opened" in done.stderr
    assert "SYS_ADMIN" in done.stderr
