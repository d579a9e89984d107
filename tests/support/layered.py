"""Images of several layers, with a config as a test wants it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from gzip import compress, decompress
from typing import Any

from regfs.manifest import OCI_CONFIG, OCI_MANIFEST
from regfs.testing.images import DEFAULT_PLATFORM, Content, Image

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar"

Entry = bytes | Callable[[tarfile.TarInfo], None]


def layer(entries: Mapping[str, Entry], *, media_type: str = GZIP, mtime: int = 1_700_000_000) -> Content:
    """A layer of files (path: bytes), and of whatever else a function makes of a `TarInfo`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, entry in entries.items():
            info = tarfile.TarInfo(path)
            info.mode, info.mtime = 0o644, mtime
            if isinstance(entry, bytes):
                info.size = len(entry)
                tar.addfile(info, io.BytesIO(entry))
            else:
                entry(info)
                tar.addfile(info)
    raw = buffer.getvalue()
    return Content(media_type, compress(raw, mtime=0) if media_type == GZIP else raw)


def folder(info: tarfile.TarInfo) -> None:
    """An entry that is a folder."""
    info.type, info.mode = tarfile.DIRTYPE, 0o755


def link(target: str) -> Callable[[tarfile.TarInfo], None]:
    """An entry that is a symbolic link."""

    def make(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = tarfile.SYMTYPE, target

    return make


def image(
    *layers: Content,
    config: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    layer_annotations: Sequence[Mapping[str, str]] = (),
    **more: Any,
) -> Image:
    """An image of these layers; ``config`` is what its config has under ``config``, ``more`` beside it."""
    tars = [decompress(each.raw) if each.media_type.endswith("gzip") else each.raw for each in layers]
    content = Content(
        OCI_CONFIG,
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": config or {},
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [f"sha256:{hashlib.sha256(t).hexdigest()}" for t in tars],
                },
                **more,
            }
        ).encode(),
    )
    noted = [*layer_annotations, *([{}] * len(layers))]
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": content.reference(),
        "layers": [each.reference(annotations=notes) for each, notes in zip(layers, noted, strict=False)],
    }
    if annotations:
        manifest["annotations"] = annotations
    return Image(Content(OCI_MANIFEST, json.dumps(manifest).encode()), content, layers, DEFAULT_PLATFORM)
