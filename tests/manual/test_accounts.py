"""Several accounts on one host: side by side, each with its own credential, and none shows in another."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cli.keyrings import secret_of, secret_service
from tests.support import processes
from tests.support.mounts import Home, mounted
from tests.support.registry import DockerRegistry
from tests.support.tokens import TokenServer

ALICE, BOB = "alice-keeps-this-one", "bob-keeps-another"
Registries = Callable[..., DockerRegistry]
Tokens = Callable[..., TokenServer]


@pytest.fixture
def keyring_home(home: Home) -> Iterator[Home]:
    with secret_service(home):
        yield home


def login(home: Home, user: str, password: str, address: str, *options: str) -> str:
    done = home.regfs(
        "login", "-u", user, "--password-stdin", *options, address, stdin=f"{password}\n", check=True
    )
    return done.stderr


def accounts(server: TokenServer) -> set[tuple[str, str]]:
    """Which account got which repository's tokens."""
    return {
        (request.account, scope.split(":")[1])
        for request in server.requests
        for scope in request.scopes
        if request.status == 200 and scope.startswith("repository:")
    }


def test_two_accounts_on_one_token_registry_are_two_folders_each_with_its_own_credential(
    docker_registry: Registries, token_server: Tokens, keyring_home: Home
) -> None:
    server = token_server({"alice": ALICE, "bob": BOB})
    registry = docker_registry(token=server)
    registry.push("of/alice", "v1")
    registry.push("of/bob", "v1")
    login(keyring_home, "alice", ALICE, registry.address, "--name", "work-alice")
    login(keyring_home, "bob", BOB, registry.address, "--name", "work-bob")
    server.requests.clear()
    with mounted(home=keyring_home) as mount:
        assert mount.list() == ["work-alice", "work-bob"]
        mount.read("work-alice/of/alice/v1/digest")
        mount.read("work-bob/of/bob/v1/digest")
        assert accounts(server) >= {("alice", "of/alice"), ("bob", "of/bob")}
        assert not accounts(server) & {("bob", "of/alice"), ("alice", "of/bob")}
        signed_in = {row["name"]: row["signed_in"] for row in mount.status()["registries"]}
        assert signed_in == {"work-alice": "alice (keyring)", "work-bob": "bob (keyring)"}


def test_two_accounts_on_one_htpasswd_registry_by_user_name_alone_and_a_logout_of_one(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"alice": ALICE, "bob": BOB})
    registry.push("team/app", "v1")
    login(keyring_home, "alice", ALICE, registry.address)
    said = login(keyring_home, "bob", BOB, registry.address)
    name = registry.address.replace(":", "_")
    assert f"this account is called '{name}_bob'" in said
    assert f"The address alone means '{name}'" in said
    rows = {
        row["name"]: (row["signed_in"], row["state"])
        for row in json.loads(keyring_home.regfs("registries", "--json", check=True).stdout)
    }
    assert rows == {name: ("alice (keyring)", "ok"), f"{name}_bob": ("bob (keyring)", "ok")}
    with mounted("-o", "username=bob", registry.address, home=keyring_home) as mount:
        assert mount.list("team/app") == ["v1"]
        assert mount.status()["registries"][0]["signed_in"] == "bob (keyring)"
    with mounted("-o", "username=mallory", registry.address, home=keyring_home) as mount:
        assert "Permission denied" in mount.run("LC_ALL=C ls team/app/v1").stderr
    ambiguous = keyring_home.regfs("logout", registry.address)
    assert ambiguous.returncode == 1
    assert f"{name}_bob" in ambiguous.stderr
    keyring_home.regfs("logout", name, check=True)
    assert ALICE not in (secret_of(keyring_home, registry.address) or "")
    with mounted(f"{name}_bob", home=keyring_home) as mount:
        assert mount.list("team/app") == ["v1"]
    assert BOB in (secret_of(keyring_home, registry.address) or "")


def test_identity_tokens_without_user_names_are_kept_apart_by_their_connections_names(
    docker_registry: Registries, token_server: Tokens, keyring_home: Home
) -> None:
    server = token_server({"alice": ALICE, "bob": BOB})
    registry = docker_registry(token=server)
    registry.push("app", "v1")
    for name, user in (("one", "alice"), ("two", "bob")):
        token = server.new_refresh_token(user)
        login(keyring_home, "<token>", token, registry.address, "--name", name)
    server.requests.clear()
    with mounted(home=keyring_home) as mount:
        mount.read("one/app/v1/digest")
        assert accounts(server) == {("alice", "app")}
        server.requests.clear()
        mount.read("two/app/v1/digest")
        assert accounts(server) == {("bob", "app")}
        keyring_home.regfs("logout", "one", check=True)
        processes.wait_until(lambda: mount.list() == ["two"], "the account that is left alone shows")
        keyring_home.regfs("refresh", mount.path, check=True)
        mount.read("two/app/v1/manifest.json")


def test_one_accounts_wrong_password_does_not_show_in_the_other(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(htpasswd={"alice": ALICE})
    registry.push("team/app", "v1")
    home.write_config(
        f'[registries.good]\naddress = "{registry.address}"\nusername = "alice"\n'
        f'[registries.bad]\naddress = "{registry.address}"\nusername = "mallory"\n'
    )
    auth = {
        registry.address: base64.b64encode(f"alice:{ALICE}".encode()).decode(),
    }
    (home.docker / "config.json").write_text(
        json.dumps({"auths": {host: {"auth": pair} for host, pair in auth.items()}})
    )
    wrong = base64.b64encode(b"mallory:not-this").decode()
    place = home.runtime / "containers/auth.json"
    place.parent.mkdir()
    place.write_text(json.dumps({"auths": {registry.address: {"auth": wrong}}}))
    with mounted(home=home) as mount:
        for _ in range(2):
            assert "Permission denied" in mount.run("LC_ALL=C ls bad/team/app/v1").stderr
            assert mount.list("good/team/app") == ["v1"]
        assert all("/good" not in line for line in mount.errors().splitlines())


def test_one_mount_uses_the_credential_of_the_longest_key_for_each_repository(
    docker_registry: Registries, token_server: Tokens, home: Home
) -> None:
    server = token_server({"alice": ALICE, "bob": BOB, "carol": "carols"})
    registry = docker_registry(token=server)
    for repository in ("app", "team/a", "team/b", "team/special"):
        registry.push(repository, "v1")
    keys = {
        registry.address: f"alice:{ALICE}",
        f"{registry.address}/team": f"bob:{BOB}",
        f"{registry.address}/team/special": "carol:carols",
    }
    place = home.runtime / "containers/auth.json"
    place.parent.mkdir()
    place.write_text(
        json.dumps({"auths": {k: {"auth": base64.b64encode(v.encode()).decode()} for k, v in keys.items()}})
    )
    server.requests.clear()
    with mounted(registry.address, home=home) as mount:
        for repository in ("app", "team/a", "team/b", "team/special"):
            mount.read(f"{repository}/v1/manifest.json")
    assert accounts(server) == {
        ("alice", "app"),
        ("bob", "team/a"),
        ("bob", "team/b"),
        ("carol", "team/special"),
    }


def test_docker_auth_config_signs_a_mount_in_and_goes_before_the_file(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(htpasswd={"alice": ALICE, "bob": BOB})
    registry.push("app", "v1")
    home.docker_login(registry.address, "alice", ALICE)
    pair = base64.b64encode(f"bob:{BOB}".encode()).decode()
    home.variables["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {registry.address: {"auth": pair}}})
    with mounted(registry.address, home=home) as mount:
        assert mount.list("app") == ["v1"]
        assert mount.status()["registries"][0]["signed_in"] == "bob (DOCKER_AUTH_CONFIG)"
        assert BOB not in mount.log() + mount.errors() + json.dumps(mount.status())
