"""Deleting tags through a mount: that tag only, whoever deletes, however the registry answers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.digest import Digest
from regfs.testing.behaviour import Behaviour, DigestDelete, TagDelete
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image, make_index, write_layout
from tests.support.mounts import Home, Mount, mounted
from tests.support.registry import DockerRegistry

Tags = Callable[[], Mapping[str, Digest]]

WAYS = {
    "accepted": Behaviour(tag_delete=TagDelete.ACCEPTED),
    "bad digest": Behaviour(tag_delete=TagDelete.DIGEST_INVALID),
    "unsupported": Behaviour(tag_delete=TagDelete.UNSUPPORTED),
    "digest only": Behaviour(tag_delete=TagDelete.ACCEPTED, digest_delete=DigestDelete.ONLY_DIGEST),
    "takes siblings": Behaviour(tag_delete=TagDelete.TAKES_SIBLINGS),
}


class Place:
    """A registry with three tags of one digest in team/app, one tag in team/other, and how to look at it."""

    def __init__(
        self,
        address: str,
        push: Callable[[str, list[str], str], None],
        tags: Callable[[str], Mapping[str, Digest]],
    ):
        self.address = address
        self.push = push
        self.tags = tags
        push("team/app", ["v1", "v2", "v3"], "one")
        push("team/other", ["v1"], "two")


@pytest.fixture(params=["docker", "layout", *WAYS])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The same content in each kind of registry, and in each of the ways in which registries answer."""
    if request.param == "docker":
        registry: DockerRegistry = request.getfixturevalue("docker_registry")()
        yield Place(
            registry.address,
            lambda repo, tags, seed: _ignore(registry.push(repo, tags, make_image(seed))),
            registry.tags,
        )
    elif request.param == "layout":
        root = tmp_path / "layouts"
        yield Place(
            f"oci:{root}",
            lambda repo, tags, seed: _ignore(
                write_layout(root / repo, dict.fromkeys(tags, make_image(seed)))
            ),
            lambda repo: _layout_tags(root / repo),
        )
    else:
        with FakeRegistry(WAYS[request.param]) as fake:
            yield Place(
                fake.address,
                lambda repo, tags, seed: _ignore(fake.push(repo, tags, make_image(seed))),
                lambda repo: fake.content()[repo],
            )


def _ignore(_: object) -> None:
    """A push's result is not wanted."""


def _layout_tags(layout: Path) -> Mapping[str, Digest]:
    import json

    index = json.loads((layout / "index.json").read_text())
    name = "org.opencontainers.image.ref.name"
    return {
        m["annotations"][name]: Digest.parse(m["digest"])
        for m in index["manifests"]
        if name in m.get("annotations", {})
    }


@contextmanager
def writable(place: Place, home: Home) -> Iterator[Mount]:
    with mounted("--rw", place.address, home=home) as mount:
        yield mount


def silently(mount: Mount, command: str) -> None:
    """Run a command that must exit 0 and say nothing."""
    done = mount.run(command, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", ""), mount.errors()


def test_rm_of_one_tag_leaves_its_siblings_and_the_digest(place: Place, home: Home) -> None:
    digest = place.tags("team/app")["v1"]
    with writable(place, home) as mount:
        mount.list("team/app")
        silently(mount, "rm -r team/app/v1")
        assert mount.list("team/app") == ["v2", "v3"]
        assert dict(place.tags("team/app")) == {"v2": digest, "v3": digest}
        for name in ("v2", "v3", f".digests/{digest.file_name}"):
            assert mount.read(f"team/app/{name}/digest").decode().strip() == str(digest)
        assert mount.run("rmdir team/app/* team/*").returncode == 1
        assert mount.run("cat team/app/v1/manifest.json").returncode == 1
        assert dict(place.tags("team/app")) == {"v2": digest, "v3": digest}


@pytest.mark.parametrize(
    "command",
    ["rm -r team/app", "rm -rf team/app", "find team/app -delete", "rm -r team"],
)
def test_recursive_removers_of_repositories_and_namespaces_exit_clean(
    place: Place, home: Home, command: str
) -> None:
    with writable(place, home) as mount:
        silently(mount, command)
        assert dict(place.tags("team/app")) == {}
        gone = "team" if command == "rm -r team" else "team/app"
        assert mount.run(["ls", gone]).returncode == 2
        assert dict(place.tags("team/other")).keys() == (set() if command == "rm -r team" else {"v1"})


def test_rm_of_every_manifest_that_find_finds_exits_clean(place: Place, home: Home) -> None:
    with writable(place, home) as mount:
        silently(mount, r"find team/app -name manifest.json -exec rm {} \;")
        assert dict(place.tags("team/app")) == {}
        assert dict(place.tags("team/other")).keys() == {"v1"}


def test_pythons_rmtree_exits_clean(place: Place, home: Home) -> None:
    with writable(place, home) as mount:
        shutil.rmtree(mount.path / "team/app/v1")
        assert mount.list("team/app") == ["v2", "v3"]
        shutil.rmtree(mount.path / "team/app")
        assert mount.list("team") == ["other"]
        assert dict(place.tags("team/app")) == {}


def test_an_index_is_deleted_without_its_platforms(
    docker_registry: Callable[..., DockerRegistry], home: Home
) -> None:
    registry = docker_registry()
    index = make_index()
    registry.push("app", ["v1", "v2"], index)
    with mounted("--rw", registry.address, home=home) as mount:
        silently(mount, "rm -r app/v1")
        assert mount.list("app/v2/platforms") == ["linux-amd64", "linux-arm64-v8"]
        assert mount.run("cat app/v2/platforms/*/manifest.json").returncode == 0


def test_where_deletion_is_off_the_refusal_names_the_setting(
    docker_registry: Callable[..., DockerRegistry], home: Home
) -> None:
    registry = docker_registry(delete=False)
    image = registry.push("app", ["v1", "v2"])
    with mounted("--rw", registry.address, home=home) as mount:
        done = mount.run("LC_ALL=C rm -r app/v1")
        assert done.returncode == 1
        assert "Operation not permitted" in done.stderr
        assert "REGISTRY_STORAGE_DELETE_ENABLED" in mount.errors()
        assert mount.list("app") == ["v1", "v2"]
        assert mount.read("app/v1/digest").decode().strip() == str(image.digest)
        assert registry.tags("app") == {"v1": image.digest, "v2": image.digest}


def test_a_registry_that_can_only_delete_digests_refuses_and_keeps_the_tag(home: Home) -> None:
    behaviour = Behaviour(tag_delete=TagDelete.UNSUPPORTED, digest_delete=DigestDelete.ONLY_DIGEST)
    with FakeRegistry(behaviour) as registry:
        image = registry.push("app", ["v1", "v2"])
        with mounted("--rw", registry.address, home=home) as mount:
            done = mount.run("LC_ALL=C rm -r app/v1")
            assert done.returncode == 1
            assert mount.list("app") == ["v1", "v2"]
            assert mount.read("app/v1/digest").decode().strip() == str(image.digest)
            assert "it is as it was" in mount.errors()


def test_a_registry_that_asks_for_patience_meanwhile_is_given_it(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", [f"v{n}" for n in range(5)])
        with mounted("--rw", registry.address, home=home) as mount:
            mount.list("team/app")
            registry.fail(429, lambda request: request.method == "DELETE", times=2, retry_after=0)
            silently(mount, "rm -r team/app")
            assert dict(registry.content()["team/app"]) == {}


def test_a_read_only_mount_sends_nothing_that_writes(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with mounted(registry.address, home=home) as mount:
            mount.run("ls -lR .", check=True)
            registry.forget()
            for command in (
                "rm team/app/v1/manifest.json", "rm -r team/app/v1", "rmdir team/app", "mkdir new", "touch new",
                "mv team/app team/b", "echo x > team/app/v1/manifest.json", "chmod 777 team", "ln -s a b",
            ):  # fmt: skip
                done = mount.run(f"LC_ALL=C {command}")
                assert done.returncode != 0, command
                assert "Read-only file system" in done.stderr or "cannot" in done.stderr, (
                    command,
                    done.stderr,
                )
            assert registry.writes() == []
            assert all(request.method in ("GET", "HEAD") for request in registry.requests)


def test_other_writes_are_refused_with_a_line_that_says_so(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with mounted("--rw", registry.address, home=home) as mount:
            for command in (
                "mkdir team/new",
                "touch team/app/v1/x",
                "mv team/app/v1 team/app/v2",
                "echo x > team/app/v1/digest",
            ):
                done = mount.run(f"LC_ALL=C sh -c '{command}'")
                assert done.returncode != 0
                assert "not permitted" in done.stderr.lower() or "permission" in done.stderr.lower(), (
                    done.stderr
                )
                assert "not possible yet" in mount.errors().splitlines()[-1], command
            assert registry.writes() == []


def test_a_repository_whose_nested_one_a_tag_hides_is_removed_with_all_in_it(
    docker_registry: Callable[..., DockerRegistry], home: Home
) -> None:
    registry = docker_registry()
    registry.push("team/web", ["1.0", "cli"])
    registry.push("team/web/cli", "2.0")
    with mounted("--rw", "-v", registry.address, home=home) as mount:
        silently(mount, "rm -r team/web")
        assert dict(registry.tags("team/web")) == dict(registry.tags("team/web/cli")) == {}
        assert mount.list() == []
        assert re.search(r"deleted \S+/team/web/cli:2.0 .*by a throw-away index", mount.log())
