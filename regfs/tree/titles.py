"""What the blobs of an artifact are called: by the title that their maker gave them, where that is a file's name.

The annotation: OCI image-spec 1.1, annotations.md, "Pre-Defined Annotation Keys".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from regfs.digest import Digest
from regfs.errors import Unsupported
from regfs.manifest import Descriptor

TITLE: Final = "org.opencontainers.image.title"

_MAX_NAME: Final = 255
"""Bytes of a file's name, as Linux has it."""


def artifact_names(blobs: Sequence[Descriptor]) -> dict[str, Descriptor]:
    """Name and descriptor of each blob of an artifact, each name and each blob once, in the manifest's order.

    A blob bears its title where that is a plain file name (`is_plain`) and no other blob's too; else ``sha256-HEX``.
    """
    first: dict[Digest, Descriptor] = {}
    for blob in blobs:
        known = first.setdefault(blob.digest, blob)
        if not known.annotations.get(TITLE) and blob.annotations.get(TITLE):
            first[blob.digest] = blob
    bearers: dict[str, set[Digest]] = {}
    for blob in first.values():
        bearers.setdefault(blob.annotations.get(TITLE, ""), set()).add(blob.digest)
    named = {}
    for blob in first.values():
        title = blob.annotations.get(TITLE, "")
        bears_it = is_plain(title) and len(bearers[title]) == 1
        named[title if bears_it else blob.digest.file_name] = blob
    return named


def is_plain(title: str) -> bool:
    """Say whether a title can stand as a file's name, in any listing and behind any command, and misleads nobody.

    Not a path, no ``:`` (at which shells and tools split), nothing unprintable, no blank at an end, no ``-`` in front
    (which commands take for an option), and no digest, which is the name of a blob without a title.
    """
    if not title or title in (".", "..") or title.startswith("-") or title != title.strip():
        return False
    if any(c in "/\\:" for c in title) or not title.isprintable():
        return False
    try:
        return len(title.encode()) <= _MAX_NAME and not _is_digest(title)
    except UnicodeEncodeError:
        return False


def _is_digest(name: str) -> bool:
    try:
        Digest.from_file_name(name)
    except (ValueError, Unsupported):
        return False
    return True
