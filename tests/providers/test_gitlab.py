"""GitLab: what its tokens open, how its groups are walked, and what is said where something is refused."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    ConnectionFailed,
    Forbidden,
    ListingRefused,
    Moved,
    NotARegistry,
    NotFound,
    NotSignedIn,
    PagingLoop,
    RateLimited,
    Refused,
    RegfsError,
    UnsafeTarget,
)
from regfs.ports import (
    Answer,
    Counts,
    DeletesTags,
    HttpPolicy,
    ListsRepositories,
    Recovers,
    ResolvesTags,
    Source,
    Tools,
)
from regfs.providers.gitlab_instance import Instance
from regfs.providers.gitlab_names import MOST_PAGES, Ids
from regfs.providers.gitlab_tokens import Signer
from regfs.registry.redirects import Origin
from regfs.testing.contract_tools import manifest_of, tags_of
from regfs.testing.images import make_image
from regfs.testing.replies import Reply
from tests.support.fake_gitlab import FakeGitLab
from tests.support.fake_gitlab_data import DEVELOPER, GUEST, MAINTAINER, REPORTER, Token
from tests.support.gitlab_source import GitLabHarness, inside


@pytest.fixture
def gitlab() -> Iterator[FakeGitLab]:
    with FakeGitLab() as fake:
        yield fake


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI_JOB_TOKEN", "CI_REGISTRY", "CI_SERVER_URL", "CI_PROJECT_PATH"):
        monkeypatch.delenv(name, raising=False)


Open = Callable[..., GitLabHarness]


@pytest.fixture
def as_whom(gitlab: FakeGitLab, tmp_path: Path) -> Open:
    def make(token: Token | None, **how: object) -> GitLabHarness:
        return GitLabHarness(gitlab, token, tmp_path, **how)  # type: ignore[arg-type]

    return make


def deletion(repository: str, tag: str, seen: Digest | None = None) -> Callable[[Source], Awaitable[str]]:
    async def body(source: Source) -> str:
        deletes = source.capability(DeletesTags, repository)
        assert deletes is not None
        return (await deletes.delete_tag(repository, tag, seen)).way

    return body


# ── namespaces ───────────────────────────────────────────────────────────────────────────────────


def test_the_root_shows_top_groups_and_users_namespaces_that_one_belongs_to(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    gitlab.world.add_user("bob")
    for path in ("team/app", "deep/er/tool", "bob/toys", "others/secret"):
        gitlab.push(path, "v1")
    gitlab.world.add_project("others/open", public=True)
    token = gitlab.token(scopes="read_api", roles={"team": REPORTER, "deep/er": GUEST, "bob/toys": GUEST})
    assert as_whom(token).run(inside("")) == (["bob", "deep", "team"], [], "")
    assert len(gitlab.asked()) == 2


def test_a_group_shows_all_its_repositories_by_one_request(gitlab: FakeGitLab, as_whom: Open) -> None:
    for path in ("team/app", "team/app/image", "team/sub/tool", "team/sub/deep/tool", "teams/other"):
        gitlab.push(path, "v1")
    gitlab.world.add_project("team/empty")
    expected = ["team/app", "team/app/image", "team/sub/deep/tool", "team/sub/tool"]
    assert as_whom(gitlab.token(scopes="read_api")).run(inside("team")) == ([], expected, "")
    assert gitlab.asked() == ["GET /groups/team/registry/repositories?per_page=100"]


def test_a_project_shows_its_own_repository_and_those_below(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.world.add_project("Team/Sub/App")
    gitlab.push("team/sub/app", "v1")
    gitlab.push("team/sub/app/a/b", "v1")
    harness = as_whom(gitlab.token())
    assert harness.run(inside("team/sub/app")) == ([], ["team/sub/app", "team/sub/app/a/b"], "")
    assert gitlab.asked() == ["GET /projects/team%2Fsub%2Fapp/registry/repositories?per_page=100"]
    assert harness.run(inside("team/sub/app/a")) == ([], ["team/sub/app/a/b"], "")


def test_what_a_listing_told_is_not_guessed_at_again(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/sub/app/image", "v1")
    gitlab.world.add_project("team/sub/app")

    async def body(source: Source) -> None:
        await inside("team")(source)
        await trio.to_thread.run_sync(gitlab.forget)
        await inside("team/sub/app/image")(source)

    as_whom(gitlab.token()).run(body)
    assert len(gitlab.asked()) == 1
    assert gitlab.asked()[0].startswith("GET /projects/")


def test_a_users_namespace_shows_the_projects_whose_registry_is_on(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.world.add_user("bob")
    gitlab.push("bob/toys", "v1")
    gitlab.world.add_project("bob/no-registry", registry=False)
    harness = as_whom(gitlab.token(roles={"bob": DEVELOPER}))
    assert harness.run(inside("bob")) == (["bob/toys"], [], "")
    assert harness.run(inside("bob/toys")) == ([], ["bob/toys"], "")


def test_a_public_group_of_others_shows_what_is_public_in_it(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.world.add_project("org/open", public=True)
    gitlab.world.add_project("org/closed")
    gitlab.world.add_project("org/sub/open", public=True)
    gitlab.push("org/open", "v1")
    harness = as_whom(gitlab.token(roles={"team": DEVELOPER}))
    assert harness.run(inside("org")) == (["org/open", "org/sub"], [], "")
    assert harness.run(inside("org/sub")) == (["org/sub/open"], [], "")


def test_a_forbidden_group_does_not_hide_the_allowed_one_beside_it(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    gitlab.push("secret/app", "v1")
    harness = as_whom(gitlab.token(roles={"team": DEVELOPER}))
    with pytest.raises(NotFound, match="secret"):
        harness.run(inside("secret"))
    assert harness.run(inside("team")) == ([], ["team/app"], "")
    guest = as_whom(gitlab.token(roles={"team": DEVELOPER, "secret": GUEST}))
    with pytest.raises(ListingRefused, match="secret/app is not listed"):
        guest.run(inside("secret/app"))
    assert guest.run(inside("team")) == ([], ["team/app"], "")


@pytest.mark.parametrize(("links", "next_pages"), [(True, True), (True, False), (False, True)])
def test_pages_by_number_are_followed_to_the_end(
    gitlab: FakeGitLab, as_whom: Open, links: bool, next_pages: bool
) -> None:
    names = [f"team/app{number:02}" for number in range(11)]
    for name in names:
        gitlab.push(name, "v1")
    gitlab.api.most, gitlab.api.links, gitlab.api.next_pages = 3, links, next_pages
    assert as_whom(gitlab.token()).run(inside("team"))[1] == names
    assert len(gitlab.asked()) == 4


def test_pages_that_shift_while_they_are_read_name_nothing_twice(gitlab: FakeGitLab, as_whom: Open) -> None:
    for number in range(4):
        gitlab.push(f"team/app{number}", "v1")
    gitlab.api.most = 2
    rows, asked = gitlab.api._repository_rows, [0]

    def shifted() -> list[dict[str, Any]]:
        asked[0] += 1
        found = rows()
        return [{**found[0], "id": 1, "path": f"team/new{asked[0]}"}, *found] if asked[0] > 1 else found

    gitlab.api._repository_rows = shifted  # type: ignore[method-assign]
    found = as_whom(gitlab.token()).run(inside("team"))[1]
    assert len(found) == len(set(found))
    assert {f"team/app{number}" for number in range(4)} <= set(found)


def test_below_a_project_there_is_what_its_images_lead_to_and_no_more(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    gitlab.world.add_project("team/app")
    gitlab.push("team/app/a/b", "v1")
    harness = as_whom(gitlab.token())
    assert harness.run(inside("team/app/a"))[1] == ["team/app/a/b"]
    with pytest.raises(NotFound):
        harness.run(inside("team/app/absent"))


def test_pages_by_key_are_followed_to_the_end(gitlab: FakeGitLab, as_whom: Open) -> None:
    teams = [f"team{number}" for number in range(7)]
    for team in teams:
        gitlab.push(f"{team}/app", "v1")
    gitlab.api.most = 2
    token = gitlab.token(roles=dict.fromkeys(teams, GUEST))
    assert as_whom(token).run(inside(""))[0] == teams
    keyset = gitlab.asked("/projects?")
    assert len(keyset) == 4
    assert all("pagination=keyset" in asked and "order_by=id" in asked for asked in keyset)
    assert "id_after=" in keyset[-1]


def test_a_listing_of_too_much_ends_and_says_so(gitlab: FakeGitLab, as_whom: Open) -> None:
    for number in range(MOST_PAGES + 2):
        gitlab.push(f"team/sub{number}/app", "v1")
    gitlab.push("team/own", "v1")
    gitlab.api.most = 1
    harness = as_whom(gitlab.token())
    namespaces, _, _ = harness.run(inside("team"))
    assert {"team/own", "team/sub0", f"team/sub{MOST_PAGES + 1}"} <= set(namespaces)
    assert "are not shown" in harness.run(inside(""))[2]


def test_endless_and_foreign_pages_are_not_followed(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    harness = as_whom(gitlab.token())
    original = gitlab.api._paged
    for link, error in (
        ("<http://127.0.0.2:1/api/v4/x>", UnsafeTarget),
        ("<https://evil.example/api/v4/groups>", UnsafeTarget),
        ("</elsewhere/projects>", UnsafeTarget),
        ("<?page=1>", PagingLoop),
    ):
        gitlab.api._paged = lambda *given, link=link: _linked(original(*given), link)  # type: ignore[method-assign]
        with pytest.raises(error):
            harness.run(inside("team/app"))


def _linked(reply: Reply, link: str) -> Reply:
    headers = reply.headers
    headers[:] = [*(pair for pair in headers if pair[0] != "Link"), ("Link", f'{link}; rel="next"')]
    return reply


def test_names_that_no_reference_can_hold_are_left_out(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    gitlab.world.add_project("team/-odd-", public=True)
    gitlab.world.groups["_bad_"] = 99
    gitlab.world.add_project("org/__odd", public=True)
    gitlab.world.add_project("org/fine", public=True)
    assert as_whom(gitlab.token()).run(inside("org")) == (["org/fine"], [], "")


def test_there_is_no_catalog_and_nothing_to_recover(gitlab: FakeGitLab, as_whom: Open) -> None:
    async def body(source: Source) -> None:
        assert source.capability(ListsRepositories) is None
        assert source.capability(Recovers) is None

    as_whom(gitlab.token()).run(body)


# ── each kind of token ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["personal", "project", "group"])
def test_an_access_token_lists_reads_and_deletes(gitlab: FakeGitLab, as_whom: Open, kind: str) -> None:
    image = make_image()
    gitlab.push("team/app", ["v1", "v2"], image)
    roles = {"team/app" if kind == "project" else "team": DEVELOPER}
    harness = as_whom(gitlab.token(kind, "api", roles, user=f"{kind}_7_bot"))
    assert harness.run(inside(""))[0] == ["team"]
    assert harness.run(inside("team/app"))[1] == ["team/app"]
    assert sorted(harness.run(tags_of("team/app"))) == ["v1", "v2"]
    assert harness.run(manifest_of("team/app", "v1")) == image.manifest.raw
    assert harness.run(deletion("team/app", "v1", image.digest)) == "GitLab's API"
    assert gitlab.content()["team/app"] == {"v2": image.digest}
    assert harness.run(manifest_of("team/app", image.digest)) == image.manifest.raw


def test_a_deploy_token_reads_by_name_and_says_why_it_lists_nothing(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    gitlab.push("team/app", ["v1", "v2"])
    harness = as_whom(gitlab.token("deploy", "read_registry", {"team/app": DEVELOPER}))
    assert sorted(harness.run(tags_of("team/app"))) == ["v1", "v2"]
    assert harness.run(manifest_of("team/app", "v1"))
    for name in ("", "team", "team/app"):
        with pytest.raises(ListingRefused, match="deploy token opens the registry alone"):
            harness.run(inside(name))
    with pytest.raises(Forbidden, match="cannot delete"):
        harness.run(deletion("team/app", "v1"))
    assert gitlab.asked() == []


def test_a_deploy_token_of_another_project_says_so(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    harness = as_whom(gitlab.token("deploy", "read_registry", {"team/other": DEVELOPER}))
    with pytest.raises(Forbidden, match="lacks the scope read_registry, or is another project's"):
        harness.run(tags_of("team/app"))


def test_a_job_token_lists_its_own_project_alone(
    gitlab: FakeGitLab, as_whom: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_PROJECT_PATH", "Team/Sub/App")
    gitlab.world.add_project("Team/Sub/App")
    gitlab.push("team/sub/app/image", ["v1", "v2"])
    harness = as_whom(gitlab.token("job", "", {"team/sub/app": DEVELOPER}))
    for name, following in (("", "team"), ("team", "team/sub"), ("team/sub", "team/sub/app")):
        namespaces, repositories, partial = harness.run(inside(name))
        assert (namespaces, repositories) == ([following], [])
        assert "its own project alone" in partial
    assert gitlab.asked() == []
    assert harness.run(inside("team/sub/app"))[1] == ["team/sub/app/image"]
    with pytest.raises(ListingRefused, match="its own project alone, team/sub/app"):
        harness.run(inside("others"))
    assert sorted(harness.run(tags_of("team/sub/app/image"))) == ["v1", "v2"]
    harness.run(deletion("team/sub/app/image", "v1"))
    assert set(gitlab.content()["team/sub/app/image"]) == {"v2"}


def test_a_job_token_without_its_jobs_environment_still_walks_by_name(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    gitlab.push("team/app", "v1")
    harness = as_whom(gitlab.token("job", "", {"team/app": DEVELOPER}))
    with pytest.raises(ListingRefused, match="CI_PROJECT_PATH"):
        harness.run(inside(""))
    assert harness.run(inside("team/app"))[1] == ["team/app"]
    assert harness.run(tags_of("team/app")) == ["v1"]


def test_an_oauth_token_lists_and_deletes_by_the_api_and_says_why_it_reads_nothing(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    image = make_image()
    gitlab.push("team/app", ["v1", "v2"], image)
    harness = as_whom(gitlab.token("oauth", "api"))

    async def check(source: Source) -> None:
        await source.check()

    harness.run(check)
    assert harness.run(inside("team"))[1] == ["team/app"]
    assert harness.run(tags_of("team/app")) == ["v1", "v2"]
    with pytest.raises(Forbidden, match=r"does not let an OAuth token in.*read_registry"):
        harness.run(manifest_of("team/app", "v1"))
    harness.run(deletion("team/app", "v1", image.digest))
    assert gitlab.content()["team/app"] == {"v2": image.digest}
    with pytest.raises(Moved):
        harness.run(deletion("team/app", "v2", make_image("another").digest))


def test_an_oauth_token_reads_where_the_registry_lets_it(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.oauth_opens_registry = True
    gitlab.push("team/app", "v1")
    assert as_whom(gitlab.token("oauth", "api")).run(manifest_of("team/app", "v1"))
    assert gitlab.asked() == []


def test_nobody_reads_what_is_public_and_is_told_to_sign_in(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.world.add_project("org/open", public=True)
    gitlab.push("org/open", "v1")
    gitlab.push("team/app", "v1")
    nobody = as_whom(None)
    assert nobody.run(tags_of("org/open")) == ["v1"]
    assert nobody.run(inside("org/open"))[1] == ["org/open"]
    with pytest.raises(ListingRefused, match="nobody is signed in"):
        nobody.run(inside(""))
    with pytest.raises(NotSignedIn):
        nobody.run(tags_of("team/app"))
    with pytest.raises(NotSignedIn):
        nobody.run(deletion("org/open", "v1"))


# ── each missing scope ───────────────────────────────────────────────────────────────────────────


def test_without_read_api_nothing_is_listed_and_the_scope_is_named(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    harness = as_whom(gitlab.token(scopes="read_registry"))
    for name in ("", "team", "team/app"):
        with pytest.raises(ListingRefused, match="lacks a scope: GitLab wants api or read_api"):
            harness.run(inside(name))
    assert harness.run(tags_of("team/app")) == ["v1"]


def test_without_read_registry_nothing_is_read_and_the_scope_is_named(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    gitlab.push("team/app", ["v1", "v2"])
    harness = as_whom(gitlab.token(scopes="read_api"))
    assert harness.run(tags_of("team/app")) == ["v1", "v2"]
    with pytest.raises(Forbidden, match=r"lacks the scope read_registry.*it has read_api"):
        harness.run(manifest_of("team/app", "v1"))

    async def check(source: Source) -> None:
        await source.check()

    with pytest.raises(Forbidden, match="lacks the scope read_registry"):
        harness.run(check)


def test_write_registry_alone_reads_nothing(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    harness = as_whom(gitlab.token(scopes="write_registry"))
    with pytest.raises(Forbidden, match=r"lacks the scope read_registry.*it has write_registry"):
        harness.run(manifest_of("team/app", "v1"))


def test_without_api_nothing_is_deleted_and_the_scope_is_named(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    harness = as_whom(gitlab.token(scopes="read_api read_registry write_registry"))
    with pytest.raises(Forbidden, match="lacks a scope: GitLab wants api for deleting team/app:v1"):
        harness.run(deletion("team/app", "v1"))
    assert "v1" in gitlab.content()["team/app"]


def test_the_right_scopes_and_the_wrong_role_are_told_apart(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    guest = as_whom(gitlab.token(roles={"team": GUEST}))
    with pytest.raises(Forbidden, match="has the scope to read, and its owner may not"):
        guest.run(manifest_of("team/app", "v1"))
    reporter = as_whom(gitlab.token(roles={"team": REPORTER}))
    with pytest.raises(Forbidden, match="role in the project is below Developer"):
        reporter.run(deletion("team/app", "v1"))
    assert "v1" in gitlab.content()["team/app"]


def test_a_thousand_refusals_ask_once_about_the_token(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")

    async def body(source: Source) -> None:
        for _ in range(20):
            with pytest.raises(Forbidden):
                await source.manifest("team/app", "v1")

    as_whom(gitlab.token(scopes="read_api")).run(body)
    assert len(gitlab.asked("personal_access_tokens")) == 1
    assert len(gitlab.asked("/registry/repositories")) == 1


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_an_expired_or_revoked_token_is_called_that(gitlab: FakeGitLab, as_whom: Open, state: str) -> None:
    gitlab.push("team/app", "v1")
    harness = as_whom(gitlab.token(state=state))
    told = {"expired": "has expired: make", "revoked": "was revoked: make"}[state]
    for body in (
        manifest_of("team/app", "v1"),
        tags_of("team/app"),
        inside("team"),
        deletion("team/app", "v1"),
    ):
        with pytest.raises(NotSignedIn, match=told) as raised:
            harness.run(body)
        assert "glpat-" not in repr(raised.value) + str(raised.value)


def test_a_password_is_not_taken_by_the_api_and_the_scopes_are_named(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    gitlab.push("team/app", "v1")
    made_up = Token("personal", "a-password", "alice", frozenset())
    with pytest.raises(NotSignedIn, match=r"does not take the access token of alice.*read_api"):
        as_whom(made_up).run(inside("team"))


def test_a_refused_token_is_not_sent_to_the_api_again_at_once(gitlab: FakeGitLab, as_whom: Open) -> None:
    async def body(source: Source) -> None:
        for _ in range(5):
            with pytest.raises(NotSignedIn, match="expired"):
                await inside("team")(source)

    as_whom(gitlab.token(state="expired")).run(body)
    assert len(gitlab.asked()) == 1


# ── deletion ─────────────────────────────────────────────────────────────────────────────────────


def test_one_of_two_siblings_goes_and_the_other_and_the_digest_live(
    gitlab: FakeGitLab, as_whom: Open
) -> None:
    image = make_image()
    gitlab.push("team/app/image", ["v1", "v2"], image)
    gitlab.world.add_project("team/app")

    async def body(source: Source) -> None:
        deletes = source.capability(DeletesTags, "team/app/image")
        assert deletes is not None
        assert deletes.can_delete() is Answer.UNKNOWN
        await deletes.delete_tag("team/app/image", "v1", image.digest)
        assert deletes.can_delete() is Answer.YES
        assert (await source.manifest("team/app/image", image.digest)).raw == image.manifest.raw
        with pytest.raises(NotFound):
            await source.manifest("team/app/image", "v1")

    as_whom(gitlab.token()).run(body)
    assert gitlab.content()["team/app/image"] == {"v2": image.digest}


def test_a_deletion_costs_no_request_a_tag(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", [f"v{number}" for number in range(50)])
    as_whom(gitlab.token()).run(deletion("team/app", "v1"))
    assert len(gitlab.asked()) == 2
    assert [record.method for record in gitlab.registry.manifest_requests()] == ["HEAD"]


def test_a_tag_that_moved_is_not_deleted(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    with pytest.raises(Moved):
        as_whom(gitlab.token()).run(deletion("team/app", "v1", make_image("before").digest))
    assert "v1" in gitlab.content()["team/app"]


@pytest.mark.parametrize(("repository", "tag"), [("team/app", "v9"), ("team/none", "v1"), ("none", "v1"), ("team/app", "no tag")])  # fmt: skip
def test_what_is_not_there_is_not_found(gitlab: FakeGitLab, as_whom: Open, repository: str, tag: str) -> None:
    gitlab.push("team/app", "v1")
    with pytest.raises(NotFound):
        as_whom(gitlab.token()).run(deletion(repository, tag))


def test_a_protected_tag_is_refused_with_the_rule(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    project = gitlab.world.project_of("team/app")
    assert project is not None
    project.rules = [("^v.*$", "owner"), ("stable", None)]
    with pytest.raises(
        Refused, match=r"protected.*'\^v\.\*\$' \(deleted by owners alone\); 'stable' \(immutable\)"
    ):
        as_whom(gitlab.token(roles={"team": MAINTAINER})).run(deletion("team/app", "v1"))
    assert "v1" in gitlab.content()["team/app"]


def test_where_the_rules_are_not_told_both_reasons_are_named(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    project = gitlab.world.project_of("team/app")
    assert project is not None
    project.rules = [("^v.*$", "maintainer")]
    for tells in (True, False):  # to maintainers alone; not at all, as before GitLab 18.8
        gitlab.api.tells_rules = tells
        with pytest.raises(Forbidden, match="the tag is protected, or the role"):
            as_whom(gitlab.token(roles={"team": DEVELOPER})).run(deletion("team/app", "v1"))


def test_a_deletion_that_gitlab_could_not_do_is_an_error(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    gitlab.api.deletes = False
    with pytest.raises(Refused, match="could not delete team/app:v1"):
        as_whom(gitlab.token()).run(deletion("team/app", "v1"))


def test_a_deletion_is_believed_only_when_the_tag_is_gone(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    gitlab.api.really_deletes = False
    with pytest.raises(BadReply, match="still there"):
        as_whom(gitlab.token()).run(deletion("team/app", "v1"))


def test_a_deletion_whose_answer_got_lost_is_looked_after(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", ["v1", "v2"])
    gitlab.reset_after_acting("/tags/v1")
    as_whom(gitlab.token()).run(deletion("team/app", "v1"))
    assert set(gitlab.content()["team/app"]) == {"v2"}
    gitlab.fail(503, "/tags/v2")
    with pytest.raises(RegfsError):
        as_whom(gitlab.token()).run(deletion("team/app", "v2"))
    assert len([asked for asked in gitlab.asked() if asked.startswith("DELETE")]) == 2


def test_ids_of_before_are_asked_for_anew(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", ["v1", "v2"])

    async def body(source: Source) -> None:
        await deletion("team/app", "v1")(source)
        gitlab.world._repositories.clear()
        await deletion("team/app", "v2")(source)

    as_whom(gitlab.token()).run(body)
    assert gitlab.content()["team/app"] == {}


def test_nothing_is_deleted_where_nothing_may_be_changed(gitlab: FakeGitLab, as_whom: Open) -> None:
    async def body(source: Source) -> None:
        assert source.capability(DeletesTags, "team/app") is None

    as_whom(gitlab.token(), read_only=True).run(body)


def test_tags_by_the_api_come_by_keys_on_gitlab_com(
    gitlab: FakeGitLab, as_whom: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    gitlab.push("team/app", [f"v{number}" for number in range(12)])
    gitlab.api.is_gitlab_com, gitlab.api.most = True, 5
    monkeypatch.setattr("regfs.providers.gitlab_instance.GITLAB_COM", gitlab.url)
    options = (("api", gitlab.url),)
    names = as_whom(gitlab.token(scopes="read_api"), options=options).run(tags_of("team/app"))
    assert sorted(names) == sorted(f"v{number}" for number in range(12))
    assert all("keyset" in asked for asked in gitlab.asked("/tags?"))
    assert len(gitlab.asked("/tags?")) == 3


def test_tags_by_the_api_come_by_number_elsewhere(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", [f"v{number}" for number in range(12)])
    gitlab.api.most = 5
    names = as_whom(gitlab.token(scopes="read_api")).run(tags_of("team/app"))
    assert len(names) == len(set(names)) == 12
    assert len(gitlab.asked("/tags?")) == 3


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_is_waited_for_once_and_then_told(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    headers = (("RateLimit-Limit", "200"), ("RateLimit-Remaining", "0"), ("Retry-After", "0"))
    gitlab.fail(429, "/api/v4/", times=1, headers=headers)
    assert as_whom(gitlab.token()).run(inside("team"))[1] == ["team/app"]
    gitlab.fail(429, "/api/v4/", headers=(("Retry-After", "42"),))
    with pytest.raises(RateLimited) as raised:
        as_whom(gitlab.token()).run(inside("team"))
    assert raised.value.retry_after == 42


def test_a_limit_may_say_when_it_ends_by_its_reset_alone(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    gitlab.fail(429, "/api/v4/", headers=(("RateLimit-Reset", str(int(time.time()) + 600)),))
    with pytest.raises(RateLimited) as raised:
        as_whom(gitlab.token()).run(inside("team"))
    assert raised.value.retry_after == pytest.approx(600, abs=30)
    assert len(gitlab.asked()) == 1


def test_an_api_that_is_down_does_not_stop_reading(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")
    gitlab.fail(500, "/api/v4/")
    harness = as_whom(gitlab.token(), retries=0)
    with pytest.raises(BadReply):
        harness.run(inside("team"))
    assert harness.run(manifest_of("team/app", "v1"))
    assert harness.run(tags_of("team/app")) == ["v1"]


@pytest.mark.parametrize("body", [b"[1]", b'{"a":1}', b"<html>", b'[{"id":"x","path":1}]', b"[" * 10000])
def test_a_listing_that_is_none_is_a_bad_reply(gitlab: FakeGitLab, as_whom: Open, body: bytes) -> None:
    gitlab.push("team/app", "v1")
    gitlab.api.answer = lambda *_: Reply(200, [("Content-Type", "application/json")], body)  # type: ignore[method-assign]
    with pytest.raises(BadReply):
        as_whom(gitlab.token()).run(inside("team/app"))


def test_a_registry_of_no_gitlab_says_how_to_name_one(tmp_path: Path, gitlab: FakeGitLab) -> None:
    from regfs.testing.fake import FakeRegistry

    with FakeRegistry() as registry:
        harness = GitLabHarness(gitlab, gitlab.token(), tmp_path)
        harness._gitlab = registry  # type: ignore[assignment]
        with pytest.raises(NotARegistry, match="options"):
            harness.run(inside("team"))


def test_a_gitlab_that_does_not_answer_is_a_failed_connection(gitlab: FakeGitLab, as_whom: Open) -> None:
    with pytest.raises(ConnectionFailed):
        as_whom(gitlab.token(), options=(("api", "http://127.0.0.1:1"),), retries=0).run(inside("team"))


def test_an_installation_under_a_path_works_without_being_told(tmp_path: Path) -> None:
    with FakeGitLab("/gitlab") as gitlab:
        gitlab.push("team/app", ["v1", "v2"])
        gitlab.push("team/b", "v1")
        gitlab.api.most = 1
        harness = GitLabHarness(gitlab, gitlab.token(), tmp_path)
        assert harness.run(inside("team"))[1] == ["team/app", "team/b"]
        harness.run(deletion("team/app", "v1"))
        assert set(gitlab.content()["team/app"]) == {"v2"}
        told = GitLabHarness(gitlab, gitlab.token(), tmp_path, (("api", f"{gitlab.url}/api/v4/"),))
        assert told.run(inside("team"))[1] == ["team/app", "team/b"]


@pytest.mark.parametrize(
    ("registry", "base", "allowed"),
    [
        ("https://8.8.8.8", "http://8.8.4.4", False),
        ("https://8.8.8.8", "https://10.0.0.1", False),
        ("https://8.8.8.8", "https://127.0.0.1", False),
        ("https://8.8.8.8", "https://169.254.169.254", False),
        ("https://8.8.8.8", "https://8.8.4.4", True),
        ("https://10.0.0.2", "https://10.0.0.1", True),
        ("http://127.0.0.1", "http://127.0.0.1:1", True),
    ],
)
def test_a_registry_sends_no_token_to_where_it_may_not_lead(
    tmp_path: Path, registry: str, base: str, allowed: bool
) -> None:
    async def checked(*hosts: str) -> None:
        connection = Connection("lab", registry, "gitlab", allow_hosts=hosts)
        tools = Tools(None, HttpPolicy("regfs-tests"), time, tmp_path)
        await Instance(connection, tools, Signer(connection, None))._check(base, Origin.of(registry))

    if allowed:
        trio.run(checked)
        return
    with pytest.raises(UnsafeTarget):
        trio.run(checked)


def test_reading_asks_the_api_nothing(gitlab: FakeGitLab, as_whom: Open) -> None:
    gitlab.push("team/app", "v1")

    async def body(source: Source) -> None:
        resolves, counts = source.capability(ResolvesTags), source.capability(Counts)
        assert resolves is not None
        assert counts is not None
        await source.check()
        await resolves.resolve("team/app", "v1")
        await tags_of("team/app")(source)
        before = counts.counters()["requests"]
        await inside("team")(source)
        assert counts.counters()["requests"] == before + 1

    as_whom(gitlab.token()).run(body)
    assert len(gitlab.asked()) == 1


def test_ids_are_kept_for_a_while_and_not_without_end() -> None:
    now = [0.0]
    ids: Ids[int] = Ids(lambda: now[0])
    for number in range(5000):
        ids.put(f"team/app{number}", number)
    assert ids.get("team/app0") is None
    assert ids.get("team/app4999") == 4999
    now[0] = 601.0
    assert ids.get("team/app4999") is None
