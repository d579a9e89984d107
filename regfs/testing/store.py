"""What a `FakeRegistry` holds. Locked: the test pushes from its own thread while the server answers in another."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from regfs.digest import Digest
from regfs.errors import Unsupported
from regfs.testing.images import Pushable


def parsed_digest(text: str) -> Digest | None:
    """The digest that ``text`` is, if it is one."""
    try:
        return Digest.parse(text)
    except (ValueError, Unsupported):
        return None


class Stored(NamedTuple):
    """A manifest as it was put."""

    raw: bytes
    media_type: str


@dataclass
class Shelf:
    """One repository. A digest in ``hidden`` resolves by its tags only."""

    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, Stored] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    hidden: set[Digest] = field(default_factory=set)


class Store:
    """Repositories with their tags, manifests and blobs, and uploads under way. Every method is atomic."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._shelves: dict[str, Shelf] = {}
        self._uploads: dict[str, tuple[str, bytes]] = {}

    def push(self, repository: str, tags: Iterable[str], what: Pushable) -> None:
        """Put an image or index, with all that it names."""
        with self._lock:
            shelf = self._shelves.setdefault(repository, Shelf())
            shelf.blobs.update((blob.digest, blob.raw) for blob in what.blobs)
            for content in what.manifests():
                self.put(repository, None, content.digest, Stored(content.raw, content.media_type))
            shelf.tags.update(dict.fromkeys(tags, what.digest))

    def put(self, repository: str, tag: str | None, digest: Digest, stored: Stored) -> None:
        """Put one manifest, under a tag or by its digest alone."""
        with self._lock:
            shelf = self._shelves.setdefault(repository, Shelf())
            shelf.manifests[digest] = stored
            shelf.hidden.discard(digest)
            if tag is not None:
                shelf.tags[tag] = digest

    def put_blob(self, repository: str, digest: Digest, data: bytes) -> None:
        """Put a blob; the bytes need not be what the digest says."""
        with self._lock:
            self._shelves.setdefault(repository, Shelf()).blobs[digest] = data

    def repositories(self) -> list[str]:
        """All repositories, as pushed."""
        with self._lock:
            return list(self._shelves)

    def tags(self, repository: str) -> dict[str, Digest] | None:
        """The tags of a repository and where they point; None: no such repository."""
        with self._lock:
            shelf = self._shelves.get(repository)
            return None if shelf is None else dict(shelf.tags)

    def content(self) -> Mapping[str, Mapping[str, Digest]]:
        """Every repository with its tags."""
        with self._lock:
            return {name: dict(shelf.tags) for name, shelf in self._shelves.items()}

    def find(self, repository: str, reference: str | Digest) -> tuple[Digest, Stored] | None:
        """A manifest by tag or digest."""
        with self._lock:
            shelf = self._shelves.get(repository, Shelf())
            if isinstance(reference, Digest):
                digest = None if reference in shelf.hidden else reference
            else:
                digest = shelf.tags.get(reference)
            if digest is None or digest not in shelf.manifests:
                return None
            return digest, shelf.manifests[digest]

    def manifests(self, repository: str) -> dict[Digest, Stored] | None:
        """All manifests of a repository, in the order in which they came; None: no such repository."""
        with self._lock:
            shelf = self._shelves.get(repository)
            return None if shelf is None else dict(shelf.manifests)

    def blob(self, repository: str, digest: Digest) -> bytes | None:
        """A blob's bytes."""
        with self._lock:
            return self._shelves.get(repository, Shelf()).blobs.get(digest)

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Take one tag away; False where there was none."""
        with self._lock:
            return self._shelves.get(repository, Shelf()).tags.pop(tag, None) is not None

    def remove_manifest(self, repository: str, digest: Digest, *, with_tags: bool) -> None:
        """Take a manifest away with all its tags, or hide it from all but its tags."""
        with self._lock:
            shelf = self._shelves[repository]
            if not with_tags and digest in shelf.tags.values():
                shelf.hidden.add(digest)
                return
            shelf.manifests.pop(digest, None)
            for tag in [tag for tag, pointed in shelf.tags.items() if pointed == digest]:
                del shelf.tags[tag]

    def begin_upload(self, repository: str) -> str:
        """Open an upload; returns its name."""
        with self._lock:
            name = secrets.token_hex(8)
            self._uploads[name] = (repository, b"")
            return name

    def append(self, repository: str, upload: str, data: bytes) -> int | None:
        """Add bytes to an upload; returns its size, or None where there is no such upload."""
        with self._lock:
            home, held = self._uploads.get(upload, ("", b""))
            if home != repository:
                return None
            self._uploads[upload] = (home, held + data)
            return len(held) + len(data)

    def finish_upload(self, upload: str) -> bytes:
        """End an upload; returns its bytes."""
        with self._lock:
            return self._uploads.pop(upload)[1]
