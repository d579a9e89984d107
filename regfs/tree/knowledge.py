"""What is known of one registry without asking it: each answer has its age, and what was deleted here goes before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import NotFound
from regfs.fence import Fence
from regfs.ports import Answer, Clock, ContentStore, Source
from regfs.reference import is_repository, is_tag
from regfs.tree.catalog import Catalog, Names
from regfs.tree.contents import Contents
from regfs.tree.graves import Graves
from regfs.tree.namelist import above
from regfs.tree.taglists import Arriving, TagList, TagLists
from regfs.tree.times import Times

ASK_HIDDEN = 32
"""How many emptied repositories are asked at once whether a tag has appeared in them."""


class Role(Enum):
    """What a name in a registry is."""

    TAG = "tag"
    REPOSITORY = "repository"
    NAMESPACE = "namespace"
    OPAQUE = "opaque"
    """It can't be disproved: the catalog is refused, and names below it may exist."""


class Knowledge:
    """Everything that one registry has said and this mount has done there, and what follows from it for each name."""

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
        show_fallback_tags: bool = False,
    ) -> None:
        self.name = name
        self.source = source
        self.connection = connection
        self.born = int(clock.time() * 1e9)
        self.fence = Fence(connection.only)
        self.graves = Graves(clock)
        self.tags = TagLists(source, clock, ttl, deadline, shows_all=show_fallback_tags)
        self.catalog = Catalog(source, clock, ttl, deadline)
        self.contents = Contents(source, store, clock, ttl, deadline)
        self.times = Times(self.tags, self.contents, self.born)
        self.partial: dict[str, str] = {}
        self._clock = clock
        self._ttl = ttl
        self.tags.on_absent = self._on_absent
        self.namespaces = frozenset(namespace.strip("/") for namespace in connection.namespaces)
        for namespace in self.namespaces:
            self.catalog.proven.add_folder(namespace)

    def start(self, nursery: trio.Nursery) -> None:
        """Fetch in ``nursery`` from now on."""
        self.tags.start(nursery)
        self.catalog.start(nursery)
        self.contents.start(nursery)

    def forget(self, prefix: str = "") -> int:
        """Forget every listing and every tag's digest of ``prefix`` and below; how many there were."""
        return self.tags.forget(prefix) + self.catalog.forget(prefix) + self.contents.forget(prefix)

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
        return listed.has(tag) and not self.graves.is_dead(repository, tag, listed.age.started)

    def repository_answer(self, path: str) -> Answer:
        """Whether ``path`` is a repository (one that is hidden is none)."""
        if not is_repository(path) or not self.fence.holds(path):
            return Answer.NO
        listed = self.tags.fresh(path)
        if self.graves.is_hidden(path):
            return Answer.NO if listed is not None else Answer.UNKNOWN
        if listed is not None:
            return Answer.YES
        answer = self.catalog.repository_answer(path)
        if answer is Answer.UNKNOWN and self.tags.is_absent(path):
            return Answer.NO
        return answer

    def namespace_answer(self, path: str, asked: Names | None = None) -> Answer:
        """Whether ``path`` is the beginning of a repository's name; ``asked``: the list that has just come."""
        if not is_repository(path) or not self.fence.leads_to(path):
            return Answer.NO
        if path in self.namespaces:
            return Answer.YES
        names = asked or self.catalog.fresh(path)
        if names is not None:
            is_there = self._shows_below(path, names) or (names.root == path and not self.was_emptied(path))
            return Answer.YES if is_there else Answer.NO
        if self.catalog.tells_of(path):
            return Answer.UNKNOWN if self.was_emptied(path) else Answer.YES
        refused = self.catalog.refusal(path) is not None
        if not refused and not self.catalog.is_absent(path):
            # A list can be had, so what was found by name is no older word on this than a list might be.
            is_proven = self.catalog.is_proven_of_late(path, self.graves.is_hidden)
            return Answer.YES if is_proven else Answer.UNKNOWN
        if self._shows_below(path, None):
            return Answer.YES
        return Answer.UNKNOWN if refused else Answer.NO

    def may_have_tags(self, path: str) -> bool:
        """Whether a repository's tags may be had there: of a namespace only where somebody said that it is one too."""
        answer = self.repository_answer(path)
        if answer is not Answer.UNKNOWN or not self.catalog.by_namespace:
            return answer is not Answer.NO
        is_told = (
            path in self.namespaces or self.catalog.last(path) is not None or self.catalog.tells_of(path)
        )
        return path in self.catalog.proven.repositories or self.graves.is_hidden(path) or not is_told

    def is_closed(self, path: str, role: Role | Answer) -> bool:
        """Whether nothing can be listed in a folder, and nothing in it is known: it may be passed, and no more."""
        if role not in (Answer.UNKNOWN, Role.NAMESPACE) or self.catalog.refusal(path) is None:
            return False
        return role is Answer.UNKNOWN or (self.catalog.tells_of(path) and not self._shows_below(path, None))

    def known(self, repository: str, name: str) -> Role | Answer:
        """What ``repository/name`` is: a Role, or NO (there is no such name), or UNKNOWN."""
        path = join(repository, name)
        if self.graves.tombstone(repository, name) is not None:
            return Role.TAG
        tag = self.tag_answer(repository, name)
        if tag is Answer.YES:
            return Role.TAG
        repository_too = self.repository_answer(path)
        if repository_too is Answer.YES or self.graves.lingers(path):
            return Role.REPOSITORY
        namespace = self.namespace_answer(path)
        if namespace is Answer.YES:
            return Role.NAMESPACE
        answers = (tag, repository_too, namespace)
        if any(answer is not Answer.NO for answer in answers) or self.unasked_hidden(path):
            return Answer.UNKNOWN
        return Answer.NO

    def entry_left(self, repository: str, name: str) -> float:
        """For how many seconds what a name is known to be holds; 0: nothing is known of it."""
        if self.graves.tombstone(repository, name) is not None:
            return 0.0
        if self.tag_answer(repository, name) is not Answer.YES:
            return self.folder_left(join(repository, name))
        listed = self.tags.fresh(repository)
        listing_left = 0.0
        if listed is not None and self._is_listed(repository, name, listed):
            listing_left = self.listing_left(repository)
        return max(self.manifest_left(repository, name), listing_left)

    def listed_digest(self, repository: str, tag: str) -> Digest | None:
        """Where a tag leads by its repository's listing, if that says so and may still be shown."""
        listed = self.tags.fresh(repository)
        if listed is None or not listed.facts or not self._is_listed(repository, tag, listed):
            return None
        facts = listed.facts.get(tag)
        return None if facts is None else facts.digest

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
        listing = 0.0 if self.graves.is_hidden(path) else self.listing_left(path)
        return max(listing, self.catalog.left(path))

    def listing_left(self, repository: str) -> float:
        """For how many seconds more a repository's listing may be shown; 0: there is none."""
        listed = self.tags.fresh(repository)
        return 0.0 if listed is None else listed.age.left(self._clock.monotonic(), self._ttl)

    def arriving_left(self, arriving: Arriving) -> float:
        """For how many seconds more the tags that have come so far may be shown."""
        return max(0.0, arriving.started + self._ttl - self._clock.monotonic())

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
        """A function that gives the time of a tag of which nothing but what its listing says is known, and None of another."""
        listed = self.tags.fresh(repository)
        if listed is None or self.graves.has_deleted(repository):
            return lambda _tag: None
        seen, first_seen = self.contents.was_seen, self.tags.first_seen
        if listed.facts:
            return lambda tag: None if seen(repository, tag) else self.times.of(repository, tag, None)
        return lambda tag: None if seen(repository, tag) else first_seen(repository, tag)

    # ── what is listed ──

    def living_tags(self, tags: TagList, repository: str) -> list[str]:
        """The names of a listing, without what this mount has deleted since."""
        return self.graves.living(repository, tags)

    def visible(self, path: str, names: Names | None) -> Iterator[str]:
        """The next components behind ``path`` that are shown: within the fence, and not emptied here.

        ``names`` is the list that tells of them; None, or one that is not all: what was found by name counts too.
        """
        views = self.catalog.views(path, names)
        below = (
            views[0].below(path)
            if len(views) == 1
            else dict.fromkeys(name for view in views for name in view.below(path))
        )
        for name in below:
            child = join(path, name)
            if self.fence.leads_to(child) and any(self._shows(view, child) for view in views):
                yield name

    def _shows_below(self, path: str, names: Names | None) -> bool:
        return any(True for _ in self.visible(path, names))

    def _shows(self, names: Names, path: str) -> bool:
        """Say whether a folder is listed: not where all that made it one has been emptied here."""
        if path in names.repositories and not self.graves.is_hidden(path):
            return True
        if path in names.namespaces:
            return not self.was_emptied(path) or self._has_more(path)
        below = names.children.get(path)
        if below is None:
            return path not in names.repositories and path in self.namespaces
        return any(self._shows(names, join(path, name)) for name in below)

    def was_emptied(self, path: str) -> bool:
        """Whether a repository below ``path`` was emptied here: that it holds others is then to be seen from its list."""
        return bool(self.graves.hidden_below(path))

    def _has_more(self, path: str) -> bool:
        """Whether a namespace in which something was emptied holds more, as far as is known."""
        names = self.catalog.fresh(path) or self.catalog.last(path)
        return names is None or self._shows_below(path, names)

    def lives(self, path: str) -> bool:
        """Say whether a name is there by what the registry holds, and not only because it was emptied a moment ago."""
        answers = (
            self.tag_answer(*split(path)),
            self.repository_answer(path),
            self.namespace_answer(path),
        )
        return Answer.YES in answers

    def unasked_hidden(self, path: str) -> list[str]:
        """The repositories of ``path`` emptied here of which it is not known whether a tag has appeared in them."""
        hidden = self.graves.hidden_below(path)
        return [name for name in hidden if self.tags.fresh(name) is None][:ASK_HIDDEN]

    def unasked_emptied(self, path: str) -> list[str]:
        """The namespaces in ``path`` in which all was emptied here, of which it is not known whether more has come."""
        if not self.was_emptied(path) or not self.catalog.by_namespace:
            return []
        over = {name for hidden in self.graves.hidden_below(path) for name in above(hidden) if name != path}
        below = [name for name in over if name.startswith(f"{path}/") or (name and not path)]
        return [name for name in below if self._is_unasked(name)][:ASK_HIDDEN]

    def _is_unasked(self, namespace: str) -> bool:
        if self.catalog.fresh(namespace) is not None:
            return False
        last = self.catalog.last(namespace)
        return last is None or not self._shows_below(namespace, last)

    def _on_absent(self, repository: str) -> None:
        self.catalog.proven.discard(repository)
        for namespace in self.namespaces:
            self.catalog.proven.add_folder(namespace)

    def prove(self, repository: str) -> None:
        """A repository was found by name: where no catalog can be had, it is listed from now on."""
        self.tags.is_there(repository)
        if not self.graves.is_hidden(repository):
            self.catalog.prove(repository)

    def absent(self, repository: str, name: str) -> NotFound:
        """The error for a name that is neither tag nor repository nor the beginning of one."""
        return self.absent_path(join(repository, name))

    def absent_path(self, path: str) -> NotFound:
        """The same for a whole path."""
        return NotFound(f"there is no repository, namespace or tag {path}", registry=self.source.name)


def join(parent: str, name: str) -> str:
    """``parent/name``, or ``name`` where the parent is the root."""
    return f"{parent}/{name}" if parent else name


def split(path: str) -> tuple[str, str]:
    """The parent's path (empty: the root) and the last component."""
    parent, _, name = path.rpartition("/")
    return parent, name
