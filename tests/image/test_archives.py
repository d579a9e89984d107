"""What tar programs write is read as they would unpack it: GNU tar, bsdtar, Python's tarfile, in every format of theirs."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.image.archive_limits import ArchiveLimits
from regfs.image.limits import Limits
from regfs.image.members import Member, MemberKind
from regfs.image.tarwalk import TarWalk
from tests.image.hands import contents, layer, run, tarred
from tests.support.archives import members_of
from tests.support.needs import need_programs, need_root

GNU = ["--format=gnu", "--format=oldgnu", "--format=pax", "--format=ustar", "--format=v7"]
SPARSE = [
    ["--format=gnu"],
    ["--format=pax", "--sparse-version=0.0"],
    ["--format=pax", "--sparse-version=0.1"],
    ["--format=pax", "--sparse-version=1.0"],
]
BSD = ["--format=gnutar", "--format=pax", "--format=ustar", "--format=v7"]


def walked(
    archive: bytes, piece: int = 100_000, limits: Limits | None = None
) -> tuple[list[Member], list[str], bool]:
    """The members, the faults, and whether it is an archive."""
    members: list[Member] = []
    faults: list[str] = []
    walk = TarWalk(limits or Limits(), ArchiveLimits(), members.append, faults.append)
    for at in range(0, len(archive), piece):
        walk.give(archive[at : at + piece])
    walk.finish()
    return members, faults, walk.is_archive


def unfolded(archive: bytes, member: Member) -> bytes:
    """A file's content as its member tells it."""
    data = bytearray(member.size)
    at = member.offset
    for offset, length in [(0, member.size)] if member.sparse is None else member.sparse:
        data[offset : offset + length] = archive[at : at + length]
        at += length
    return bytes(data)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything that all formats can say."""
    need_root()
    root = tmp_path_factory.mktemp("tree")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_bytes(b"root:x:0:0\n")
    (root / "etc/empty").touch()
    (root / "bin").mkdir(mode=0o750)
    (root / "bin/su").write_bytes(os.urandom(3000))
    (root / "bin/su").chmod(0o4755)
    os.link(root / "bin/su", root / "bin/other")
    (root / "lib").symlink_to("usr/lib")
    os.mkfifo(root / "pipe")
    os.utime(root / "etc/passwd", (1_234_567_890, 1_234_567_890))
    os.lchown(root / "etc/empty", 1000, 2000)
    return root


@pytest.fixture(scope="module")
def wide_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What only newer formats can say."""
    need_root()
    root = tmp_path_factory.mktemp("wide")
    deep = root.joinpath(*["d" * 50] * 6)
    deep.mkdir(parents=True)
    (deep / ("n" * 180)).write_bytes(b"deep")
    (root / os.fsdecode(b"\xff\xfe not utf-8")).write_bytes(b"odd")
    (root / "line\nbreak").write_bytes(b"break")
    (root / "link").symlink_to("/".join(["t" * 99] * 3))
    (root / "old").write_bytes(b"before the epoch")
    os.utime(root / "old", (-1000, -1000))
    os.lchown(root / "old", 3_000_000, 4_000_000)
    return root


def on_disk(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What a folder holds, by path: kind, mode, owners, time, content or target."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        if path.is_symlink():
            what: object = os.fsencode(path.readlink())
        else:
            what = path.read_bytes() if path.is_file() else b""
        found[os.fsencode(path.relative_to(root))] = (
            facts.st_mode & 0o7777,
            facts.st_uid,
            facts.st_gid,
            int(facts.st_mtime),
            what,
        )
    return found


def in_archive(archive: bytes) -> dict[bytes, tuple[object, ...]]:
    """The same of an archive; a hard link is what it leads to."""
    members, faults, _ = walked(archive)
    assert faults == []
    found: dict[bytes, tuple[object, ...]] = {}
    for member in members:
        if member.path == b"":
            continue
        if member.kind is MemberKind.HARD_LINK:
            found[member.path] = found[member.target]
            continue
        is_file = member.kind is MemberKind.FILE
        what = unfolded(archive, member) if is_file else member.target
        seconds = member.mtime_ns // 1_000_000_000
        found[member.path] = (member.mode, member.uid, member.gid, seconds, what)
    return found


def packed_by(program: str, root: Path, *options: str) -> bytes:
    """What a tar program makes of a folder."""
    need_programs(program)
    argv = [program, *options, "-cf", "-", "-C", os.fspath(root), "."]
    return subprocess.run(argv, capture_output=True, check=True).stdout


@pytest.mark.parametrize("style", GNU)
def test_gnu_tar(tree: Path, style: str) -> None:
    expected = on_disk(tree)
    options = [style]
    if style == "--format=v7":
        options.append("--exclude=./pipe")  # it has no type for it
        del expected[b"pipe"]
    assert in_archive(packed_by("tar", tree, *options)) == expected


@pytest.mark.parametrize("style", BSD)
def test_bsdtar(tree: Path, style: str) -> None:
    expected = on_disk(tree)
    if style == "--format=v7":
        del expected[b"pipe"]  # it has no type for it
    assert in_archive(packed_by("bsdtar", tree, style)) == expected


@pytest.mark.parametrize("style", ["--format=gnu", "--format=pax"])
def test_gnu_tar_with_what_old_formats_cannot_say(wide_tree: Path, style: str) -> None:
    assert in_archive(packed_by("tar", wide_tree, style)) == on_disk(wide_tree)


@pytest.mark.parametrize("style", ["--format=gnutar", "--format=pax"])
def test_bsdtar_with_what_old_formats_cannot_say(wide_tree: Path, style: str) -> None:
    expected = on_disk(wide_tree)
    if style == "--format=gnutar":
        mode, uid, gid, _, what = expected[b"old"]
        expected[b"old"] = (mode, uid, gid, 0, what)  # bsdtar writes no time before 1970 there
    assert in_archive(packed_by("bsdtar", wide_tree, style)) == expected


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_python_tarfile(tree: Path, style: int) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=style) as tar:
        tar.add(tree, ".")
    assert in_archive(made.getvalue()) == on_disk(tree)


@pytest.mark.parametrize("options", SPARSE, ids=" ".join)
def test_sparse_files_unfold_with_their_holes(tmp_path: Path, options: list[str]) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number * 1_000_000)
            file.write(bytes([number + 1]) * 5000)
        file.truncate(70_000_000)
    (tmp_path / "behind").write_bytes(b"the walk goes on behind it")
    archive = packed_by("tar", tmp_path, "-S", *options)
    assert len(archive) < 2_000_000

    async def test() -> None:
        async with layer(archive) as opened:
            assert {member.path for member in await opened.members() if member.sparse} == {b"sparse"}
            assert opened.faults == []
            found = await contents(opened)
            assert found[b"sparse"] == (tmp_path / "sparse").read_bytes()
            assert found[b"behind"] == b"the walk goes on behind it"

    run(test)


def test_a_file_that_is_one_hole_costs_nothing_in_the_archive(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10_000_000)
    for options in SPARSE:
        archive = packed_by("tar", tmp_path, "-S", *options)
        (hole,) = (member for member in walked(archive)[0] if member.kind is MemberKind.FILE)
        assert (hole.size, hole.sparse) == (10_000_000, ())


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_extended_attributes(tmp_path: Path, program: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    expected = {b"user.plain": b"value", b"user.binary": b"\0\n=\xff" * 10, b"user.empty": b""}
    for name, value in expected.items():
        os.setxattr(path, name, value)
    archive = packed_by(program, tmp_path, "--xattrs", "--format=pax")
    (member,) = (member for member in walked(archive)[0] if member.kind is MemberKind.FILE)
    assert dict(member.xattrs) == expected


def test_devices(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info = tarfile.TarInfo(f"dev{kind!r}")
            info.type, info.devmajor, info.devminor = kind, 8, 17
            tar.addfile(info)
    found, _, _ = walked(made.getvalue())
    assert [member.kind for member in found] == [MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE]
    assert {member.device for member in found} == {os.makedev(8, 17)}


def test_times_are_as_exact_as_the_archive_says() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for text in ("1350244992.023960108", "-1.5", "-0.25", "7"):
            info = tarfile.TarInfo(text)
            info.pax_headers = {"mtime": text}
            tar.addfile(info)
    assert [member.mtime_ns for member in walked(made.getvalue())[0]] == [
        1_350_244_992_023_960_108,
        -1_500_000_000,
        -250_000_000,
        7_000_000_000,
    ]


def test_a_global_header_changes_no_member_as_in_what_runs_images() -> None:
    made = io.BytesIO()
    said = {"uid": "77", "path": "evil", "size": "1", "mtime": "5"}
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, pax_headers=said) as tar:
        tar.addfile(tarfile.TarInfo("plain"))
        info = tarfile.TarInfo("own")
        info.pax_headers = {"uid": "5"}
        tar.addfile(info)
    members, faults = walked(made.getvalue())[:2]
    assert [(member.path, member.uid, member.size) for member in members] == [
        (b"plain", 0, 0),
        (b"own", 5, 0),
    ]
    assert list(faults) == []


def test_what_stands_before_a_global_header_is_lost_with_it() -> None:
    named, made = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=named, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("member")
        info.pax_headers = {"uid": "5"}
        tar.addfile(info)
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77"}):
        pass
    own, member = named.getvalue()[:1024], named.getvalue()[1024:]
    assert [found.uid for found in walked(own + made.getvalue()[:1024] + member)[0]] == [0]


def test_an_old_folder_is_told_by_its_slash() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("folder")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    block = bytearray(made.getvalue())
    block[6:7] = b"/"
    block[156] = 0
    block[257:265] = bytes(8)
    assert walked(signed(block))[0][0].kind is MemberKind.FOLDER


def signed(block: bytes | bytearray) -> bytes:
    """A header with the right checksum in it."""
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


names = st.text(st.sampled_from("abü/"), min_size=1, max_size=300).filter(lambda name: name.strip("/"))


@settings(max_examples=150, deadline=None)
@given(
    files=st.lists(
        st.tuples(
            names,
            st.binary(max_size=1500),
            st.integers(0, 0o7777),
            st.integers(0, 2**40),
            st.integers(0, 2**33),
            st.sampled_from(
                [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
            ),
        ),
        max_size=6,
    ),
    style=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    piece=st.sampled_from([1, 7, 511, 512, 513, 100_000]),
)
def test_members_are_what_the_standard_library_reads(
    files: list[tuple[str, bytes, int, int, int, bytes]], style: int, piece: int
) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=style) as tar:
        for name, data, mode, uid, mtime, kind in files:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.mtime, info.type = mode, uid, mtime, kind
            info.linkname = name[::-1] if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    found, faults, _ = walked(made.getvalue(), piece)
    assert faults == []
    assert [at_zero(member) for member in found] == [
        at_zero(member) for member in members_of(made.getvalue())
    ]


def at_zero(member: Member) -> Member:
    """Without the offset of data that it has not."""
    import msgspec

    kind = MemberKind.FOLDER if member.kind is MemberKind.FOLDER else member.kind
    return msgspec.structs.replace(member, kind=kind, offset=member.offset if member.size else 0)


def test_nothing_is_needed_behind_the_last_member() -> None:
    archive = tarred({"a": b"1", "b": b"2" * 600})
    for end in (1536 + 600, 1536 + 700, 1536 + 1024, 1536 + 1024 + 512):
        found, faults, _ = walked(archive[:end])
        assert [member.path for member in found] == [b"a", b"b"]
        assert faults == []
    found, faults, _ = walked(archive[: 1536 + 599])
    assert [member.path for member in found] == [b"a"]
    assert len(faults) == 1
