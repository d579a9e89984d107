"""What refers to a manifest, as a folder: names that stay, links that stop recursion, and no request an entry."""

from __future__ import annotations

import json
import string
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TypeVar, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.errors import (
    Forbidden,
    NoSuchAttribute,
    NotFound,
    Refused,
    RegfsError,
    ServerFailed,
)
from regfs.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from regfs.ports import ListsReferrers, ReferrerPage
from regfs.reference import fallback_tag
from regfs.testing.images import Image, make_artifact, make_image, make_index
from regfs.testing.memory import Abilities, MemorySource
from regfs.tree.referrerkinds import attested, full_name, kind_of, referrer_names
from tests.tree.kernel import Kernel, mounted, run

C = TypeVar("C")

IMAGE = make_image("subject")
SBOM = make_artifact("application/spdx+json", subject=IMAGE.manifest)
SIGNATURE = make_artifact("application/vnd.cncf.notary.signature", {"s": b"x"}, subject=IMAGE.manifest)
REPORT = make_artifact("application/vnd.example.report.v1+json", {"r": b"x"}, subject=IMAGE.manifest)
COSIGNS = make_artifact("", {"payload": b"{}"})
FOLDER = f"app/.digests/{IMAGE.digest.file_name}/referrers"
COSIGN_TAG = f"{fallback_tag(IMAGE.digest)}.sig"


def short(kind: str, what: Image) -> str:
    return f"{kind}-{what.digest.hex[:12]}"


def signed(*referrers: Image, abilities: Abilities | None = None) -> MemorySource:
    source = MemorySource(abilities=abilities)
    source.push("app", ["v1"], IMAGE)
    for one in referrers or (SBOM, SIGNATURE, REPORT):
        source.push("app", [], one)
    return source


def folder_of(what: Digest) -> str:
    return f"app/.digests/{what.file_name}/referrers"


async def dropped(kernel: Kernel) -> object:
    status = json.loads(await kernel.cat(".regfs/status.json"))
    return status["registries"][0]["dropped_referrers"]


# ── what is in it ──


def test_each_is_named_by_kind_and_digest_and_leads_to_its_digest() -> None:
    async def test() -> None:
        async with mounted(signed()) as kernel:
            assert await kernel.ls(FOLDER) == sorted(
                [short("sbom", SBOM), short("signature", SIGNATURE), short("example.report", REPORT)]
            )
            link = await kernel.walk(f"{FOLDER}/{short('sbom', SBOM)}")
            assert await kernel.filesystem.readlink(link.ino) == f"../../{SBOM.digest.file_name}".encode()
            through = f"{FOLDER}/{short('sbom', SBOM)}"
            assert await kernel.cat(f"{through}/manifest.json") == SBOM.manifest.raw
            assert await kernel.cat(f"{through}/digest") == f"{SBOM.digest}\n".encode()
            assert await kernel.cat(f"{through}/config.json") == SBOM.config.raw

    run(test)


def test_it_is_there_and_empty_where_nothing_refers() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source) as kernel:
            assert await kernel.ls(folder_of(SBOM.digest)) == []
            with pytest.raises(NotFound):
                await kernel.walk(f"{folder_of(SBOM.digest)}/sbom-000000000000")
            with pytest.raises(NotFound):
                await kernel.ls(folder_of(make_image("absent").digest))

    run(test)


def test_a_referrer_has_referrers_of_its_own() -> None:
    async def test() -> None:
        about = make_artifact("application/vnd.cncf.notary.signature", {"t": b""}, subject=SBOM.manifest)
        async with mounted(signed(SBOM, about)) as kernel:
            through = f"{FOLDER}/{short('sbom', SBOM)}/referrers"
            assert await kernel.ls(through) == [short("signature", about)]

    run(test)


def test_a_registry_that_cannot_say_it_shows_cosigns_tags_alone() -> None:
    async def test() -> None:
        source = signed(abilities=Abilities(lists_referrers=False))
        source.push("app", [COSIGN_TAG], COSIGNS)
        async with mounted(source) as kernel:
            assert await kernel.ls(FOLDER) == [short("signature", COSIGNS)]

    run(test)


@pytest.mark.parametrize(("suffix", "kind"), [("sig", "signature"), ("att", "attestation"), ("sbom", "sbom")])
def test_what_cosign_keeps_under_a_tag_is_folded_in(suffix: str, kind: str) -> None:
    async def test() -> None:
        source = signed(SBOM)
        source.push("app", [f"{fallback_tag(IMAGE.digest)}.{suffix}"], COSIGNS)
        async with mounted(source) as kernel:
            assert await kernel.ls(FOLDER) == sorted([short(kind, COSIGNS), short("sbom", SBOM)])
            through = f"{FOLDER}/{short(kind, COSIGNS)}/manifest.json"
            assert await kernel.cat(through) == COSIGNS.manifest.raw

    run(test)


def test_what_is_both_under_a_tag_and_a_referrer_is_there_once_as_what_it_says_it_is() -> None:
    async def test() -> None:
        plain = make_artifact("", {"p": b""}, subject=IMAGE.manifest)
        source = signed(SBOM, plain)
        source.push("app", [COSIGN_TAG], SBOM)
        source.push("app", [f"{fallback_tag(IMAGE.digest)}.att"], plain)
        async with mounted(source) as kernel:
            assert await kernel.ls(FOLDER) == [short("attestation", plain), short("sbom", SBOM)]

    run(test)


def test_buildkits_attestations_refer_to_the_image_they_are_about_and_are_no_platforms() -> None:
    async def test() -> None:
        index = make_index(attestations=True)
        amd, arm, about_amd, about_arm = index.images
        source = MemorySource()
        source.push("app", ["v1"], index)
        async with mounted(source) as kernel:
            assert await kernel.ls("app/v1/platforms") == ["linux-amd64", "linux-arm64-v8"]
            assert await kernel.ls(folder_of(amd.digest)) == [short("attestation", about_amd)]
            assert await kernel.ls(folder_of(arm.digest)) == [short("attestation", about_arm)]
            assert await kernel.ls(folder_of(index.digest)) == []

    run(test)


def test_an_attestation_shows_once_the_index_was_read_though_the_list_is_older() -> None:
    async def test() -> None:
        index = make_index(attestations=True)
        source = MemorySource()
        source.push("app", ["v1"], index)
        async with mounted(source) as kernel:
            folder = folder_of(index.images[0].digest)
            assert await kernel.ls(folder) == []
            await kernel.cat("app/v1/manifest.json")
            assert await kernel.ls(folder) == [short("attestation", index.images[2])]
            assert source.count("referrers") == 1

    run(test)


def test_nothing_in_it_can_be_removed_and_it_has_no_attributes() -> None:
    async def test() -> None:
        async with mounted(signed(), writable=True) as kernel:
            with pytest.raises(Refused):
                await kernel.rm(f"{FOLDER}/{short('sbom', SBOM)}")
            with pytest.raises(NoSuchAttribute):
                await kernel.xattr(FOLDER, "user.oci.digest")

    run(test)


# ── what it costs ──


def test_listing_costs_one_request_and_what_cosigns_tags_need_and_nothing_an_entry() -> None:
    async def test() -> None:
        many = [make_artifact("a/b", {f"{n}": b""}, subject=IMAGE.manifest) for n in range(50)]
        source = signed(*many)
        async with mounted(source) as kernel:
            await kernel.cat("app/v1/manifest.json")
            source.calls.clear()
            for name, found in await kernel.ls_l(FOLDER):
                await kernel.filesystem.getattr(found.ino)
                await kernel.filesystem.readlink(found.ino)
                await kernel.stat(f"{FOLDER}/{name}")
            assert sorted(call.method for call in source.calls) == ["manifest"] * 3 + ["referrers"]
            assert {c.reference for c in source.calls if c.method == "manifest"} == {
                f"{fallback_tag(IMAGE.digest)}.{suffix}" for suffix in ("sig", "att", "sbom")
            }

    run(test)


def test_where_the_tags_are_known_cosigns_that_are_not_there_cost_nothing() -> None:
    async def test() -> None:
        source = signed()
        source.push("app", [COSIGN_TAG], COSIGNS)
        async with mounted(source) as kernel:
            await kernel.ls("app")
            await kernel.cat("app/v1/manifest.json")
            source.calls.clear()
            assert short("signature", COSIGNS) in await kernel.ls(FOLDER)
            assert sorted((c.method, c.reference) for c in source.calls) == [
                ("manifest", COSIGN_TAG),
                ("referrers", str(IMAGE.digest)),
            ]

    run(test)


def test_where_the_listing_gives_digests_cosigns_tags_cost_nothing_at_all() -> None:
    async def test() -> None:
        source = signed(abilities=Abilities(digests_in_listings=True))
        source.push("app", [COSIGN_TAG], COSIGNS)
        async with mounted(source) as kernel:
            await kernel.ls("app")
            await kernel.cat("app/v1/manifest.json")
            source.calls.clear()
            assert short("signature", COSIGNS) in await kernel.ls(FOLDER)
            assert [c.method for c in source.calls] == ["referrers"]

    run(test)


def test_where_manifests_are_metered_none_is_got() -> None:
    async def test() -> None:
        source = signed(abilities=Abilities(metered=True))
        source.push("app", [COSIGN_TAG], COSIGNS)
        async with mounted(source) as kernel:
            await kernel.cat("app/v1/manifest.json")
            source.calls.clear()
            assert short("signature", COSIGNS) in await kernel.ls(FOLDER)
            assert sorted(c.method for c in source.calls) == ["referrers"] + ["resolve"] * 3

    run(test)


def test_looking_at_the_folder_itself_asks_nothing() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source) as kernel:
            await kernel.stat(FOLDER)
            assert [c.method for c in source.calls if c.method != "manifest"] == []
            assert source.count("manifest") == 1

    run(test)


def test_all_who_list_at_once_share_one_request() -> None:
    async def test() -> None:
        source = signed()
        source.delay(1.0, "referrers")
        async with mounted(source) as kernel:
            await kernel.stat(FOLDER)
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(kernel.ls, FOLDER)
            assert source.count("referrers") == 1

    run(test)


def test_the_registry_and_cosigns_tags_are_asked_at_once() -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source) as kernel:
            await kernel.stat(FOLDER)
            source.delay(1.0)
            before = trio.current_time()
            await kernel.ls(FOLDER)
            assert trio.current_time() - before < 1.5

    run(test)


# ── how old it may be ──


def test_a_signature_made_later_shows_within_ttl() -> None:
    async def test() -> None:
        source = signed(SBOM)
        async with mounted(source, ttl=10) as kernel:
            assert await kernel.ls(FOLDER) == [short("sbom", SBOM)]
            source.push("app", [], SIGNATURE)
            assert await kernel.ls(FOLDER) == [short("sbom", SBOM)]
            await trio.sleep(10.1)
            assert await kernel.ls(FOLDER) == [short("sbom", SBOM), short("signature", SIGNATURE)]

    run(test)


def test_the_kernel_is_told_to_believe_a_link_no_longer_than_the_list() -> None:
    async def test() -> None:
        async with mounted(signed(SBOM), ttl=10) as kernel:
            ((_, first),) = await kernel.ls_l(FOLDER)
            assert 9 < first.entry_timeout <= 10
            await trio.sleep(6)
            later = await kernel.walk(f"{FOLDER}/{short('sbom', SBOM)}")
            assert later.entry_timeout <= 4.1

    run(test)


def test_a_refresh_asks_anew() -> None:
    async def test() -> None:
        source = signed(SBOM)
        async with mounted(source) as kernel:
            await kernel.ls(FOLDER)
            source.push("app", [], SIGNATURE)
            kernel.filesystem.registries["memory"].forget("app")
            assert len(await kernel.ls(FOLDER)) == 2

    run(test)


@pytest.mark.parametrize("method", ["referrers", "manifest"])
@pytest.mark.parametrize("error", [ServerFailed("500"), Forbidden("403")])
def test_what_cannot_be_asked_is_an_error_and_no_empty_folder(method: str, error: RegfsError) -> None:
    async def test() -> None:
        source = signed()
        async with mounted(source) as kernel:
            await kernel.stat(FOLDER)
            source.fail(error, method)
            with pytest.raises(type(error)):
                await kernel.ls(FOLDER)
            assert await kernel.cat(f"app/.digests/{IMAGE.digest.file_name}/manifest.json")
            source.clear()
            assert len(await kernel.ls(FOLDER)) == 3

    run(test)


# ── what is not believed ──


class Lying(MemorySource):
    """A registry whose list of referrers is whatever a test says."""

    def __init__(self, *told: Descriptor, dropped: int = 0) -> None:
        super().__init__()
        self.told = told
        self.dropped = dropped
        self.push("app", ["v1"], IMAGE)

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        return cast("C", self) if kind is ListsReferrers else super().capability(kind, repository)

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        yield ReferrerPage(self.told, self.dropped)


def told(what: Image, **changed: object) -> Descriptor:
    return replace(what.parsed().as_referrer(), **changed)  # type: ignore[arg-type]


def test_a_referrer_of_another_manifest_is_dropped_and_counted_once_it_was_read() -> None:
    async def test() -> None:
        foreign = make_artifact("application/spdx+json", {"f": b""}, subject=make_image("other").manifest)
        source = Lying(told(SBOM), told(foreign))
        source.push("app", [], foreign)
        source.push("app", [], SBOM)
        async with mounted(source) as kernel:
            assert len(await kernel.ls(FOLDER)) == 2
            await kernel.cat(f"{FOLDER}/{short('sbom', foreign)}/manifest.json")
            for _ in range(2):
                assert await kernel.ls(FOLDER) == [short("sbom", SBOM)]
                with pytest.raises(NotFound):
                    await kernel.walk(f"{FOLDER}/{short('sbom', foreign)}")
            assert await dropped(kernel) == 1

    run(test)


def test_a_cosign_tag_of_another_manifest_is_dropped_and_counted() -> None:
    async def test() -> None:
        foreign = make_artifact("application/spdx+json", {"f": b""}, subject=make_image("other").manifest)
        source = signed(SBOM)
        source.push("app", [COSIGN_TAG], foreign)
        async with mounted(source) as kernel:
            assert await kernel.ls(FOLDER) == [short("sbom", SBOM)]
            assert await dropped(kernel) == 1

    run(test)


def test_what_is_no_manifest_or_the_image_itself_is_dropped_and_counted() -> None:
    async def test() -> None:
        source = Lying(told(SBOM), told(SIGNATURE, media_type="text/html"), told(IMAGE), dropped=3)
        async with mounted(source) as kernel:
            assert await kernel.ls(FOLDER) == [short("sbom", SBOM)]
            assert await dropped(kernel) == 5

    run(test)


def test_a_referrer_that_is_not_there_is_a_link_that_leads_nowhere() -> None:
    async def test() -> None:
        async with mounted(Lying(told(SBOM))) as kernel:
            (name,) = await kernel.ls(FOLDER)
            with pytest.raises(NotFound):
                await kernel.cat(f"{FOLDER}/{name}/manifest.json")

    run(test)


def test_an_artifact_type_is_no_path() -> None:
    async def test() -> None:
        types = ["../../../etc/passwd", "a/b:c", "\0", "-rf", "x" * 5000, "\u202e", ".", "A B", "é/é"]
        source = Lying(
            *(told(make_artifact("x/y", {f"{n}": b""}), artifact_type=kind) for n, kind in enumerate(types))
        )
        async with mounted(source) as kernel:
            names = await kernel.ls(FOLDER)
            assert len(names) == len(types)
            for name in names:
                assert set(name) <= set(string.ascii_lowercase + string.digits + ".-")
                assert name[0] not in ".-"
                assert await kernel.walk(f"{FOLDER}/{name}")

    run(test)


# ── names, purely ──


DIGESTS = st.builds(lambda n: Digest("sha256", f"{n:064x}"), st.integers(0, 2**256 - 1)) | st.builds(
    lambda n, m: Digest("sha256", f"{n:012x}{m:052x}"), st.integers(0, 1), st.integers(0, 3)
)
KINDS = st.sampled_from(["sbom", "signature", "a.b"])


@given(st.dictionaries(DIGESTS, KINDS))
def test_every_referrer_has_one_name_that_says_its_kind(kinds: dict[Digest, str]) -> None:
    named = referrer_names(kinds)
    assert sorted(named.values()) == sorted(kinds)
    assert list(named) == sorted(named)
    for name, digest in named.items():
        kind, _, digits = name.rpartition("-")
        assert kind == kinds[digest]
        assert digest.hex.startswith(digits)
        assert len(digits) in (12, 64)


@given(st.dictionaries(DIGESTS, KINDS), DIGESTS, KINDS)
def test_a_name_stays_when_another_comes_unless_somebody_made_it_alike(
    kinds: dict[Digest, str], digest: Digest, kind: str
) -> None:
    before, after = referrer_names(kinds), referrer_names({**kinds, digest: kinds.get(digest, kind)})
    for name, found in before.items():
        alike = found.hex[:12] == digest.hex[:12] and found != digest
        assert alike or after[name] == found


def test_two_that_somebody_made_alike_have_their_whole_digest_to_tell_them_apart() -> None:
    one, two = Digest("sha256", "a" * 64), Digest("sha256", "a" * 63 + "b")
    assert referrer_names({one: "sbom", two: "sbom"}) == {
        full_name("sbom", one): one,
        full_name("sbom", two): two,
    }
    assert set(referrer_names({one: "sbom", two: "signature"})) == {
        "sbom-aaaaaaaaaaaa",
        "signature-aaaaaaaaaaaa",
    }


def test_a_referrer_always_answers_to_its_full_name() -> None:
    async def test() -> None:
        async with mounted(signed()) as kernel:
            through = f"{FOLDER}/{full_name('sbom', SBOM.digest)}"
            assert await kernel.cat(f"{through}/manifest.json") == SBOM.manifest.raw
            with pytest.raises(NotFound):
                await kernel.walk(f"{FOLDER}/{full_name('signature', SBOM.digest)}")

    run(test)


@pytest.mark.parametrize(
    ("artifact_type", "annotations", "kind"),
    [
        ("application/vnd.dev.cosign.artifact.sig.v1+json", {}, "signature"),
        ("application/vnd.cncf.notary.signature", {}, "signature"),
        ("application/vnd.dev.cosign.artifact.sbom.v1+json", {}, "sbom"),
        ("application/spdx+json", {}, "sbom"),
        ("text/spdx", {}, "sbom"),
        ("application/vnd.cyclonedx+json", {}, "sbom"),
        ("application/vnd.cyclonedx+xml;version=1.5", {}, "sbom"),
        ("application/vnd.syft+json", {}, "sbom"),
        ("application/vnd.in-toto+json", {}, "attestation"),
        ("application/vnd.in-toto+json", {"in-toto.io/predicate-type": "https://spdx.dev/Document"}, "sbom"),
        ("application/vnd.in-toto+json", {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}, "provenance"),
        ("application/vnd.dsse.envelope.v1+json", {}, "attestation"),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", {}, "bundle"),
        ("application/vnd.dev.sigstore.bundle+json;version=0.2", {"dev.sigstore.bundle.content": "message-signature"}, "signature"),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", {"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"}, "signature"),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", {"dev.sigstore.bundle.predicateType": "https://cyclonedx.org/bom"}, "sbom"),
        ("application/vnd.oci.empty.v1+json", {"dev.sigstore.bundle.predicateType": "https://example.com/x"}, "attestation"),
        ("", {"vnd.docker.reference.type": "attestation-manifest"}, "attestation"),
        ("application/sarif+json", {}, "sarif"),
        ("application/vnd.example.report.v1+json", {}, "example.report"),
        ("application/vnd.example.report.v1.2-beta+json", {}, "example.report.v1.2.beta"),
        ("APPLICATION/SPDX+JSON", {}, "sbom"),
        (OCI_CONFIG, {}, "image"),
        ("application/vnd.oci.empty.v1+json", {}, "artifact"),
        ("", {}, "artifact"),
        ("///", {}, "artifact"),
    ],
)  # fmt: skip
def test_kinds(artifact_type: str, annotations: dict[str, str], kind: str) -> None:
    digest = Digest.of(b"")
    assert kind_of(Descriptor(OCI_MANIFEST, digest, 1, None, artifact_type, annotations)) == kind


def test_an_index_without_a_type_is_called_one() -> None:
    assert kind_of(Descriptor(OCI_INDEX, Digest.of(b""), 1)) == "index"


@given(st.text(), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_a_kind_is_a_word_without_a_hyphen(artifact_type: str, annotations: dict[str, str]) -> None:
    kind = kind_of(Descriptor(OCI_MANIFEST, Digest.of(b""), 1, None, artifact_type, annotations))
    assert kind
    assert len(kind) <= 40
    assert set(kind) <= set(string.ascii_lowercase + string.digits + ".")
    assert not kind.startswith(".")


@pytest.mark.parametrize("about", ["", "sha256:abc", "md5:" + "0" * 32, "x" * 10_000])
def test_an_attestation_that_names_no_manifest_is_about_none(about: str) -> None:
    entry = Descriptor(
        OCI_MANIFEST,
        Digest.of(b""),
        1,
        Platform("unknown", "unknown"),
        annotations={"vnd.docker.reference.digest": about},
    )
    assert attested(entry) is None


def test_an_image_that_calls_itself_an_attestation_is_a_platform_still() -> None:
    annotations = {"vnd.docker.reference.digest": str(IMAGE.digest)}
    entry = Descriptor(OCI_MANIFEST, SBOM.digest, 1, Platform("linux", "amd64"), annotations=annotations)
    assert attested(entry) is None
