"""Layers made of plain descriptions, and read by the standard library: neither knows anything of regfs's own reader."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from regfs.digest import Digest
from regfs.image.members import Arrival, Member, MemberKind, clean_path
from regfs.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST
from regfs.testing.images import Content, Image

_TYPES = {
    MemberKind.FILE: tarfile.REGTYPE,
    MemberKind.HARD_LINK: tarfile.LNKTYPE,
    MemberKind.LINK: tarfile.SYMTYPE,
    MemberKind.CHARACTER_DEVICE: tarfile.CHRTYPE,
    MemberKind.BLOCK_DEVICE: tarfile.BLKTYPE,
    MemberKind.FOLDER: tarfile.DIRTYPE,
    MemberKind.FIFO: tarfile.FIFOTYPE,
}
_KINDS = {kind: member for member, kind in _TYPES.items()}


@dataclass(frozen=True)
class Item:
    """One member of an archive to be made."""

    path: bytes
    kind: MemberKind = MemberKind.FILE
    data: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 1_000_000_000
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def folder(path: bytes, mode: int = 0o755) -> Item:
    """A folder."""
    return Item(path, MemberKind.FOLDER, mode=mode)


def link(path: bytes, target: bytes) -> Item:
    """A symbolic link."""
    return Item(path, MemberKind.LINK, target=target, mode=0o777)


def hard(path: bytes, target: bytes) -> Item:
    """A hard link."""
    return Item(path, MemberKind.HARD_LINK, target=target)


def archive(items: Iterable[Item]) -> bytes:
    """A tar archive of them, in the PAX format."""
    made = io.BytesIO()
    with tarfile.open(
        fileobj=made, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for item in items:
            info = tarfile.TarInfo(_text(item.path))
            info.type = _TYPES[item.kind]
            info.mode, info.uid, info.gid, info.mtime = item.mode, item.uid, item.gid, item.mtime
            info.linkname = _text(item.target)
            info.devmajor, info.devminor = item.device
            info.size = len(item.data) if item.kind is MemberKind.FILE else 0
            info.pax_headers = {f"SCHILY.xattr.{_text(n)}": _text(v) for n, v in item.xattrs.items()}
            tar.addfile(info, io.BytesIO(item.data))
    return made.getvalue()


def members_of(data: bytes) -> list[Member]:
    """The members of a plain tar archive, as the standard library reads it."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        return [_member(info) for info in tar]


def _member(info: tarfile.TarInfo) -> Member:
    kind = _KINDS.get(info.type, MemberKind.FILE)
    target = _bytes(info.linkname)
    prefix = "SCHILY.xattr."
    xattrs = [(n.removeprefix(prefix), v) for n, v in info.pax_headers.items() if n.startswith(prefix)]
    return Member(
        path=clean_path(_bytes(info.name)),
        kind=kind,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime_ns=round(info.mtime * 1_000_000) * 1000,
        size=info.size if kind is MemberKind.FILE else 0,
        offset=info.offset_data,
        target=clean_path(target) if kind is MemberKind.HARD_LINK else target,
        device=_device(info, kind),
        xattrs=tuple((_bytes(n), _bytes(v)) for n, v in xattrs),
    )


def _device(info: tarfile.TarInfo, kind: MemberKind) -> int:
    is_device = kind in (MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE)
    return os.makedev(info.devmajor, info.devminor) if is_device else 0


class MemoryLayer:
    """A `Layer` whose archive is in memory, uncompressed. ``error`` is raised by whoever asks it anything."""

    def __init__(self, data: bytes, *, verified: bool = True) -> None:
        self.data = data
        self.digest = Digest.of(data)
        self.verified = verified
        self.is_complete = True
        self.faults: Sequence[str] = ()
        self.error: Exception | None = None
        self.asked = 0

    async def members(self) -> Sequence[Member]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return members_of(self.data)

    async def upto(self, count: int) -> Sequence[Member]:
        del count
        return await self.members()

    def arrive(self) -> Arrival:
        raise AssertionError("it is complete")

    async def read(self, member: Member, start: int, length: int) -> bytes:
        if self.error is not None:
            raise self.error
        end = min(start + length, member.size)
        return self.data[member.offset + start : member.offset + end]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def layered_image(layers: Sequence[bytes], *, media_types: Sequence[str] = (), family: str = "oci") -> Image:
    """An image of these archives, the lowest first: as they are, or by ``media_types`` compressed."""
    types = media_types or (f"{_PLAIN[family]}",) * len(layers)
    contents = tuple(Content(kind, _stored(kind, data)) for kind, data in zip(types, layers, strict=True))
    config = Content(
        OCI_CONFIG if family == "oci" else DOCKER_CONFIG,
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "2024-05-17T12:30:00Z",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data)) for data in layers]},
            }
        ).encode(),
    )
    kind = OCI_MANIFEST if family == "oci" else DOCKER_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": config.reference(),
        "layers": [content.reference() for content in contents],
    }
    return Image(Content(kind, json.dumps(manifest).encode()), config, contents)


_PLAIN = {
    "oci": "application/vnd.oci.image.layer.v1.tar",
    "docker": "application/vnd.docker.image.rootfs.diff.tar",
}


def _stored(kind: str, data: bytes) -> bytes:
    if kind.endswith("gzip"):
        return gzip.compress(data, mtime=0)
    if kind.endswith("zstd"):
        return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout
    return data
