"""Inside an image: what a tag's ``rootfs`` shows is what its layers make, one over the other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.image.members import MemberKind
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Image, make_artifact, make_index
from tests.support.archives import Item, archive, folder, hard, layered_image, link
from tests.support.mounts import Home, Mount, mounted
from tests.support.trees import snapshot

BASE = [
    folder(b"./"),
    folder(b"./etc", 0o750),
    Item(b"./etc/os-release", data=b"ID=base\n", uid=3, gid=4, mtime=1_234_567_890.125),
    Item(b"./etc/removed", data=b"x"),
    folder(b"./usr"),
    folder(b"./usr/bin"),
    Item(b"./usr/bin/tool", data=b"#!/bin/sh\n", mode=0o4755, xattrs={b"user.note": b"said"}),
    hard(b"./usr/bin/alias", b"./usr/bin/tool"),
    link(b"./bin", b"/usr/bin"),
    link(b"./up", b"../../../../etc/os-release"),
    folder(b"./cleared"),
    Item(b"./cleared/old", data=b"x"),
    Item(b"./secret", data=b"hidden\n", mode=0o000, uid=7),
    Item(b"./name \xff\n\xc3\xa9", data=b"odd\n"),
    Item(b"./null", MemberKind.CHARACTER_DEVICE, device=(1, 3), mode=0o666),
    Item(b"./disk", MemberKind.BLOCK_DEVICE, device=(8, 1), mode=0o660),
    Item(b"./pipe", MemberKind.FIFO, mode=0o600),
]
OVER = [
    Item(b"etc/.wh.removed"),
    Item(b"etc/added", data=b"new\n"),
    Item(b"cleared/.wh..wh..opq"),
    Item(b"cleared/new", data=b"y"),
    hard(b"usr/bin/third", b"usr/bin/tool"),
]


@contextmanager
def shown(
    image: Image, home: Home, *flags: str, errors: Sequence[str] = ()
) -> Iterator[tuple[FakeRegistry, Mount, Path]]:
    """A mount of a registry that holds the image as team/app:v1, and the image's root in it."""
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", image)
        with mounted(*flags, registry.address, home=home, expected_in_log=errors) as mount:
            yield registry, mount, mount.path / "team/app/v1/rootfs"


def image_of(*layers: Sequence[Item], **more: object) -> Image:
    return layered_image([archive(items) for items in layers], **more)  # type: ignore[arg-type]


def test_a_tree_is_read_with_ordinary_tools(home: Home) -> None:
    with shown(image_of(BASE, OVER), home) as (_registry, mount, _root):
        assert mount.read("team/app/v1/rootfs/etc/os-release") == b"ID=base\n"
        assert mount.list("team/app/v1/rootfs/etc") == ["added", "os-release"]
        assert mount.list("team/app/v1/rootfs/cleared") == ["new"]
        assert mount.run("cat team/app/v1/rootfs/etc/removed").returncode == 1
        assert mount.read("team/app/v1/rootfs/bin/tool") == b"#!/bin/sh\n"
        assert mount.read("team/app/v1/rootfs/up") == b"ID=base\n"
        mount.run("ls -lR team/app/v1/rootfs/ > /dev/null", check=True)
        names = mount.run("find team/app/v1/rootfs/ | wc -l", check=True).stdout
        assert int(names) == 19  # one name holds a new line


def test_every_attribute_is_the_images(home: Home, tmp_path: Path) -> None:
    with shown(image_of(BASE, OVER), home) as (_registry, _mount, root):
        seen = snapshot(root)
        assert seen[b"etc"].mode == 0o750
        release = seen[b"etc/os-release"]
        assert (release.owner, release.mtime_ns) == ((3, 4), 1_234_567_890_125_000_000)
        assert seen[b"secret"].mode == 0
        assert seen[b"secret"].content == b"hidden\n"
        assert seen[b"name \xff\n\xc3\xa9"].content == b"odd\n"
        assert (seen[b"null"].kind, seen[b"null"].device) == ("character device", os.makedev(1, 3))
        assert (seen[b"disk"].kind, seen[b"disk"].device) == ("block device", os.makedev(8, 1))
        assert seen[b"pipe"].kind == "fifo"
        tool = seen[b"usr/bin/tool"]
        assert (tool.mode, tool.xattrs, tool.links) == (0o4755, (("user.note", b"said"),), 3)
        assert {seen[b"usr/bin/" + name].same for name in (b"alias", b"third", b"tool")} == {b"usr/bin/alias"}


def test_one_hard_link_more_in_an_upper_layer_counts_and_one_that_was_removed_does_not(home: Home) -> None:
    gone = [Item(b"usr/bin/.wh.alias")]
    with shown(image_of(BASE, OVER, gone), home) as (_registry, mount, _root):
        counted = mount.run("stat -c '%h %i' team/app/v1/rootfs/usr/bin/*", check=True).stdout.splitlines()
        assert len(counted) == 2
        assert len(set(counted)) == 1
        assert counted[0].startswith("2 ")


def test_programs_that_copy_take_everything_along(home: Home, tmp_path: Path) -> None:
    with shown(image_of(BASE, OVER), home) as (_registry, mount, root):
        expected = snapshot(root)
        mount.run(["cp", "-a", f"{root}/.", tmp_path / "copy"], check=True)
        assert snapshot(tmp_path / "copy") == expected
        (tmp_path / "untarred").mkdir()
        mount.run(
            f"tar c --xattrs -C {root}/ . | tar x --xattrs --xattrs-include='*' --same-owner -p -C {tmp_path}/untarred",
            check=True,
        )
        assert snapshot(tmp_path / "untarred") == expected


def test_a_listing_costs_no_inode_until_more_than_names_is_asked_for(home: Home) -> None:
    files = [Item(b"usr/share/file-%03d" % number, data=b"x") for number in range(300)]
    with shown(image_of(BASE, files), home) as (_registry, mount, _root):
        assert inodes(mount, "find team/app/v1/rootfs/usr > /dev/null") < 50
        assert inodes(mount, "ls -l team/app/v1/rootfs/usr/share > /dev/null") > 300


def inodes(mount: Mount, command: str) -> int:
    """How many the mount knows after a command."""
    mount.run(command, check=True)
    found: int = json.loads(mount.read(".regfs/status.json"))["inodes"]
    return found


def test_an_inode_number_is_the_same_in_a_listing_in_its_attributes_and_after_the_kernel_forgot_it(
    home: Home,
) -> None:
    with shown(image_of(BASE, OVER), home) as (_registry, _mount, root):
        listed = {entry.name: entry.inode() for entry in os.scandir(root / "usr/bin")}
        seen = {name: (root / "usr/bin" / name).lstat().st_ino for name in listed}
        assert listed == seen
        assert seen["tool"] == seen["alias"] == seen["third"]
        Path("/proc/sys/vm/drop_caches").write_text("2")
        assert {name: (root / "usr/bin" / name).lstat().st_ino for name in listed} == seen
        assert len({entry.inode() for entry in os.scandir(root)}) == len(list(root.iterdir()))


def test_devices_are_dead_and_a_set_user_id_bit_gives_nobody_anything(home: Home) -> None:
    with shown(image_of(BASE), home) as (_registry, mount, root):
        assert mount.run(f"cat {root}/null").returncode != 0
        options = next(
            line for line in Path("/proc/mounts").read_text().splitlines() if str(mount.path) in line
        )
        assert "nosuid" in options
        assert "nodev" in options


def test_what_is_where_an_entry_comes_from_is_an_extended_attribute(home: Home) -> None:
    image = image_of(BASE, OVER)
    with shown(image, home) as (_registry, _mount, root):
        base, over = (layer.digest for layer in image.layers)
        assert os.getxattr(root / "usr/bin/tool", "user.oci.digest").decode() == str(base)
        assert os.getxattr(root / "etc/added", "user.oci.digest").decode() == str(over)
        assert os.getxattr(root / "etc/added", "user.oci.verified") == b"1"
        assert os.getxattr(root / "usr/bin/tool", "user.note") == b"said"
        with pytest.raises(OSError, match="No data"):
            os.getxattr(root / "etc", "user.none")
        with pytest.raises(OSError, match="not supported"):
            os.getxattr(root / "etc", "security.selinux")


@pytest.mark.parametrize(("flags", "target"), [((), "usr/bin"), (("-o", "symlinks=raw"), "/usr/bin")])
def test_links_lead_nowhere_outside_unless_they_are_shown_raw(
    home: Home, flags: tuple[str, ...], target: str
) -> None:
    with shown(image_of(BASE), home, *flags) as (_registry, _mount, root):
        assert (root / "bin").readlink() == Path(target)


def test_owners_may_be_squashed_to_whom_the_mount_belongs_and_all_is_readable(home: Home) -> None:
    with shown(image_of(BASE), home, "-o", "owners=squash,uid=1234,gid=4321") as (_registry, _mount, root):
        seen = snapshot(root)
        assert {one.owner for one in seen.values()} == {(1234, 4321)}
        assert seen[b"secret"].mode == 0o400
        assert seen[b"usr/bin/tool"].mode == 0o4755


def test_a_tree_costs_nothing_until_someone_goes_in(home: Home) -> None:
    image = image_of(BASE, OVER)
    with shown(image, home) as (registry, mount, root):
        mount.run("find . -name manifest.json; ls -lR . > /dev/null; du -s .", check=True)
        mount.run(f"ls -ld {root} {root}/", check=True)
        assert blobs_asked(registry, image) == set()


def test_a_file_of_the_topmost_layer_asks_for_no_other(home: Home) -> None:
    top = [folder(b"opt"), Item(b"opt/app", data=b"app\n")]
    large = [Item(b"bulk", data=os.urandom(3 * 1024 * 1024))]
    image = image_of(large, top)
    with shown(image, home) as (registry, mount, _root):
        assert mount.read("team/app/v1/rootfs/opt/app") == b"app\n"
        assert blobs_asked(registry, image) == {1}
        assert mount.list("team/app/v1/rootfs") == ["bulk", "opt"]
        assert blobs_asked(registry, image) == {0, 1}


def test_an_opaque_folder_is_listed_without_the_layers_below(home: Home) -> None:
    large = [Item(b"opt/bulk", data=os.urandom(3 * 1024 * 1024))]
    image = image_of(large, [folder(b"opt"), Item(b"opt/.wh..wh..opq"), Item(b"opt/app")])
    with shown(image, home) as (registry, mount, _root):
        assert mount.list("team/app/v1/rootfs/opt") == ["app"]
        assert blobs_asked(registry, image) == {1}


def test_a_layer_that_cannot_be_read_hides_only_what_needs_it(home: Home) -> None:
    kinds = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.v1.tar",
    ]
    image = image_of(BASE, [folder(b"opt"), Item(b"opt/app", data=b"app\n")], media_types=kinds)
    with shown(image, home) as (_registry, mount, _root):
        assert mount.read("team/app/v1/rootfs/opt/app") == b"app\n"
        done = mount.run("LC_ALL=C ls team/app/v1/rootfs/")
        assert "not supported" in done.stderr
        assert "kept elsewhere" in mount.errors()


def test_a_layer_of_wrong_bytes_is_a_bad_message(home: Home) -> None:
    image = image_of(BASE)
    with shown(image, home) as (registry, mount, _root):
        raw = bytearray(image.layers[0].raw)
        raw[raw.index(b"ID=base")] ^= 1
        registry.corrupt_blob("team/app", image.layers[0].digest, bytes(raw))
        done = mount.run("LC_ALL=C cat team/app/v1/rootfs/etc/os-release")
        assert done.returncode != 0
        assert "Bad message" in done.stderr
        registry.corrupt_blob("team/app", image.layers[0].digest, image.layers[0].raw)
        assert mount.read("team/app/v1/rootfs/etc/os-release") == b"ID=base\n"


HOSTILE = [
    Item(b"../../../../etc/climbed", data=b"1"),
    Item(b"/absolute", data=b"2"),
    Item(b"a/../../b", data=b"3"),
    link(b"out", b"/../../../../../../../../etc/passwd"),
    link(b"climbs", b"x/../../../../../../../.."),
    link(b"loop", b"pool"),
    link(b"pool", b"loop"),
    Item(b"loop/inside", data=b"4"),
    link(b"home", b"/"),
    link(b"far", b"home/../../../../../../.."),
    Item(b"etc/.wh."),
    Item(b"etc/.wh..."),
    Item(b"file", data=b"5"),
    Item(b"file/in/file", data=b"6"),
    hard(b"dangling", b"nowhere"),
    hard(b"itself", b"itself"),
    Item(b"x" * 300, data=b"7"),
    Item(b"/".join([b"d"] * 300), data=b"8"),
    Item(b"future", data=b"9", mtime=2**40),
]


def test_a_hostile_archive_is_contained_and_what_is_sound_stays(home: Home) -> None:
    with shown(image_of(HOSTILE), home) as (_registry, mount, root):
        assert mount.list("team/app/v1/rootfs") == sorted(
            ["absolute", "b", "climbs", "etc", "far", "file", "future", "home", "loop", "out", "pool"]
        )
        assert mount.read("team/app/v1/rootfs/etc/climbed") == b"1"
        inside = os.path.realpath(root)
        for name in ("out", "climbs", "far", "home"):
            assert (os.path.realpath(root / name) + "/").startswith(inside + "/"), name
        assert mount.run(f"cat {root}/out").returncode != 0
        said = mount.errors()
        for reason in ("link to itself", "no file below", "is no folder", "bytes", "deep", "without an end"):
            assert reason in said, reason


@pytest.mark.parametrize("family", ["oci", "docker"])
@pytest.mark.parametrize("form", ["", "gzip", "zstd"])
def test_every_ordinary_kind_of_layer_is_read(home: Home, family: str, form: str) -> None:
    plain = {
        "oci": "application/vnd.oci.image.layer.v1.tar",
        "docker": "application/vnd.docker.image.rootfs.diff.tar",
    }
    mark = "+" if family == "oci" else "."
    kind = plain[family] + (f"{mark}{form}" if form else "")
    image = image_of(BASE, OVER, media_types=[kind, kind], family=family)
    with shown(image, home) as (_registry, mount, _root):
        assert mount.read("team/app/v1/rootfs/etc/added") == b"new\n"
        assert mount.read("team/app/v1/rootfs/etc/os-release") == b"ID=base\n"


def test_of_an_index_the_hosts_platform_is_shown_and_an_artifact_has_no_root(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "all", make_index())
        registry.push("team/app", "sbom", make_artifact())
        with mounted(registry.address, home=home) as mount:
            assert mount.list("team/app/all/rootfs/etc") == ["os-release"]
            assert "rootfs" not in mount.list("team/app/sbom")


def test_nothing_in_a_tree_can_be_written(home: Home) -> None:
    with shown(image_of(BASE), home, "--rw") as (_registry, mount, root):
        for command in (
            f"rm {root}/etc/os-release",
            f"touch {root}/new",
            f"rmdir {root}/etc",
            f"sh -c '>> {root}/etc/os-release'",
        ):
            assert mount.run(command).returncode != 0, command
        assert mount.read("team/app/v1/rootfs/etc/os-release") == b"ID=base\n"


def blobs_asked(registry: FakeRegistry, image: Image) -> set[int]:
    """Which layers of the image were asked for, counted from the lowest."""
    asked = "\n".join(request.target for request in registry.requests)
    return {n for n, layer in enumerate(image.layers) if str(layer.digest) in asked}
