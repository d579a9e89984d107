"""``regfs du``: how large images are, compressed and unpacked, and how much of it they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, complain, printable, say
from regfs.errors import RegfsError

if TYPE_CHECKING:
    from regfs.cli.images import Image
    from regfs.cli.walk import Trees
    from regfs.digest import Digest
    from regfs.manifest import Descriptor

UNPACKED_SIZE: Final = "io.containers.estargz.uncompressed-size"
"""The annotation by which a layer's descriptor says how large its tar is (containers/storage)."""

_AT_ONCE: Final = 8
_BLOCK: Final = 512
_COMPRESSED: Final = ("gzip", "zstd", "gz", "tgz", "zst", "bzip2", "bz2", "xz")


@dataclass(slots=True)
class Row:
    """One line: an image, or all of one argument. ``blobs``: all that it leads to, each once."""

    path: str
    reference: str = ""
    digest: str = ""
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    layers: dict[Digest, int | None] = field(default_factory=dict)
    """Each layer, and how large it is decompressed, where that is known."""
    missing: int = 0

    @property
    def size(self) -> int:
        """In bytes, as the registry keeps it."""
        return sum(blob.size for blob in self.blobs.values())

    @property
    def unpacked(self) -> int | None:
        """What its layers come to when they are decompressed; None where that is not known of each."""
        known = [size for size in self.layers.values() if size is not None]
        return sum(known) if len(known) == len(self.layers) else None

    def add(self, other: Row) -> None:
        """Count all of ``other`` in, what is in both once."""
        self.blobs.update(other.blobs)
        self.layers.update(other.layers)
        self.missing += other.missing


def unpacked_size(layer: Descriptor) -> int | None:
    """How large a layer's tar is, where its descriptor tells: what its media type calls compressed may be of any size."""
    if not layer.media_type.lower().endswith(_COMPRESSED):
        return layer.size
    told = layer.annotations.get(UNPACKED_SIZE, "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 19 else None


@click.command(context_settings={"help_option_names": ["--help"]})
@click.option("-h", "--human-readable", is_flag=True, help="Sizes as 1.5M, powers of 1024: the default.")
@click.option("-b", "--bytes", "in_bytes", is_flag=True, help="Sizes in bytes.")
@click.option(
    "-s", "--summarize", is_flag=True, help="One line for each PATH, what its tags share counted once."
)
@click.option("-c", "--total", is_flag=True, help="A line for all at the end, what is shared counted once.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, in bytes.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def du(
    paths: tuple[str, ...],
    human_readable: bool,  # noqa: ARG001  # it is the default
    in_bytes: bool,
    summarize: bool,
    total: bool,
    as_json: bool,
) -> int:
    """Say how large images are: by their manifests alone, so no layer is fetched.

    PATH is a tag or digest, a repository or a namespace, in a mount or as REGISTRY/PATH. SIZE is what the registry keeps (of an
    index all platforms), UNPACKED what its layers come to decompressed, where that is known, SHARED what of SIZE another
    line has too.
    """
    from regfs.cli import walk

    async def measure(trees: Trees) -> int:
        found = _Measuring(trees)
        for path in paths:
            await found.take(path)
        await _learn([row for _, rows in found.arguments for row in rows])
        rows = found.of_arguments() if summarize else [row for _, rows in found.arguments for row in rows]
        if as_json:
            output.as_json(_as_dict(rows))
        else:
            _print(rows, in_bytes, with_total=total)
        return OK if found.all_done else FAILED

    return walk.run(measure)


@dataclass
class _Measuring:
    """What was found for each argument."""

    trees: Trees
    arguments: list[tuple[str, list[Row]]] = field(default_factory=list)
    all_done: bool = True

    async def take(self, path: str) -> None:
        """Measure one argument; what fails is told of and passed over."""
        from regfs.cli import images, places

        rows: list[Row] = []
        try:
            place, inside = await places.find(self.trees, path)
            image = await images.image_at(place, inside)
            if image is not None:
                found = [image]
            else:
                found = [below async for below in images.images_below(place, inside)]
            rows = await self._measured(path, inside, found)
        except RegfsError as error:
            self._failed(error, path)
            return
        self.arguments.append((path, rows))

    async def _measured(self, path: str, inside: str, found: Sequence[Image]) -> list[Row]:
        import trio

        rows: dict[int, Row] = {}
        limiter = trio.CapacityLimiter(_AT_ONCE)

        async def measure(number: int, image: Image) -> None:
            shown = _shown(path, inside, image)
            async with limiter:
                try:
                    rows[number] = await _row(shown, image)
                except RegfsError as error:
                    self._failed(error, shown)

        async with trio.open_nursery() as nursery:
            for number, image in enumerate(found):
                nursery.start_soon(measure, number, image)
        return [rows[number] for number in sorted(rows)]

    def of_arguments(self) -> list[Row]:
        """A row for each argument."""
        sums = []
        for path, rows in self.arguments:
            row = Row(path)
            for one in rows:
                row.add(one)
            sums.append(row)
        return sums

    def _failed(self, error: RegfsError, path: str) -> None:
        complain(error, path)
        self.all_done = False


def _shown(path: str, inside: str, image: Image) -> str:
    """An image's path in the words of the argument that it was found under."""
    if not image.folder.startswith(inside):
        return path  # it names a file of that image
    below = image.folder.removeprefix(inside).replace("/.tags/", "/").replace("/.repos/", "/")
    return path if image.folder == inside else f"{path.rstrip('/')}/{below.lstrip('/')}"


async def _row(path: str, image: Image) -> Row:
    from regfs.cli import images

    contents = await images.contents(image)
    row = Row(
        path,
        image.reference,
        str(contents.manifests[0].digest),
        contents.descriptors(),
        {layer.digest: unpacked_size(layer) for manifest in contents.manifests for layer in manifest.layers},
        len(contents.missing),
    )
    if row.missing:
        say(f"regfs: {path}: the index names {row.missing} manifests that the registry does not have")
    return row


async def _learn(rows: Sequence[Row]) -> None:
    """Fill in what the cache knows: layers that a mount has indexed."""
    unknown = {digest for row in rows for digest, size in row.layers.items() if size is None}
    if not unknown:
        return
    import trio

    from regfs.cache.disk import DiskStore
    from regfs.cli.session import load
    from regfs.image import indexfile

    settings, _ = load()
    store = DiskStore(settings.cache_folder, settings.cache_size)
    for digest in unknown:
        compressed = next(row.blobs[digest].size for row in rows if digest in row.layers)
        opened = await store.open_derived(digest, indexfile.NAME, indexfile.VERSION)
        if opened is None:
            continue
        try:
            data = await opened.read(0, opened.size)
        finally:
            await opened.aclose()
        size = await trio.to_thread.run_sync(_archive_size, data or b"", compressed)
        for row in rows:
            if digest in row.layers:
                row.layers[digest] = size


def _archive_size(index: bytes, compressed: int) -> int | None:
    """How large an indexed layer's archive is: up to the last file's end, and the two blocks that end it. None: unreadable."""
    from regfs.image import indexfile

    try:
        members = indexfile.unpack(index, compressed).members
    except indexfile.Unreadable:
        return None
    ends = (m.offset + (m.size if m.sparse is None else sum(n for _, n in m.sparse)) for m in members)
    return -(-max(ends, default=0) // _BLOCK) * _BLOCK + 2 * _BLOCK


def shared(rows: Sequence[Row]) -> list[int]:
    """How many bytes of each row another one has too."""
    count = Counter(digest for row in rows for digest in row.blobs)
    return [sum(b.size for digest, b in row.blobs.items() if count[digest] > 1) for row in rows]


def total_of(rows: Sequence[Row]) -> Row:
    """All rows as one: what they share is counted once."""
    whole = Row("total")
    for row in rows:
        whole.add(row)
    return whole


def human(size: int) -> str:
    """A size as `du -h` writes it: rounded up, ``999``, ``1.5K``, ``23M``."""
    value, unit = size, 0
    while value >= 1024 << (10 * unit) and unit < len(_UNITS) - 1:
        unit += 1
    if unit == 0:
        return str(size)
    tenths = -(-size * 10 >> (10 * unit))
    if tenths < 100:
        return f"{tenths // 10}.{tenths % 10}{_UNITS[unit]}"
    whole = -(-size >> (10 * unit))
    return f"{whole}{_UNITS[unit]}" if whole < 1024 or unit == len(_UNITS) - 1 else f"1.0{_UNITS[unit + 1]}"


_UNITS: Final = ("", "K", "M", "G", "T", "P")


def _print(rows: Sequence[Row], in_bytes: bool, *, with_total: bool) -> None:
    def spelled(size: int | None) -> str:
        return "-" if size is None else str(size) if in_bytes else human(size)

    lines = [
        [spelled(row.size), spelled(row.unpacked), spelled(also), printable(row.path)]
        for row, also in zip(rows, shared(rows), strict=True)
    ]
    if with_total:
        whole = total_of(rows)
        lines.append([spelled(whole.size), spelled(whole.unpacked), "-", "total"])
    if lines:
        output.table(["SIZE", "UNPACKED", "SHARED", "PATH"], lines)


def _as_dict(rows: Sequence[Row]) -> dict[str, object]:
    whole = total_of(rows)
    return {
        "images": [
            {
                "path": row.path,
                "reference": row.reference or None,
                "digest": row.digest or None,
                "size": row.size,
                "unpacked": row.unpacked,
                "shared": also,
                "missing": row.missing,
            }
            for row, also in zip(rows, shared(rows), strict=True)
        ],
        "total": {"size": whole.size, "unpacked": whole.unpacked},
    }
