"""A GitLab as folders: groups, projects, images and tags, and what each token opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.testing.images import make_image
from tests.support.fake_gitlab import FakeGitLab
from tests.support.fake_gitlab_data import DEVELOPER, GUEST, MAINTAINER, REPORTER, Token
from tests.support.mounts import Home, Mount, mounted


@pytest.fixture
def gitlab() -> Iterator[FakeGitLab]:
    with FakeGitLab() as fake:
        yield fake


@contextmanager
def mount_of(gitlab: FakeGitLab, token: Token | None, home: Home, *options: str) -> Iterator[Mount]:
    """A mount of a GitLab's registry for whoever has the token, kept as `docker login` keeps it."""
    home.write_config(f'[registries.lab]\naddress = "{gitlab.address}"\nprovider = "gitlab"\n')
    if token is not None:
        home.docker_login(gitlab.address, token.user, token.secret)
    with mounted(*options, "lab", home=home) as mount:
        yield mount


def test_groups_projects_images_and_tags_are_folders(gitlab: FakeGitLab, home: Home) -> None:
    gitlab.world.add_user("bob")
    gitlab.world.add_project("team/sub/app")
    image = gitlab.push("team/sub/app", ["v1", "v2"])
    gitlab.push("team/sub/app/image", "latest")
    gitlab.push("bob/toys", "v1")
    token = gitlab.token(scopes="read_api read_registry", roles={"team": REPORTER, "bob/toys": REPORTER})
    with mount_of(gitlab, token, home) as mount:
        assert [n for n in mount.list() if not n.startswith(".")] == ["bob", "team"]
        assert mount.list("team") == ["sub"]
        assert mount.list("team/sub") == ["app"]
        assert [n for n in mount.list("team/sub/app") if not n.startswith(".")] == ["image", "v1", "v2"]
        assert mount.list("bob") == ["toys"]
        assert mount.list("bob/toys") == ["v1"]
        assert mount.read("team/sub/app/v1/manifest.json") == image.manifest.raw
        assert json.loads(mount.read("team/sub/app/image/latest/manifest.json"))


def test_a_path_can_be_walked_by_name_without_asking_the_api(gitlab: FakeGitLab, home: Home) -> None:
    image = gitlab.push("team/sub/app", "v1")
    token = gitlab.token("deploy", "read_registry", {"team/sub/app": REPORTER})
    with mount_of(gitlab, token, home) as mount:
        assert "Permission denied" in mount.run("LC_ALL=C ls").stderr
        assert "deploy token opens the registry alone" in mount.errors()
        assert mount.read("team/sub/app/v1/manifest.json") == image.manifest.raw
        assert mount.list("team/sub/app") == ["v1"]
        assert gitlab.asked() == []


def test_rm_deletes_one_of_two_siblings_and_the_other_and_the_digest_live(
    gitlab: FakeGitLab, home: Home
) -> None:
    image = make_image()
    gitlab.push("team/app", ["v1", "v2"], image)
    with mount_of(gitlab, gitlab.token(scopes="api"), home, "--rw") as mount:
        assert mount.list("team/app") == ["v1", "v2"]
        mount.run("rm -r team/app/v1", check=True)
        assert mount.list("team/app") == ["v2"]
        assert mount.read("team/app/v2/manifest.json") == image.manifest.raw
    assert gitlab.content()["team/app"] == {"v2": image.digest}


def test_a_protected_tag_stays_and_the_rule_is_named(gitlab: FakeGitLab, home: Home) -> None:
    gitlab.push("team/app", ["stable", "v1"])
    project = gitlab.world.project_of("team/app")
    assert project is not None
    project.rules = [("^stable$", "owner")]
    token = gitlab.token(roles={"team": MAINTAINER})
    with mount_of(gitlab, token, home, "--rw") as mount:
        refused = mount.run("LC_ALL=C rm -r team/app/stable")
        assert "Operation not permitted" in refused.stderr
        assert "'^stable$' (deleted by owners alone)" in mount.errors()
        assert mount.list("team/app") == ["stable", "v1"]
    assert set(gitlab.content()["team/app"]) == {"stable", "v1"}


@pytest.mark.parametrize(
    ("scopes", "command", "told"),
    [
        ("read_registry", "ls", "GitLab wants api or read_api"),
        ("read_api", "cat team/app/v1/manifest.json", "lacks the scope read_registry"),
        ("read_api", "ls team/app; cat team/app/v1/manifest.json", "lacks the scope read_registry"),
        ("read_api read_registry", "rm -r team/app/v1", "GitLab wants api"),
    ],
)
def test_the_scope_that_lacks_is_named(
    gitlab: FakeGitLab, home: Home, scopes: str, command: str, told: str
) -> None:
    gitlab.push("team/app", "v1")
    with mount_of(gitlab, gitlab.token(scopes=scopes), home, "--rw") as mount:
        assert "Permission denied" in mount.run(f"LC_ALL=C {command}").stderr
        assert told in mount.errors()
        assert "glpat-" not in mount.errors() + mount.log()
    assert set(gitlab.content()["team/app"]) == {"v1"}


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_a_token_that_is_over_is_called_that(gitlab: FakeGitLab, home: Home, state: str) -> None:
    gitlab.push("team/app", "v1")
    with mount_of(gitlab, gitlab.token(state=state), home) as mount:
        for command in ("ls", "cat team/app/v1/manifest.json"):
            assert "Permission denied" in mount.run(f"LC_ALL=C {command}").stderr
        assert state in mount.errors()
        assert "regfs login" in mount.errors()


def test_a_token_that_is_revoked_under_way_is_noticed(gitlab: FakeGitLab, home: Home) -> None:
    gitlab.push("team/app", "v1")
    gitlab.push("team/other", "v1")
    token = gitlab.token()
    with mount_of(gitlab, token, home, "--ttl", "0.1") as mount:
        assert mount.list("team") == ["app", "other"]
        token.state = "revoked"
        gitlab.registry.sign_in.revoke_tokens()
        assert "Permission denied" in mount.run("LC_ALL=C cat team/other/v1/manifest.json").stderr
        assert "revoked" in mount.errors()


def test_a_forbidden_group_stands_beside_an_allowed_one(gitlab: FakeGitLab, home: Home) -> None:
    gitlab.push("team/app", "v1")
    gitlab.push("secret/app", "v1")
    token = gitlab.token(roles={"team": DEVELOPER, "secret": GUEST})
    with mount_of(gitlab, token, home) as mount:
        assert [n for n in mount.list() if not n.startswith(".")] == ["secret", "team"]
        assert "Permission denied" in mount.run("LC_ALL=C ls secret/app").stderr
        assert "Permission denied" in mount.run("LC_ALL=C cat secret/app/v1/manifest.json").stderr
        assert mount.list("team/app") == ["v1"]


def test_a_limit_is_told_with_how_long_it_lasts(gitlab: FakeGitLab, home: Home) -> None:
    gitlab.push("team/app", "v1")
    gitlab.fail(429, "/api/v4/", headers=(("RateLimit-Remaining", "0"), ("Retry-After", "77")))
    with mount_of(gitlab, gitlab.token(), home) as mount:
        assert "busy" in mount.run("LC_ALL=C ls team").stderr
        assert "77 seconds" in mount.errors()
        assert mount.read("team/app/v1/manifest.json")


def test_what_happens_to_one_gitlab_does_not_show_in_another_registry(home: Home) -> None:
    with FakeGitLab() as one, FakeGitLab("/gitlab") as two:
        for gitlab in (one, two):
            gitlab.push("team/app", "v1")
            token = gitlab.token()
            home.docker_login(gitlab.address, token.user, token.secret)
        home.write_config(
            f'[registries.one]\naddress = "{one.address}"\nprovider = "gitlab"\n'
            f'[registries.two]\naddress = "{two.address}"\nprovider = "gitlab"\n'
        )
        with mounted(home=home) as mount:
            one.fail(500, "/")
            one.registry.fail(500)
            assert mount.run("ls one/team").returncode != 0
            assert mount.list("two/team") == ["app"]
            assert mount.read("two/team/app/v1/manifest.json")


def test_a_self_managed_gitlab_under_a_path_is_served_by_its_option(home: Home) -> None:
    with FakeGitLab("/gitlab") as gitlab:
        gitlab.push("team/app", ["v1", "v2"])
        token = gitlab.token()
        home.docker_login(gitlab.address, token.user, token.secret)
        home.write_config(
            f'[registries.lab]\naddress = "{gitlab.address}"\nprovider = "gitlab"\noptions = {{ api = "{gitlab.url}" }}\n'
        )
        with mounted("--rw", "lab", home=home) as mount:
            assert mount.list("team") == ["app"]
            mount.run("rm -r team/app/v1", check=True)
        assert set(gitlab.content()["team/app"]) == {"v2"}


def test_a_job_signs_in_by_its_environment(gitlab: FakeGitLab, home: Home) -> None:
    gitlab.push("team/app", ["v1", "v2"])
    token = gitlab.token("job", "", {"team/app": DEVELOPER})
    home.variables |= {
        "CI_JOB_TOKEN": token.secret,
        "CI_REGISTRY": gitlab.address,
        "CI_SERVER_URL": gitlab.url,
        "CI_PROJECT_PATH": "team/app",
    }
    with mount_of(gitlab, None, home, "--rw") as mount:
        assert "team" in mount.list()
        assert mount.list("team") == ["app"]
        assert mount.list("team/app") == ["v1", "v2"]
        assert mount.status()["registries"][0]["signed_in"] == "gitlab-ci-token (CI_JOB_TOKEN)"
        mount.run("rm -r team/app/v1", check=True)
        assert token.secret not in mount.log() + mount.errors()
    assert set(gitlab.content()["team/app"]) == {"v2"}


def test_a_jobs_token_goes_to_no_other_gitlab(gitlab: FakeGitLab, home: Home, tmp_path: Path) -> None:
    gitlab.push("team/app", "v1")
    home.variables |= {"CI_JOB_TOKEN": "a-job-token", "CI_REGISTRY": "registry.example.com"}
    with mount_of(gitlab, None, home) as mount:
        assert "Permission denied" in mount.run("LC_ALL=C cat team/app/v1/manifest.json").stderr
    assert all("authorization" not in record.headers for record in gitlab.records)
