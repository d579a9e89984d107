"""A central registry through a real mount: namespace by namespace, with dates, and a quota that looking does not touch."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.central import ADDRESS, write_plugin
from tests.support.mounts import Home, Mount, mounted


@pytest.fixture
def central(home: Home) -> Iterator[Mount]:
    """A mount of a central registry, of which nothing has been asked yet."""
    write_plugin(home)
    with mounted("--ttl", "60", ADDRESS, home=home) as mount:
        yield mount


def counted(mount: Mount, *kinds: str) -> list[int]:
    """How often each kind of question was asked of the registry."""
    counters = mount.status()["registries"][0]["counters"]
    return [counters.get(kind, 0) for kind in kinds]


def test_each_folder_asks_about_itself_and_no_other(central: Mount) -> None:
    assert central.list() == ["closed", "library", "me"]
    assert counted(central, "namespace", "tags", "resolve", "manifest") == [1, 0, 0, 0]
    assert central.list("me") == ["app", "tools"]
    assert counted(central, "namespace", "tags", "resolve", "manifest") == [2, 0, 0, 0]
    assert central.list("me/tools") == ["cli"]
    assert counted(central, "namespace", "tags", "resolve", "manifest") == [3, 0, 0, 0]
    central.run("ls -l library", check=True)
    assert counted(central, "namespace", "tags", "resolve", "manifest") == [4, 0, 0, 0]


def test_find_goes_through_all_namespaces_and_says_where_it_may_not(central: Mount) -> None:
    found = central.run("LC_ALL=C find . -mindepth 1 -maxdepth 2 -not -path './.regfs*' | sort")
    names = found.stdout.splitlines()
    assert names == ["./closed", "./library", "./library/alpine", "./me", "./me/app", "./me/tools"]
    assert "closed" in found.stderr
    assert "Permission denied" in found.stderr


def test_a_closed_namespace_lists_what_was_found_in_it_and_its_siblings_are_unharmed(central: Mount) -> None:
    assert "Permission denied" in central.run("LC_ALL=C ls closed").stderr
    assert central.run("stat -c %a closed", check=True).stdout.strip() == "111"
    assert central.list("library") == ["alpine"]
    assert central.read("closed/app/v1/digest").startswith(b"sha256:")
    assert central.list("closed") == ["app"]
    assert "closed" in central.list()


def test_a_namespace_that_is_not_listed_is_walked_to_by_name(central: Mount) -> None:
    assert central.list("strangers/app") == ["v1"]
    assert "strangers" in central.list()
    for name in ("nosuch", "library/nosuch", "strangers/app/nosuch"):
        assert central.run(f"test -e {name}").returncode == 1, name


def test_a_listing_that_is_not_all_says_so_and_why(central: Mount) -> None:
    central.list("me")
    partial = central.run("getfattr --only-values -n user.regfs.partial me", check=True)
    assert partial.stdout == "1"
    assert "the token does not see private repositories" in central.errors()


def test_tags_sort_by_date_and_keep_the_registrys_order_and_looking_costs_no_pull(central: Mount) -> None:
    central.list("library")
    assert central.run("ls -t library/alpine", check=True).stdout.split() == ["latest", "1.2", "1.1", "1.0"]
    assert central.run("ls -U library/alpine", check=True).stdout.split() == ["1.0", "1.1", "latest", "1.2"]
    dates = central.run("TZ=UTC stat -c %y library/alpine/*", check=True).stdout.splitlines()
    assert [date[:10] for date in dates] == ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-09"]
    central.run("ls -l library/alpine", check=True)
    digest = central.run("getfattr --only-values -n user.oci.digest library/alpine/1.0", check=True).stdout
    assert digest.startswith("sha256:")
    assert counted(central, "resolve", "manifest") == [0, 0]
    size = int(central.run("stat -c %s library/alpine/1.0/manifest.json", check=True).stdout)
    assert counted(central, "resolve", "manifest") == [1, 0]
    assert len(central.read("library/alpine/1.0/manifest.json")) == size
    assert counted(central, "resolve", "manifest") == [1, 1]


def test_one_manifest_read_by_two_tags_costs_one_pull_and_the_end_of_the_quota_is_told(
    central: Mount, home: Home
) -> None:
    for tag in ("latest", "1.2", "latest"):
        assert json.loads(central.read(f"library/alpine/{tag}/manifest.json"))["schemaVersion"] == 2
    assert counted(central, "manifest") == [1]
    quota = central.status()["registries"][0]["quota"]
    assert quota == {"limit": 100, "remaining": 99, "window": 21600}
    said = home.regfs("status", central.path, check=True).stdout
    assert "quota:" in said
    assert "remaining: 99" in said
    central.read("library/alpine/1.0/manifest.json")
    central.read("library/alpine/1.1/manifest.json")
    refused = central.run("LC_ALL=C cat me/app/v1/manifest.json")
    assert "Device or resource busy" in refused.stderr
    assert "too many pulls; 97 of 100 manifest requests are left (counted over 6 h)" in central.errors()
    assert central.read("library/alpine/1.0/manifest.json")


def test_deleting_a_namespace_deletes_its_tags_and_no_others(home: Home) -> None:
    write_plugin(home)
    with mounted("--rw", "--ttl", "2", ADDRESS, home=home) as mount:
        mount.run("rm library/alpine/1.1/manifest.json", check=True)
        assert counted(mount, "manifest", "delete_tag") == [0, 1]
        assert mount.list("library/alpine") == ["1.0", "1.2", "latest"]
        mount.run("rm -r me", check=True)
        assert "me" not in mount.list()
        assert mount.list("library/alpine") == ["1.0", "1.2", "latest"]


def test_configured_namespaces_and_a_fence_hold_here_too(home: Home) -> None:
    settings = (
        f'[registries.hub]\naddress = "{ADDRESS}"\nprovider = "central"\n'
        'namespaces = ["strangers"]\nonly = ["strangers/*", "library/*"]\n'
    )
    write_plugin(home, settings)
    with mounted("hub", home=home) as mount:
        assert mount.list() == ["library", "strangers"]
        before = counted(mount, "requests")
        for name in ("me", "me/app", "closed"):
            assert mount.run(f"test -e {name}").returncode == 1
        assert counted(mount, "requests") == before
        assert mount.read("strangers/app/v1/digest")
        assert mount.list("strangers") == ["app"]
