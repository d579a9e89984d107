"""Signatures, SBOMs and attestations are read where they belong, in whichever way they were attached."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from regfs.digest import Digest
from regfs.manifest import OCI_INDEX, OCI_MANIFEST
from regfs.reference import fallback_tag
from regfs.testing.behaviour import Behaviour, Paging, TagDelete
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import (
    Content,
    Image,
    Pushable,
    make_artifact,
    make_image,
    make_index,
    make_referrers_index,
)
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_programs
from tests.support.registry import DockerRegistry

RegistryFactory = Callable[..., DockerRegistry]

IMAGE = make_image("subject")
SPDX = json.dumps({"spdxVersion": "SPDX-2.3", "name": "app", "packages": [{"name": "zlib"}]}).encode()
SBOM = make_artifact("application/spdx+json", {"sbom.spdx.json": SPDX}, subject=IMAGE.manifest)
NOTATION = make_artifact(
    "application/vnd.cncf.notary.signature", {"signature.jws": b'{"payload":"e30"}'}, subject=IMAGE.manifest
)


def cosign(layer_type: str, payload: object, annotations: dict[str, str] | None = None) -> Image:
    """What cosign pushes under a tag of its own: an image manifest without a subject (cosign, SIGNATURE_SPEC.md)."""
    layer = Content(layer_type, json.dumps(payload).encode())
    config = Content(
        "application/vnd.oci.image.config.v1+json",
        b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}',
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.reference(),
        "layers": [layer.reference(annotations=annotations)],
    }
    return Image(Content(OCI_MANIFEST, json.dumps(manifest).encode()), config, (layer,), None)


PAYLOAD = {
    "critical": {
        "identity": {"docker-reference": "registry.example.com/team/app"},
        "image": {"docker-manifest-digest": str(IMAGE.digest)},
        "type": "cosign container image signature",
    }
}
COSIGN_SIG = cosign(
    "application/vnd.dev.cosign.simplesigning.v1+json",
    PAYLOAD,
    {"dev.cosignproject.cosign/signature": "MEUC"},
)
COSIGN_ATT = cosign("application/vnd.dsse.envelope.v1+json", {"payloadType": "application/vnd.in-toto+json"})
COSIGN_SBOM = cosign("text/spdx+json", {"spdxVersion": "SPDX-2.2"})


def short(kind: str, what: Image) -> str:
    return f"{kind}-{what.digest.hex[:12]}"


EVERYTHING = sorted(
    [
        short("sbom", SBOM),
        short("signature", NOTATION),
        short("signature", COSIGN_SIG),
        short("attestation", COSIGN_ATT),
        short("sbom", COSIGN_SBOM),
    ]
)


class Registry(Protocol):
    """What both registries here have."""

    @property
    def address(self) -> str: ...
    @property
    def url(self) -> str: ...


def send(method: str, url: str, body: bytes, kind: str = "application/octet-stream") -> str:
    """One request as a client that pushes makes it; returns the Location."""
    headers = {"Content-Type": kind, "User-Agent": "a-signer", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, body, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as reply:
        place: str = urllib.parse.urljoin(url, reply.headers.get("Location", ""))
        return place


def put(registry: Registry, repository: str, what: Pushable, tag: str = "") -> None:
    """Push by the protocol: blobs, then the manifests, the last one under ``tag`` or by its digest."""
    base = f"{registry.url}{repository}"
    for blob in what.blobs:
        place = send("POST", f"{base}/blobs/uploads/", b"")
        send("PUT", f"{place}{'&' if '?' in place else '?'}digest={blob.digest}", blob.raw)
    for manifest in what.manifests():
        reference = tag if tag and manifest.digest == what.digest else str(manifest.digest)
        send("PUT", f"{base}/manifests/{reference}", manifest.raw, manifest.media_type)


def sign(registry: Registry, *, keeps_list: bool) -> None:
    """Attach to the image all that there is, as each tool does: the list is the client's own where the registry has none."""
    put(registry, "team/app", IMAGE, "v1")
    for referrer in (SBOM, NOTATION):
        put(registry, "team/app", referrer)
    if not keeps_list:
        put(registry, "team/app", make_referrers_index([SBOM, NOTATION]), fallback_tag(IMAGE.digest))
    for suffix, what in (("sig", COSIGN_SIG), ("att", COSIGN_ATT), ("sbom", COSIGN_SBOM)):
        put(registry, "team/app", what, f"{fallback_tag(IMAGE.digest)}.{suffix}")


@pytest.fixture(params=["a registry with the API", "Docker's registry, which has none"])
def signed(request: pytest.FixtureRequest, docker_registry: RegistryFactory) -> Iterator[Registry]:
    if request.param.startswith("Docker"):
        need_programs("docker-registry")
        registry = docker_registry()
        sign(registry, keeps_list=False)
        yield registry
        return
    with FakeRegistry(Behaviour(tag_delete=TagDelete.ACCEPTED)) as fake:
        sign(fake, keeps_list=True)
        yield fake


@pytest.fixture
def mount(signed: Registry, home: Home) -> Iterator[Mount]:
    with mounted("--ttl", "60", signed.address, home=home) as mount:
        yield mount


# ── reading ──


def test_all_that_refers_to_an_image_is_in_one_folder_however_it_was_attached(mount: Mount) -> None:
    assert mount.list("team/app/v1/referrers/") == EVERYTHING
    assert mount.list("team/app/.tags/v1/referrers/") == EVERYTHING
    assert mount.list(f"team/app/.digests/{IMAGE.digest.file_name}/referrers") == EVERYTHING


def test_a_signatures_payload_and_an_sbom_are_read_with_cat_and_jq(mount: Mount) -> None:
    need_programs("jq")
    of = "team/app/v1/referrers"
    names = mount.run(f"jq -r '.packages[].name' {of}/sbom-*/layers/sbom.spdx.json", check=True).stdout
    assert names == "zlib\n"
    assert mount.run(f"jq -r .payload {of}/signature-*/layers/signature.jws", check=True).stdout == "e30\n"
    payload = f"{of}/{short('signature', COSIGN_SIG)}/layers/*"
    signed_digest = mount.run(f"jq -r '.critical.image[]' {payload}", check=True).stdout
    assert signed_digest == mount.read("team/app/v1/digest").decode()
    signature = mount.run(
        f"jq -r '.layers[0].annotations[\"dev.cosignproject.cosign/signature\"]' "
        f"{of}/{short('signature', COSIGN_SIG)}/manifest.json",
        check=True,
    )
    assert signature.stdout == "MEUC\n"


def test_each_is_shaped_like_a_tag_and_its_bytes_are_exact(mount: Mount) -> None:
    folder = f"team/app/v1/referrers/{short('sbom', SBOM)}"
    assert {"manifest.json", "digest", "config.json", "layers", "referrers"} <= set(mount.list(f"{folder}/"))
    assert mount.read(f"{folder}/manifest.json") == SBOM.manifest.raw
    assert mount.read(f"{folder}/digest").decode() == f"{SBOM.digest}\n"
    assert mount.read(f"{folder}/layers/sbom.spdx.json") == SPDX
    assert mount.run(["sh", "-c", f"cd {folder}/referrers && ls -A"], check=True).stdout == ""


def test_an_artifact_that_is_no_image_has_no_root(mount: Mount) -> None:
    folder = f"team/app/v1/referrers/{short('sbom', SBOM)}"
    assert "rootfs" not in mount.list(f"{folder}/")
    assert mount.run(f"ls {folder}/rootfs").returncode != 0


def test_names_bear_no_colon_and_links_end_recursion(mount: Mount) -> None:
    listed = mount.run(f"find team/app/.digests/{IMAGE.digest.file_name}/ -name '*:*'", check=True).stdout
    assert listed == ""
    links = mount.run("find team/app/v1/referrers/ -type l | wc -l", check=True).stdout
    assert int(links) == len(EVERYTHING)


def test_buildkits_attestations_are_found_at_their_platforms(
    docker_registry: RegistryFactory, home: Home
) -> None:
    need_programs("docker-registry", "jq")
    registry = docker_registry()
    index = make_index(attestations=True)
    put(registry, "team/app", index, "multi")
    with mounted(registry.address, home=home) as mount:
        assert mount.list("team/app/multi/platforms") == ["linux-amd64", "linux-arm64-v8"]
        folder = "team/app/multi/platforms/linux-amd64/referrers"
        (name,) = mount.list(f"{folder}/")
        assert name == short("attestation", index.images[2])
        subject = mount.run(f"jq -r .subject {folder}/{name}/layers/*", check=True).stdout
        assert subject == mount.read("team/app/multi/platforms/linux-amd64/digest").decode()


def test_a_signature_made_now_shows_within_the_time_to_live(home: Home) -> None:
    with FakeRegistry() as registry, mounted("--ttl", "0", registry.address, home=home) as mount:
        put(registry, "team/app", IMAGE, "v1")
        assert mount.list("team/app/v1/referrers/") == []
        put(registry, "team/app", NOTATION)
        assert mount.list("team/app/v1/referrers/") == [short("signature", NOTATION)]


# ── what it costs ──


@pytest.fixture
def counted(home: Home) -> Iterator[tuple[FakeRegistry, Mount]]:
    with FakeRegistry(Behaviour(page_size=100)) as registry:
        sign(registry, keeps_list=True)
        registry.push("team/app", ["v2"], make_image("another"))
        with mounted("--ttl", "600", registry.address, home=home) as mount:
            registry.forget()
            yield registry, mount


def asked(registry: FakeRegistry) -> dict[str, int]:
    kinds = [record.kind for record in registry.requests]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


@pytest.mark.parametrize(
    "command",
    ["find . -name manifest.json", "ls -lR .", "du -s .", "grep -rl nothing . ; true", "cp -r . {}"],
)
def test_who_walks_a_registry_asks_for_no_referrers(
    counted: tuple[FakeRegistry, Mount], tmp_path: Path, command: str
) -> None:
    registry, mount = counted
    mount.run(f"cd team && {command.format(tmp_path / 'copy')}", check=True)
    assert "referrers" not in asked(registry)
    assert {r.reference for r in registry.manifest_requests()} <= {"v1", "v2", str(IMAGE.digest)}


def test_entering_the_folder_costs_one_request_for_all_and_one_for_each_tag_of_cosigns(
    counted: tuple[FakeRegistry, Mount],
) -> None:
    registry, mount = counted
    mount.list("team/app")
    mount.read("team/app/v1/manifest.json")
    registry.forget()
    for _ in range(3):
        mount.run("ls -l team/app/v1/referrers/", check=True)
    assert asked(registry) == {"manifest": 3, "referrers": 1}
    mount.list("team/app/v2/referrers/")
    assert asked(registry)["referrers"] == 2
    looked_for = [r.reference for r in registry.manifest_requests() if r.status == 404]
    assert looked_for == [], "the listing has told that there are no tags of cosign's for v2"


def test_a_long_list_comes_in_pages_and_costs_no_more_with_details(home: Home) -> None:
    many = [make_artifact("a/b", {f"{n}": b""}, subject=IMAGE.manifest) for n in range(350)]
    with FakeRegistry(Behaviour(page_size=100)) as registry:
        registry.push("team/app", ["v1"], IMAGE)
        for one in many:
            registry.push("team/app", [], one)
        with mounted("--ttl", "600", registry.address, home=home) as mount:
            assert mount.run("ls -U team/app/v1/referrers/ | wc -l", check=True).stdout == "350\n"
            before = asked(registry)
            assert before["referrers"] == 4
            assert mount.run("ls -l team/app/v1/referrers/ | grep -c ' -> '", check=True).stdout == "350\n"
            assert asked(registry) == before


# ── what goes wrong ──


@pytest.mark.parametrize(
    ("status", "why"), [(500, "Input/output error"), (403, "Permission denied"), (429, "busy")]
)
def test_a_list_that_fails_is_no_empty_folder_and_stops_nothing_else(
    home: Home, status: int, why: str
) -> None:
    with FakeRegistry() as registry:
        sign(registry, keeps_list=True)
        with mounted("-o", "retries=0", registry.address, home=home) as mount:
            mount.read("team/app/v1/manifest.json")
            registry.fail(status, "referrers")
            done = mount.run("ls team/app/v1/referrers/")
            assert done.returncode != 0
            assert why in done.stderr
            assert "what refers to team/app@" in mount.errors()
            assert mount.read("team/app/v1/config.json") == IMAGE.config.raw
            registry.clear()
            assert mount.list("team/app/v1/referrers/") == EVERYTHING


@pytest.mark.parametrize("paging", [Paging.LOOP, Paging.EMPTY, Paging.FOREIGN])
def test_a_list_that_leads_nowhere_ends_with_an_error(home: Home, paging: Paging) -> None:
    with FakeRegistry(Behaviour(page_size=1, referrers_paging=paging)) as registry:
        sign(registry, keeps_list=True)
        with mounted("-o", "retries=0", registry.address, home=home) as mount:
            assert mount.run("ls team/app/v1/referrers/", timeout=60).returncode != 0
            assert registry.foreign == []
            assert mount.read("team/app/v1/digest")


def test_of_entries_that_cannot_be_used_the_rest_is_shown_and_the_count_told(home: Home) -> None:
    sound = {
        "mediaType": OCI_MANIFEST,
        "digest": str(SBOM.digest),
        "size": len(SBOM.manifest.raw),
        "artifactType": "../../etc:passwd",
    }
    bad = [
        {**sound, "digest": "sha256:../../x"},
        {**sound, "size": -1},
        {**sound, "digest": str(Digest.of(b"page")), "mediaType": "text/html"},
        None,
        7,
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*bad, sound]}).encode()
    with FakeRegistry() as registry:
        registry.push("team/app", ["v1"], IMAGE)
        registry.push("team/app", [], SBOM)
        registry.plant_referrers("team/app", IMAGE.digest, body)
        with mounted(registry.address, home=home) as mount:
            (name,) = mount.list("team/app/v1/referrers/")
            assert name == f"etc.passwd-{SBOM.digest.hex[:12]}"
            assert mount.read(f"team/app/v1/referrers/{name}/manifest.json") == SBOM.manifest.raw
            assert mount.status()["registries"][0]["dropped_referrers"] == 5


def test_a_referrer_that_is_not_there_is_a_broken_link(home: Home) -> None:
    gone = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"gone")), "size": 4}
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [gone]}).encode()
    with FakeRegistry() as registry:
        registry.push("team/app", ["v1"], IMAGE)
        registry.plant_referrers("team/app", IMAGE.digest, body)
        with mounted(registry.address, home=home) as mount:
            (name,) = mount.list("team/app/v1/referrers/")
            done = mount.run(f"cat team/app/v1/referrers/{name}/manifest.json")
            assert "No such file or directory" in done.stderr


# ── the tags under which clients keep them ──


def test_their_tags_are_not_listed_and_are_there_by_name(mount: Mount) -> None:
    assert mount.list("team/app") == ["v1"]
    signature = f"team/app/{fallback_tag(IMAGE.digest)}.sig"
    assert mount.read(f"{signature}/manifest.json") == COSIGN_SIG.manifest.raw


@pytest.mark.parametrize("how", ["an option", "the config file"])
def test_their_tags_are_listed_where_somebody_asks_for_it(signed: Registry, home: Home, how: str) -> None:
    options = ["-o", "show_fallback_tags"] if how == "an option" else []
    if not options:
        home.write_config("show_fallback_tags = true\n")
    with mounted(*options, signed.address, home=home) as mount:
        listed = mount.list("team/app")
        assert "v1" in listed
        assert f"{fallback_tag(IMAGE.digest)}.sig" in listed


def deletions(registry: Registry) -> list[str]:
    """The DELETE requests that the registry saw, each by what stands after the last slash."""
    assert isinstance(registry, DockerRegistry | FakeRegistry)
    seen = registry.requests() if isinstance(registry, DockerRegistry) else registry.requests
    return [request.target.rpartition("/")[2] for request in seen if request.method == "DELETE"]


def tags_of(registry: Registry) -> set[str]:
    assert isinstance(registry, DockerRegistry | FakeRegistry)
    held = (
        registry.tags("team/app") if isinstance(registry, DockerRegistry) else registry.content()["team/app"]
    )
    return set(held)


@pytest.mark.parametrize(
    "remover",
    [
        "rm -r team/app",
        "rm -r team",
        "find team/app -delete",
        "python3 -c 'import shutil; shutil.rmtree(\"team/app\")'",
    ],
)
def test_removing_a_repository_leaves_what_clients_keep_there_and_says_so(
    signed: Registry, home: Home, remover: str
) -> None:
    kept = tags_of(signed) - {"v1"}
    with mounted("--rw", "--ttl", "1", signed.address, home=home) as mount:
        mount.run(remover, check=True)
        asked = deletions(signed)
        assert tags_of(signed) == kept
        assert len(asked) <= 3, (
            "a probe, the tag by its name, and where that is not known a throw-away by its digest"
        )
        (line,) = mount.errors().splitlines()
        assert f"team/app: {len(kept)} tags that clients keep for themselves are left in the registry" in line
        time.sleep(1.5)
        assert mount.list() == []
        assert mount.run("ls team/app").returncode != 0
        assert deletions(signed) == asked
    see = re.search(r"`(regfs ls \S+)`", line)
    assert see is not None
    assert set(home.regfs(*see[1].split()[1:], check=True).stdout.split()) == kept
    with mounted("--rw", signed.address, home=home) as mount:
        assert set(mount.list("team/app")) == kept
        mount.run("rm -r team/app", check=True)
        assert tags_of(signed) == set()


def test_rmdir_of_everything_after_the_last_tag_was_deleted_by_hand_sends_no_deletion(
    signed: Registry, home: Home
) -> None:
    with mounted("--rw", signed.address, home=home) as mount:
        mount.run("rm -r team/app/v1", check=True)
        asked, kept = deletions(signed), tags_of(signed)
        assert asked
        mount.run("rmdir team/app/* team/app/.tags/* team/* *")
        mount.run("rmdir team/app")
        assert mount.run("ls team/app").returncode != 0
        assert deletions(signed) == asked
        assert tags_of(signed) == kept
        assert "clients keep for themselves" in mount.errors()


def test_one_that_is_left_is_deleted_by_its_name(signed: Registry, home: Home) -> None:
    signature = f"{fallback_tag(IMAGE.digest)}.sig"
    with mounted("--rw", signed.address, home=home) as mount:
        mount.run("rm -r team/app", check=True)
    kept = tags_of(signed)
    home.regfs("rm", f"{signed.address}/team/app:{signature}", check=True)
    assert tags_of(signed) == kept - {signature}
    with mounted("--rw", signed.address, home=home) as mount:
        (other, *rest) = mount.list("team/app")
        mount.run(f"rm -r team/app/{other}", check=True)
        assert tags_of(signed) == set(rest)


def test_removing_a_tag_leaves_what_refers_to_its_image(signed: Registry, home: Home) -> None:
    put(signed, "team/app", make_image("another"), "v2")
    with mounted("--rw", signed.address, home=home) as mount:
        mount.run("rm -r team/app/v1", check=True)
        assert mount.list("team/app") == ["v2"]
        folder = f"team/app/.digests/{IMAGE.digest.file_name}/referrers"
        assert mount.list(folder) == EVERYTHING
