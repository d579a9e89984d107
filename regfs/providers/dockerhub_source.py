"""The Source of Docker Hub: the registry for what images hold, the Hub API for which there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar, cast

import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    AccessDenied,
    Forbidden,
    ListingRefused,
    NotFound,
    NotSignedIn,
    RegfsError,
    Unsupported,
)
from regfs.manifest import Descriptor
from regfs.ports import (
    Cost,
    Counts,
    DatesTags,
    DeletesTags,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    Metered,
    NamespacePage,
    RawManifest,
    ReferrerPage,
    ResolvesTags,
    TagPage,
)
from regfs.providers.dockerhub import NAME, of_the_hub
from regfs.providers.dockerhub_api import HubApi, is_organisation_token
from regfs.providers.dockerhub_delete import TagDeletions
from regfs.providers.dockerhub_pulls import PullClient
from regfs.reference import TagOrDigest, is_component, is_repository
from regfs.registry.journal import Journal
from regfs.registry.referrers import Referrers
from regfs.registry.tag_deletion import TagDeletion
from regfs.registry.v2 import V2Source

C = TypeVar("C")

LIBRARY: Final = "library"
"""The namespace of the official images, which a name of one component means."""


class HubSource(V2Source):
    """Docker Hub. Repositories are NAMESPACE/NAME; a NAME alone is the official image, unless it is a namespace of yours."""

    def __init__(self, connection: Connection, client: PullClient, journal: Journal, api: HubApi) -> None:
        super().__init__(NAME, client, journal, tag_delete="native")
        self._referrers = Referrers(NAME, client, self._held)
        self._pulls = client
        self._api = api
        self._connection = connection
        self._deletions = TagDeletions(connection, api, self)

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """Lists by namespace, dates, resolves and deletes tags, is metered, counts; see `regfs.ports.Source`."""
        if kind is DeletesTags:
            return None if self._client.read_only else cast("C", TagDeletion(self._deletions, repository))
        if kind in (ListsNamespaces, ListsReferrers, ResolvesTags, HonoursRanges, DatesTags, Metered, Counts):
            return cast("C", self)
        return None

    @property
    def cost(self) -> Cost:
        """Dates come with the listing."""
        return Cost.FREE

    def quota(self) -> Mapping[str, int]:
        """What the registry last said of the pull limit: limit, remaining, window (seconds)."""
        return dict(self._pulls.last_quota)

    def counters(self) -> Mapping[str, int]:
        """Both clients' counters since the start, together."""
        ours, theirs = super().counters(), self._api.counters()
        return {name: ours.get(name, 0) + theirs.get(name, 0) for name in {**ours, **theirs}}

    async def check(self) -> None:
        """Ask the registry's ``GET /v2/``. Raises as `Source.check` says."""
        with of_the_hub():
            await super().check()

    async def aclose(self) -> None:
        """Close connections."""
        await super().aclose()
        await self._api.aclose()

    # ── names ──

    async def canonical(self, repository: str) -> str:
        """``NAMESPACE/NAME`` of what may be an official image's short name. NotFound: no repository can be called so.

        Names that cannot be there are never asked for: what Docker Hub holds has exactly two components.
        """
        if repository.count("/") == 1 and is_repository(repository):
            return repository
        if is_component(repository) and await self._is_short(repository):
            return f"{LIBRARY}/{repository}"
        raise NotFound(f"a repository of {NAME} is NAMESPACE/NAME: {repository[:260]!r}", registry=NAME)

    async def _is_short(self, name: str) -> bool:
        return name != LIBRARY and name not in await self._own()

    async def _own(self) -> Sequence[str]:
        """The namespaces that are the user's without asking: those configured, and the account's."""
        credential = await self._api.credential()
        account = self._connection.username or (credential.username if credential is not None else "")
        names = [*(name.strip("/") for name in self._connection.namespaces), account.lower()]
        return [name for name in dict.fromkeys(names) if is_component(name)]

    # ── listings ──

    async def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        """See `regfs.ports.ListsNamespaces.namespace`. Of ``""``: ``library``, the account, its organisations and those configured."""
        refused = self._api.refused
        if name.count("/") == 1 and refused is not None:
            raise ListingRefused(
                f"whether there is a {name} cannot be known: {refused.message}",
                registry=NAME,
                words=refused.words,
            )
        if "/" in name:
            raise NotFound(f"nothing is below the repository {name[:260]}", registry=NAME)
        with of_the_hub():
            async with aclosing(self._first() if not name else self._within(name)) as pages:
                async for page in pages:
                    yield page

    async def _first(self) -> AsyncGenerator[NamespacePage, None]:
        own = [LIBRARY, *(name for name in await self._own() if name != LIBRARY)]
        yield NamespacePage(own)
        credential = await self._api.credential()
        if credential is None or is_organisation_token(credential):
            return  # an organisation's token is good for that one, and its name is the token's user
        found, partial = await self._account()
        more = [name for name in dict.fromkeys(found) if name not in own]
        if more or partial:
            yield NamespacePage(more, partial=partial)

    async def _account(self) -> tuple[Sequence[str], str]:
        """The namespaces that the API names of the account, asked in both ways at once; and why some may be missing."""
        found: list[str] = []
        missing: dict[str, str] = {}

        async def ask(what: str, pages: AsyncGenerator[Sequence[str], None]) -> None:
            try:
                async with aclosing(pages):
                    async for names in pages:
                        found.extend(names)
            except RegfsError as error:
                missing[what] = (self._api.refused or error).message

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "the namespaces it can push to", self._api.namespaces())
            nursery.start_soon(ask, "its organisations", self._api.organisations())
        return found, self._partial() or "; ".join(
            f"the account's list lacks {what}: {why}" for what, why in sorted(missing.items())
        )

    def _partial(self) -> str:
        refused = self._api.refused
        if refused is None:
            return ""
        return (
            "the Hub API does not take this sign-in, so only what is public is listed; a personal access token serves "
            f"where an account has a second factor or single sign-on ({refused.message})"
        )

    async def _within(self, name: str) -> AsyncGenerator[NamespacePage, None]:
        shown, known = False, True
        try:
            async with aclosing(self._api.repositories(name)) as pages:
                async for names in pages:
                    if names:
                        shown = True
                        yield NamespacePage((), [f"{name}/{found}" for found in names], self._partial())
        except AccessDenied as error:
            reason = self._api.refused or error
            raise ListingRefused(
                f"{NAME} does not say what {name} holds: {reason.message}", registry=NAME, words=error.words
            ) from error
        except NotFound:
            known = False
        partial = self._partial()
        if await self._official(name):
            yield NamespacePage((), [name])
        elif not shown and partial and (known or name in await self._own()):
            yield NamespacePage(partial=partial)
        elif not shown and not (
            name in (LIBRARY, *await self._own()) or (known and await self._is_mine(name))
        ):
            raise NotFound(f"{NAME} shows nothing in a namespace {name}", registry=NAME)

    async def _official(self, name: str) -> bool:
        """Whether a name is an official image's, too."""
        return await self._is_short(name) and await self._api.has_repository(f"{LIBRARY}/{name}")

    async def _is_mine(self, name: str) -> bool:
        """Whether an empty namespace is there all the same: the API may list nothing of what there is not, too."""
        credential = await self._api.credential()
        return credential is not None and name in (await self._account())[0]

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """See `regfs.ports.Source.tags`. From the API, with dates; from the registry, without, where the API does not show them."""
        with of_the_hub():
            full = await self.canonical(repository)
            begun = False
            try:
                async with aclosing(self._api.tags(full)) as pages:
                    async for page in pages:
                        begun = True
                        yield page
            except (AccessDenied, NotFound, Unsupported) as error:
                if begun or not await self._may_be_hidden(full, error):
                    raise
                refusal = error
            else:
                return
            async with aclosing(self._plain_tags(full, refusal)) as pages:
                async for page in pages:
                    yield page

    async def _may_be_hidden(self, repository: str, error: RegfsError) -> bool:
        """Whether the registry may show what the API does not: official images and anonymous callers get the same of both."""
        if not isinstance(error, NotFound):
            return True
        return not repository.startswith(f"{LIBRARY}/") and await self._api.credential() is not None

    async def _plain_tags(self, repository: str, refusal: RegfsError) -> AsyncGenerator[TagPage, None]:
        """The registry's own list. It denies access to what is not there: then the API's word counts."""
        try:
            async with aclosing(cast("AsyncGenerator[TagPage, None]", super().tags(repository))) as pages:
                async for page in pages:
                    yield page
        except AccessDenied as error:
            if isinstance(refusal, NotFound) and isinstance(error, Forbidden) and self._api.refused is None:
                raise refusal from None
            raise

    # ── what images hold ──

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """See `regfs.ports.Source.manifest`: this is a pull."""
        with of_the_hub():
            full = await self.canonical(repository)
            try:
                return await super().manifest(full, reference)
            except AccessDenied as error:
                raise await self._denied(full, error) from error

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        """See `regfs.ports.ListsReferrers.referrers`."""
        with of_the_hub():
            listed = super().referrers(await self.canonical(repository), digest, artifact_type)
            async with aclosing(cast("AsyncGenerator[ReferrerPage, None]", listed)) as pages:
                async for page in pages:
                    yield page

    async def _held(self, repository: str, tag: TagOrDigest) -> RawManifest:
        """A manifest that mostly is not there: looking for it is no pull."""
        await self.resolve(repository, str(tag))
        return await self.manifest(repository, tag)

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """See `regfs.ports.ResolvesTags.resolve`: by HEAD, which is no pull."""
        with of_the_hub():
            full = await self.canonical(repository)
            try:
                return await super().resolve(full, tag)
            except AccessDenied as error:
                raise await self._denied(full, error) from error

    async def _denied(self, repository: str, error: AccessDenied) -> RegfsError:
        """What it means that the registry denies access, as it also does to what is not there: the API tells them apart."""
        if isinstance(error, NotSignedIn) and await self._api.credential() is not None:
            return error
        try:
            if await self._api.has_repository(repository) or self._api.refused is not None:
                return error
        except RegfsError:
            return error
        return NotFound(
            f"{NAME} shows no {repository} to this caller: it is not there, or it is private and needs another sign-in",
            registry=NAME,
            words=error.words,
        )

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `regfs.ports.Source.blob`."""
        with of_the_hub():
            async with super().blob(await self.canonical(repository), descriptor, start, end) as pieces:
                yield pieces
