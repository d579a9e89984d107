"""What a mount shows is what the registry had a moment ago, whoever changes it; and only what was named is deleted.

Random pushes, untaggings, listings, reads and deletions, through a real mount of Docker's registry, against plain dicts.
"""

from __future__ import annotations

import errno
import http.client
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations, count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.testing.images import make_image
from regfs.testing.proxy import DelayProxy
from tests.support import processes
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_programs
from tests.support.registry import DockerRegistry

TTL = 0.3
SLACK = 0.5
"""Seconds that lie between the clocks of the daemon and of the test on a busy machine."""

REPOSITORIES = ("app", "app/b", "app/digest")
"""Nested ones whose names are those of tags, and of a tag's files."""
TAGS = ("a", "b", "digest", "latest")
REPOS = ".repos"
IMAGES = tuple(make_image(f"agreement {n}") for n in range(3))


@dataclass
class Version:
    """A repository's tags, from when the change to them began until the next change was complete."""

    tags: Mapping[str, Digest]
    since: float
    until: float = float("inf")


@dataclass
class History:
    """All versions of a repository, and when this mount had deleted which tag."""

    versions: list[Version] = field(default_factory=lambda: [Version({}, float("-inf"))])
    deaths: dict[str, float] = field(default_factory=dict)

    @property
    def now(self) -> dict[str, Digest]:
        """The tags that there are."""
        return dict(self.versions[-1].tags)

    def change(self, tags: Mapping[str, Digest], since: float) -> None:
        """A change is complete that began at ``since``."""
        self.versions[-1].until = time.monotonic()
        self.versions.append(Version(dict(tags), since))

    def delete(self, tag: str, since: float) -> None:
        """This mount has deleted a tag."""
        self.change({name: digest for name, digest in self.now.items() if name != tag}, since)
        self.deaths[tag] = time.monotonic()

    def possible(self, asked: float, limit: float) -> list[dict[str, Digest]]:
        """What may be shown to whoever asked at ``asked`` and has the answer now."""
        recent = [v for v in self.versions if v.until >= asked - limit]
        return [
            {t: d for t, d in version.tags.items() if self.deaths.get(t, float("-inf")) < version.until}
            for version in recent
        ]


class World:
    """A registry, a mount of it through a proxy that knows how long its answers take, and the model of one namespace."""

    def __init__(self, registry: DockerRegistry, proxy: DelayProxy, mount: Mount, namespace: str) -> None:
        self.registry = registry
        self.proxy = proxy
        self.root = mount.path / namespace
        self.namespace = namespace
        self.histories = {name: History() for name in REPOSITORIES}
        for name in REPOSITORIES:
            for image in IMAGES:
                registry.lay_image(self.full(name), image)
        inner = {name.partition("/")[2] for name in REPOSITORIES} - {""}
        processes.wait_until(
            lambda: inner <= set(names(self.root / "app")), "the namespace shows", self.limit
        )

    def full(self, repository: str) -> str:
        """The repository's name in the registry."""
        return f"{self.namespace}/{repository}"

    @property
    def limit(self) -> float:
        """How old an answer may be: the mount's ttl, or ten times what its slowest listing took, as seen from outside."""
        took = [(p.end or p.start) - p.start for p in self.proxy.requests if p.kind in ("tags", "catalog")]
        return max(TTL, 20 * max(took, default=0.0)) + SLACK

    # ── what happens in the registry ──

    def push(self, repository: str, tag: str, number: int) -> None:
        """Somebody else puts a manifest to a tag."""
        began = time.monotonic()
        content = IMAGES[number].manifest
        connection = http.client.HTTPConnection("127.0.0.1", self.registry.port, timeout=10)
        target = f"/v2/{self.full(repository)}/manifests/{tag}"
        connection.request("PUT", target, content.raw, {"Content-Type": content.media_type})
        assert connection.getresponse().status == 201
        connection.close()
        history = self.histories[repository]
        history.change({**history.now, tag: content.digest}, began)

    def untag(self, repository: str, tag: str, _number: int) -> None:
        """Somebody else deletes a tag."""
        history = self.histories[repository]
        if tag not in history.now:
            return
        began = time.monotonic()
        tags = (
            self.registry.storage
            / "docker/registry/v2/repositories"
            / self.full(repository)
            / "_manifests/tags"
        )
        away = self.registry.folder / f"away-{time.monotonic_ns()}"
        shutil.move(tags / tag, away)
        history.change({name: digest for name, digest in history.now.items() if name != tag}, began)

    # ── what is asked of the mount ──

    def list_tags(self, repository: str, _tag: str, _number: int) -> None:
        """The tags alone are those of one moment."""
        began = time.monotonic()
        shown = set(names(self.folder(repository) / ".tags"))
        possible = self.histories[repository].possible(began, self.limit)
        assert shown in [set(tags) for tags in possible], (shown, possible)

    def list_all(self, repository: str, _tag: str, _number: int) -> None:
        """Tags and nested repositories; where they share a name, the bare one is there once, and `.repos`."""
        began = time.monotonic()
        shown = names(self.folder(repository))
        possible = self.histories[repository].possible(began, self.limit)
        nested = {n.rpartition("/")[2]: n for n in REPOSITORIES if n.rpartition("/")[0] == repository}
        hidden = {name for name, full in nested.items() if self.may_hide(full, began)}
        expected = [
            {*tags, *inner, *([REPOS] if set(inner) & set(tags) else [])}
            for tags in possible
            for inner in subsets(nested.keys() - hidden, hidden)
        ]
        assert set(shown) in expected, (shown, expected)
        assert [name for name, times in Counter(shown).items() if times > 1] == []

    def read(self, repository: str, tag: str, _number: int) -> None:
        """A tag's two files tell of what it led to at a moment of late; a tag that is not there was not there of late."""
        for name, parse in (("digest", _parsed), ("manifest.json", Digest.of)):
            began = time.monotonic()
            path = self.path(repository, tag)
            try:
                shown = parse((path / name).read_bytes())
            except FileNotFoundError:
                shown = None
            possible = [tags.get(tag) for tags in self.histories[repository].possible(began, self.limit)]
            assert shown in possible, (repository, tag, name, shown, possible)

    def look(self, repository: str, tag: str, _number: int) -> None:
        """Whether a tag is there."""
        began = time.monotonic()
        there = self.path(repository, tag).is_dir()
        possible = [tag in tags for tags in self.histories[repository].possible(began, self.limit)]
        assert there in possible, (repository, tag, there, possible)

    def delete(self, repository: str, tag: str, _number: int) -> None:
        """`rm -r` of a tag: it goes, or it was not there of late, or it was moved of late."""
        began = time.monotonic()
        history = self.histories[repository]
        possible = [tags.get(tag) for tags in history.possible(began, self.limit)]
        try:
            shutil.rmtree(self.path(repository, tag))
        except OSError as error:
            failure: int | None = error.errno
        else:
            failure = None
        if failure is not None:
            reasons = {errno.ENOENT: None in possible, errno.EBUSY: len(set(possible) - {None}) > 1}
            assert reasons.get(failure), (repository, tag, errno.errorcode[failure], possible)
        else:
            assert tag in history.now, f"{repository}:{tag} was deleted, and was not there"
            history.delete(tag, began)
            assert tag not in names(self.folder(repository) / ".tags")

    def wait(self, repository: str, _tag: str, _number: int) -> None:
        """Within the limit a mount shows what there is."""
        now = set(self.histories[repository].now)
        folder = self.folder(repository) / ".tags"
        try:
            processes.wait_until(lambda: set(names(folder)) == now, f"{folder} shows {now}", self.limit)
        except AssertionError as error:
            raise AssertionError(f"{error}: it shows {names(folder)}; {self.histories[repository]}") from None

    def may_hide(self, repository: str, asked: float) -> bool:
        """Whether a repository may be in no listing: this mount deletes in it, and it was empty of late."""
        history = self.histories[repository]
        return bool(history.deaths) and {} in history.possible(asked, self.limit)

    def folder(self, repository: str) -> Path:
        """A repository's folder, whatever tag bears its name."""
        return self.root / repository.replace("/", f"/{REPOS}/")

    def path(self, repository: str, tag: str) -> Path:
        """A tag's folder: by its bare name where no nested repository bears it."""
        shared = f"{repository}/{tag}" in REPOSITORIES
        return self.folder(repository) / (f".tags/{tag}" if shared else tag)

    def check_registry(self) -> None:
        """No tag has vanished that was not named, and none has moved."""
        for repository, history in self.histories.items():
            assert self.registry.tags(self.full(repository)) == history.now


def names(folder: Path) -> list[str]:
    """What a folder lists; nothing where it is not there: a repository that was emptied may be gone."""
    with suppress(FileNotFoundError):
        return [entry.name for entry in folder.iterdir()]
    return []


def subsets(whole: Iterable[str], parts: Iterable[str]) -> Iterator[set[str]]:
    """Every set that has the ``whole`` and some of the ``parts``."""
    options = sorted(parts)
    for size in range(len(options) + 1):
        for chosen in combinations(options, size):
            yield {*whole, *chosen}


def _parsed(line: bytes) -> Digest:
    assert line.endswith(b"\n")
    return Digest.parse(line.decode().strip())


Step = tuple[Callable[[World, str, str, int], None], str, str, int]

OPERATIONS = (
    *[World.push] * 3,
    World.untag,
    World.list_tags,
    World.list_all,
    World.read,
    World.read,
    World.look,
    World.delete,
    World.delete,
    World.wait,
)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(OPERATIONS),
        st.sampled_from(REPOSITORIES),
        st.sampled_from(TAGS),
        st.integers(0, len(IMAGES) - 1),
    ),
    min_size=20,
    max_size=60,
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DockerRegistry, DelayProxy, Mount]]:
    """One registry and one mount for all examples: each has a namespace of its own."""
    need_programs("docker-registry", "skopeo")
    folder = tmp_path_factory.mktemp("agreement")
    registry = DockerRegistry(folder / "registry").start()
    try:
        with (
            DelayProxy(registry.address, 0.001) as proxy,
            mounted("--rw", "--ttl", str(TTL), proxy.address, home=Home(folder / "home")) as mount,
        ):
            yield registry, proxy, mount
    finally:
        registry.remove()


numbers = count()


@settings(
    max_examples=15,
    deadline=None,
    database=None,
    phases=(
        Phase.explicit,
        Phase.generate,
    ),  # an example that failed in real time may well pass when it is repeated
    suppress_health_check=list(HealthCheck),
)
@given(steps=STEPS)
def test_a_mount_agrees_with_its_registry_and_deletes_only_what_is_named(
    parts: tuple[DockerRegistry, DelayProxy, Mount], steps: list[Step]
) -> None:
    world = World(*parts, namespace=f"n{next(numbers)}")
    world.push("app", "latest", 0)
    for step, repository, tag, number in steps:
        step(world, repository, tag, number)
        world.check_registry()
    for repository in REPOSITORIES:
        world.wait(repository, "", 0)
    assert json.loads((parts[2].path / ".regfs/status.json").read_bytes())["writable"]
