"""`regfs status`, `refresh`, `ref` and `rm` on real mounts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.cli.mounts import our_mounts
from regfs.testing.behaviour import Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image, make_index
from tests.support.mounts import Home, Mount, mounted, regfs_command
from tests.support.processes import wait_until
from tests.support.registry import DockerRegistry

Registries = Callable[..., DockerRegistry]


@pytest.fixture
def registry(docker_registry: Registries) -> DockerRegistry:
    registry = docker_registry()
    registry.lay_image("team/app", make_image("app"), ["v1", "v2"])
    registry.lay_image("team/app", make_index(), ["both"])
    return registry


@pytest.fixture
def mount(registry: DockerRegistry, home: Home) -> Iterator[Mount]:
    with mounted("--rw", registry.address, home=home) as live:
        yield live


def test_ref_names_what_a_path_belongs_to(registry: DockerRegistry, mount: Mount, home: Home) -> None:
    app, base = mount.path / "team" / "app", f"{registry.address}/team/app"
    digest = registry.tags("team/app")["v1"]
    expected = {
        app / "v1": f"{base}:v1",
        app / "v1" / "manifest.json": f"{base}:v1",
        app / "v1" / "config.json": f"{base}:v1",
        app / ".tags" / "v1" / "digest": f"{base}:v1",
        app / "both" / "platforms": f"{base}:both",
        app / ".digests" / digest.file_name / "manifest.json": f"{base}@{digest}",
        app: base,
        app / ".tags": base,
        mount.path / "team": f"{registry.address}/team",
    }
    done = home.regfs("ref", *expected, check=True)
    assert done.stdout.split() == list(expected.values())
    by_digest = home.regfs("ref", "--digest", app / "v1" / "config.json", app / "v2", check=True)
    assert by_digest.stdout.split() == [f"{base}@{digest}"] * 2


def test_a_path_through_a_link_belongs_to_the_digest_that_it_names(
    registry: DockerRegistry, mount: Mount, home: Home
) -> None:
    platforms = mount.path / "team" / "app" / "both" / "platforms"
    names = mount.list("team/app/both/platforms")
    done = home.regfs("ref", *(platforms / name for name in names), check=True)
    assert all(line.startswith(f"{registry.address}/team/app@sha256:") for line in done.stdout.split())
    assert len(set(done.stdout.split())) == len(names) > 0


def test_a_link_from_outside_leads_into_the_mount(registry: DockerRegistry, mount: Mount, home: Home) -> None:
    link = home.path / "shortcut"
    link.symlink_to(mount.path / "team" / "app")
    assert home.regfs("ref", "shortcut/v1", check=True).stdout == f"{registry.address}/team/app:v1\n"


def test_what_is_not_there_is_said(mount: Mount, home: Home) -> None:
    done = home.regfs("ref", mount.path / "team" / "app" / "v9")
    assert done.returncode == 1
    assert "v9: No such file or directory" in done.stderr


def test_a_mount_of_which_nothing_may_be_listed_is_looked_after_like_any(home: Home) -> None:
    """Its root has the mode --x--x--x: it can't be read."""
    with FakeRegistry(Behaviour(catalog_status=403)) as fake, mounted(fake.address, home=home) as mount:
        assert mount.run("ls").returncode != 0
        wait_until(lambda: mount.run("stat -c %a .").stdout == "111\n", "the kernel has the new mode")
        assert "listings forgotten" in home.regfs("refresh", mount.path, check=True).stdout
        assert str(mount.path) in home.regfs("status", mount.path, check=True).stdout
        home.regfs("umount", mount.path, check=True)
        assert not mount.is_mounted


def test_refresh_shows_what_was_pushed_meanwhile(registry: DockerRegistry, home: Home) -> None:
    with mounted("--ttl", "3600", registry.address, home=home) as mount:
        assert mount.list("team/app") == ["both", "v1", "v2"]
        registry.lay_image("team/app", make_image("new"), ["v3"])
        assert "v3" not in mount.list("team/app")
        done = home.regfs("refresh", mount.path / "team", check=True)
        assert done.stdout.startswith(f"{mount.path}/team: listings forgotten: ")
        assert "v3" in mount.list("team/app")
        registry.lay_image("team/app", make_image("newer"), ["v4"])
        assert str(mount.path) in home.regfs("refresh", check=True).stdout
        assert "v4" in mount.list("team/app")


def test_status_shows_the_mount_the_registry_and_what_was_asked(
    registry: DockerRegistry, mount: Mount, home: Home
) -> None:
    mount.list("team/app")
    (facts,) = json.loads(home.regfs("status", "--json", mount.path / "team", check=True).stdout)
    assert facts["folder"] == str(mount.path)
    assert (facts["writable"], facts["alive"]) == (True, True)
    (row,) = facts["status"]["registries"]
    assert row["address"] == registry.address
    assert row["counters"]["requests"] > 0
    text = home.regfs("status", check=True).stdout
    assert f"{mount.path}: " in text
    assert f"address: {registry.address}" in text


def test_status_of_a_dead_mount_says_so_and_how_to_clear_it(registry: DockerRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        mount.kill()
        done = home.regfs("status", mount.path)
        assert done.returncode == 1
        assert "its daemon has died" in done.stderr
        assert f"regfs umount {mount.path}" in done.stderr
        (facts,) = json.loads(home.regfs("status", "--json", mount.path).stdout)
        assert (facts["alive"], facts["status"]) == (False, None)
        home.regfs("umount", mount.path, check=True)


@pytest.mark.parametrize("command", ["status", "refresh"])
def test_a_path_outside_all_mounts_is_said(command: str, home: Home) -> None:
    done = home.regfs(command, home.path)
    assert done.returncode == 1
    assert "in no mount of regfs" in done.stderr


def test_rm_through_a_mount_deletes_that_tag_alone_and_the_mount_shows_it_at_once(
    registry: DockerRegistry, mount: Mount, home: Home
) -> None:
    before = registry.tags("team/app")
    done = home.regfs("rm", mount.path / "team/app/v1", check=True)
    assert done.stdout.startswith(f"deleted {registry.address}/team/app:v1 ({before['v1']})")
    assert mount.list("team/app") == ["both", "v2"]
    assert registry.tags("team/app") == {name: digest for name, digest in before.items() if name != "v1"}


def test_rm_through_a_mount_takes_a_tag_and_nothing_else(
    registry: DockerRegistry, mount: Mount, home: Home
) -> None:
    before = registry.tags("team/app")
    digest = before["v1"].file_name
    for path in ("team/app/v1/config.json", "team/app", f"team/app/.digests/{digest}", "team/app/v9"):
        assert home.regfs("rm", mount.path / path).returncode == 1, path
    assert registry.tags("team/app") == before


@pytest.mark.parametrize("command", ["ls", "cat", "stat"])
def test_a_path_in_a_mount_is_told_from_a_registrys(mount: Mount, home: Home, command: str) -> None:
    done = mount.run([*regfs_command(), command, "team/app"])
    assert done.returncode != 0
    assert "this is a path in a mount" in done.stderr


def test_a_dry_run_on_a_path_deletes_nothing(registry: DockerRegistry, mount: Mount, home: Home) -> None:
    done = home.regfs("rm", "--dry-run", mount.path / "team/app/v1/manifest.json", check=True)
    assert done.stdout.startswith(f"would delete {registry.address}/team/app:v1 ")
    assert "v1" in registry.tags("team/app")


def test_a_read_only_mount_refuses_rm_and_asks_nothing(registry: DockerRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        mount.list("team/app/v1")
        before = len(registry.requests())
        done = home.regfs("rm", mount.path / "team/app/v1")
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert {line.method for line in registry.requests()[before:]} <= {"GET", "HEAD"}
    assert "v1" in registry.tags("team/app")


def test_a_deletion_that_is_switched_off_is_said_with_the_setting(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(delete=False)
    registry.lay_image("team/app", make_image("app"), ["v1"])
    with mounted("--rw", registry.address, home=home) as mount:
        done = home.regfs("rm", mount.path / "team/app/v1")
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
    assert "storage.delete.enabled" in done.stderr


def test_the_kernels_table_is_read_with_its_escapes(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:20 / /proc rw - proc proc rw\n"
        "50 1 0:45 / /mnt/with\\040blank ro,nosuid,nodev shared:1 - fuse.regfs registry.example.com ro,user_id=0\n"
        "51 1 0:46 / /mnt/b rw,nosuid - fuse.regfs b rw\n"
        "52 1 0:47 / /mnt/b rw,nosuid - fuse.regfs upper rw\n"
        "53 1 0:48 / /mnt/c rw - fuse.sshfs regfs rw\n"
    )
    found = [(str(mount.folder), mount.source, mount.writable) for mount in our_mounts(table)]
    assert found == [("/mnt/with blank", "registry.example.com", False), ("/mnt/b", "upper", True)]
