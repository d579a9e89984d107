"""Docker Hub through real mounts of a fake of it: namespaces, pulls, deletion, and what is said where something lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image, make_index
from tests.support.fake_hub import FakeHub
from tests.support.mounts import Home, mounted

KEY = "https://index.docker.io/v1/"
"""What Docker keeps Docker Hub's password under."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def configure(home: Home, hub: FakeHub, more: str = "") -> None:
    options = ", ".join(f'{name} = "{url}"' for name, url in hub.options.items())
    home.write_config(f'[registries.hub]\naddress = "docker.io"\noptions = {{ {options} }}\n{more}')


def sign_in(home: Home, hub: FakeHub, *, orgs: tuple[str, ...] = ()) -> None:
    hub.sign_up("alice", orgs=orgs)
    home.docker_login(KEY, "alice", "a-password")
    configure(home, hub)


def test_namespaces_repositories_and_tags_are_folders_and_dockers_own_key_signs_in(
    home: Home, hub: FakeHub
) -> None:
    sign_in(home, hub, orgs=("acme",))
    hub.push("alice/app", ["v1"])
    hub.private.add("alice/app")
    hub.push("acme/tool", ["v1", "v2"])
    image = hub.push("library/alpine", ["latest"])
    with mounted("index.docker.io", home=home) as mount:
        assert mount.list() == ["acme", "alice", "library"]
        assert mount.list("alice") == ["app"]
        assert mount.list("acme/tool") == ["v1", "v2"]
        assert mount.read("library/alpine/latest/manifest.json") == image.manifest.raw
        assert {"config.json", "digest", "manifest.json"} < set(mount.list("alice/app/v1"))
        assert mount.run("ls nobody").returncode != 0
        assert "alice" in mount.status()["registries"][0]["signed_in"]


def test_what_is_in_no_listing_is_found_by_its_name(home: Home, hub: FakeHub) -> None:
    configure(home, hub)
    image = hub.push("bitnami/redis", ["7"])
    with mounted("hub", home=home) as mount:
        assert "bitnami" not in mount.list()
        assert mount.read("bitnami/redis/7/manifest.json") == image.manifest.raw
        assert mount.list("bitnami") == ["redis"]
        for name in (
            "nosuch",
            "nosuch/app",
            "bitnami/nosuch",
            "bitnami/redis/nosuch",
            "bitnami/redis/7/nosuch",
        ):
            done = mount.run(f"LC_ALL=C ls -d {name}")
            assert "No such file or directory" in done.stderr, (name, done.stderr)


def test_a_name_alone_is_the_official_image_however_it_is_pasted(home: Home, hub: FakeHub) -> None:
    configure(home, hub)
    image = hub.push("library/alpine", ["latest"])
    hub.push("alpine/git", ["v2"])
    with mounted("hub", home=home) as mount:
        for path in ("alpine/latest", "alpine:latest", "library/alpine/latest", "library/alpine:latest"):
            assert mount.read(f"{path}/manifest.json") == image.manifest.raw, path
        assert mount.list("alpine") == ["git", "latest"]
        assert json.loads(mount.read("alpine/git/v2/manifest.json"))["layers"]
        assert home.regfs("ref", mount.path / "alpine/latest").stdout == "docker.io/alpine:latest\n"


def test_commands_without_a_mount_know_its_names_too(home: Home, hub: FakeHub) -> None:
    configure(home, hub)
    image = hub.push("library/alpine", ["3", "latest"])
    assert home.regfs("ls", "docker.io/alpine", check=True).stdout == "3\nlatest\n"
    for name in (
        "docker.io/alpine/latest",
        "registry-1.docker.io/alpine:latest",
        "hub/library/alpine/latest",
    ):
        said = home.regfs("cat", f"{name}/digest")
        assert said.stdout == f"{image.digest}\n", said.stderr
    assert home.regfs("ls", "https://hub.docker.com/_/alpine", check=True).stdout == "3\nlatest\n"
    assert (
        home.regfs("ref", "index.docker.io/library/alpine/latest").stdout
        == "docker.io/library/alpine:latest\n"
    )


def test_listing_and_stat_cost_no_pull_and_reading_twice_costs_one(home: Home, hub: FakeHub) -> None:
    sign_in(home, hub)
    for number in range(5):
        hub.push("alice/app", [f"v{number}"], make_index(seed=str(number)))
    with mounted("--ttl", "60", "hub", home=home) as mount:
        mount.run("ls -l alice/app && ls -la alice && stat alice/app/* && find alice -maxdepth 2", check=True)
        assert mount.run("getfattr --only-values -n user.oci.digest alice/app/v1").returncode in (0, 127)
        assert hub.pulls == 0
        assert [record for record in hub.registry.manifest_requests() if record.method != "HEAD"] == []
        mount.read("alice/app/v1/manifest.json")
        mount.read("alice/app/v1/manifest.json")
        mount.read("alice/app/v1/digest")
        assert hub.pulls == 1


def test_a_later_mount_pulls_nothing_that_an_earlier_one_read(home: Home, hub: FakeHub) -> None:
    sign_in(home, hub)
    image = hub.push("alice/app", ["v1"])
    for _ in range(2):
        with mounted("index.docker.io", home=home) as mount:
            assert mount.read("alice/app/v1/manifest.json") == image.manifest.raw
            assert mount.read("alice/app/v1/config.json")
        assert hub.pulls == 1


def test_reading_again_after_the_listing_aged_asks_and_does_not_pull(home: Home, hub: FakeHub) -> None:
    configure(home, hub)
    hub.push("team/app", ["v1"])
    with mounted("hub", home=home) as mount:
        first = mount.read("team/app/v1/manifest.json")
        home.regfs("refresh", mount.path, check=True)
        hub.registry.forget()
        assert mount.read("team/app/v1/manifest.json") == first
        assert hub.pulls == 1
        assert {record.method for record in hub.registry.manifest_requests()} == {"HEAD"}


def test_the_newest_tag_comes_first_where_time_sorts(home: Home, hub: FakeHub) -> None:
    configure(home, hub)
    for tag in ("b", "c", "a"):
        hub.push("team/app", [tag])
    with mounted("hub", home=home) as mount:
        assert mount.run("ls -t team/app", check=True).stdout.split() == ["a", "c", "b"]
        assert mount.run("stat -c %y team/app/b", check=True).stdout.startswith("2026-01-01")
        assert hub.pulls == 0


def test_long_listings_come_whole(home: Home, hub: FakeHub) -> None:
    sign_in(home, hub)
    image = make_image()
    hub.push("alice/app", [f"v{number:03}" for number in range(250)], image)
    for number in range(130):
        hub.push(f"alice/r{number:03}", ["v1"], image)
    with mounted("--ttl", "60", "hub", home=home) as mount:
        assert len(mount.list("alice")) == 131
        assert len(mount.list("alice/app")) == 250
        assert hub.asked().count("GET /v2/namespaces/alice/repositories/app/tags") == 3
        assert hub.asked().count("GET /v2/namespaces/alice/repositories") == 2


def test_one_of_two_siblings_is_deleted_and_the_other_lives(home: Home, hub: FakeHub) -> None:
    sign_in(home, hub)
    image = hub.push("alice/app", ["v1", "v2"])
    with mounted("--rw", "hub", home=home, expected_in_log=[]) as mount:
        mount.run("rm -r alice/app/v1", check=True)
        assert mount.list("alice/app") == ["v2"]
        assert mount.read("alice/app/v2/manifest.json") == image.manifest.raw
        assert mount.read(f"alice/app/.digests/{image.digest.file_name}/manifest.json") == image.manifest.raw
        assert "the Hub API's tag deletion" in mount.log()
    assert set(hub.registry.content()["alice/app"]) == {"v2"}
    assert hub.registry.writes() == []


def test_a_mount_without_rw_deletes_nothing(home: Home, hub: FakeHub) -> None:
    sign_in(home, hub)
    hub.push("alice/app", ["v1"])
    with mounted("hub", home=home) as mount:
        assert mount.run("rm -r alice/app/v1").returncode != 0
    assert set(hub.registry.content()["alice/app"]) == {"v1"}
    assert not [line for line in hub.asked() if line.startswith("DELETE")]


def test_a_token_that_may_not_delete_is_told_what_it_lacks(home: Home, hub: FakeHub) -> None:
    hub.sign_up("alice", "another")
    hub.give("alice", "dckr_pat_reader", "repo:read")
    home.docker_login(KEY, "alice", "dckr_pat_reader")
    configure(home, hub)
    hub.push("alice/app", ["v1"])
    with mounted("--rw", "hub", home=home) as mount:
        done = mount.run("LC_ALL=C rm -r alice/app/v1")
        assert re.search("Permission denied|Operation not permitted", done.stderr)
        assert "Read, Write, Delete" in mount.errors()
        assert "dckr_pat_reader" not in mount.errors() + mount.log()
        assert mount.list("alice/app") == ["v1"]


def test_an_organisations_token_serves_that_organisation(home: Home, hub: FakeHub) -> None:
    hub.orgs["alice"] = ("acme",)
    hub.give("acme", "dckr_oat_x")
    home.docker_login(KEY, "acme", "dckr_oat_x")
    configure(home, hub)
    image = hub.push("acme/app", ["v1"])
    hub.private.add("acme/app")
    with mounted("hub", home=home) as mount:
        assert mount.list() == ["acme", "library"]
        assert mount.list("acme/app") == ["v1"]
        assert mount.read("acme/app/v1/manifest.json") == image.manifest.raw


def test_a_forbidden_namespace_stands_beside_one_that_is_not(home: Home, hub: FakeHub) -> None:
    sign_in(home, hub, orgs=("acme",))
    hub.push("alice/app", ["v1"])
    hub.push("acme/app", ["v1"])
    hub.forbidden.add("acme")
    with mounted("hub", home=home) as mount:
        assert mount.list() == ["acme", "alice", "library"]
        assert "Permission denied" in mount.run("LC_ALL=C ls acme").stderr
        assert "acme" in mount.errors()
        assert mount.list("alice/app") == ["v1"]
        assert json.loads(mount.read("acme/app/v1/manifest.json"))["layers"], "found by name all the same"


def test_an_ended_token_of_the_api_is_renewed_without_anybody_noticing(home: Home, hub: FakeHub) -> None:
    sign_in(home, hub)
    hub.push("alice/app", ["v1"])
    hub.private.add("alice/app")
    with mounted("hub", home=home) as mount:
        assert mount.list("alice/app") == ["v1"]
        hub.expire_tokens()
        hub.registry.sign_in.revoke_tokens()
        home.regfs("refresh", mount.path, check=True)
        assert mount.list("alice/app") == ["v1"]
        assert mount.read("alice/app/v1/digest")
        assert hub.sign_ins == [("alice", 200)] * 2
        assert mount.errors() == ""


def test_a_revoked_token_is_an_error_that_names_the_command(home: Home, hub: FakeHub) -> None:
    hub.sign_up("alice", "another")
    token = hub.give("alice", "dckr_pat_x")
    home.docker_login(KEY, "alice", token.value)
    configure(home, hub)
    hub.push("alice/app", ["v1"])
    hub.push("library/alpine", ["latest"])
    hub.private.add("alice/app")
    with mounted("hub", home=home) as mount:
        assert mount.list("alice/app") == ["v1"]
        hub.revoke(token)
        home.regfs("refresh", mount.path, check=True)
        assert "Permission denied" in mount.run("LC_ALL=C cat alice/app/v1/manifest.json").stderr
        home.regfs("refresh", mount.path, check=True)
        assert "Permission denied" in mount.run("LC_ALL=C ls alice/app").stderr
        assert "regfs login docker.io" in mount.errors()
        assert token.value not in mount.errors() + mount.log()


def test_a_password_that_the_api_does_not_take_reads_and_the_root_says_what_is_missing(
    home: Home, hub: FakeHub
) -> None:
    hub.sign_up("alice", on_api=False)
    home.docker_login(KEY, "alice", "a-password")
    configure(home, hub)
    hub.push("alice/app", ["v1"])
    hub.private.add("alice/app")
    with mounted("hub", home=home) as mount:
        assert mount.list() == ["alice", "library"]
        assert "personal access token" in mount.errors() + str(mount.status())
        assert json.loads(mount.read("alice/app/v1/manifest.json"))["layers"]
        assert mount.list("alice/app") == ["v1"]


def test_what_is_left_of_the_limit_is_in_the_status_and_in_the_error_that_ends_it(
    home: Home, hub: FakeHub
) -> None:
    configure(home, hub)
    for tag in ("v1", "v2", "v3"):
        hub.push("team/app", [tag], make_image(tag))
    hub.limit = 2
    with mounted("--ttl", "60", "hub", home=home) as mount:
        mount.read("team/app/v1/manifest.json")
        assert mount.status()["registries"][0]["quota"] == {"limit": 2, "remaining": 1, "window": 21600}
        mount.read("team/app/v2/manifest.json")
        assert mount.run("cat team/app/v3/manifest.json").returncode != 0
        assert "0 of 2 in 6 hours" in mount.errors()
        assert "there are more in at most 6 hours" in mount.errors()
        assert mount.status()["registries"][0]["quota"]["remaining"] == 0
        assert mount.list("team/app") == ["v1", "v2", "v3"]
        assert mount.read("team/app/v1/manifest.json"), "what was read is still there"


def test_nothing_that_happens_to_it_shows_in_another_connection(home: Home, hub: FakeHub) -> None:
    secret = hub.sign_up("alice")
    home.docker_login(KEY, "alice", "a-password")
    hub.push("alice/app", ["v1"])
    hub.private.add("alice/app")
    with FakeRegistry(Behaviour(auth=Auth.BEARER)) as other:
        other.push("team/app", ["v1"])
        home.docker_login(other.address, "tester", "a-password")
        configure(home, hub, f'[registries.other]\naddress = "{other.address}"\n')
        hub.limit = 0
        with mounted(home=home) as mount:
            assert mount.list("hub") == ["alice", "library"]
            hub.revoke(secret)
            assert mount.run("ls hub/alice/app").returncode != 0
            assert mount.run("cat hub/alice/app/v1/manifest.json").returncode != 0
            assert mount.list("other/team/app") == ["v1"]
            assert json.loads(mount.read("other/team/app/v1/manifest.json"))["layers"]
            quotas = {found["name"]: found["quota"] for found in mount.status()["registries"]}
            assert quotas["other"] == {}
            assert not [line for line in mount.errors().splitlines() if "other" in line.split()[1]]
