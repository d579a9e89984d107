"""A mount's life as its user sees it: it comes up, says what is wrong, ends by a signal, leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.connection import Connection
from regfs.connections import ConnectionStore
from regfs.fuse.mount_table import mount_at
from regfs.testing.images import make_image
from tests.support import processes
from tests.support.mounts import Home, force_unmount, mounted, regfs_command
from tests.support.registry import DockerRegistry

Registries = Callable[..., DockerRegistry]


@contextlib.contextmanager
def stalled_registry() -> Iterator[str]:
    """A server that accepts connections and answers nothing; its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@pytest.fixture
def registry(docker_registry: Registries) -> DockerRegistry:
    started = docker_registry()
    started.push("team/app", "v1", make_image())
    return started


def test_a_registry_is_mounted_read_and_unmounted(
    home: Home, registry: DockerRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "made" / "by regfs"
    with mounted(registry.address, home=home, path=folder) as mount:
        assert mount.read("team/app/v1/manifest.json") == registry.get("team/app/manifests/v1")
        found = mount_at(folder)
        assert found is not None
        assert (found.type, found.source) == ("fuse.regfs", f"regfs#{registry.address}")
        home.regfs("umount", folder, check=True)
        assert not mount.is_mounted
        processes.wait_for_end(mount.pid)
    assert folder.is_dir()


def test_the_command_lets_go_of_its_terminal_and_pipes(
    home: Home, registry: DockerRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "mnt"
    try:
        line = f"{' '.join(regfs_command())} mount {registry.address} {folder} 2>&1 | cat"
        done = subprocess.run(["sh", "-c", line], env=home.env, capture_output=True, timeout=30, check=True)
        assert done.stdout.decode() == f"regfs: {folder}: made\n"
        pid = next(p for p, line in processes.children().items() if str(folder) in line)
        targets = {Path(f"/proc/{pid}/fd/{number}").readlink() for number in (0, 1, 2)}
        assert targets == {Path("/dev/null")}
        assert os.getsid(pid) == pid
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    finally:
        force_unmount(folder)
    processes.wait_for_end(pid)


def test_a_registry_that_is_down_is_a_warning_and_works_once_it_is_up(
    home: Home, registry: DockerRegistry
) -> None:
    registry.stop()
    start = time.monotonic()
    with mounted(registry.address, home=home) as mount:
        assert time.monotonic() - start < 2.5
        assert registry.address in mount.stderr
        assert "refused" in mount.stderr
        assert mount.run("ls").returncode != 0
        registry.start()
        assert mount.read("team/app/v1/digest").startswith(b"sha256:")


def test_a_registry_that_wants_a_sign_in_names_the_command(home: Home, docker_registry: Registries) -> None:
    registry = docker_registry(htpasswd={"tester": "a-password"})
    with mounted(registry.address, home=home) as mount:
        assert f"regfs login {registry.address}" in mount.stderr
        assert mount.run("ls").returncode == 2


def test_a_registry_that_stalls_does_not_hold_up_the_mount_for_long(home: Home) -> None:
    with stalled_registry() as address:
        start = time.monotonic()
        with mounted(address, home=home) as mount:
            assert time.monotonic() - start < 6
            assert "has not answered yet" in mount.stderr
            listed = mount.run(["ls", "-l", str(mount.path.parent)], timeout=2, check=True)
            assert mount.path.name in listed.stdout


def test_a_host_that_does_not_exist_is_a_failure_and_leaves_no_mount(home: Home, tmp_path: Path) -> None:
    done = home.regfs("mount", "no-such-host.invalid", tmp_path / "mnt")
    assert done.returncode == 1
    assert "no-such-host.invalid" in done.stderr
    assert mount_at(tmp_path / "mnt") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("foreground", [True, False])
def test_a_signal_unmounts(home: Home, registry: DockerRegistry, number: int, foreground: bool) -> None:
    with mounted(registry.address, home=home, foreground=foreground) as mount:
        processes.wait_until(lambda: mount.run("ls").returncode == 0, "the mount answers")
        time.sleep(
            0.2 if foreground else 0
        )  # until then a signal may come before there is anybody to obey it
        os.kill(mount.pid, number)
        processes.wait_for_end(mount.pid, 5)
        assert not mount.is_mounted


def test_a_signal_ends_a_mount_whose_readers_are_stuck(home: Home) -> None:
    with stalled_registry() as address, mounted(address, home=home) as mount:
        stuck = [
            subprocess.Popen(["cat", mount.path / f"a/b/v{n}/manifest.json"], stderr=-3) for n in range(50)
        ]
        time.sleep(0.5)
        assert all(reader.poll() is None for reader in stuck)
        os.kill(mount.pid, signal.SIGTERM)
        processes.wait_for_end(mount.pid, 5)
        assert not mount.is_mounted
        assert all(reader.wait(5) != 0 for reader in stuck)


def test_readers_that_are_killed_leave_the_mount_usable(home: Home, registry: DockerRegistry) -> None:
    with stalled_registry() as address:
        for name, where in (("stalled", address), ("good", registry.address)):
            ConnectionStore(home.config / "connections.json").save(Connection(name, where))
        with mounted(home=home) as mount:
            stuck = [
                subprocess.Popen(["cat", mount.path / f"stalled/a/b/v{n}/manifest.json"], stderr=-3)
                for n in range(120)
            ]
            time.sleep(0.5)
            start = time.monotonic()
            assert mount.read("good/team/app/v1/digest").startswith(b"sha256:")
            assert time.monotonic() - start < 0.5
            for reader in stuck[::2]:
                reader.kill()
            for reader in stuck[1::2]:
                reader.send_signal(signal.SIGINT)
            assert mount.read("good/team/app/v1/digest").startswith(b"sha256:")
            os.kill(mount.pid, signal.SIGTERM)
            processes.wait_for_end(mount.pid, 5)
            for reader in stuck:
                reader.wait(10)


def test_sighup_forgets_listings(home: Home, registry: DockerRegistry) -> None:
    with mounted(registry.address, "--ttl", "3600", home=home) as mount:
        assert mount.list("team/app") == ["v1"]
        registry.push("team/app", "v2", make_image("another"))
        assert mount.list("team/app") == ["v1"]
        os.kill(mount.pid, signal.SIGHUP)
        processes.wait_until(lambda: mount.list("team/app") == ["v1", "v2"], "the listing is new")


def test_a_mount_whose_daemon_was_killed_is_cleaned_up_by_the_next(
    home: Home, registry: DockerRegistry
) -> None:
    with mounted(registry.address, home=home) as first:
        first.kill()
        with pytest.raises(OSError, match="not connected"):
            first.path.stat()
        done = home.regfs("mount", registry.address, first.path, check=True)
        assert "had died" in done.stderr
        assert first.list() == ["team"]
        second = next(pid for pid, line in processes.children().items() if str(first.path) in line)
        home.regfs("umount", first.path, check=True)
        processes.wait_for_end(second)


def test_umount_clears_a_mount_whose_daemon_was_killed(home: Home, registry: DockerRegistry) -> None:
    with mounted(registry.address, home=home) as mount:
        mount.kill()
        home.regfs("umount", mount.path, check=True)
        assert not mount.is_mounted


def test_umount_says_who_is_in_the_way_and_can_be_lazy(home: Home, registry: DockerRegistry) -> None:
    with mounted(registry.address, home=home) as mount:
        with subprocess.Popen(["sleep", "60"], cwd=mount.path / "team") as sleeper:
            done = home.regfs("umount", mount.path)
            assert done.returncode == 1
            assert f"sleep ({sleeper.pid})" in done.stderr
            assert "--lazy" in done.stderr
            home.regfs("umount", "--lazy", mount.path, check=True)
            assert not mount.is_mounted
            sleeper.kill()
        processes.wait_for_end(mount.pid)


def test_umount_of_what_is_no_mount_of_ours_says_so(home: Home, tmp_path: Path) -> None:
    for folder in (tmp_path, Path("/proc")):
        done = home.regfs("umount", folder)
        assert done.returncode == 1
        assert "regfs" in done.stderr
    assert Path("/proc/self").exists()


def test_systemd_is_told_when_the_mount_is_usable_and_when_it_ends(
    home: Home, registry: DockerRegistry, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        home.variables["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with mounted(registry.address, home=home, foreground=True) as mount:
            first = channel.recv(4096).decode().splitlines()
            assert first[0] == "READY=1"
            assert first[1].startswith("STATUS=")
            assert mount.list() == ["team"]
            os.kill(mount.pid, signal.SIGTERM)
            assert channel.recv(4096) == b"STOPPING=1"
            processes.wait_for_end(mount.pid)


def test_a_connection_that_is_made_or_removed_shows_at_once(home: Home, registry: DockerRegistry) -> None:
    store = ConnectionStore(home.config / "connections.json")
    store.save(Connection("first", registry.address))
    with mounted(home=home) as mount:
        assert mount.list() == ["first"]
        store.save(Connection("second", registry.address))
        assert mount.list() == ["first", "second"]
        assert mount.list("second/team/app") == ["v1"]
        store.remove("first")
        assert mount.list() == ["second"]
        assert mount.run("ls first").returncode == 2


@pytest.mark.parametrize("single", [True, False])
def test_a_new_sign_in_serves_a_mount_that_is_up(
    home: Home, docker_registry: Registries, single: bool
) -> None:
    registry = docker_registry(htpasswd={"tester": "a-password"})
    registry.push("team/app", "v1", make_image())
    store = ConnectionStore(home.config / "connections.json")
    store.save(Connection("mine", registry.address))
    with mounted(*(["mine"] if single else []), home=home) as mount:
        top = "." if single else "mine"
        assert mount.run(f"ls {top}").returncode == 2
        home.docker_login(registry.address, "tester", "a-password")
        store.save(Connection("mine", registry.address, username="tester", generation="2"))
        assert "team" in mount.list(top)


def test_a_connection_that_cannot_be_opened_fails_alone(home: Home, registry: DockerRegistry) -> None:
    store = ConnectionStore(home.config / "connections.json")
    store.save(Connection("broken", "somewhere", provider="no-such-provider"))
    store.save(Connection("good", registry.address))
    with mounted(home=home, expected_in_log=["no-such-provider"]) as mount:
        assert "no-such-provider" in mount.stderr
        assert mount.list("good/team/app") == ["v1"]
        assert mount.run("ls broken").returncode == 2


def test_the_daemon_is_small_when_idle(home: Home, registry: DockerRegistry) -> None:
    with mounted(registry.address, home=home) as mount:
        status = Path(f"/proc/{mount.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        assert resident < 50 * 1024, f"{resident} KiB"
