"""A user who is not root mounts, reads and unmounts, by fusermount3."""

from __future__ import annotations

from collections.abc import Callable

from regfs.testing.images import make_image
from tests.mount.users import UserHome
from tests.support.registry import DockerRegistry


def test_a_user_mounts_reads_and_unmounts(
    user_home: UserHome, docker_registry: Callable[..., DockerRegistry]
) -> None:
    registry = docker_registry()
    registry.push("team/app", "v1", make_image())
    done = user_home.run(
        f"set -e; regfs mount {registry.address} mnt; "
        "sha256sum mnt/team/app/v1/manifest.json; stat -c %U mnt/team/app; "
        'grep "$HOME/mnt " /proc/self/mountinfo; '
        "regfs status --json mnt > /dev/null; regfs umount mnt; ls -A mnt"
    )
    assert done.returncode == 0, done.stderr
    checksum, owner, mount = done.stdout.splitlines()
    assert registry.tags("team/app")["v1"].hex == checksum.split()[0]
    assert owner == user_home.name
    assert f"regfs\\043{registry.address}" in mount
    assert "nosuid,nodev" in mount


def test_a_users_stale_mount_is_cleaned_up(
    user_home: UserHome, docker_registry: Callable[..., DockerRegistry]
) -> None:
    registry = docker_registry()
    registry.push("team/app", "v1", make_image())
    done = user_home.run(
        f"set -e; regfs mount {registry.address} stale; "
        'pid=$(pgrep -u "$(id -u)" -x python3); kill -9 $pid; '
        f"regfs mount {registry.address} stale; ls stale/team; regfs umount stale"
    )
    assert done.returncode == 0, done.stderr
    assert "had died" in done.stderr
    assert done.stdout == "app\n"
