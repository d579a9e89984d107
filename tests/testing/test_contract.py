"""The contract suite, on every Source of ours; and Sources with a defect each, which it has to find."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx
import pytest

from regfs.auth.methods import Challenge
from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import NotFound
from regfs.manifest import Descriptor
from regfs.ports import (
    Answer,
    Cost,
    Credential,
    DatesTags,
    DeletesTags,
    Deletion,
    HonoursRanges,
    RawManifest,
    ResolvesTags,
    TagPage,
)
from regfs.providers.generic import GenericProvider
from regfs.providers.oci import OciLayoutProvider
from regfs.reference import TagOrDigest
from regfs.testing.behaviour import Auth, Behaviour, Framing, Order, Paging, TagDelete
from regfs.testing.contract import KINDS, Harness, SourceContract
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image
from regfs.testing.memory import Abilities, MemorySource
from tests.support.harnesses import LayoutHarness, MemoryHarness, V2Harness
from tests.support.registry import DockerRegistry
from tests.support.tls import CertificateAuthority
from tests.support.tokens import TokenServer

C = TypeVar("C")

V2 = GenericProvider.capabilities


class OneCredential:
    """A keychain that has the tests' own credential for every connection."""

    async def get(self, connection: Connection) -> Credential | None:
        return Credential("tester", "a-password")


def challenge_flow(connection: Connection) -> httpx.Auth | None:
    return Challenge().flow(connection, OneCredential())


class TestMemorySourceThatCanDoAll(SourceContract):
    capabilities = frozenset(KINDS)

    @pytest.fixture
    def harness(self) -> Harness:
        able = Abilities(
            metered=True,
            recovers=True,
            dates=Cost.FREE,
            deletes_repositories=True,
            lists_namespaces=True,
            honours_ranges=Answer.YES,
        )
        return MemoryHarness(MemorySource(abilities=replace(able, tags_per_page=100)))


class TestMemorySourceAsItIs(SourceContract):
    capabilities = MemorySource().capabilities

    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()


class TestMemorySourceThatCanDoNothingMore(SourceContract):
    @pytest.fixture
    def harness(self) -> Harness:
        able = Abilities(
            False, False, False, None, lists_referrers=False, tags_per_page=7, claims_digests=False
        )
        return MemoryHarness(MemorySource(abilities=able))


class TestLayoutSource(SourceContract):
    capabilities = OciLayoutProvider.capabilities

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return LayoutHarness(tmp_path)


class OnFake(SourceContract):
    """V2 on the fake registry; each subclass is a registry of another behaviour."""

    capabilities = V2
    switches: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Harness]:
        with FakeRegistry(Behaviour(**self.switches)) as registry:
            flow = challenge_flow if registry.behaviour.auth is not Auth.NONE else lambda _: None
            yield V2Harness(f"http://{registry.address}", registry.push, tmp_path / "state", flow)


class TestV2SourceOnARegistryThatDoesEverythingRight(OnFake):
    pass


class TestV2SourceOnARegistryThatListsReferrersInPagesAndForgetsTheFilter(OnFake):
    switches: ClassVar = {"page_size": 7, "referrers_paging": Paging.ABSOLUTE, "referrers_filter": False}


class TestV2SourceOnARegistryThatKeepsNoReferrers(OnFake):
    switches: ClassVar = {"referrers_status": 404}
    keeps_referrers = False


class TestV2SourceOnARegistryThatLeadsElsewhereForReferrers(OnFake):
    switches: ClassVar = {"referrers_status": 303}
    keeps_referrers = False


class TestV2SourceOnARegistryThatGivesNoParts(OnFake):
    switches: ClassVar = {"ranges": False}


class TestV2SourceWithoutTagDeletion(OnFake):
    switches: ClassVar[dict[str, Any]] = {"tag_delete": TagDelete.DIGEST_INVALID, "tag_paging": Paging.WHOLE}


class TestV2SourceWhereTagDeletionIsUnsupported(OnFake):
    switches: ClassVar[dict[str, Any]] = {
        "tag_delete": TagDelete.UNSUPPORTED,
        "emptied_is_null": False,
        "framing": Framing.CHUNKED,
    }


class TestV2SourceWhereListingsAreCutWithoutALink(OnFake):
    many = 2100
    switches: ClassVar[dict[str, Any]] = {
        "tag_paging": Paging.CUT,
        "catalog_paging": Paging.WHOLE,
        "order": Order.RANDOM,
        "framing": Framing.CLOSE,
    }


class TestV2SourceWhereTagDeletionTakesSiblings(OnFake):
    keeps_untagged = False
    switches: ClassVar[dict[str, Any]] = {"tag_delete": TagDelete.TAKES_SIBLINGS}


class TestV2SourceWithTokens(OnFake):
    switches: ClassVar[dict[str, Any]] = {"auth": Auth.BEARER, "tag_delete": TagDelete.DIGEST_INVALID}


class TestV2SourceWithAPasswordWhereTheCatalogIsRefused(OnFake):
    switches: ClassVar[dict[str, Any]] = {
        "auth": Auth.BASIC,
        "catalog_status": 403,
        "redirect_blobs": "elsewhere",
        "prefix": "/hub",
    }


class OnDocker(SourceContract):
    """V2 on Docker's own registry."""

    capabilities = V2
    keeps_referrers = False


class TestV2SourceOnDockersRegistry(OnDocker):
    @pytest.fixture
    def harness(self, tmp_path: Path, docker_registry: Callable[..., DockerRegistry]) -> Harness:
        registry = docker_registry(catalog_max_entries=3)
        return V2Harness(f"http://{registry.address}", laid(registry), tmp_path / "state")


class TestV2SourceOnDockersRegistryWithTokensAndTls(OnDocker):
    @pytest.fixture
    def harness(
        self,
        tmp_path: Path,
        docker_registry: Callable[..., DockerRegistry],
        token_server: Callable[..., TokenServer],
        authority: CertificateAuthority,
    ) -> Harness:
        registry = docker_registry(htpasswd={"tester": "a-password"}, tls=authority.issue())
        return V2Harness(
            f"https://{registry.address}",
            laid(registry),
            tmp_path / "state",
            challenge_flow,
            authority.certificate,
        )


def laid(registry: DockerRegistry) -> Callable[[str, Sequence[str], Any], None]:
    """Put content where the registry keeps it: quick, and there whatever the registry allows."""
    return lambda repository, tags, what: registry.lay_image(repository, what, tags)


# ── Sources with a defect ────────────────────────────────────────────────────────────────────────


class Broken(MemorySource):
    """A MemorySource with one defect."""

    def __init__(self, defect: str) -> None:
        super().__init__(abilities=Abilities(tags_per_page=100, recovers=True))
        self.defect = defect
        self._first: dict[tuple[str, str], RawManifest] = {}

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        if self.defect == "an absent repository is empty" and repository not in self.content():
            yield TagPage([])
            return
        while self.defect == "a listing never ends":
            yield TagPage([])
        async for page in super().tags(repository):
            yield page
            if self.defect == "the first page is all":
                return
            if self.defect == "a listing asks about each tag":
                for name in page.names:
                    await super().manifest(repository, name)
            if self.defect == "pages overlap":
                yield TagPage(page.names[-1:])

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        if self.defect == "a file is read on the loop":
            Path(__file__).read_bytes()  # noqa: ASYNC240  the defect
        if self.defect == "an absent manifest is another's error" and "absent" in repository:
            raise KeyError(repository)
        try:
            found = await super().manifest(repository, reference)
        except NotFound as error:
            if self.defect == "what is absent is not said of a registry":
                error.registry = ""
            raise
        if self.defect == "a manifest has another's digest":
            return RawManifest(found.raw, found.media_type, Digest("sha256", "2" * 64))
        if self.defect == "manifests are cached":
            return self._first.setdefault((repository, str(reference)), found)
        if self.defect == "manifests are written anew":
            return RawManifest(found.raw + b"\n", found.media_type, found.claimed)
        return found

    def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        if self.defect == "a range has one byte more" and end is not None:
            end = min(end + 1, descriptor.size)
        if self.defect == "large content is parsed on the loop":
            data = self._repositories[repository].blobs.get(descriptor.digest, b"")
            json.loads(json.dumps(base64.b64encode(data).decode()))
        if self.defect == "an absent blob is empty":
            return self._never_absent(repository, descriptor, start, end)
        return super().blob(repository, descriptor, start, end)

    @asynccontextmanager
    async def _never_absent(
        self, repository: str, descriptor: Descriptor, start: int, end: int | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async def nothing() -> AsyncIterator[bytes]:
            if False:  # an iterator without an item
                yield b""

        try:
            async with super().blob(repository, descriptor, start, end) as pieces:
                yield pieces
        except NotFound:
            yield nothing()

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        if self.defect == "a capability is missing" and kind is ResolvesTags:
            return None
        if self.defect == "a capability is handed out that is not declared" and kind is DatesTags:
            return Dates()  # type: ignore[return-value]
        if self.defect == "anything is handed out":
            return super().capability(kind, repository) or self  # type: ignore[return-value]
        if kind is DeletesTags and self.defect.startswith("deletion"):
            return BrokenDeletion(self)  # type: ignore[return-value]
        return super().capability(kind, repository)


class Dates:
    """A capability that nobody declared."""

    cost = Cost.ABSENT


class BrokenDeletion:
    """A deletion that takes too much, or takes what was not meant."""

    def __init__(self, source: Broken) -> None:
        self._source = source
        proper = MemorySource.capability(source, DeletesTags)
        assert proper is not None
        self._proper = proper
        self.can_delete = proper.can_delete

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        match self._source.defect:
            case "deletion takes siblings":
                done = await self._proper.delete_tag(repository, tag, seen)
                for sibling in list(self._source.content()[repository]):
                    self._source.remove_tag(repository, sibling)
                return done
            case "deletion takes the digest":
                digest = self._source.content().get(repository, {}).get(tag)
                done = await self._proper.delete_tag(repository, tag, seen)
                home = self._source._repositories[repository]
                if digest is not None and digest not in home.tags.values():
                    del home.manifests[digest]
                return done
            case "deletion takes a tag that moved":
                return await self._proper.delete_tag(repository, tag, None)
            case _:
                return Deletion("nothing was done")


DEFECTS = {
    "an absent repository is empty": "test_an_absent_repository_has_no_tags_to_list",
    "the first page is all": "test_many_tags_come_once_each_and_come_to_an_end",
    "pages overlap": "test_many_tags_come_once_each_and_come_to_an_end",
    "a listing never ends": "test_many_tags_come_once_each_and_come_to_an_end",
    "a listing asks about each tag": "test_a_listing_costs_no_request_a_tag",
    "manifests are cached": "test_a_tag_that_moves_is_seen_at_its_new_place",
    "manifests are written anew": "test_a_manifest_is_given_byte_by_byte_by_tag_and_by_digest",
    "a manifest has another's digest": "test_a_manifest_is_given_byte_by_byte_by_tag_and_by_digest",
    "what is absent is not said of a registry": "test_absent_manifests_are_not_found",
    "an absent manifest is another's error": "test_absent_manifests_are_not_found",
    "a range has one byte more": "test_a_blob_is_given_whole_and_in_ranges",
    "an absent blob is empty": "test_an_absent_blob_is_not_found_on_entering",
    "a file is read on the loop": "test_the_loop_is_blocked_neither_by_files_nor_by_large_content",
    "large content is parsed on the loop": "test_the_loop_is_blocked_neither_by_files_nor_by_large_content",
    "a capability is missing": "test_the_capabilities_are_those_declared",
    "a capability is handed out that is not declared": "test_the_capabilities_are_those_declared",
    "anything is handed out": "test_the_capabilities_are_those_declared",
    "deletion takes siblings": "test_deleting_a_tag_spares_its_siblings_and_its_digest",
    "deletion takes the digest": "test_deleting_the_last_tag_spares_the_digest_where_the_registry_does",
    "deletion takes a tag that moved": "test_a_tag_that_moved_meanwhile_is_left_alone",
    "deletion does nothing": "test_deleting_a_tag_spares_its_siblings_and_its_digest",
}
"""Each defect, and the test of the suite that has to fail for it."""


class Declared(SourceContract):
    capabilities = Broken("no defect").capabilities


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_suite_finds_the_defect(defect: str) -> None:
    assert DEFECTS[defect] in failures(lambda: MemoryHarness(Broken(defect)))


def test_the_suite_finds_nothing_where_nothing_is_wrong() -> None:
    assert failures(lambda: MemoryHarness(Broken("no defect"))) == []


def test_the_suite_finds_a_source_that_never_says_whether_it_gives_parts() -> None:
    class Ranges(SourceContract):
        capabilities = (HonoursRanges,)

    harness = MemoryHarness(MemorySource(abilities=Abilities(honours_ranges=Answer.UNKNOWN)))
    with pytest.raises(AssertionError):
        Ranges().test_whether_a_part_comes_by_itself_is_known_once_one_was_asked_for(harness)


class Untouchable:
    """A harness that has nothing that anybody could use."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a capability that nobody declared wants {name!r} of the harness")


def test_a_capability_that_is_not_declared_wants_nothing_of_a_harness() -> None:
    """So a Source's suite stays green when a later kit brings tests of a capability that it does not have."""

    class Nothing(SourceContract):
        pass

    suite: Any = Nothing()
    tests = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
    of_capabilities = [test for test in tests if hasattr(test, "about")]
    assert {test.about for test in of_capabilities} == set(KINDS)
    required = {name for name in vars(SourceContract) if name.startswith("test_")}
    assert {test.__name__ for test in tests if test not in of_capabilities} == required | {
        "test_the_capabilities_are_those_declared"
    }
    for test in of_capabilities:
        test(Untouchable(), *([make_image()] if "what" in inspect.signature(test).parameters else []))


def failures(harness: Callable[[], Harness]) -> list[str]:
    """The tests of the suite that fail on a harness."""
    failed = []
    for name in dir(Declared):
        if name.startswith("test_"):
            test = getattr(Declared(), name)
            marks = {mark.name: mark for mark in getattr(test, "pytestmark", [])}
            sets = marks["parametrize"].args[1] if "parametrize" in marks else [None]
            for argument in sets:
                try:
                    test(harness(), *([] if argument is None else [argument]))
                except (Exception, pytest.fail.Exception):
                    failed.append(name)
    return failed
