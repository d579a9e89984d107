"""One small file of an image of 1.1 GB: beside what unpacks the image, and beside what mounts its layer from the disk.

The image is made of the machine's own files, as one ordinary layer of gzip; the file stands in the middle of it.
ratarmount is measured where it is installed (PyPI); nothing of regfs needs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.harness import Row, Side, at_most_times, faster, in_turn, within
from benchmarks.stage import Stage
from regfs.testing.images import Content, Image, make_image

TITLE = "One small file of an image of 1.1 GB"
REPOSITORY, TAG = "team/app", "v1"
UNPACKED: Final = 1_100_000_000
PLACES: Final = ("usr/share", "usr/include", "usr/lib")
ROUNDS: Final = 3
WARM_ROUNDS: Final = 10
_WAIT: Final = 120.0


def measure(stage: Stage) -> list[Row]:
    """Cold, with the index kept and the daemon up, and with the index kept and the daemon's start."""
    registry = stage.registry("image")
    layer, small = machine_layer(stage)
    registry.lay_image(REPOSITORY, image_of(layer), [TAG])
    source = f"docker://127.0.0.1:{registry.port}/{REPOSITORY}:{TAG}"
    tar = stage.folder / "layer.tar.gz"
    tar.write_bytes(layer.raw)
    sides: list[Side] = [
        lambda: cold(stage, registry.port, small),
        lambda: unpacked(stage, source, small),
    ]
    has_peer = peers.is_there(peers.RATARMOUNT)
    if has_peer:
        sides.append(lambda: _archive_mount(stage, tar, small, keep_index=False))
    ours, unpack, *others = in_turn(ROUNDS, *sides)
    rows = [at_most_times("first byte, cold, beside `skopeo copy` and `umoci unpack`", ours, unpack, 0.2)]
    what = "first byte, cold, beside `ratarmount` of the layer on disk"
    rows += [faster(what, ours, other, 1) for other in others]
    if not has_peer:
        rows.append(peers.absent(what, peers.RATARMOUNT, "≥ 1 × faster"))
    keep_index(stage, registry.port)
    (up,) = in_turn(WARM_ROUNDS, lambda: indexed(stage, registry.port, small))
    rows.append(within("first byte, index kept, daemon up", up, 0.050, "50 ms"))
    what = "first byte, index kept, with the daemon's start, beside `ratarmount`"
    if has_peer:
        _archive_mount(stage, tar, small, keep_index=True)
        ours, other = in_turn(
            WARM_ROUNDS,
            lambda: started(stage, registry.port, small),
            lambda: _archive_mount(stage, tar, small, keep_index=True),
        )
        rows.append(faster(what, ours, other, 1))
    else:
        rows.append(peers.absent(what, peers.RATARMOUNT, "≥ 1 × faster"))
    return rows


# ── the image ──


def machine_layer(stage: Stage) -> tuple[Content, str]:
    """A layer of the machine's own files, and a small one of them in its middle."""
    names = list(_names())
    small = next(name for name in names[len(names) // 2 :] if 0 < (Path("/") / name).stat().st_size < 10_000)
    listed = stage.folder / "names"
    listed.write_bytes(b"\0".join(map(os.fsencode, names)))
    tar = [
        "tar",
        "-C",
        "/",
        "--null",
        "--no-recursion",
        "--hard-dereference",
        "-T",
        os.fspath(listed),
        "-cf",
        "-",
    ]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as packing:
        packed = subprocess.run(["gzip", "-6"], stdin=packing.stdout, stdout=subprocess.PIPE, check=True)
    return Content("application/vnd.oci.image.layer.v1.tar+gzip", packed.stdout), small


def _names() -> Iterator[str]:
    room = UNPACKED
    for place in PLACES:
        for folder, folders, files in os.walk(Path("/") / place):
            folders.sort()
            for name in sorted(files):
                path = Path(folder) / name
                if path.is_file() and not path.is_symlink():
                    room -= path.stat().st_size + 1024
                    yield os.fspath(path.relative_to("/"))
                if room < 0:
                    return


def image_of(layer: Content) -> Image:
    """An image of one layer."""
    small = make_image("1.1 GB")
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [_diff_id(layer)]}}
    ).encode()
    held = Content(small.config.media_type, config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": small.manifest.media_type,
        "config": held.reference(),
        "layers": [layer.reference()],
    }
    return Image(Content(small.manifest.media_type, json.dumps(manifest).encode()), held, (layer,))


def _diff_id(layer: Content) -> str:
    """The digest of the archive, which umoci verifies."""
    import hashlib
    import zlib

    inflate, hashed = zlib.decompressobj(31), hashlib.sha256()
    for at in range(0, len(layer.raw), 1 << 20):
        hashed.update(inflate.decompress(layer.raw[at : at + (1 << 20)]))
    return f"sha256:{hashed.hexdigest()}"


# ── the sides ──


def _path(mount: Path, small: str) -> Path:
    return mount / REPOSITORY / TAG / "rootfs" / small


def cold(stage: Stage, port: int, small: str) -> float:
    """The first byte on a fresh mount, with nothing kept."""
    shutil.rmtree(stage.home.path / ".cache", ignore_errors=True)
    return indexed(stage, port, small)


def keep_index(stage: Stage, port: int) -> None:
    """Have the layer's index kept: a mount that ends with its first answer may not come to that."""
    stage.home.regfs("warm", f"127.0.0.1:{port}/{REPOSITORY}/{TAG}", check=True)


def indexed(stage: Stage, port: int, small: str) -> float:
    """The first byte on a fresh mount."""
    with stage.mount(port) as mount:
        return stage.run("head", "-c", "1", _path(mount.path, small))


def started(stage: Stage, port: int, small: str) -> float:
    """The same with the daemon's start."""
    begin = time.perf_counter()
    with stage.mount(port) as mount:
        stage.run("head", "-c", "1", _path(mount.path, small))
        return time.perf_counter() - begin


def unpacked(stage: Stage, source: str, small: str) -> float:
    """The first byte after the image was fetched and unpacked."""
    layout, bundle = stage.folder / "layout", stage.folder / "bundle"
    for folder in (layout, bundle):
        shutil.rmtree(folder, ignore_errors=True)
    took = stage.run("skopeo", "copy", "--src-tls-verify=false", source, f"oci:{layout}:v1")
    took += stage.run("umoci", "unpack", "--image", f"{layout}:v1", bundle)
    return took + stage.run("head", "-c", "1", bundle / "rootfs" / small)


def _archive_mount(stage: Stage, tar: Path, small: str, *, keep_index: bool) -> float:
    """The first byte after ratarmount mounted the layer, which is on disk already."""
    index = stage.folder / "layer.index"
    if not keep_index:
        index.unlink(missing_ok=True)
    folder = stage.folder / "ratarmount"
    folder.mkdir(exist_ok=True)
    begin = time.perf_counter()
    stage.run("ratarmount", "--index-file", index, tar, folder)
    try:
        _await(folder / small)
        stage.run("head", "-c", "1", folder / small)
        return time.perf_counter() - begin
    finally:
        stage.run("ratarmount", "-u", folder)


def _await(path: Path) -> None:
    deadline = time.monotonic() + _WAIT
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} did not come")
        time.sleep(0.005)
