"""Walking and reading the tree of a large image: beside mounts of its layer on disk, and what the daemon holds then.

The image is that of `benchmarks.image`: the machine's own files, as one ordinary layer of gzip.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from benchmarks import image, peers
from benchmarks.harness import Row, Sample, Side, at_most_times, below, in_turn
from benchmarks.stage import Stage
from regfs.testing.images import Content

TITLE = "The tree of a large image"
REPOSITORY, TAG = "team/app", "v1"
ROUNDS: Final = 5
READERS: Final = 32
TREE_FILES: Final = 100_000
GREPPED: Final = 50_000_000
_READ_SIZES: Final = range(200_000, 4_000_000)
_GREP: Final = 'grep -r regfs-is-nowhere-in-here "$@"; test $? -le 1'
_TOGETHER: Final = 'for file; do cat "$file" & done; wait'
_IN_TURN: Final = 'for file; do cat "$file"; done'

PeerMount = Callable[[], AbstractContextManager[Path]]


def measure(stage: Stage) -> list[Row]:
    """The layer indexed first, which shows the memory that takes; all else is with its index kept."""
    registry = stage.registry("rootfs")
    layer, _ = image.machine_layer(stage)
    registry.lay_image(REPOSITORY, image.image_of(layer), [TAG])
    archive = stage.folder / "layer.tar.gz"
    archive.write_bytes(layer.raw)
    size = f"{len(layer.raw) / 1e6:.0f} MB compressed"
    beside = _beside(stage, archive)
    indexing = _indexing(stage, registry.port)
    image.keep_index(stage, registry.port)
    return [
        below(f"at the most, while a layer of 1.1 GB ({size}) is indexed", indexing, 200),
        *_find_rows(stage, registry.port, beside),
        _grep_row(stage, registry.port, beside),
        _readers_row(stage, registry.port),
        below(f"after `find` of a tree of {TREE_FILES:,} files", _large_tree(stage), 120),
    ]


def _beside(stage: Stage, archive: Path) -> dict[str, PeerMount]:
    """The peers that are there, each with its index or image ready."""
    found: dict[str, PeerMount] = {}
    if peers.is_there(peers.RATARMOUNT):
        found[peers.RATARMOUNT] = lambda: peers.ratarmount(stage, archive)
        with found[peers.RATARMOUNT]():
            pass
    if peers.is_there(peers.SQUASHFUSE):
        packed = peers.pack_squashfs(stage, archive)
        found[peers.SQUASHFUSE] = lambda: peers.squashfuse(stage, packed)
    return found


def _root(mount: Path) -> Path:
    return mount / REPOSITORY / TAG / "rootfs"


# ── memory ──


def _indexing(stage: Stage, port: int) -> float:
    """The most that the daemon ever held, in MB, once a listing of the whole tree made it index the layer."""
    shutil.rmtree(stage.home.path / ".cache", ignore_errors=True)
    with stage.mount(port) as mount:
        stage.run("ls", _root(mount.path) / "usr")
        return _peak(mount.pid)


def _large_tree(stage: Stage) -> float:
    """What the daemon ever held, in MB, once `find` asked for the attributes of every file of a large tree."""
    registry = stage.registry("tree")
    registry.lay_image(REPOSITORY, image.image_of(_tree_layer()), [TAG])
    with stage.mount(registry.port) as mount:
        stage.run("find", f"{_root(mount.path)}/", "-size", "+1M")
        return _peak(mount.pid)


def _tree_layer() -> Content:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for number in range(TREE_FILES):
            entry = tarfile.TarInfo(f"srv/data/{number // 1000:03}/record-{number:06}.json")
            entry.size = 100
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return Content("application/vnd.oci.image.layer.v1.tar+gzip", packed.getvalue())


def _peak(pid: int) -> float:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024 / 1e6


# ── walking ──


def _find_rows(stage: Stage, port: int, beside: dict[str, PeerMount]) -> list[Row]:
    names = [name for name in (peers.RATARMOUNT, peers.SQUASHFUSE) if name in beside]
    sides: list[Side] = [lambda: _find_ours(stage, port)]
    sides += [lambda mount=beside[name]: _find_theirs(stage, mount) for name in names]  # type: ignore[misc]
    ours, *others = in_turn(ROUNDS, *sides)
    taken: dict[str, Sample] = dict(zip(names, others, strict=True))
    return [
        _row(f"`find rootfs/` on a fresh mount, index kept, beside `{name}`", ours, taken, name, 1)
        for name in (peers.RATARMOUNT, peers.SQUASHFUSE)
    ]


def _row(what: str, ours: Sample, taken: dict[str, Sample], name: str, limit: float) -> Row:
    if name not in taken:
        return peers.absent(what, name, f"≤ {limit:g} ×")
    return at_most_times(what, ours, taken[name], limit)


def _find_ours(stage: Stage, port: int) -> float:
    with stage.mount(port) as mount:
        return stage.run("find", f"{_root(mount.path)}/")


def _find_theirs(stage: Stage, mount: PeerMount) -> float:
    with mount() as folder:
        return stage.run("find", f"{folder}/")


# ── reading ──


def _grep_row(stage: Stage, port: int, beside: dict[str, PeerMount]) -> Row:
    what, name = "`grep -r` over 50 MB, again on the same mount, beside `ratarmount`", peers.RATARMOUNT
    if name not in beside:
        return peers.absent(what, name, "≤ 0.5 ×")
    places = _places()
    with stage.mount(port) as mount, beside[name]() as folder:
        roots = (_root(mount.path), folder)
        for root in roots:
            _grep(stage, root, places)
        ours, theirs = in_turn(ROUNDS, *(lambda root=root: _grep(stage, root, places) for root in roots))
    return at_most_times(what, ours, theirs, 0.5)


def _grep(stage: Stage, root: Path, places: Sequence[str]) -> float:
    return stage.run("sh", "-c", _GREP, "grep", *(root / place for place in places))


def _places() -> list[str]:
    """Folders of the image that hold 50 MB together: the first of the first place, as the image has them."""
    room, found = GREPPED, []
    for place in (Path("/") / image.PLACES[0]).iterdir():
        size = sum(_size(Path(at) / name) for at, _, names in os.walk(place) for name in names)
        if place.is_dir() and not place.is_symlink() and 0 < size <= room:
            found.append(os.fspath(place.relative_to("/")))
            room -= size
    return found


def _size(file: Path) -> int:
    """In bytes; of what the image leaves out, 0."""
    return file.stat().st_size if file.is_file() and not file.is_symlink() else 0


def _readers_row(stage: Stage, port: int) -> Row:
    """Each on a fresh mount, so that every byte comes out of the layer."""
    with stage.mount(port) as mount:
        files = _files(_root(mount.path))
    together, in_order = in_turn(
        ROUNDS,
        lambda: _read(stage, port, _TOGETHER, files),
        lambda: _read(stage, port, _IN_TURN, files),
    )
    return at_most_times(f"{READERS} files read at once, beside one after another", together, in_order, 1)


def _files(root: Path) -> list[str]:
    found = []
    for at, _, names in os.walk(root / "usr"):
        for name in names:
            path = Path(at) / name
            if path.lstat().st_size in _READ_SIZES:
                found.append(os.fspath(path.relative_to(root)))
    found.sort()
    return found[:: max(1, len(found) // READERS)][:READERS]


def _read(stage: Stage, port: int, script: str, files: Sequence[str]) -> float:
    with stage.mount(port) as mount:
        return stage.run("sh", "-c", script, "cat", *(_root(mount.path) / file for file in files))
