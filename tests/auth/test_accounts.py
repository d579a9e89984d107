"""Several accounts on one host: which credential a request is signed with, and that none shows in another."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
import trio

from regfs.auth.accounts import LEARN_AGAIN, Accounts
from regfs.auth.flows import BasicFlow, ChallengeFlow
from regfs.auth.keychain import OrderedKeychain
from regfs.auth.places import parts_among
from regfs.auth.sources.containers_auth import ContainersAuthSource
from regfs.auth.sources.docker_config import DockerConfigSource
from regfs.auth.sources.file import FileSource
from regfs.auth.sources.keyring import entry_of
from regfs.auth.sources.systemd import SystemdSource
from regfs.connection import Connection
from regfs.errors import CredentialError, NotSignedIn
from regfs.ports import Credential, CredentialSource, Keychain, KnowsParts
from tests.auth.drive import HOST, TokenRegistry, connection, run, send

HELPER = """#!/bin/sh
read server
echo "$1 $server" >> "$0.asked"
echo '{"ServerURL":"'$server'","Username":"helper","Secret":"of-'$server'"}'
"""


def auths(**keys: str) -> dict[str, object]:
    """Entries by key (``__`` for ``/``): each user is called after the key's last component, with that password."""
    return {
        key.replace("__", "/").replace("_", "."): {
            "auth": base64.b64encode(f"{user}:pw-{user}".encode()).decode()
        }
        for key, user in keys.items()
    }


@dataclass
class Parts:
    """A keychain with a credential for each part, and what it was asked."""

    users: Mapping[str, str]
    learned: int = 0
    asked: list[str] = field(default_factory=list)

    async def get(self, wanted: Connection) -> Credential | None:
        self.asked.append(wanted.part)
        user = self.users.get(wanted.part)
        return Credential(user, f"pw-{user}") if user else None

    async def parts(self, _: Connection) -> list[str]:
        self.learned += 1
        await trio.lowlevel.checkpoint()
        return [part for part in self.users if part]


def basic(request: httpx.Request) -> str:
    pair = base64.b64decode(request.headers.get("Authorization", "").partition(" ")[2]).decode()
    return pair.partition(":")[0]


# ── one mount, several keys ──


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("app", "whole"),
        ("team/x", "team"),
        ("team", "team"),
        ("teams/x", "whole"),
        ("team/app", "app"),
        ("team/app/sub", "app"),
        ("team/apple", "team"),
    ],
)
def test_a_request_bears_the_credential_of_the_longest_key(repository: str, user: str) -> None:
    keychain = Parts({"": "whole", "team": "team", "team/app": "app"})
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(basic(request))
        return httpx.Response(200)

    run(lambda: send(BasicFlow(connection(), keychain), answer, f"{repository}/manifests/v1"))
    assert seen == [user]


def test_tokens_are_each_accounts_own_and_the_keychain_is_asked_once_a_key() -> None:
    keychain = Parts({"": "whole", "team": "team"})
    registry = TokenRegistry(users={"whole": "pw-whole", "team": "pw-team"})

    async def test() -> None:
        flow = ChallengeFlow(connection(), keychain)
        for repository in ("a", "team/a", "team/b", "team/c", "b", "team/a", "a"):
            reply = await send(flow, registry, f"{repository}/manifests/v1")
            assert reply.status_code == 200

    run(test)
    accounts = {
        request.url.params["scope"]: request.url.params["account"] for request in registry.token_requests
    }
    assert accounts == {
        "repository:a:pull": "whole",
        "repository:b:pull": "whole",
        "repository:team/a:pull": "team",
        "repository:team/b:pull": "team",
        "repository:team/c:pull": "team",
    }
    assert (keychain.learned, sorted(keychain.asked)) == (1, ["", "team"])


def test_a_wrong_password_of_one_key_does_not_show_in_another() -> None:
    keychain = Parts({"": "whole", "bad": "stranger"})
    registry = TokenRegistry(users={"whole": "pw-whole"})

    async def test() -> None:
        flow = ChallengeFlow(connection(), keychain)
        assert (await send(flow, registry, "a/manifests/v1")).status_code == 200
        for _ in range(2):
            with pytest.raises(NotSignedIn, match="stranger"):
                await send(flow, registry, "bad/a/manifests/v1")
            assert (await send(flow, registry, "b/manifests/v1")).status_code == 200
        assert flow.token_requests == 3

    run(test)


def test_the_catalog_and_the_ping_are_the_registrys_own() -> None:
    keychain = Parts({"": "whole", "team": "team"})
    registry = TokenRegistry(users={"whole": "pw-whole", "team": "pw-team"})

    async def test() -> None:
        flow = ChallengeFlow(connection(), keychain)
        for target in ("", "_catalog"):
            assert (await send(flow, registry, target)).status_code == 200

    run(test)
    assert {request.url.params["account"] for request in registry.token_requests} == {"whole"}


def test_many_who_ask_at_once_learn_the_keys_once_and_a_change_is_noticed() -> None:
    users = {"": "whole"}
    keychain = Parts(users)

    async def test() -> None:
        accounts = Accounts(connection(), keychain)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(accounts.at, f"team/{number}")
        assert keychain.learned == 1
        assert await accounts.at("team/app") is accounts.whole
        users["team"] = "team"
        await trio.sleep(LEARN_AGAIN)
        held = await accounts.at("team/app")
        assert held is not accounts.whole
        assert await accounts.at("team/other") is held
        assert keychain.learned == 2
        del users["team"]
        accounts.forget()
        assert await accounts.at("team/app") is accounts.whole

    run(test)


def test_nothing_is_learned_before_a_registry_asks() -> None:
    keychain = Parts({"": "whole", "team": "team"})

    async def test() -> None:
        flow = ChallengeFlow(connection(), keychain)
        await send(flow, lambda _: httpx.Response(200), "team/app/manifests/v1")
        assert (keychain.learned, keychain.asked) == (0, [])

    run(test)


# ── files with namespaced keys ──


def test_parts_are_those_below_the_connections_address_alone() -> None:
    keys = [
        "reg.example",
        "reg.example/team",
        "REG.example/team/app/",
        "reg.example:5000/other",
        "reg.example.com/other",
        "https://reg.example/v1/",
        "reg.example/Not A Name",
        "reg.example/..",
        "docker.io/library",
    ]
    assert parts_among(keys, connection()) == ["team", "team/app"]
    assert parts_among(keys, connection("reg.example/team")) == ["app"]
    assert parts_among(keys, connection("reg.example:5000")) == ["other"]
    assert parts_among(keys, connection("index.docker.io")) == ["library"]


def written(place: Path, document: object) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch(0o600)
    place.write_text(json.dumps(document))
    return place


def sources(folder: Path, document: object) -> list[CredentialSource]:
    """Each source that reads the shape of Docker's config.json, with that content."""
    text = json.dumps(document)
    written(folder / "docker/config.json", document)
    written(folder / "systemd/regfs.reg", document)
    return [
        DockerConfigSource({"DOCKER_CONFIG": str(folder / "docker"), "HOME": str(folder)}),
        DockerConfigSource({"DOCKER_AUTH_CONFIG": text, "HOME": str(folder / "nobody")}),
        ContainersAuthSource({"REGISTRY_AUTH_FILE": str(written(folder / "auth.json", document))}),
        FileSource(written(folder / "explicit.json", document)),
        SystemdSource({"CREDENTIALS_DIRECTORY": str(folder / "systemd")}),
    ]


def test_every_place_with_namespaced_keys_gives_the_longest_that_fits(tmp_path: Path) -> None:
    document = {"auths": auths(reg_example="whole", reg_example__team="team", reg_example__team__app="app")}
    for source in sources(tmp_path, document):
        assert isinstance(source, KnowsParts)
        assert trio.run(source.parts, connection()) == ["team", "team/app"]
        for part, user in {"": "whole", "team": "team", "team/app": "app", "team/app/sub": "app"}.items():
            found = trio.run(source.get, connection(part=part))
            assert found is not None
            assert (found.username, found.secret) == (user, f"pw-{user}"), source.name


def test_a_longer_key_of_another_user_does_not_hide_the_users_own(tmp_path: Path) -> None:
    document = {"auths": auths(reg_example="me", reg_example__team="you")}
    for source in sources(tmp_path, document):
        found = trio.run(source.get, connection(part="team", username="me"))
        assert found is not None
        assert found.username == "me", source.name
        assert trio.run(OrderedKeychain([source]).get, connection(part="team", username="me")) == found


def test_a_helper_is_run_once_a_key_and_never_to_learn_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/docker-credential-fake"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    environment = {"PATH": f"{program.parent}:/usr/bin:/bin", "DOCKER_CONFIG": str(tmp_path), "HOME": "/x"}
    document = {"auths": {HOST: {}, f"{HOST}/team": {}}, "credsStore": "fake"}
    written(tmp_path / "config.json", document)
    keychain = OrderedKeychain([DockerConfigSource(environment)])
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200)

    async def test() -> None:
        flow = BasicFlow(connection(), keychain)
        for repository in ("team/a", "team/b", "c", "d", "team/a"):
            await send(flow, answer, f"{repository}/manifests/v1")

    trio.run(test)
    assert len(set(seen)) == 2
    asked = (tmp_path / "bin/docker-credential-fake.asked").read_text().splitlines()
    assert asked == [f"get {HOST}/team", f"get {HOST}"]


def test_the_variable_beats_the_file_and_a_broken_one_does_not_hide_it(tmp_path: Path) -> None:
    written(
        tmp_path / "config.json",
        {"auths": auths(reg_example="file", reg_example__team="team"), "credHelpers": {"x.example": "x"}},
    )

    def source(variable: str) -> DockerConfigSource:
        return DockerConfigSource(
            {"DOCKER_CONFIG": str(tmp_path), "DOCKER_AUTH_CONFIG": variable, "HOME": "/x"}
        )

    def user(variable: str, part: str = "") -> str:
        found = trio.run(source(variable).get, connection(part=part))
        return found.username if found else ""

    assert user(json.dumps({"auths": auths(reg_example="variable")})) == "variable"
    assert user(json.dumps({"auths": auths(reg_example="variable")}), "team") == "variable"
    assert user(json.dumps({"auths": auths(other_example="variable")}), "team") == "team"
    assert user("{") == "file"
    assert user(" ") == "file"
    with pytest.raises(CredentialError, match="DOCKER_AUTH_CONFIG"):
        trio.run(source("{").get, connection("absent.example"))


def test_the_variable_beats_even_the_files_helper_for_that_host(tmp_path: Path) -> None:
    written(tmp_path / "config.json", {"credHelpers": {HOST: "not-there"}, "credsStore": "not-there"})
    document = {"auths": auths(reg_example="variable")}
    environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_AUTH_CONFIG": json.dumps(document), "HOME": "/x"}
    found = trio.run(DockerConfigSource(environment).get, connection())
    assert found is not None
    assert found.username == "variable"


def test_a_part_that_a_source_cannot_name_hides_no_other_source(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    broken = DockerConfigSource({"DOCKER_CONFIG": str(tmp_path), "HOME": "/x"})
    good = ContainersAuthSource(
        {"REGISTRY_AUTH_FILE": str(written(tmp_path / "a.json", {"auths": auths(reg_example__team="team")}))}
    )
    assert trio.run(OrderedKeychain([broken, good]).parts, connection()) == ["team"]


def test_the_status_names_the_registrys_own_account_whatever_its_parts_use(tmp_path: Path) -> None:
    document = {"auths": auths(reg_example="whole", reg_example__team="team")}
    keychain = OrderedKeychain([sources(tmp_path, document)[2]])

    async def test() -> None:
        await keychain.get(connection())
        await keychain.get(connection(part="team"))

    trio.run(test)
    assert keychain.last["reg"].startswith("whole (")


# ── entries of the keyring ──


def test_an_entry_belongs_to_one_account_at_one_address() -> None:
    alice = connection(account="work-alice", username="alice")
    entries = {
        entry_of(one)
        for one in (
            alice,
            replace(alice, account="work-bob"),
            replace(alice, address=f"{HOST}:5000"),
            replace(alice, address=f"{HOST}/team"),
            replace(alice, address="other.example"),
            connection(),
        )
    }
    assert len(entries) == 6
    assert entry_of(replace(alice, name="another", username="")) == entry_of(alice)
    assert entry_of(connection()) == HOST  # what was kept before there were accounts


def test_a_keychain_without_parts_has_one_account() -> None:
    class Plain:
        async def get(self, _: Connection) -> Credential | None:
            return Credential("me", "pw")

    plain: Keychain = Plain()

    async def test() -> None:
        accounts = Accounts(connection(), plain)
        assert await accounts.at("team/app") is accounts.whole

    run(test)
