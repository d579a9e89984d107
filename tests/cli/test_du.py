"""`regfs du`: how large images are, by their manifests alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.cli.du import UNPACKED_SIZE, human
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_artifact, make_image, make_index
from tests.support.layered import PLAIN, image, layer
from tests.support.mounts import Home, mounted, regfs_command
from tests.support.registry import DockerRegistry

BASE = layer({"base": b"b" * 3000}, media_type=PLAIN)
APP = layer({"app": b"1"})
OTHER = layer({"app": b"22"})
SAME_BASE = (image(BASE, APP), image(BASE, OTHER))


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", SAME_BASE[0])
        registry.push("team/app", ["v2", "stable"], SAME_BASE[1])
        registry.push("team/app/nested", "n1", make_image("nested"))
        yield registry


def whole(*images: object) -> int:
    """What these come to in the registry, each content once."""
    contents = {c.digest: c for i in images for c in (*i.manifests(), *i.blobs)}  # type: ignore[attr-defined]
    return sum(len(content.raw) for content in contents.values())


def measured(home: Home, *arguments: str) -> dict[str, dict[str, object]]:
    found = json.loads(home.regfs("du", "--json", *arguments, check=True).stdout)
    return {row["path"]: row for row in found["images"]}


def test_a_tags_size_is_all_that_the_registry_keeps_for_it(registry: FakeRegistry, home: Home) -> None:
    path = f"{registry.address}/team/app/v1"
    row = measured(home, path)[path]
    assert row["size"] == whole(SAME_BASE[0])
    assert row["digest"] == str(SAME_BASE[0].digest)
    assert row["reference"] == f"{registry.address}/team/app:v1"
    assert row["missing"] == 0


def test_no_layer_and_no_config_is_fetched(registry: FakeRegistry, home: Home) -> None:
    home.regfs("du", f"{registry.address}/team", check=True)
    assert registry.count("blob") == 0
    assert registry.count("manifest") == 4  # one for each tag


def test_a_repository_shows_its_tags_and_those_nested_in_it(registry: FakeRegistry, home: Home) -> None:
    base = f"{registry.address}/team/app"
    assert [*measured(home, base)] == [f"{base}/{tag}" for tag in ("stable", "v1", "v2", "nested/n1")]
    assert [*measured(home, registry.address)] == [*measured(home, base)]


def test_what_several_lines_have_is_shared_and_counted_once_in_the_total(
    registry: FakeRegistry, home: Home
) -> None:
    base = f"{registry.address}/team/app"
    done = home.regfs("du", "-b", "-c", f"{base}/v1", f"{base}/v2", check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    shared = str(len(BASE.raw))
    assert lines[0] == ["SIZE", "UNPACKED", "SHARED", "PATH"]
    assert lines[1][0::2] == [str(whole(SAME_BASE[0])), shared]
    assert lines[2][0::2] == [str(whole(SAME_BASE[1])), shared]
    assert lines[3] == [str(whole(*SAME_BASE)), "-", "-", "total"]


def test_two_tags_of_one_image_share_all_of_it(registry: FakeRegistry, home: Home) -> None:
    base = f"{registry.address}/team/app"
    for row in measured(home, f"{base}/v2", f"{base}/stable").values():
        assert row["shared"] == row["size"] == whole(SAME_BASE[1])


def test_summarize_gives_one_line_for_each_argument(registry: FakeRegistry, home: Home) -> None:
    base = f"{registry.address}/team/app"
    done = home.regfs("du", "-s", "-b", base, f"{base}/v1", check=True)
    rows = {line.split()[-1]: line.split() for line in done.stdout.splitlines()}
    assert rows[base][0] == str(whole(*SAME_BASE, make_image("nested")))
    assert rows[f"{base}/v1"][0] == rows[f"{base}/v1"][2] == str(whole(SAME_BASE[0]))


def test_an_index_counts_all_its_platforms_and_attestations(registry: FakeRegistry, home: Home) -> None:
    index = make_index(seed="du", attestations=True)
    registry.push("team/multi", "v1", index)
    path = f"{registry.address}/team/multi/v1"
    assert measured(home, path)[path]["size"] == whole(index)
    assert registry.count("blob") == 0


def test_a_platform_that_the_registry_lacks_is_told_of_and_not_counted(
    registry: FakeRegistry, home: Home
) -> None:
    index = make_index(seed="sparse")
    registry.push("team/multi", "v1", index)
    gone = index.images[1]
    registry.plant("team/multi", str(gone.digest), b"{}", status=404)
    path = f"{registry.address}/team/multi/v1"
    done = home.regfs("du", "--json", path, check=True)
    row = json.loads(done.stdout)["images"][0]
    assert row["missing"] == 1
    assert row["size"] == whole(index.images[0]) + len(index.manifest.raw)
    assert "1 manifests that the registry does not have" in done.stderr


def test_an_artifact_has_a_size_too(registry: FakeRegistry, home: Home) -> None:
    artifact = make_artifact(files={"a.json": b"{}", "b.json": b"[]"})
    registry.push("charts", "c1", artifact)
    path = f"{registry.address}/charts/c1"
    assert measured(home, path)[path]["size"] == whole(artifact)


def test_unpacked_sizes_are_those_that_manifests_tell(registry: FakeRegistry, home: Home) -> None:
    registry.push("team/plain", "v1", image(BASE))
    notes = [{}, {UNPACKED_SIZE: "10240"}]
    registry.push("team/noted", "v1", image(BASE, APP, layer_annotations=notes))
    lie = [{}, {UNPACKED_SIZE: "-1"}]
    registry.push("team/lie", "v1", image(BASE, APP, layer_annotations=lie))
    base = f"{registry.address}/team"
    rows = measured(home, f"{base}/plain/v1", f"{base}/noted/v1", f"{base}/lie/v1", f"{base}/app/v1")
    assert [row["unpacked"] for row in rows.values()] == [len(BASE.raw), len(BASE.raw) + 10240, None, None]


def test_unpacked_sizes_are_known_of_layers_that_the_cache_has_indexed(
    registry: FakeRegistry, home: Home
) -> None:
    path = f"{registry.address}/team/app/v1"
    assert measured(home, path)[path]["unpacked"] is None
    home.regfs("warm", "-q", path, check=True)
    # A header, a block for the byte, and the two blocks that end an archive; the other layer is one already.
    assert measured(home, path)[path]["unpacked"] == len(BASE.raw) + 512 + 512 + 1024
    for index in (home.path / ".cache/regfs/derived").iterdir():
        index.write_bytes(b"damaged")
    assert measured(home, path)[path]["unpacked"] is None


def test_in_a_mount_the_mount_is_asked(registry: FakeRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        without = measured(home, f"{registry.address}/team/app")
        mount.run(["cat", "team/app/v1/manifest.json"], check=True)
        before = registry.count("manifest")
        within = measured(home, f"{mount.path}/team/app/v1")
        assert registry.count("manifest") == before, "what the mount knows is not asked again"
        assert [row["size"] for row in within.values()] == [
            without[f"{registry.address}/team/app/v1"]["size"]
        ]
        rows = measured(home, f"{mount.path}/team/app")
        assert [row["size"] for row in rows.values()] == [row["size"] for row in without.values()]
        assert [*rows] == [path.replace(registry.address, str(mount.path)) for path in without]


@pytest.mark.parametrize("flag", ["--rw", "--ro"])
def test_a_registry_is_meant_by_its_address_in_a_mount_too(
    registry: FakeRegistry, home: Home, flag: str
) -> None:
    """Although a name like `app:v1` is a link there."""
    path = f"{registry.address}/team/app/v1"
    with mounted(flag, registry.address, home=home) as mount:
        mount.run(["ls", registry.address])
        for place in (path, registry.address, f"{registry.address}/", "team/app:v1"):
            done = mount.run([*regfs_command(), "du", "--json", place], check=True)
            assert json.loads(done.stdout)["images"], place
        shown = mount.run([*regfs_command(), "diff", path, "team/app/v1"])
        assert (shown.returncode, shown.stdout) == (0, "")


def test_of_several_paths_one_that_fails_stops_nothing(registry: FakeRegistry, home: Home) -> None:
    base = f"{registry.address}/team/app"
    done = home.regfs("du", f"{base}/v9", f"{base}/v1")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith(f"{base}/v1")
    assert done.stderr.startswith(f"regfs: {base}/v9: No such file or directory\n  ")


def test_a_tag_whose_manifest_fails_leaves_the_others(registry: FakeRegistry, home: Home) -> None:
    registry.plant("team/app", "v1", b"nonsense", media_type="text/plain")
    done = home.regfs("du", "-b", f"{registry.address}/team/app")
    assert done.returncode == 1
    assert [line.split()[-1].rpartition("/")[2] for line in done.stdout.splitlines()[1:]] == [
        "stable",
        "v2",
        "n1",
    ]
    assert f"{registry.address}/team/app/v1" in done.stderr


def test_it_works_with_dockers_registry(docker_registry: Callable[..., DockerRegistry], home: Home) -> None:
    registry = docker_registry()
    pushed = registry.push("team/app", ["v1", "v2"], make_index())
    path = f"{registry.address}/team/app"
    before = len(registry.requests())
    rows = measured(home, path)
    assert [row["size"] for row in rows.values()] == [whole(pushed)] * 2
    assert not [line for line in registry.requests()[before:] if "/blobs/" in line.target]


@given(st.integers(0, 2**62))
def test_sizes_for_people_are_rounded_up_as_du_does(size: int) -> None:
    spelled = human(size)
    unit = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50}.get(spelled[-1])
    if unit is None:
        assert int(spelled) == size < 1024
        return
    least = 10 if "." not in spelled else 1
    value = float(spelled[:-1])
    assert value * (1 << unit) >= size * 0.999999
    assert (value - least / 10) * (1 << unit) < size * 1.000001
    assert value < 10 or "." not in spelled


@pytest.mark.parametrize(
    "size", [0, 1, 1023, 1024, 1025, 10_188, 10_240, 10_241, 1_048_575, 1_048_576, 5 << 30]
)
def test_sizes_for_people_are_those_of_du_h(size: int) -> None:
    done = subprocess.run(
        ["numfmt", "--to=iec", "--round=up", str(size)], capture_output=True, text=True, check=True
    )
    assert human(size) == done.stdout.strip()
