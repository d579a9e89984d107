"""GitLab under the contract of providers, and its sign-in by OAuth from the code that is shown to the tag that is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import trio

from regfs.auth.oauth.method import OAuth
from regfs.connection import Connection
from regfs.errors import Forbidden, SignInEnded
from regfs.opening import open_registries
from regfs.ports import Credential, CredentialKind, DeletesTags, HttpPolicy, Source
from regfs.providers.gitlab import GitLabProvider
from regfs.registry.exchange import HttpExchange
from regfs.testing.contract_provider import ProviderContract
from regfs.testing.contract_tools import tags_of
from regfs.testing.harness import ConnectionHarness, FakeHarness
from regfs.testing.images import Pushable
from tests.support.fake_gitlab import FakeGitLab
from tests.support.fake_gitlab_data import DEVELOPER
from tests.support.gitlab_source import inside

POLICY = HttpPolicy("regfs-tests", call_deadline=10.0)


class Lab(ConnectionHarness):
    """A connection to a GitLab, signed in with an access token."""

    def __init__(self, gitlab: FakeGitLab, folder: Path) -> None:
        token = gitlab.token(roles={"team": DEVELOPER})
        credential = Credential(token.user, token.secret, origin="the test")
        super().__init__(GitLabProvider(), gitlab.address, folder, credential=credential)
        self.gitlab = gitlab
        self._registry = FakeHarness(gitlab.registry, GitLabProvider(), folder, method=self.method)

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        self.gitlab.push(repository, tags, what)

    def requests(self) -> int:
        return len(self.gitlab.records) + len(self.gitlab.registry.records)

    def ways(self) -> Mapping[str, Callable[[], None]]:
        return self._registry.ways()

    def astray(self) -> Sequence[str]:
        return self._registry.astray()


class TestGitLabProvider(ProviderContract):
    addresses: ClassVar = {
        "registry.gitlab.com": ("registry.gitlab.com", ""),
        "https://registry.gitlab.com/group/project": ("registry.gitlab.com", "group/project"),
        "gitlab.com/group": ("registry.gitlab.com", "group"),
    }
    not_its_own: ClassVar = ("registry.example.com", "gitlab.example.com:5050")
    malformed: ClassVar = ("registry.gitlab.com:99999", "https://")

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Lab]:
        with FakeGitLab() as gitlab:
            gitlab.registry.behaviour.users = {"tester": "a-secret-that-nobody-may-see"}
            yield Lab(gitlab, tmp_path)


# ── OAuth ────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Somebody:
    """A person who agrees in the browser at once."""

    gitlab: FakeGitLab
    links: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None: ...

    def show_link(self, url: str, code: str = "") -> None:
        self.links.append(url)
        self.gitlab.approve(code, {"team": DEVELOPER})


@dataclass
class Kept:
    """A place that keeps one credential."""

    credential: Credential

    async def get(self, connection: Connection) -> Credential | None:
        return self.credential

    async def store(self, connection: Connection, credential: Credential) -> None:
        self.credential = replace(credential, origin="the test")


@pytest.fixture
def gitlab() -> Iterator[FakeGitLab]:
    with FakeGitLab() as fake:
        fake.device_interval = 1
        fake.push("team/app", ["v1", "v2"])
        yield fake


def signed_in(gitlab: FakeGitLab, **options: str) -> tuple[Connection, Kept, Somebody]:
    """What `regfs login --auth oauth --client-id …` makes of a GitLab."""
    given = {"api": gitlab.url, "oauth_client_id": "an-application", **options}
    connection = Connection("lab", gitlab.address, "gitlab", "oauth", options=tuple(given.items()))
    person = Somebody(gitlab)
    server = GitLabProvider().oauth(connection)

    async def talk() -> Credential:
        with trio.fail_after(15):
            return await OAuth().sign_in(connection, given, server, HttpExchange(connection, POLICY), person)

    credential = trio.run(talk)
    assert credential.kind is CredentialKind.OAUTH_GRANT
    return connection, Kept(credential), person


def with_source(connection: Connection, kept: Kept, folder: Path, body: Callable[[Source], object]) -> object:
    async def main() -> object:
        with trio.fail_after(30):
            (source,) = (await open_registries(connection, kept, POLICY, folder)).values()
            try:
                return await body(source)  # type: ignore[misc]
            finally:
                await source.aclose()

    return trio.run(main)


def test_the_device_flow_leads_to_names_and_deletion(gitlab: FakeGitLab, tmp_path: Path) -> None:
    connection, kept, person = signed_in(gitlab)
    assert person.links[0].startswith(f"{gitlab.url}/oauth/device?user_code=")

    async def body(source: Source) -> None:
        await source.check()
        assert await inside("")(source) == (["team"], [], "")
        assert await inside("team")(source) == ([], ["team/app"], "")
        assert await tags_of("team/app")(source) == ["v1", "v2"]
        with pytest.raises(Forbidden, match="does not let an OAuth token in"):
            await source.manifest("team/app", "v1")
        deletes = source.capability(DeletesTags, "team/app")
        assert deletes is not None
        await deletes.delete_tag("team/app", "v1", None)

    with_source(connection, kept, tmp_path, body)
    assert set(gitlab.content()["team/app"]) == {"v2"}


def test_who_asked_for_read_api_alone_is_told_what_deleting_takes(gitlab: FakeGitLab, tmp_path: Path) -> None:
    connection, kept, _ = signed_in(gitlab, oauth_scopes="read_api")

    async def body(source: Source) -> None:
        assert await inside("team")(source) == ([], ["team/app"], "")
        deletes = source.capability(DeletesTags, "team/app")
        assert deletes is not None
        with pytest.raises(Forbidden, match="GitLab wants api"):
            await deletes.delete_tag("team/app", "v1", None)

    with_source(connection, kept, tmp_path, body)


def test_an_access_token_that_ended_is_renewed_for_the_api(
    gitlab: FakeGitLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    connection, kept, _ = signed_in(gitlab)
    before = kept.credential
    (token,) = gitlab.world.tokens
    token.state = "expired"

    async def body(source: Source) -> None:
        assert await inside("team")(source) == ([], ["team/app"], "")

    with_source(connection, kept, tmp_path, body)
    assert kept.credential != before
    assert len(gitlab.asked("/oauth/token")) == 2


def test_a_sign_in_that_was_revoked_names_the_command(gitlab: FakeGitLab, tmp_path: Path) -> None:
    connection, kept, _ = signed_in(gitlab)
    gitlab.world.tokens[0].state = "revoked"
    gitlab._refreshes.clear()

    async def body(source: Source) -> None:
        for asked in (inside("team"), tags_of("team/app")):
            with pytest.raises(SignInEnded) as raised:
                await asked(source)
            assert raised.value.connection == "lab"

    with_source(connection, kept, tmp_path, body)
