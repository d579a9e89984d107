"""One tag is deleted, and nothing else: at a registry of each kind, at Docker's own, and through kills."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    DeletionDisabled,
    Forbidden,
    Moved,
    NotFound,
    RateLimited,
    Refused,
    RegfsError,
    ServerFailed,
)
from regfs.ports import Answer, DeletesTags, Deletion, HttpPolicy
from regfs.registry.client import Client
from regfs.registry.journal import Journal
from regfs.registry.v2 import V2Source
from regfs.testing.behaviour import Behaviour, TagDelete
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Pushable, make_image, make_index
from regfs.testing.records import RequestRecord
from tests.support.registry import DockerRegistry

T = TypeVar("T")
TAGS = ("v1", "v1.0", "latest")
PROGRAM = Path(__file__).with_name("killed_deletion.py")


class Setting:
    """A registry's address and a journal's folder: what daemons that come one after the other share."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.folder = folder

    def run(
        self, body: Callable[[V2Source], Awaitable[T]], deadline: float = 5.0, name: str = "", **more: object
    ) -> T:
        """Run ``body`` with a Source of a new daemon."""

        async def main() -> T:
            policy = HttpPolicy("regfs-test/1", call_deadline=deadline, retries=0)
            client = Client(Connection("r", f"http://{self.address}"), policy, None)
            source = V2Source(name or self.address, client, Journal(self.folder), **more)  # type: ignore[arg-type]
            try:
                with trio.fail_after(30):
                    return await body(source)
            finally:
                await source.aclose()

        return trio.run(main)

    def delete(
        self, tag: str = "v1", seen: Digest | None = None, repository: str = "team/app", **more: object
    ) -> Deletion:
        """Delete one tag by a new daemon."""
        return self.run(lambda source: delete(source, tag, seen, repository), **more)  # type: ignore[arg-type]

    def recover(self) -> Sequence[str]:
        """Start a new daemon, which recovers."""
        return self.run(lambda source: source.recover())

    def entries(self) -> list[Path]:
        """The journal's entries."""
        return list(self.folder.glob("*.deletion"))


async def delete(
    source: V2Source, tag: str, seen: Digest | None = None, repository: str = "team/app"
) -> Deletion:
    deletion = source.capability(DeletesTags, repository)
    assert deletion is not None
    return await deletion.delete_tag(repository, tag, seen)


def is_write(record: RequestRecord) -> bool:
    return record.method in ("PUT", "DELETE")


def alive(registry: FakeRegistry, image: Pushable) -> None:
    """The siblings and the digest are there."""
    tags = registry.content()["team/app"]
    assert (tags["v1.0"], tags["latest"]) == (image.digest, image.digest)
    assert registry.store.find("team/app", image.digest) is not None


# ── in each of the ways that registries answer ───────────────────────────────────────────────────


@pytest.mark.parametrize("way", list(TagDelete))
@pytest.mark.parametrize(
    "what", [make_image("one"), make_image("d", family="docker"), make_index([make_image("i")])]
)
def test_one_of_three_tags_goes_and_the_others_live(way: TagDelete, what: Pushable, tmp_path: Path) -> None:
    with FakeRegistry(Behaviour(tag_delete=way)) as registry:
        registry.push("team/app", TAGS, what)
        setting = Setting(registry.address, tmp_path)
        setting.delete("v1", what.digest)
        assert set(registry.content()["team/app"]) == {"v1.0", "latest"}
        alive(registry, what)
        assert setting.entries() == []
        setting.delete("v1.0")
        assert set(registry.content()["team/app"]) == {"latest"}


def test_a_way_that_takes_siblings_is_not_used_again_even_by_the_next_daemon(tmp_path: Path) -> None:
    with FakeRegistry(Behaviour(tag_delete=TagDelete.TAKES_SIBLINGS)) as registry:
        registry.push("team/app", TAGS)
        setting = Setting(registry.address, tmp_path)
        assert "put back" in setting.delete("v1").way
        registry.forget()
        assert setting.delete("v1.0").way == "a throw-away index"
        assert not [r for r in registry.writes() if r.target.endswith("/v1.0") and r.method == "DELETE"]
        with pytest.raises(Refused, match="tag_delete"):
            setting.delete("latest", tag_delete="native")
        assert set(registry.content()["team/app"]) == {"latest"}


def test_after_the_first_deletion_the_next_ones_cost_two_requests(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(20)]

    async def body(source: V2Source) -> None:
        await delete(source, names[0])
        registry.forget()
        for name in names[1:]:
            await delete(source, name)

    with FakeRegistry() as registry:
        registry.push("team/app", names)
        Setting(registry.address, tmp_path).run(body)
        assert len(registry.requests) == 2 * 19
        assert registry.content()["team/app"] == {}


def test_many_deletions_at_once_take_only_what_was_named(tmp_path: Path) -> None:
    async def body(source: V2Source) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(delete, source, f"v{number}")

    for way in TagDelete:
        with FakeRegistry(Behaviour(tag_delete=way)) as registry:
            image = registry.push("team/app", [f"v{number}" for number in range(20)])
            Setting(registry.address, tmp_path / way.name).run(body)
            expected = {f"v{number}": image.digest for number in range(12, 20)}
            assert registry.content()["team/app"] == expected


@pytest.mark.parametrize(
    ("status", "error"), [(403, Forbidden), (409, Refused), (429, RateLimited), (500, ServerFailed)]
)
def test_a_refusal_is_passed_on_and_changes_nothing(
    status: int, error: type[RegfsError], tmp_path: Path
) -> None:
    with FakeRegistry(Behaviour(tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        image = registry.push("team/app", TAGS)
        registry.fail(status, is_write)
        with pytest.raises(error, match="as the test arranged"):
            Setting(registry.address, tmp_path).delete()
        assert len(registry.writes()) == 1
        assert registry.content()["team/app"]["v1"] == image.digest


def test_a_404_for_a_tag_that_is_there_is_a_refusal(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", TAGS)
        registry.fail(404, is_write)
        with pytest.raises(Refused, match="does not let this account delete"):
            Setting(registry.address, tmp_path).delete()
        assert len(registry.writes()) == 1


def test_a_tag_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", TAGS)
        for tag in ("v9", "../v1", ""):
            with pytest.raises(NotFound):
                Setting(registry.address, tmp_path).delete(tag)
        assert registry.writes() == []


def test_a_tag_that_the_user_saw_elsewhere_is_left_alone(tmp_path: Path) -> None:
    for way in TagDelete:
        with FakeRegistry(Behaviour(tag_delete=way)) as registry:
            registry.push("team/app", TAGS)
            with pytest.raises(Moved):
                Setting(registry.address, tmp_path).delete("v1", Digest.of(b"another"))
            assert registry.writes() == []


def test_native_only_refuses_and_names_the_setting(tmp_path: Path) -> None:
    with FakeRegistry(Behaviour(tag_delete=TagDelete.UNSUPPORTED)) as registry:
        registry.push("team/app", TAGS)
        with pytest.raises(Refused, match='tag_delete = "native"'):
            Setting(registry.address, tmp_path).delete(tag_delete="native")
        assert len(registry.writes()) == 1


def test_deletion_that_is_off_is_remembered_as_a_no(tmp_path: Path) -> None:
    async def body(source: V2Source) -> tuple[Answer, Answer, Answer]:
        deletion = source.capability(DeletesTags, "team/app")
        assert deletion is not None
        before = deletion.can_delete()
        with pytest.raises(DeletionDisabled) as caught:
            await deletion.delete_tag("team/app", "v1", None)
        assert caught.value.setting.startswith("storage.delete.enabled")
        off = deletion.can_delete()
        registry.behaviour.deletion = True
        await deletion.delete_tag("team/app", "v1", None)
        registry.behaviour.deletion = False
        return before, off, deletion.can_delete()

    with FakeRegistry(Behaviour(deletion=False, tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        registry.push("team/app", TAGS)
        assert Setting(registry.address, tmp_path).run(body) == (Answer.UNKNOWN, Answer.NO, Answer.YES)


def test_a_journal_that_cannot_be_written_means_that_nothing_is_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with FakeRegistry(Behaviour(tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        image = registry.push("team/app", "v1")
        with pytest.raises(Refused, match="journal"):
            Setting(registry.address, tmp_path / "file" / "state").delete()
        assert registry.content()["team/app"] == {"v1": image.digest}
        assert not [record for record in registry.writes() if record.method == "PUT"]


# ── the throw-away way when it breaks ────────────────────────────────────────────────────────────


def nth(method: str, wanted: int) -> Callable[[RequestRecord], bool]:
    """Meets the n-th request of a method that writes."""
    seen: list[RequestRecord] = []

    def where(record: RequestRecord) -> bool:
        if record.method == method and record not in seen:
            seen.append(record)
        return len(seen) == wanted and record.method == method

    return where


@pytest.mark.parametrize("status", [401, 403, 404, 405, 429, 500])
def test_where_the_throw_away_cannot_be_deleted_the_original_comes_back(status: int, tmp_path: Path) -> None:
    with FakeRegistry(Behaviour(tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        image = registry.push("team/app", TAGS, make_image("d", family="docker"))
        registry.fail(status, nth("DELETE", 3))
        with pytest.raises(RegfsError):
            Setting(registry.address, tmp_path).delete()
        tags = registry.content()["team/app"]
        assert tags == dict.fromkeys(TAGS, image.digest)
        found = registry.store.find("team/app", "v1")
        assert found is not None
        stored = found[1]
        assert (stored.raw, stored.media_type) == (image.manifest.raw, image.manifest.media_type)
        assert Setting(registry.address, tmp_path).entries() == []


def test_where_even_that_fails_the_next_deletion_or_daemon_settles_it(tmp_path: Path) -> None:
    with FakeRegistry(Behaviour(tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        image = registry.push("team/app", TAGS)
        registry.fail(500, nth("DELETE", 3))
        registry.fail(500, nth("PUT", 2))
        setting = Setting(registry.address, tmp_path)
        with pytest.raises(BadReply, match="left with a throw-away"):
            setting.delete()
        assert registry.content()["team/app"]["v1"] != image.digest
        assert len(setting.entries()) == 1
        registry.clear()
        assert ["finished" in line for line in setting.recover()] == [True]
        assert set(registry.content()["team/app"]) == {"v1.0", "latest"}
        alive(registry, image)
        assert setting.recover() == []


def test_a_caller_that_gives_up_does_not_leave_the_tag_in_between(tmp_path: Path) -> None:
    async def body(source: V2Source) -> None:
        with trio.move_on_after(0.2):
            await delete(source, "v1")

    with FakeRegistry(Behaviour(tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        image = registry.push("team/app", TAGS)
        registry.delay(0.3, lambda record: record.method == "PUT")
        Setting(registry.address, tmp_path).run(body)
        assert set(registry.content()["team/app"]) == {"v1.0", "latest"}
        alive(registry, image)
        assert Setting(registry.address, tmp_path).entries() == []


def test_a_caller_that_gives_up_before_anything_was_sent_leaves_all_as_it_was(tmp_path: Path) -> None:
    async def body(source: V2Source) -> None:
        with trio.move_on_after(0.1):
            await delete(source, "v1")

    with FakeRegistry(Behaviour(tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        registry.push("team/app", TAGS)
        registry.delay(0.2, "manifest")
        Setting(registry.address, tmp_path).run(body)
        assert registry.writes() == []


def test_recovery_asks_nothing_where_there_is_nothing_to_do(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        assert Setting(registry.address, tmp_path).recover() == []
        assert registry.requests == []


# ── Docker's own registry ────────────────────────────────────────────────────────────────────────

Start = Callable[..., DockerRegistry]


@pytest.fixture
def setting(docker_registry: Start, tmp_path: Path) -> tuple[DockerRegistry, Setting, Pushable]:
    """Docker's registry with three tags of one image."""
    registry = docker_registry()
    image = make_image("one")
    registry.lay_image("team/app", image, TAGS)
    return registry, Setting(registry.address, tmp_path / "state"), image


def test_dockers_registry_is_listed_and_read(setting: tuple[DockerRegistry, Setting, Pushable]) -> None:
    registry, here, image = setting
    names = [f"many/r{number:04}" for number in range(1100)]
    registry.lay_repositories(names, make_image("two"), ["v1"])
    registry.lay_tags("team/app", image.digest, [f"t{number:04}" for number in range(1000 - len(TAGS))])

    async def body(source: V2Source) -> None:
        await source.check()
        assert [name async for page in source.repositories() for name in page] == [*names, "team/app"]
        listed = [name async for page in source.tags("team/app") for name in page.names]
        assert len(listed) == len(set(listed)) == 1000
        assert (await source.resolve("team/app", "v1")) == image.manifest.descriptor
        assert (await source.manifest("team/app", "v1")).raw == image.manifest.raw
        assert (await source.manifest("team/app", image.digest)).claimed == image.digest
        layer = image.blobs[-1]
        for start, end in ((0, None), (3, 9), (5, None)):
            async with source.blob("team/app", layer.descriptor, start, end) as pieces:
                assert b"".join([piece async for piece in pieces]) == layer.raw[start:end]
        with pytest.raises(NotFound):
            await source.manifest("team/app", "absent")
        with pytest.raises(NotFound):
            _ = [page async for page in source.tags("team/absent")]

    here.run(body)


def test_dockers_registry_loses_one_tag_of_three(setting: tuple[DockerRegistry, Setting, Pushable]) -> None:
    registry, here, image = setting
    assert here.delete("v1", image.digest).way == "a throw-away index"
    assert registry.tags("team/app") == {"v1.0": image.digest, "latest": image.digest}
    assert registry.get(f"team/app/manifests/{image.digest}") == image.manifest.raw
    with pytest.raises(NotFound):
        here.run(lambda source: source.manifest("team/app", "v1"))
    for tag in ("v1.0", "latest"):
        here.delete(tag)
    assert registry.tags("team/app") == {}
    assert registry.get(f"team/app/manifests/{image.digest}") == image.manifest.raw


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"delete": False}, "REGISTRY_STORAGE_DELETE_ENABLED=true"),
        ({"read_only": True}, "storage.maintenance.readonly"),
    ],
)
def test_dockers_registry_with_deletion_off_keeps_the_tag(
    options: dict[str, bool], named: str, docker_registry: Start, tmp_path: Path
) -> None:
    registry, image = docker_registry(**options), make_image("one")
    registry.lay_image("team/app", image, TAGS)
    with pytest.raises(DeletionDisabled) as caught:
        Setting(registry.address, tmp_path / "state").delete()
    assert named in caught.value.setting
    assert registry.tags("team/app") == dict.fromkeys(TAGS, image.digest)
    assert registry.get("team/app/manifests/v1") == image.manifest.raw


KILLS = [
    (point, when)
    for point in ("record", "GET 3", "PUT 1", "DELETE 1", "DELETE 2", "DELETE 3", "erase")
    for when in ("before", "after")
]


@pytest.mark.parametrize(("point", "when"), KILLS)
def test_after_kill_9_at_any_point_the_next_daemon_leaves_the_tag_as_it_was_or_gone(
    point: str, when: str, setting: tuple[DockerRegistry, Setting, Pushable]
) -> None:
    registry, here, image = setting
    killed(here, point, when)
    here.recover()
    tags = registry.tags("team/app")
    assert tags.pop("v1", image.digest) == image.digest
    assert tags == {"v1.0": image.digest, "latest": image.digest}
    assert here.entries() == []
    assert here.recover() == []
    here.run(lambda source: source.manifest("team/app", "latest"))


def test_a_daemon_killed_with_the_throw_away_in_place_had_begun(
    setting: tuple[DockerRegistry, Setting, Pushable],
) -> None:
    registry, here, image = setting
    killed(here, "PUT 1", "after")
    assert registry.tags("team/app")["v1"] != image.digest
    assert len(here.entries()) == 1
    (line,) = here.recover()
    assert "finished a broken-off deletion" in line
    assert set(registry.tags("team/app")) == {"v1.0", "latest"}


def test_a_registry_that_was_set_to_delete_nothing_meanwhile_gets_the_original_back(
    docker_registry: Start, tmp_path: Path
) -> None:
    registry, image = docker_registry(), make_image("one")
    registry.lay_image("team/app", image, TAGS)
    here = Setting(registry.address, tmp_path / "state")
    killed(here, "PUT 1", "after")
    registry.stop()
    with pytest.raises(RegfsError):
        here.recover()
    assert len(here.entries()) == 1
    registry.options = type(registry.options)(delete=False)
    registry.start()
    (line,) = here.recover()
    assert "undid" in line
    assert registry.tags("team/app") == dict.fromkeys(TAGS, image.digest)
    assert registry.get("team/app/manifests/v1") == image.manifest.raw


def killed(here: Setting, point: str, when: str) -> None:
    """Delete v1 in a process of its own, which is killed at that point."""
    done = subprocess.run(
        [sys.executable, PROGRAM, here.address, here.folder, point, when],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
