"""Inside an image whose layer is still arriving: files come as the layer does, and what is not sure yet is not kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regfs.testing.fake import FakeRegistry
from regfs.testing.faults import Gate
from regfs.testing.images import Image
from tests.manual.test_rootfs import image_of
from tests.support.archives import Item, folder, hard
from tests.support.mounts import Home, Mount, mounted

MIB = 1024 * 1024
SMALL = os.urandom(20_000)
BULK = Item(b"bulk", data=os.urandom(6 * MIB))
"""What comes behind the files that are asked for. At `HELD` the registry holds it back."""
HELD = 3 * MIB
ORDINARY = [
    folder(b"usr"),
    folder(b"usr/bin"),
    Item(b"usr/bin/x", data=SMALL, mode=0o755),
    Item(b"usr/bin/empty"),
    BULK,
    Item(b"usr/last", data=b"end\n"),
]
MAPPED = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
mapped = mmap.mmap(file, os.fstat(file).st_size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
sys.stdout.buffer.write(mapped[:])
"""


@dataclass
class Held:
    """A mount of an image as team/app:v1, whose registry holds back the rest of each blob until `let`."""

    registry: FakeRegistry
    gate: Gate
    mount: Mount
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.mount.path / "team/app/v1/rootfs"

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """A program that may have to wait; as long as it does, `is_waiting`."""
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.started.append(program)
        return program

    def are_waiting(self, *programs: subprocess.Popen[bytes]) -> bool:
        """Whether none of them ends by and by."""
        for program in programs:
            try:
                program.wait(0.3)
            except subprocess.TimeoutExpired:
                continue
            return False
        return True

    def let(self) -> None:
        """The registry goes on."""
        self.gate.open()


@contextmanager
def held(image: Image, home: Home, *, blob: bytes | None = None) -> Iterator[Held]:
    """``blob``: what the registry has in the place of the uppermost layer."""
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", image)
        if blob is not None:
            registry.corrupt_blob("team/app", image.layers[-1].digest, blob)
        gate = registry.stall("blob", after=HELD)
        with mounted(registry.address, home=home) as mount:
            here = Held(registry, gate, mount)
            try:
                yield here
            finally:
                gate.open()
                for program in here.started:
                    program.communicate(timeout=60)


def verified(path: Path) -> bytes:
    return os.getxattr(path, "user.oci.verified")


def first_bytes(path: Path, size: int = 128 * 1024) -> bytes:
    """What one read gives."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, size)
    finally:
        os.close(file)


PLAIN = "application/vnd.oci.image.layer.v1.tar"


@pytest.mark.parametrize("kept", [True, False], ids=["a cache", "no cache"])
@pytest.mark.parametrize("kind", [PLAIN, f"{PLAIN}+gzip", f"{PLAIN}+zstd"])
def test_a_file_comes_while_its_layer_arrives_and_its_last_byte_once_that_is_verified(
    home: Home, tmp_path: Path, kind: str, kept: bool
) -> None:
    home.write_config("" if kept else "cache_size = 0\n")
    with held(image_of(ORDINARY, media_types=[kind]), home) as here:
        path = here.root / "usr/bin/x"
        assert first_bytes(path) == SMALL[:-1]
        assert first_bytes(path, 100) == SMALL[:100]
        assert verified(path) == b"0"
        before = path.stat()
        assert (before.st_size, before.st_mode & 0o7777, before.st_nlink) == (len(SMALL), 0o755, 1)
        waiting = [
            here.start("cat", path),
            here.start(sys.executable, "-c", MAPPED, path),
            here.start("dd", f"if={path}", "bs=4096", "status=none"),
            here.start("cp", path, tmp_path / "copy"),
        ]
        assert here.are_waiting(*waiting)
        here.let()
        assert [program.communicate(timeout=30)[0] for program in waiting] == [SMALL, SMALL, SMALL, b""]
        assert (tmp_path / "copy").read_bytes() == SMALL
        assert verified(path) == b"1"
        after = path.stat()
        assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
        assert first_bytes(path) == SMALL
        assert here.registry.count("blob") == 1


def test_what_has_not_come_yet_is_waited_for_and_so_are_listings_and_names_that_are_not_there(
    home: Home,
) -> None:
    with held(image_of(ORDINARY), home) as here:
        assert first_bytes(here.root / "usr/bin/x", 10) == SMALL[:10]
        waiting = [
            here.start("cat", here.root / "usr/last"),
            here.start("ls", here.root / "usr/bin"),
            here.start("cat", here.root / "usr/nowhere"),
        ]
        assert here.are_waiting(*waiting)
        here.let()
        results = [program.communicate(timeout=30)[0] for program in waiting]
        assert results == [b"end\n", b"empty\nx\n", b""]
        assert [program.returncode for program in waiting] == [0, 0, 1]


def test_a_program_stays_in_its_folder_when_the_layer_is_whole(home: Home) -> None:
    with held(image_of(ORDINARY), home) as here:
        folder_of = here.root / "usr/bin"
        before = folder_of.stat().st_ino
        inside = here.start("/bin/sh", "-c", f"cd {folder_of} && read line && /bin/pwd && head -c 4 x")
        assert here.are_waiting(inside)
        here.let()
        here.mount.run(f"ls {folder_of}/", check=True)
        out, error = inside.communicate(b"go on\n", timeout=30)
        assert out.endswith(b"/usr/bin\n" + SMALL[:4]), error
        assert folder_of.stat().st_ino == before


ASKS_TWICE = """
import os, sys
os.chdir(sys.argv[1])
os.stat("x")
print("once", flush=True)
sys.stdin.readline()
os.stat("x")
"""


def test_the_kernel_keeps_what_it_was_told_only_once_the_layer_is_whole(home: Home) -> None:
    def answers_twice(here: Held) -> bool:
        """Whether the kernel needs no daemon to say once more what a name is."""
        program = here.start(sys.executable, "-c", ASKS_TWICE, here.root / "usr/bin")
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == b"once\n"
        os.kill(here.mount.pid, signal.SIGSTOP)
        try:
            program.stdin.write(b"again\n")
            program.stdin.flush()
            return not here.are_waiting(program)
        finally:
            os.kill(here.mount.pid, signal.SIGCONT)

    with held(image_of(ORDINARY), home) as here:
        assert not answers_twice(here)
        here.let()
        assert here.mount.read("team/app/v1/rootfs/usr/last") == b"end\n"
        assert answers_twice(here)


def test_a_later_member_of_a_name_takes_over_with_a_new_inode(home: Home) -> None:
    items = [
        Item(b"x", data=SMALL),
        Item(b"becomes", data=SMALL),
        Item(b"linked", data=SMALL),
        BULK,
        Item(b"x", data=b"later"),
        folder(b"becomes"),
        Item(b"becomes/a", data=b"inside"),
        hard(b"other", b"linked"),
    ]
    with held(image_of(items), home) as here:
        early = {name: (here.root / name).stat() for name in ("x", "becomes", "linked")}
        file = os.open(here.root / "x", os.O_RDONLY)
        try:
            assert os.read(file, MIB) == SMALL[:-1]
            here.let()
            assert os.read(file, MIB) == SMALL[-1:]
            assert here.mount.read("team/app/v1/rootfs/x") == b"later"
            assert (here.root / "x").stat().st_ino != early["x"].st_ino
            assert os.fstat(file).st_size == len(SMALL)
        finally:
            os.close(file)
        assert here.mount.read("team/app/v1/rootfs/becomes/a") == b"inside"
        names = [(here.root / name).stat() for name in ("linked", "other")]
        assert [one.st_nlink for one in names] == [2, 2]
        assert names[0].st_ino == names[1].st_ino
        assert early["linked"].st_nlink == 1


@pytest.mark.parametrize("lists", [True, False])
def test_a_folder_stays_the_same_one_with_what_its_last_member_says(home: Home, lists: bool) -> None:
    items = [folder(b"a", 0o700), Item(b"a/x", data=SMALL), BULK, folder(b"a", 0o755)]
    with held(image_of(items), home) as here:
        early = (here.root / "a").stat()
        assert early.st_mode & 0o7777 == 0o700
        here.let()
        if lists:
            assert here.mount.list("team/app/v1/rootfs") == ["a", "bulk"]
        else:
            assert here.mount.read("team/app/v1/rootfs/a/x") == SMALL
        final = (here.root / "a").stat()
        assert (final.st_ino, final.st_mode & 0o7777) == (early.st_ino, 0o755)


def test_what_a_layer_above_replaces_or_removes_is_not_told_by_the_one_that_arrives(home: Home) -> None:
    upper = [folder(b"usr"), folder(b"usr/bin"), Item(b"usr/bin/.wh.empty"), Item(b"usr/own", data=b"upper")]
    with held(image_of(ORDINARY, upper), home) as here:
        assert here.mount.read("team/app/v1/rootfs/usr/own") == b"upper"
        assert first_bytes(here.root / "usr/bin/x", 10) == SMALL[:10]
        assert verified(here.root / "usr/own") == b"1"
        assert here.mount.run(f"cat {here.root}/usr/bin/empty").returncode == 1
        # All of that came while the layer below was held back.
        assert here.are_waiting(here.start("cat", here.root / "usr/last"))


def flipped(blob: bytes) -> bytes:
    return blob[:-MIB] + bytes([blob[-MIB] ^ 1]) + blob[1 - MIB :]


@pytest.mark.parametrize(
    "change",
    [flipped, lambda blob: blob[:-1000], lambda blob: blob + bytes(1000)],
    ids=["a flipped bit", "cut short", "too long"],
)
@pytest.mark.parametrize("kind", [PLAIN, f"{PLAIN}+gzip"])
def test_no_whole_read_of_a_file_in_a_wrong_layer_ends_cleanly(
    home: Home, kind: str, change: Callable[[bytes], bytes]
) -> None:
    image = image_of(ORDINARY, media_types=[kind])
    with held(image, home, blob=change(image.layers[0].raw)) as here:
        path = here.root / "usr/bin/x"
        is_told = change is flipped  # another size may be refused at once
        if is_told:
            assert first_bytes(path, 1000) == SMALL[:1000]
            assert verified(path) == b"0"
            wrong = path.stat().st_ino
        readers = [
            here.start("cat", path),
            here.start("cat", path),
            here.start("dd", f"if={path}", "bs=1000", "status=none"),
            here.start(sys.executable, "-c", MAPPED, path),
            here.start("cat", here.root / "usr/bin/empty"),
        ]
        assert here.are_waiting(*readers) or not is_told
        here.let()
        outputs = [reader.communicate(timeout=60) for reader in readers]
        assert all(reader.returncode != 0 for reader in readers)
        assert all(SMALL[:-1].startswith(out) for out, _ in outputs)
        if is_told:
            assert all(b"Bad message" in error for _, error in (*outputs[:3], outputs[4]))
            assert outputs[0][0] == SMALL[:-1]
        assert not list((home.path / ".cache/regfs").rglob(f"*{image.layers[0].digest.hex}*"))
        here.registry.corrupt_blob("team/app", image.layers[0].digest, image.layers[0].raw)
        assert here.mount.read("team/app/v1/rootfs/usr/bin/x") == SMALL
        assert here.mount.run([sys.executable, "-c", MAPPED, path], timeout=30).returncode == 0
        assert verified(path) == b"1"
        if is_told:
            assert path.stat().st_ino != wrong
