"""The times that tags and digests of one registry show."""

from __future__ import annotations

from collections import OrderedDict

from regfs.digest import Digest
from regfs.manifest import plausible_time
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
        self._shown: OrderedDict[tuple[str, str | None, Digest], int] = OrderedDict()

    def of(self, repository: str, tag: str | None, digest: Digest | None) -> int:
        """The time to show for a tag or digest, for good if the digest is known.

        A date that the listing gives is that tag's own: others that lead to the same digest may have another.
        """
        facts = self._facts(repository, tag, digest)
        digest = digest or facts.digest
        if digest is None:
            return _dated(facts) or self._seen(repository, tag)
        shown = self._shown_for(repository, tag, digest, facts)
        if shown is not None:
            return shown
        dated = _dated(facts)
        time = dated or self._contents.created(digest) or self._seen(repository, tag)
        if dated is None or facts.digest == digest or self._tags.fresh(repository) is not None:
            keep(self._shown, (repository, tag, digest), time, _KEEP_TIMES)
            if dated is None and tag is not None:
                keep(self._shown, (repository, None, digest), time, _KEEP_TIMES)
        return time

    def still_open(self, repository: str, tag: str | None, digest: Digest | None) -> int | None:
        """The time to show in passing where reading the config may still tell when the image was made; else None."""
        facts = self._facts(repository, tag, digest)
        digest = digest or facts.digest
        if digest is None or _dated(facts) is not None or self._contents.created(digest) is not None:
            return None
        if self._shown_for(repository, tag, digest, facts) is not None:
            return None
        return self._seen(repository, tag)

    def _shown_for(self, repository: str, tag: str | None, digest: Digest, facts: TagFacts) -> int | None:
        own = self._shown.get((repository, tag, digest))
        return own if own is not None or _dated(facts) else self._shown.get((repository, None, digest))

    def _seen(self, repository: str, tag: str | None) -> int:
        return (self._tags.first_seen(repository, tag) if tag is not None else None) or self._born

    def _facts(self, repository: str, tag: str | None, digest: Digest | None) -> TagFacts:
        """What the last listing said of a tag, unless that was about another digest. A date does not age."""
        listed = self._tags.last(repository) if tag is not None else None
        if listed is None or tag is None or not listed.facts:
            return _NO_FACTS
        facts = listed.facts.get(tag, _NO_FACTS)
        is_other = digest is not None and facts.digest is not None and facts.digest != digest
        if is_other:
            return _NO_FACTS
        return facts if self._tags.fresh(repository) is listed else TagFacts(None, facts.created)


def _dated(facts: TagFacts) -> int | None:
    """The date of a tag by its listing, where it can be one."""
    made = None if facts.created is None else plausible_time(facts.created)
    return None if made is None else int(made.timestamp() * 1e9)
