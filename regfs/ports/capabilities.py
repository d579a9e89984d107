"""What a registry may be able to do beyond the required: a Protocol each, handed out by `Source.capability`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from regfs.digest import Digest
from regfs.manifest import Descriptor


class Answer(Enum):
    """Whether something can be done: known, or unknown until tried."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Cost(Enum):
    """What a fact about each tag of a listing costs."""

    FREE = "free"
    REQUEST_PER_TAG = "one request a tag"
    ABSENT = "absent"


@runtime_checkable
class ListsRepositories(Protocol):
    """Capability: says which repositories there are."""

    def repositories(self) -> AsyncIterator[Sequence[str]]:
        """All repositories, page by page, in any order. Raises ListingRefused where this caller may not list them."""
        ...


@dataclass(frozen=True, slots=True)
class NamespacePage:
    """One page of what is in a namespace: full names, of namespaces directly below it and of repositories in it.

    A repository may be deeper by several components; what leads there is then a namespace too, and all that is in it
    has been said. So a name that holds what this does not tell is among ``namespaces``, a repository too; a namespace
    that is also a repository is among the ``repositories`` of its own pages. ``partial``: why this is not all that is
    there, for people; empty: nothing is known to be missing, but in ``""``, which never tells that a name is absent.
    """

    namespaces: Sequence[str] = ()
    repositories: Sequence[str] = ()
    partial: str = ""


@runtime_checkable
class ListsNamespaces(Protocol):
    """Capability: lists namespace by namespace, where a list of all repositories is not to be had or asks too much.

    A Source that has it need not be a `ListsRepositories`; where it is both, the tree asks this.
    """

    def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        """What is in a namespace (``""``: what the registry shows this caller first), page by page, in any order.

        Looking into one asks about no other. Raises NotFound where there is no such namespace, and gives no page before:
        the first one says that there is. Raises ListingRefused where this caller may not look into it.
        """
        ...


@runtime_checkable
class ResolvesTags(Protocol):
    """Capability: says where a tag points without giving the manifest (HEAD)."""

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """The tag's manifest as a descriptor. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class ReferrerPage:
    """One page of what refers to a manifest: descriptors with their ``artifactType`` and annotations.

    ``dropped``: how many more it told of that cannot be used.
    """

    referrers: Sequence[Descriptor]
    dropped: int = 0


@runtime_checkable
class ListsReferrers(Protocol):
    """Capability: says which manifests refer to one (signatures, SBOMs, attestations)."""

    def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        """What refers to that manifest, each once, page by page; of that ``artifactType`` alone where one is given.

        Nothing where nothing does, or where there is no such manifest. Raises what a Source raises.
        """
        ...


@runtime_checkable
class HonoursRanges(Protocol):
    """Capability: says whether a part of a blob can be had by itself. A Source without it gives parts."""

    def honours_ranges(self) -> Answer:
        """NO once a part was asked for and the whole came: `Source.blob` then reads over what comes before the part."""
        ...


@runtime_checkable
class Metered(Protocol):
    """Capability: getting a manifest counts against a quota, so nothing is fetched ahead, and HEAD comes first."""

    def quota(self) -> Mapping[str, int]:
        """What is known of the quota: ``limit``, ``remaining``, ``window`` (seconds); empty where nothing is yet."""
        ...


@runtime_checkable
class DatesTags(Protocol):
    """Capability: knows when tags were made or pushed."""

    @property
    def cost(self) -> Cost:
        """What a date costs. FREE dates come with `TagPage.facts`."""
        ...


@dataclass(frozen=True, slots=True)
class Deletion:
    """How a tag was deleted: ``way`` is for the log ("the registry's tag deletion", "a throw-away index")."""

    way: str


@runtime_checkable
class DeletesTags(Protocol):
    """Capability: deletes one tag, and nothing else: not its digest, not its siblings."""

    def can_delete(self) -> Answer:
        """Whether this instance, repository and token allow it."""
        ...

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """Delete that tag. ``seen`` is the digest the user saw, where known: Moved if the tag no longer has it.

        Raises NotFound, DeletionDisabled, Refused, Moved. Whatever it raises, the tag is then as it was, or gone.
        """
        ...


@runtime_checkable
class DeletesRepositories(Protocol):
    """Capability: removes an empty repository from the registry. No mount asks for it: `rmdir` sends no deletion."""

    async def delete_repository(self, repository: str) -> None:
        """Remove a repository that has no tags. Raises NotFound, Refused."""
        ...


@runtime_checkable
class Recovers(Protocol):
    """Capability: an earlier daemon may have been killed in the middle of a write."""

    async def recover(self) -> Sequence[str]:
        """Finish or undo what an earlier daemon left half done; a line for each thing done. Must be safe to repeat."""
        ...


@runtime_checkable
class Counts(Protocol):
    """Capability: counts what it asked of the registry."""

    def counters(self) -> Mapping[str, int]:
        """Counters since the start, by name (``requests``, ``retries``, ``errors``, ``token_requests``, ``bytes``)."""
        ...
