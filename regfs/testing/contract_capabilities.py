"""What every capability of a `Source` has to do, as tests. `SourceContract` holds them; they are split off for size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeVar

import pytest
import trio

from regfs.errors import ListingRefused, Moved, NotFound, Refused
from regfs.ports import (
    Answer,
    Cost,
    Counts,
    DatesTags,
    DeletesRepositories,
    DeletesTags,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    ListsRepositories,
    Metered,
    Recovers,
    ResolvesTags,
    Source,
)
from regfs.testing.contract_referrers import ReferrerContract, referrers_of
from regfs.testing.contract_tools import (
    Harness,
    about,
    blob_of,
    intact,
    not_found,
    run,
    tags_of,
)
from regfs.testing.images import Image, Pushable, make_image, make_index

C = TypeVar("C")

KINDS: Final[tuple[type[Any], ...]] = (
    ListsRepositories,
    ListsNamespaces,
    ListsReferrers,
    ResolvesTags,
    HonoursRanges,
    Metered,
    DatesTags,
    DeletesTags,
    DeletesRepositories,
    Recovers,
    Counts,
)
"""All capabilities that the tree asks for."""


async def within(lister: ListsNamespaces, namespace: str) -> tuple[list[str], list[str]]:
    """What is in a namespace: the namespaces and the repositories that it lists, one that pages for ever a failure."""
    namespaces: list[str] = []
    repositories: list[str] = []
    pages = 0
    async for page in lister.namespace(namespace):
        namespaces += page.namespaces
        repositories += page.repositories
        pages += 1
        assert pages < 1000, "the paging does not end"
    return namespaces, repositories


async def own_repositories(lister: ListsNamespaces, namespaces: list[str]) -> set[str]:
    """Those namespaces that call themselves a repository too, as one that is has to."""
    return {name for name in namespaces if name in (await within(lister, name))[1]}


async def everything(lister: ListsNamespaces, namespace: str) -> set[str]:
    """All repositories of a namespace and of those in it."""
    namespaces, repositories = await within(lister, namespace)
    found = set(repositories)
    for name in namespaces:
        found |= await everything(lister, name)
    return found


async def use_capabilities(source: Source, image: Image, tag: str) -> None:
    """Use what there is of capabilities to list, to resolve and to delete."""
    with suppress(ListingRefused):
        if (lists := source.capability(ListsRepositories)) is not None:
            assert [page async for page in lists.repositories()]
        if (namespaces := source.capability(ListsNamespaces)) is not None:
            await within(namespaces, "")
    if (resolves := source.capability(ResolvesTags, "team/app")) is not None:
        await resolves.resolve("team/app", tag)
    if (lists_referrers := source.capability(ListsReferrers, "team/app")) is not None:
        await referrers_of(lists_referrers, image.digest)
    if (deletes := source.capability(DeletesTags, "team/app")) is not None:
        await deletes.delete_tag("team/app", tag, image.digest)


class CapabilityContract(ReferrerContract):
    """The part of the suite that is about capabilities: a test of one that is not declared promises nothing."""

    capabilities: ClassVar[Collection[type[Any]]] = ()
    """What the Source hands out: its provider's ``capabilities`` where that declares them, so that both stay the same."""
    keeps_untagged: ClassVar[bool] = True
    """Whether the registry keeps a manifest when its last tag goes; some collect it at once."""
    nested_names: ClassVar[tuple[str, ...]] = ("app", "app/nested", "tool", "sub/app", "sub/deep/app")
    """Names below a namespace that the registry can hold; one of two levels says ``("app", "tool")``."""
    many_repositories: ClassVar[int] = 120
    """How many repositories of one namespace make it page, if it does."""

    def test_the_capabilities_are_those_declared(self, harness: Harness) -> None:
        harness.push("team/app", ["v1"], make_image())

        async def body(source: Source) -> None:
            for kind in KINDS:
                given = source.capability(kind, "team/app")
                assert (given is not None) == (kind in self.capabilities), kind
                assert given is None or isinstance(given, kind)
            assert source.capability(CapabilityContract) is None

        run(harness, body)

    @about(ListsRepositories)
    def test_repositories_are_listed_once_each_or_refused(self, harness: Harness) -> None:
        names = ["app", "app/nested", "team/app", "team/app/deep/er"]
        for name in names:
            harness.push(name, ["v1"], make_image(name))

        async def body(lister: ListsRepositories) -> None:
            try:
                found = [name async for page in lister.repositories() for name in page]
            except ListingRefused:
                return
            assert sorted(found) == sorted(names)

        self._with(harness, ListsRepositories, body)

    @about(ListsNamespaces)
    def test_a_namespace_lists_once_each_what_is_in_it_and_nothing_of_another(self, harness: Harness) -> None:
        """What the first level shows is the caller's own affair; looked into, a namespace tells all that is in it."""
        names = [f"team/{name}" for name in self.nested_names] + ["other/app"]
        for name in names:
            harness.push(name, ["v1"], make_image(name))

        async def body(lister: ListsNamespaces) -> None:
            for team in ("team", "other"):
                namespaces, repositories = await within(lister, team)
                assert len(set(repositories)) == len(repositories)
                assert len(set(namespaces)) == len(namespaces)
                assert all(name.startswith(f"{team}/") for name in (*namespaces, *repositories))
                assert set(namespaces) & set(names) <= await own_repositories(lister, namespaces)
                assert all(name.count("/") == 1 for name in namespaces), "only those directly below it"
                found = set(repositories)
                for name in namespaces:
                    found |= await everything(lister, name)
                assert found == {name for name in names if name.startswith(f"{team}/")}

        self._with(harness, ListsNamespaces, body)

    @about(ListsNamespaces)
    def test_the_first_namespace_ends_and_what_it_shows_can_be_looked_into(self, harness: Harness) -> None:
        harness.push("team/app", ["v1"], make_image())

        async def body(lister: ListsNamespaces) -> None:
            namespaces, repositories = await within(lister, "")
            assert len(set(namespaces)) == len(namespaces)
            assert len(set(repositories)) == len(repositories)
            for name in namespaces:
                await within(lister, name)

        self._with(harness, ListsNamespaces, body)

    @about(ListsNamespaces)
    def test_an_unknown_namespace_is_not_found_and_a_repository_with_nothing_in_it_is_none(
        self, harness: Harness
    ) -> None:
        harness.push("team/app", ["v1"], make_image())

        async def body(lister: ListsNamespaces) -> None:
            with pytest.raises((NotFound, ListingRefused)):
                await within(lister, "no-such-team")
            with not_found():
                await within(lister, "team/app/absent")
            with suppress(NotFound):
                assert await everything(lister, "team/app") <= {"team/app"}

        self._with(harness, ListsNamespaces, body)

    @about(ListsNamespaces)
    def test_a_namespace_of_many_repositories_is_listed_to_its_end(self, harness: Harness) -> None:
        names = [f"team/app{number:03}" for number in range(self.many_repositories)]
        image = make_image()

        async def body(lister: ListsNamespaces) -> None:
            for name in names:
                await trio.to_thread.run_sync(harness.push, name, ["v1"], image)
            assert await everything(lister, "team") == set(names)

        self._with(harness, ListsNamespaces, body)

    @about(ResolvesTags)
    def test_a_tag_resolves_to_its_manifests_descriptor(self, harness: Harness) -> None:
        index = make_index()
        harness.push("team/app", ["v1"], index)

        async def body(resolver: ResolvesTags) -> None:
            found = await resolver.resolve("team/app", "v1")
            wanted = index.manifest.descriptor
            assert (found.digest, found.media_type, found.size) == (
                wanted.digest, wanted.media_type, wanted.size,
            )  # fmt: skip
            with not_found():
                await resolver.resolve("team/app", "absent")

        self._with(harness, ResolvesTags, body)

    @about(HonoursRanges)
    def test_whether_a_part_comes_by_itself_is_known_once_one_was_asked_for(self, harness: Harness) -> None:
        image = make_image()
        blob = image.layers[0]
        harness.push("team/app", ["v1"], image)

        async def body(ranges: HonoursRanges, source: Source) -> None:
            assert isinstance(ranges.honours_ranges(), Answer)
            assert await blob_of(source, "team/app", blob.descriptor, 5, 9) == blob.raw[5:9]
            assert ranges.honours_ranges() is not Answer.UNKNOWN

        self._with_source(harness, HonoursRanges, body)

    @about(DeletesTags)
    @pytest.mark.parametrize("what", [make_image(), make_index(attestations=True)], ids=["image", "index"])
    def test_deleting_a_tag_spares_its_siblings_and_its_digest(
        self, harness: Harness, what: Pushable
    ) -> None:
        harness.push("team/app", ["v1", "v2", "v3"], what)

        async def body(deleter: DeletesTags, source: Source) -> None:
            assert deleter.can_delete() is not Answer.NO
            done = await deleter.delete_tag("team/app", "v2", what.digest)
            assert done.way
            assert sorted(await tags_of("team/app")(source)) == ["v1", "v3"]
            with not_found():
                await source.manifest("team/app", "v2")
            await intact(source, what, "v1", "v3", what.digest)

        self._with_source(harness, DeletesTags, body)

    @about(DeletesTags)
    def test_deleting_the_last_tag_spares_the_digest_where_the_registry_does(self, harness: Harness) -> None:
        image = make_image()
        harness.push("team/app", ["v1"], image)

        async def body(deleter: DeletesTags, source: Source) -> None:
            await deleter.delete_tag("team/app", "v1", None)
            with not_found():
                await source.manifest("team/app", "v1")
            try:
                assert await tags_of("team/app")(source) == []
            except NotFound:
                return  # the repository went with its last tag, as some registries have it
            if self.keeps_untagged:
                await intact(source, image, image.digest)

        self._with_source(harness, DeletesTags, body)

    @about(DeletesTags)
    def test_a_tag_that_moved_meanwhile_is_left_alone(self, harness: Harness) -> None:
        old, new = make_image("old"), make_image("new")
        harness.push("team/app", ["v1"], old)
        harness.push("team/app", ["v1"], new)

        async def body(deleter: DeletesTags, source: Source) -> None:
            with pytest.raises(Moved):
                await deleter.delete_tag("team/app", "v1", old.digest)
            await intact(source, new, "v1", new.digest)

        self._with_source(harness, DeletesTags, body)

    @about(DeletesTags)
    def test_deleting_what_is_absent_is_not_found_and_harms_nothing(self, harness: Harness) -> None:
        image = make_image()
        harness.push("team/app", ["v1"], image)

        async def body(deleter: DeletesTags, source: Source) -> None:
            for repository, tag in (("team/app", "absent"), ("team/absent", "v1")):
                with not_found():
                    await deleter.delete_tag(repository, tag, None)
            await intact(source, image, "v1", image.digest)

        self._with_source(harness, DeletesTags, body)

    @about(DeletesTags)
    def test_a_deleted_tag_can_be_pushed_again(self, harness: Harness) -> None:
        image = make_image()
        harness.push("team/app", ["v1", "v2"], image)

        async def body(deleter: DeletesTags, source: Source) -> None:
            await deleter.delete_tag("team/app", "v1", image.digest)
            await trio.to_thread.run_sync(harness.push, "team/app", ["v1"], image)
            await intact(source, image, "v1", "v2")
            await deleter.delete_tag("team/app", "v1", image.digest)
            assert await tags_of("team/app")(source) == ["v2"]

        self._with_source(harness, DeletesTags, body)

    @about(DeletesRepositories)
    def test_only_an_empty_repository_is_removed(self, harness: Harness) -> None:
        image = make_image()
        harness.push("team/app", ["v1"], image)

        async def body(remover: DeletesRepositories, source: Source) -> None:
            with pytest.raises(Refused):
                await remover.delete_repository("team/app")
            await intact(source, image, "v1")
            with not_found():
                await remover.delete_repository("team/absent")
            deleter = source.capability(DeletesTags, "team/app")
            if deleter is not None:
                await deleter.delete_tag("team/app", "v1", None)
                await remover.delete_repository("team/app")
                with not_found():
                    await tags_of("team/app")(source)

        self._with_source(harness, DeletesRepositories, body)

    @about(DatesTags)
    def test_free_dates_come_with_the_listing(self, harness: Harness) -> None:
        image = make_image()
        harness.push("team/app", ["v1"], image)

        async def body(dates: DatesTags, source: Source) -> None:
            if dates.cost is Cost.FREE:
                page = await anext(source.tags("team/app"))
                assert page.facts["v1"].created is not None

        self._with_source(harness, DatesTags, body)

    @about(Recovers)
    def test_recovery_may_be_repeated(self, harness: Harness) -> None:
        image = make_image()
        harness.push("team/app", ["v1"], image)

        async def body(recovers: Recovers, source: Source) -> None:
            assert all(isinstance(line, str) for line in await recovers.recover())
            assert list(await recovers.recover()) == []
            await intact(source, image, "v1", image.digest)

        self._with_source(harness, Recovers, body)

    @about(Counts)
    def test_counters_are_numbers_that_move(self, harness: Harness) -> None:
        harness.push("team/app", ["v1"], make_image())

        async def body(counts: Counts, source: Source) -> None:
            before = dict(counts.counters())
            await source.manifest("team/app", "v1")
            after = counts.counters()
            assert all(after[name] >= number for name, number in before.items())
            assert sum(after.values()) > sum(before.values())

        self._with_source(harness, Counts, body)

    @about(Metered)
    def test_a_quota_is_of_numbers(self, harness: Harness) -> None:
        async def body(meter: Metered) -> None:
            assert all(type(number) is int for number in meter.quota().values())

        self._with(harness, Metered, body)

    # ── within ───────────────────────────────────────────────────────────────────────────────────

    def _with(self, harness: Harness, kind: type[C], body: Callable[[C], Awaitable[None]]) -> None:
        async def both(given: C, _: Source) -> None:
            await body(given)

        self._with_source(harness, kind, both)

    def _with_source(
        self, harness: Harness, kind: type[C], body: Callable[[C, Source], Awaitable[None]]
    ) -> None:
        """Run ``body`` on a capability that is declared."""

        async def inner(source: Source) -> None:
            given = source.capability(kind, "team/app")
            assert given is not None, f"{kind.__name__} is declared, and not handed out"
            await body(given, source)

        run(harness, inner)
