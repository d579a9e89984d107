"""Content laid straight into the storage tree of Docker's registry: thousands of tags in seconds.

The layout is distribution's: link files that hold a digest, and one `data` file for each blob.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from regfs.digest import Digest
from regfs.testing.images import Content, Pushable

_ROOT = Path("docker/registry/v2")
_ROOM = 1024**3


def new_storage() -> tempfile.TemporaryDirectory[str]:
    """A new folder for a registry's storage: in memory where that can be had, since tens of thousands of small files
    on a disk take half a minute to write and another to remove."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM
    return tempfile.TemporaryDirectory(prefix="regfs-tests-", dir=memory if roomy else None)


def lay_blob(storage: Path, content: Content) -> None:
    """Lay the bytes of a blob or a manifest, for all repositories."""
    place = storage / _ROOT / "blobs" / content.digest.algorithm / content.digest.hex[:2] / content.digest.hex
    place.mkdir(parents=True, exist_ok=True)
    (place / "data").write_bytes(content.raw)


def lay_image(storage: Path, repository: str, what: Pushable, tags: Iterable[str] = ()) -> None:
    """Lay an image or index with all that it names into a repository, under ``tags``."""
    for content in (*what.blobs, *what.manifests()):
        lay_blob(storage, content)
    _link_image(storage, repository, what)
    lay_tags(storage, repository, what.digest, tags)


def lay_tags(storage: Path, repository: str, digest: Digest, tags: Iterable[str]) -> None:
    """Point tags at a manifest that the repository has.

    The registry also keeps, for each tag, an index of what it ever pointed at, and never reads it: left out here,
    since it is more than half of the files.
    """
    folder = _repository(storage, repository) / "_manifests" / "tags"
    link = str(digest).encode()
    for tag in tags:
        place = f"{folder}/{tag}/current"
        os.makedirs(place, exist_ok=True)  # noqa: PTH103 - twice as fast, and there are thousands
        _write(f"{place}/link", link)


def lay_repositories(
    storage: Path, names: Iterable[str], what: Pushable, tags: Iterable[str] = ("latest",)
) -> None:
    """Lay the same image or index, under the same tags, into many repositories."""
    for content in (*what.blobs, *what.manifests()):
        lay_blob(storage, content)
    wanted = tuple(tags)
    for name in names:
        _link_image(storage, name, what)
        lay_tags(storage, name, what.digest, wanted)


def _repository(storage: Path, repository: str) -> Path:
    return storage / _ROOT / "repositories" / repository


def _link_image(storage: Path, repository: str, what: Pushable) -> None:
    home = _repository(storage, repository)
    for kind, contents in (("_layers", what.blobs), ("_manifests/revisions", tuple(what.manifests()))):
        for digest in (content.digest for content in contents):
            place = f"{home}/{kind}/{digest.algorithm}/{digest.hex}"
            os.makedirs(place, exist_ok=True)  # noqa: PTH103 - as above
            _write(f"{place}/link", str(digest).encode())
    (home / "_manifests" / "tags").mkdir(parents=True, exist_ok=True)


def _write(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)
