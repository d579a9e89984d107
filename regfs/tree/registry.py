"""One registry as the tree sees it: what each name is, asked for only when something wants to know."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    AccessDenied,
    CredentialRefused,
    DeletionDisabled,
    NotARegistry,
    NotEmpty,
    NotFound,
    Refused,
    RegfsError,
    SignInEnded,
    Unreachable,
    Unsupported,
)
from regfs.manifest import Descriptor, Manifest
from regfs.ports import (
    Answer,
    Clock,
    ContentStore,
    DeletesTags,
    Deletion,
    Images,
    Source,
)
from regfs.tree.blobs import RegistryBlobs
from regfs.tree.flights import Flights
from regfs.tree.folderlisting import FolderListing, Outcome
from regfs.tree.graves import Tombstone
from regfs.tree.knowledge import Knowledge, Role, join, split
from regfs.tree.leftovers import left_behind
from regfs.tree.referrerlists import ReferrerLists
from regfs.tree.taglists import TagList

CATALOG_PATIENCE = 2.0
"""Seconds for which a folder's listing waits for the catalog; then it is given without nested repositories."""


deletions = logging.getLogger("regfs.deletions")
"""One line for each tag deleted, with the way it was done: logged whatever the verbosity."""


class Registry(Knowledge):
    """Settles names, lists folders, reads manifests and deletes tags of one registry, through its Source."""

    def __init__(
        self,
        name: str,
        source: Source,
        connection: Connection,
        *,
        clock: Clock,
        store: ContentStore,
        blobs: RegistryBlobs,
        ttl: float,
        deadline: float,
        show_fallback_tags: bool = False,
        images: Images | None = None,
        image_owners: bool = False,
    ) -> None:
        super().__init__(
            name,
            source,
            connection,
            clock=clock,
            store=store,
            ttl=ttl,
            deadline=deadline,
            show_fallback_tags=show_fallback_tags,
        )
        self.blobs = blobs
        self.images = images
        self.image_owners = image_owners
        self.image_numbers: dict[tuple[str, Digest], int] = {}
        """Of each image that was looked into, repository and digest: part of its files' inode numbers."""
        self.report: Callable[[str, str], None] = lambda _path, _what: None
        """Tells who mounted about something that lasts: where, and what."""
        self.referrers = ReferrerLists(source, self.contents, self._digest_of, clock, ttl, deadline)
        self.listings = Flights(deadline)
        """Folders being listed for whoever reads them: `regfs.tree.incoming`."""
        self._deletions = Flights(deadline * 4)
        self._disabled: DeletionDisabled | None = None
        self.tags.on_done = self._on_tags
        self._denied: dict[tuple[str, str], AccessDenied] = {}
        """What was said of tags that are being settled, should they prove to be nothing else."""

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch in ``nursery`` from now on."""
        super().start(nursery)
        self.blobs.start(nursery)
        self.listings.start(nursery)
        self.referrers.start(nursery)
        self._deletions.start(nursery)

    def forget(self, prefix: str = "") -> int:
        """Also what refers to manifests there."""
        self.referrers.forget(prefix)
        return super().forget(prefix)

    # ── settling: asking what is still open ──

    async def settle(self, repository: str, name: str) -> Role:
        """What ``repository/name`` is, asking at once what is still open. Raises NotFound, and what a Source raises.

        Where the parent is no known repository, the name is asked for as a repository first: `ls team/app` then
        costs no request that finds out that `app` is no tag of `team`.
        """
        known = self.known(repository, name)
        if isinstance(known, Role):
            return known
        path = join(repository, name)
        if known is Answer.NO:
            return await self._settle_by_hidden(path)
        failure: RegfsError | None = None
        if self._is_rather_a_namespace(repository):
            try:
                if await self._ask_namespace(path) is Answer.YES:
                    return Role.NAMESPACE
            except RegfsError as error:
                failure = error  # it may still be a repository, or a tag
        together = self.repository_answer(repository) is Answer.YES
        role = await self._settle_by_name(repository, name, together=together)
        if role is None and failure is not None and not isinstance(failure, AccessDenied):
            raise failure
        try:
            return role or await self._settle_by_catalog(repository, path)
        except NotFound:
            if (repository, name) in self._denied and await self._lists_as_repository(repository):
                raise self._denied[repository, name].with_traceback(None) from None
            raise
        finally:
            self._denied.pop((repository, name), None)

    def _is_rather_a_namespace(self, parent: str) -> bool:
        """Whether a name in ``parent`` is asked for as a namespace before all else, where namespaces are listed."""
        if not self.catalog.by_namespace or self.repository_answer(parent) is Answer.YES:
            return False
        return not parent or self.namespace_answer(parent) is Answer.YES

    async def _ask_namespace(self, path: str) -> Answer:
        """Raises what a Source raises, but for NotFound."""
        answer = self.namespace_answer(path)
        if answer is not Answer.UNKNOWN:
            return answer
        try:
            answer = self.namespace_answer(path, await self.catalog.look(path))
            if answer is not Answer.YES and self.was_emptied(path):
                # Its first page need not say that it holds more than was emptied here.
                answer = self.namespace_answer(path, await self.catalog.get(path))
        except NotFound:
            return self.namespace_answer(path)
        return answer

    async def _settle_by_name(self, repository: str, name: str, *, together: bool) -> Role | None:
        path = join(repository, name)
        if together:
            return await _first(
                (Role.TAG, lambda: self._ask_tag(repository, name)),
                (Role.REPOSITORY, lambda: self._ask_repository(path)),
            )
        failure: RegfsError | None = None
        try:
            if await self._ask_repository(path) is Answer.YES:
                return Role.REPOSITORY
        except RegfsError as error:
            failure = error  # some registries fail on a name that they do not know: it may still be a tag
        if await self._ask_tag(repository, name) is Answer.YES:
            return Role.TAG
        if failure is not None:
            raise failure
        return None

    async def _settle_by_catalog(self, repository: str, path: str) -> Role:
        try:
            answer = await self._ask_namespace(path)
        except AccessDenied:
            if self.namespace_answer(path) is Answer.YES:
                return Role.NAMESPACE
            if self.namespace_answer(path) is Answer.NO or await self._is_below_a_repository(repository):
                raise self.absent_path(path) from None
            return Role.OPAQUE
        if answer is Answer.YES:
            return Role.NAMESPACE
        return await self._settle_by_hidden(path)

    async def _settle_by_hidden(self, path: str) -> Role:
        """The last word on what seems absent: a tag may have appeared in what was emptied here."""
        await self._ask_hidden(path)
        known = self.known(*split(path))
        if isinstance(known, Role):
            return known
        raise self.absent_path(path)

    async def _is_below_a_repository(self, repository: str) -> bool:
        """Whether ``repository`` or a name that it is nested in is a repository: what is known first, then by asking."""
        parts = repository.split("/") if repository else []
        paths = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
        if any(self.repository_answer(path) is Answer.YES for path in paths):
            return True
        for path in paths:
            if await self._ask_repository(path) is Answer.YES:
                return True
        return False

    async def _ask_tag(self, repository: str, tag: str) -> Answer:
        answer = self.tag_answer(repository, tag)
        if answer is not Answer.UNKNOWN:
            return answer
        try:
            await self.contents.resolve(repository, tag)
        except NotFound:
            return Answer.NO
        except AccessDenied as denied:
            _raise_if_telling(denied)
            self._denied[repository, tag] = denied
            return Answer.UNKNOWN
        self.prove(repository)
        return Answer.YES

    async def _lists_as_repository(self, path: str) -> bool:
        """Whether the registry lists ``path`` as a repository: what it denies of that is not for want of the name."""
        if self.repository_answer(path) is Answer.UNKNOWN and self.catalog.by_namespace:
            with suppress(RegfsError):
                await self.catalog.get(path)
        return self.repository_answer(path) is Answer.YES

    async def _ask_repository(self, path: str) -> Answer:
        answer = self.repository_answer(path)
        if answer is not Answer.UNKNOWN:
            return answer
        try:
            await self.tags.exists(path)
        except NotFound:
            return Answer.NO
        except AccessDenied as denied:
            _raise_if_telling(denied)
            return Answer.UNKNOWN
        if self.graves.is_hidden(path) and not self.living_tags(await self.tags.get(path), path):
            return Answer.NO
        self.prove(path)
        return Answer.YES

    async def _ask_hidden(self, path: str) -> None:
        """Ask whether a tag has appeared in the repositories of ``path`` that were emptied here, or another repository."""
        async with trio.open_nursery() as nursery:
            for namespace in self.unasked_emptied(path):
                nursery.start_soon(Outcome().take_names, self.catalog, namespace, math.inf)
            for repository in self.unasked_hidden(path):
                nursery.start_soon(Outcome().take_tags, self.tags, repository)

    async def _ask_hidden_in_time(self, path: str) -> None:
        """As `_ask_hidden`, and not for long: what is slow to come shows in the next listing."""
        with trio.move_on_after(CATALOG_PATIENCE):
            await self._ask_hidden(path)

    async def is_tag(self, repository: str, name: str) -> bool:
        """Whether ``name`` is a tag, asking if that is not known. Raises what a Source raises, but for NotFound."""
        answer = self.tag_answer(repository, name)
        if answer is Answer.UNKNOWN:
            return await self._ask_tag(repository, name) is Answer.YES
        return answer is Answer.YES

    # ── listings ──

    async def list_folder(self, path: str) -> FolderListing:
        """The tags and nested names of a repository or namespace (empty path: the root).

        Raises NotFound, ListingRefused where nothing may be listed and nothing is known, and what a Source raises.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_hidden_in_time, path)
            outcome = await self._ask_folder(path)
        _raise_if_gone(outcome)
        tags = [] if outcome.tags is None else self.living_tags(outcome.tags, path)
        nested = list(self.visible(path, outcome.names))
        if not tags and not nested and not self.graves.lingers(path):
            self._raise_if_nothing(outcome, path)
        partial = outcome.partial()
        if partial:
            self.partial[path] = partial
        else:
            self.partial.pop(path, None)
        return FolderListing(tags, nested, partial)

    async def _ask_folder(self, path: str) -> Outcome:
        """Ask for the tags and for the names in it, both at once; the names are not waited for long."""
        outcome = Outcome()
        has_tags = bool(path) and self.may_have_tags(path)
        async with trio.open_nursery() as nursery:
            if has_tags:
                nursery.start_soon(outcome.take_tags, self.tags, path)
            nursery.start_soon(outcome.take_names, self.catalog, path, CATALOG_PATIENCE if path else math.inf)
        if outcome.tags is None and outcome.names is None and outcome.names_error is None:
            await outcome.take_names(self.catalog, path, math.inf)
        if not has_tags and outcome.names is not None and path in outcome.names.repositories:
            await outcome.take_tags(self.tags, path)
        return outcome

    def ahead(self, path: str) -> None:
        """Begin to fetch what listing a folder will want."""
        if self.may_have_tags(path):
            self.tags.ahead(path)
        elif self.namespace_answer(path) is Answer.YES:
            self.catalog.ahead(path)

    def _raise_if_nothing(self, outcome: Outcome, path: str) -> None:
        if outcome.tags is not None:
            return
        if outcome.tags_error is not None and not isinstance(outcome.tags_error, NotFound):
            raise outcome.tags_error
        if outcome.names_error is not None and not outcome.is_no_namespace:
            raise outcome.names_error
        if (
            outcome.names is not None
            and outcome.names.root == path
            and self.namespace_answer(path, outcome.names) is Answer.YES
        ):
            return
        if path and (path not in self.namespaces or outcome.is_no_namespace):
            raise self.absent_path(path)

    # ── a tag's contents ──

    async def manifest(self, repository: str, reference: str | Digest) -> Manifest:
        """A manifest by tag or digest, verified. Raises NotFound, and what a Source raises."""
        if not self.fence.holds(repository):
            raise self.absent(repository, str(reference))
        if isinstance(reference, Digest):
            return await self.contents.by_digest(repository, reference)
        self._check_alive(repository, reference)
        manifest = await self.contents.by_tag(repository, reference)
        self.prove(repository)
        return manifest

    async def descriptor(self, repository: str, tag: str) -> Descriptor:
        """Where a tag points, without its manifest where that is metered. Raises NotFound, and what a Source raises."""
        self._check_alive(repository, tag)
        descriptor = await self.contents.resolve(repository, tag)
        self.prove(repository)
        return descriptor

    async def _digest_of(self, repository: str, tag: str) -> Digest:
        """Where a tag leads; by its listing, where that says so. Raises NotFound."""
        listed = self.listed_digest(repository, tag)
        return listed or (await self.descriptor(repository, tag)).digest

    def _check_alive(self, repository: str, tag: str) -> None:
        state = self.contents.state(repository, tag)
        if state is not None and self.graves.is_dead(repository, tag, state.asked):
            self.contents.drop(repository, tag)
        elif self.tag_answer(repository, tag) is Answer.NO:
            raise self.absent(repository, tag)

    # ── deleting ──

    def tombstone(self, repository: str, tag: str) -> Tombstone | None:
        """The tombstone of a tag deleted here a moment ago."""
        return self.graves.tombstone(repository, tag)

    async def delete_tag(
        self, repository: str, tag: str, seen: Digest | None, names: Iterable[str]
    ) -> Deletion:
        """Delete that tag only; ``names`` stay to be found in its folder for a while. Raises what `DeletesTags` raises."""
        deleter = self.source.capability(DeletesTags, repository)
        if deleter is None:
            raise Unsupported("this kind of registry cannot delete a single tag", registry=self.source.name)
        if deleter.can_delete() is Answer.NO:
            raise self._refusal()
        kept = tuple(names)

        async def delete() -> Deletion:
            try:
                deletion = await deleter.delete_tag(repository, tag, seen)
            except DeletionDisabled as error:
                self._disabled = error
                raise
            deletions.info(
                "deleted %s/%s:%s (was %s) by %s", self.source.name, repository, tag, seen, deletion.way
            )
            self.graves.bury(repository, tag, kept)
            self.contents.drop(repository, tag)
            self._hide_if_empty(repository)
            return deletion

        # A deletion of several steps goes to its end although the user's call has run out of time.
        return await self._deletions.share((repository, tag), delete)

    def _refusal(self) -> Refused:
        """Why nothing is asked: with the switch's name, where the registry told it a moment ago."""
        if self._disabled is None:
            return Refused("this registry does not delete single tags", registry=self.source.name)
        return DeletionDisabled(
            "nothing is deleted: a moment ago the registry had its deletion switched off",
            setting=self._disabled.setting,
            registry=self.source.name,
            words=self._disabled.words,
        )

    async def remove_folder(self, path: str) -> None:
        """rmdir of a repository or namespace: only an empty one goes, and nothing is deleted by it. Raises NotEmpty."""
        if not self.graves.lingers(path) or not self._is_surely_empty(path):
            await self._check_empty(path)
        self._tell_left(path)
        self.graves.remove_folder(path)

    def _is_surely_empty(self, path: str) -> bool:
        """Of what was emptied here: whether it is known, and not of old, that nothing has come to it since."""
        if self.graves.is_hidden(path):
            return self.tags.fresh(path) is not None
        return self.namespace_answer(path) is Answer.NO

    async def _check_empty(self, path: str) -> None:
        listing = await self.list_folder(path)
        if listing.tags or listing.nested:
            raise NotEmpty(f"{path} still holds {', '.join((listing.tags + listing.nested)[:3])}")
        if self.graves.is_hidden(path) or self.repository_answer(path) is Answer.YES:
            self.graves.hide(path, self.tags.last(path))
        elif self.catalog.by_namespace and self.namespace_answer(path) is Answer.YES:
            raise Refused(f"{path} is a namespace of the registry's own", registry=self.source.name)

    def _on_tags(self, repository: str, tags: TagList) -> None:
        """A listing has come; where it was asked for only after the last tag had been deleted, it is what tells so."""
        if self.graves.has_emptied(repository, tags) and not self.graves.is_hidden(repository):
            self._hide(repository, tags)
        self.graves.settle(repository, tags)

    def _hide_if_empty(self, repository: str) -> None:
        listed = self.tags.fresh(repository)
        if listed is not None and not self.living_tags(listed, repository):
            self._hide(repository, listed)

    def _hide(self, repository: str, tags: TagList) -> None:
        self.graves.hide(repository, tags)
        folders = [repository]
        parent = repository.rpartition("/")[0]
        while parent and not self.lives(parent):
            folders.append(parent)
            parent = parent.rpartition("/")[0]
        self.graves.linger(folders)
        self._tell_left(repository)

    def _tell_left(self, path: str) -> None:
        """Say what an emptied repository still holds: nobody sees it here any more."""
        left = self.graves.left_in(path)
        if left:
            self.report(path, left_behind(self.source.name, path, left))


def _raise_if_gone(outcome: Outcome) -> None:
    """Raise where no registry is there to list anything: names that were walked to would pass for all there is."""
    if outcome.tags is None and isinstance(outcome.names_error, Unreachable | NotARegistry):
        raise outcome.names_error


def _raise_if_telling(denied: AccessDenied) -> None:
    """Raise a denial that says nothing about names: many registries deny what they do not hold, but not so these."""
    if isinstance(denied, CredentialRefused | SignInEnded):
        raise denied


async def _first(*asks: tuple[Role, Callable[[], Awaitable[Answer]]]) -> Role | None:
    """Ask together; the first YES wins and the others are not waited for. Raises an error only if nothing says YES."""
    found: list[Role] = []
    errors: list[RegfsError] = []

    async def ask(role: Role, question: Callable[[], Awaitable[Answer]]) -> None:
        try:
            if await question() is Answer.YES:
                found.append(role)
                nursery.cancel_scope.cancel()
        except RegfsError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for role, question in asks:
            nursery.start_soon(ask, role, question)
    if not found and errors:
        raise errors[0]
    return found[0] if found else None
