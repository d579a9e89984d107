"""The Source of GitHub's container registry: V2 for content, GitHub's API for what V2 does not say there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from typing import Final, TypeVar, cast

import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    AccessDenied,
    CredentialError,
    Forbidden,
    ListingRefused,
    NotFound,
    NotSignedIn,
    PagingLoop,
    RateLimited,
    RegfsError,
    Unsupported,
)
from regfs.manifest import Descriptor
from regfs.ports import (
    Cost,
    DatesTags,
    DeletesTags,
    ListsNamespaces,
    ListsRepositories,
    NamespacePage,
    RawManifest,
    Recovers,
    ReferrerPage,
    TagFacts,
    TagPage,
    Tools,
)
from regfs.providers.ghcr_api import FINE_GRAINED, Account, Api, Package, Version, is_fine_grained
from regfs.providers.ghcr_deletion import VersionDeletion
from regfs.reference import TagOrDigest
from regfs.registry.client import Client
from regfs.registry.journal import Journal
from regfs.registry.paging import MAX_BARREN, MAX_LISTING, MAX_PAGES, next_query, parse_names
from regfs.registry.requests import CATALOG, page_target
from regfs.registry.v2 import V2Source

C = TypeVar("C")
T = TypeVar("T")
U = TypeVar("U")

DATES_WAIT: Final = 3.0
"""Seconds that a listing of tags waits for their dates."""
QUIET: Final = 60.0
"""Seconds for which dates are not asked for after the API refused them."""
CATALOG_PAGE: Final = 100


class GhcrSource(V2Source):
    """ghcr.io, or an installation of its kind."""

    def __init__(self, connection: Connection, client: Client, api: Api, tools: Tools) -> None:
        super().__init__(
            connection.address,
            client,
            Journal(tools.state_dir),
            tag_delete=connection.tag_delete,
            digests=VersionDeletion(connection.address, api, self.digest_of),
        )
        self._api = api
        self._connection = connection
        self._tools = tools
        self._no_dates_until = float("-inf")

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """As `V2Source`, but by namespace; dates where somebody is signed in; nothing that writes where nothing may."""
        if kind is ListsRepositories or (self._tools.http.read_only and kind in (DeletesTags, Recovers)):
            return None
        if kind is ListsNamespaces or (kind is DatesTags and self._tools.auth is not None):
            return cast("C", self)
        return super().capability(kind, repository)

    @property
    def cost(self) -> Cost:
        """The newest hundred versions' dates come with the listing, in one request of the API."""
        return Cost.FREE

    def counters(self) -> Mapping[str, int]:
        """The registry's and the API's counters together."""
        beside = self._api.service.counters()
        return {name: number + beside.get(name, 0) for name, number in super().counters().items()}

    async def aclose(self) -> None:
        """Close connections."""
        await super().aclose()
        await self._api.aclose()

    # ── namespaces ───────────────────────────────────────────────────────────────────────────────

    async def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        """``""``: the signed-in user, organisations and configured namespaces; an owner: all its packages."""
        pages = self._packages(name) if name else self._owners()
        async with aclosing(pages):
            async for page in pages:
                yield page

    async def _owners(self) -> AsyncGenerator[NamespacePage, None]:
        configured = [namespace.lower() for namespace in self._connection.namespaces]
        me, organisations = await _both(self._api.me, self._api.organisations)
        if isinstance(me, RegfsError):
            if not (isinstance(me, Forbidden) or self._is_nobody(me)):
                raise me
            if not configured:
                raise ListingRefused(
                    f"{self.name} shows owners to whoever signs in as a person: {me.message}",
                    registry=self.name,
                    words=me.words,
                ) from me
            yield NamespacePage(configured, partial=f"only what the config names is shown: {me.message}")
            return
        yield NamespacePage([me.login.lower(), *configured])
        if isinstance(organisations, RegfsError):
            organisations = await self._shown_to_all(me, organisations)
        found, missing = organisations
        yield NamespacePage([account.login.lower() for account in found], partial=missing)

    def _is_nobody(self, error: RegfsError) -> bool:
        """Whether the API is not for this caller at all: nobody is signed in, or a workflow is."""
        token = self._api.token
        return token.of_workflow if token.sent else isinstance(error, NotSignedIn)

    async def _shown_to_all(self, me: Account, error: RegfsError) -> tuple[list[Account], str]:
        """What a token without read:org can see of its user's organisations: those that the user shows to all."""
        if not isinstance(error, Forbidden):
            raise error
        missing = f"only organisations that {me.login} shows publicly are here: {error}"
        try:
            return await self._api.public_organisations(me.login), missing
        except AccessDenied:
            return [], f"organisations are missing: {error}"

    async def _packages(self, name: str) -> AsyncGenerator[NamespacePage, None]:
        owner, _, below = name.partition("/")
        found = not below
        try:
            pages = cast("AsyncGenerator[list[str], None]", self._named(owner))
            async with aclosing(pages):
                async for names in pages:
                    inside = [full for full in names if full.startswith(f"{name}/")]
                    found = found or bool(inside)
                    if found:  # the first page says that there is such a namespace
                        yield NamespacePage(repositories=inside)
        except AccessDenied as error:
            if isinstance(error, NotSignedIn) and self._api.token.sent:
                raise
            if not self._is_nobody(error):
                raise ListingRefused(error.message, registry=self.name, words=error.words) from error
            async with aclosing(self._catalog(name, error)) as catalog:
                async for page in catalog:
                    yield page
            return
        if not found:
            raise NotFound(f"{self.name} has no package below {name}", registry=self.name)

    async def _named(self, owner: str) -> AsyncIterator[list[str]]:
        """An owner's repositories, by their full names, in lower case: GitHub spells owners as they were made."""
        async with aclosing(cast("AsyncGenerator[list[Package], None]", self._api.packages(owner))) as pages:
            async for page in pages:
                yield [f"{owner}/{package.name}".lower() for package in page]

    async def _catalog(self, name: str, why: AccessDenied) -> AsyncGenerator[NamespacePage, None]:
        """What the registry's catalog has below ``name``, where the API is not to be had; where it has nothing, why."""
        partial = f"this is what the registry's catalog shows: {why.message}"
        refused = ListingRefused(why.message, registry=self.name, words=why.words)
        found = False
        try:
            async with aclosing(self._catalog_pages(f"{name}/")) as pages:
                async for inside in pages:
                    found = found or bool(inside)
                    if found:
                        yield NamespacePage(repositories=inside, partial=partial)
        except PagingLoop as error:
            if found:
                yield NamespacePage(partial=f"{partial}; {error.message}")
        except (AccessDenied, NotFound, Unsupported) as error:
            raise refused from error
        if not found:
            raise (
                NotFound(f"{self.name} shows nothing below {name}", registry=self.name)
                if "/" in name
                else refused
            )

    async def _catalog_pages(self, prefix: str) -> AsyncGenerator[list[str], None]:
        """The catalog's names that begin with ``prefix``, from where they begin to where they end. Raises PagingLoop."""
        target: str | None = page_target(CATALOG, CATALOG_PAGE, prefix)
        seen: set[str] = set()
        barren = 0
        while target is not None:
            if target in seen or barren >= MAX_BARREN or len(seen) >= MAX_PAGES:
                raise PagingLoop("it goes on and on without another name", registry=self.name)
            seen.add(target)
            reply = await self.client.request("GET", target, limit=MAX_LISTING, what="the catalog")
            names = parse_names(reply.body, "repositories")
            barren = 0 if names else barren + 1
            yield [full for full in names if full.startswith(prefix)]
            if any(full > prefix for full in names if not full.startswith(prefix)):
                return
            query = next_query(reply.headers.get("link", ""), reply.url, self.client.base)
            target = f"{CATALOG}?{query}" if query else None

    # ── content, with a word on the kind of token that is not taken ──────────────────────────────

    async def check(self) -> None:
        """As `V2Source.check`."""
        async with self._explained():
            await super().check()

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """As `V2Source.manifest`."""
        async with self._explained():
            return await super().manifest(repository, reference)

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        """As `V2Source.referrers`. Where others say 404, ghcr.io leads to its web pages (303): then the tag is asked."""
        listed = super().referrers(repository, digest, artifact_type)
        async with aclosing(cast("AsyncGenerator[ReferrerPage, None]", listed)) as pages, self._explained():
            async for page in pages:
                yield page

    async def _resolve(self, repository: str, reference: TagOrDigest) -> Descriptor:
        async with self._explained():
            return await super()._resolve(repository, reference)

    @asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """Say so where the registry refuses a fine-grained token: it says no more than "denied" itself."""
        try:
            yield
        except AccessDenied as error:
            credential = None
            if self._tools.keychain is not None and self._tools.auth is not None:
                with suppress(CredentialError):
                    credential = await self._tools.keychain.get(self._connection)
            if is_fine_grained(credential) and FINE_GRAINED not in error.message:
                error.message = f"{error.message}: {FINE_GRAINED}"
            raise

    # ── tags and their dates ─────────────────────────────────────────────────────────────────────

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """As `V2Source.tags`, with digests and dates of the newest versions where the API gives them beside it."""
        pages = cast("AsyncGenerator[TagPage, None]", super().tags(repository))
        async with aclosing(pages):
            async with self._explained():
                first, facts = await self._first_page(pages, repository)
            if first is None:
                return
            yield _dated(first, facts)
            async for page in pages:
                yield _dated(page, facts)

    async def _first_page(
        self, pages: AsyncGenerator[TagPage, None], repository: str
    ) -> tuple[TagPage | None, Mapping[str, TagFacts]]:
        facts: dict[str, TagFacts] = {}
        outcome: TagPage | RegfsError | None = None

        async def date() -> None:
            facts.update(await self._dates(repository))

        async with trio.open_nursery() as nursery:
            if self._tools.auth is not None and trio.current_time() >= self._no_dates_until:
                nursery.start_soon(date)
            try:
                outcome = await anext(pages, None)
                nursery.cancel_scope.deadline = trio.current_time() + DATES_WAIT
            except RegfsError as error:
                outcome = error
                nursery.cancel_scope.cancel()
        if isinstance(outcome, RegfsError):
            raise outcome
        return outcome, facts

    async def _dates(self, repository: str) -> Mapping[str, TagFacts]:
        """The newest hundred versions' digests and dates; nothing where the API refuses, and then not again for a while."""
        try:
            newest = await self._api.first_versions(repository)
        except RegfsError as error:
            wait = error.retry_after if isinstance(error, RateLimited) and error.retry_after else QUIET
            if not isinstance(error, NotFound):
                self._no_dates_until = trio.current_time() + wait
            return {}
        return dict(pair for version in newest.versions for pair in _facts(version))


async def _both(
    first: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[U]]
) -> tuple[T | RegfsError, U | RegfsError]:
    """Ask both at once; of each its answer, or the error it ended with."""
    answers: dict[int, object] = {}

    async def ask(number: int, call: Callable[[], Awaitable[object]]) -> None:
        try:
            answers[number] = await call()
        except RegfsError as error:
            answers[number] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 1, first)
        nursery.start_soon(ask, 2, second)
    return cast("T | RegfsError", answers[1]), cast("U | RegfsError", answers[2])


def _dated(page: TagPage, facts: Mapping[str, TagFacts]) -> TagPage:
    return TagPage(page.names, {name: facts[name] for name in page.names if name in facts}) if facts else page


def _facts(version: Version) -> Iterator[tuple[str, TagFacts]]:
    try:
        digest = Digest.parse(version.name)
        created = datetime.fromisoformat(version.created_at or "")
    except (ValueError, Unsupported):
        return
    if created.tzinfo is not None:
        yield from ((tag, TagFacts(digest, created)) for tag in version.tags)
