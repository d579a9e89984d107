"""Manifests: typed as they are, exact bytes kept, and nothing but our errors from whatever a registry sends."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.errors import BadReply, RegfsError, TooLarge, Unsupported
from regfs.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    Platform,
    config_created,
    parse_manifest,
)

DIGEST = str(Digest.of(b"blob"))
OTHER = str(Digest.of(b"other"))


def parsed(document: object, media_type: str = "") -> Manifest:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_manifest(raw, media_type, Digest.of(raw))


def blob(digest: str = DIGEST, **more: object) -> dict[str, Any]:
    return {"mediaType": "application/octet-stream", "digest": digest, "size": 3, **more}


def image(**more: object) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": blob(), "layers": [blob()], **more}


def index(*platforms: dict[str, str] | None, digests: tuple[str, ...] = ()) -> dict[str, Any]:
    entries = [
        blob(digests[n] if digests else str(Digest.of(str(n).encode())), **({"platform": p} if p else {}))
        for n, p in enumerate(platforms)
    ]
    return {"schemaVersion": 2, "manifests": entries}


# ── what it is ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("document", "header", "kind"),
    [
        (image(mediaType=OCI_MANIFEST), "", OCI_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), OCI_MANIFEST, DOCKER_MANIFEST),
        (image(), OCI_MANIFEST, OCI_MANIFEST),
        (image(), f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        (image(), "application/json", OCI_MANIFEST),
        (image(), "", OCI_MANIFEST),
        (index(None), "", OCI_INDEX),
        (index(None), "text/plain", OCI_INDEX),
        (index(None), DOCKER_LIST.upper(), DOCKER_LIST),
        ({"schemaVersion": 2, "manifests": [], "mediaType": OCI_INDEX}, "", OCI_INDEX),
        ({"schemaVersion": 2, "config": blob()}, "", OCI_MANIFEST),
        ({"schemaVersion": 2, "layers": []}, "", OCI_MANIFEST),
        (image(mediaType="application/vnd.custom+json"), "", OCI_MANIFEST),
    ],
)
def test_the_bodys_own_word_goes_before_the_header_and_that_before_the_shape(
    document: object, header: str, kind: str
) -> None:
    found = parsed(document, header)
    assert found.media_type == kind
    assert found.is_index == (kind in (OCI_INDEX, DOCKER_LIST))


def test_the_exact_bytes_are_kept() -> None:
    raw = b'  {"layers" : [], \n "config":null, "unknown": {"x": 1e999}}\n'
    found = parse_manifest(raw, OCI_MANIFEST, Digest.of(raw))
    assert found.raw == raw
    assert found.digest == Digest.of(raw)
    assert found.descriptor.size == len(raw)


def test_fields_are_read() -> None:
    found = parsed(
        image(
            artifactType="a/b",
            annotations={"k": "v"},
            subject=blob(OTHER),
            layers=[blob(annotations={"org.opencontainers.image.title": "x"}), blob(OTHER, size=0)],
        )
    )
    assert [(str(d.digest), d.size) for d in found.layers] == [(DIGEST, 3), (OTHER, 0)]
    assert found.layers[0].annotations == {"org.opencontainers.image.title": "x"}
    assert found.subject is not None
    assert str(found.subject.digest) == OTHER
    assert (found.artifact_type, found.annotations) == ("a/b", {"k": "v"})


def test_null_stands_for_absent() -> None:
    found = parsed(image(mediaType=None, annotations=None, subject=None, artifactType=None, manifests=None))
    assert (found.annotations, found.subject, found.artifact_type) == ({}, None, "")


def test_what_an_index_should_not_have_does_not_make_it_an_image() -> None:
    found = parsed(image(mediaType=OCI_INDEX, manifests=[blob()]))
    assert (found.is_index, found.config, found.layers) == (True, None, ())
    found = parsed(image(mediaType=OCI_MANIFEST, manifests=[blob()]))
    assert (found.is_index, found.manifests) == (False, ())


# ── what it is not ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", BadReply),
        (b"\xff", BadReply),
        (b"[]", BadReply),
        (b"null", BadReply),
        (b"{}", BadReply),
        (b'{"layers": []} trailing', BadReply),
        (b'{"layers":' + b"[" * 1_000_000, BadReply),
        (b'{"x":' * 200_000, BadReply),
        ({"errors": [{"code": "UNKNOWN"}]}, BadReply),
        (image(layers=[{}]), BadReply),
        (image(layers=[blob(size=-1)]), BadReply),
        (image(layers=[blob(size="3")]), BadReply),
        (image(layers=[blob(size=1.5)]), BadReply),
        (image(layers=[blob(size=2**70)]), BadReply),
        (image(layers=[blob("sha256:0")]), BadReply),
        (image(layers=[blob("../../etc/passwd")]), BadReply),
        (image(layers=[blob("md5:" + "0" * 32)]), Unsupported),
        (image(layers={}), BadReply),
        (image(annotations={"k": 1}), BadReply),
        (image(mediaType=OCI_INDEX), BadReply),
        (index(None) | {"mediaType": OCI_MANIFEST}, BadReply),
        ({"schemaVersion": 1, "fsLayers": [], "name": "x", "tag": "y"}, Unsupported),
        (b" " * (MAX_MANIFEST + 1), TooLarge),
        (image(layers=[blob()] * 10_001), TooLarge),
    ],
)
def test_what_is_no_manifest_is_refused(document: object, error: type[RegfsError]) -> None:
    with pytest.raises(error) as caught:
        parsed(document)
    assert len(str(caught.value)) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(DIGEST),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "schemaVersion",
                    "mediaType",
                    "config",
                    "layers",
                    "manifests",
                    "subject",
                    "platform",
                    "os",
                    "digest",
                    "size",
                ]
            ),
            children,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(JSON, st.sampled_from(["", OCI_INDEX, OCI_MANIFEST, "text/html", ";;"]))
def test_whatever_a_registry_sends_only_our_errors_come_out(document: object, header: str) -> None:
    with suppress(RegfsError):
        found = parsed(document, header)
        assert found.is_index or found.manifests == ()
        list(found.platforms())


@given(st.binary(max_size=60), st.text(max_size=10))
def test_whatever_bytes_it_sends_too(raw: bytes, header: str) -> None:
    with suppress(RegfsError):
        parse_manifest(raw, header, Digest.of(raw))
    config_created(raw)


# ── platforms ────────────────────────────────────────────────────────────────────────────────────

LINUX = {"os": "linux", "architecture": "amd64"}
ARM = {"os": "linux", "architecture": "arm64", "variant": "v8"}
WINDOWS = {"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1"}


def names(document: dict[str, Any]) -> list[str]:
    return [name for name, _ in parsed(document).platforms()]


def test_platforms_are_named_by_what_they_run_on() -> None:
    assert names(index(LINUX, ARM, WINDOWS)) == [
        "linux-amd64",
        "linux-arm64-v8",
        "windows-amd64-10.0.17763.1",
    ]


def test_attestations_and_entries_without_a_platform_are_no_platforms() -> None:
    assert names(index(LINUX, None, {"os": "unknown", "architecture": "unknown"})) == ["linux-amd64"]


def test_two_that_come_out_the_same_get_the_first_digits_of_the_digest() -> None:
    document = index({"os": "Linux", "architecture": "amd64"}, LINUX, digests=(DIGEST, OTHER))
    assert names(document) == [f"linux-amd64-{DIGEST[7:19]}", f"linux-amd64-{OTHER[7:19]}"]


def test_one_that_is_there_twice_is_shown_once() -> None:
    assert names(index(LINUX, LINUX, digests=(DIGEST, DIGEST))) == ["linux-amd64"]


@given(
    st.lists(
        st.tuples(
            st.fixed_dictionaries({"os": st.text(max_size=4), "architecture": st.text(max_size=4)}),
            st.integers(0, 3),
        ),
        max_size=6,
    )
)
def test_platform_names_are_plain_file_names_and_each_is_there_once(
    entries: list[tuple[dict[str, str], int]],
) -> None:
    digests = tuple(str(Digest.of(str(n).encode())) for _, n in entries)
    found = list(parsed(index(*(platform for platform, _ in entries), digests=digests)).platforms())
    spelled = [name for name, _ in found]
    assert len(set(spelled)) == len(spelled)
    assert all(
        name and name[0] != "." and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
        for name in spelled
    )
    assert all(len(name) <= 255 for name in spelled)


def test_a_name_made_of_digits_never_hides_another() -> None:
    trap = {"os": "linux", "architecture": f"amd64-{DIGEST[7:19]}"}
    third = str(Digest.of(b"third"))
    spelled = names(index(LINUX, LINUX, trap, digests=(DIGEST, OTHER, third)))
    assert spelled == [f"linux-amd64-{OTHER[7:19]}", f"linux-amd64-{DIGEST[7:19]}"]


def test_ten_thousand_platforms_of_one_name_are_named_in_a_moment() -> None:
    found = parsed(index(*[LINUX] * 10_000))
    begin = time.process_time()
    assert len({name for name, _ in found.platforms()}) == 10_000
    assert time.process_time() - begin < 1.0


def test_a_platforms_name_is_no_longer_than_a_file_name() -> None:
    (name,) = names(index({"os": "x" * 1000, "architecture": "amd64"}))
    assert len(name) <= 255


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Platform("linux", "amd64"), 0),
        (Platform("linux", "arm64"), 1),
        (Platform("linux", "arm64", "v8"), 1),
        (Platform("linux", "arm64", "v9"), 1),
        (Platform("linux", "riscv64"), None),
    ],
)
def test_the_hosts_platform_is_found(wanted: Platform, found: int | None) -> None:
    document = parsed(index(LINUX, ARM, WINDOWS))
    descriptor = document.for_platform(wanted)
    assert descriptor == (None if found is None else document.manifests[found])


# ── when it was made ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("2024-05-17T12:30:00Z", datetime(2024, 5, 17, 12, 30, tzinfo=UTC)),
        ("2024-05-17T12:30:00.123456789Z", datetime(2024, 5, 17, 12, 30, 0, 123456, tzinfo=UTC)),
        ("2024-05-17T14:30:00+02:00", datetime(2024, 5, 17, 12, 30, tzinfo=UTC)),
        ("2024-05-17T12:30:00", datetime(2024, 5, 17, 12, 30, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", None),
        ("1980-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_when_an_image_was_made(text: str, made: datetime | None) -> None:
    assert config_created(json.dumps({"created": text}).encode()) == made


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b'{"created": 3}', b'{"created": null}', b"[" * 100_000, b"\xff"]
)
def test_a_config_that_does_not_say_is_no_error(raw: bytes) -> None:
    assert config_created(raw) is None


@given(st.text() | st.datetimes(timezones=st.timezones()).map(lambda d: d.isoformat()))
def test_whatever_date_it_says_a_timestamp_can_be_had_of_it(text: str) -> None:
    made = config_created(json.dumps({"created": text}).encode())
    assert made is None or made.timestamp() > 0
