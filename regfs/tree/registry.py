"""One registry as the tree sees it: what each name is, asked for only when something wants to know."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from enum import Enum

import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    AccessDenied,
    DeletionDisabled,
    NotEmpty,
    NotFound,
    Refused,
    RegfsError,
    Unsupported,
)
from regfs.fence import Fence
from regfs.manifest import Manifest
from regfs.ports import Answer, Clock, ContentStore, DeletesRepositories, DeletesTags, Deletion, Source
from regfs.reference import is_repository, is_tag
from regfs.tree.catalog import Catalog, Names
from regfs.tree.contents import Contents
from regfs.tree.flights import Flights
from regfs.tree.folderlisting import FolderListing, Outcome
from regfs.tree.graves import Graves, Tombstone
from regfs.tree.taglists import TagList, TagLists
from regfs.tree.times import Times

CATALOG_PATIENCE = 2.0
"""Seconds for which a folder's listing waits for the catalog; then it is given without nested repositories."""

ASK_HIDDEN = 32
"""How many emptied repositories are asked at once whether a tag has appeared in them."""


deletions = logging.getLogger("regfs.deletions")
"""One line for each tag deleted, with the way it was done: logged whatever the verbosity."""


class Role(Enum):
    """What a name in a registry is."""

    TAG = "tag"
    REPOSITORY = "repository"
    NAMESPACE = "namespace"
    OPAQUE = "opaque"
    """It can't be disproved: the catalog is refused, and names below it may exist."""


class Registry:
    """Settles names, lists folders, reads manifests and deletes tags of one registry, through its Source."""

    def __init__(
        self,
        name: str,
        source: Source,
        connection: Connection,
        *,
        clock: Clock,
        store: ContentStore,
        ttl: float,
        deadline: float,
    ) -> None:
        self.name = name
        self.source = source
        self.connection = connection
        self.born = int(clock.time() * 1e9)
        self.fence = Fence(connection.only)
        self.graves = Graves(clock)
        self.tags = TagLists(source, clock, ttl, deadline)
        self.catalog = Catalog(source, clock, ttl, deadline)
        self.contents = Contents(source, store, clock, ttl, deadline)
        self.times = Times(self.tags, self.contents, self.born)
        self.partial: dict[str, str] = {}
        self._clock = clock
        self._ttl = ttl
        self._deadline = deadline
        self._deletions = Flights(deadline * 4)
        self._disabled: DeletionDisabled | None = None
        self.tags.on_done = self.graves.settle
        self.tags.on_absent = self._on_absent
        self._namespaces = frozenset(namespace.strip("/") for namespace in connection.namespaces)
        for namespace in self._namespaces:
            self.catalog.proven.add_folder(namespace)

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch in ``nursery`` from now on."""
        self._deletions.start(nursery)
        self.tags.start(nursery)
        self.catalog.start(nursery)
        self.contents.start(nursery)

    def forget(self, prefix: str = "") -> int:
        """Forget every listing and every tag's digest of ``prefix`` and below; how many there were."""
        return self.tags.forget(prefix) + self.catalog.forget() + self.contents.forget(prefix)

    # ── what a name is, as far as is known without asking ──

    def tag_answer(self, repository: str, tag: str) -> Answer:
        """Whether ``tag`` is a tag of ``repository``."""
        if not repository or not is_tag(tag) or not self.fence.holds(repository):
            return Answer.NO
        state = self.contents.state(repository, tag)
        if state is not None and not self.graves.is_dead(repository, tag, state.asked):
            return Answer.YES
        listed = self.tags.fresh(repository)
        if listed is not None:
            return Answer.YES if self._is_listed(repository, tag, listed) else Answer.NO
        if self.contents.is_absent(repository, tag):
            return Answer.NO
        return Answer.NO if self.repository_answer(repository) is Answer.NO else Answer.UNKNOWN

    def _is_listed(self, repository: str, tag: str, listed: TagList) -> bool:
        return tag in listed.names and not self.graves.is_dead(repository, tag, listed.age.started)

    def repository_answer(self, path: str) -> Answer:
        """Whether ``path`` is a repository (one that is hidden is none)."""
        if not is_repository(path) or not self.fence.holds(path):
            return Answer.NO
        listed = self.tags.fresh(path)
        if self.graves.is_hidden(path):
            return Answer.NO if listed is not None else Answer.UNKNOWN
        if listed is not None:
            return Answer.YES
        catalog = self.catalog.fresh()
        if catalog is not None:
            return Answer.YES if path in catalog.repositories else Answer.NO
        return Answer.NO if self.tags.is_absent(path) else Answer.UNKNOWN

    def namespace_answer(self, path: str) -> Answer:
        """Whether ``path`` is the beginning of a repository's name."""
        if not is_repository(path) or not self.fence.leads_to(path):
            return Answer.NO
        if path in self._namespaces:
            return Answer.YES
        catalog = self.catalog.fresh()
        if any(True for _ in self._visible(catalog or self.catalog.proven, path)):
            return Answer.YES
        return Answer.UNKNOWN if catalog is None else Answer.NO

    def known(self, repository: str, name: str) -> Role | Answer:
        """What ``repository/name`` is: a Role, or NO (there is no such name), or UNKNOWN."""
        path = _join(repository, name)
        if self.graves.tombstone(repository, name) is not None:
            return Role.TAG
        tag = self.tag_answer(repository, name)
        if tag is Answer.YES:
            return Role.TAG
        if self.repository_answer(path) is Answer.YES or self.graves.lingers(path):
            return Role.REPOSITORY
        namespace = self.namespace_answer(path)
        if namespace is Answer.YES:
            return Role.NAMESPACE
        answers = (tag, self.repository_answer(path), namespace)
        if any(answer is not Answer.NO for answer in answers) or self._unasked_hidden(path):
            return Answer.UNKNOWN
        return Answer.NO

    def entry_left(self, repository: str, name: str) -> float:
        """For how many seconds what a name is known to be holds; 0: nothing is known of it."""
        if self.graves.tombstone(repository, name) is not None:
            return 0.0
        if self.tag_answer(repository, name) is not Answer.YES:
            return self.folder_left(_join(repository, name))
        listed = self.tags.fresh(repository)
        listing_left = 0.0
        if listed is not None and self._is_listed(repository, name, listed):
            listing_left = self.listing_left(repository)
        return max(self.manifest_left(repository, name), listing_left)

    def manifest_left(self, repository: str, tag: str) -> float:
        """For how many seconds more a tag may be shown to lead where it leads; 0: that is not known."""
        state = self.contents.state(repository, tag)
        if state is None or self.graves.is_dead(repository, tag, state.asked):
            return 0.0
        return self.contents.left(state)

    def folder_left(self, path: str) -> float:
        """For how many seconds more a repository or namespace may be shown as there; 0: that is not known."""
        if self.graves.lingers(path):
            return 0.0
        left = [0.0 if self.graves.is_hidden(path) else self.listing_left(path)]
        catalog, age = self.catalog.fresh(), self.catalog.age
        if (
            catalog is not None
            and age is not None
            and (path in catalog.repositories or catalog.leads_on(path))
        ):
            left.append(age.left(self._clock.monotonic(), self._ttl))
        return max(left)

    def listing_left(self, repository: str) -> float:
        """For how many seconds more a repository's listing may be shown; 0: there is none."""
        listed = self.tags.fresh(repository)
        return 0.0 if listed is None else listed.age.left(self._clock.monotonic(), self._ttl)

    def time_of_all(self, repository: str) -> int | None:
        """The time of every tag of a listing, where nothing but its names is known and all came with the first one."""
        listed = self.tags.fresh(repository)
        if (
            listed is None
            or listed.facts
            or self.graves.has_deleted(repository)
            or self.contents.has_seen_tags
        ):
            return None
        return self.tags.first_seen_all(repository)

    def listed_times(self, repository: str) -> Callable[[str], int | None]:
        """A function that gives the time of a tag of which nothing but its name is known, and None of another."""
        listed = self.tags.fresh(repository)
        if listed is None or listed.facts or self.graves.has_deleted(repository):
            return lambda _tag: None
        seen, first_seen = self.contents.was_seen, self.tags.first_seen
        return lambda tag: None if seen(repository, tag) else first_seen(repository, tag)

    # ── settling: asking what is still open ──

    async def settle(self, repository: str, name: str) -> Role:
        """What ``repository/name`` is, asking at once what is still open. Raises NotFound, and what a Source raises.

        Where the parent is no known repository, the name is asked for as a repository first: `ls team/app` then
        costs no request that finds out that `app` is no tag of `team`.
        """
        known = self.known(repository, name)
        if isinstance(known, Role):
            return known
        path = _join(repository, name)
        if known is Answer.NO:
            return await self._settle_by_hidden(path)
        together = self.repository_answer(repository) is Answer.YES
        role = await self._settle_by_name(repository, name, together=together)
        return role or await self._settle_by_catalog(repository, path)

    async def _settle_by_name(self, repository: str, name: str, *, together: bool) -> Role | None:
        path = _join(repository, name)
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
            await self.catalog.get()
        except AccessDenied:
            if self.namespace_answer(path) is Answer.YES:
                return Role.NAMESPACE
            if self.namespace_answer(path) is Answer.NO or await self._is_below_a_repository(repository):
                raise self._absent_path(path) from None
            return Role.OPAQUE
        if self.namespace_answer(path) is Answer.YES:
            return Role.NAMESPACE
        return await self._settle_by_hidden(path)

    async def _settle_by_hidden(self, path: str) -> Role:
        """The last word on what seems absent: a tag may have appeared in what was emptied here."""
        await self._ask_hidden(path)
        known = self.known(*_split(path))
        if isinstance(known, Role):
            return known
        raise self._absent_path(path)

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
        except AccessDenied:
            return Answer.UNKNOWN
        self._prove(repository)
        return Answer.YES

    async def _ask_repository(self, path: str) -> Answer:
        answer = self.repository_answer(path)
        if answer is not Answer.UNKNOWN:
            return answer
        try:
            await self.tags.exists(path)
        except NotFound:
            return Answer.NO
        except AccessDenied:
            return Answer.UNKNOWN
        if self.graves.is_hidden(path) and not self.living_tags(await self.tags.get(path), path):
            return Answer.NO
        self._prove(path)
        return Answer.YES

    async def _ask_hidden(self, path: str) -> None:
        """Ask whether a tag has appeared in the repositories of ``path`` that were emptied here."""
        async with trio.open_nursery() as nursery:
            for repository in self._unasked_hidden(path):
                nursery.start_soon(Outcome().take_tags, self.tags, repository)

    async def _ask_hidden_in_time(self, path: str) -> None:
        """As `_ask_hidden`, and not for long: what is slow to come shows in the next listing."""
        with trio.move_on_after(CATALOG_PATIENCE):
            await self._ask_hidden(path)

    def _unasked_hidden(self, path: str) -> list[str]:
        hidden = self.graves.hidden_below(path)
        return [name for name in hidden if self.tags.fresh(name) is None][:ASK_HIDDEN]

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
        tags = [] if outcome.tags is None else self.living_tags(outcome.tags, path)
        nested = list(self._visible(outcome.names or self.catalog.proven, path))
        if not tags and not nested and not self.graves.lingers(path):
            self._raise_if_nothing(outcome, path)
        partial = outcome.partial()
        if partial:
            self.partial[path] = partial
        else:
            self.partial.pop(path, None)
        return FolderListing(tags, nested, partial)

    async def _ask_folder(self, path: str) -> Outcome:
        """Ask for the tags and for the catalog, both at once; the catalog is not waited for long."""
        outcome = Outcome()
        async with trio.open_nursery() as nursery:
            if path and self.repository_answer(path) is not Answer.NO:
                nursery.start_soon(outcome.take_tags, self.tags, path)
            nursery.start_soon(outcome.take_names, self.catalog, CATALOG_PATIENCE if path else math.inf)
        if outcome.tags is None and outcome.names is None and outcome.names_error is None:
            await outcome.take_names(self.catalog, math.inf)
        return outcome

    def _raise_if_nothing(self, outcome: Outcome, path: str) -> None:
        if outcome.tags is not None:
            return
        if outcome.tags_error is not None and not isinstance(outcome.tags_error, NotFound):
            raise outcome.tags_error
        if outcome.names_error is not None:
            raise outcome.names_error
        if path and path not in self._namespaces:
            raise self._absent_path(path)

    def living_tags(self, tags: TagList, repository: str) -> list[str]:
        """The names of a listing, without what this mount has deleted since."""
        return self.graves.living(repository, tags)

    def _visible(self, names: Names, path: str) -> Iterable[str]:
        for name in names.below(path):
            child = _join(path, name)
            if self.fence.leads_to(child) and self._shows(names, child):
                yield name

    def _shows(self, names: Names, path: str) -> bool:
        """Say whether a folder is listed: not where all that made it one has been emptied here."""
        if path in names.repositories and not self.graves.is_hidden(path):
            return True
        below = names.children.get(path)
        if below is None:
            return path not in names.repositories
        return any(self._shows(names, _join(path, name)) for name in below)

    # ── a tag's contents ──

    async def manifest(self, repository: str, reference: str | Digest) -> Manifest:
        """A manifest by tag or digest, verified. Raises NotFound, and what a Source raises."""
        if not self.fence.holds(repository):
            raise self._absent(repository, str(reference))
        if isinstance(reference, Digest):
            return await self.contents.by_digest(repository, reference)
        state = self.contents.state(repository, reference)
        if state is not None and self.graves.is_dead(repository, reference, state.asked):
            self.contents.drop(repository, reference)
        elif self.tag_answer(repository, reference) is Answer.NO:
            raise self._absent(repository, reference)
        manifest = await self.contents.by_tag(repository, reference)
        self._prove(repository)
        return manifest

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
        """rmdir of a repository or namespace: only an empty one goes. Raises NotEmpty."""
        if not self.graves.lingers(path):
            listing = await self.list_folder(path)
            if listing.tags or listing.nested:
                raise NotEmpty(f"{path} still holds {', '.join((listing.tags + listing.nested)[:3])}")
            if self.repository_answer(path) is Answer.YES:
                self.graves.hide(path, ())
        remover = self.source.capability(DeletesRepositories, path)
        if remover is not None and self.graves.is_hidden(path):
            with suppress(NotFound):
                await self._need_empty_now(path)
                await remover.delete_repository(path)
        self.graves.remove_folder(path)

    async def _need_empty_now(self, repository: str) -> None:
        """A registry deletes a repository with all that is in it: what was pushed since it was listed must not go."""
        self.tags.forget(repository)
        if self.living_tags(await self.tags.get(repository), repository):
            raise NotEmpty(f"{repository} is not empty any more: something was pushed to it")

    def _hide_if_empty(self, repository: str) -> None:
        listed = self.tags.fresh(repository)
        if listed is None or self.living_tags(listed, repository):
            return
        folders = []
        parent = repository.rpartition("/")[0]
        self.graves.hide(repository, ())
        while parent and not self._lives(parent):
            folders.append(parent)
            parent = parent.rpartition("/")[0]
        self.graves.hide(repository, folders)

    def _lives(self, path: str) -> bool:
        """Say whether a name is there by what the registry holds, and not only because it was emptied a moment ago."""
        answers = (
            self.tag_answer(*_split(path)),
            self.repository_answer(path),
            self.namespace_answer(path),
        )
        return Answer.YES in answers

    # ── small things ──

    def _on_absent(self, repository: str) -> None:
        self.catalog.proven.discard(repository)
        for namespace in self._namespaces:
            self.catalog.proven.add_folder(namespace)

    def _prove(self, repository: str) -> None:
        self.tags.is_there(repository)
        if not self.graves.is_hidden(repository):
            self.catalog.proven.add(repository)

    def _absent(self, repository: str, name: str) -> NotFound:
        return self._absent_path(_join(repository, name))

    def _absent_path(self, path: str) -> NotFound:
        return NotFound(f"there is no repository, namespace or tag {path}", registry=self.source.name)


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


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name
