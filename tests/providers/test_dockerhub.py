"""Docker Hub without a mount: what the Source says, and what it asks for that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
import trio

from regfs import plugins
from regfs.connection import Connection
from regfs.errors import (
    ConfigError,
    Forbidden,
    ListingRefused,
    Moved,
    NotFound,
    NotSignedIn,
    PagingLoop,
    RateLimited,
    Refused,
    ServerFailed,
)
from regfs.opening import open_registries
from regfs.ports import (
    Answer,
    Cost,
    Credential,
    CredentialKind,
    DatesTags,
    DeletesTags,
    HttpPolicy,
    ListsNamespaces,
    ListsReferrers,
    ListsRepositories,
    Metered,
    NamespacePage,
    Recovers,
    ResolvesTags,
    Source,
    TagPage,
)
from regfs.providers.dockerhub import DockerHubProvider
from regfs.providers.dockerhub_pulls import quota_of
from regfs.reference import fallback_tag
from regfs.testing.contract import Harness, SourceContract
from regfs.testing.images import Pushable, make_artifact, make_image, make_referrers_index
from tests.support.fake_hub import FakeHub, Secret

T = TypeVar("T")


class Keychain:
    """Holds one credential, which a test may change."""

    def __init__(self, secret: Secret | None) -> None:
        self.secret = secret
        self.kind = CredentialKind.PASSWORD

    async def get(self, connection: Connection) -> Credential | None:
        assert connection.address == "docker.io", "credentials are looked for under Docker Hub's own name"
        if self.secret is None:
            return None
        return Credential(self.secret.owner, self.secret.value, self.kind)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def connected(hub: FakeHub, **more: object) -> Connection:
    options = tuple(sorted(hub.options.items()))
    return replace(Connection("hub", "docker.io", "dockerhub", options=options), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(
    hub: FakeHub, secret: Secret | Keychain | None = None, *, read_only: bool = False, **more: object
) -> AsyncIterator[Source]:
    keychain = secret if isinstance(secret, Keychain) else Keychain(secret)
    policy = HttpPolicy("regfs-tests", read_only=read_only, call_deadline=10, retries=1)
    (source,) = (
        await open_registries(connected(hub, **more), keychain, policy, Path("/nonexistent"))
    ).values()
    try:
        yield source
    finally:
        await source.aclose()


def run(body: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        with trio.fail_after(60):
            return await body()

    return trio.run(main)


def with_source(
    body: Callable[[Source], Awaitable[T]],
    hub: FakeHub,
    secret: Secret | Keychain | None = None,
    **more: object,
) -> T:
    async def main() -> T:
        async with opened(hub, secret, **more) as source:  # type: ignore[arg-type]
            return await body(source)

    return run(main)


async def looked_into(source: Source, namespace: str) -> NamespacePage:
    lister = source.capability(ListsNamespaces)
    assert lister is not None
    pages = [page async for page in lister.namespace(namespace)]
    return NamespacePage(
        [name for page in pages for name in page.namespaces],
        [name for page in pages for name in page.repositories],
        next((page.partial for page in pages if page.partial), ""),
    )


async def tag_pages(source: Source, repository: str) -> list[TagPage]:
    return [page async for page in source.tags(repository)]


class HubHarness:
    """A Source for somebody who may do everything in two namespaces."""

    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub
        self._secret = hub.sign_up("team", orgs=("other",))

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        self._hub.push(repository, tags, what)

    def open(self) -> AbstractAsyncContextManager[Source]:
        return opened(self._hub, self._secret)


class TestContract(SourceContract):
    capabilities: ClassVar = DockerHubProvider.capabilities
    keeps_referrers: ClassVar = False
    nested_names: ClassVar = ("app", "tool")

    @pytest.fixture
    def harness(self, hub: FakeHub) -> Harness:
        return HubHarness(hub)


# ── addresses ──


@pytest.mark.parametrize(
    ("written", "inside"),
    [
        ("docker.io", ""),
        ("https://index.docker.io/v1/", ""),
        ("registry-1.docker.io:443/team/app", "team/app"),
        ("Docker.IO/alpine", "alpine"),
        ("hub.docker.com", ""),
        ("https://hub.docker.com/_/alpine", "library/alpine"),
        ("https://hub.docker.com/r/team/app/tags", "team/app"),
    ],
)
def test_all_of_its_names_are_one_registry(written: str, inside: str) -> None:
    name, claim = plugins.claims(written)
    assert (name, claim.address, claim.rest, claim.confidence) == ("dockerhub", "docker.io", inside, 100)


@pytest.mark.parametrize(
    "written", ["docker.io.example.com", "mydocker.io", "localhost:5000", "docker.io:5000"]
)
def test_other_hosts_are_left_to_other_providers(written: str) -> None:
    assert plugins.provider("dockerhub").claim(written) is None


def test_opening_asks_nothing_and_an_unknown_option_is_named(hub: FakeHub) -> None:
    async def body(source: Source) -> None:
        assert source.name == "docker.io"

    with_source(body, hub)
    assert hub.records == hub.registry.records == []
    with pytest.raises(ConfigError, match="api, registry, and not apis"):
        with_source(body, hub, options=(("apis", "x"),))
    with pytest.raises(ConfigError, match="only"):
        with_source(body, hub, address="docker.io/team")


# ── namespaces ──


def test_the_account_its_organisations_the_library_and_those_configured_are_shown(hub: FakeHub) -> None:
    secret = hub.sign_up("alice", orgs=("acme", "umbrella"))

    async def body(source: Source) -> NamespacePage:
        return await looked_into(source, "")

    page = with_source(body, hub, secret, namespaces=("bitnami",))
    assert page.namespaces == ["library", "bitnami", "alice", "acme", "umbrella"]
    assert page.partial == ""
    assert hub.sign_ins == [("alice", 200)], "one sign-in serves both questions"


@pytest.mark.parametrize(
    ("failing", "lacking"), [("orgs", "its organisations"), ("namespaces", "can push to")]
)
def test_where_one_of_the_two_lists_is_forbidden_the_other_serves_and_it_is_said(
    hub: FakeHub, failing: str, lacking: str
) -> None:
    secret = hub.sign_up("alice", orgs=("acme",))
    hub.failing[failing] = 403

    async def body(source: Source) -> NamespacePage:
        return await looked_into(source, "")

    page = with_source(body, hub, secret)
    assert page.namespaces == ["library", "alice", "acme"]
    assert lacking in page.partial


def test_nobody_sees_the_library_and_what_is_configured_and_asks_no_api(hub: FakeHub) -> None:
    async def body(source: Source) -> NamespacePage:
        return await looked_into(source, "")

    assert with_source(body, hub, namespaces=("bitnami",)).namespaces == ["library", "bitnami"]
    assert hub.records == []


def test_an_organisations_token_shows_that_organisation(hub: FakeHub) -> None:
    hub.push("acme/app", ["v1"])
    hub.private.add("acme/app")
    secret = hub.give("acme", "dckr_oat_x")
    hub.orgs["alice"] = ("acme",)

    async def body(source: Source) -> None:
        assert await looked_into(source, "") == NamespacePage(["library", "acme"], [], "")
        assert hub.asked() == [], "there is no other organisation to ask for"
        assert (await looked_into(source, "acme")).repositories == ["acme/app"]
        assert (await source.manifest("acme/app", "v1")).raw

    with_source(body, hub, secret)
    assert set(hub.sign_ins) == {("acme", 200)}


def test_a_namespace_pages_to_its_end_and_asks_of_no_other(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.per_page = 7
    for number in range(30):
        hub.push(f"alice/r{number:02}", ["v1"])
    hub.push("other/app", ["v1"])

    async def body(source: Source) -> NamespacePage:
        return await looked_into(source, "alice")

    assert sorted(with_source(body, hub, secret).repositories) == [f"alice/r{n:02}" for n in range(30)]
    assert set(hub.asked()) == {"GET /v2/namespaces/alice/repositories"}
    assert len(hub.asked()) == 5


def test_a_namespace_is_refused_beside_one_that_is_not(hub: FakeHub) -> None:
    secret = hub.sign_up("alice", orgs=("acme",))
    hub.push("alice/app", ["v1"])
    hub.push("acme/app", ["v1"])
    hub.forbidden.add("acme")

    async def body(source: Source) -> None:
        with pytest.raises(ListingRefused, match="acme"):
            await looked_into(source, "acme")
        assert (await looked_into(source, "alice")).repositories == ["alice/app"]

    with_source(body, hub, secret)


def test_what_is_in_no_namespace_is_not_found_and_an_empty_one_of_yours_is_empty(hub: FakeHub) -> None:
    secret = hub.sign_up("alice", orgs=("acme",))
    hub.push("alice/app", ["v1"])

    async def body(source: Source) -> None:
        for name in ("nosuch", "alice/app"):
            with pytest.raises(NotFound):
                await looked_into(source, name)
        assert (await looked_into(source, "acme")) == NamespacePage([], [], "")

    with_source(body, hub, secret)


def test_pages_that_never_end_are_noticed(hub: FakeHub) -> None:
    hub.push("team/app", ["v1"])
    hub.endless = True

    async def body(source: Source) -> None:
        with pytest.raises(PagingLoop):
            await tag_pages(source, "team/app")
        with pytest.raises(PagingLoop):
            await looked_into(source, "team")

    with_source(body, hub)
    assert len(hub.asked()) < 30


# ── short names ──


def test_a_name_alone_is_the_official_image_and_may_be_a_namespace_too(hub: FakeHub) -> None:
    image = hub.push("library/alpine", ["latest", "3"])
    hub.push("alpine/git", ["v2"])

    async def body(source: Source) -> None:
        assert (await source.manifest("alpine", "latest")).raw == image.manifest.raw
        assert {name for page in await tag_pages(source, "alpine") for name in page.names} == {"latest", "3"}
        assert sorted((await looked_into(source, "alpine")).repositories) == ["alpine", "alpine/git"]
        assert (await source.manifest("alpine/git", "v2")).raw

    with_source(body, hub)


def test_an_official_image_needs_no_namespace_of_its_name(hub: FakeHub) -> None:
    hub.push("library/alpine", ["latest"])

    async def body(source: Source) -> NamespacePage:
        return await looked_into(source, "alpine")

    assert with_source(body, hub).repositories == ["alpine"]


def test_a_namespace_of_yours_is_never_taken_for_an_official_image(hub: FakeHub) -> None:
    secret = hub.sign_up("redis")
    for repository in ("library/redis", "redis/stack", "library/mine"):
        hub.push(repository, ["latest"])

    async def body(source: Source) -> None:
        for name in ("redis", "mine", "library"):
            with pytest.raises(NotFound):
                await tag_pages(source, name)
            with pytest.raises(NotFound):
                await source.manifest(name, "latest")
        assert (await looked_into(source, "redis")).repositories == ["redis/stack"]

    with_source(body, hub, secret, namespaces=("mine",))
    assert hub.pulls == 0


def test_names_that_docker_hub_cannot_hold_are_never_asked_for(hub: FakeHub) -> None:
    async def body(source: Source) -> None:
        for name in ("a/b/c", "library", "A/b"):
            with pytest.raises(NotFound):
                await source.manifest(name, "v1")
            with pytest.raises(NotFound):
                await tag_pages(source, name)

    with_source(body, hub)
    assert hub.records == hub.registry.records == []


# ── tags ──


def test_tags_come_with_dates_and_digests_in_the_apis_order(hub: FakeHub) -> None:
    hub.per_page = 2
    images = {tag: hub.push("team/app", [tag], make_image(tag)) for tag in ("v1", "v2", "v3")}

    async def body(source: Source) -> None:
        dates = source.capability(DatesTags)
        assert dates is not None
        assert dates.cost is Cost.FREE
        pages = await tag_pages(source, "team/app")
        assert [list(page.names) for page in pages] == [["v3", "v2"], ["v1"]]
        facts = {name: fact for page in pages for name, fact in page.facts.items()}
        assert {name: fact.digest for name, fact in facts.items()} == {n: i.digest for n, i in images.items()}
        times = [facts[name].created for name in ("v1", "v2", "v3")]
        assert times == sorted(times, key=str)
        assert None not in times

    with_source(body, hub)
    assert hub.registry.requests == []
    assert hub.pulls == 0


def test_where_the_api_refuses_the_registry_lists_the_tags_without_dates(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1", "v2"])
    hub.failing["tags"] = 403

    async def body(source: Source) -> list[TagPage]:
        return await tag_pages(source, "alice/app")

    pages = with_source(body, hub, secret)
    assert [name for page in pages for name in page.names] == ["v1", "v2"]
    assert all(not page.facts for page in pages)


def test_an_absent_repository_is_not_found_whoever_asks(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")

    async def body(source: Source) -> None:
        with pytest.raises(NotFound):
            await tag_pages(source, "team/nosuch")

    with_source(body, hub)
    assert hub.registry.requests == [], "nobody sees more in the registry than in the API"
    with_source(body, hub, secret)


def test_an_api_that_fails_is_no_empty_repository(hub: FakeHub) -> None:
    hub.push("team/app", ["v1"])
    hub.failing["tags"] = 503

    async def body(source: Source) -> None:
        with pytest.raises(ServerFailed) as caught:
            await tag_pages(source, "team/app")
        assert caught.value.registry == "docker.io", "what to do about it names what was signed in to"
        with pytest.raises(NotFound) as absent:
            await source.manifest("team/app", "nosuch")
        assert absent.value.registry == "docker.io"

    with_source(body, hub)


# ── signing in ──


def test_one_token_of_the_api_is_fetched_for_all_who_wait_and_again_once_it_ended(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])
    hub.private.add("alice/app")

    async def body(source: Source) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(tag_pages, source, "alice/app")
        assert hub.sign_ins == [("alice", 200)]
        hub.expire_tokens()
        await tag_pages(source, "alice/app")
        assert hub.sign_ins == [("alice", 200)] * 2

    with_source(body, hub, secret)


def test_a_token_is_not_used_beyond_its_ten_minutes(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])
    hub.token_lifetime = 600

    async def body(source: Source) -> None:
        await tag_pages(source, "alice/app")
        now = trio.current_time
        monkeypatch.setattr("regfs.auth.tokencache.trio.current_time", lambda: now() + 595)
        await tag_pages(source, "alice/app")

    with_source(body, hub, secret)
    assert hub.sign_ins == [("alice", 200)] * 2
    assert not [record for record in hub.records if record.status == 401]


def test_a_password_that_the_api_refuses_still_reads_and_the_folder_says_what_is_missing(
    hub: FakeHub,
) -> None:
    secret = hub.sign_up("alice", on_api=False)
    hub.push("alice/open", ["v1"])
    hub.push("alice/app", ["v1"])
    hub.private.add("alice/app")

    async def body(source: Source) -> None:
        first = await looked_into(source, "")
        assert first.namespaces == ["library", "alice"]
        assert "personal access token" in first.partial
        page = await looked_into(source, "alice")
        assert page.repositories == ["alice/open"]
        assert "does not take this sign-in" in page.partial
        assert [list(p.names) for p in await tag_pages(source, "alice/app")] == [["v1"]]
        assert (await source.manifest("alice/app", "v1")).raw
        deleter = source.capability(DeletesTags, "alice/app")
        assert deleter is not None
        with pytest.raises(NotSignedIn, match="personal access token"):
            await deleter.delete_tag("alice/app", "v1", None)

    with_source(body, hub, secret)
    assert hub.sign_ins == [("alice", 401)], "a refused password is not sent again and again"
    assert "v1" in hub.registry.content()["alice/app"]


def test_an_identity_token_reads_and_is_never_sent_to_the_api(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])
    keychain = Keychain(secret)
    keychain.kind = CredentialKind.IDENTITY_TOKEN

    async def body(source: Source) -> NamespacePage:
        return await looked_into(source, "alice")

    page = with_source(body, hub, keychain)
    assert page.repositories == ["alice/app"]
    assert "identity token" in page.partial
    assert hub.sign_ins == []


def test_a_revoked_credential_names_the_way_back_and_a_new_one_is_taken_up(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])
    hub.private.add("alice/app")
    keychain = Keychain(secret)

    async def body(source: Source) -> None:
        await tag_pages(source, "alice/app")
        await source.manifest("alice/app", "v1")
        hub.revoke(secret)
        for question in (source.manifest("alice/app", "v1"), tag_pages(source, "alice/app")):
            with pytest.raises(NotSignedIn) as caught:
                await question
            assert caught.value.registry == "docker.io"
            assert secret.value not in str(caught.value) + repr(caught.value)

    with_source(body, hub, keychain)
    keychain.secret = hub.give("alice", "dckr_pat_new", "repo:read")
    with_source(lambda source: tag_pages(source, "alice/app"), hub, keychain)


def test_credentials_go_to_the_hosts_of_the_connection_alone(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])
    with FakeHub() as other:
        other.push("alice/app", ["v1"])
        hub.failing["tags"] = 302

        async def body(source: Source) -> None:
            await source.check()
            assert (await source.manifest("alice/app", "v1")).raw

        with_source(body, hub, secret)
        assert other.records == other.registry.records == []
    kinds = {(r.listener, r.headers.get("authorization", "").partition(" ")[0]) for r in hub.registry.records}
    assert kinds <= {("registry", ""), ("registry", "Bearer"), ("token", "Basic")}


def test_who_signs_in_as_nobody_still_reads_what_is_public(hub: FakeHub) -> None:
    hub.push("library/alpine", ["latest"])
    secret = hub.sign_up("alice")

    async def body(source: Source) -> None:
        assert (await source.manifest("library/alpine", "latest")).raw
        assert [list(page.names) for page in await tag_pages(source, "library/alpine")] == [["latest"]]

    with_source(body, hub, secret, auth="anonymous")
    assert hub.sign_ins == []
    assert {issue.kind for issue in hub.registry.token_requests} == {"anonymous"}


# ── pulls ──


def test_the_headers_of_the_pull_limit_are_read() -> None:
    assert quota_of({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "95;w=21600"}) == {
        "limit": 100,
        "remaining": 95,
        "window": 21600,
    }
    assert quota_of({"ratelimit-limit": "many", "ratelimit-remaining": "-1"}) == {}
    assert quota_of({}) == {}


def test_resolving_is_no_pull_and_says_what_is_left(hub: FakeHub) -> None:
    hub.push("team/app", ["v1"])
    hub.limit = 100

    async def body(source: Source) -> None:
        meter, resolver = source.capability(Metered), source.capability(ResolvesTags)
        assert meter is not None
        assert resolver is not None
        assert meter.quota() == {}
        await resolver.resolve("team/app", "v1")
        assert meter.quota() == {"limit": 100, "remaining": 100, "window": 21600}
        await source.manifest("team/app", "v1")
        assert meter.quota()["remaining"] == 99

    with_source(body, hub)


def test_asking_what_refers_to_an_image_is_no_pull_where_nothing_does(hub: FakeHub) -> None:
    image = make_image("subject")
    sbom = make_artifact("application/spdx+json", subject=image.manifest)
    hub.push("library/alpine", ["3"], image)
    hub.push("library/alpine", [fallback_tag(image.digest)], make_referrers_index([sbom]))

    async def body(source: Source) -> None:
        lister = source.capability(ListsReferrers)
        assert lister is not None
        none = [d async for page in lister.referrers("alpine", sbom.digest) for d in page.referrers]
        assert (none, hub.pulls) == ([], 0)
        found = [d async for page in lister.referrers("alpine", image.digest) for d in page.referrers]
        assert ([d.digest for d in found], hub.pulls) == ([sbom.digest], 1)
        with pytest.raises(NotFound) as caught:
            await source.manifest("alpine", "absent")
        assert caught.value.registry == "docker.io"

    with_source(body, hub)


def test_a_spent_limit_says_what_is_left_and_when_and_is_not_run_against(hub: FakeHub) -> None:
    hub.push("team/app", ["v1"])
    hub.limit = 1

    async def body(source: Source) -> None:
        await source.manifest("team/app", "v1")
        hub.registry.forget()
        with pytest.raises(
            RateLimited, match=r"0 of 1 in 6 hours; there are more in at most 6 hours"
        ) as caught:
            await source.manifest("team/app", "v1")
        assert caught.value.retry_after == 21600
        assert caught.value.registry == "docker.io"
        meter = source.capability(Metered)
        assert meter is not None
        assert meter.quota() == {"limit": 1, "remaining": 0, "window": 21600}

    with_source(body, hub)
    assert len(hub.registry.manifest_requests()) == 1


def test_another_429_is_waited_out_as_with_any_registry(hub: FakeHub) -> None:
    hub.push("team/app", ["v1"])
    hub.registry.fail(429, "manifest", times=1, retry_after=0)

    async def body(source: Source) -> None:
        assert (await source.manifest("team/app", "v1")).raw

    with_source(body, hub)


def test_the_apis_own_limit_says_when_it_ends(hub: FakeHub) -> None:
    hub.push("team/app", ["v1"])
    hub.api_left = 0

    async def body(source: Source) -> None:
        with pytest.raises(RateLimited) as caught:
            await tag_pages(source, "team/app")
        assert caught.value.retry_after == pytest.approx(3600, abs=30)
        assert (await source.manifest("team/app", "v1")).raw, "the registry is not concerned"

    with_source(body, hub)
    assert len(hub.asked()) == 1


# ── deleting ──


async def delete(source: Source, repository: str, tag: str, **seen: object) -> None:
    deleter = source.capability(DeletesTags, repository)
    assert deleter is not None
    assert deleter.can_delete() is Answer.UNKNOWN
    await deleter.delete_tag(repository, tag, seen.get("seen"))  # type: ignore[arg-type]
    assert deleter.can_delete() is Answer.YES


def test_one_tag_is_deleted_by_the_api_and_nothing_by_the_registry(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    image = hub.push("alice/app", ["v1", "v2"])

    async def body(source: Source) -> None:
        await delete(source, "alice/app", "v1", seen=image.digest)
        assert (await source.manifest("alice/app", "v2")).raw == image.manifest.raw
        assert (await source.manifest("alice/app", image.digest)).raw == image.manifest.raw

    with_source(body, hub, secret)
    assert hub.registry.writes() == []
    assert "DELETE /v2/repositories/alice/app/tags/v1/" in hub.asked()
    assert hub.asked()[-1] == "HEAD /v2/namespaces/alice/repositories/app/tags/v1", "it is confirmed"


@pytest.mark.parametrize(
    ("value", "scope", "owner", "lacking"),
    [
        ("dckr_pat_x", "repo:read", "alice", "Read, Write, Delete"),
        ("dckr_oat_x", "repo:read", "acme", "organisation access token must be of acme"),
        ("a-password", "repo:admin", "bob", "administer"),
    ],
)
def test_what_a_token_lacks_is_said(hub: FakeHub, value: str, scope: str, owner: str, lacking: str) -> None:
    hub.sign_up("alice", "other", orgs=("acme",))
    hub.push("acme/app", ["v1"])
    secret = hub.give(owner, value, scope)

    async def body(source: Source) -> None:
        with pytest.raises(Forbidden, match=lacking) as caught:
            await delete(source, "acme/app", "v1")
        assert value not in str(caught.value)

    with_source(body, hub, secret)
    assert "v1" in hub.registry.content()["acme/app"]


def test_nobody_deletes_and_nothing_is_sent(hub: FakeHub) -> None:
    hub.push("team/app", ["v1"])

    async def body(source: Source) -> None:
        deleter = source.capability(DeletesTags, "team/app")
        assert deleter is not None
        with pytest.raises(NotSignedIn):
            await deleter.delete_tag("team/app", "v1", None)

    with_source(body, hub)
    assert hub.asked() == []


def test_a_moved_or_absent_tag_is_left_alone(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])

    async def body(source: Source) -> None:
        with pytest.raises(Moved):
            await delete(source, "alice/app", "v1", seen=make_image("another").digest)
        with pytest.raises(NotFound):
            await delete(source, "alice/app", "nosuch")

    with_source(body, hub, secret)
    assert hub.asked() == []


def test_a_deletion_that_did_not_happen_is_not_believed(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])
    hub.sticky = True

    async def body(source: Source) -> None:
        with pytest.raises(Refused, match="still has it"):
            await delete(source, "alice/app", "v1")

    with_source(body, hub, secret)


def test_an_api_that_fails_amid_a_deletion_is_asked_whether_it_was_done(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])
    hub.failing["deletion"] = 502

    async def body(source: Source) -> None:
        with pytest.raises(ServerFailed):
            await delete(source, "alice/app", "v1")

    with_source(body, hub, secret)
    assert [line for line in hub.asked() if line.startswith("DELETE")] == [
        "DELETE /v2/repositories/alice/app/tags/v1/"
    ]
    assert [line for line in hub.asked() if line.startswith("HEAD")]


def test_a_read_only_source_signs_in_lists_and_hands_out_nothing_that_writes(hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    hub.push("alice/app", ["v1"])

    async def body(source: Source) -> None:
        assert (await looked_into(source, "alice")).repositories == ["alice/app"]
        for kind in (DeletesTags, Recovers, ListsRepositories):
            assert source.capability(kind, "alice/app") is None

    with_source(body, hub, secret, read_only=True)
    assert hub.sign_ins == [("alice", 200)]
