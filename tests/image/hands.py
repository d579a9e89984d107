"""What the tests of layers do again and again: blobs in memory, every way to compress, a layer of them."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import trio

from regfs.digest import Digest
from regfs.errors import DigestMismatch
from regfs.image.archive_limits import ArchiveLimits
from regfs.image.layer import IndexedLayer, IndexedLayers
from regfs.image.limits import Limits
from regfs.image.members import Member, MemberKind
from regfs.image.zstdlib import zstd
from regfs.manifest import Descriptor

MIB = 1024 * 1024
TYPE = "application/vnd.oci.image.layer.v1.tar"


class MemoryReader:
    """A blob that is in memory. Until ``verified`` its last byte comes only with the word that all are right."""

    def __init__(self, blobs: MemoryBlobs, digest: Digest, verified: bool) -> None:
        self._blobs = blobs
        self._digest = digest
        self.verified = verified
        self.is_open = True

    @property
    def size(self) -> int:
        return len(self._blobs.data[self._digest])

    async def read(self, start: int, length: int) -> bytes:
        assert self.is_open
        await trio.lowlevel.checkpoint()
        self._blobs.ranges.append((start, length))
        await self._blobs.pause(start + length)
        if self._blobs.fails is not None:
            raise self._blobs.fails
        data = self._blobs.data[self._digest]
        if self._blobs.judges and not self.verified and start + length >= len(data):
            if Digest.of(data) != self._digest:
                raise DigestMismatch("the blob is wrong")
            self.verified = True
        return data[start : start + length]

    async def aclose(self) -> None:
        assert self.is_open
        self.is_open = False
        self._blobs.closed += 1
        self._blobs.change()


class MemoryBlobs:
    """`Blobs` in memory. ``is_local``: blobs are there and verified when they are opened. ``judges``: see `MemoryReader`.

    ``gate``: how far readers come, in bytes; they wait there. ``fails``: what reading raises.
    """

    def __init__(self, *blobs: bytes, is_local: bool = False, judges: bool = True) -> None:
        self.data = {Digest.of(blob): blob for blob in blobs}
        self.kept: dict[tuple[Digest, str, int], bytes] = {}
        self.is_local = is_local
        self.judges = judges
        self.opened = 0
        self.closed = 0
        self.ranges: list[tuple[int, int]] = []
        self.asked: list[str] = []
        self.gate: int | None = None
        self.fails: Exception | None = None
        self.opens_at_gate = trio.Event()
        self._changed = trio.Event()

    async def indexed(self) -> None:
        """Wait until an index is kept."""
        while not self.kept_of("index"):
            await self._changed.wait()

    def kept_of(self, wanted: str) -> bytes:
        """What is kept of that name, of whichever layer; nothing where there is none."""
        return b"".join(data for (_, name, _), data in self.kept.items() if name == wanted)

    async def asked_more(self) -> None:
        """Wait until something that is kept is asked for."""
        await self._changed.wait()

    async def kept_more(self) -> None:
        """Wait until something is kept, or a blob is let go."""
        await self._changed.wait()

    async def all_closed(self) -> None:
        """Wait until nobody holds a blob open."""
        while self.closed < self.opened:
            await self._changed.wait()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def pause(self, end: int) -> None:
        while self.gate is not None and end > self.gate:
            await self.opens_at_gate.wait()

    def let(self, gate: int | None) -> None:
        self.gate = gate
        self.opens_at_gate.set()
        self.opens_at_gate = trio.Event()

    async def open(self, repository: str, descriptor: Descriptor) -> MemoryReader:
        self.opened += 1
        return MemoryReader(self, descriptor.digest, self.is_local)

    async def derived(self, digest: Digest, name: str, version: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        self.asked.append(name)
        self.change()
        return self.kept.get((digest, name, version))

    async def keep_derived(self, digest: Digest, name: str, version: int, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.kept[digest, name, version] = data
        self.change()


def descriptor_of(blob: bytes, digest: Digest | None = None) -> Descriptor:
    """A layer's descriptor."""
    return Descriptor(TYPE, digest or Digest.of(blob), len(blob))


@asynccontextmanager
async def layers(
    blobs: MemoryBlobs, limits: Limits | None = None, archive_limits: ArchiveLimits | None = None
) -> AsyncIterator[IndexedLayers]:
    """Layers of these blobs, as long as a mount would last."""
    async with trio.open_nursery() as nursery:
        opened = IndexedLayers(blobs, limits, archive_limits)
        opened.start(nursery)
        yield opened
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def layer(
    blob: bytes,
    blobs: MemoryBlobs | None = None,
    limits: Limits | None = None,
    archive_limits: ArchiveLimits | None = None,
) -> AsyncIterator[IndexedLayer]:
    """One layer, opened."""
    async with layers(blobs or MemoryBlobs(blob), limits, archive_limits) as all_layers:
        yield await all_layers.open("team/app", descriptor_of(blob))


async def whole(opened: IndexedLayer, member: Member, piece: int = 100_000) -> bytes:
    """All of a file, read in pieces."""
    read = bytearray()
    while len(read) < member.size:
        data = await opened.read(member, len(read), piece)
        assert data, "a read before the end gave nothing"
        read += data
    assert await opened.read(member, member.size, 1) == b""
    return bytes(read)


async def contents(opened: IndexedLayer) -> dict[bytes, bytes]:
    """Path → content of each file of a layer; the last of several of one path."""
    return {
        member.path: await whole(opened, member)
        for member in await opened.members()
        if member.kind is MemberKind.FILE
    }


def tarred(files: dict[str, bytes], style: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of files, by the standard library."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=style) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


# ── compressions ──


def gzipped(data: bytes, level: int = 6, flush: int | None = None, every: int = 100_000) -> bytes:
    """One member; ``flush`` is one of zlib's ways to part blocks, used ``every`` so many bytes."""
    squeezer = zlib.compressobj(level, zlib.DEFLATED, 31)
    packed = []
    for at in range(0, len(data), every):
        packed.append(squeezer.compress(data[at : at + every]))
        if flush is not None:
            packed.append(squeezer.flush(flush))
    return b"".join((*packed, squeezer.flush()))


def members(data: bytes, every: int = 70_000) -> bytes:
    """gzip, many members."""
    return b"".join(gzipped(data[at : at + every]) for at in range(0, max(len(data), 1), every))


def pigz(data: bytes) -> bytes:
    """As pigz does it, by pigz where it is installed."""
    program = shutil.which("pigz")
    if program is None:
        return gzipped(data, 6, zlib.Z_SYNC_FLUSH, 128 * 1024)
    return subprocess.run([program, "-c"], input=data, capture_output=True, check=True).stdout


def frames(data: bytes, every: int = 300_000) -> bytes:
    """zstd, many frames, with skippable ones between."""
    skippable = b"\x5e\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"words"
    return b"".join(
        skippable + zstd.compress(data[at : at + every], 3) for at in range(0, max(len(data), 1), every)
    )


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzipped,
    "gzip -1": lambda data: gzipped(data, 1),
    "gzip -9": lambda data: gzipped(data, 9),
    "gzip, stored blocks": lambda data: gzipped(data, 0),
    "gzip, one block for each byte boundary": lambda data: gzipped(data, 6, zlib.Z_SYNC_FLUSH, 30_000),
    "gzip, blocks that end in mid-byte": lambda data: gzipped(data, 6, zlib.Z_BLOCK, 20_000),
    "gzip, full flushes": lambda data: gzipped(data, 6, zlib.Z_FULL_FLUSH, 50_000),
    "gzip, fixed codes only": lambda data: _fixed(data),
    "gzip, many members": members,
    "gzip, large members": lambda data: members(data, 5_000_000),
    "gzip, zeros behind it": lambda data: gzipped(data) + bytes(1000),
    "gzip, garbage behind it": lambda data: members(data) + b"\x1f\x8bgarbage",
    "pigz": pigz,
    "zstd": lambda data: zstd.compress(data, 3),
    "zstd -1": lambda data: zstd.compress(data, 1),
    "zstd, many frames": frames,
    "zstd, garbage behind it": lambda data: zstd.compress(data, 3) + b"\x28garbage",
}


def _fixed(data: bytes) -> bytes:
    squeezer = zlib.compressobj(6, zlib.DEFLATED, 31, 8, zlib.Z_FIXED)
    return squeezer.compress(data) + squeezer.flush()


def run(test: Callable[[], Awaitable[object]]) -> None:
    """Run an async test, for half a minute at most."""

    async def limited() -> None:
        with trio.fail_after(30):
            await test()

    trio.run(limited)


def flat(parts: Iterable[bytes]) -> bytes:
    """All of them, one behind the other."""
    return b"".join(parts)
