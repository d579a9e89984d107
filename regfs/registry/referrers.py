"""What refers to a manifest, by the Referrers API, or by the fallback tag where a registry has no such API.

Sources: OCI distribution-spec 1.1, "Listing Referrers", "Referrers Tag Schema", "Unavailable Referrers API".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Final

import trio

from regfs.digest import Digest
from regfs.errors import BadReply, NotFound, PagingLoop, RegfsError, TooLarge, UnsafeTarget
from regfs.manifest import MAX_MANIFEST, OCI_INDEX, Descriptor, parse_entries
from regfs.ports import RawManifest, ReferrerPage
from regfs.reference import TagOrDigest, fallback_tag
from regfs.registry.client import Client
from regfs.registry.paging import MAX_BARREN, MAX_PAGES, next_query
from regfs.registry.replies import Reply, error_codes
from regfs.registry.requests import referrers_target
from regfs.registry.threads import AT_ONCE, in_thread_if

MAX_REFERRERS: Final = 10_000
"""What may refer to one manifest; a list that goes on is taken for endless."""

REMEMBERED: Final = 3600.0
"""Seconds for which a registry is held to have no Referrers API: it may be given one while a mount lives."""

_NO_ANSWER: Final = frozenset({400, 404, 405, 410, 501})
_NOT_ABOUT_THE_API: Final = frozenset(
    {"NAME_UNKNOWN", "NAME_INVALID", "MANIFEST_UNKNOWN", "DIGEST_INVALID", "BLOB_UNKNOWN"}
)
_HEADERS: Final = {"Accept": OCI_INDEX}

FetchManifest = Callable[[str, TagOrDigest], Awaitable[RawManifest]]
"""`Source.manifest`."""


class Referrers:
    """One registry's referrers. What it remembers is whether the registry has the API, and no answer of it."""

    def __init__(self, name: str, client: Client, manifest: FetchManifest) -> None:
        self._name = name
        self._client = client
        self._manifest = manifest
        self._has_api = False
        self._absent_until = float("-inf")

    async def pages(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncGenerator[ReferrerPage, None]:
        """See `regfs.ports.ListsReferrers`. Raises PagingLoop, UnsafeTarget or TooLarge behind the pages that came."""
        seen = _Seen(artifact_type, self._name)
        reply = await self._ask(repository, digest, artifact_type)
        if reply is None:
            yield seen.page(*await self._by_tag(repository, digest))
            return
        async for found, dropped in self._follow(reply, repository, digest):
            yield seen.page(found, dropped)

    # ── the API ──────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, repository: str, digest: Digest, artifact_type: str) -> Reply | None:
        """The first page; None: the fallback tag has to be asked."""
        if trio.current_time() < self._absent_until:
            return None
        target = referrers_target(repository, digest, artifact_type)
        try:
            reply = await self._get(target, repository, digest, _NO_ANSWER)
        except UnsafeTarget:
            # ghcr.io leads to its web pages where others say 404.
            self._note_absent()
            return None
        if reply.status == 200 and _is_index(reply):
            self._has_api = True
            return reply
        about_something_else = reply.status == 400 or _NOT_ABOUT_THE_API & set(error_codes(reply.body))
        if not about_something_else and not self._has_api:
            self._note_absent()
        return None

    def _note_absent(self) -> None:
        self._absent_until = trio.current_time() + REMEMBERED

    async def _get(self, target: str, repository: str, digest: Digest, but: Iterable[int] = ()) -> Reply:
        return await self._client.request(
            "GET",
            target,
            headers=_HEADERS,
            expect={200, *but},
            limit=MAX_MANIFEST,
            what=f"what refers to {repository}@{digest}",
        )

    async def _follow(
        self, reply: Reply, repository: str, digest: Digest
    ) -> AsyncGenerator[tuple[list[Descriptor], int], None]:
        listing = referrers_target(repository, digest)
        asked: set[str] = set()
        while True:
            found, dropped = await self._entries(reply.body)
            yield found, dropped
            query = next_query(reply.headers.get("link", ""), reply.url, self._client.base)
            if query is None:
                return
            target = f"{listing}?{query}" if query else listing
            if target in asked or len(asked) >= MAX_PAGES:
                raise PagingLoop("the pages of referrers do not end", registry=self._name)
            asked.add(target)
            reply = await self._get(target, repository, digest)

    async def _entries(self, body: bytes) -> tuple[list[Descriptor], int]:
        try:
            return await in_thread_if(len(body) > AT_ONCE, parse_entries, body, MAX_REFERRERS)
        except RegfsError as error:
            error.registry = self._name
            raise

    # ── the fallback tag ─────────────────────────────────────────────────────────────────────────

    async def _by_tag(self, repository: str, digest: Digest) -> tuple[list[Descriptor], int]:
        """What the index under the fallback tag names: what is no index there names nothing, as the spec has it."""
        try:
            held = await self._manifest(repository, fallback_tag(digest))
        except NotFound:
            return [], 0
        try:
            return await in_thread_if(len(held.raw) > AT_ONCE, _of_index, held)
        except BadReply:
            return [], 0


class _Seen:
    """What has come of one list: each manifest once, of the wanted type, and not without end."""

    def __init__(self, artifact_type: str, registry: str) -> None:
        self._type = artifact_type
        self._registry = registry
        self._digests: set[Digest] = set()
        self._dropped = 0
        self._barren = 0

    def page(self, found: Iterable[Descriptor], dropped: int) -> ReferrerPage:
        """What is new of one page. Raises TooLarge, PagingLoop."""
        new: dict[Digest, Descriptor] = {}
        for descriptor in found:
            if descriptor.digest not in self._digests:
                new.setdefault(descriptor.digest, descriptor)
        self._digests.update(new)
        self._dropped += dropped
        self._barren = 0 if new else self._barren + 1
        if len(self._digests) + self._dropped > MAX_REFERRERS:
            raise TooLarge(f"over {MAX_REFERRERS} manifests refer to one", registry=self._registry)
        if self._barren > MAX_BARREN:
            raise PagingLoop("the pages of referrers bring nothing new", registry=self._registry)
        # A registry may not know the filter, or forget it from the second page on.
        return ReferrerPage([d for d in new.values() if self._type in ("", d.artifact_type)], dropped)


def _is_index(reply: Reply) -> bool:
    """Whether a reply is an index at all: a server for people answers 200 with a page to any path."""
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in (OCI_INDEX, "application/json", "application/octet-stream", "")


def _of_index(held: RawManifest) -> tuple[list[Descriptor], int]:
    if held.claimed is not None:
        held.claimed.check(held.raw, "the index of referrers")
    return parse_entries(held.raw, MAX_REFERRERS)
