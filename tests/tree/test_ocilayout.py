"""What an OCI layout of a manifest holds, as far as its manifests were read."""

from __future__ import annotations

import json

import pytest

from regfs.digest import Digest
from regfs.errors import TooLarge
from regfs.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest
from regfs.testing.images import make_artifact, make_image, make_index
from regfs.tree.ocilayout import LAYOUT_FILE, MAX_MANIFESTS, REF_NAME, Reachable, index_json

IMAGE = make_image("layout")
INDEX = make_index(seed="layout")


def entries(raw: bytes) -> list[dict[str, object]]:
    value = json.loads(raw)
    assert (value["schemaVersion"], value["mediaType"]) == (2, OCI_INDEX)
    found: list[dict[str, object]] = value["manifests"]
    return found


def names(raw: bytes) -> list[object]:
    return [entry.get("annotations") for entry in entries(raw)]


def test_the_version_file_is_the_specs() -> None:
    assert json.loads(LAYOUT_FILE) == {"imageLayoutVersion": "1.0.0"}


def test_the_index_has_an_entry_for_each_tag_that_leads_there() -> None:
    raw = index_json(IMAGE.parsed(), ["v1", "stable"])
    assert names(raw) == [{REF_NAME: "v1"}, {REF_NAME: "stable"}]
    assert {entry["digest"] for entry in entries(raw)} == {str(IMAGE.digest)}
    assert {entry["size"] for entry in entries(raw)} == {len(IMAGE.manifest.raw)}


def test_without_a_tag_the_only_entry_has_no_name() -> None:
    assert names(index_json(IMAGE.parsed(), [])) == [None]


def test_what_is_dockers_has_one_entry_only() -> None:
    docker = make_image("layout", family="docker").parsed()
    raw = index_json(docker, ["v1", "stable"])
    assert names(raw) == [{REF_NAME: "v1"}]
    assert entries(raw)[0]["mediaType"] == docker.media_type


def test_an_artifacts_type_is_in_its_entry() -> None:
    artifact = make_artifact("application/vnd.example.thing")
    assert entries(index_json(artifact.parsed(), []))[0]["artifactType"] == "application/vnd.example.thing"


def test_an_image_leads_to_its_manifest_config_and_layers() -> None:
    found = {descriptor.digest for descriptor in Reachable(IMAGE.parsed()).descriptors()}
    assert found == {IMAGE.digest, *(blob.digest for blob in IMAGE.blobs)}


def test_an_index_leads_further_with_each_manifest_that_is_read() -> None:
    reachable = Reachable(INDEX.parsed())
    assert set(reachable.unread) == {image.digest for image in INDEX.images}
    first, second = INDEX.images
    reachable.take(first.parsed())
    assert reachable.find(first.config.digest) == first.config.descriptor
    assert reachable.find(second.config.digest) is None
    reachable.take(second.parsed())
    assert reachable.unread == []
    everything = {INDEX.digest, *(c.digest for c in (*INDEX.blobs, *(i.manifest for i in INDEX.images)))}
    assert {descriptor.digest for descriptor in reachable.descriptors()} == everything
    assert {d for d in everything if reachable.is_manifest(d)} == {
        INDEX.digest,
        *(image.digest for image in INDEX.images),
    }


def test_a_missing_manifest_is_in_it_as_little_as_what_it_would_name() -> None:
    reachable = Reachable(INDEX.parsed())
    gone = INDEX.images[0]
    reachable.missing.add(gone.digest)
    assert reachable.find(gone.digest) is None
    assert gone.digest not in {descriptor.digest for descriptor in reachable.descriptors()}
    reachable.take(gone.parsed())
    assert reachable.find(gone.digest) is not None


def test_both_algorithms_have_their_folder() -> None:
    other = Descriptor("application/octet-stream", Digest.of(b"x", "sha512"), 1)
    parsed = IMAGE.parsed()
    mixed = Manifest(parsed.raw, parsed.descriptor, layers=(other,))
    assert Reachable(mixed).algorithms() == ["sha256", "sha512"]


def test_an_index_without_end_is_refused_each_time() -> None:
    many = tuple(Descriptor(OCI_MANIFEST, Digest.of(str(n).encode()), 1) for n in range(MAX_MANIFESTS + 1))
    endless = Manifest(b"", Descriptor(OCI_INDEX, Digest.of(b"endless"), 0), manifests=many)
    for _ in range(2):
        with pytest.raises(TooLarge):
            Reachable(endless)
    nested = Manifest(b"", Descriptor(OCI_INDEX, Digest.of(b"n"), 0), manifests=(endless.descriptor,))
    reachable = Reachable(nested)
    for _ in range(2):
        with pytest.raises(TooLarge):
            reachable.take(endless)
