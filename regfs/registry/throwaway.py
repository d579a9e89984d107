"""Deleting a tag by a throw-away, where the registry knows no deletion of a tag, and recovery. Pure: yields steps.

An empty index that is like no other is put on the tag and deleted by its own digest; it has no other tag to take along.
The original's bytes are in the journal before the tag is touched, and go back where the last step fails. A process
that is killed is a generator that is driven no further: what then holds is what tests assert, step by step.

The race that remains, a push between the last look and the PUT, is documented for users.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Final

from regfs.digest import Digest
from regfs.errors import (
    AccessDenied,
    BadReply,
    DeletionDisabled,
    Moved,
    Overloaded,
    RateLimited,
    RegfsError,
    Unsupported,
)
from regfs.manifest import OCI_INDEX, THROW_AWAY_MARK
from regfs.ports import Deletion
from regfs.registry.journal import Entry
from regfs.registry.replies import Reply, error_codes, error_for, words_of
from regfs.registry.steps import (
    DeleteManifest,
    Erase,
    Flow,
    PutManifest,
    Record,
    Resolve,
    Wish,
    entry_for,
    put_back,
    save,
    unmoved,
)

THROW_AWAY: Final = "a throw-away index"
_SWITCH: Final = "storage.delete.enabled (REGISTRY_STORAGE_DELETE_ENABLED=true)"
_READ_ONLY_SWITCH: Final = "storage.maintenance.readonly.enabled"
_NEVER_DONE: Final = (AccessDenied, RateLimited, Overloaded)


class Fate(Enum):
    """What a tag holds, seen from a deletion by a throw-away."""

    GONE = "nothing"
    THROW_AWAY = "the throw-away"
    ORIGINAL = "the original"
    OTHER = "what somebody else put there"


@dataclass(frozen=True, slots=True)
class Settled:
    """How a deletion by a throw-away ended: ORIGINAL may have been put back; ``failure`` is why it did not work."""

    fate: Fate
    failure: RegfsError | None = None


def throw_away_index(mark: str) -> bytes:
    """An empty OCI index (image-index.md) that ``mark`` makes like no other: no blob has to be pushed for it."""
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {THROW_AWAY_MARK: mark}},
        separators=(",", ":"),
    ).encode()


def throw_away(wish: Wish, digest: Digest) -> Flow[Deletion]:
    """Delete a tag that leads to ``digest`` by a throw-away. Raises as `regfs.registry.deletion.delete_tag` says."""
    yield from _probe(wish)
    saved = yield from save(wish, digest)
    entry = entry_for(wish, saved, throw_away=throw_away_index(wish.mark))
    yield Record(entry)
    try:
        yield from unmoved(wish, digest)
    except RegfsError:
        yield Erase(entry)
        raise
    yield from _cover(wish, entry)
    settled = yield from settle(entry)
    if settled.fate is Fate.GONE:
        return Deletion(THROW_AWAY)
    if settled.fate is Fate.OTHER:
        raise Moved(
            f"{wish.name} was pushed anew while it was being deleted, and stays", registry=wish.registry
        )
    raise settled.failure or BadReply(
        f"the registry said that it deleted {wish.name}, and had not: it is as it was", registry=wish.registry
    )


def _probe(wish: Wish) -> Flow[None]:
    """Ask for the deletion of a digest that nobody has: 404 says that deletion works here, and harms nothing."""
    reply: Reply = yield DeleteManifest(wish.repository, wish.made_up, wish.tag, probe=True)
    if reply.status == 404:
        return
    raise _refusal(reply, wish.registry, wish.name)


def _cover(wish: Wish, entry: Entry) -> Flow[None]:
    """Put the throw-away on the tag. Ends normally only where it is there."""
    try:
        reply: Reply = yield PutManifest(wish.repository, wish.tag, entry.throw_away, OCI_INDEX)
    except _NEVER_DONE:
        yield Erase(entry)
        raise
    except RegfsError:
        # It may have been done, or may be done yet: unless it is there, the entry stays for recovery to look again.
        if (yield Resolve(wish.repository, wish.tag)) != entry.throw_away_digest:
            raise
        return
    if 200 <= reply.status < 300:
        return
    yield Erase(entry)
    if reply.status in (400, 405, 415, 422):
        raise Unsupported(
            f"{wish.name} is not deleted: the registry deletes no tag by its name, nor takes a throw-away index",
            registry=wish.registry,
            words=words_of(reply),
        )
    raise error_for(reply, wish.registry, f"deleting {wish.name}")


def settle(entry: Entry) -> Flow[Settled]:
    """From a tag that may hold the throw-away to one that is gone or as it was; ends the entry.

    Raises what kept it from being looked at, and BadReply where the original could not be put back: the entry stays.
    """
    failure: RegfsError | None = None
    try:
        reply: Reply = yield DeleteManifest(entry.repository, entry.throw_away_digest, entry.tag)
        if not 200 <= reply.status < 300:
            failure = _refusal(reply, entry.registry, entry.name)
    except RegfsError as error:
        failure = error
    fate = fate_of(entry, (yield Resolve(entry.repository, entry.tag)))
    if fate is Fate.THROW_AWAY:
        yield from _restore(entry)
        fate = Fate.ORIGINAL
    yield Erase(entry)
    return Settled(fate, failure)


def fate_of(entry: Entry, digest: Digest | None) -> Fate:
    """What a tag that leads to ``digest`` holds."""
    if digest is None:
        return Fate.GONE
    if digest == entry.throw_away_digest:
        return Fate.THROW_AWAY
    return Fate.ORIGINAL if str(digest) == entry.digest else Fate.OTHER


def _restore(entry: Entry) -> Flow[None]:
    try:
        yield from put_back(entry, entry.tag)
    except RegfsError as error:
        raise BadReply(
            f"{entry.name} is left with a throw-away index: neither could that be deleted, nor the original be put back"
            f" ({error}). It is tried again at the next start, from journal entry {entry.id}",
            registry=entry.registry,
        ) from error


def _refusal(reply: Reply, registry: str, name: str) -> RegfsError:
    """Why a manifest is not deleted by its digest."""
    words = words_of(reply)
    if reply.status == 405:
        read_only = "DELETE" not in reply.headers.get("allow", "DELETE").upper() and not error_codes(
            reply.body
        )
        return DeletionDisabled(
            f"{name} is not deleted: the registry is {'read-only' if read_only else 'set to delete nothing'}",
            setting=_READ_ONLY_SWITCH if read_only else _SWITCH,
            registry=registry,
            words=words,
        )
    if reply.status == 400 or 200 <= reply.status < 300:
        return Unsupported(
            f"{name} is not deleted: the registry deletes no tag by its name, and answers {reply.status} to the"
            " deletion of a digest that it cannot have",
            registry=registry,
            words=words,
        )
    return error_for(reply, registry, f"deleting {name}")


def recover_throw_away(entry: Entry, digest: Digest | None) -> Flow[str]:
    """Finish or undo a deletion that was broken off, by the digest that its tag has now; a line that says what was done."""
    fate = fate_of(entry, digest)
    if fate is not Fate.THROW_AWAY:
        yield Erase(entry)
        return f"{entry.name}: a broken-off deletion needs no more: the tag holds {fate.value}"
    settled = yield from settle(entry)
    if settled.fate is Fate.ORIGINAL:
        return f"{entry.name}: undid a broken-off deletion ({settled.failure or 'the registry did not delete it'})"
    return f"{entry.name}: finished a broken-off deletion: the tag holds {settled.fate.value}"
