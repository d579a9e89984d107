"""The Source of a plain V2 registry: OCI distribution-spec 1.1, with the Docker Registry HTTP API V2's catalog."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, Literal, TypeVar, cast

from regfs.digest import Digest
from regfs.errors import (
    AccessDenied,
    BadReply,
    DigestMismatch,
    ListingRefused,
    NotFound,
    RegfsError,
    Unsupported,
)
from regfs.manifest import MAX_MANIFEST, Descriptor, parse_manifest
from regfs.ports import (
    Answer,
    Counts,
    DeletesTags,
    HonoursRanges,
    ListsReferrers,
    ListsRepositories,
    RawManifest,
    Recovers,
    ReferrerPage,
    ResolvesTags,
    TagPage,
)
from regfs.reference import TagOrDigest
from regfs.registry.bodies import Stream
from regfs.registry.client import Client
from regfs.registry.deleter import Deleter, DeletesDigests
from regfs.registry.journal import Journal
from regfs.registry.paging import MAX_LISTING, Pages, parse_names
from regfs.registry.referrers import Referrers
from regfs.registry.replies import Reply, error_codes, error_for
from regfs.registry.requests import (
    CATALOG,
    MANIFEST_HEADERS,
    Span,
    blob_target,
    manifest_target,
    tags_target,
)
from regfs.registry.tag_deletion import TagDeletion
from regfs.registry.threads import AT_ONCE, in_thread_if

C = TypeVar("C")

_NO_SUCH_REPOSITORY: Final = frozenset({"NAME_UNKNOWN", "NAME_INVALID"})
_NO_SUCH_PAGE: Final = frozenset({400, 404, 405, 416})
_NO_HEAD: Final = frozenset({400, 405, 406, 501})


class V2Source:
    """One V2 registry. ``name`` is what stands before the repository in a reference.

    ``tag_delete`` "native" forbids deleting a tag by a throw-away; ``digests`` is another call by which the registry
    deletes digests. Providers of registries that differ in a few calls derive from it.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        journal: Journal,
        *,
        tag_delete: Literal["auto", "native"] = "auto",
        digests: DeletesDigests | None = None,
    ) -> None:
        self._name = name
        self._client = client
        self._ranges = Answer.UNKNOWN
        self._referrers = Referrers(name, client, lambda repository, tag: self.manifest(repository, tag))
        native_only = tag_delete == "native"
        self._deleter = Deleter(name, client, self, journal, native_only=native_only, digests=digests)

    @property
    def name(self) -> str:
        """See `regfs.ports.Source.name`."""
        return self._name

    @property
    def client(self) -> Client:
        """What it speaks through."""
        return self._client

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """Lists repositories and referrers, resolves, deletes and recovers tags, counts; see `regfs.ports.Source`."""
        if self._client.read_only and kind in (DeletesTags, Recovers):
            return None
        if kind is DeletesTags:
            return cast("C", TagDeletion(self._deleter, repository))
        if kind in (ListsRepositories, ListsReferrers, ResolvesTags, HonoursRanges, Recovers, Counts):
            return cast("C", self)
        return None

    async def check(self) -> None:
        """Ask ``GET /v2/``. Raises NotSignedIn for a 401 that is left, NotARegistry where something else answers."""
        await self._client.check()

    def counters(self) -> Mapping[str, int]:
        """The client's counters since the start."""
        return self._client.counters()

    def honours_ranges(self) -> Answer:
        """Whether the last part of a blob that was asked for came by itself (206), or the whole with it (200)."""
        return self._ranges

    async def recover(self) -> Sequence[str]:
        """Finish or undo deletions that an earlier daemon left. Sends nothing where there are none."""
        return await self._deleter.recover()

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    # ── listings ─────────────────────────────────────────────────────────────────────────────────

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """The tags of a repository, each name once, page by page.

        Raises NotFound, and PagingLoop or UnsafeTarget where the pages lead nowhere, after the names that came.
        """
        pages = self._pages(tags_target(repository), "tags", f"the tags of {repository}")
        async with aclosing(pages):
            async for names in pages:
                yield TagPage(names)

    async def repositories(self) -> AsyncIterator[Sequence[str]]:
        """All repositories that the registry's catalog shows this caller, each once. Raises ListingRefused, as tags."""
        pages = self._pages(CATALOG, "repositories", "the catalog")
        async with aclosing(pages):
            try:
                async for names in pages:
                    yield names
            except (AccessDenied, NotFound, Unsupported) as error:
                raise ListingRefused(
                    f"{self._name} does not say which repositories it holds: {error.message}",
                    registry=self._name,
                    words=error.words,
                ) from error

    async def _pages(self, listing: str, key: str, what: str) -> AsyncGenerator[list[str], None]:
        """The names of a listing, page by page, a page as soon as it is there; the last ones may be empty."""
        pages = Pages(listing)
        while (target := pages.follow()) is not None:
            reply = await self._page(target, pages.guessed, what)
            if reply is None:
                return
            if reply.status != 200:
                smaller = pages.without_size()
                if smaller is None or _NO_SUCH_REPOSITORY & set(error_codes(reply.body)):
                    raise self._refused_page(reply, what)
                pages = smaller
                continue
            yield await in_thread_if(
                len(reply.body) > AT_ONCE, _take, pages, reply, key, self._client.base, self._name
            )

    async def _page(self, target: str, guessed: bool, what: str) -> Reply | None:
        """One page, or the 400 to one; None where a page that no link led to is not there."""
        expect = {200} | (_NO_SUCH_PAGE if guessed else {400})
        reply = await self._client.request("GET", target, expect=expect, limit=MAX_LISTING, what=what)
        return None if guessed and reply.status != 200 else reply

    def _refused_page(self, reply: Reply, what: str) -> RegfsError:
        error = error_for(reply, self._name, what)
        if _NO_SUCH_REPOSITORY & set(error_codes(reply.body)):
            return NotFound(f"{self._name} does not have it: {what}", registry=self._name, words=error.words)
        return error

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        """What refers to a manifest: by the Referrers API, else by the fallback tag. Raises as `tags`, TooLarge."""
        async with aclosing(self._referrers.pages(repository, digest, artifact_type)) as pages:
            async for page in pages:
                yield page

    # ── manifests ────────────────────────────────────────────────────────────────────────────────

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """A manifest's bytes, at most 4 MiB, with the digest that the registry gives for them."""
        reply = await self._client.request(
            "GET",
            manifest_target(repository, reference),
            headers=MANIFEST_HEADERS,
            limit=MAX_MANIFEST,
            what=_shown(repository, reference),
            abroad=isinstance(reference, Digest),
        )
        return RawManifest(reply.body, _media_type(reply.headers), _claimed(reply.headers))

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """Where a tag leads, by HEAD; by GET where the registry refuses HEAD or leaves something out of its answer."""
        return await self._resolve(repository, tag)

    async def digest_of(self, repository: str, reference: TagOrDigest) -> Digest:
        """The digest that a tag leads to, or a digest itself where the registry has it. Raises NotFound."""
        return (await self._resolve(repository, reference)).digest

    async def _resolve(self, repository: str, reference: TagOrDigest) -> Descriptor:
        reply = await self._client.request(
            "HEAD",
            manifest_target(repository, reference),
            headers=MANIFEST_HEADERS,
            expect={200} | _NO_HEAD,
            what=_shown(repository, reference),
        )
        digest, length = _claimed(reply.headers), reply.headers.get("content-length", "")
        kind = _media_type(reply.headers)
        if (
            reply.status == 200
            and digest is not None
            and length.isdecimal()
            and kind.startswith("application/vnd.")
        ):
            return Descriptor(kind, digest, int(length[:18]))
        found = await self.manifest(repository, reference)
        return await in_thread_if(len(found.raw) > AT_ONCE, _describe, found)

    # ── blobs ────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes ``start`` to ``end`` of a blob as they arrive, unverified: exactly as many as that, or an error.

        ``descriptor.size`` holds: bytes beyond it are never given, and a blob that is longer or shorter ends in
        DigestMismatch. An empty span asks the registry nothing. Raises NotFound on entering.
        """
        target = blob_target(repository, descriptor.digest)
        span = Span.clamped(start, end, descriptor.size)
        if span.is_empty:
            yield _nothing()
            return
        expect = {200} if span.is_whole else {200, 206}
        what = f"{repository}@{descriptor.digest}"
        async with (
            self._client.stream(target, headers=span.headers, expect=expect, what=what) as stream,
            aclosing(_exactly(stream, span, what)) as pieces,
        ):
            if not span.is_whole:
                self._ranges = Answer.YES if stream.status == 206 else Answer.NO
            yield pieces


def _take(pages: Pages, reply: Reply, key: str, base: str, registry: str) -> list[str]:
    try:
        names = parse_names(reply.body, key)
    except BadReply as error:
        error.registry = registry
        raise
    return pages.take(names, reply.headers.get("link", ""), reply.url, base)


def _shown(repository: str, reference: TagOrDigest) -> str:
    return f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _claimed(headers: Mapping[str, str]) -> Digest | None:
    try:
        return Digest.parse(headers.get("docker-content-digest", "").strip())
    except (ValueError, Unsupported):
        return None


def _describe(found: RawManifest) -> Descriptor:
    digest = found.claimed or Digest.of(found.raw)
    digest.check(found.raw, "the manifest")
    try:
        kind = parse_manifest(found.raw, found.media_type, digest).media_type
    except RegfsError:
        kind = found.media_type  # it resolves all the same; whoever reads it is told
    return Descriptor(kind, digest, len(found.raw))


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


def _skipped(stream: Stream, span: Span, what: str) -> int:
    """How many bytes come before the span: a registry may answer a Range with the whole blob."""
    if stream.status == 206:
        span.check_partial(stream.headers.get("content-range", ""))
        return 0
    length = stream.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) != span.size:
        raise DigestMismatch(f"{what} is {length[:18]} bytes by the registry, {span.size} by its descriptor")
    return span.start


async def _exactly(stream: Stream, span: Span, what: str) -> AsyncGenerator[bytes, None]:
    """The span's bytes. Whether a reply ends where it should is seen only behind its last byte."""
    skip, left = _skipped(stream, span, what), span.end - span.start
    goes_on = stream.status == 200 and span.end < span.size
    async for piece in stream:
        kept = piece[skip : skip + left]
        beyond = len(piece) - skip - left
        skip = max(0, skip - len(piece))
        left -= len(kept)
        if kept:
            yield kept
        if left == 0 and goes_on:
            return
        if beyond > 0:
            raise DigestMismatch(
                f"{what}: the registry sends more than the {span.end - span.start} bytes it holds"
            )
    if left:
        raise DigestMismatch(f"{what} ends {left} bytes before its descriptor says")
