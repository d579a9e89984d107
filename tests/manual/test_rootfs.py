"""Inside an image: what a tag's ``rootfs`` shows is what its layers make, one over the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regfs.image.members import MemberKind
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Image
from tests.support.archives import Item, archive, folder, hard, layered_image, link
from tests.support.mounts import Home, Mount, mounted

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
