"""`regfs registries`, `docker-login`, `plugins` and `config`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

from tests.support import processes
from tests.support.mounts import Home
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
    assert home.regfs("config", "--check", check=True).stdout.startswith("no mistakes")


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
