"""GitHub's container registry: what its provider shows, by the API and the registry together."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from regfs import plugins
from regfs.connection import Connection
from regfs.errors import (
    ConfigError,
    ListingRefused,
    NotFound,
    NotSignedIn,
    RateLimited,
)
from regfs.ports import (
    DatesTags,
    ListsNamespaces,
    ListsRepositories,
    OffersOAuth,
    RecognisesReplies,
    Source,
)
from regfs.providers.ghcr import GhcrProvider, places
from regfs.testing.behaviour import Auth
from regfs.testing.images import make_image, make_index
from tests.support.fake_ghcr import GitHub, Token
from tests.support.fake_github import FakeGitHub
from tests.support.ghcr_source import APP, Setting, scopes

# ── which hosts ──────────────────────────────────────────────────────────────────────────────────


def test_ghcr_io_is_claimed_for_certain_and_the_registry_before_it_is_not() -> None:
    for mine in ("ghcr.io", "https://GHCR.io/", "ghcr.io/octo-org", "containers.octo.ghe.com"):
        name, claim = plugins.claims(mine)
        assert (name, claim.confidence) == ("ghcr", 100), mine
        assert claim.reason
    for other in ("docker.pkg.github.com", "localhost:5000", "notghcr.io", "containers.example.com"):
        assert plugins.claims(other)[0] == "generic", other
    assert GhcrProvider().claim("docker.pkg.github.com") is None
    assert GhcrProvider().claim("oci:/x") is None


def test_an_owner_typed_as_the_website_spells_it_is_found() -> None:
    claim = plugins.claims("ghcr.io/Octo-Org/app/V1.0-RC")[1]
    assert (claim.address, claim.rest) == ("ghcr.io", "octo-org/app/V1.0-RC")


def test_an_enterprise_server_is_recognised_by_its_answer_where_its_api_is_known() -> None:
    provider = GhcrProvider()
    assert isinstance(provider, RecognisesReplies)
    github = {"x-github-request-id": "0000:1111:2222"}
    claim = provider.recognise("containers.git.corp.example", 401, github)
    assert claim is not None
    assert 10 < claim.confidence < 100
    assert provider.recognise("containers.git.corp.example", 401, {}) is None
    assert provider.recognise("containers.git.corp.example", 502, github) is None
    assert provider.recognise("registry.corp.example", 401, github) is None


@pytest.mark.parametrize(
    ("address", "options", "api", "host"),
    [
        ("ghcr.io", {}, "https://api.github.com", "github.com"),
        ("containers.octo.ghe.com", {}, "https://api.octo.ghe.com", "octo.ghe.com"),
        ("containers.git.corp.example", {}, "https://git.corp.example/api/v3", "git.corp.example"),
        ("reg.corp", {"api": "https://git.corp/api/v3/"}, "https://git.corp/api/v3", "git.corp"),
        ("reg.corp", {"api": "https://a.corp", "web": "https://git.corp"}, "https://a.corp", "git.corp"),
    ],
)
def test_where_the_api_is_follows_from_the_address_or_is_said(
    address: str, options: dict[str, str], api: str, host: str
) -> None:
    found = places(Connection("r", address, "ghcr", options=tuple(options.items())))
    assert (found.api, found.host) == (api, host)


def test_an_address_that_does_not_say_where_its_api_is_names_the_option() -> None:
    with pytest.raises(ConfigError, match="api = "):
        places(Connection("r", "registry.corp.example", "ghcr"))
    with pytest.raises(ConfigError, match="https://"):
        places(Connection("r", "ghcr.io", "ghcr", options=(("api", "git.corp.example"),)))


def test_oauth_is_offered_with_the_scopes_that_reading_and_deleting_take() -> None:
    provider = GhcrProvider()
    assert isinstance(provider, OffersOAuth)
    server = provider.oauth(Connection("r", "ghcr.io", "ghcr"))
    assert server.device_endpoint == "https://github.com/login/device/code"
    assert server.token_endpoint == "https://github.com/login/oauth/access_token"
    assert server.authorization_endpoint == "https://github.com/login/oauth/authorize"
    assert {"read:packages", "write:packages", "delete:packages"} <= set(server.scopes)
    assert server.username


def test_opening_a_connection_asks_nothing(fake: FakeGitHub, setting: Setting) -> None:
    async def nothing(source: Source) -> None:
        assert source.capability(ListsRepositories) is None
        assert source.capability(DatesTags) is not None

    setting.run(nothing)
    assert fake.calls == []
    assert fake.registry.records == []


# ── owners ───────────────────────────────────────────────────────────────────────────────────────


def test_the_root_is_the_user_the_organisations_and_the_configured_owners_in_lower_case(
    fake: FakeGitHub, setting: Setting
) -> None:
    setting.namespaces = ("Other",)
    assert setting.namespace() == (["octocat", "other", "octo-org"], [], "")
    assert sorted(fake.calls) == ["GET /user", "GET /user/orgs?per_page=100"]


def test_without_read_org_the_public_organisations_are_shown_and_it_is_said_what_is_missing(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.github.tokens["ghp_good"].scopes = scopes("read:packages")
    fake.github.public_members["Octo-Org"] = {"Octocat"}
    spaces, _, partial = setting.namespace()
    assert spaces == ["octocat", "octo-org"]
    assert "read:org" in partial
    assert "read:packages" in partial
    fake.github.public_members.clear()
    assert setting.namespace()[0] == ["octocat"]


def test_without_a_sign_in_the_configured_owners_are_shown(fake: FakeGitHub, setting: Setting) -> None:
    setting.token = None
    with pytest.raises(ListingRefused, match="signs in"):
        setting.namespace()
    setting.namespaces = ("octo-org",)
    spaces, _, partial = setting.namespace()
    assert spaces == ["octo-org"]
    assert "sign-in" in partial


def test_a_token_that_is_revoked_is_no_empty_root(fake: FakeGitHub, setting: Setting) -> None:
    fake.push(APP, ["v1"])
    fake.github.tokens["ghp_good"].revoked = True
    setting.namespaces = ("octo-org",)
    with pytest.raises(NotSignedIn) as caught:
        setting.namespace()
    assert "ghp_good" not in str(caught.value)
    with pytest.raises(NotSignedIn):
        setting.namespace("octo-org")


def test_a_workflows_token_shows_the_configured_owners_and_the_catalogs_packages(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.github.tokens["ghs_flow"] = Token("", None)
    setting.token = "ghs_flow"
    setting.namespaces = ("octo-org",)
    for name in ("octo-org-other/x", APP, "octo-org/deep/er", "zeta/last"):
        fake.push(name, ["v1"])
    assert setting.namespace()[0] == ["octo-org"]
    _, names, partial = setting.namespace("octo-org")
    assert names == [APP, "octo-org/deep/er"]
    assert "catalog" in partial


# ── packages ─────────────────────────────────────────────────────────────────────────────────────


def test_an_owners_packages_are_listed_page_by_page_with_all_that_lies_deeper(
    fake: FakeGitHub, setting: Setting
) -> None:
    names = [f"octo-org/app-{number}" for number in range(230)] + ["octo-org/group/sub/tool"]
    for name in names:
        fake.push(name, ["v1"])
    fake.push("octocat/own", ["v1"])
    assert sorted(setting.namespace("octo-org")[1]) == sorted(names)
    assert len(fake.calls) == 3
    assert setting.namespace("octo-org/group")[1] == ["octo-org/group/sub/tool"]
    assert setting.namespace("octocat")[1] == ["octocat/own"]


def test_looking_into_one_owner_asks_about_no_other(fake: FakeGitHub, setting: Setting) -> None:
    fake.push(APP, ["v1"])
    setting.namespace("octo-org")
    assert fake.calls == ["GET /orgs/octo-org/packages?package_type=container&per_page=100"]
    assert fake.registry.records == []


def test_what_is_not_there_is_not_found(fake: FakeGitHub, setting: Setting) -> None:
    fake.push(APP, ["v1"])
    for absent in ("nobody", "octo-org/absent", APP):
        with pytest.raises(NotFound):
            setting.namespace(absent)

    async def look(source: Source) -> None:
        lists = source.capability(ListsNamespaces)
        assert lists is not None
        with pytest.raises(NotFound):
            await anext(aiter(lists.namespace(APP)))

    setting.run(look)


def test_a_forbidden_owner_is_refused_and_the_one_beside_it_is_listed(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.github.organisations["Secret"] = {"Octocat"}
    fake.github.tokens["ghp_good"].forbidden = frozenset({"secret"})
    fake.push("secret/app", ["v1"])
    fake.push(APP, ["v1"])

    async def body(source: Source) -> None:
        lists = source.capability(ListsNamespaces)
        assert lists is not None
        with pytest.raises(ListingRefused, match="does not allow"):
            async for _ in lists.namespace("secret"):
                pass
        assert [page.repositories async for page in lists.namespace("octo-org")] == [[APP]]

    setting.run(body)
    assert fake.registry.count("catalog") == 0


def test_a_token_without_read_packages_is_told_which_scope_it_lacks(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.github.tokens["ghp_good"].scopes = scopes("repo")
    with pytest.raises(ListingRefused, match="read:packages") as caught:
        setting.namespace("octo-org")
    assert "repo" in str(caught.value)


def test_a_catalog_that_goes_on_with_empty_pages_for_ever_ends(fake: FakeGitHub, setting: Setting) -> None:
    setting.token = None
    fake.registry.behaviour.anonymous_tokens = True
    fake.registry.behaviour.auth = Auth.NONE
    for name in ("alpha/x", APP, "octo-org/tool"):
        fake.push(name, ["v1"])
    _, names, partial = setting.namespace("octo-org")
    assert names == [APP, "octo-org/tool"]
    assert "goes on and on" in partial
    assert fake.registry.count("catalog") <= 12
    fake.push("zeta/after", ["v1"])
    fake.registry.forget()
    assert setting.namespace("octo-org")[1] == [APP, "octo-org/tool"]
    assert fake.registry.count("catalog") == 1, "the prefix ends on the first page"


def test_a_catalog_that_has_nothing_of_an_owner_is_no_empty_folder(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.github.tokens["ghs_flow"] = Token("", None)
    setting.token = "ghs_flow"
    fake.push(APP, ["v1"])
    with pytest.raises(ListingRefused):
        setting.namespace("hidden")
    with pytest.raises(NotFound):
        setting.namespace(APP)


def test_a_catalog_that_is_refused_leaves_the_apis_own_reason(fake: FakeGitHub, setting: Setting) -> None:
    setting.token = None
    fake.registry.behaviour.catalog_status = 403
    with pytest.raises(ListingRefused, match="wants a sign-in"):
        setting.namespace("octo-org")


# ── the API's limits ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("secondary", [False, True])
def test_a_used_up_rate_limit_says_when_it_ends_and_is_not_asked_again_at_once(
    fake: FakeGitHub, setting: Setting, secondary: bool
) -> None:
    fake.limited_until, fake.secondary = time.time() + 1800, secondary
    with pytest.raises(RateLimited, match=r"until .* UTC") as caught:
        setting.namespace("octo-org")
    assert caught.value.retry_after == pytest.approx(1800, abs=5)
    assert len(fake.calls) == 1


def test_a_fine_grained_token_is_named_as_what_packages_do_not_take(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.github.tokens["github_pat_x"] = Token("Octocat", None)
    fake.push(APP, ["v1"])
    setting.token = "github_pat_x"
    with pytest.raises(ListingRefused, match=r"fine-grained.*classic"):
        setting.namespace("octo-org")

    async def read(source: Source) -> None:
        with pytest.raises(NotSignedIn, match=r"fine-grained.*classic"):
            await source.manifest(APP, "v1")

    setting.run(read)


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────


def test_tags_come_with_the_dates_and_digests_of_the_newest_versions_in_one_request(
    fake: FakeGitHub, setting: Setting
) -> None:
    old, new = make_image("old"), make_index(seed="new")
    fake.push(APP, ["v1"], old)
    fake.push(APP, ["v2", "latest"], new)

    async def body(source: Source) -> None:
        (page,) = [page async for page in source.tags(APP)]
        assert page.names == ["v1", "v2", "latest"]
        assert page.facts["v1"].digest == old.digest
        assert page.facts["latest"].digest == new.digest
        assert page.facts["latest"].created is not None
        assert page.facts["v1"].created is not None
        assert page.facts["v1"].created < page.facts["latest"].created

    setting.run(body)
    assert [call for call in fake.calls if "versions" in call] == [
        "GET /orgs/octo-org/packages/container/app/versions?per_page=100"
    ]


def test_tags_are_listed_all_the_same_where_the_api_refuses_their_dates(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.push(APP, ["v1"])
    fake.limited_until = time.time() + 1800

    async def body(source: Source) -> None:
        for _ in range(3):
            (page,) = [page async for page in source.tags(APP)]
            assert (page.names, dict(page.facts)) == (["v1"], {})

    setting.run(body)
    assert len(fake.calls) == 1, "the rate limit is known by then"


def test_a_registry_token_that_expired_is_replaced_without_a_word(fake: FakeGitHub, setting: Setting) -> None:
    image = fake.push(APP, ["v1"])

    async def body(source: Source) -> None:
        for _ in range(2):
            assert (await source.manifest(APP, "v1")).raw == image.manifest.raw
            fake.registry.sign_in.revoke_tokens()

    setting.run(body)
    assert fake.registry.tokens == 2


def test_public_images_are_read_without_a_sign_in(fake: FakeGitHub, setting: Setting) -> None:
    setting.token = None
    fake.registry.behaviour.anonymous_tokens = True
    image = fake.push(APP, ["v1"])

    async def body(source: Source) -> None:
        assert [page.names async for page in source.tags(APP)] == [["v1"]]
        assert (await source.manifest(APP, "v1")).raw == image.manifest.raw

    setting.run(body)


def test_what_happens_to_one_connection_shows_in_no_other(tmp_path: Path) -> None:
    with (
        FakeGitHub() as first,
        FakeGitHub(GitHub(users={"Hubot"}, tokens={"ghp_h": Token("Hubot")})) as second,
    ):
        first.github.tokens["ghp_good"].revoked = True
        second.push("hubot/app", ["v1"])
        with pytest.raises(NotSignedIn):
            Setting(first, tmp_path / "1").namespace()
        assert Setting(second, tmp_path / "2", "ghp_h").namespace("hubot")[1] == ["hubot/app"]
        assert not [record for record in second.records if "ghp_good" in str(record)]
