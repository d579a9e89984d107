"""A layer of 300 MB: cold beside `skopeo copy` of the same blob and beside `curl`, warm beside the page cache."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from benchmarks.harness import Row, at_most_times, in_turn
from benchmarks.stage import Stage
from regfs.testing.images import Content, Image, make_image

TITLE = "One layer of 300 MB"
REPOSITORY, TAG = "team/app", "v1"
SIZE = 300 * 1024 * 1024
ROUNDS = 5


def measure(stage: Stage) -> list[Row]:
    """Cold and warm."""
    registry = stage.registry("layers")
    image = _image()
    registry.lay_image(REPOSITORY, image, [TAG])
    blob = f"{registry.url}{REPOSITORY}/blobs/{image.layers[0].digest}"
    source = f"docker://127.0.0.1:{registry.port}/{REPOSITORY}:{TAG}"
    ours, skopeo, curl = in_turn(
        ROUNDS,
        lambda: cold(stage, registry.port),
        lambda: _copied(stage, source),
        lambda: stage.run("curl", "-sf", "-o", "/dev/null", blob),
    )
    return [
        at_most_times("a layer read cold, beside `skopeo copy docker:// dir:`", ours, skopeo, 0.5),
        at_most_times("a layer read cold, beside `curl -o /dev/null`", ours, curl, 3),
        _warm(stage, registry.port, image),
    ]


def _image() -> Image:
    """An image of one layer that does not compress: its tar, stored as it is."""
    small, chance = make_image("300 MB"), random.Random(1)
    layer = Content(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        b"".join(chance.randbytes(SIZE // 100) for _ in range(100)),
    )
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": small.manifest.media_type,
            "config": small.config.reference(),
            "layers": [layer.reference()],
        }
    ).encode()
    return Image(Content(small.manifest.media_type, manifest), small.config, (layer,))


def _layer(mount: Path) -> Path:
    return mount / REPOSITORY / TAG / "layers" / "00.tar.gz"


def _forget(stage: Stage) -> None:
    shutil.rmtree(stage.home.path / ".cache", ignore_errors=True)


def cold(stage: Stage, port: int) -> float:
    """The first `cat` of the layer, with nothing kept."""
    _forget(stage)
    with stage.mount(port) as mount:
        return stage.run("cat", _layer(mount.path))


def _copied(stage: Stage, source: str) -> float:
    target = stage.folder / "copied"
    shutil.rmtree(target, ignore_errors=True)
    return stage.run("skopeo", "copy", "--src-tls-verify=false", source, f"dir:{target}")


def _warm(stage: Stage, port: int, image: Image) -> Row:
    """Both files are in the page cache by then: they were read before."""
    copy = stage.folder / "copy"
    copy.write_bytes(image.layers[0].raw)
    with stage.mount(port) as mount:
        for _ in range(2):
            stage.run("cat", _layer(mount.path))
        stage.run("cat", copy)
        ours, beside = in_turn(
            ROUNDS * 4, lambda: stage.run("cat", _layer(mount.path)), lambda: stage.run("cat", copy)
        )
    return at_most_times("a layer read again, beside `cat` of the same file on disk", ours, beside, 1.25)
