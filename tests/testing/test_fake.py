"""The fake registry keeps the protocol where it should, breaks it where a test says so, and is strict about clients."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from regfs.manifest import MAX_MANIFEST, OCI_INDEX
from regfs.testing.behaviour import (
    Auth,
    Behaviour,
    Challenges,
    DigestDelete,
    DigestHeader,
    Framing,
    Order,
    Paging,
    TagDelete,
)
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image, make_index
from tests.support.clients import HEADERS
from tests.support.processes import wait_until
from tests.support.tls import CertificateAuthority


@contextmanager
def fake(**switches: Any) -> Iterator[tuple[FakeRegistry, httpx.Client]]:
    with (
        FakeRegistry(Behaviour(**switches)) as registry,
        httpx.Client(base_url=registry.url, headers=HEADERS, trust_env=False, timeout=20) as client,
    ):
        yield registry, client


def listed(client: httpx.Client, target: str, key: str = "tags", limit: int = 50) -> list[str]:
    names: list[str] = []
    url: str | None = target
    for _ in range(limit):
        if url is None:
            break
        reply = client.get(url)
        names += reply.json()[key] or ()
        link = reply.links.get("next")
        url = urljoin(str(reply.url), link["url"]) if link else None
    return names


# ── what a registry does ─────────────────────────────────────────────────────────────────────────


def test_what_was_pushed_is_served_by_tag_and_by_digest() -> None:
    with fake() as (registry, client):
        index = registry.push("team/app", ["v1", "v2"], make_index(attestations=True))
        for reference in ("v1", "v2", str(index.digest)):
            reply = client.get(f"team/app/manifests/{reference}")
            assert (reply.status_code, reply.content) == (200, index.manifest.raw)
            assert reply.headers["Docker-Content-Digest"] == str(index.digest)
            assert reply.headers["Content-Type"] == OCI_INDEX
        for blob in index.blobs:
            assert client.get(f"team/app/blobs/{blob.digest}").content == blob.raw
        head = client.head("team/app/manifests/v1")
        assert (head.headers["Content-Length"], head.content) == (str(len(index.manifest.raw)), b"")
        assert client.get("team/app/manifests/absent").json()["errors"][0]["code"] == "MANIFEST_UNKNOWN"
        assert client.get("").json() == {}
    assert registry.count("manifest") == 5
    assert registry.count("manifest", method="HEAD", status=200) == 1


def test_a_range_of_a_blob_is_given_exactly() -> None:
    with fake() as (registry, client):
        blob = registry.push("a", "v1").blobs[1]
        reply = client.get(f"a/blobs/{blob.digest}", headers={"Range": "bytes=3-9"})
        assert (reply.status_code, reply.content) == (206, blob.raw[3:10])
        assert reply.headers["Content-Range"] == f"bytes 3-9/{len(blob.raw)}"
        registry.behaviour.ranges = False
        reply = client.get(f"a/blobs/{blob.digest}", headers={"Range": "bytes=3-9"})
        assert (reply.status_code, reply.content) == (200, blob.raw)


def test_a_manifest_can_be_put_and_a_blob_uploaded() -> None:
    image = make_image("pushed")
    with fake() as (registry, client):
        kind = {"Content-Type": image.manifest.media_type}
        missing = client.put("a/manifests/v1", content=image.manifest.raw, headers=kind)
        assert missing.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
        for blob in image.blobs:
            place = urljoin(str(client.base_url), client.post("a/blobs/uploads/").headers["Location"])
            place = urljoin(place, client.patch(place, content=blob.raw).headers["Location"])
            assert client.put(f"{place}&digest={blob.digest}").status_code == 201
        mounted = client.post(f"b/blobs/uploads/?mount={image.blobs[0].digest}&from=a")
        assert mounted.status_code == 201
        assert client.put("a/manifests/v1", content=image.manifest.raw, headers=kind).status_code == 201
        assert client.get("a/manifests/v1").content == image.manifest.raw
        assert registry.content()["a"] == {"v1": image.digest}


# ── paging ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("paging", [Paging.RELATIVE, Paging.ABSOLUTE, Paging.WHOLE])
def test_all_names_come_once_however_they_are_ordered(paging: Paging, order: Order) -> None:
    names = [f"v{number}" for number in range(25)]
    with fake(tag_paging=paging, catalog_paging=paging, page_size=4, order=order) as (registry, client):
        registry.push("a", names)
        for name in names:
            registry.push(f"r/{name}")
        assert sorted(listed(client, "a/tags/list")) == sorted(names)
        assert len(listed(client, "_catalog?n=3", "repositories")) == 26
        assert registry.count("tags") == (1 if paging is Paging.WHOLE else 7)


def test_a_listing_that_is_cut_has_no_link() -> None:
    with fake(tag_paging=Paging.CUT) as (registry, client):
        registry.push("a", [f"v{number}" for number in range(9)])
        assert listed(client, "a/tags/list?n=4") == ["v0", "v1", "v2", "v3"]
        assert listed(client, "a/tags/list?n=4&last=v3") == ["v4", "v5", "v6", "v7"]
        assert listed(client, "a/tags/list?n=4&last=v8") == []
        assert listed(client, "a/tags/list?n=4&last=unknown") == ["v0", "v1", "v2", "v3"]
        assert len(listed(client, "a/tags/list")) == 9


@pytest.mark.parametrize(("paging", "distinct"), [(Paging.LOOP, 4), (Paging.EMPTY, 4), (Paging.ENDLESS, 40)])
def test_hostile_paging_does_not_end(paging: Paging, distinct: int) -> None:
    with fake(tag_paging=paging, page_size=4) as (registry, client):
        registry.push("a", [f"v{number}" for number in range(9)])
        assert len(set(listed(client, "a/tags/list", limit=10))) == distinct
        assert registry.count("tags") == 10


def test_a_foreign_link_leads_to_a_host_that_remembers_who_came() -> None:
    with fake(tag_paging=Paging.FOREIGN, page_size=1) as (registry, client):
        registry.push("a", ["v1", "v2"])
        link = client.get("a/tags/list").links["next"]["url"]
        assert link.startswith("http://127.0.0.2:")
        assert registry.foreign == []
        client.get(link)
        assert [record.kind for record in registry.foreign] == ["tags"]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_the_catalog_can_be_refused(status: int) -> None:
    with fake(catalog_status=status) as (registry, client):
        registry.push("a", "v1")
        assert client.get("_catalog").status_code == status
        assert client.get("a/tags/list").status_code == 200


def test_an_emptied_repository_says_null_or_is_not_known() -> None:
    with fake() as (registry, client):
        registry.push("a", "v1")
        assert client.delete("a/manifests/v1").status_code == 202
        assert client.get("a/tags/list").json() == {"name": "a", "tags": None}
        assert listed(client, "_catalog", "repositories") == ["a"]
        registry.behaviour.emptied_is_null = False
        assert client.get("a/tags/list").status_code == 404


# ── deletion ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("way", "status", "left"),
    [
        (TagDelete.ACCEPTED, 202, {"v2", "v3"}),
        (TagDelete.NO_CONTENT, 204, {"v2", "v3"}),
        (TagDelete.DIGEST_INVALID, 400, {"v1", "v2", "v3"}),
        (TagDelete.UNSUPPORTED, 405, {"v1", "v2", "v3"}),
        (TagDelete.TAKES_SIBLINGS, 202, set()),
    ],
)
def test_tag_deletion_has_its_ways(way: TagDelete, status: int, left: set[str]) -> None:
    with fake(tag_delete=way) as (registry, client):
        image = registry.push("a", ["v1", "v2", "v3"])
        assert client.delete("a/manifests/v1").status_code == status
        assert registry.content()["a"].keys() == left
        found = client.get(f"a/manifests/{image.digest}").status_code
        assert found == (404 if way is TagDelete.TAKES_SIBLINGS else 200)


@pytest.mark.parametrize(("way", "by_tag"), [(DigestDelete.WITH_TAGS, 404), (DigestDelete.ONLY_DIGEST, 200)])
def test_digest_deletion_has_its_ways(way: DigestDelete, by_tag: int) -> None:
    with fake(digest_delete=way) as (registry, client):
        image = registry.push("a", ["v1", "v2"])
        assert client.delete(f"a/manifests/{image.digest}").status_code == 202
        assert client.get(f"a/manifests/{image.digest}").status_code == 404
        assert client.get("a/manifests/v2").status_code == by_tag
        assert client.delete(f"a/manifests/sha256:{'1' * 64}").status_code == 404


def test_deletion_can_be_off() -> None:
    with fake(deletion=False) as (registry, client):
        image = registry.push("a", "v1")
        for reference in ("v1", "absent", str(image.digest), f"sha256:{'1' * 64}"):
            assert client.delete(f"a/manifests/{reference}").status_code == 405
        assert registry.content()["a"].keys() == {"v1"}


# ── wrong replies ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("framing", Framing)
def test_bodies_arrive_whole_in_each_framing(framing: Framing) -> None:
    with fake(framing=framing) as (registry, client):
        image = registry.push("a", "v1")
        reply = client.get("a/manifests/v1")
        assert reply.content == image.manifest.raw
        assert ("Content-Length" in reply.headers) == (framing is Framing.LENGTH)
        assert client.get("a/tags/list").json()["tags"] == ["v1"]


def test_digest_and_type_headers_can_lie_or_be_absent() -> None:
    with fake(digest_header=DigestHeader.ABSENT, content_type="") as (registry, client):
        image = registry.push("a", "v1")
        reply = client.get("a/manifests/v1")
        assert "Docker-Content-Digest" not in reply.headers
        assert "Content-Type" not in reply.headers
        registry.behaviour.digest_header = DigestHeader.WRONG
        registry.behaviour.content_type = "text/html"
        reply = client.get("a/manifests/v1")
        assert reply.headers["Docker-Content-Digest"] != str(image.digest)
        assert reply.headers["Content-Type"] == "text/html"
        registry.behaviour.head = False
        assert client.head("a/manifests/v1").status_code == 405


def test_manifests_can_be_huge_deep_or_of_wrong_bytes() -> None:
    with fake() as (registry, client):
        image = registry.push("a", ["v1", "huge", "deep"])
        registry.plant_huge("a", "huge", 8 * 1024 * 1024)
        registry.plant_nested("a", "deep")
        assert len(client.get("a/manifests/huge").content) == 2 * MAX_MANIFEST
        assert client.get("a/manifests/deep").text.count("[") == 100_000
        registry.corrupt_manifest("a", image.digest, b"{}", OCI_INDEX)
        registry.corrupt_blob("a", image.blobs[0].digest, b"other")
        assert client.get(f"a/manifests/{image.digest}").content == b"{}"
        assert client.get(f"a/blobs/{image.blobs[0].digest}").content == b"other"


def test_a_redirect_leads_to_another_host_that_has_the_same_content() -> None:
    with fake(redirect_blobs="elsewhere", redirect_manifests="elsewhere") as (registry, client):
        image = registry.push("a", "v1")
        for target in ("a/manifests/v1", f"a/blobs/{image.blobs[0].digest}"):
            assert client.get(target).status_code == 307
        assert client.get("a/manifests/v1", follow_redirects=True).content == image.manifest.raw
        blob = client.get(f"a/blobs/{image.blobs[0].digest}", follow_redirects=True)
        assert blob.content == image.blobs[0].raw
        assert [record.kind for record in registry.foreign] == ["manifest", "blob"]
        registry.behaviour.redirect_manifests = "loop"
        with pytest.raises(httpx.TooManyRedirects):
            client.get("a/manifests/v1", follow_redirects=True)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


def test_a_redirect_can_be_good_for_a_while_only() -> None:
    with fake(redirect_blobs="elsewhere", redirect_lifetime=0.3) as (registry, client):
        image = registry.push("a", "v1")
        target = f"a/blobs/{image.blobs[0].digest}"
        leads_to = client.get(target).headers["location"]
        assert client.get(leads_to).content == image.blobs[0].raw
        time.sleep(0.4)
        assert client.get(leads_to).status_code == 403
        assert client.get(client.get(target).headers["location"]).content == image.blobs[0].raw


def test_tls_is_spoken_with_the_certificate_that_it_was_given(authority: CertificateAuthority) -> None:
    issued = authority.issue()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(issued.certificate, issued.key)
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    with FakeRegistry(Behaviour(tls=served, redirect_blobs="elsewhere", auth=Auth.BEARER)) as registry:
        image = registry.push("a", "v1")
        with httpx.Client(
            base_url=registry.url, headers=HEADERS, trust_env=False, verify=trusting, follow_redirects=True
        ) as client:
            token = bearer(client, registry, "repository:a:pull")["token"]
            known = {"Authorization": f"Bearer {token}"}
            blob = client.get(f"a/blobs/{image.blobs[0].digest}", headers=known)
            assert blob.content == image.blobs[0].raw
            assert str(blob.url).startswith("https://127.0.0.2:")
            assert client.get(f"{registry.elsewhere_plain}/v2/a/blobs/{image.blobs[0].digest}").is_success
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(registry.url, headers=HEADERS, trust_env=False)


def test_errors_come_as_often_as_arranged() -> None:
    with fake() as (registry, client):
        registry.push("a", "v1")
        registry.fail(429, "manifest", times=1, retry_after=2)
        registry.fail(503, "manifest", times=2)
        statuses = [client.get("a/manifests/v1").status_code for _ in range(5)]
        assert statuses == [429, 503, 503, 200, 200]
        registry.fail(500, lambda record: record.method == "DELETE")
        assert client.delete("a/manifests/v1").status_code == 500
        registry.clear()
        assert client.delete("a/manifests/v1").status_code == 202


def test_a_reset_and_a_truncation_are_felt_by_the_client() -> None:
    with fake() as (registry, client):
        registry.push("a", "v1")
        registry.reset("manifest", times=1)
        with pytest.raises(httpx.TransportError):
            client.get("a/manifests/v1")
        registry.truncate(10, "manifest", times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("a/manifests/v1")
        assert client.get("a/manifests/v1").status_code == 200
        assert [record.status for record in registry.requests] == [0, 200, 200]


def test_two_hundred_requests_can_be_held_at_once() -> None:
    with fake() as (registry, client):
        registry.push("a", "v1")
        gate = registry.stall("manifest")
        with (
            httpx.Client(
                base_url=registry.url,
                headers=HEADERS,
                trust_env=False,
                limits=httpx.Limits(max_connections=None),
            ) as many,
            ThreadPoolExecutor(200) as pool,
        ):
            held = [pool.submit(many.get, "a/manifests/v1", timeout=60) for _ in range(200)]
            wait_until(lambda: gate.waiting == 200, "all wait", 30)
            assert client.get("a/tags/list").status_code == 200
            gate.open()
            assert {future.result().status_code for future in held} == {200}
        assert registry.max_in_flight >= 200
        assert (registry.in_flight, gate.waiting) == (0, 0)
        assert client.get("a/manifests/v1").status_code == 200


def test_a_body_can_be_held_in_its_middle() -> None:
    with fake() as (registry, client):
        image = registry.push("a", "v1")
        gate = registry.stall("manifest", after=100)
        with client.stream("GET", "a/manifests/v1") as reply:
            pieces = reply.iter_raw()
            assert next(pieces) == image.manifest.raw[:100]
            threading.Timer(0.05, gate.open).start()
            assert b"".join(pieces) == image.manifest.raw[100:]


def test_a_registry_that_went_down_comes_back_on_its_port() -> None:
    with fake() as (registry, client):
        registry.push("a", "v1")
        assert client.get("a/tags/list").status_code == 200
        address = registry.address
        registry.stop()
        with pytest.raises(httpx.TransportError):
            client.get("a/tags/list")
        registry.start()
        assert registry.address == address
        assert client.get("a/tags/list").status_code == 200


def test_held_requests_do_not_keep_it_from_stopping() -> None:
    with fake() as (registry, _), ThreadPoolExecutor(1) as pool:
        registry.stall()
        held = pool.submit(httpx.get, registry.url, headers=HEADERS, trust_env=False, timeout=30)
        wait_until(lambda: registry.in_flight == 1, "it waits")
        registry.stop()
        assert isinstance(held.exception(), httpx.TransportError)


# ── sign-in ──────────────────────────────────────────────────────────────────────────────────────


def test_basic_lets_in_who_knows_the_password() -> None:
    with fake(auth=Auth.BASIC) as (registry, client):
        registry.push("a", "v1")
        refused = client.get("a/manifests/v1")
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="fake registry"'
        assert client.get("a/manifests/v1", auth=("tester", "wrong")).status_code == 401
        assert client.get("a/manifests/v1", auth=("tester", "a-password")).status_code == 200
        shown = registry.requests[-1].headers["authorization"]
        assert (shown, registry.count("manifest", status=401)) == ("Basic …", 2)


def bearer(client: httpx.Client, registry: FakeRegistry, scope: str, **more: Any) -> dict[str, Any]:
    reply = client.get(
        registry.realm, params={"service": "fake-registry", "scope": scope}, auth=("tester", "a-password")
    )
    found: dict[str, Any] = reply.json()
    return found


def test_a_token_is_good_for_its_scope_alone() -> None:
    with fake(auth=Auth.BEARER) as (registry, client):
        registry.push("a", "v1")
        challenge = client.get("a/manifests/v1").headers["WWW-Authenticate"]
        assert (
            challenge == f'Bearer realm="{registry.realm}",service="fake-registry",scope="repository:a:pull"'
        )
        token = bearer(client, registry, "repository:a:pull")["token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("a/manifests/v1", headers=headers).status_code == 200
        refused = client.delete("a/manifests/v1", headers=headers)
        assert refused.status_code == 401
        assert 'scope="repository:a:delete"' in refused.headers["WWW-Authenticate"]
        assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
        registry.sign_in.revoke_tokens()
        stale = client.get("a/manifests/v1", headers=headers)
        assert 'error="invalid_token"' in stale.headers["WWW-Authenticate"]
        assert (registry.tokens, registry.manifest_requests()[0].status) == (1, 200)


def test_tokens_come_by_post_and_for_identity_tokens() -> None:
    with fake(auth=Auth.BEARER, token_names=("access_token",)) as (registry, client):
        form = {"grant_type": "password", "username": "tester", "password": "a-password", "service": "s"}
        first = client.post(registry.realm, data={**form, "access_type": "offline"}).json()
        assert first.keys() == {"access_token", "expires_in", "refresh_token"}
        second = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"], "service": "s"}
        assert client.post(registry.realm, data=second).status_code == 200
        assert client.post(registry.realm, data={**form, "password": "wrong"}).status_code == 401
        registry.behaviour.token_post = 405
        assert client.post(registry.realm, data=form).status_code == 405
        assert [i.kind for i in registry.token_requests] == [
            "password", "refresh_token", "password", "password",
        ]  # fmt: skip


def test_an_expired_token_a_denied_repository_and_an_unknown_action() -> None:
    with fake(auth=Auth.BEARER, denied=frozenset({"b"}), actions=frozenset({"pull"})) as (registry, client):
        registry.push("a", "v1")
        registry.push("b", "v1")
        token = bearer(client, registry, "repository:b:pull")["token"]
        assert client.get("b/tags/list", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        assert "token" not in bearer(client, registry, "repository:a:delete")
        registry.behaviour.token_lifetime = 0.0
        token = bearer(client, registry, "repository:a:pull")["token"]
        assert client.get("a/tags/list", headers={"Authorization": f"Bearer {token}"}).status_code == 401


@pytest.mark.parametrize("style", [s for s in Challenges if s not in (Challenges.NONE, Challenges.PING_ONLY)])
def test_every_challenge_still_names_its_realm(style: Challenges) -> None:
    with fake(auth=Auth.BEARER, challenges=style) as (registry, client):
        challenge = ", ".join(client.get("a/tags/list").headers.get_list("WWW-Authenticate"))
        assert "bearer" in challenge.lower()
        assert ("/token" if style is Challenges.RELATIVE else registry.realm) in challenge


def test_two_scopes_come_with_the_one_that_matters_last() -> None:
    with fake(auth=Auth.BEARER, challenges=Challenges.SCOPES) as (_, client):
        challenge = client.get("a/tags/list").headers["WWW-Authenticate"]
        assert 'scope="repository:another/one:pull repository:a:pull"' in challenge


def test_a_basic_realm_may_be_a_url() -> None:
    with fake(auth=Auth.BASIC, challenges=Challenges.BASIC_URL) as (registry, client):
        challenge = client.get("a/tags/list").headers["WWW-Authenticate"]
        assert challenge == f'Basic realm="{registry.realm}",service="fake-registry"'


def test_who_sent_what_is_not_taken_may_be_told_of_another_scheme() -> None:
    with fake(auth=Auth.BEARER, challenges=Challenges.OTHER_AFTER) as (_, client):
        assert client.get("a/tags/list").headers["WWW-Authenticate"].startswith("Bearer ")
        wrong = client.get("a/tags/list", headers={"Authorization": "Bearer wrong"})
        assert wrong.headers["WWW-Authenticate"] == 'Basic realm="fake registry"'


def test_the_challenge_may_be_given_at_the_entrance_alone() -> None:
    with fake(auth=Auth.BEARER, challenges=Challenges.PING_ONLY) as (_, client):
        assert "WWW-Authenticate" not in client.get("a/tags/list").headers
        assert client.get("").headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_token_endpoint_may_have_a_clock_of_its_own_talk_long_and_read_one_scope() -> None:
    switches = {"issued_ago": -3600.0, "token_padding": 300_000, "first_scope_only": True}
    with fake(auth=Auth.BEARER, **switches) as (registry, client):
        registry.push("a", "v1")
        found = bearer(client, registry, "repository:b:pull repository:a:pull")
        assert datetime.fromisoformat(found["issued_at"]) > datetime.now(UTC) + timedelta(minutes=59)
        assert len(found["padding"]) == 300_000
        headers = {"Authorization": f"Bearer {found['token']}"}
        assert client.get("a/tags/list", headers=headers).status_code == 401
        assert registry.token_requests[-1].scopes == ("repository:b:pull",)


def test_a_key_goes_in_a_header_and_to_this_registry_alone() -> None:
    with fake(auth=Auth.KEY, redirect_blobs="elsewhere") as (registry, client):
        blob = registry.push("a", "v1").blobs[0]
        assert client.get("a/tags/list").status_code == 401
        key = {"X-Fake-Key": "a-password"}
        assert client.get("a/tags/list", headers=key).status_code == 200
        assert client.get(f"a/blobs/{blob.digest}", headers=key, follow_redirects=True).status_code == 400
        assert "the key went to another host" in registry.violations[0]
        assert "a-password" not in repr(registry.records)
        registry.violations.clear()


def test_the_other_host_may_ask_for_a_sign_in_of_its_own() -> None:
    with fake(redirect_blobs="elsewhere", elsewhere_asks=True) as (registry, client):
        blob = registry.push("a", "v1").blobs[0]
        asked = client.get(f"a/blobs/{blob.digest}", follow_redirects=True)
        assert asked.status_code == 401
        assert f'realm="{registry.elsewhere}/token"' in asked.headers["WWW-Authenticate"]
        client.get(f"{registry.elsewhere}/token", auth=("tester", "a-password"))
        assert "basic credentials went to another host" in registry.violations[0]
        assert registry.tokens == 0
        registry.violations.clear()


def test_a_registry_may_have_an_api_of_its_own_behind_its_sign_in() -> None:
    with fake(auth=Auth.BASIC) as (registry, client):
        registry.serve("_forge/projects", lambda: {"projects": list(registry.content())})
        registry.push("a", "v1")
        assert client.get("_forge/projects").status_code == 401
        assert client.get("_forge/projects", auth=("tester", "a-password")).json() == {"projects": ["a"]}
        assert client.get("_forge/others", auth=("tester", "a-password")).status_code == 400
        registry.violations.clear()


# ── strictness ───────────────────────────────────────────────────────────────────────────────────


def refused(reason: str, send: Callable[[FakeRegistry, httpx.Client], httpx.Response]) -> None:
    with fake() as (registry, client):
        registry.push("a", "v1")
        assert send(registry, client).status_code == 400
        held_against_it = "\n".join(registry.violations)
        registry.violations.clear()
    assert reason in held_against_it


def test_a_violation_fails_the_test_that_it_happened_in() -> None:
    registry = FakeRegistry()
    registry.start()
    httpx.get(registry.url, headers={**HEADERS, "User-Agent": ""}, trust_env=False)
    with pytest.raises(AssertionError, match="no User-Agent"):
        registry.__exit__(None, None, None)


def test_a_request_that_no_good_client_sends_is_refused() -> None:
    digest = make_image("a:v1").blobs[0].digest
    far = {"Range": "bytes=0-100000"}
    refused("without accepting", lambda _, c: c.get("a/manifests/v1", headers={"Accept": "*/*"}))
    refused("User-Agent", lambda _, c: c.get("a/tags/list", headers={"User-Agent": ""}))
    refused("Accept-Encoding", lambda _, c: c.get("a/tags/list", headers={"Accept-Encoding": "gzip"}))
    refused("POST of a manifest", lambda _, c: c.post("a/manifests/v1"))
    refused("not plain", lambda _, c: c.get("a//b/tags/list"))
    refused("not a repository's name", lambda _, c: c.get("A/tags/list"))
    refused("neither a tag nor a digest", lambda _, c: c.delete("a/manifests/"))
    refused("not a digest", lambda _, c: c.get("a/blobs/sha256:12"))
    refused("past the end", lambda _, c: c.get(f"a/blobs/{digest}", headers=far))
    refused("no challenge asked for", lambda _, c: c.get("a/tags/list", auth=("tester", "a-password")))
    refused("no registry has", lambda r, c: c.get(f"http://{r.authority}/v1/a"))
    refused("not a number", lambda _, c: c.get("a/tags/list?n=0"))
    refused("with a body", lambda _, c: c.request("GET", "a/tags/list", content=b"x"))
    refused("another host", lambda r, c: c.get(f"{r.elsewhere}/v2/", auth=("tester", "a-password")))


def test_a_client_that_is_not_held_to_it_may_do_as_it_likes() -> None:
    with fake(strict=False) as (registry, client):
        registry.push("a", "v1")
        assert client.get("a/manifests/v1", headers={"Accept": "*/*", "User-Agent": ""}).status_code == 200
        assert client.get("a/blobs/sha256:12").status_code == 400


def test_a_prefix_stands_before_v2() -> None:
    with fake(prefix="/hub/one") as (registry, client):
        registry.push("a", [f"v{n}" for n in range(5)])
        registry.behaviour.page_size = 2
        assert registry.address.endswith("/hub/one")
        assert len(listed(client, "a/tags/list")) == 5


def test_json_of_the_kit_is_json() -> None:
    for made in (make_image(), make_index(), make_image(family="docker"), make_index(family="docker")):
        assert json.loads(made.manifest.raw)["schemaVersion"] == 2
        assert made.parsed().digest == made.digest


def test_requests_to_an_api_of_its_own_are_counted_and_can_fail_as_any_other() -> None:
    with FakeRegistry() as registry:
        registry.serve("_forge/projects", lambda: {"projects": ["team/app"]})
        url = f"{registry.url}_forge/projects"
        headers = {"Accept-Encoding": "identity"}
        assert httpx.get(url, headers=headers).json() == {"projects": ["team/app"]}
        registry.fail(503, "own", times=1)
        assert httpx.get(url, headers=headers).status_code == 503
        assert registry.count("own") == len(registry.requests) == 2
