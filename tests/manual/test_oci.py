"""`TAG/oci` is an OCI image layout that real tools take as it is: skopeo, umoci, tar, and regfs itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.digest import Digest
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Content, Image, Index, Pushable, make_artifact, make_image, make_index
from tests.support.layered import GZIP, PLAIN, folder, image, layer, link
from tests.support.mounts import Home, Mount, mounted
from tests.support.needs import need_programs
from tests.support.registry import DockerRegistry

LAYERED = image(
    layer({"etc": folder, "etc/os-release": b"ID=regfs\n", "gone": b"x", "lib": link("usr/lib")}),
    layer({"usr": folder, "usr/big": bytes(range(256)) * 4000, ".wh.gone": b""}, media_type=PLAIN),
    layer({"etc/os-release": b"ID=second\n"}, media_type=GZIP),
    config={"Env": ["PATH=/bin"]},
)
INDEX = make_index(seed="oci", attestations=True)
ARTIFACT = make_artifact(files={"sbom.json": b'{"a":1}', "notes.txt": b"hello\n"})
DOCKERS = make_image("dockers", family="docker")
DOCKERS_LIST = make_index(seed="dockers", family="docker")

PUSHED: dict[str, Pushable] = {
    "v1": LAYERED,
    "multi": INDEX,
    "sbom": ARTIFACT,
    "dockers": DOCKERS,
    "dockers-list": DOCKERS_LIST,
}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        for tag, what in PUSHED.items():
            registry.push("team/app", tag, what)
        yield registry


@pytest.fixture
def mount(registry: FakeRegistry, home: Home) -> Iterator[Mount]:
    with mounted("--ttl", "60", registry.address, home=home) as mount:
        registry.forget()
        yield mount


def skopeo(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    need_programs("skopeo")
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def everything(what: Pushable) -> dict[Digest, Content]:
    return {content.digest: content for content in (*what.manifests(), *what.blobs)}


def held(layout: Path) -> dict[str, bytes]:
    """The blobs of a layout by digest, each proved to be what its name says."""
    found = {}
    for place in sorted((layout / "blobs").glob("*/*")):
        data = place.read_bytes()
        assert hashlib.new(place.parent.name, data).hexdigest() == place.name
        found[f"{place.parent.name}:{place.name}"] = data
    return found


def in_dir(folder: Path) -> dict[str, bytes]:
    """What containers' ``dir:`` transport wrote, by digest."""
    found = {}
    for place in folder.iterdir():
        if place.name not in ("version",) and not place.name.startswith("signature"):
            data = place.read_bytes()
            found[f"sha256:{hashlib.sha256(data).hexdigest()}"] = data
    return found


def expected(what: Pushable) -> dict[str, bytes]:
    return {str(digest): content.raw for digest, content in everything(what).items()}


# ── what it holds ──


@pytest.mark.parametrize("tag", PUSHED)
def test_it_holds_all_that_the_manifest_leads_to_and_nothing_else(tag: str, mount: Mount) -> None:
    layout = mount.path / "team/app" / tag / "oci"
    assert held(layout) == expected(PUSHED[tag])
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    assert [(e["digest"], e["mediaType"]) for e in entries] == [
        (str(PUSHED[tag].digest), PUSHED[tag].manifest.media_type)
    ]


def test_a_tag_has_a_link_and_a_digest_the_folder(mount: Mount) -> None:
    target = mount.run(["readlink", "team/app/v1/oci"], check=True).stdout.strip()
    assert target == f"../.digests/{LAYERED.digest.file_name}/oci"
    assert ":" not in target
    assert mount.list("team/app/.tags/v1/oci") == ["blobs", "index.json", "oci-layout"]
    names = mount.run(["find", "team/app/v1/oci/"], check=True).stdout
    assert ":" not in names


def test_listing_costs_the_manifests_only(mount: Mount, registry: FakeRegistry) -> None:
    mount.run(["ls", "-lR", "team/app/v1/oci/", "team/app/multi/oci/"], check=True)
    assert registry.count("blob") == 0
    asked = [record.reference for record in registry.manifest_requests()]
    assert sorted(asked) == sorted({*asked}), "each is asked for once"
    assert {str(child.digest) for child in INDEX.images} < {*asked}


def test_nothing_recursive_comes_there(mount: Mount, registry: FakeRegistry) -> None:
    found = mount.run(["find", "team", "-name", "index.json"], check=True).stdout
    assert found == ""
    assert registry.count("blob") == 0


def test_reading_one_blob_of_an_index_asks_for_no_other_platform(
    mount: Mount, registry: FakeRegistry
) -> None:
    child = INDEX.images[0]
    blobs = "team/app/multi/oci/blobs/sha256"
    mount.read(f"{blobs}/{child.digest.hex}")
    mount.read(f"{blobs}/{child.config.digest.hex}")
    asked = [record.reference for record in registry.manifest_requests()]
    assert asked == ["multi", str(child.digest)]


def test_names_that_are_not_in_it_are_not_there(mount: Mount) -> None:
    layout = "team/app/v1/oci"
    for name in ("blobs/sha256/nonsense", f"blobs/sha256/{'0' * 64}", "blobs/sha512", "blobs/md5", "ingest"):
        done = mount.run(["ls", f"{layout}/{name}"])
        assert done.stderr.endswith("No such file or directory\n"), name
    assert mount.errors() == ""


def test_a_platform_that_the_registry_lacks_is_left_out_and_the_rest_is_read(
    mount: Mount, registry: FakeRegistry, tmp_path: Path
) -> None:
    gone = INDEX.images[1]
    registry.plant("team/app", str(gone.digest), b"{}", status=404)
    layout = mount.path / "team/app/multi/oci"
    assert str(gone.digest) not in held(layout)
    partial = mount.run(
        ["getfattr", "--only-values", "-n", "user.regfs.partial", f"{layout}/blobs/sha256"], check=True
    )
    assert partial.stdout == "1"
    assert "shown in part: the registry lacks 1 of the manifests that the index names" in mount.errors()
    arguments = ("--override-arch", "amd64", f"oci:{layout}:multi", f"dir:{tmp_path / 'out'}")
    skopeo("copy", *arguments)
    assert in_dir(tmp_path / "out").keys() >= expected(INDEX.images[0]).keys()


def test_a_registry_that_fails_makes_the_listing_fail(mount: Mount, registry: FakeRegistry) -> None:
    mount.read("team/app/multi/manifest.json")
    registry.fail(403, "manifest")
    done = mount.run(["ls", "team/app/multi/oci/blobs/sha256"])
    assert done.returncode == 2
    assert "Permission denied" in done.stderr


# ── skopeo ──


@pytest.mark.parametrize("tag", ["v1", "sbom"])
def test_skopeo_copies_a_tag_by_its_name(tag: str, mount: Mount, tmp_path: Path) -> None:
    skopeo("copy", f"oci:{mount.path}/team/app/{tag}/oci:{tag}", f"dir:{tmp_path / 'out'}")
    assert in_dir(tmp_path / "out") == expected(PUSHED[tag])


@pytest.mark.parametrize("tag", PUSHED)
def test_skopeo_copies_without_a_name(tag: str, mount: Mount, tmp_path: Path) -> None:
    skopeo("copy", "--all", f"oci:{mount.path}/team/app/{tag}/oci", f"dir:{tmp_path / 'out'}")
    assert in_dir(tmp_path / "out") == expected(PUSHED[tag])


def test_skopeo_copies_all_platforms_of_an_index(mount: Mount, tmp_path: Path) -> None:
    skopeo("copy", "--all", f"oci:{mount.path}/team/app/multi/oci:multi", f"dir:{tmp_path / 'out'}")
    assert in_dir(tmp_path / "out") == expected(INDEX)


def test_skopeo_inspects(mount: Mount) -> None:
    told = json.loads(skopeo("inspect", f"oci:{mount.path}/team/app/v1/oci:v1").stdout)
    assert told["Digest"] == str(LAYERED.digest)
    assert told["Layers"] == [str(each.digest) for each in LAYERED.layers]
    assert told["Env"] == ["PATH=/bin"]
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{mount.path}/team/app/multi/oci:multi"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert raw.stdout == INDEX.manifest.raw


def test_each_tag_of_a_digest_is_found_by_its_own_name(
    registry: FakeRegistry, home: Home, tmp_path: Path
) -> None:
    registry.push("team/app", ["stable", "v1.0"], LAYERED)
    with mounted(registry.address, home=home) as mount:
        for tag in ("v1", "stable", "v1.0"):
            skopeo("copy", f"oci:{mount.path}/team/app/{tag}/oci:{tag}", f"dir:{tmp_path / tag}")
            assert in_dir(tmp_path / tag) == expected(LAYERED)
        index = json.loads(mount.read("team/app/v1/oci/index.json"))
        names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
        assert names == ["v1", "stable", "v1.0"]


def test_by_digest_alone_no_name_is_needed(mount: Mount, tmp_path: Path) -> None:
    layout = mount.path / "team/app/.digests" / LAYERED.digest.file_name / "oci"
    skopeo("copy", f"oci:{layout}", f"dir:{tmp_path / 'out'}")
    assert in_dir(tmp_path / "out") == expected(LAYERED)


def test_whoever_is_inside_stays_on_that_version(registry: FakeRegistry, home: Home, tmp_path: Path) -> None:
    with mounted(registry.address, home=home) as mount:
        inside = mount.run(["realpath", "team/app/v1/oci"], check=True).stdout.strip()
        mount.read("team/app/v1/manifest.json")
        registry.push("team/app", "v1", make_image("pushed since"))
        home.regfs("refresh", mount.path, check=True)
        mount.read("team/app/v1/digest")
        skopeo("copy", f"oci:{inside}:v1", f"dir:{tmp_path / 'out'}")
        assert in_dir(tmp_path / "out") == expected(LAYERED)


def test_dockers_media_types_are_as_they_are_which_skopeo_finds_by_no_name_and_umoci_not_at_all(
    mount: Mount, tmp_path: Path
) -> None:
    done = skopeo(
        "copy", f"oci:{mount.path}/team/app/dockers/oci:dockers", f"dir:{tmp_path / 'a'}", check=False
    )
    assert "no descriptor found" in done.stderr
    need_programs("umoci")
    unpack = ["umoci", "unpack", "--rootless", "--image", f"{mount.path}/team/app/dockers/oci:dockers"]
    refused = subprocess.run([*unpack, tmp_path / "bundle"], capture_output=True, timeout=60, check=False)
    assert b"not implemented" in refused.stderr
    skopeo("copy", f"oci:{mount.path}/team/app/dockers/oci", f"dir:{tmp_path / 'b'}")
    assert in_dir(tmp_path / "b") == expected(DOCKERS)


# ── others ──


def test_umoci_unpacks(mount: Mount, tmp_path: Path) -> None:
    need_programs("umoci")
    subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{mount.path}/team/app/v1/oci:v1", tmp_path / "out"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    root = tmp_path / "out" / "rootfs"
    assert (root / "etc/os-release").read_bytes() == b"ID=second\n"
    assert (root / "usr/big").read_bytes() == bytes(range(256)) * 4000
    assert (root / "lib").readlink() == Path("usr/lib")
    assert not (root / "gone").exists()


def test_tar_packs_it_and_the_archive_is_a_layout_too(mount: Mount, tmp_path: Path) -> None:
    archive = tmp_path / "oci.tar"
    mount.run(["tar", "-cf", str(archive), "-C", "team/app/multi/oci", "."], check=True)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", unpacked], check=True)
    assert held(unpacked) == expected(INDEX)
    skopeo("copy", "--all", f"oci-archive:{archive}:multi", f"dir:{tmp_path / 'out'}")
    assert in_dir(tmp_path / "out") == expected(INDEX)


def test_cp_r_makes_a_layout(mount: Mount, tmp_path: Path) -> None:
    mount.run(["cp", "-rL", "team/app/v1/oci", str(tmp_path / "copy")], check=True)
    assert held(tmp_path / "copy") == expected(LAYERED)


def test_regfs_reads_its_own_layout(mount: Mount) -> None:
    mount.run(["ls", "team/app/v1/oci/"], check=True)
    layouts = mount.path / "team/app/.digests" / LAYERED.digest.file_name
    shown = mount.home.regfs("cat", f"oci:{layouts}/oci/v1/manifest.json")
    assert shown.stdout == LAYERED.manifest.raw.decode(), shown.stderr


def test_a_blob_that_is_wrong_does_not_come_out_whole(registry: FakeRegistry, home: Home) -> None:
    blob = LAYERED.layers[1]
    registry.corrupt_blob("team/app", blob.digest, blob.raw[:-1] + b"x")
    with mounted(registry.address, home=home) as mount:
        done = mount.run(["cat", f"team/app/v1/oci/blobs/sha256/{blob.digest.hex}"])
        assert done.returncode == 1
        assert "Bad message" in done.stderr


@pytest.mark.parametrize("tag", ["v1", "multi"])
def test_it_is_so_with_dockers_registry(
    tag: str, docker_registry: Callable[..., DockerRegistry], home: Home, tmp_path: Path
) -> None:
    registry = docker_registry()
    what = PUSHED[tag]
    registry.lay_image("team/app", what, [tag])
    with mounted(registry.address, home=home) as mount:
        skopeo("copy", "--all", f"oci:{mount.path}/team/app/{tag}/oci:{tag}", f"dir:{tmp_path / 'out'}")
        assert in_dir(tmp_path / "out") == expected(what)
        assert isinstance(what, Image | Index)
