"""The mount that tests work in is the real one, goes away whatever happens, and its log is looked at."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from regfs.testing.behaviour import Behaviour
from regfs.testing.fake import FakeRegistry
from tests.support import processes
from tests.support.mounts import Home, Mount, check_log, force_unmount, fuse_mounts, mounted
from tests.support.registry import DockerRegistry


def test_a_mount_shows_what_was_pushed_and_is_gone_at_the_end(
    docker_registry: Callable[..., DockerRegistry], home: Home
) -> None:
    registry = docker_registry()
    image = registry.push("team/app", ["v1", "v2"])
    with mounted(registry.address, home=home) as mount:
        assert mount.is_mounted
        assert processes.alive(mount.pid)
        assert mount.read("team/app/v1/manifest.json") == image.manifest.raw
        assert mount.list("team/app") == ["v1", "v2"]
        assert mount.run("cat team/app/v2/digest", check=True).stdout == f"{image.digest}\n"
        assert mount.run(["cat", "team/app/v3/digest"]).returncode == 1
        assert isinstance(mount.status(), dict)
        assert isinstance(mount.errors(), str)
    assert not mount.is_mounted
    assert not processes.alive(mount.pid)


def test_a_mount_in_the_foreground_is_the_same(home: Home) -> None:
    with FakeRegistry() as registry:
        image = registry.push("team/app", "v1")
        with mounted(registry.address, home=home, foreground=True) as mount:
            assert mount.read("team/app/v1/manifest.json") == image.manifest.raw
        assert not processes.alive(mount.pid)


def test_a_test_that_fails_leaves_no_mount_and_no_daemon(home: Home) -> None:
    seen: list[Mount] = []

    def fail_in(address: str) -> None:
        with mounted(address, home=home) as mount:
            seen.append(mount)
            raise ZeroDivisionError

    with FakeRegistry() as registry:
        with pytest.raises(ZeroDivisionError):
            fail_in(registry.address)
        assert seen[0].path not in fuse_mounts()
        assert not processes.alive(seen[0].pid)


def test_a_killed_daemon_leaves_a_dead_mount_that_is_cleared(home: Home) -> None:
    with FakeRegistry() as registry, mounted(registry.address, home=home) as mount:
        mount.kill()
        assert not processes.alive(mount.pid)
        force_unmount(mount.path)
        assert not mount.is_mounted


def test_a_user_unmounts_as_users_do(home: Home) -> None:
    with FakeRegistry() as registry, mounted(registry.address, home=home) as mount:
        mount.umount()
        assert not mount.is_mounted
        assert not processes.alive(mount.pid)


def test_a_mount_that_does_not_come_up_says_why(home: Home) -> None:
    with pytest.raises(AssertionError, match="no-such-host"), mounted("no-such-host.invalid", home=home):
        pass
    assert not any(mount.is_relative_to(home.path.parent) for mount in fuse_mounts())


def test_a_command_that_hangs_in_a_mount_does_not_hang_the_tests(home: Home) -> None:
    with FakeRegistry(Behaviour()) as registry:
        registry.push("team/app", "v1")
        with mounted(registry.address, home=home, expected_in_log=[".*"]) as mount:
            gate = registry.stall("manifest")
            with pytest.raises(subprocess.TimeoutExpired):
                mount.run("cat team/app/v1/manifest.json", timeout=1.0)
            gate.open()
            assert mount.run("cat team/app/v1/manifest.json").returncode == 0


def test_the_environment_is_the_tests_own(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    assert not {"HTTPS_PROXY", "DBUS_SESSION_BUS_ADDRESS", "REGISTRY_AUTH_FILE"} & home.env.keys()
    within = [value for name, value in home.env.items() if name.startswith(("XDG_", "DOCKER_", "HOME"))]
    assert len(within) == 7
    assert all(value.startswith(str(home.path)) for value in within)
    home.docker_login("one.example", "u", "p")
    home.docker_login("two.example", "u", "p")
    assert '"one.example"' in (home.docker / "config.json").read_text()


def test_an_error_in_a_log_is_found_unless_it_was_expected() -> None:
    check_log("2024 INFO regfs: all is well, no error here\n2024 WARNING regfs: a registry is slow")
    line = "2024 ERROR regfs.tree: something broke"
    with pytest.raises(AssertionError, match="something broke"):
        check_log(line)
    check_log(line, ["something broke"])
    with pytest.raises(AssertionError):
        check_log("Traceback (most recent call last):\n  …")
