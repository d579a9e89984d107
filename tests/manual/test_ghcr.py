"""GitHub's container registry as a folder, against a fake of the registry and of GitHub's API."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.testing.faults import Gate
from tests.cli.keyrings import secret_service
from tests.support import processes
from tests.support.fake_ghcr import Token
from tests.support.fake_github import FakeGitHub
from tests.support.mounts import Home, Mount, mounted

TOKEN = "ghp_good"


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        yield github


def configure(home: Home, *fakes: FakeGitHub, namespaces: str = "") -> None:
    """A config with a connection for each fake: hub, hub1 …"""
    tables = [
        f'[registries.hub{number or ""}]\naddress = "{fake.address}"\nprovider = "ghcr"\n'
        f'options = {{ api = "{fake.api}" }}\n{namespaces}\n'
        for number, fake in enumerate(fakes)
    ]
    home.write_config("\n".join(tables))


def sign_in(home: Home, fake: FakeGitHub, token: str = TOKEN) -> None:
    home.docker_login(fake.address, "octocat", token)


@contextmanager
def mount_of(fake: FakeGitHub, home: Home, *options: str, path: Path | None = None) -> Iterator[Mount]:
    """A mount of the one connection, signed in."""
    with mounted(*options, "hub", home=home, path=path) as mount:
        yield mount


def deletions(fake: FakeGitHub) -> list[str]:
    return [call for call in fake.calls if call.startswith("DELETE")]


def test_owners_packages_and_tags_are_folders_and_manifests_are_files(fake: FakeGitHub, home: Home) -> None:
    image = fake.push("octo-org/group/app", ["v1", "latest"])
    fake.push("octocat/tool", ["v2"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home) as mount:
        assert set(mount.list()) >= {"octocat", "octo-org"}
        assert mount.list("octo-org") == ["group"]
        assert mount.list("octo-org/group") == ["app"]
        assert mount.list("octo-org/group/app") == ["latest", "v1"]
        assert mount.list("octocat") == ["tool"]
        assert mount.read("octo-org/group/app/v1/manifest.json") == image.manifest.raw
        dates = mount.run("stat -c %y octo-org/group/app/v1", check=True).stdout
        assert dates.startswith("2024-01-01"), "the day on which the version was made"
    assert fake.registry.writes() == []


def test_a_tag_is_walked_to_by_name_and_the_api_is_asked_nothing_for_it(fake: FakeGitHub, home: Home) -> None:
    image = fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home) as mount:
        assert mount.read("octo-org/app/v1/manifest.json") == image.manifest.raw
        assert fake.calls == []


def test_a_package_is_listed_though_its_owner_was_not_looked_into(fake: FakeGitHub, home: Home) -> None:
    fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home) as mount:
        mount.list()
        assert mount.list("octo-org/app") == ["v1"]


def test_rm_of_one_of_two_siblings_spares_the_other_and_the_digest(fake: FakeGitHub, home: Home) -> None:
    image = fake.push("octo-org/app", ["v1", "v2"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home, "--rw") as mount:
        mount.run("rm -r octo-org/app/v1", check=True)
        assert mount.list("octo-org/app") == ["v2"]
        assert mount.read("octo-org/app/v2/manifest.json") == image.manifest.raw
        hexes = image.digest.file_name
        assert mount.read(f"octo-org/app/.digests/{hexes}/manifest.json") == image.manifest.raw
    assert fake.tags("octo-org/app") == {"v2": image.digest}
    assert len(deletions(fake)) == 1


def test_a_packages_last_tag_stays_and_rm_says_why(fake: FakeGitHub, home: Home) -> None:
    image = fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home, "--rw") as mount:
        done = mount.run("LC_ALL=C rm -r octo-org/app/v1")
        assert "Operation not permitted" in done.stderr
        assert "last tag" in mount.errors()
        assert mount.read("octo-org/app/v1/manifest.json") == image.manifest.raw
    assert fake.tags("octo-org/app") == {"v1": image.digest}


def test_a_token_without_delete_packages_leaves_the_tag_and_is_named(fake: FakeGitHub, home: Home) -> None:
    fake.push("octo-org/app", ["v1", "v2"])
    before = fake.tags("octo-org/app")
    fake.github.tokens[TOKEN].scopes = frozenset({"read:packages", "write:packages"})
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home, "--rw") as mount:
        done = mount.run("LC_ALL=C rm -r octo-org/app/v1")
        assert "Permission denied" in done.stderr
        assert "delete:packages" in mount.errors()
    assert fake.tags("octo-org/app") == before
    assert fake.registry.writes() == []


def test_nothing_is_asked_for_a_deletion_in_a_read_only_mount(fake: FakeGitHub, home: Home) -> None:
    fake.push("octo-org/app", ["v1", "v2"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home) as mount:
        mount.list("octo-org/app")
        fake.forget()
        done = mount.run("LC_ALL=C rm -r octo-org/app/v1")
        assert "Read-only file system" in done.stderr
        assert [call for call in fake.calls if not call.startswith("GET")] == []
        assert fake.registry.writes() == []


def hold(fake: FakeGitHub, point: str) -> Gate:
    """Hold the daemon at a point of a deletion: before GitHub has done what is sent, or before it says so."""
    if point.startswith("DELETE"):
        return fake.hold_deletions(done=point == "DELETE done")
    return fake.registry.stall(lambda record: record.method == "PUT")


@pytest.mark.parametrize("point", ["PUT lost", "DELETE lost", "DELETE done"])
def test_a_daemon_killed_in_a_deletion_leaves_the_tag_gone_or_as_it_was_once_it_is_mounted_again(
    point: str, fake: FakeGitHub, home: Home, tmp_path: Path
) -> None:
    image = fake.push("octo-org/app", ["v1", "v2"])
    before = fake.tags("octo-org/app")
    configure(home, fake)
    sign_in(home, fake)
    place = tmp_path / "place"
    gate = hold(fake, point)
    with mount_of(fake, home, "--rw", path=place) as mount:
        remover = subprocess.Popen(
            ["rm", "octo-org/app/v1/manifest.json"], cwd=place, stderr=subprocess.DEVNULL
        )
        try:
            processes.wait_until(lambda: gate.waiting == 1, "the daemon comes to that point")
            held = fake.tags("octo-org/app")
            assert (held == before) == (point == "PUT lost")
            assert ("v1" in held) == (point != "DELETE done")
        finally:
            mount.kill()
            assert remover.wait(30) != 0
        fake.release_deletions()
        fake.registry.clear()
        assert len(list(home.state.rglob("*.deletion"))) == 1
        with mount_of(fake, home, "--rw", path=place):
            processes.wait_until(lambda: not list(home.state.rglob("*.deletion")), "the journal is settled")
        expected = before if point == "PUT lost" else {"v2": image.digest}
        assert fake.tags("octo-org/app") == expected
        assert fake.registry.store.find("octo-org/app", image.digest) is not None
        gate.open()


def test_a_token_revoked_meanwhile_is_permission_denied_and_shown_nowhere(
    fake: FakeGitHub, home: Home
) -> None:
    fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home) as mount:
        assert mount.list("octo-org") == ["app"]
        fake.github.tokens[TOKEN].revoked = True
        fake.registry.sign_in.revoke_tokens()
        home.regfs("refresh", mount.path, check=True)
        done = mount.run("LC_ALL=C ls octo-org")
        assert "Permission denied" in done.stderr
        done = mount.run("LC_ALL=C cat octo-org/app/v1/manifest.json")
        assert "Permission denied" in done.stderr
        assert TOKEN not in mount.errors()
        assert TOKEN not in mount.log()


def test_an_api_without_a_rate_left_is_busy_and_says_until_when(fake: FakeGitHub, home: Home) -> None:
    image = fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    fake.limited_until = time.time() + 1800
    with mount_of(fake, home) as mount:
        done = mount.run("LC_ALL=C ls octo-org")
        assert "resource busy" in done.stderr
        assert "UTC" in mount.errors()
        assert mount.read("octo-org/app/v1/manifest.json") == image.manifest.raw, "the registry goes on"


def test_a_forbidden_owner_is_denied_beside_one_that_is_allowed(fake: FakeGitHub, home: Home) -> None:
    fake.github.organisations["Secret"] = {"Octocat"}
    fake.github.tokens[TOKEN].forbidden = frozenset({"secret"})
    fake.push("octo-org/app", ["v1"])
    fake.push("secret/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home) as mount:
        assert {"secret", "octo-org"} <= set(mount.list())
        assert "Permission denied" in mount.run("LC_ALL=C ls secret").stderr
        assert mount.list("octo-org") == ["app"]


def test_without_read_org_public_organisations_are_shown_and_others_walked_to(
    fake: FakeGitHub, home: Home
) -> None:
    fake.github.tokens[TOKEN].scopes = frozenset({"read:packages"})
    fake.github.public_members["Octo-Org"] = {"Octocat"}
    fake.github.organisations["Quiet"] = {"Octocat"}
    fake.push("quiet/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    with mount_of(fake, home) as mount:
        assert {"octocat", "octo-org"} <= set(mount.list())
        assert mount.list("quiet") == ["app"]


def test_the_token_of_gh_is_used_where_nothing_else_is_kept(
    fake: FakeGitHub, home: Home, tmp_path: Path
) -> None:
    fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    program = bin_folder / "gh"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{bin_folder}/ran"\necho {TOKEN}\n')
    program.chmod(0o755)
    home.variables["PATH"] = f"{bin_folder}:{home.env['PATH']}"
    with mount_of(fake, home) as mount:
        assert mount.list("octo-org") == ["app"]
        assert mount.list("octo-org/app") == ["v1"]
        assert "gh auth token" in json.dumps(mount.status())
        assert TOKEN not in json.dumps(mount.status()) + mount.log()
    assert (bin_folder / "ran").read_text().splitlines() == ["auth token --hostname 127.0.0.1"]


def test_the_token_of_the_environment_is_used(fake: FakeGitHub, home: Home) -> None:
    fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    home.variables["GH_ENTERPRISE_TOKEN"] = TOKEN
    done = home.regfs("ls", "hub/octo-org")
    assert done.stdout.split() == ["app"], done.stderr


def test_an_owner_typed_as_the_website_spells_it_is_found(fake: FakeGitHub, home: Home) -> None:
    fake.push("octo-org/app", ["v1"])
    configure(home, fake)
    sign_in(home, fake)
    done = home.regfs("ls", "hub/Octo-Org/app")
    assert done.stdout.split() == ["v1"], done.stderr
    done = home.regfs("cat", f"{fake.address}/Octo-Org/app/v1/digest")
    assert done.stdout.strip() == str(fake.tags("octo-org/app")["v1"]), done.stderr


def test_what_happens_to_one_connection_shows_in_no_other(fake: FakeGitHub, home: Home) -> None:
    with FakeGitHub() as other:
        other.github.tokens["ghp_other"] = Token("Octocat")
        fake.push("octo-org/app", ["v1"])
        other.push("octo-org/tool", ["v1"])
        configure(home, fake, other)
        sign_in(home, fake)
        sign_in(home, other, "ghp_other")
        with mounted(home=home) as mount:
            fake.github.tokens[TOKEN].revoked = True
            fake.limited_until = time.time() + 1800
            assert mount.run("ls hub/octo-org").returncode != 0
            assert mount.list("hub1/octo-org") == ["tool"]


def test_a_classic_token_signs_in_and_the_mount_then_works_by_the_registrys_address(
    fake: FakeGitHub, home: Home
) -> None:
    fake.push("octo-org/app", ["v1"])
    api = f"api={fake.api}"
    with secret_service(home):

        def login(token: str) -> subprocess.CompletedProcess[str]:
            options = ["--provider", "ghcr", "--option", api, "-u", "octocat", "--password-stdin"]
            return home.regfs("login", *options, fake.address, stdin=f"{token}\n")

        wrong = login("ghp_wrong")
        assert wrong.returncode == 1
        assert "Nothing was stored" in wrong.stderr
        done = login(TOKEN)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        with mounted(fake.address, home=home) as mount:
            assert {"octocat", "octo-org"} <= set(mount.list())
            assert mount.list("octo-org/app") == ["v1"]


def test_the_device_flow_signs_in_with_a_client_id_of_ones_own_and_the_mount_then_deletes(
    fake: FakeGitHub, home: Home
) -> None:
    image = fake.push("octo-org/app", ["v1", "v2"])
    options = ["--provider", "ghcr", "--option", f"api={fake.api}", "--option", f"web={fake.api}"]
    options += ["--auth", "oauth", "--client-id", fake.client_id, "--flow", "device"]
    with secret_service(home):
        done = home.regfs("login", *options, fake.address)
        assert done.returncode == 0, done.stderr
        assert "WDJB-MJHT" in done.stdout + done.stderr
        assert "gho_device" not in done.stdout + done.stderr
        with mounted("--rw", fake.address, home=home) as mount:
            assert {"octocat", "octo-org"} <= set(mount.list())
            mount.run("rm -r octo-org/app/v1", check=True)
    assert fake.tags("octo-org/app") == {"v2": image.digest}
