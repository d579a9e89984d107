"""The Source of a GitLab registry: content by V2, names and deletion by GitLab's API, and the reasons of refusals."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from regfs.digest import Digest
from regfs.errors import AccessDenied, BadReply, Forbidden, NotFound, NotSignedIn, RegfsError
from regfs.manifest import Descriptor
from regfs.ports import (
    Counts,
    DeletesTags,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    RawManifest,
    ReferrerPage,
    ResolvesTags,
    TagPage,
)
from regfs.providers.gitlab_api import Tag
from regfs.providers.gitlab_delete import TagDeletions
from regfs.providers.gitlab_reasons import Reasons
from regfs.providers.gitlab_tokens import Kind
from regfs.reference import TagOrDigest
from regfs.registry.tag_deletion import TagDeletion
from regfs.registry.v2 import V2Source

if TYPE_CHECKING:
    from regfs.providers.gitlab_instance import Instance
    from regfs.providers.gitlab_names import Names, Place
    from regfs.providers.gitlab_tokens import Signer
    from regfs.registry.client import Client
    from regfs.registry.journal import Journal

C = TypeVar("C")


class GitLabSource(V2Source):
    """One GitLab registry. It lists no catalog, which GitLab keeps for administrators, and deletes by the API alone."""

    def __init__(
        self, name: str, client: Client, journal: Journal, instance: Instance, signer: Signer, names: Names
    ) -> None:
        super().__init__(name, client, journal, tag_delete="native")
        self._instance = instance
        self._signer = signer
        self._names = names
        self._reasons = Reasons(name, instance, signer, names)
        self._deletions = TagDeletions(name, instance, signer, names, self)

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """Lists namespaces and referrers, resolves and deletes tags, counts; see `regfs.ports.Source`."""
        if kind is ListsNamespaces:
            return cast("C", self._names)
        if kind is DeletesTags and not self.client.read_only:
            return cast("C", TagDeletion(self._deletions, repository))
        reads = (ResolvesTags, ListsReferrers, HonoursRanges, Counts)
        return super().capability(kind, repository) if kind in reads else None

    def counters(self) -> Mapping[str, int]:
        """What was asked of the registry and of the API together."""
        counted = dict(super().counters())
        for name, count in self._instance.counters().items():
            counted[name] = counted.get(name, 0) + count
        return counted

    async def aclose(self) -> None:
        """Close connections, the API's too."""
        await super().aclose()
        await self._instance.aclose()

    async def check(self) -> None:
        """Ask ``GET /v2/``; where that refuses an OAuth token, which opens the API alone, ask the API."""
        try:
            await super().check()
        except AccessDenied as error:
            if await self._signer.kind() is not Kind.OAUTH:
                raise await self._reasons.of(error) from error
            api = await self._instance.api()
            await api.request("GET", "version", what="whether it takes this sign-in")

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """The tags as the registry lists them; as the API does, where the registry refuses.

        Raises as `V2Source.tags`.
        """
        listed = False
        try:
            async with aclosing(cast("AsyncGenerator[TagPage, None]", super().tags(repository))) as pages:
                async for page in pages:
                    listed = True
                    yield page
        except AccessDenied as error:
            if listed or await self._signer.kind() is Kind.NONE:
                raise
            refusal = error
        else:
            return
        try:
            async for page in self._tags_by_api(repository):
                listed = True
                yield page
        except (AccessDenied, BadReply):
            if listed:
                raise
            raise await self._reasons.of(refusal, repository) from refusal

    async def _tags_by_api(self, repository: str) -> AsyncIterator[TagPage]:
        place, known = await self._names.find(repository)
        try:
            async for page in self._tags_at(place, repository):
                yield page
        except NotFound:
            if not known:
                raise
            place, _ = await self._names.find(repository, anew=True)
            async for page in self._tags_at(place, repository):
                yield page

    async def _tags_at(self, place: Place, repository: str) -> AsyncIterator[TagPage]:
        """Keyset paging is gitlab.com's alone for tags (container_registry.md)."""
        query = {"pagination": "keyset", "order_by": "name", "sort": "asc"}
        api = await self._instance.api()
        target, seen = f"projects/{place.project}/registry/repositories/{place.repository}/tags", set[str]()
        pages = api.list(
            target, Tag, what=f"the tags of {repository}", **(query if self._instance.is_gitlab_com else {})
        )
        async for page in pages:
            names = [name for name in dict.fromkeys(tag.name for tag in page) if name not in seen]
            seen.update(names)
            yield TagPage(names)

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        """As `V2Source.referrers`, a refusal with its reason."""
        listed = super().referrers(repository, digest, artifact_type)
        try:
            async with aclosing(cast("AsyncGenerator[ReferrerPage, None]", listed)) as pages:
                async for page in pages:
                    yield page
        except AccessDenied as error:
            raise await self._reasons.of(error, repository) from error

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """As `V2Source.manifest`, a refusal with its reason."""
        try:
            return await super().manifest(repository, reference)
        except AccessDenied as error:
            raise await self._reasons.of(error, repository) from error

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """As `V2Source.resolve`, a refusal with its reason."""
        try:
            return await super().resolve(repository, tag)
        except AccessDenied as error:
            raise await self._reasons.of(error, repository) from error

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `V2Source.blob`, a refusal with its reason."""
        stream = super().blob(repository, descriptor, start, end)
        try:
            pieces = await stream.__aenter__()
        except AccessDenied as error:
            raise await self._reasons.of(error, repository) from error
        try:
            yield pieces
        except BaseException as error:
            if not await stream.__aexit__(type(error), error, error.__traceback__):
                raise
        else:
            await stream.__aexit__(None, None, None)

    async def tag_digest(self, repository: str, tag: str) -> Digest | None:
        """Where a tag leads, by the registry or, where that refuses, by the API; None: there is no such tag.

        Raises as a request.
        """
        try:
            return await self.digest_of(repository, tag)
        except NotFound:
            return None
        except (Forbidden, NotSignedIn):
            place, _ = await self._names.find(repository)
        api = await self._instance.api()
        target = f"projects/{place.project}/registry/repositories/{place.repository}/tags/{tag}"
        try:
            found = await api.read(target, Tag, what=f"{repository}:{tag}")
        except NotFound:
            return None
        return _parsed(found.digest, self.name)


def _parsed(text: str | None, registry: str) -> Digest:
    try:
        return Digest.parse(text or "")
    except (ValueError, RegfsError):
        raise BadReply("GitLab's API gives no digest for a tag", registry=registry) from None
