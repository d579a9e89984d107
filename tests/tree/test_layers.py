"""A tag's folder leads to what is inside its image by links; `layers` shows each blob as it is stored."""

from __future__ import annotations

import json

import pytest

from regfs.digest import Digest
from regfs.errors import DigestMismatch, NotFound, Refused
from regfs.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Manifest, parse_manifest
from regfs.testing.images import make_artifact, make_image, make_index
from regfs.testing.memory import MemorySource
from regfs.tree.attributes import Kind
from regfs.tree.layers import layer_names
from tests.tree.kernel import mounted, rooms, run

OCI = "application/vnd.oci.image.layers[0].v1."
DOCKER = "application/vnd.docker.image.rootfs."


def _manifest(kinds: list[str], config: str = OCI_CONFIG, kind: str = OCI_MANIFEST) -> Manifest:
    def descriptor(media_type: str, data: bytes) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}

    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": descriptor(config, b"{}"),
            "layers": [descriptor(media_type, b"%d" % n) for n, media_type in enumerate(kinds)],
        }
    ).encode()
    return parse_manifest(raw, kind, Digest.of(raw))


def test_the_layers_of_an_image_are_numbered_and_end_as_their_media_type_says() -> None:
    kinds = [
        f"{OCI}tar",
        f"{OCI}tar+gzip",
        f"{OCI}tar+zstd",
        "application/vnd.oci.image.layers[0].nondistributable.v1.tar+gzip",
    ]
    assert list(layer_names(_manifest(kinds))) == ["00.tar", "01.tar.gz", "02.tar.zst", "03.tar.gz"]
    docker = [
        f"{DOCKER}diff.tar.gzip",
        f"{DOCKER}diff.tar",
        f"{DOCKER}foreign.diff.tar.gzip",
        f"{DOCKER}diff.tar.zstd",
    ]
    named = layer_names(_manifest(docker, DOCKER_CONFIG, DOCKER_MANIFEST))
    assert list(named) == ["00.tar.gz", "01.tar", "02.tar.gz", "03.tar.zst"]
    assert list(layer_names(_manifest(["application/vnd.in-toto+json", ""]))) == [
        "00",
        "01",
    ]


@pytest.mark.parametrize(("count", "last"), [(1, "00"), (100, "99"), (101, "100"), (1001, "1000")])
def test_the_numbers_are_as_wide_as_the_last_one_so_that_a_listing_is_in_order(count: int, last: str) -> None:
    names = list(layer_names(_manifest([f"{OCI}tar"] * count)))
    assert names == sorted(names)
    assert names[-1] == f"{last}.tar"
    assert len(names) == count


def test_a_tags_folder_links_to_the_rooms_of_its_digest_from_wherever_it_is_reached() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("team/app", "v1")
        async with mounted(source) as kernel:
            for name in rooms():
                for path, up in (("team/app/v1", ".."), ("team/app/.tags/v1", "../..")):
                    found = await kernel.walk(f"{path}/{name}")
                    assert found.kind is Kind.LINK
                    target = (await kernel.filesystem.readlink(found.ino)).decode()
                    assert target == f"{up}/.digests/{image.digest.file_name}/{name}"
                    assert (await kernel.walk(f"{path}/{name}/")).kind is Kind.FOLDER
                found = await kernel.walk(f"team/app/.digests/{image.digest.file_name}/{name}")
                assert found.kind is Kind.FOLDER

    run(test)


def test_a_layer_is_its_bytes_and_costs_nothing_before_it_is_read() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("team/app", "v1")
        [layer] = image.layers
        async with mounted(source) as kernel:
            [(name, found)] = await kernel.ls_l("team/app/v1/layers/")
            assert name == "00.tar.gz"
            assert found.size == len(layer.raw)
            path = f"team/app/v1/layers/{name}"
            assert await kernel.xattr(path, "user.oci.digest") == str(layer.digest)
            assert await kernel.xattr(path, "user.oci.size") == str(len(layer.raw))
            assert await kernel.xattr(path, "user.oci.mediatype") == layer.media_type
            assert await kernel.xattr(path, "user.oci.verified") == "0"
            assert source.count("blob") == 0
            assert await kernel.cat(path) == layer.raw
            assert source.count("blob") == 1
            with pytest.raises(NotFound):
                await kernel.walk("team/app/v1/layers/01.tar.gz")

    run(test)


def test_the_layers_of_an_index_are_the_hosts_platforms() -> None:
    async def test() -> None:
        source = MemorySource()
        index = make_index()
        source.push("team/app", "v1", index)
        async with mounted(source) as kernel:
            [(_, found)] = await kernel.ls_l("team/app/v1/layers/")
            assert found.size == len(index.images[0].layers[0].raw)
            other = index.images[1]
            assert (
                await kernel.cat("team/app/v1/platforms/linux-arm64-v8/layers/00.tar.gz")
                == other.layers[0].raw
            )

    run(test)


def test_what_is_no_image_has_no_rootfs_and_its_blobs_bear_their_titles() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("charts/app", "1.0", make_artifact(files={"app-1.0.tgz": b"chart", "../x": b"odd"}))
        async with mounted(source) as kernel:
            names = await kernel.ls("charts/app/1.0")
            assert "rootfs" not in names
            assert "layers" in names
            odd = Digest.of(b"odd").file_name
            assert await kernel.ls("charts/app/1.0/layers/") == ["app-1.0.tgz", odd]
            assert await kernel.cat("charts/app/1.0/layers/app-1.0.tgz") == b"chart"

    run(test)


def test_tags_and_repositories_may_bear_the_names_of_rooms() -> None:
    async def test() -> None:
        source = MemorySource()
        names = ("layers", "rootfs", "referrers", "oci")
        for name in names:
            source.push(f"team/{name}", "v1")
            source.push("team", name)
            source.push(name, "v1")
        async with mounted(source) as kernel:
            for name in names:
                for path in (f"team/{name}", f"team/.repos/{name}/v1", f"{name}/v1"):
                    assert (await kernel.cat(f"{path}/manifest.json")).startswith(b"{"), path
                assert await kernel.ls(f"team/{name}/layers/") == ["00.tar.gz"]
        async with mounted(source) as kernel:
            for name in names:
                assert (await kernel.cat(f"{name}/v1/manifest.json")).startswith(b"{")

    run(test)


def test_a_deleted_tag_takes_its_links_along_and_a_live_one_keeps_them() -> None:
    async def test() -> None:
        source = MemorySource()
        source.push("team/app", "v1")
        async with mounted(source, writable=True) as kernel:
            with pytest.raises(Refused):
                await kernel.rm("team/app/v1/layers")
            await kernel.rm_r("team/app/v1")
            assert not await kernel.exists("team/app/v1")
            assert source.content()["team/app"] == {}

    run(test)


def test_what_walks_a_registry_fetches_no_layer() -> None:
    async def test() -> None:
        source = MemorySource()
        for tag in ("v1", "v2"):
            source.push("team/app", tag, make_image(tag))
        async with mounted(source) as kernel:
            paths = [path async for path in kernel.find("team")]
            assert "team/app/v2/layers" in paths
            for path in paths:
                if (await kernel.walk(path)).kind is Kind.FILE and not path.endswith("config.json"):
                    await kernel.cat(path)
            assert source.count("blob") == 0

    run(test)


def test_blobs_that_prove_wrong_leave_their_inode() -> None:
    async def test() -> None:
        source = MemorySource()
        image = source.push_image("team/app", "v1")
        right = image.layers[0].raw
        source.corrupt_blob("team/app", image.layers[0].digest, right[:-1] + bytes([right[-1] ^ 1]))
        path = "team/app/v1/layers/00.tar.gz"
        async with mounted(source) as kernel:
            first = (await kernel.walk(path)).ino
            opened = await kernel.filesystem.open(first, False)
            assert opened.direct_io
            assert not opened.keep_cache
            with pytest.raises(DigestMismatch):
                await kernel.filesystem.read(opened.handle, 0, len(right))
            await kernel.filesystem.release(opened.handle)
            assert (await kernel.walk(path)).ino != first
            source.corrupt_blob("team/app", image.layers[0].digest, right)
            assert await kernel.cat(path) == right

    run(test)
