"""The servers that the tests run against are real, hold what they were given, and go away."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.testing.images import Pushable, make_artifact, make_image, make_index
from tests.support import processes
from tests.support.registry import DockerRegistry
from tests.support.tls import CertificateAuthority
from tests.support.tokens import Algorithm, TokenServer

Start = Callable[..., DockerRegistry]


def test_what_is_pushed_is_what_the_registry_serves(docker_registry: Start) -> None:
    registry = docker_registry()
    contents: dict[str, Pushable] = {
        "oci": make_image("one"),
        "docker": make_image("two", family="docker"),
        "index": make_index(seed="three", attestations=True),
        "list": make_index(seed="four", family="docker"),
        "artifact": make_artifact(),
    }
    for tag, content in contents.items():
        registry.push("team/app", tag, content)
    for tag, content in contents.items():
        assert registry.get(f"team/app/manifests/{tag}") == content.manifest.raw
        for blob in content.blobs:
            assert registry.get(f"team/app/blobs/{blob.digest}") == blob.raw
    assert registry.tags("team/app") == {tag: content.digest for tag, content in contents.items()}


def test_laid_content_is_served_as_pushed_content_is(docker_registry: Start) -> None:
    registry = docker_registry(catalog_max_entries=500)
    index = make_index()
    registry.lay_image("team/app", index, [f"v{number}" for number in range(50)])
    registry.lay_repositories([f"many/r{number:03}" for number in range(150)], make_image("many"), ["a", "b"])
    assert len(json.loads(registry.get("team/app/tags/list"))["tags"]) == 50
    assert registry.get("team/app/manifests/v49") == index.manifest.raw
    assert registry.get(f"team/app/blobs/{index.blobs[0].digest}") == index.blobs[0].raw
    assert len(json.loads(registry.get("_catalog?n=500"))["repositories"]) == 151
    assert registry.get("many/r149/manifests/b") == make_image("many").manifest.raw


def test_laid_tags_go_when_their_digest_is_deleted(docker_registry: Start) -> None:
    registry = docker_registry()
    image = make_image()
    registry.lay_image("team/app", image, ["a", "b"])
    registry.skopeo("delete", registry.reference("team/app", "a"))
    assert registry.tags("team/app") == {}


def test_ten_thousand_tags_are_laid_in_seconds(docker_registry: Start) -> None:
    registry = docker_registry()
    start = time.monotonic()
    registry.lay_image("team/app", make_image(), [f"v{number}" for number in range(10_000)])
    assert time.monotonic() - start < 30
    assert len(json.loads(registry.get("team/app/tags/list"))["tags"]) == 10_000


def test_the_access_log_tells_every_request(docker_registry: Start) -> None:
    registry = docker_registry()
    registry.lay_image("team/app", make_image(), ["v1"])
    registry.get("team/app/manifests/v1")
    with pytest.raises(urllib.error.HTTPError):
        registry.get("team/app/manifests/absent")
    assert registry.requests() == [
        ("GET", "/v2/team/app/manifests/v1", 200),
        ("GET", "/v2/team/app/manifests/absent", 404),
    ]


def test_a_restarted_registry_has_its_port_and_its_content(docker_registry: Start) -> None:
    registry = docker_registry()
    registry.push("team/app", "v1")
    port, pid = registry.port, registry.pid
    registry.stop()
    assert not processes.alive(pid)
    with pytest.raises(urllib.error.URLError):
        registry.get("")
    registry.start()
    assert registry.port == port
    assert registry.get("team/app/manifests/v1")


def test_htpasswd_lets_in_only_who_is_in_it(docker_registry: Start) -> None:
    registry = docker_registry(htpasswd={"tester": "a-password"})
    registry.push("team/app", "v1")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        registry.get("")
    assert registry.get("", {"Authorization": "Basic dGVzdGVyOmEtcGFzc3dvcmQ="}) == b"{}"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_the_registry_takes_the_token_servers_tokens(
    docker_registry: Start, token_server: Callable[..., TokenServer], algorithm: Algorithm
) -> None:
    tokens = token_server({"tester": "a-password"}, algorithm)
    registry = docker_registry(token=tokens)
    registry.push("team/app", "v1")
    assert tokens.tokens >= 1
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        registry.get("team/app/manifests/v1")
    assert tokens.realm in refused.value.headers["WWW-Authenticate"]
    access = [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
    token = tokens.sign("tester", access)
    assert registry.get("team/app/manifests/v1", {"Authorization": f"Bearer {token}"})


def test_the_token_server_gives_less_than_was_asked_where_its_policy_says_so(
    token_server: Callable[..., TokenServer],
) -> None:
    tokens = token_server()
    tokens.policy.allowed = {"team/app": frozenset({"pull"})}
    form = {"scope": ["repository:team/app:pull,push"], "grant_type": ["password"]}
    form |= {"username": ["tester"], "password": ["a-password"], "access_type": ["offline"]}
    status, body = tokens.answer("POST", form, "")
    assert status == 200
    assert json.loads(body).keys() == {"access_token", "expires_in", "issued_at", "refresh_token"}
    refresh = {"grant_type": ["refresh_token"], "refresh_token": [json.loads(body)["refresh_token"]]}
    assert tokens.answer("POST", refresh, "")[0] == 200
    assert tokens.answer("POST", {**refresh, "refresh_token": ["made-up"]}, "")[0] == 401
    assert tokens.answer("GET", {}, "")[0] == 401
    assert [request.kind for request in tokens.requests] == [
        "password", "refresh_token", "refresh_token", "anonymous",
    ]  # fmt: skip


def test_a_tls_registry_is_trusted_by_who_has_its_authority(
    docker_registry: Start, authority: CertificateAuthority
) -> None:
    registry = docker_registry(tls=authority.issue())
    registry.push("team/app", "v1")
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    with urllib.request.urlopen(registry.url, context=trusting, timeout=10) as reply:
        assert reply.status == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(registry.url, timeout=10)


def test_a_prefix_stands_before_v2(docker_registry: Start) -> None:
    registry = docker_registry(prefix="/hub/")
    registry.lay_image("team/app", make_image(), ["v1"])
    assert registry.url.endswith("/hub/v2/")
    assert registry.get("team/app/manifests/v1") == make_image().manifest.raw


def test_deletion_can_be_off(docker_registry: Start) -> None:
    registry = docker_registry(delete=False)
    image = registry.push("team/app", "v1")
    request = urllib.request.Request(f"{registry.url}team/app/manifests/{image.digest}", method="DELETE")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=10)


def test_a_process_ends_with_its_test(tmp_path: Path) -> None:
    process = processes.start(["sleep", "60"], tmp_path / "log")
    assert process.pid in processes.children()
    processes.kill(process.pid)
    assert not processes.alive(process.pid)
    process.wait()
