"""A mount outlives what happens to its registry and to its readers."""

from __future__ import annotations

import json
import subprocess
import time

from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image
from tests.support import processes
from tests.support.mounts import Home, Mount, mounted


def test_a_registry_that_dies_and_comes_back_needs_no_remount(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", ["v1", "v2"])
        with mounted("--ttl", "1", registry.address, home=home) as mount:
            assert mount.list("team/app") == ["v1", "v2"]
            registry.stop()
            began = time.monotonic()
            processes.wait_until(
                lambda: mount.run("cat team/app/v2/config.json").returncode != 0, "it is noticed"
            )
            done = mount.run("LC_ALL=C cat team/app/v1/config.json", timeout=35)
            assert "No route to host" in done.stderr
            assert time.monotonic() - began < 35
            assert "→" in mount.errors().splitlines()[-1]
            assert mount.run("ls -ld . && df .", timeout=5).returncode == 0
            registry.start()
            assert mount.read("team/app/v2/manifest.json")
            registry.push("team/app", "v3")
            processes.wait_until(lambda: mount.list("team/app") == ["v1", "v2", "v3"], "the listing goes on")


def test_a_mount_comes_up_though_its_registry_is_down_and_says_what_to_do(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        registry.stop()
        with mounted(registry.address, home=home) as mount:
            assert registry.address in mount.stderr
            registry.start()
            assert mount.list("team/app") == ["v1"]


def test_an_open_file_shows_one_version_to_its_end(home: Home) -> None:
    with FakeRegistry() as registry:
        first = registry.push("app", "v1", make_image("first", annotations={"filler": "x" * 200_000}))
        with (
            mounted("--ttl", "0.2", registry.address, home=home) as mount,
            (mount.path / "app/v1/manifest.json").open("rb") as opened,
        ):
            head = opened.read(1000)
            second = registry.push("app", "v1", make_image("second"))
            processes.wait_until(
                lambda: mount.read("app/v1/digest").decode().strip() == str(second.digest), "the tag moves"
            )
            assert head + opened.read() == first.manifest.raw


def test_whoever_is_inside_by_digest_stays_there_when_the_tag_moves(home: Home) -> None:
    with FakeRegistry() as registry:
        first = registry.push("app", "v1", make_image("first"))
        with mounted("--ttl", "0.2", registry.address, home=home) as mount:
            folder = mount.path / "app/.digests" / first.digest.file_name
            inside = subprocess.Popen(
                ["sh", "-c", f"cd {folder} && read x; cat digest; pwd"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            second = registry.push("app", "v1", make_image("second"))
            processes.wait_until(
                lambda: mount.read("app/v1/digest").decode().strip() == str(second.digest), "the tag moves"
            )
            said, _ = inside.communicate(b"\n", timeout=30)
            assert said.decode().split() == [str(first.digest), str(folder)]


def test_tail_f_of_the_errors_file_follows_it(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("app", "v1")
        with mounted(registry.address, home=home) as mount:
            tail = subprocess.Popen(
                ["tail", "-n", "+1", "-s", "0.1", "-f", mount.path / ".regfs/errors"],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert tail.stdout is not None
            try:
                registry.fail(403, "manifest")
                for tag in ("one", "two"):
                    mount.run(f"cat app/{tag}/manifest.json")
                    line = tail.stdout.readline()
                    assert f"app/{tag}/manifest.json" in line
                    assert "→" in line
            finally:
                tail.kill()
                tail.wait()
                tail.stdout.close()


def test_the_errors_file_keeps_the_last_two_hundred(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("app", "v1")
        registry.fail(403, "manifest")
        with mounted(registry.address, home=home) as mount:
            mount.run("for n in $(seq 230); do cat app/t$n/manifest.json; done", timeout=60)
            lines = mount.errors().splitlines()
            assert len(lines) == 200
            assert "app/t230/" in lines[-1]


def test_a_new_sign_in_shows_without_a_remount(home: Home) -> None:
    with FakeRegistry() as one, FakeRegistry() as two:
        one.push("app", "v1")
        two.push("other", "v1")
        assert home.regfs("login", "--anonymous", "--name", "one", one.address).returncode == 0
        with mounted(home=home) as mount:
            assert mount.list() == ["one"]
            assert home.regfs("login", "--anonymous", "--name", "two", two.address).returncode == 0
            processes.wait_until(lambda: mount.list() == ["one", "two"], "the new connection shows")
            assert mount.list("two/other") == ["v1"]
            address_link = mount.run(["ls", f"{two.address}/other"], check=True).stdout
            assert address_link.split() == ["v1"]
            assert home.regfs("logout", "two").returncode == 0
            processes.wait_until(lambda: mount.list() == ["one"], "it goes again")


def test_refresh_shows_at_once_what_was_pushed(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with mounted("--ttl", "3600", registry.address, home=home) as mount:
            first = mount.read("team/app/v1/digest")
            assert mount.list("team/app") == ["v1"]
            registry.push("team/app", ["v1", "v2"], make_image("new"))
            assert mount.list("team/app") == ["v1"]
            assert home.regfs("refresh", str(mount.path / "team/app")).returncode == 0
            assert mount.list("team/app") == ["v1", "v2"]
            processes.wait_until(lambda: mount.read("team/app/v1/digest") != first, "the kernel forgets too")


def test_status_and_metrics_count_what_was_asked(mount_of_one: tuple[FakeRegistry, Mount]) -> None:
    registry, mount = mount_of_one
    before = mount.status()["registries"][0]["counters"]["requests"]
    mount.read("team/app/v1/manifest.json")
    status = mount.status()["registries"][0]
    assert status["counters"]["requests"] == before + 1
    assert status["address"] == registry.address
    metrics = mount.read(".regfs/metrics").decode()
    assert f'regfs_requests_total{{registry="{status["name"]}"}} {before + 1}\n' in metrics
    json.dumps(status)
