"""The times that tags and digests of one registry show."""

from __future__ import annotations

from collections import OrderedDict

from regfs.digest import Digest
from regfs.ports import TagFacts
from regfs.tree.bounded import keep
from regfs.tree.contents import Contents
from regfs.tree.taglists import TagLists

_KEEP_TIMES = 100_000
_NO_FACTS = TagFacts()


class Times:
    """When an image was made, where that is known without a request, or else when the mount first saw it.

    All times are in nanoseconds since 1970. ``born`` is when the mount came up. A time once shown for a digest stays.
    """

    def __init__(self, tags: TagLists, contents: Contents, born: int) -> None:
        self._tags = tags
        self._contents = contents
        self._born = born
        self._shown: OrderedDict[tuple[str, Digest], int] = OrderedDict()

    def of(self, repository: str, tag: str | None, digest: Digest | None) -> int:
        """The time to show for a tag or digest, for good if the digest is known."""
        digest = digest or self._facts(repository, tag).digest
        shown = self._shown.get((repository, digest)) if digest is not None else None
        if shown is not None:
            return shown
        time = self._made(repository, tag, digest) or self._seen(repository, tag)
        if digest is not None:
            keep(self._shown, (repository, digest), time, _KEEP_TIMES)
        return time

    def still_open(self, repository: str, tag: str | None, digest: Digest | None) -> int | None:
        """The time to show in passing where reading the config may still tell when the image was made; else None."""
        digest = digest or self._facts(repository, tag).digest
        if digest is None or (repository, digest) in self._shown or self._made(repository, tag, digest):
            return None
        return self._seen(repository, tag)

    def _made(self, repository: str, tag: str | None, digest: Digest | None) -> int | None:
        created = self._facts(repository, tag).created
        if created is not None:
            return int(created.timestamp() * 1e9)
        return self._contents.created(digest) if digest is not None else None

    def _seen(self, repository: str, tag: str | None) -> int:
        return (self._tags.first_seen(repository, tag) if tag is not None else None) or self._born

    def _facts(self, repository: str, tag: str | None) -> TagFacts:
        listed = self._tags.fresh(repository) if tag is not None else None
        return _NO_FACTS if listed is None or tag is None else listed.facts.get(tag, _NO_FACTS)
