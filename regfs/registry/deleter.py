"""Deleting tags: the I/O that the decisions of `regfs.registry.deletion` ask for, one step after the other."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Final, Protocol, TypeVar, cast

import trio

from regfs.digest import Digest
from regfs.errors import DeadlineExceeded, DeletionDisabled, NotFound, RegfsError
from regfs.manifest import parse_manifest
from regfs.ports import Answer, Deletion, RawManifest, TagPage
from regfs.reference import TagOrDigest, is_tag
from regfs.registry.client import Client
from regfs.registry.deletion import delete_tag, likely_siblings, recover
from regfs.registry.journal import Entry, Journal
from regfs.registry.replies import Reply
from regfs.registry.requests import manifest_target
from regfs.registry.steps import (
    DeleteManifest,
    Erase,
    Fetch,
    FindSiblings,
    Flow,
    Learn,
    ListTags,
    PutManifest,
    Record,
    Resolve,
    Saved,
    Siblings,
    Standing,
    Step,
    Wish,
)
from regfs.registry.threads import AT_ONCE, in_thread_if

T = TypeVar("T")

SHIELDED: Final = 25.0
"""Seconds that a deletion, once it has sent something, may go on after its caller has given up."""

NO_FOR: Final = 60.0
"""Seconds for which a registry's no is remembered: its switch may be set meanwhile."""

RECOVER_AFTER: Final = 30.0
"""Seconds until the next deletion tries to settle one that was left half done."""

AT_A_TIME: Final = 16
"""Tags whose digests are asked for together, to find siblings."""

LISTED_FOR: Final = 5.0
"""Seconds that the search for siblings may list tags."""

_TAKES_SIBLINGS: Final = "tag-deletion-takes-siblings"
_ANSWERED: Final = frozenset(range(200, 300)) | frozenset(range(400, 500)) - {401, 403, 408, 429}

logger = logging.getLogger(__name__)


class Reads(Protocol):
    """What a deletion asks of the Source that it is for."""

    def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """See `regfs.ports.Source.tags`."""
        ...

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """See `regfs.ports.Source.manifest`."""
        ...

    async def digest_of(self, repository: str, reference: TagOrDigest) -> Digest:
        """Where a reference leads. Raises NotFound."""
        ...


class DeletesDigests(Protocol):
    """How digests are deleted where the registry's own ``DELETE manifests/…`` is not the way. Raises what keeps it from that."""

    async def probe(self, repository: str, tag: str) -> None:
        """Look, before anything is written, whether a throw-away on ``tag`` could be deleted. Changes nothing."""
        ...

    async def delete(self, repository: str, digest: Digest, tag: str) -> None:
        """Delete a digest that has no tag but ``tag``. An absent one is no failure: it may be the second try."""
        ...


class Deleter:
    """Deletes tags of one registry, and knows what was learnt on the way.

    ``digests``: the registry's ``DELETE manifests/…`` is of no use, neither for tags nor for digests; this is.
    """

    def __init__(
        self,
        registry: str,
        client: Client,
        source: Reads,
        journal: Journal,
        *,
        native_only: bool = False,
        digests: DeletesDigests | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._client = client
        self._source = source
        self._journal = journal
        self._native_only = native_only
        self._digests = digests
        self._monotonic = monotonic
        self._standing: Standing | None = None if digests is None else Standing.NEVER
        self._proving = trio.Lock()
        self._recovering = trio.Lock()
        self._recover_at = float("inf")
        self._worked: set[str] = set()
        self._no_until = float("-inf")

    def can_delete(self, repository: str | None) -> Answer:
        """YES once it worked in that repository, NO for a minute after the registry said so, else UNKNOWN."""
        if self._monotonic() < self._no_until:
            return Answer.NO
        return Answer.YES if repository in self._worked else Answer.UNKNOWN

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """Delete one tag, as `regfs.ports.DeletesTags` says."""
        manifest_target(repository, tag)
        await self._settle_earlier()
        async with AsyncExitStack() as stack:
            if await self._stand() is Standing.UNKNOWN:
                # One at a time until it is known what a deletion takes along: the next ones profit from the first.
                await stack.enter_async_context(self._proving)
            wish = Wish(
                registry=self._registry,
                repository=repository,
                tag=tag,
                seen=seen,
                made_up=Digest.of(secrets.token_bytes(32)),
                mark=secrets.token_hex(16),
                standing=await self._stand(),
                native_only=self._native_only,
            )
            try:
                deletion = await self._drive(delete_tag(wish))
            except DeletionDisabled:
                self._no_until = self._monotonic() + NO_FOR
                raise
        self._worked.add(repository)
        self._no_until = float("-inf")
        return deletion

    async def recover(self) -> Sequence[str]:
        """Finish or undo what the journal holds of this registry, as `regfs.ports.Recovers` says.

        Raises the first failure once every entry was tried; what was done by then is in the log, and not repeated.
        """
        async with self._recovering:
            self._recover_at = float("inf")
            entries, lines = await trio.to_thread.run_sync(self._journal.hold_leftovers, self._registry)
            failure: RegfsError | None = None
            try:
                while entries:
                    entry = entries.pop(0)
                    try:
                        lines.append(await self._drive(recover(entry), entry))
                    except RegfsError as error:
                        failure = failure or error
            finally:
                for entry in entries:
                    self._leave(entry)
        if failure is None:
            return lines
        for line in lines:
            logger.warning("%s", line)
        raise failure

    async def _settle_earlier(self) -> None:
        """A deletion of this very process may have been left half done. Another one does not fail because of that."""
        if self._monotonic() < self._recover_at:
            return
        try:
            for line in await self.recover():
                logger.warning("%s", line)
        except RegfsError as error:
            logger.warning("a broken-off deletion is still not settled: %s", error)

    # ── driving ──────────────────────────────────────────────────────────────────────────────────

    async def _drive(self, flow: Flow[T], held: Entry | None = None) -> T:
        """Do a flow's steps. However it ends, an entry that was not erased is left to recovery."""
        answer: object = None
        error: RegfsError | None = None
        try:
            with trio.CancelScope() as scope:
                while True:
                    try:
                        step = flow.send(answer) if error is None else flow.throw(error)
                    except StopIteration as end:
                        return cast("T", end.value)
                    if isinstance(step, Record):
                        held = step.entry
                    if isinstance(step, DeleteManifest | PutManifest) and not scope.shield:
                        # From here on a caller's giving up would leave the tag in between.
                        await trio.lowlevel.checkpoint_if_cancelled()
                        scope.shield, scope.deadline = True, trio.current_time() + SHIELDED
                    answer, error = await self._outcome(step)
                    if isinstance(step, Erase):
                        held = None
        finally:
            flow.close()
            if held is not None:
                self._leave(held)
        raise DeadlineExceeded(
            f"the deletion did not end within {SHIELDED:g} seconds", registry=self._registry
        )

    def _leave(self, entry: Entry) -> None:
        self._journal.release(entry)
        self._recover_at = self._monotonic() + RECOVER_AFTER

    async def _outcome(self, step: Step) -> tuple[object, RegfsError | None]:
        try:
            return await self._perform(step), None
        except RegfsError as error:
            return None, error

    async def _perform(self, step: Step) -> object:
        match step:
            case Resolve():
                return await self._digest(step.repository, step.reference)
            case Fetch():
                return await self._fetch(step)
            case FindSiblings():
                return await self._siblings(step)
            case ListTags():
                return await self._tags(step.repository)
            case DeleteManifest():
                return await self._delete(step)
            case PutManifest():
                return await self._put(step)
            case Record():
                await trio.to_thread.run_sync(self._journal.record, step.entry)
            case Erase():
                await trio.to_thread.run_sync(self._journal.erase, step.entry)
            case Learn():
                await self._learn(step.standing)
        return None

    async def _digest(self, repository: str, reference: TagOrDigest) -> Digest | None:
        try:
            return await self._source.digest_of(repository, reference)
        except NotFound:
            return None

    async def _fetch(self, step: Fetch) -> Saved:
        found = await self._source.manifest(step.repository, step.tag)
        return await in_thread_if(len(found.raw) > AT_ONCE, _saved, found)

    async def _delete(self, step: DeleteManifest) -> Reply:
        by_digest = isinstance(step.reference, Digest)
        if self._digests is not None and isinstance(step.reference, Digest):
            if step.probe:
                await self._digests.probe(step.repository, step.tag)
            else:
                await self._digests.delete(step.repository, step.reference, step.tag)
            return Reply(404 if step.probe else 202, {}, b"", "")
        return await self._client.request(
            "DELETE",
            manifest_target(step.repository, step.reference),
            expect=_ANSWERED,
            what=f"deleting {step.repository}{'@' if by_digest else ':'}{step.reference}",
            # Only we know this digest, so a second DELETE cannot hit what somebody pushed after the first.
            idempotent=by_digest,
        )

    async def _put(self, step: PutManifest) -> Reply:
        return await self._client.request(
            "PUT",
            manifest_target(step.repository, step.tag),
            headers={"Content-Type": step.media_type},
            content=step.raw,
            expect=_ANSWERED,
            what=f"putting a manifest to {step.repository}:{step.tag}",
            idempotent=step.insist,
        )

    async def _siblings(self, step: FindSiblings) -> Siblings:
        """Look at the tags most likely to lead to the same digest, and on for as long as that finds some."""
        names = await self._tags_in_time(step.repository)
        likely = await in_thread_if(len(names) > 1000, likely_siblings, step.tag, names)
        known: list[str] = []
        for chunk in (likely[at : at + AT_A_TIME] for at in range(0, len(likely), AT_A_TIME)):
            found = await self._leading_to(step, chunk)
            known += found
            if not found:
                break
        return Siblings(tuple(sorted(known)), names - {step.tag, *known})

    async def _leading_to(self, step: FindSiblings, names: Sequence[str]) -> Sequence[str]:
        found: list[str] = []

        async def look(name: str) -> None:
            with suppress(RegfsError):
                if await self._source.digest_of(step.repository, name) == step.digest:
                    found.append(name)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(look, name)
        return found

    async def _tags_in_time(self, repository: str) -> frozenset[str]:
        """The tags as far as they are listed in a few seconds; none where they are not."""
        names: set[str] = set()
        with trio.move_on_after(LISTED_FOR), suppress(RegfsError):
            await self._gather_tags(repository, names)
        return frozenset(names)

    async def _tags(self, repository: str) -> frozenset[str]:
        names: set[str] = set()
        await self._gather_tags(repository, names)
        return frozenset(names)

    async def _gather_tags(self, repository: str, names: set[str]) -> None:
        async with aclosing(cast("AsyncGenerator[TagPage, None]", self._source.tags(repository))) as pages:
            async for page in pages:
                names |= await in_thread_if(len(page.names) > 1000, _grammatical, page.names)

    # ── what is known ────────────────────────────────────────────────────────────────────────────

    async def _stand(self) -> Standing:
        if self._standing is None:
            marked = await trio.to_thread.run_sync(self._journal.is_marked, _TAKES_SIBLINGS, self._registry)
            self._standing = self._standing or (Standing.TAKES_SIBLINGS if marked else Standing.UNKNOWN)
        return self._standing

    async def _learn(self, standing: Standing) -> None:
        self._standing = standing
        if standing is not Standing.TAKES_SIBLINGS:
            return
        logger.warning(
            "%s: the registry's deletion of a tag takes other tags too; it is not used there again",
            self._registry,
        )
        try:
            await trio.to_thread.run_sync(self._journal.mark, _TAKES_SIBLINGS, self._registry)
        except RegfsError as error:
            logger.warning("this is known only until the next start: %s", error)


def _grammatical(names: Sequence[str]) -> set[str]:
    return {name for name in names if is_tag(name)}


def _saved(found: RawManifest) -> Saved:
    """A manifest that can be put back: the bytes are what the registry says, and their type is known."""
    digest = found.claimed or Digest.of(found.raw)
    digest.check(found.raw, "the manifest")
    return Saved(found.raw, parse_manifest(found.raw, found.media_type, digest).media_type, digest)
