"""Registries that lie, and networks that fail: an errno within the deadline, and a line that says what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.testing.behaviour import Auth, Behaviour, DigestHeader, Framing, Order, Paging
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image
from tests.support.mounts import Home, Mount, mounted

DEADLINE = 60.0
"""Seconds: a call's own 30, and as many again, since the machine may have other things to do."""
"""Seconds: what the manual promises, and a little for starting processes."""


@contextmanager
def hostile(behaviour: Behaviour, home: Home, *flags: str) -> Iterator[tuple[FakeRegistry, Mount]]:
    with FakeRegistry(behaviour) as registry:
        registry.push("team/app", [f"v{n}" for n in range(5)])
        with mounted(*flags, registry.address, home=home) as mount:
            yield registry, mount


def fails(mount: Mount, command: str, *words: str) -> None:
    """The command fails in time, with one of the kernel's ``words``, and a line in .regfs/errors says what to do."""
    began = time.monotonic()
    done = mount.run(f"LC_ALL=C {command}", timeout=DEADLINE)
    assert time.monotonic() - began < DEADLINE
    assert done.returncode != 0, done.stdout
    assert any(word in done.stderr for word in words), done.stderr
    assert "→" in mount.errors().splitlines()[-1]


@pytest.mark.parametrize("paging", [Paging.LOOP, Paging.EMPTY, Paging.FOREIGN])
@pytest.mark.parametrize("listing", ["tags", "catalog"])
def test_a_listing_that_does_not_end_or_leads_away_is_an_error(
    home: Home, paging: Paging, listing: str
) -> None:
    behaviour = Behaviour(page_size=2)
    setattr(behaviour, "tag_paging" if listing == "tags" else "catalog_paging", paging)
    with hostile(behaviour, home) as (registry, mount):
        for n in range(5):
            registry.push(f"team/r{n}", "v1")
        fails(mount, "ls team/app" if listing == "tags" else "ls .", "Input/output error")
        assert registry.foreign == []
        assert mount.read("team/app/v1/manifest.json")


def test_a_listing_that_brings_new_names_for_ever_ends_within_the_deadline(home: Home) -> None:
    with hostile(Behaviour(tag_paging=Paging.ENDLESS), home) as (_registry, mount):
        fails(mount, "ls team/app", "Input/output error", "Connection timed out", "File too large")


def test_bytes_that_are_not_what_their_digest_says_are_never_shown(home: Home) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        image = registry.push("team/app", "wrong", make_image("right"))
        other = make_image("other").manifest
        registry.corrupt_manifest("team/app", image.digest, other.raw, other.media_type)
        fails(mount, f"cat team/app/.digests/{image.digest.file_name}/manifest.json", "Bad message")
    with hostile(Behaviour(digest_header=DigestHeader.WRONG), home) as (_registry, mount):
        fails(mount, "cat team/app/v1/manifest.json", "Bad message")


def test_a_config_of_the_wrong_bytes_is_never_shown(home: Home) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        image = make_image("wrong config")
        registry.push("team/app", "wrong", image)
        registry.corrupt_blob("team/app", image.config.digest, b"x" * len(image.config.raw))
        fails(mount, "cat team/app/wrong/config.json", "Bad message")
        assert mount.read("team/app/v1/config.json")


def test_a_manifest_of_a_hundred_mebibytes_is_refused_and_costs_no_memory(home: Home) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        mount.read("team/app/v1/manifest.json")
        before = peak_memory(mount)
        registry.plant_huge("team/app", "huge")
        fails(mount, "cat team/app/huge/manifest.json", "File too large")
        assert peak_memory(mount) - before < 32 * 1024 * 1024


def peak_memory(mount: Mount) -> int:
    """The most memory that the daemon has had resident, in bytes."""
    lines = Path(f"/proc/{mount.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_a_deeply_nested_manifest_is_refused(home: Home) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        registry.plant_nested("team/app", "deep")
        fails(mount, "cat team/app/deep/manifest.json", "Input/output error")
        assert mount.read("team/app/v1/manifest.json")


@pytest.mark.parametrize("media_type", ["text/html", "application/json", ""])
def test_what_is_no_manifest_is_refused_whatever_it_calls_itself(home: Home, media_type: str) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        registry.plant("team/app", "page", b"<html>sign in</html>", media_type=media_type)
        registry.plant("team/app", "list", b"[]", media_type=media_type)
        fails(mount, "cat team/app/page/manifest.json", "Input/output error")
        fails(mount, "cat team/app/list/manifest.json", "Input/output error")


def test_a_manifest_without_or_with_a_wrong_content_type_is_read_by_what_it_is(home: Home) -> None:
    for content_type in ("", "text/plain", "application/json; charset=utf-8"):
        with hostile(Behaviour(content_type=content_type), home) as (_registry, mount):
            assert "config.json" in mount.list("team/app/v1")


def test_a_redirect_of_a_tag_to_another_host_is_refused_and_nothing_is_sent_there(home: Home) -> None:
    with hostile(Behaviour(redirect_manifests="elsewhere"), home) as (registry, mount):
        fails(mount, "cat team/app/v1/manifest.json", "Input/output error")
        assert not registry.foreign
        assert "127.0.0.2" in mount.errors()
        assert "allow_hosts" in mount.errors()


def test_a_redirect_of_a_listing_to_another_host_is_refused_and_nothing_is_sent_there(home: Home) -> None:
    with hostile(Behaviour(redirect_tags="elsewhere"), home) as (registry, mount):
        fails(mount, "ls team/app", "Input/output error")
        assert not registry.foreign
        assert "allow_hosts" in mount.errors()


def test_what_a_digest_verifies_is_taken_from_another_host_without_anything_of_ours(home: Home) -> None:
    behaviour = Behaviour(auth=Auth.BASIC, redirect_manifests="elsewhere", redirect_blobs="elsewhere")
    with FakeRegistry(behaviour) as registry:
        image = registry.push("team/app", "v1")
        home.docker_login(registry.address, "tester", "a-password")
        with mounted(registry.address, home=home) as mount:
            folder = f"team/app/.digests/{image.digest.file_name}"
            assert mount.read(f"{folder}/manifest.json")
            assert mount.read(f"{folder}/config.json")
            _check_bare(registry)


def test_a_host_that_the_user_allows_may_answer_for_tags_too(home: Home) -> None:
    behaviour = Behaviour(auth=Auth.BASIC, redirect_manifests="elsewhere")
    with FakeRegistry(behaviour) as registry:
        registry.push("team/app", "v1")
        home.docker_login(registry.address, "tester", "a-password")
        host = registry.elsewhere.removeprefix("http://")
        with mounted("-o", f"allow_hosts={host}", registry.address, home=home) as mount:
            assert mount.read("team/app/v1/manifest.json")
            _check_bare(registry)


def _check_bare(registry: FakeRegistry) -> None:
    """Something was asked of the other host, and nothing of ours went along."""
    assert registry.foreign
    sent = {name for request in registry.foreign for name in request.headers}
    assert sent <= {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert {request.method for request in registry.foreign} == {"GET"}
    assert not any(request.body for request in registry.foreign)


def test_a_redirect_to_where_no_registry_may_lead_is_refused_before_a_connection(home: Home) -> None:
    # A link-local address is where clouds keep the credentials of their machines.
    with hostile(Behaviour(redirect_manifests="http://169.254.169.254/latest"), home) as (_registry, mount):
        fails(mount, "cat team/app/v1/manifest.json", "Input/output error")
        assert "169.254.169.254" in mount.errors()


def test_a_long_listing_that_fails_midway_is_an_error_and_not_a_short_listing(home: Home) -> None:
    with FakeRegistry(Behaviour(page_size=100)) as registry:
        registry.push("team/app", [f"v{n:04}" for n in range(1000)])
        registry.delay(0.02, "tags")
        registry.fail(500, lambda request: request.kind == "tags" and "v0499" in request.target)
        with mounted("-o", "retries=0", registry.address, home=home) as mount:
            for command in ("ls team/app", "find team/app -maxdepth 1"):
                fails(mount, command, "Input/output error")
            registry.clear()
            assert len(mount.list("team/app")) == 1000


def test_a_redirect_that_leads_round_is_an_error(home: Home) -> None:
    with hostile(Behaviour(redirect_manifests="loop"), home) as (_registry, mount):
        fails(mount, "cat team/app/v1/manifest.json", "Input/output error")


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("order", list(Order))
def test_listings_are_whole_however_they_are_framed_and_ordered(
    home: Home, framing: Framing, order: Order
) -> None:
    behaviour = Behaviour(framing=framing, order=order, page_size=2)
    with hostile(behaviour, home) as (_registry, mount):
        assert mount.list("team/app") == [f"v{n}" for n in range(5)]


@pytest.mark.parametrize("paging", [Paging.ABSOLUTE, Paging.CUT, Paging.WHOLE])
def test_listings_are_whole_however_they_are_paged(home: Home, paging: Paging) -> None:
    with hostile(Behaviour(tag_paging=paging, catalog_paging=paging, page_size=2), home) as (
        _registry,
        mount,
    ):
        assert mount.list("team/app") == [f"v{n}" for n in range(5)]
        assert mount.list("team") == ["app"]


def test_a_truncated_manifest_is_never_shown(home: Home) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        registry.truncate(50, "manifest")
        fails(mount, "cat team/app/v1/manifest.json", "Input/output error", "No route to host")
        registry.clear()
        assert mount.read("team/app/v1/manifest.json")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "Permission denied"),
        (403, "Permission denied"),
        (404, "No such file or directory"),
        (429, "Device or resource busy"),
        (500, "Input/output error"),
        (503, "Input/output error"),
    ],
)
def test_each_refusal_is_its_own_errno(home: Home, status: int, words: str) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        registry.fail(status, "manifest", retry_after=0 if status >= 429 else None)
        done = mount.run("LC_ALL=C cat team/app/v1/manifest.json", timeout=DEADLINE)
        assert words in done.stderr, (done.stderr, mount.errors())


def test_passing_trouble_is_not_seen(home: Home) -> None:
    with hostile(Behaviour(), home) as (registry, mount):
        registry.fail(503, "manifest", times=2, retry_after=0)
        assert mount.read("team/app/v1/manifest.json")
        registry.reset("manifest", times=1)
        assert mount.read("team/app/v2/manifest.json")
        registry.fail(429, "tags", times=1, retry_after=1)
        assert mount.list("team/app")


def test_names_that_no_filesystem_should_see_are_dropped(home: Home) -> None:
    behaviour = Behaviour(listed_names=("../../etc", "a/b", "", "x" * 300, "naïve", "tab\there"))
    with hostile(behaviour, home) as (_registry, mount):
        assert mount.list("team/app") == [f"v{n}" for n in range(5)]
        assert mount.status()["registries"][0]["dropped_names"] >= 4
