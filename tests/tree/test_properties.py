"""The tree against plain dicts: whatever happens, in whatever order, it shows what the registry had of late.

Names are few, so that tags, nested repositories and a tag's own files bear the same ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from regfs.errors import (
    Moved,
    NotADirectory,
    NotEmpty,
    NotFound,
    ReadOnly,
    Refused,
    RegfsError,
    Unreachable,
)
from regfs.reference import is_component, is_tag
from regfs.testing.memory import Abilities, MemorySource
from tests.tree.kernel import mounted
from tests.tree.world import (
    CONTENTS,
    FILES,
    LINGER,
    PUSHED,
    REPOS,
    REPOSITORIES,
    TAGS,
    TTL,
    UNGRAMMATICAL,
    CachingKernel,
    World,
    folder_of,
)

PROBES = ("zz", "a/zz", "zz/a", "a/b/zz", "A", "a/b/c/d", ".git")
# ── what happens ──


async def push(world: World, repository: str, tag: str, number: int) -> None:
    """Somebody else pushes, or takes a tag away."""
    if number < len(PUSHED):
        world.source.push(repository, tag, PUSHED[number])
    elif tag in world.source.content().get(repository, {}):
        world.source.remove_tag(repository, tag)
    world.changed()


async def list_tags(world: World, repository: str, _tag: str, _number: int) -> None:
    """The tags alone are those of one moment of late."""
    asked = trio.current_time()
    shown = await outcome(world, lambda: world.kernel.ls(f"{folder_of(repository)}/.tags"))
    possible = world.tags_of(repository, asked)
    if isinstance(shown, NotFound):
        assert None in possible or world.may_hide(repository, asked), possible
    elif shown is not None:
        assert isinstance(shown, list), shown
        assert set(shown) in [set(tags or ()) for tags in possible], (shown, possible)


async def list_all(world: World, repository: str, _tag: str, number: int) -> None:
    """A folder lists the tags of a moment, the nested repositories of a moment, and `.repos` where they share a name."""
    path = repository if number else repository.rpartition("/")[0]
    asked = trio.current_time()
    left = world.failures()
    shown = await outcome(world, lambda: world.kernel.ls(folder_of(path)))
    tags_then = [set(tags or ()) for tags in world.tags_of(path, asked)]
    nested_then = world.nested(path, asked)
    if shown is None:
        return
    if isinstance(shown, NotFound):
        assert path
        assert set() in nested_then, nested_then
        assert None in world.tags_of(path, asked) or world.may_hide(path, asked)
        return
    assert isinstance(shown, list), shown
    assert len(shown) == len(set(shown)), shown
    assert all(name == REPOS or is_tag(name) or is_component(name) for name in shown)
    if world.failures() == left and not is_partial(world, path):
        possible = [
            tags | nested | ({REPOS} if tags & nested else set())
            for tags in tags_then
            for nested in nested_then
        ]
        assert set(shown) in possible, (shown, possible)


def is_partial(world: World, path: str) -> bool:
    """Whether a folder says that it does not show all."""
    registry = world.kernel.filesystem.registries["memory"]
    return path in registry.partial


async def read(world: World, repository: str, tag: str, number: int) -> None:
    """A tag's files tell where it led at a moment of late."""
    asked = trio.current_time()
    path = f"{folder_of(repository)}/.tags/{tag}"
    name = ("digest", "manifest.json", "config.json")[number % 3]
    shown = await outcome(world, lambda: world.kernel.cat(f"{path}/{name}"))
    possible = [(tags or {}).get(tag) for tags in world.tags_of(repository, asked)]
    if isinstance(shown, NotFound):
        assert None in possible or world.buried(repository, tag), possible
    elif shown is not None:
        assert isinstance(shown, bytes), shown
        assert shown in [CONTENTS[digest, name] for digest in possible if digest is not None], possible


async def look(world: World, repository: str, tag: str, number: int) -> None:
    """Whether a name is there at all, as tag, repository or namespace."""
    path = f"{repository}/{tag}" if number else repository
    parent, _, name = path.rpartition("/")
    asked = trio.current_time()
    there = await outcome(world, lambda: world.kernel.exists(path))
    recent = list(world.recent(asked))
    tag_then = [name in content.get(parent, {}) for content in recent]
    repository_then = [path in content for content in recent]
    above_then = [any(other.startswith(f"{path}/") for other in content) for content in recent]
    hides = world.may_hide(path, asked) or any(
        world.may_hide(other, asked)
        for content in recent
        for other in content
        if other.startswith(f"{path}/")
    )
    within = world.may_be_tag(parent, asked)
    if there is True:
        lingers = world.buried(parent, name) or hides or (within and name in FILES)
        assert any(tag_then) or any(repository_then) or any(above_then) or lingers, path
    elif there is False and not within:
        assert not all(tag_then), path
        assert hides or not (all(repository_then) or all(above_then)), path


async def probe(world: World, _repository: str, _tag: str, number: int) -> None:
    """Asking for what is not there shows nothing, and leaves nothing (which the listings are held to)."""
    path = PROBES[number % len(PROBES)]
    assert await outcome(world, lambda: world.kernel.exists(path)) is not True


async def delete(world: World, repository: str, tag: str, number: int) -> None:
    """`rm -r` of a tag, or `rm` of its manifest: that tag goes and no other, or the refusal has its reason."""
    asked = trio.current_time()
    possible = [(tags or {}).get(tag) for tags in world.tags_of(repository, asked)]
    path = f"{folder_of(repository)}/.tags/{tag}"
    kernel = world.kernel
    buried = world.buried(repository, tag)
    before = world.source.content()
    failed: RegfsError | None = None
    left = world.failures()
    try:
        await (kernel.rm_r(path) if number % 2 else kernel.rm(f"{path}/manifest.json"))
    except RegfsError as error:
        failed = error
    after = world.source.content()
    if after != before:
        assert world.writable
        assert after == {
            name: {t: d for t, d in tags.items() if (name, t) != (repository, tag)}
            for name, tags in before.items()
        }
        world.changed()
        world.deaths[repository, tag] = trio.current_time()
        await trio.sleep(0.001)
        shown = await outcome(world, lambda: kernel.ls(f"{folder_of(repository)}/.tags"))
        assert shown is None or (isinstance(shown, list) and tag not in shown), shown
    elif failed is None:
        assert buried, "a removal that removed nothing"
    if isinstance(failed, ReadOnly):
        assert not world.writable
    elif isinstance(failed, Moved):
        assert len(set(possible) - {None}) > 1, possible
    elif isinstance(failed, NotFound):
        assert None in possible or buried, possible
    elif failed is not None:
        assert isinstance(failed, Unreachable), failed
        assert world.failures() < left


async def rmdir(world: World, repository: str, tag: str, number: int) -> None:
    """rmdir never deletes anything that holds something."""
    path = f"{repository}/{tag}" if number else repository
    asked = trio.current_time()

    async def remove() -> bool:
        await world.kernel.rmdir(path)
        return True

    result = await outcome(world, remove)
    world.untouched()
    if isinstance(result, RegfsError):
        assert isinstance(result, NotEmpty | NotFound | Refused | ReadOnly | NotADirectory), result
        assert isinstance(result, ReadOnly) == (not world.writable) or isinstance(result, NotFound)
    elif result is True:
        parent, _, name = path.rpartition("/")
        empty = any(not content.get(path) for content in world.recent(asked))
        assert empty or world.buried(parent, name) or world.may_be_tag(parent, asked)
        world.removed.add(path)


async def fail(world: World, _repository: str, _tag: str, number: int) -> None:
    """The registry is away for a call or two."""
    method = ("tags", "manifest", "repositories", "delete_tag", "blob", None)[number % 6]
    world.source.fail(Unreachable("the test says so"), method, times=1 + number % 2)


async def wait(_world: World, _repository: str, _tag: str, number: int) -> None:
    """Time passes."""
    await trio.sleep((0.5, 4.0, 7.5, 9.9, 11.0, 35.0, 61.0)[number % 7])


async def forget(world: World, _repository: str, _tag: str, number: int) -> None:
    """The kernel forgets what it saw of late, or all."""
    world.kernel.forget_from((2, 5, 9, 20)[number % 4])


async def refresh(world: World, _repository: str, _tag: str, _number: int) -> None:
    """Somebody has the mount look anew: from now on it shows nothing that is older."""
    world.kernel.filesystem.refresh()
    world.refreshed = trio.current_time()


async def outcome(world: World, ask: Callable[[], Awaitable[object]]) -> object:
    """What an operation gives or raises; None where it met a failure that the test injected."""
    left = world.failures()
    try:
        found = await ask()
    except Unreachable:
        assert world.failures() < left, "a failure that was over is met again"
        return None
    except RegfsError as error:
        return error
    return found


OPERATIONS = (
    *[push] * 4, list_tags, list_tags, list_all, list_all, read, read, look, look, probe, delete, delete, rmdir,
    wait, wait, fail, forget, refresh,
)  # fmt: skip

Steps = list[tuple[Callable[[World, str, str, int], Awaitable[None]], str, str, int]]


@st.composite
def some_steps(draw: st.DrawFn) -> Steps:
    """Steps about a few of the names: what goes wrong takes several steps about the same one."""
    repositories = draw(st.lists(st.sampled_from(REPOSITORIES), min_size=1, max_size=3, unique=True))
    tags = draw(st.lists(st.sampled_from(TAGS), min_size=1, max_size=2, unique=True))
    step = st.tuples(
        st.sampled_from(OPERATIONS), st.sampled_from(repositories), st.sampled_from(tags), st.integers(0, 6)
    )
    return draw(st.lists(step, min_size=5, max_size=50))


async def settled(world: World) -> None:
    """Once all is quiet, the mount shows just what there is; once all is forgotten, it holds nothing but its root."""
    world.source.clear()
    world.kernel.forget_from(2)
    assert world.kernel.filesystem.statfs().files == 1
    await trio.sleep(world.limit + LINGER + 1)
    for repository, tags in world.source.content().items():
        shown = await outcome(world, partial(world.kernel.ls, f"{folder_of(repository)}/.tags"))
        expected = {tag for tag in tags if is_tag(tag)}
        if expected:
            assert isinstance(shown, list)
            assert set(shown) == expected
        else:
            assert shown == [] or (
                isinstance(shown, NotFound) and world.may_hide(repository, trio.current_time())
            )
    assert set(await world.kernel.ls()) in world.nested("", trio.current_time())
    world.kernel.forget_from(2)
    assert world.kernel.filesystem.statfs().files == 1


def drive(
    steps: Steps,
    *,
    writable: bool,
    settle: bool,
    metered: bool,
    slow: Mapping[str, float],
    namespaces: bool = False,
) -> None:
    """Do steps at a registry and its mount, each held to the model; ``slow``: how long which call takes.

    ``namespaces``: the registry is listed namespace by namespace.
    """

    async def main() -> None:
        source = MemorySource(abilities=Abilities(metered=metered, lists_namespaces=namespaces))
        for method, seconds in slow.items():
            source.delay(seconds, method)
        async with mounted(source, writable=writable, settle_at_lookup=writable or settle, ttl=TTL) as kernel:
            world = World(source, CachingKernel(kernel), writable, slow)
            source.push("a", ["V1", *UNGRAMMATICAL], PUSHED[0])
            world.changed()
            for step, repository, tag, number in steps:
                await trio.sleep(0.01)
                await step(world, repository, tag, number)
                world.untouched()
            await settled(world)

    trio.run(main, clock=MockClock(autojump_threshold=0))


READING: dict[str, Steps] = {
    "a tag that moves is shown where it leads, though its listing is newer": [
        (push, "a", "a", 0), (read, "a", "a", 0), (push, "a", "a", 1), (wait, "a", "a", 2),
        (list_tags, "a", "a", 0), (read, "a", "a", 1), (wait, "a", "a", 2), (read, "a", "a", 1),
    ],
    "a tag that vanishes is gone, though the catalog is newer": [
        (push, "a", "a", 0), (look, "a", "a", 1), (push, "a", "a", 6), (wait, "a", "a", 2),
        (list_all, "", "a", 0), (look, "a", "a", 1), (wait, "a", "a", 2), (look, "a", "a", 1),
    ],
    "a tag that was absent is found": [
        (read, "a", "a", 0), (push, "a", "a", 0), (wait, "a", "a", 4), (read, "a", "a", 0),
    ],
    "a refresh forgets a listing that is on its way": [
        (look, "a", "a", 0), (push, "a", "a", 0), (refresh, "a", "a", 0), (list_tags, "a", "a", 0),
    ],
    "a listing that paused is no slow one": [
        (look, "a", "a", 0), (wait, "a", "a", 3), (list_tags, "a", "a", 0), (push, "a", "a", 0),
    ],
}  # fmt: skip
DELETING: dict[str, Steps] = {
    "a deleted tag's files can't be read by names that the kernel knows": [
        (push, "a", "a", 0), (read, "a", "a", 0), (delete, "a", "a", 0), (read, "a", "a", 0),
    ],
    "a repository is not emptied where somebody pushed to it meanwhile": [
        (push, "c/d", "b", 0), (list_tags, "c/d", "b", 0), (push, "c/d", "a", 0), (delete, "c/d", "b", 1),
        (list_all, "c/d", "a", 1), (wait, "c/d", "a", 4), (list_all, "c/d", "a", 1),
    ],
    "nor is it hidden for good": [
        (push, "c/d", "b", 0), (list_tags, "c/d", "b", 0), (push, "c/d", "a", 0), (delete, "c/d", "b", 1),
    ],
    "an emptied repository is listed again once somebody has pushed to it": [
        (push, "b", "a", 0), (list_tags, "b", "a", 0), (delete, "b", "a", 1), (wait, "b", "a", 6),
        (push, "b", "a", 0), (wait, "b", "a", 4), (list_all, "b", "a", 0),
    ],
    "a repository that was absent is there once a tag in it was deleted": [
        (list_tags, "a/digest", "a", 0), (wait, "a", "a", 2), (push, "a/digest", "a", 0),
        (list_tags, "a", "a", 0), (delete, "a/digest", "a", 0),
    ],
}  # fmt: skip
"""What once went wrong."""


@pytest.mark.parametrize("name", [*READING, *DELETING])
def test_what_once_went_wrong_is_right(name: str) -> None:
    drive(
        {**READING, **DELETING}[name],
        writable=name in DELETING,
        settle=name in DELETING,
        metered=False,
        slow={},
    )


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    steps=some_steps(),
    writable=st.booleans(),
    settle=st.booleans(),
    metered=st.booleans(),
    namespaces=st.booleans(),
    slow=st.dictionaries(
        st.sampled_from(["tags", "repositories", "namespace", "manifest"]),
        st.sampled_from([0.3, 1.5, 2.5]),
        max_size=2,
    ),
)
def test_the_tree_shows_what_the_registry_had_of_late_and_deletes_what_is_named(
    steps: Steps,
    writable: bool,
    settle: bool,
    metered: bool,
    namespaces: bool,
    slow: dict[str, float],
) -> None:
    drive(steps, writable=writable, settle=settle, metered=metered, slow=slow, namespaces=namespaces)
