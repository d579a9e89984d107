"""Sign-in as a mount's user meets it: one token for all, the keyring, and a password that is found nowhere."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.keyrings import secret_service
from tests.support import processes
from tests.support.mounts import Home, mounted
from tests.support.registry import DockerRegistry
from tests.support.tokens import TokenServer

Registries = Callable[..., DockerRegistry]
PASSWORD = "Known-Text-Of-A-Password"
USERS = {"tester": PASSWORD}


def manifest_gets(registry: DockerRegistry) -> list[int]:
    """The statuses of all manifest requests."""
    return [line.status for line in registry.requests() if "/manifests/" in line.target]


def test_a_hundred_processes_open_one_cold_manifest_with_one_token_and_one_request(
    docker_registry: Registries, token_server: Callable[..., TokenServer], home: Home
) -> None:
    tokens = token_server(USERS)
    registry = docker_registry(token=tokens)
    registry.push("team/app", "v1")
    home.docker_login(registry.address, "tester", PASSWORD)
    with mounted(registry.address, home=home) as mount:
        asked, before = len(tokens.requests), len(manifest_gets(registry))
        path = mount.path / "team/app/v1/manifest.json"
        readers = [
            subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(100)
        ]
        contents = {reader.communicate(timeout=60)[0] for reader in readers}
        assert [reader.returncode for reader in readers] == [0] * 100
        assert len(contents) == 1
        pulls = [
            request for request in tokens.requests[asked:] if "repository:team/app:pull" in request.scopes
        ]
        assert len(pulls) == 1
        statuses = manifest_gets(registry)[before:]
        assert [status for status in statuses if status != 401] == [200]
        assert statuses.count(401) <= 1


def test_a_mount_uses_what_the_keyring_keeps_and_notices_a_new_sign_in(
    docker_registry: Registries, home: Home
) -> None:
    first = docker_registry(htpasswd=USERS)
    first.push("team/app", "v1")
    with secret_service(home):
        sign_in = ("login", "--username", "tester", "--password-stdin", first.address)
        home.regfs(*sign_in, stdin=PASSWORD, check=True)
        with mounted(first.address, home=home) as mount:
            assert json.loads(mount.read("team/app/v1/manifest.json"))["schemaVersion"] == 2
            assert mount.errors() == ""
        home.regfs("logout", first.address, check=True)
        with mounted(first.address, home=home, expected_in_log=[".*"]) as mount:
            assert mount.run("cat team/app/v1/manifest.json").returncode != 0
            home.regfs(*sign_in, stdin=PASSWORD, check=True)
            assert json.loads(mount.read("team/app/v1/manifest.json"))["schemaVersion"] == 2


@pytest.mark.parametrize("password", [PASSWORD, "Known-Wrong-Password"], ids=["right", "wrong"])
@pytest.mark.parametrize("with_tokens", [True, False])
def test_a_password_is_found_nowhere(
    docker_registry: Registries,
    token_server: Callable[..., TokenServer],
    home: Home,
    password: str,
    with_tokens: bool,
) -> None:
    registry = docker_registry(token=token_server(USERS)) if with_tokens else docker_registry(htpasswd=USERS)
    registry.push("team/app", "v1")
    helper = home.path / "bin/docker-credential-test"
    helper.parent.mkdir()
    secret = json.dumps({"Username": "tester", "Secret": password})
    (home.path / "secret.json").write_text(secret)
    helper.write_text(f"#!/bin/sh\ncat >/dev/null; cat {home.path}/secret.json\n")
    helper.chmod(0o755)
    home.variables["PATH"] = f"{helper.parent}:{home.env['PATH']}"
    (home.docker / "config.json").write_text('{"credsStore": "test"}')
    outputs: list[str] = []

    with mounted("-v", registry.address, home=home, expected_in_log=[".*"]) as mount:
        for command in (
            "cat team/app/v1/manifest.json",
            "ls -la . team/app",
            "cat nothing/here/v1/manifest.json",
        ):
            done = mount.run(command)
            outputs += [done.stdout, done.stderr]
        outputs += [mount.errors(), json.dumps(mount.status()), mount.run("cat .regfs/*").stdout]
        outputs += [_of_process(pid) for pid in {mount.pid, *processes.children()}]
        for arguments in (
            ("status", "--json"),
            ("registries", "--json"),
            ("cat", f"{registry.address}/team/app/v1/manifest.json"),
            ("-v", "ls", f"{registry.address}/team/app"),
            ("docker-login", registry.address),
        ):
            said = home.regfs(*arguments)
            outputs += [said.stdout, said.stderr]
    outputs += [mount.log(), mount.stderr]
    kept = [path for path in home.path.rglob("*") if path.is_file() and path.name != "secret.json"]
    outputs += [path.read_text(errors="replace") for path in kept]
    assert any("manifest" in output for output in outputs)
    for spelling in _spellings(password):
        assert [output[:500] for output in outputs if spelling in output] == []


def _of_process(pid: int) -> str:
    folder = Path(f"/proc/{pid}")
    try:
        return "".join(
            (folder / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ")
        )
    except OSError:
        return ""


def _spellings(password: str) -> list[str]:
    pair = base64.b64encode(f"tester:{password}".encode()).decode()
    return [password, pair.rstrip("="), base64.b64encode(password.encode()).decode().rstrip("=")]
