"""`regfs registries`, `docker-login`, `plugins` and `config`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

import click
import pytest

from regfs.cli.registries import registries
from regfs.testing.behaviour import Behaviour
from regfs.testing.fake import FakeRegistry
from tests.cli.test_help import section
from tests.support import processes
from tests.support.mounts import Home, mounted
from tests.support.registry import DockerRegistry

Registries = Callable[..., DockerRegistry]
PASSWORD = "correct-horse-battery"

HELPER = """#!/usr/bin/python3
import json, pathlib, sys
place = pathlib.Path(__file__).with_name("kept.json")
kept = json.loads(place.read_text()) if place.exists() else {}
if sys.argv[1] == "store":
    entry = json.load(sys.stdin)
    kept[entry["ServerURL"]] = entry
    place.write_text(json.dumps(kept))
elif sys.argv[1] == "get":
    url = sys.stdin.read().strip()
    if url not in kept:
        print("credentials not found in native keychain")
        sys.exit(1)
    print(json.dumps(kept[url]))
"""


def test_each_registry_is_shown_with_its_state_and_none_waits_for_another(
    docker_registry: Registries, home: Home
) -> None:
    up, refusing = docker_registry(), docker_registry(htpasswd={"me": PASSWORD})
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = f"127.0.0.1:{mute.getsockname()[1]}"
        home.write_config(
            f'[registries.up]\naddress = "{up.address}"\n'
            f'[registries.refusing]\naddress = "{refusing.address}"\n'
            f'[registries.down]\naddress = "127.0.0.1:{processes.free_port()}"\n'
            f'[registries.silent]\naddress = "{silent}"\n'
            f'[registries.silent-too]\naddress = "{silent}/prefix"\n'
        )
        begin = time.monotonic()
        done = home.regfs("registries", "--json", check=True)
        assert time.monotonic() - begin < 8
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "up": "ok",
        "refusing": "refused",
        "down": "unreachable",
        "silent": "unreachable",
        "silent-too": "unreachable",
    }
    assert set(rows["up"]) == {"name", "address", "provider", "auth", "signed_in", "state", "detail"}
    assert "no answer within 5 s" in rows["silent"]["detail"]


def test_the_table_says_who_is_signed_in_and_where_the_credential_is(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    home.docker_login(registry.address, "me", PASSWORD)
    home.write_config(f'[registries.mine]\naddress = "{registry.address}"\n')
    done = home.regfs("registries", check=True)
    head, row = done.stdout.splitlines()
    assert head.split() == ["NAME", "ADDRESS", "PROVIDER", "SIGNED", "IN", "STATE"]
    assert row.split()[:4] == ["mine", registry.address, "generic", "me"]
    assert str(home.docker) in row
    assert row.endswith("ok")
    assert PASSWORD not in done.stdout


def test_no_registries_is_said_with_the_next_command(home: Home) -> None:
    done = home.regfs("registries", check=True)
    assert done.stdout == ""
    assert "regfs login" in done.stderr
    assert json.loads(home.regfs("registries", "--json", check=True).stdout) == []


def test_docker_login_hands_the_credential_to_dockers_helper(docker_registry: Registries, home: Home) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    programs = home.path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-testing"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    home.variables["PATH"] = f"{programs}:{home.env['PATH']}"
    (home.docker / "config.json").write_text(json.dumps({"credsStore": "testing"}))
    secret = home.path / "credentials"
    secret.write_text(json.dumps({"auths": {registry.address: {"username": "me", "password": PASSWORD}}}))
    secret.chmod(0o600)
    home.write_config(f'credentials = "{secret}"\n[registries.mine]\naddress = "{registry.address}"\n')
    done = home.regfs("docker-login", "mine", check=True)
    assert "docker-credential-testing" in done.stdout
    kept = json.loads((programs / "kept.json").read_text())
    assert [(entry["Username"], entry["Secret"]) for entry in kept.values()] == [("me", PASSWORD)]
    assert PASSWORD not in done.stdout + (home.docker / "config.json").read_text()


def test_docker_login_writes_no_plain_text_where_there_is_no_helper(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    home.docker_login(registry.address, "me", PASSWORD)
    before = (home.docker / "config.json").read_text()
    done = home.regfs("docker-login", registry.address)
    assert done.returncode == 1
    assert "credsStore" in done.stderr
    assert (home.docker / "config.json").read_text() == before


def test_docker_login_without_credentials_says_to_sign_in(home: Home) -> None:
    done = home.regfs("docker-login", "localhost:5000")
    assert done.returncode == 1
    assert "regfs login localhost:5000" in done.stderr


def test_plugins_are_listed_with_where_they_come_from(home: Home) -> None:
    rows = json.loads(home.regfs("plugins", "--json", check=True).stdout)
    known = {(row["group"], row["name"]): row for row in rows}
    for key in (("provider", "generic"), ("provider", "oci"), ("auth", "basic"), ("auth", "challenge")):
        assert known[key]["error"] == ""
        assert known[key]["origin"].startswith("regfs ")
    assert "regfs.providers.generic:GenericProvider" in home.regfs("plugins", check=True).stdout


def test_a_plugin_that_fails_to_import_is_named_and_stops_nothing(
    docker_registry: Registries, home: Home
) -> None:
    site = home.path / "site"
    info = site / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[regfs.providers]\nbroken = broken_provider:Provider\n")
    (site / "broken_provider.py").write_text("raise ImportError('it needs a library that is not here')\n")
    home.variables["PYTHONPATH"] = str(site)
    row = next(
        row
        for row in json.loads(home.regfs("plugins", "--json", check=True).stdout)
        if row["name"] == "broken"
    )
    assert row["origin"] == "broken 1.0"
    assert "it needs a library that is not here" in row["error"]
    assert home.regfs("ls", docker_registry().address).returncode == 0


def test_config_names_each_mistake_with_its_line(home: Home) -> None:
    place = home.write_config('ttl = "soon"\nrw = true\ncolour = 1\n')
    done = home.regfs("config", "--check")
    assert done.returncode == 1
    assert f"{place}:1: ttl:" in done.stderr
    assert f"{place}:3: colour:" in done.stderr
    mistakes = json.loads(home.regfs("config", "--check", "--json").stdout)["mistakes"]
    assert len(mistakes) == 2


def test_config_shows_the_settings_in_force(home: Home) -> None:
    home.write_config('ttl = 60\n[registries.mine]\naddress = "localhost:5000"\n')
    done = home.regfs("config", check=True)
    assert "ttl = 60" in done.stdout
    assert "registry mine: localhost:5000" in done.stdout
    found = json.loads(home.regfs("config", "--json", check=True).stdout)
    assert found["settings"]["ttl"] == 60
    assert found["settings"]["registries"][0]["address"] == "localhost:5000"
    assert "image_limits = not set" in done.stdout
    assert found["settings"]["image_limits"] == {}
    assert home.regfs("config", "--check", check=True).stdout.startswith("no mistakes")


def test_config_shows_limits_as_they_are_written(home: Home) -> None:
    written = "image_limits = { depth = 100, members = 5000 }"
    home.write_config(f"{written}\n")
    assert written in home.regfs("config", check=True).stdout.splitlines()
    found = json.loads(home.regfs("config", "--json", check=True).stdout)
    assert found["settings"]["image_limits"] == {"depth": 100, "members": 5000}


def test_a_broken_config_stops_every_command_with_its_mistakes_but_not_logout(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry()
    home.regfs("login", "--anonymous", registry.address, check=True)
    home.write_config("ttl = [\n")
    done = home.regfs("ls", registry.address)
    assert done.returncode != 0
    assert "config.toml:" in done.stderr
    assert home.regfs("logout", registry.address).returncode == 0


# ── add, set, remove, test ──


def connections_of(home: Home) -> dict[str, dict[str, object]]:
    document = json.loads((home.config / "connections.json").read_text())
    return {connection["name"]: connection for connection in document["connections"]}


def test_a_registry_is_added_without_asking_it_anything(home: Home) -> None:
    done = home.regfs(
        "registries", "add", "work", "Registry.Example.com/team", "--username", "me", "--insecure",
        "--namespace", "a/b", "--namespace", "c", "--only", "a/*", "--option", "api=https://api.example",
        "--auth", "basic", check=True,
    )  # fmt: skip
    assert done.stdout.startswith("added work: registry.example.com/team (generic)")
    assert connections_of(home)["work"] == {
        "name": "work",
        "address": "registry.example.com/team",
        "auth": "basic",
        "username": "me",
        "insecure": True,
        "namespaces": ["a/b", "c"],
        "only": ["a/*"],
        "options": {"api": "https://api.example"},
    }
    again = home.regfs("registries", "add", "work", "other.example.com")
    assert again.returncode == 1
    assert "taken by registry.example.com/team" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a/b", "localhost:1"], "not a name for a folder"),
        (["a", "localhost:1", "--client-key", "k"], "--client-cert"),
        (["a", "localhost:1", "--option", "api"], "has no value"),
        (["a", "localhost:1", "--option", "api_token=hunter2"], "a secret does not belong"),
        (["a", "localhost:1", "--only", "NO!"], "--only"),
        (["a", "localhost:1", "--namespace", "../x"], "--namespace"),
    ],
)
def test_what_cannot_be_added_is_a_usage_error_that_names_it(
    arguments: list[str], words: str, home: Home
) -> None:
    done = home.regfs("registries", "add", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "hunter2" not in done.stderr
    assert not (home.config / "connections.json").exists()


def test_set_changes_and_clears_and_says_what_it_does_not_know(home: Home) -> None:
    def change(*changes: str, code: int = 0) -> str:
        done = home.regfs("registries", "set", "work", *changes)
        assert done.returncode == code, done.stderr
        return done.stderr

    home.regfs("registries", "add", "work", "localhost:1", check=True)
    first = connections_of(home)["work"]
    change("username=me", "only=team/*, x", "insecure=true", "options.api=https://api.example", "auth=basic")
    second = connections_of(home)["work"]
    assert second.pop("generation") != first.get("generation")
    assert second == {
        "name": "work",
        "address": "localhost:1",
        "auth": "basic",
        "username": "me",
        "insecure": True,
        "only": ["team/*", "x"],
        "options": {"api": "https://api.example"},
    }
    change("username=", "only=", "insecure=false", "options.api=", "auth=")
    third = connections_of(home)["work"]
    third.pop("generation")
    assert third == {"name": "work", "address": "localhost:1"}
    assert "did you mean 'username'" in change("usrname=x", code=2)
    assert "a registry has to have one" in change("address=", code=2)
    assert "true or false" in change("insecure=perhaps", code=2)
    assert "a secret does not belong" in change("options.api_token=hunter2", code=2)
    assert "client_cert" in change("client_key=/x", code=2)
    assert "no-such-method" in change("auth=no-such-method", code=1)
    third["generation"] = connections_of(home)["work"]["generation"]
    assert connections_of(home)["work"] == third


@pytest.mark.parametrize(
    "command", [["set", "work", "username=x"], ["remove", "work"], ["add", "work", "h.example"]]
)
def test_a_registry_of_the_config_file_is_not_changed_and_its_line_is_named(
    command: list[str], home: Home
) -> None:
    place = home.write_config('ttl = 5\n\n[registries.work]\naddress = "registry.example.com"\n')
    before = place.read_bytes()
    done = home.regfs("registries", *command)
    assert done.returncode == 1
    assert f"'work' is written in {place}:3" in done.stderr
    assert place.read_bytes() == before


@pytest.mark.parametrize(
    "table",
    [
        {"name": "bad", "address": "me:pw@host"},
        {"name": "bad", "address": ""},
        {"name": "bad"},
        {"name": "bad", "address": "h.example", "provider": "gone", "auth": "gone-too", "account": "bad"},
        {"name": "bad", "address": "h.example", "only": 7},
    ],
)
def test_remove_works_whatever_is_wrong_with_it(table: dict[str, object], home: Home) -> None:
    good = {"name": "good", "address": "localhost:1"}
    (home.config / "connections.json").write_text(json.dumps({"version": 1, "connections": [table, good]}))
    listed = home.regfs("registries")
    assert "regfs registries remove bad" in listed.stderr or listed.returncode == 0
    done = home.regfs("registries", "remove", "bad")  # no keyring is to be had here either
    assert done.returncode == 0, done.stderr
    assert done.stdout == "removed bad\n"
    assert list(connections_of(home)) == ["good"]
    assert home.regfs("registries", "remove", "bad").returncode == 1


def test_test_says_what_can_be_done_and_its_exit_code_whether_all_answer(
    docker_registry: Registries, home: Home
) -> None:
    up, refusing = docker_registry(), docker_registry(htpasswd={"me": PASSWORD})
    up.push("team/app", "v1")
    home.regfs("registries", "add", "up", up.address, check=True)
    home.regfs("registries", "add", "refusing", refusing.address, check=True)
    home.regfs("registries", "add", "down", f"127.0.0.1:{processes.free_port()}", check=True)
    done = home.regfs("registries", "test", "--json")
    assert done.returncode == 1
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: (row["state"], row["list"], row["delete"]) for name, row in rows.items()} == {
        "up": ("ok", "yes", "unknown"),
        "refusing": ("refused", "unknown", "unknown"),
        "down": ("unreachable", "unknown", "unknown"),
    }
    assert all(line.method == "GET" for line in up.requests()[-2:])
    assert home.regfs("registries", "test", "up").returncode == 0
    home.docker_login(refusing.address, "me", PASSWORD)
    table = home.regfs("registries", "test", "up", "refusing", check=True).stdout
    assert "SIGNED IN" in table
    assert f"me ({home.docker}" in table
    assert PASSWORD not in table
    missing = home.regfs("registries", "test", "nowhere")
    assert missing.returncode == 1
    assert "up, refusing, down" in missing.stderr


def test_a_registry_that_keeps_its_listing_to_itself_is_said_not_to_list(home: Home) -> None:
    with FakeRegistry(Behaviour(catalog_status=403)) as registry:
        home.regfs("registries", "add", "shy", registry.address, check=True)
        (row,) = json.loads(home.regfs("registries", "test", "--json", check=True).stdout)
        assert (row["state"], row["list"]) == ("ok", "no")


def test_a_mount_of_all_follows_each_change_without_a_remount(
    docker_registry: Registries, home: Home
) -> None:
    one, two = docker_registry(), docker_registry()
    one.push("team/app", "v1")
    two.push("other/app", "v2")
    home.regfs("registries", "add", "work", one.address, check=True)
    with mounted(home=home) as mount:
        assert mount.list("work") == ["team"]
        home.regfs("registries", "set", "work", f"address={two.address}", check=True)
        processes.wait_until(lambda: mount.list("work") == ["other"], "the new address shows")
        home.regfs("registries", "set", "work", "only=nothing/*", check=True)
        processes.wait_until(lambda: mount.list("work") == [], "the fence shows")
        home.regfs("registries", "add", "more", one.address, check=True)
        processes.wait_until(lambda: mount.list() == ["more", "work"], "the new one shows")
        home.regfs("registries", "remove", "work", check=True)
        processes.wait_until(lambda: mount.list() == ["more"], "the removed one is gone")
        assert mount.list("more") == ["team"]


@pytest.mark.parametrize("name", ["add", "set", "remove", "test"])
def test_every_command_below_is_documented_with_its_options(name: str) -> None:
    command = registries.commands[name]
    text = section("registries")
    assert f"regfs registries {name}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert f"{parameter.opts[0]}" in text, parameter.opts
