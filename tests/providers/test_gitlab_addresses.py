"""GitLab: whose an address is, where the instance is, and how each kind of token is spelled. Nothing here asks anything."""

from __future__ import annotations

import pytest
import trio

from regfs.connection import Connection
from regfs.errors import (
    ConfigError,
    Forbidden,
    NotSignedIn,
)
from regfs.plugins import claims, provider
from regfs.ports import (
    BringsCredentials,
    Credential,
    OffersOAuth,
    RecognisesReplies,
)
from regfs.providers.gitlab import GitLabProvider
from regfs.providers.gitlab_address import guessed, instance_of
from regfs.providers.gitlab_tokens import JobToken, Kind, headers_for, kind_of

# ── whose an address is ──────────────────────────────────────────────────────────────────────────

CHALLENGE = 'Bearer realm="https://gitlab.example.com/jwt/auth",service="container_registry"'


@pytest.mark.parametrize(
    "address", ["registry.gitlab.com", "gitlab.com", "https://gitlab.com/", "registry.gitlab.com:443"]
)
def test_gitlab_com_is_known_by_either_name(address: str) -> None:
    name, claim = claims(address)
    assert (name, claim.address, claim.confidence) == ("gitlab", "registry.gitlab.com", 100)


def test_a_path_behind_gitlab_com_leads_to_the_same_images() -> None:
    claim = GitLabProvider().claim("https://gitlab.com/group/project")
    assert claim is not None
    assert (claim.address, claim.rest) == ("registry.gitlab.com", "group/project")


def test_another_host_is_gitlabs_only_where_its_answer_says_so() -> None:
    kind = GitLabProvider()
    assert isinstance(kind, RecognisesReplies)
    assert claims("registry.example.com")[0] == "generic"
    claim = kind.recognise("registry.example.com", 401, {"www-authenticate": CHALLENGE})
    assert claim is not None
    assert claim.confidence > 10
    assert "https://gitlab.example.com" in claim.reason
    for other in (
        CHALLENGE.replace("container_registry", "registry"),
        CHALLENGE.replace("/jwt/auth", "/token"),
        'Basic realm="x"',
        'Bearer realm="/jwt/auth",service="container_registry"',
        'Bearer realm="ftp://x/jwt/auth",service="container_registry"',
        'Bearer realm="https://user@x/jwt/auth",service="container_registry"',
        "",
    ):
        assert kind.recognise("registry.example.com", 401, {"www-authenticate": other}) is None
    assert kind.recognise("registry.example.com", 200, {"www-authenticate": CHALLENGE}) is None


def test_an_installation_under_a_path_is_found_by_its_realm() -> None:
    challenge = CHALLENGE.replace("/jwt/auth", "/gitlab/jwt/auth")
    assert instance_of([challenge]) == "https://gitlab.example.com/gitlab"


@pytest.mark.parametrize(
    ("address", "api", "instance"),
    [
        ("registry.gitlab.com", "", "https://gitlab.com"),
        ("registry.example.com", "", "https://example.com"),
        ("gitlab.example.com:5050", "", "https://gitlab.example.com"),
        ("images.example.com", "https://git.example.com/", "https://git.example.com"),
        ("images.example.com", "https://example.com/gitlab/api/v4", "https://example.com/gitlab"),
    ],
)
def test_oauth_is_offered_at_the_instance(address: str, api: str, instance: str) -> None:
    kind = provider("gitlab")
    assert isinstance(kind, OffersOAuth)
    connection = Connection("lab", address, "gitlab", options=(("api", api),) if api else ())
    server = kind.oauth(connection)
    assert guessed(connection) == instance
    assert server.device_endpoint == f"{instance}/oauth/authorize_device"
    assert server.token_endpoint == f"{instance}/oauth/token"
    assert server.authorization_endpoint == f"{instance}/oauth/authorize"
    assert (server.username, tuple(server.scopes)) == ("oauth2", ("api",))
    assert "Application ID" in server.client_help


def test_what_an_oauth_sign_in_asks_for_can_be_less() -> None:
    server = GitLabProvider().oauth(
        Connection("lab", "registry.gitlab.com", options=(("oauth_scopes", "read_api"),))
    )
    assert tuple(server.scopes) == ("read_api",)


@pytest.mark.parametrize("api", ["gitlab.example.com", "ftp://x", "https://", "https://user@x"])
def test_an_api_option_that_is_no_url_is_refused_with_an_example(api: str) -> None:
    with pytest.raises(ConfigError, match="option api"):
        guessed(Connection("lab", "registry.example.com", options=(("api", api),)))


def test_the_sign_in_names_the_scopes() -> None:
    (field,) = GitLabProvider().fields
    assert field.secret
    assert all(scope in field.help for scope in ("read_api", "read_registry", "api"))


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("user", "secret", "kind", "headers"),
    [
        ("alice", "glpat-abc", Kind.ACCESS, {"PRIVATE-TOKEN": "glpat-abc"}),
        ("alice", "a-custom-prefix", Kind.ACCESS, {"PRIVATE-TOKEN": "a-custom-prefix"}),
        ("oauth2", "0123abcd", Kind.OAUTH, {"Authorization": "Bearer 0123abcd"}),
        ("gitlab-ci-token", "xyz", Kind.JOB, {"JOB-TOKEN": "xyz"}),
        ("whoever", "glcbt-64_xyz", Kind.JOB, {"JOB-TOKEN": "glcbt-64_xyz"}),
    ],
)
def test_each_kind_of_token_is_spelled_in_its_own_header(
    user: str, secret: str, kind: Kind, headers: dict[str, str]
) -> None:
    credential = Credential(user, secret)
    assert kind_of(credential) is kind
    assert headers_for(credential) == headers


@pytest.mark.parametrize(("user", "secret"), [("gitlab+deploy-token-12", "abc"), ("me", "gldt-abc")])
def test_a_deploy_token_is_never_sent_to_the_api(user: str, secret: str) -> None:
    with pytest.raises(Forbidden, match="deploy token opens the registry alone"):
        headers_for(Credential(user, secret))


@pytest.mark.parametrize("secret", ["pässword", "two words", "line\nbreak"])
def test_what_no_header_can_hold_is_no_token(secret: str) -> None:
    with pytest.raises(NotSignedIn) as raised:
        headers_for(Credential("alice", secret))
    assert secret not in str(raised.value)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"CI_JOB_TOKEN": "t", "CI_REGISTRY": "registry.example.com"}, True),
        ({"CI_JOB_TOKEN": "t", "CI_REGISTRY": "registry.example.com:443"}, True),
        ({"CI_JOB_TOKEN": "t", "CI_REGISTRY": "registry.other.com"}, False),
        ({"CI_JOB_TOKEN": "t", "CI_REGISTRY": "registry.other.com", "CI_SERVER_URL": "https://example.com"}, False),
        ({"CI_JOB_TOKEN": "t", "CI_SERVER_URL": "https://example.com"}, True),
        ({"CI_JOB_TOKEN": "t", "CI_SERVER_URL": "https://example.com:443/"}, True),
        ({"CI_JOB_TOKEN": "t", "CI_SERVER_URL": "https://example.com:8443"}, False),
        ({"CI_JOB_TOKEN": "t"}, False),
        ({"CI_JOB_TOKEN": "t", "CI_SERVER_URL": "not a url"}, False),
        ({"CI_REGISTRY": "registry.example.com"}, False),
    ],
)  # fmt: skip
def test_a_jobs_token_is_for_the_gitlab_of_the_job_alone(environment: dict[str, str], found: bool) -> None:
    connection = Connection("lab", "registry.example.com", "gitlab")
    credential = trio.run(JobToken(guessed, environment).get, connection)
    assert (credential is not None) is found
    if credential is not None:
        assert (credential.username, credential.secret) == ("gitlab-ci-token", "t")


def test_the_provider_brings_the_jobs_token() -> None:
    kind = provider("gitlab")
    assert isinstance(kind, BringsCredentials)
    (source,) = kind.credential_sources(Connection("lab", "registry.example.com", "gitlab"))
    assert source.name == "CI_JOB_TOKEN"
