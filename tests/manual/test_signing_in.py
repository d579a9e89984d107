"""How a mount signs in, and what it says when it can't."""

from __future__ import annotations

from pathlib import Path

import pytest

from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from tests.support.mounts import Home, mounted


def credentials_file(folder: Path, text: str) -> Path:
    path = folder / "credentials"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("auth", [Auth.BASIC, Auth.BEARER])
def test_a_plain_credentials_file_serves_a_mount_of_one_registry(
    home: Home, tmp_path: Path, auth: Auth
) -> None:
    path = credentials_file(tmp_path, "username=tester\npassword=a-password\n")
    with FakeRegistry(Behaviour(auth=auth)) as registry:
        registry.push("app", ["v1", "v2"])
        with mounted("-o", f"credentials={path}", registry.address, home=home) as mount:
            assert mount.list("app") == ["v1", "v2"]
            assert mount.status()["registries"][0]["signed_in"] == f"tester ({path})"
            assert "a-password" not in mount.log() + mount.errors() + str(mount.status())


def test_a_file_that_names_no_registry_is_sent_to_none_of_several(home: Home, tmp_path: Path) -> None:
    path = credentials_file(tmp_path, "username=tester\npassword=a-password\n")
    with FakeRegistry(Behaviour(auth=Auth.BASIC)) as one, FakeRegistry(Behaviour(auth=Auth.BASIC)) as two:
        home.write_config(
            f'[registries.one]\naddress = "{one.address}"\n[registries.two]\naddress = "{two.address}"\n'
        )
        with mounted("-o", f"credentials={path}", home=home) as mount:
            for command in ("ls one", "cat one/app/v1/manifest.json"):
                assert "Permission denied" in mount.run(f"LC_ALL=C {command}").stderr
                assert "registry=" in mount.errors().splitlines()[-1], command
            for registry in (one, two):
                assert all("authorization" not in request.headers for request in registry.requests)


def test_without_credentials_the_mount_comes_up_and_names_the_command(home: Home) -> None:
    with FakeRegistry(Behaviour(auth=Auth.BEARER)) as registry:
        registry.push("app", "v1")
        with mounted(registry.address, home=home) as mount:
            assert f"regfs login {registry.address}" in mount.stderr
            assert "Permission denied" in mount.run("LC_ALL=C cat app/v1/manifest.json").stderr
            assert f"regfs login {registry.address}" in mount.errors()
