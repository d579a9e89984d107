"""What refers to what in a folder of OCI layouts, which keeps no list of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from regfs.digest import Digest
from regfs.errors import BadReply, NotFound, TooLarge
from regfs.manifest import OCI_INDEX, Descriptor
from regfs.ports import ListsReferrers
from regfs.providers import oci_referrers
from regfs.providers.oci import OciLayoutSource
from regfs.testing.images import (
    Content,
    Index,
    make_artifact,
    make_image,
    make_referrers_index,
    write_layout,
)

IMAGE = make_image("subject")
SBOM = make_artifact("application/spdx+json", subject=IMAGE.manifest, annotations={"by": "us"})
SIGNATURE = make_artifact("application/vnd.cncf.notary.signature", {"s": b"x"}, subject=IMAGE.manifest)


def referrers(root: Path, *asked: Digest) -> list[list[Descriptor]]:
    async def main() -> list[list[Descriptor]]:
        source = OciLayoutSource(f"oci:{root}", read_only=True)
        lister = source.capability(ListsReferrers)
        assert lister is not None
        answers = []
        for digest in asked or (IMAGE.digest,):
            answers.append([d async for page in lister.referrers("app", digest) for d in page.referrers])
        return answers

    return trio.run(main)


def test_what_index_json_names_and_what_its_indexes_name_is_found(tmp_path: Path) -> None:
    nested = make_referrers_index([SIGNATURE])
    deeper = Content(
        OCI_INDEX,
        json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [nested.manifest.reference()]}
        ).encode(),
    )
    write_layout(
        tmp_path / "app", {"v1": IMAGE, "sbom": SBOM, "nested": nested, "deep": Index(deeper, (SIGNATURE,))}
    )
    (found,) = referrers(tmp_path)
    assert {d.digest for d in found} == {SBOM.digest, SIGNATURE.digest}
    told = next(d for d in found if d.digest == SBOM.digest)
    assert (told.artifact_type, told.annotations, told.size) == (
        "application/spdx+json", {"by": "us"}, len(SBOM.manifest.raw),
    )  # fmt: skip
    assert referrers(tmp_path, SBOM.digest) == [[]]


def test_an_entry_without_a_name_refers_too(tmp_path: Path) -> None:
    """oras and skopeo leave such entries."""
    folder = write_layout(tmp_path / "app", {"v1": IMAGE, "sbom": SBOM})
    index = json.loads((folder / "index.json").read_bytes())
    for entry in index["manifests"]:
        if entry["digest"] == str(SBOM.digest):
            del entry["annotations"]
    (folder / "index.json").write_text(json.dumps(index))
    assert [d.digest for d in referrers(tmp_path)[0]] == [SBOM.digest]


def test_what_was_written_meanwhile_is_found(tmp_path: Path) -> None:
    write_layout(tmp_path / "app", {"v1": IMAGE})

    async def main() -> None:
        source = OciLayoutSource(f"oci:{tmp_path}")
        lister = source.capability(ListsReferrers)
        assert lister is not None
        for expected in ([], [SBOM.digest]):
            found = [d async for page in lister.referrers("app", IMAGE.digest) for d in page.referrers]
            assert [d.digest for d in found] == expected
            write_layout(tmp_path / "app", {"sbom": SBOM})

    trio.run(main)


def test_a_manifest_that_is_absent_damaged_or_huge_costs_no_other(tmp_path: Path) -> None:
    others = [make_artifact("a/b", {f"{n}": b""}, subject=IMAGE.manifest) for n in range(3)]
    folder = write_layout(
        tmp_path / "app", {"v1": IMAGE, "sbom": SBOM, **{f"t{n}": o for n, o in enumerate(others)}}
    )
    blobs = [folder / "blobs" / "sha256" / other.digest.hex for other in others]
    blobs[0].unlink()
    blobs[1].write_bytes(b"{")
    blobs[2].write_bytes(others[2].manifest.raw + b" " * (4 * 1024 * 1024))
    assert [d.digest for d in referrers(tmp_path)[0]] == [SBOM.digest]


def test_indexes_that_name_each_other_end(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "app", {"v1": IMAGE, "sbom": SBOM})
    index = json.loads((folder / "index.json").read_bytes())
    fake = Digest.of(b"any")
    loop = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": OCI_INDEX, "digest": str(fake), "size": 2}],
    }
    (folder / "blobs" / "sha256" / fake.hex).write_text(json.dumps(loop))
    index["manifests"].append({"mediaType": OCI_INDEX, "digest": str(fake), "size": 2})
    (folder / "index.json").write_text(json.dumps(index))
    assert [d.digest for d in referrers(tmp_path)[0]] == [SBOM.digest]


def test_a_layout_of_too_many_manifests_is_not_read_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_referrers, "MAX_READ", 1)
    write_layout(tmp_path / "app", {"v1": IMAGE, "sbom": SBOM})
    with pytest.raises(TooLarge) as caught:
        referrers(tmp_path)
    assert caught.value.registry == f"oci:{tmp_path}"


def test_where_there_is_no_layout_or_no_index_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        referrers(tmp_path)
    write_layout(tmp_path / "app", {"v1": IMAGE})
    (tmp_path / "app" / "index.json").write_text("[")
    with pytest.raises(BadReply):
        referrers(tmp_path)
