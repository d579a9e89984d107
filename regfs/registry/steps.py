"""The steps of a deletion, as values: what is to be asked of a registry or a journal, and what the answer looks like.

Flows are generators of steps: whoever drives one does the step and sends the answer, or throws the RegfsError that it
ended with.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from regfs.digest import Digest
from regfs.errors import Moved, NotFound
from regfs.reference import TagOrDigest
from regfs.registry.journal import Entry
from regfs.registry.replies import Reply, error_for

MAX_SIBLINGS: Final = 256
"""The most other tags that are looked at before the first deletion in a way that may take more than the tag."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """Ask where a reference leads. Answer: Digest, or None where there is no such thing."""

    repository: str
    reference: TagOrDigest


@dataclass(frozen=True, slots=True)
class Saved:
    """A manifest as it must be put back: exact bytes, their type, and their verified digest."""

    raw: bytes
    media_type: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a tag's manifest. Answer: Saved."""

    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class Siblings:
    """The other tags of a repository: ``known`` to lead to the same digest, and ``others``, which may or may not."""

    known: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FindSiblings:
    """Find other tags that lead to the same digest, as far as can be. Answer: Siblings; none where none are listed."""

    repository: str
    tag: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class ListTags:
    """List a repository's tags. Answer: a frozenset of names. A listing that is not whole is thrown, never given."""

    repository: str


@dataclass(frozen=True, slots=True)
class DeleteManifest:
    """``DELETE manifests/REFERENCE``. Answer: Reply, for any 2xx and 4xx but 401, 403, 408 and 429, which are thrown.

    A registry may have another call for digests (`regfs.registry.deleter.DeletesDigests`). For that one: ``tag`` is the
    only tag that may go with the digest; ``probe`` says that nobody has the digest, and that this is asked beforehand.
    """

    repository: str
    reference: TagOrDigest
    tag: str = ""
    probe: bool = False


@dataclass(frozen=True, slots=True)
class PutManifest:
    """``PUT manifests/TAG``. Answer: as of DeleteManifest. ``insist``: a failed one may be sent again."""

    repository: str
    tag: str
    raw: bytes
    media_type: str
    insist: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """Bring a journal entry to disk. Answer: None."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Erase:
    """End a journal entry. Answer: None. An entry that is never erased is left to recovery."""

    entry: Entry


class Standing(Enum):
    """What is known of a registry's own tag deletion."""

    UNKNOWN = "unknown"
    SAFE = "deletes the tag alone"
    ABSENT = "deletes no tags by name"
    TAKES_SIBLINGS = "takes other tags too"
    NEVER = "is known to be refused, and is not tried"


@dataclass(frozen=True, slots=True)
class Learn:
    """Remember what the registry's own tag deletion does; TAKES_SIBLINGS for good. Answer: None."""

    standing: Standing


Step = Resolve | Fetch | FindSiblings | ListTags | DeleteManifest | PutManifest | Record | Erase | Learn
T = TypeVar("T")
Flow = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be deleted, and how far that may go.

    ``seen`` is the digest the user saw, where known. ``made_up`` is a digest that no registry holds, ``mark`` a text
    that no other throw-away bears. ``native_only``: the user forbids throw-aways.
    """

    registry: str
    repository: str
    tag: str
    seen: Digest | None
    made_up: Digest
    mark: str
    standing: Standing = Standing.UNKNOWN
    native_only: bool = False

    @property
    def name(self) -> str:
        """How messages call the tag."""
        return f"{self.registry}/{self.repository}:{self.tag}"


def unmoved(wish: Wish, expected: Digest | None) -> Flow[Digest]:
    """Where the tag leads. Raises NotFound, and Moved where that is not ``expected``."""
    digest: Digest | None = yield Resolve(wish.repository, wish.tag)
    if digest is None:
        raise NotFound(f"there is no {wish.name}", registry=wish.registry)
    if expected is not None and digest != expected:
        raise Moved(f"{wish.name} is now {digest}, not {expected}", registry=wish.registry)
    return digest


def save(wish: Wish, digest: Digest) -> Flow[Saved]:
    """The tag's manifest as it must be put back. Raises Moved where the tag no longer leads to ``digest``."""
    saved: Saved = yield Fetch(wish.repository, wish.tag)
    if saved.digest != digest:
        raise Moved(f"{wish.name} is now {saved.digest}, not {digest}", registry=wish.registry)
    return saved


def entry_for(wish: Wish, saved: Saved, *, throw_away: bytes = b"", siblings: tuple[str, ...] = ()) -> Entry:
    """A new journal entry."""
    return Entry(
        registry=wish.registry,
        repository=wish.repository,
        tag=wish.tag,
        raw=saved.raw,
        media_type=saved.media_type,
        digest=str(saved.digest),
        throw_away=throw_away,
        siblings=siblings,
    )


def put_back(entry: Entry, tag: str) -> Flow[None]:
    """Put an entry's original on a tag. Raises what the registry says against it."""
    reply: Reply = yield PutManifest(entry.repository, tag, entry.raw, entry.media_type, insist=True)
    if not 200 <= reply.status < 300:
        raise error_for(reply, entry.registry, f"putting back {entry.registry}/{entry.repository}:{tag}")
