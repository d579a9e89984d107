"""A registry that lists namespace by namespace: a folder is asked about when somebody looks into it, and no other is."""

from __future__ import annotations

import pytest
import trio

from regfs.connection import Connection
from regfs.errors import ListingRefused, NotFound, PagingLoop, Refused, ServerFailed
from regfs.ports import ListsNamespaces, NamespacePage
from regfs.testing.memory import Abilities, MemorySource
from regfs.tree import namelist
from regfs.tree.namelist import Names
from regfs.wrapping import FencedSource
from tests.tree.kernel import mounted, run

REFERENCES = (
    "library/alpine:3",
    "me/app:v1",
    "me/app:v2",
    "me/deep/tool:v1",
    "me/deep/er/tool:v1",
    "other/app:v1",
)


def central(*references: str, both: bool = False) -> MemorySource:
    """A central registry, which lists by namespace (with ``both``: all its repositories too)."""
    source = MemorySource(
        "hub.test", Abilities(lists_repositories=both, lists_namespaces=True, repositories_per_page=2)
    )
    for reference in references or REFERENCES:
        repository, _, tag = reference.partition(":")
        source.push(repository, tag)
    return source


def asked(source: MemorySource) -> list[tuple[str, str]]:
    """What was asked of the registry, each question once."""
    return list(dict.fromkeys((call.method, call.repository) for call in source.calls))


def refuse(source: MemorySource, namespace: str) -> None:
    """Let nobody look into a namespace."""
    source.fail(ListingRefused("not for you", registry="hub.test"), "namespace", namespace)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("settle", [False, True])
def test_a_listing_asks_about_that_namespace_and_no_other(both: bool, settle: bool) -> None:
    async def test() -> None:
        source = central(both=both)
        async with mounted(source, settle_at_lookup=settle) as kernel:
            assert await kernel.ls() == ["library", "me", "other"]
            assert asked(source) == [("namespace", "")]
            assert await kernel.ls("me") == ["deep", "app"]
            assert asked(source) == [("namespace", ""), ("namespace", "me")]
            assert await kernel.ls("me/deep") == ["er", "tool"]
            assert asked(source)[2:] == [("namespace", "me/deep")]
            assert await kernel.ls("me/app") == ["v1", "v2"]
            assert asked(source)[3:] == [("tags", "me/app")]

    run(test)


@pytest.mark.parametrize("settle", [False, True])
def test_a_cold_listing_of_a_namespace_asks_only_that_namespace(settle: bool) -> None:
    async def test() -> None:
        source = central()
        async with mounted(source, settle_at_lookup=settle) as kernel:
            assert await kernel.ls("me") == ["deep", "app"]
            assert asked(source) == [("namespace", "me")]

    run(test)


def test_a_long_listing_of_namespaces_costs_nothing_an_entry() -> None:
    async def test() -> None:
        source = central(*(f"me/app{n}:v1" for n in range(50)))
        async with mounted(source) as kernel:
            assert len(await kernel.ls_l("me")) == 50
            assert asked(source) == [("namespace", "me")]
            assert source.count("namespace") == 25

    run(test)


def test_looking_whether_a_namespace_is_there_costs_its_first_page() -> None:
    async def test() -> None:
        source = central(*(f"me/app{n}:v1" for n in range(50)))
        async with mounted(source) as kernel:
            await kernel.stat("me")
            await kernel.stat("me")
            assert source.count() == 1
            assert len(await kernel.ls("me")) == 50

    run(test)


def test_a_manifest_by_its_path_costs_one_request_here_too() -> None:
    async def test() -> None:
        source = central()
        async with mounted(source) as kernel:
            await kernel.cat("me/app/v1/manifest.json")
            assert asked(source) == [("manifest", "me/app")]

    run(test)


def test_a_cold_repository_is_listed_with_those_nested_in_it() -> None:
    async def test() -> None:
        source = central("me/app:v1", "me/app:cli", "me/app/cli:v2")
        async with mounted(source) as kernel:
            assert sorted(await kernel.ls("me/app")) == [".repos", "cli", "v1"]
            assert await kernel.ls("me/app/.repos") == ["cli"]
            assert await kernel.ls("me/app/.repos/cli") == ["v2"]
            assert ("namespace", "") not in asked(source)
            assert ("namespace", "me") not in asked(source)

    run(test)


def test_a_namespace_that_is_a_repository_too_lists_its_tags() -> None:
    async def test() -> None:
        source = central("group/project:v1", "group/project/image:v2")
        async with mounted(source) as kernel:
            assert await kernel.ls() == ["group"]
            assert await kernel.ls("group") == ["project"]
            assert await kernel.ls("group/project") == ["v1", "image"]
            assert await kernel.ls("group/project/image") == ["v2"]

    run(test)


class Deep(MemorySource):
    """Tells of all repositories below an owner at once, however deep, as ghcr.io does."""

    def capability(self, kind, repository=None):  # type: ignore[no-untyped-def]
        return self if kind is ListsNamespaces else super().capability(kind, repository)

    async def namespace(self, name: str):  # type: ignore[no-untyped-def]
        async with self._call("namespace", name):
            found = [repository for repository in self.content() if repository.startswith(f"{name}/")]
        if name == "":
            yield NamespacePage(["me"])
        elif "/" in name or not found:
            raise NotFound(f"there is no namespace {name}", registry=self.name)
        else:
            yield NamespacePage((), found)


def test_what_a_namespace_has_told_of_the_folders_in_it_is_not_asked_again() -> None:
    async def test() -> None:
        source = Deep(abilities=Abilities(lists_repositories=False))
        for name in ("me/app", "me/deep/tool", "me/deep/er/tool", "me/app/cli"):
            source.push(name, "v1")
        async with mounted(source) as kernel:
            assert await kernel.ls("me") == ["app", "deep"]
            assert await kernel.ls("me/deep") == ["tool", "er"]
            assert await kernel.ls("me/deep/er") == ["tool"]
            assert not await kernel.exists("me/deep/nosuch")
            assert asked(source) == [("namespace", "me")]
            assert await kernel.ls("me/app") == ["v1", "cli"]
            assert asked(source)[1:] == [("tags", "me/app")]
        source.calls.clear()
        async with mounted(source) as kernel:
            assert await kernel.ls("me/app") == ["v1"]
            assert await kernel.ls("me/app/cli") == ["v1"]
            assert ("namespace", "me") not in asked(source)

    run(test)


@pytest.mark.parametrize(
    "path", ["nosuch", "me/nosuch", "me/deep/nosuch", "me/app/nosuch", "me/app/v1/nosuch"]
)
@pytest.mark.parametrize("settle", [False, True])
def test_an_absent_name_is_not_there_is_remembered_and_leaves_no_trace(path: str, settle: bool) -> None:
    async def test() -> None:
        source = central()
        async with mounted(source, settle_at_lookup=settle) as kernel:
            assert not await kernel.exists(path)
            before = len(source.calls)
            assert not await kernel.exists(path)
            assert len(source.calls) == before
            with pytest.raises(NotFound):
                await kernel.ls(path)
            assert await kernel.ls() == ["library", "me", "other"]
            assert await kernel.ls("me") == ["deep", "app"]
            source.push(f"{path}/later" if path.count("/") < 2 else "me/app/later", "v1")
            await trio.sleep(10.1)
            if path.count("/") < 2:
                assert await kernel.ls(path) == ["later"]

    run(test)


def test_a_name_missing_from_a_whole_listing_costs_no_request_and_one_missing_from_the_first_does() -> None:
    async def test() -> None:
        source = central()
        source.secret = {"strangers/app"}
        source.push("strangers/app", "v1")
        async with mounted(source) as kernel:
            await kernel.ls()
            await kernel.ls("me")
            before = len(source.calls)
            assert not await kernel.exists("me/nosuch")
            assert len(source.calls) == before
            assert await kernel.ls("strangers/app") == ["v1"]
            assert await kernel.ls("strangers") == ["app"]
            assert await kernel.ls() == ["library", "me", "other", "strangers"]

    run(test)


@pytest.mark.parametrize("settle", [False, True])
def test_a_refused_namespace_is_closed_and_its_siblings_are_not(settle: bool) -> None:
    async def test() -> None:
        source = central()
        refuse(source, "other")
        async with mounted(source, settle_at_lookup=settle) as kernel:
            assert await kernel.ls() == ["library", "me", "other"]
            with pytest.raises(ListingRefused):
                await kernel.ls("other")
            assert (await kernel.stat("other")).mode == 0o111
            before = source.count("namespace", "other")
            with pytest.raises(ListingRefused):
                await kernel.ls("other")
            assert source.count("namespace", "other") == before
            assert await kernel.ls("me") == ["deep", "app"]
            assert (await kernel.stat("me")).mode & 0o444
            assert await kernel.ls() == ["library", "me", "other"]
            assert await kernel.cat("other/app/v1/digest")
            assert await kernel.ls("other") == ["app"]
            assert (await kernel.stat("other")).mode & 0o444
            assert await kernel.xattr("other", "user.regfs.partial") == "1"

    run(test)


def test_a_refused_namespace_that_nothing_tells_of_may_be_passed_and_no_more() -> None:
    async def test() -> None:
        source = central()
        refuse(source, "hidden")
        async with mounted(source) as kernel:
            assert (await kernel.stat("hidden")).mode == 0o111
            with pytest.raises(ListingRefused):
                await kernel.ls("hidden")
            assert await kernel.ls() == ["library", "me", "other"]

    run(test)


def test_a_failure_in_one_namespace_is_an_error_there_and_nowhere_else() -> None:
    async def test() -> None:
        source = central()
        source.fail(ServerFailed("500", registry="hub.test"), "namespace", "other")
        async with mounted(source) as kernel:
            assert await kernel.ls() == ["library", "me", "other"]
            with pytest.raises(ServerFailed):
                await kernel.ls("other")
            assert await kernel.ls("me") == ["deep", "app"]
            source.clear()
            assert await kernel.ls("other") == ["app"]

    run(test)


def test_a_listing_that_is_not_all_says_so_and_disproves_nothing() -> None:
    async def test() -> None:
        source = central()
        source.partial["me"] = "the token does not see private packages"
        source.secret = {"me/private"}
        source.push("me/private", "v1")
        async with mounted(source) as kernel:
            assert await kernel.ls("me") == ["deep", "app"]
            assert await kernel.xattr("me", "user.regfs.partial") == "1"
            errors = "\n".join(kernel.filesystem.errors.lines())
            assert "me: shown in part: it holds more than may be listed: the token does not see" in errors
            assert await kernel.ls("me/private") == ["v1"]
            assert await kernel.ls("me") == ["deep", "app", "private"]
            with pytest.raises(Exception, match="no attribute"):
                await kernel.xattr("other", "user.regfs.partial")

    run(test)


def test_configured_namespaces_are_listed_beside_those_of_the_registry() -> None:
    async def test() -> None:
        source = central()
        source.secret = {"strangers/app"}
        source.push("strangers/app", "v1")
        connection = Connection("hub", "hub.test", namespaces=("strangers", "empty"))
        async with mounted(source, connection) as kernel:
            assert sorted(await kernel.ls()) == ["empty", "library", "me", "other", "strangers"]
            assert asked(source) == [("namespace", "")]
            with pytest.raises(NotFound):
                await kernel.ls("empty")
        refuse(source, "")
        async with mounted(source, connection) as kernel:
            assert sorted(await kernel.ls()) == ["empty", "strangers"]

    run(test)


def test_a_fence_shows_the_namespaces_that_lead_into_it_and_asks_about_no_other() -> None:
    async def test() -> None:
        source = central()
        only = ("me/deep/tool", "library/*")
        connection = Connection("hub", "hub.test", only=only)
        async with mounted(FencedSource(source, only), connection) as kernel:
            assert await kernel.ls() == ["library", "me"]
            assert await kernel.ls("me") == ["deep"]
            assert await kernel.ls("me/deep") == ["tool"]
            source.calls.clear()
            for name in ("other", "other/app", "me/app", "me/deep/er"):
                assert not await kernel.exists(name)
            assert source.calls == []
            lister = FencedSource(source, only).capability(ListsNamespaces)
            assert lister is not None
            assert [page.namespaces async for page in lister.namespace("")] == [["library", "me"], []]
            pages = [page async for page in lister.namespace("me/deep")]
            assert [(page.namespaces, page.repositories) for page in pages] == [([], ["me/deep/tool"])]
            source.calls.clear()
            with pytest.raises(NotFound):
                await anext(aiter(lister.namespace("other")))
            assert source.calls == []

    run(test)


def test_an_empty_namespace_is_an_empty_folder_that_stays() -> None:
    async def test() -> None:
        source = central()
        source.empty_namespaces = {"fresh"}
        async with mounted(source, writable=True) as kernel:
            assert await kernel.ls() == ["library", "me", "other", "fresh"]
            assert await kernel.ls("fresh") == []
            with pytest.raises(Refused):
                await kernel.rmdir("fresh")
        async with mounted(source) as kernel:
            assert await kernel.ls("fresh") == []
            assert asked(source)[-1] == ("namespace", "fresh")

    run(test)


def test_each_listing_ages_for_itself_and_is_renewed_before_readers_wait() -> None:
    async def test() -> None:
        source = central()
        async with mounted(source, ttl=10) as kernel:
            await kernel.ls("me")
            await trio.sleep(5)
            await kernel.ls("other")
            source.push("me/new", "v1")
            source.push("other/new", "v1")
            await trio.sleep(3)
            assert await kernel.ls("me") == ["deep", "app"]
            await trio.sleep(0.1)
            assert await kernel.ls("me") == ["deep", "app", "new"]
            assert await kernel.ls("other") == ["app"]
            await trio.sleep(10)
            assert await kernel.ls("other") == ["app", "new"]

    run(test)


def test_refresh_forgets_a_namespace_and_not_its_siblings() -> None:
    async def test() -> None:
        source = central()
        async with mounted(source, ttl=1000) as kernel:
            await kernel.ls("me")
            await kernel.ls("other")
            source.push("me/new", "v1")
            source.push("other/new", "v1")
            assert int(await kernel.xattr("me", "user.regfs.refresh")) >= 1
            assert await kernel.ls("me") == ["deep", "app", "new"]
            assert await kernel.ls("other") == ["app"]

    run(test)


def test_however_many_list_a_namespace_at_once_it_is_asked_once() -> None:
    async def test() -> None:
        source = central("me/app:v1")
        gate = source.hold("namespace")
        async with mounted(source) as kernel:
            found: list[list[str]] = []

            async def list_it() -> None:
                found.append(await kernel.ls("me"))

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(list_it)
                await trio.sleep(1)
                gate.open()
            assert found == [["app"]] * 20
            assert source.count() == 1

    run(test)


def test_removing_a_namespace_deletes_its_tags_alone_and_hides_it_until_something_comes() -> None:
    async def test() -> None:
        source = central()
        async with mounted(source, writable=True) as kernel:
            assert await kernel.ls() == ["library", "me", "other"]
            await kernel.rm_r("me")
            assert source.content()["me/app"] == {}
            assert source.content()["other/app"]
            assert await kernel.ls() == ["library", "other"]
            assert not await kernel.exists("me")
            await trio.sleep(11)
            assert await kernel.ls() == ["library", "other"]
            await trio.sleep(70)
            assert await kernel.ls() == ["library", "other"]
            source.push("me/another", "v1")
            await trio.sleep(11)
            assert await kernel.ls() == ["library", "me", "other"]
            assert await kernel.ls("me") == ["another"]
            source.push("me/deep/tool", "v3")
            await trio.sleep(11)
            assert await kernel.ls("me") == ["deep", "another"]

    run(test)


def test_emptying_one_repository_leaves_its_namespace_and_siblings() -> None:
    async def test() -> None:
        source = central("me/app:v1", "me/tool:v1")
        async with mounted(source, writable=True) as kernel:
            await kernel.ls()
            await kernel.rm_r("me/app")
            assert await kernel.ls("me") == ["tool"]
            assert await kernel.ls() == ["me"]
            await trio.sleep(100)
            assert await kernel.ls() == ["me"]
            assert await kernel.ls("me") == ["tool"]

    run(test)


def test_a_walker_of_namespaces_is_met_ahead_with_namespaces_and_never_with_tags_of_them() -> None:
    async def test() -> None:
        source = central(*(f"n{n:02}/app:v1" for n in range(30)))
        async with mounted(source) as kernel:
            names = await kernel.ls()
            for name in names[:3]:
                await kernel.ls(name)
            await trio.sleep(1)
            listed = source.count("namespace") - source.count("namespace", "")
            assert 3 < listed <= 3 + 16
            assert {name for method, name in asked(source) if method == "tags"} <= {
                f"{name}/app" for name in names
            }
            assert "n00" not in {name for method, name in asked(source) if method == "tags"}

    run(test)


def test_find_over_namespaces_asks_each_once() -> None:
    async def test() -> None:
        source = central(*(f"n{n:02}/app{m}:v1" for n in range(10) for m in range(2)))
        async with mounted(source, ttl=1000) as kernel:
            found = [path async for path in kernel.find()]
            assert len([path for path in found if path.endswith("manifest.json")]) == 20
            assert all(source.count("namespace", f"n{n:02}") == 1 for n in range(10))
            assert len([c for c in source.calls if c.method == "tags"]) == 20
            assert {name for method, name in asked(source) if method == "namespace"} == {""} | {
                f"n{n:02}" for n in range(10)
            }

    run(test)


def test_what_a_namespace_says_about_others_is_not_believed() -> None:
    names = Names("me")
    names.take_namespace(
        NamespacePage(
            ["other", "me/sub", "me", "ME/x", ""], ["me", "other/app", "mean/app", "me/a b", "me/app"]
        )
    )
    assert names.namespaces == {"me/sub": None}
    assert set(names.repositories) == {"me", "me/app"}
    assert names.dropped == 7


def test_a_namespace_whose_empty_pages_do_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namelist, "MAX_PAGES", 20)

    class Endless(Deep):
        async def namespace(self, name: str):  # type: ignore[no-untyped-def]
            while True:
                async with self._call("namespace", name):
                    pass
                yield NamespacePage()

    async def test() -> None:
        async with mounted(Endless()) as kernel:
            with pytest.raises(PagingLoop):
                await kernel.ls("me")

    run(test)


@pytest.mark.parametrize(
    "abilities", [Abilities(), Abilities(lists_repositories=False, lists_namespaces=True)]
)
def test_a_mount_that_keeps_nothing_shows_namespaces_too(abilities: Abilities) -> None:
    async def test() -> None:
        source = MemorySource(abilities=abilities)
        source.push("me/deep/tool", "v1")
        source.push("me/deep", "v2")
        async with mounted(source, ttl=0) as kernel:
            assert await kernel.ls("me") == ["deep"]
            assert await kernel.ls("me/deep") == ["v2", "tool"]
            assert not await kernel.exists("nosuch")
            assert not await kernel.exists("me/nosuch")

    run(test)
