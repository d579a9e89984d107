"""What each question costs the registry: no request that the user's question did not need."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Pushable, make_image, make_index
from regfs.testing.proxy import DelayProxy
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_programs
from tests.support.registry import DockerRegistry

RegistryFactory = Callable[..., DockerRegistry]

ABSENT = ("nosuch", "team/nosuch", "team/app/nosuch", "team/app/v1/nosuch", "big/nosuch")


@pytest.fixture(scope="module")
def big_registry() -> Iterator[DockerRegistry]:
    """10,000 repositories, one of 10,000 tags, and one that was pushed: read only, so one serves all."""
    need_programs("docker-registry", "skopeo")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        registry = DockerRegistry(Path(folder) / "registry").start()
        try:
            registry.push("team/app", ["v1", "v2"])
            image = make_image("big")
            registry.lay_image("big", image)
            registry.lay_tags("big", image.digest, [f"v{n}" for n in range(10_000)])
            registry.lay_repositories([f"many/r{n:05}" for n in range(10_000)], make_image("many"))
            yield registry
        finally:
            registry.stop()


def requests_after_the_first_check(proxy: DelayProxy) -> list[tuple[str, int | None]]:
    """What was asked, by kind and status, but for the mount's own first check."""
    return [(p.kind, p.status) for p in proxy.requests if p.kind not in ("ping", "token")]


def test_a_cold_cat_among_ten_thousand_repositories_costs_one_manifest_request(
    big_registry: DockerRegistry, home: Home
) -> None:
    with DelayProxy(big_registry.address, 0.02) as proxy, mounted(proxy.address, home=home) as mount:
        raw = mount.read("team/app/v1/manifest.json")
        assert json.loads(raw)["schemaVersion"] == 2
        assert requests_after_the_first_check(proxy) == [("manifest", 200)]


def test_a_cold_cat_behind_a_sign_in_costs_one_refusal_more(
    docker_registry: RegistryFactory, token_server: Callable[..., object], home: Home
) -> None:
    registry = docker_registry(token=token_server())
    registry.push("team/app", "v1")
    with DelayProxy(registry.address, 0.02) as proxy:
        home.docker_login(proxy.address, "tester", "a-password")
        with mounted(proxy.address, home=home) as mount:
            mount.read("team/app/v1/manifest.json")
            asked = requests_after_the_first_check(proxy)
            assert [status for _, status in asked if status != 401] == [200]
            assert len(asked) <= 2
            assert {kind for kind, _ in asked} == {"manifest"}


@pytest.mark.parametrize("flags", [(), ("--rw",)])
def test_absent_names_are_not_there_whoever_asks_and_change_no_listing(
    big_registry: DockerRegistry, home: Home, flags: tuple[str, ...]
) -> None:
    with mounted(*flags, big_registry.address, home=home) as mount:
        for name in ABSENT:
            for question in ("test -d", "test -e", "test -r", "cd"):
                assert mount.run(f"{question} {name}").returncode != 0, (question, name)
            for program in ("stat", "ls", "find", "cat"):
                done = mount.run(f"LC_ALL=C {program} {name}")
                assert done.returncode != 0
                assert "No such file or directory" in done.stderr, (program, name, done.stderr)
        assert mount.list() == ["big", "many", "team"]
        assert mount.list("team") == ["app"]
        assert mount.list("team/app") == ["v1", "v2"]


@pytest.mark.parametrize("flags", [(), ("--rw",)])
def test_repositories_and_tags_may_bear_the_names_of_a_tags_files(
    docker_registry: RegistryFactory, home: Home, flags: tuple[str, ...]
) -> None:
    registry = docker_registry()
    for repository, tag in (
        ("a/b/oci", "v1"),
        ("digest", "v1"),
        ("team/digest", "v1"),
        ("app", "manifest.json"),
    ):
        registry.push(repository, tag)
    with mounted(*flags, registry.address, home=home) as mount:
        for path in ("a/b/oci/v1", "digest/v1", "team/digest/v1", "app/manifest.json"):
            assert json.loads(mount.read(f"{path}/manifest.json"))["layers"]
    with mounted(*flags, registry.address, home=home) as mount:
        assert mount.list("a/b") == ["oci"]
        assert mount.list("app") == ["manifest.json"]
        assert "manifest.json" in mount.list("app/manifest.json")
        assert mount.list("team") == ["digest"]


def test_a_long_listing_costs_its_tag_pages_and_the_catalog_once_a_mount(home: Home) -> None:
    with FakeRegistry(Behaviour(page_size=1000)) as registry:
        image = make_image("big")
        registry.push("team/big", [f"v{n:05}" for n in range(10_000)], image)
        registry.push("team/small", "v1")
        with mounted("--ttl", "60", registry.address, home=home) as mount:
            registry.forget()
            lines = mount.run("ls -l team/big", check=True).stdout.splitlines()
            assert len(lines) == 10_001
            assert registry.count("tags") == 10
            assert registry.count("catalog") == 1
            assert len(registry.requests) == 11
            mount.run("ls -l team/big", check=True)
            assert len(registry.requests) == 11
            mount.run("ls -l team/small", check=True)
            assert len(registry.requests) == 12


@pytest.mark.parametrize("what", [make_image("one"), make_index(seed="one")], ids=["images", "indexes"])
def test_find_over_a_registry_costs_each_list_and_each_manifest_once(home: Home, what: Pushable) -> None:
    with FakeRegistry() as registry:
        for number in range(200):
            kind = make_image if what.__class__.__name__ == "Image" else make_index
            registry.push(f"bench/r{number:03}", [f"t{n}" for n in range(5)], kind(seed=str(number)))
        registry.delay(0.02)
        with mounted("--ttl", "60", registry.address, home=home) as mount:
            registry.forget()
            found = mount.run(["find", ".", "-name", "manifest.json"], check=True, timeout=60).stdout
            assert len(found.splitlines()) == 1000
            assert registry.count("catalog") == 2
            assert registry.count("tags") == 200
            assert registry.count("manifest") == 1000
            assert len(registry.requests) == 1202
            assert registry.max_in_flight >= 8


def test_a_hundred_processes_that_open_one_cold_manifest_cost_one_token_and_one_request(home: Home) -> None:
    with FakeRegistry(Behaviour(auth=Auth.BEARER)) as registry:
        registry.push("team/app", "v1")
        home.docker_login(registry.address, "tester", "a-password")
        with mounted(registry.address, home=home) as mount:
            registry.forget()
            registry.delay(0.2)
            path = mount.path / "team/app/v1/manifest.json"
            readers = [subprocess.Popen(["cat", path], stdout=subprocess.PIPE) for _ in range(100)]
            read = {reader.communicate(timeout=60)[0] for reader in readers}
            assert len(read) == 1
            assert [request.status for request in registry.manifest_requests() if request.status != 401] == [
                200
            ]
            assert registry.tokens == 1
            _only_manifests(registry)


def _only_manifests(registry: FakeRegistry) -> None:
    kinds = {request.kind for request in registry.requests}
    assert kinds <= {"manifest", "token"}, kinds


def test_reading_a_tag_twice_within_the_limit_asks_once(mount_of_one: tuple[FakeRegistry, Mount]) -> None:
    registry, mount = mount_of_one
    mount.read("team/app/v1/manifest.json")
    mount.read("team/app/v1/digest")
    mount.run("sha256sum team/app/v1/manifest.json; jq .config.digest team/app/v1/manifest.json", check=True)
    assert registry.count("manifest") == 1


def test_df_and_the_root_never_ask_the_registry(mount_of_one: tuple[FakeRegistry, Mount]) -> None:
    registry, mount = mount_of_one
    mount.run("df . && stat . && test -d . && ls -ld . && test -x .", check=True)
    assert registry.requests == []
