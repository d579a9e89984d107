"""A sign-in that guides: which provider it takes, what it asks for, and that accounts are kept apart."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from regfs.cli.prompts import merged
from regfs.cli.signin import named
from regfs.connection import Connection
from regfs.connections import ConnectionStore
from regfs.ports import Credential, CredentialKind, Field
from tests.cli.keyrings import secret_of, secret_service
from tests.cli.test_login import PASSWORD, Terminal, login, stored
from tests.support import processes
from tests.support.mounts import Home
from tests.support.registry import DockerRegistry

Registries = Callable[..., DockerRegistry]


@pytest.fixture
def keyring_home(home: Home) -> Iterator[Home]:
    with secret_service(home):
        yield home


GITLAB_LIKE = 'Bearer realm="https://gitlab.example.com/jwt/auth",service="container_registry"'


class Answers(http.server.BaseHTTPRequestHandler):
    """A registry as GitLab's answers at its entrance; whatever is signed is let in."""

    asked: ClassVar[list[tuple[str, str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        self.send_response(401)
        self.send_header("WWW-Authenticate", GITLAB_LIKE)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def gitlab_like() -> Iterator[str]:
    Answers.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_host_that_nobody_claims_is_recognised_by_one_unsigned_request_and_the_reason_is_said(
    gitlab_like: str, home: Home
) -> None:
    done = home.regfs("login", "--password-stdin", "-u", "me", gitlab_like, stdin="glpat-secret\n")
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"regfs: {gitlab_like} is taken for GitLab (--provider gitlab): ")
    assert "https://gitlab.example.com" in first
    assert Answers.asked[0] == ("GET", "/v2/", "")
    assert "glpat-secret" not in done.stderr


def test_a_named_provider_is_taken_at_its_word_and_nothing_is_asked_to_find_out(
    gitlab_like: str, home: Home
) -> None:
    done = home.regfs("login", "--provider", "generic", "--anonymous", gitlab_like)
    assert "is taken for" not in done.stderr
    assert stored(home) == []


def test_the_provider_words_the_question_and_a_secret_stays_one(gitlab_like: str, home: Home) -> None:
    terminal = Terminal(home, "login", "-u", "me", gitlab_like)
    terminal.wait_for("Access token: ")
    assert "read_registry" in terminal.shown  # its help names the scopes
    processes.wait_until(lambda: not terminal.echoes, "the echo is off")
    terminal.type("\x03")
    terminal.finish()


def test_fields_of_the_method_are_asked_in_the_providers_words_and_no_others() -> None:
    method = [Field("username", "User name"), Field("password", "Password or token", secret=True)]
    provider = [
        Field("password", "Classic token", help="needs read:packages"),
        Field("api", "API", required=False),
    ]
    assert merged(method, provider) == [
        Field("username", "User name"),
        Field("password", "Classic token", secret=True, help="needs read:packages"),
    ]
    assert merged([], provider) == []


def test_what_was_chosen_for_a_connection_outlives_a_sign_in_by_its_name(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    keyring_home.regfs(
        "registries", "add", "work", registry.address, "--only", "team/*", "--option", "api=https://x.example",
        "--insecure", check=True,
    )  # fmt: skip
    done = login(keyring_home, "work", PASSWORD, "--option", "zone=a")
    assert done.returncode == 0, done.stderr
    assert "as 'work' has it" in done.stderr
    (connection,) = stored(keyring_home)
    assert (connection["name"], connection["only"], connection["insecure"]) == ("work", ["team/*"], True)
    assert connection["options"] == {"api": "https://x.example", "zone": "a"}
    assert (connection["username"], connection["account"]) == ("me", "work")
    # … and one by its address does the same: it was nobody's but this user's.
    assert login(keyring_home, registry.address, PASSWORD).returncode == 0
    (again,) = stored(keyring_home)
    assert (again["name"], again["only"]) == ("work", ["team/*"])


def test_an_option_that_is_a_secret_by_its_name_is_refused_and_not_repeated(home: Home) -> None:
    done = home.regfs("login", "--anonymous", "--option", "api_token=hunter2hunter2", "localhost:1")
    assert done.returncode == 2
    assert "hunter2" not in done.stderr


def test_a_config_registry_finds_the_account_of_its_user_whatever_that_is_called(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD, "you": "yours-alone"})
    login(keyring_home, registry.address, PASSWORD, "--name", "first")
    keyring_home.regfs(
        "login", "-u", "you", "--password-stdin", "--name", "second", registry.address,
        stdin="yours-alone\n", check=True,
    )  # fmt: skip
    keyring_home.write_config(f'[registries.mine]\naddress = "{registry.address}"\nusername = "you"\n')
    rows = json.loads(keyring_home.regfs("registries", "--json", check=True).stdout)
    assert {row["name"]: row["signed_in"] for row in rows} == {
        "mine": "you (keyring)",
        "first": "me (keyring)",
        "second": "you (keyring)",
    }


def test_an_earlier_versions_sign_in_still_serves_and_a_new_one_takes_its_place(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    login(keyring_home, registry.address, PASSWORD, "--name", "work")
    place = keyring_home.config / "connections.json"
    document = json.loads(place.read_text())
    del document["connections"][0]["account"]
    place.write_text(json.dumps(document))
    kept = secret_of(keyring_home, f"work@{registry.address}")
    script = (
        "import secretstorage, sys; bus = secretstorage.dbus_init(); "
        "secretstorage.get_default_collection(bus).create_item('x', {'service': 'regfs', 'username': sys.argv[1], "
        "'application': 'Python keyring library'}, sys.argv[2].encode())"
    )
    subprocess.run(
        [sys.executable, "-c", script, registry.address, str(kept)],
        env={**os.environ, **keyring_home.env},
        check=True,
    )
    keyring_home.regfs("ls", registry.address, check=True)
    assert login(keyring_home, registry.address, PASSWORD).returncode == 0
    keyring_home.regfs("logout", "work", check=True)
    assert secret_of(keyring_home, registry.address) is None


def test_another_user_at_a_host_that_the_first_account_is_called_after_gets_an_account_of_its_own(
    tmp_path: Path,
) -> None:
    host = "registry.example.com"
    store = ConnectionStore(tmp_path / "connections.json")
    store.save(Connection(host, host, username="alice", account=host, only=("team/*",)))
    bob, token = Credential("bob", "x"), Credential("", "x", CredentialKind.IDENTITY_TOKEN)

    def name(username: str, credential: Credential | None) -> str:
        return named(Connection(host, host, username=username), credential, store).name

    assert name("bob", bob) == f"{host}_bob"
    assert name("", token) == f"{host}_token"
    assert name("", None) == host  # nobody replaces the only account
    again = named(Connection(host, host, username="alice"), Credential("alice", "x"), store)
    assert (again.name, again.account, again.only) == (host, host, ("team/*",))
    store.save(Connection(f"{host}_bob", "other.example.com"))
    assert name("bob", bob) == f"{host}_bob_2"
    store.save(Connection("tokens", host, account="tokens"))
    assert name("", token) == "tokens"
    assert name("", None) == f"{host}_anonymous"


def test_a_hosts_name_is_an_address_even_where_a_connection_is_called_so(home: Home) -> None:
    home.regfs("registries", "add", "localhost", "localhost", check=True)
    home.regfs("registries", "add", "work", "localhost", check=True)
    assert "localhost is taken for" in home.regfs("login", "--anonymous", "localhost").stderr
    assert "as 'work' has it" in home.regfs("login", "--anonymous", "work").stderr
