"""What refers to what in an image layout: its manifests' own word for it. All here blocks: call it in a thread.

OCI image-spec 1.1, manifest.md, ``subject``. A layout keeps no list of it, so all its manifests are read, once for each
state of its index.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from regfs.digest import Digest
from regfs.errors import BadReply, NotFound, TooLarge, Unsupported
from regfs.manifest import MAX_MANIFEST, Descriptor, Manifest, parse_manifest
from regfs.providers.oci_layout import Index, Layout

MAX_READ: Final = 10_000
"""The most manifests of one layout that are read for it."""

Subjects = Mapping[Digest, Sequence[Descriptor]]
"""By the digest of each manifest that something refers to: what does."""


def subjects_of(layout: Layout, index: Index) -> Subjects:
    """Read what index.json names, and what the indexes among that name. Raises TooLarge, and what the disk says."""
    found: dict[Digest, list[Descriptor]] = {}
    waiting = dict(index.media_types)
    seen: set[Digest] = set()
    while waiting:
        digest, media_type = waiting.popitem()
        seen.add(digest)
        if len(seen) > MAX_READ:
            raise TooLarge(f"the layout has more than {MAX_READ} manifests")
        manifest = _read(layout, digest, media_type)
        if manifest is None:
            continue
        if manifest.subject is not None:
            found.setdefault(manifest.subject.digest, []).append(manifest.as_referrer())
        waiting.update((d.digest, d.media_type) for d in manifest.manifests if d.digest not in seen)
    return {subject: sorted(all_of_it, key=lambda d: d.digest) for subject, all_of_it in found.items()}


def _read(layout: Layout, digest: Digest, media_type: str) -> Manifest | None:
    """A manifest; None for what is none, or is not there: a layout may hold a part of an index only."""
    try:
        blob = layout.open_blob(digest)
        if blob.size > MAX_MANIFEST:
            return None
        return parse_manifest(blob.read(MAX_MANIFEST, 0), media_type, digest)
    except (BadReply, NotFound, TooLarge, Unsupported):
        return None
