"""Deleting one tag and nothing else: the decisions. Pure: yields steps, see `regfs.registry.steps`.

In this order: (1) the provider's own call, which a provider's Source brings; (2) ``DELETE manifests/TAG``; (3) where
the registry knows no deletion of a tag, a throw-away. The real manifest is never deleted by its digest: that takes all
its tags with it. What a registry's own tag deletion does to a manifest that has lost its last tag is the registry's
affair: some keep it, some collect it.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from typing import Final

from regfs.digest import Digest
from regfs.errors import BadReply, Refused, RegfsError
from regfs.ports import Deletion
from regfs.reference import is_fallback_tag, is_tag
from regfs.registry.journal import Entry
from regfs.registry.replies import Reply, error_codes, error_for, words_of
from regfs.registry.steps import (
    MAX_SIBLINGS,
    DeleteManifest,
    Erase,
    FindSiblings,
    Flow,
    Learn,
    ListTags,
    Record,
    Resolve,
    Siblings,
    Standing,
    Wish,
    entry_for,
    put_back,
    save,
    unmoved,
)
from regfs.registry.throwaway import recover_throw_away, throw_away

NATIVE: Final = "the registry's tag deletion"

_DENIALS: Final = frozenset({"DENIED", "UNAUTHORIZED", "TOOMANYREQUESTS", "GOOGLE_MANIFEST_DANGLING_TAG"})
_WHY_NOT: Final = {
    Standing.TAKES_SIBLINGS: "its own tag deletion takes other tags too",
    Standing.NEVER: "the registry deletes no tag by its name",
}
_MOVING: Final = frozenset({"latest", "stable", "main", "master", "edge", "prod", "production", "current"})


def delete_tag(wish: Wish) -> Flow[Deletion]:
    """Delete one tag in the first way that the registry knows.

    Raises NotFound, Moved, Refused, DeletionDisabled, Unsupported, and what a step ended with. The tag is then as it
    was, or gone; where neither could be brought about, the message says so and the journal entry stays.
    """
    digest = yield from unmoved(wish, wish.seen)
    why = _WHY_NOT.get(wish.standing, "")
    if not why:
        done = yield from _native(wish, digest)
        if isinstance(done, Deletion):
            return done
        why = f"it does not delete a tag by its name ({words_of(done) or done.status})"
    if wish.native_only:
        raise Refused(
            f"{wish.name} is not deleted: {why}, and 'tag_delete = \"native\"' forbids the other way",
            registry=wish.registry,
        )
    return (yield from throw_away(wish, digest))


class Verdict(Enum):
    """What a reply to ``DELETE manifests/TAG`` means."""

    DONE = "done"
    ABSENT = "no such tag"
    UNSUPPORTED = "this registry deletes no tags by name"
    REFUSED = "refused"


def verdict(reply: Reply) -> Verdict:
    """Read a reply to ``DELETE manifests/TAG``. Only what surely means "not in this way" opens the throw-away way."""
    codes = set(error_codes(reply.body))
    if 200 <= reply.status < 300:
        return Verdict.DONE
    if reply.status in (404, 410):
        return Verdict.ABSENT
    if reply.status in (401, 403, 408, 429) or reply.status >= 500 or codes & _DENIALS:
        return Verdict.REFUSED
    if reply.status in (400, 405) or "UNSUPPORTED" in codes:
        return Verdict.UNSUPPORTED
    return Verdict.REFUSED


def _native(wish: Wish, digest: Digest) -> Flow[Deletion | Reply]:
    """Try the registry's own way: Deletion where that worked, the reply where the registry has no such way."""
    guard = (yield from _guard(wish, digest)) if wish.standing is Standing.UNKNOWN else None
    try:
        reply: Reply = yield DeleteManifest(wish.repository, wish.tag)
    except RegfsError:
        # The registry may have done it all the same.
        if guard is not None:
            yield from _spare(guard)
        raise
    found = verdict(reply)
    if found is Verdict.DONE:
        yield from _confirm(wish, reply, guard)
        taken = yield from _prove(wish, digest, guard)
        return Deletion(f"{NATIVE} (it took {_some(taken)} too: put back)" if taken else NATIVE)
    if guard is not None:
        yield Erase(guard.entry)
    if found is Verdict.UNSUPPORTED:
        yield Learn(Standing.ABSENT)
        return reply
    if found is Verdict.ABSENT:
        yield from unmoved(wish, None)
        raise Refused(
            f"{wish.name} is there, and the registry answers 404 when asked to delete it:"
            " it does not let this account delete, or knows no deletion of tags",
            registry=wish.registry,
            words=words_of(reply),
        )
    raise error_for(reply, wish.registry, f"deleting {wish.name}")


@dataclass(frozen=True, slots=True)
class _Guard:
    """What was there before a deletion in an unknown way: known siblings in the entry, other tags beside it."""

    entry: Entry
    others: frozenset[str] = frozenset()


def _guard(wish: Wish, digest: Digest) -> Flow[_Guard | None]:
    """Save what would be lost if the deletion took the tag's siblings too."""
    siblings: Siblings = yield FindSiblings(wish.repository, wish.tag, digest)
    if not siblings.known:
        return None
    saved = yield from save(wish, digest)
    entry = entry_for(wish, saved, siblings=siblings.known)
    yield Record(entry)
    return _Guard(entry, siblings.others)


def _prove(wish: Wish, digest: Digest, guard: _Guard | None) -> Flow[Sequence[str]]:
    """Look what became of the siblings; those that had to be put back. The way is safe once something proves it."""
    if guard is not None:
        taken = yield from _spare(guard)
        if not taken:
            yield Learn(Standing.SAFE)
        return taken
    # The manifest outlives its tag: so the tag alone was deleted.
    if wish.standing is not Standing.SAFE and (yield Resolve(wish.repository, digest)) is not None:
        yield Learn(Standing.SAFE)
    return ()


def _spare(guard: _Guard) -> Flow[Sequence[str]]:
    """Put back the siblings that vanished with the tag; their names."""
    entry = guard.entry
    taken = yield from _absent(entry.repository, entry.siblings)
    if not taken:
        yield Erase(entry)
        return ()
    failures = yield from _put_all_back(entry, taken)
    try:
        # A registry that takes siblings took those too that nobody had looked at before.
        more = yield from _vanished(guard)
        failures += yield from _put_all_back(entry, more)
        taken += more
    except RegfsError as error:
        failures.append(error)
    yield Learn(Standing.TAKES_SIBLINGS)
    if failures:
        raise BadReply(
            f"deleting {entry.name} also took {_some(taken)}, and they could not all be put back"
            f" ({failures[0]}): it is tried again at the next start, from journal entry {entry.id}",
            registry=entry.registry,
        ) from failures[0]
    yield Erase(entry)
    return taken


def _put_all_back(entry: Entry, tags: Sequence[str]) -> Flow[list[RegfsError]]:
    """Put the original on all of them, as far as can be; what went wrong."""
    failures = []
    for tag in tags:
        try:
            yield from put_back(entry, tag)
        except RegfsError as error:
            failures.append(error)
    return failures


def _vanished(guard: _Guard) -> Flow[list[str]]:
    """Tags beside the known siblings that were listed before and are gone now."""
    if not guard.others:
        return []
    listed: frozenset[str] = yield ListTags(guard.entry.repository)
    return (yield from _absent(guard.entry.repository, sorted(guard.others - listed)))


def _absent(repository: str, tags: Sequence[str]) -> Flow[list[str]]:
    absent = []
    for tag in tags:
        if (yield Resolve(repository, tag)) is None:
            absent.append(tag)
    return absent


def _some(names: Sequence[str]) -> str:
    """Names in a message: not thousands of them."""
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} others"


def _confirm(wish: Wish, reply: Reply, guard: _Guard | None) -> Flow[None]:
    """202 is the spec's word for it. A 200 may be anything: a proxy's page, a registry that ignores DELETE."""
    if reply.status == 202 or (yield Resolve(wish.repository, wish.tag)) is None:
        return
    if guard is not None:
        yield Erase(guard.entry)
    raise BadReply(
        f"the registry answered {reply.status} when asked to delete {wish.name}, and still has it",
        registry=wish.registry,
        words=words_of(reply),
    )


def likely_siblings(tag: str, names: Collection[str], limit: int = MAX_SIBLINGS) -> list[str]:
    """The names most likely to lead where ``tag`` does: ``latest`` and its like, then those that begin alike."""

    def rank(name: str) -> tuple[bool, int, str]:
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name, tag, strict=False)))
        return name not in _MOVING, -alike, name

    others = {name for name in names if name != tag and is_tag(name) and not is_fallback_tag(name)}
    return heapq.nsmallest(limit, others, key=rank)


def recover(entry: Entry) -> Flow[str]:
    """Finish or undo what a journal entry is about, by where the tag leads now; a line that says what was done.

    Raises what kept it from being done: the entry stays, and it can be tried again.
    """
    digest: Digest | None = yield Resolve(entry.repository, entry.tag)
    if not entry.siblings:
        return (yield from recover_throw_away(entry, digest))
    if digest is not None and str(digest) == entry.digest:
        yield Erase(entry)
        return f"{entry.name}: a broken-off deletion had not begun"
    taken = yield from _spare(_Guard(entry))
    if taken:
        return f"{entry.name}: its deletion also took {_some(taken)}: put back"
    return f"{entry.name}: a broken-off deletion was complete"
