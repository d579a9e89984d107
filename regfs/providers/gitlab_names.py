"""What there is in a GitLab, group by group, by the calls that cost least; and which ids stand behind a path.

A project's own repository bears the project's path, and others lie below it: ``group/project``, ``group/project/image``.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

import trio

from regfs.errors import Forbidden, ListingRefused, NotFound, RegfsError
from regfs.ports import NamespacePage
from regfs.providers.gitlab_api import PAGE, Api, Group, MissingScope, Project, Repository, quoted
from regfs.providers.gitlab_tokens import USE_INSTEAD, Kind, job_project
from regfs.reference import is_repository

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from regfs.providers.gitlab_instance import Instance
    from regfs.providers.gitlab_tokens import Signer

T = TypeVar("T")

MOST_PAGES: Final = 10
"""Pages read of a listing that holds more than was asked for: a group's repositories, all the caller's projects."""

MOST_BELOW: Final = 3
"""Components that an image's path has below its project's, at most."""

KEPT: Final = 600.0
"""Seconds that an id is kept."""

MOST_KEPT: Final = 4096


class Ids(Generic[T]):
    """What stands behind a path, kept for a while; the least lately learnt goes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[T, float]] = OrderedDict()

    def get(self, path: str) -> T | None:
        """What is known of a path."""
        found = self._kept.get(path)
        return found[0] if found is not None and self._clock() < found[1] else None

    def put(self, path: str, what: T) -> None:
        """Keep it."""
        self._kept.pop(path, None)
        self._kept[path] = what, self._clock() + KEPT
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def drop(self, path: str) -> None:
        """Forget it."""
        self._kept.pop(path, None)


@dataclass(frozen=True, slots=True)
class Place:
    """A registry repository's ids."""

    project: int
    repository: int


@dataclass(frozen=True, slots=True)
class Known:
    """What a namespace is: ``group``, ``project`` or ``user``; ``ref`` is how a URL names it."""

    kind: str
    ref: str


class Names:
    """`regfs.ports.ListsNamespaces` by the API, and where repositories are."""

    def __init__(self, registry: str, instance: Instance, signer: Signer) -> None:
        self._registry = registry
        self._instance = instance
        self._signer = signer
        self._places: Ids[Place] = Ids()
        self._known: Ids[Known] = Ids()

    # ── namespaces ───────────────────────────────────────────────────────────────────────────────

    async def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        """What is in a group, a user's namespace or a project; ``""``: the caller's own groups and users' namespaces.

        Raises as `regfs.ports.ListsNamespaces` says.
        """
        try:
            async with aclosing(cast("AsyncGenerator[NamespacePage, None]", self._namespace(name))) as pages:
                async for page in pages:
                    yield page
        except Forbidden as error:
            shown = name or self._registry
            raise ListingRefused(
                f"{shown} is not listed: {error.message}", registry=self._registry, words=error.words
            ) from error

    async def _namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        kind = await self._signer.kind()
        if kind is Kind.JOB and not _is_open_to_job(name):
            yield self._way_to_job(name)
            return
        if not name:
            yield await self._root(kind)
            return
        async for page in self._inside(name, kind):
            yield page

    def _way_to_job(self, name: str) -> NamespacePage:
        """A job token sees one project, which the job's environment names: the folders on the way there."""
        project = job_project()
        if not project:
            raise ListingRefused(
                "a job token lists its own project alone, and CI_PROJECT_PATH does not say which that is",
                registry=self._registry,
            )
        if not _is_within(project, name):
            raise ListingRefused(
                f"{name} is not listed: a job token lists its own project alone, {project}",
                registry=self._registry,
            )
        following = project.split("/")[: len(name.split("/")) + 1 if name else 1]
        return NamespacePage(["/".join(following)], (), "a job token sees its own project alone")

    async def _root(self, kind: Kind) -> NamespacePage:
        if kind is Kind.NONE:
            raise ListingRefused(
                f"{self._registry} lists what is one's own, and nobody is signed in: sign in with {USE_INSTEAD}",
                registry=self._registry,
            )
        api = await self._instance.api()
        groups, projects = await _together(lambda: self._groups(api), lambda: self._projects(api))
        owners, partial = cast("tuple[list[str], str]", projects)
        names = dict.fromkeys([*cast("list[str]", groups), *owners])
        return NamespacePage(_grammatical(names), (), partial)

    async def _groups(self, api: Api) -> list[str]:
        """The top groups that the caller belongs to, be it by a subgroup or a project."""
        found: list[str] = []
        query = {"top_level_only": "true", "all_available": "false", "order_by": "name", "sort": "asc"}
        async for page in api.list("groups", Group, what="your groups", **query):
            found += self._take_groups(page)
        return found

    async def _projects(self, api: Api) -> tuple[list[str], str]:
        """Whose the caller's projects are: the way to users' namespaces, and to groups of which one is no member."""
        found: dict[str, None] = {}
        query = {"membership": "true", "pagination": "keyset", "order_by": "id", "sort": "asc"}
        count = 0
        async for page in api.list("projects", Project, what="your projects", simple="true", **query):
            for project in page:
                top = project.path_with_namespace.lower().partition("/")[0]
                found[top] = None
                if project.namespace is not None and project.namespace.kind == "user":
                    self._known.put(top, Known("user", top))
            count += 1
            if count == MOST_PAGES:
                most = MOST_PAGES * PAGE
                return list(found), f"users' namespaces beyond your first {most} projects are not shown"
        return list(found), ""

    async def _inside(self, name: str, kind: Kind) -> AsyncIterator[NamespacePage]:
        """Try what the name may be, the likeliest first: nothing in a path says whether it is a group's or a project's."""
        if not is_repository(name):
            raise NotFound(f"{name[:260]!r} is no group's or project's path", registry=self._registry)
        api = await self._instance.api()
        known = self._known.get(name)
        for guess in [known] if known is not None else list(_guesses(name, kind)):
            pages = cast("AsyncGenerator[NamespacePage, None]", self._listed(api, guess, name))
            try:
                async with aclosing(pages):
                    async for page in pages:
                        yield page
            except NotFound:
                self._known.drop(name)
                continue
            if known is None and guess.kind != "below":
                self._known.put(name, guess)
            return
        if known is not None:
            async for page in self._inside(name, kind):
                yield page
            return
        raise NotFound(f"{self._registry} shows no group, user or project {name}", registry=self._registry)

    def _listed(self, api: Api, what: Known, name: str) -> AsyncIterator[NamespacePage]:
        if what.kind == "group":
            return self._group(api, what.ref, name)
        if what.kind == "user":
            return self._projects_of(api, f"users/{what.ref}/projects", f"the projects of {name}")
        return self._project(api, what.ref, name, is_below=what.kind == "below")

    async def _project(
        self, api: Api, ref: str, name: str, *, is_below: bool
    ) -> AsyncIterator[NamespacePage]:
        found = False
        async for page in self._repositories(api, f"projects/{ref}", name):
            within = [path for path in page if _is_within(path, name)]
            found = found or bool(within)
            if within:
                yield NamespacePage((), within)
        if is_below and not found:
            raise NotFound(f"there is nothing below {name}", registry=self._registry)

    async def _group(self, api: Api, ref: str, name: str) -> AsyncIterator[NamespacePage]:
        """All repositories in one listing, subgroups' too; where that is refused or goes on and on, what is directly there."""
        count = 0
        try:
            async for page in self._repositories(api, f"groups/{ref}", name):
                yield NamespacePage((), [path for path in page if _is_within(path, name)])
                count += 1
                if count == MOST_PAGES:
                    break
            else:
                return
        except MissingScope:
            raise
        except Forbidden:
            if count:
                raise
        subgroups, projects = await _together(
            lambda: self._subgroups(api, ref, name), lambda: self._gathered(api, ref, name)
        )
        names = [*cast("list[str]", subgroups), *cast("list[str]", projects)]
        yield NamespacePage(list(dict.fromkeys(names)))

    async def _repositories(self, api: Api, where: str, name: str) -> AsyncGenerator[list[str], None]:
        pages = api.list(f"{where}/registry/repositories", Repository, what=f"the repositories of {name}")
        seen: set[str] = set()
        async for page in pages:
            for repository in page:
                self._take(repository)
            yield _new(seen, (repository.path for repository in page))

    async def _subgroups(self, api: Api, ref: str, name: str) -> list[str]:
        found: list[str] = []
        pages = api.list(
            f"groups/{ref}/subgroups", Group, what=f"the subgroups of {name}", order_by="name", sort="asc"
        )
        async for page in pages:
            found += self._take_groups(page)
        return found

    async def _gathered(self, api: Api, ref: str, name: str) -> list[str]:
        found: list[str] = []
        async for page in self._projects_of(api, f"groups/{ref}/projects", f"the projects of {name}"):
            found += page.namespaces
        return found

    async def _projects_of(self, api: Api, where: str, what: str) -> AsyncIterator[NamespacePage]:
        """Projects whose registry is not off: one more request each would say which of them hold something."""
        query = {"with_shared": "false"} if where.startswith("groups/") else {}
        seen: set[str] = set()
        async for page in api.list(where, Project, what=what, order_by="id", sort="asc", **query):
            for project in page:
                self._known.put(project.path_with_namespace.lower(), Known("project", str(project.id)))
            shown = (project.path_with_namespace for project in page if project.may_have_registry)
            yield NamespacePage(_new(seen, shown))

    # ── ids ──────────────────────────────────────────────────────────────────────────────────────

    async def find(self, repository: str, *, anew: bool = False) -> tuple[Place, bool]:
        """A repository's ids, and whether they were known before. Raises NotFound, and as a request."""
        if anew:
            self._places.drop(repository)
        known = self._places.get(repository)
        if known is not None:
            return known, True
        return await self._looked_up(repository), False

    async def _looked_up(self, repository: str) -> Place:
        api = await self._instance.api()
        for path in _above(repository):
            try:
                async with aclosing(self._repositories(api, f"projects/{quoted(path)}", path)) as pages:
                    async for _ in pages:
                        if place := self._places.get(repository):
                            return place
                break
            except NotFound:
                continue
        raise NotFound(f"{self._registry} has no repository {repository}", registry=self._registry)

    def _take(self, repository: Repository) -> None:
        path = repository.path.lower()
        self._places.put(path, Place(repository.project_id, repository.id))
        project = path.removesuffix(f"/{repository.name.lower()}") if repository.name else path
        self._known.put(project, Known("project", str(repository.project_id)))

    def _take_groups(self, groups: Sequence[Group]) -> list[str]:
        for group in groups:
            self._known.put(group.full_path.lower(), Known("group", str(group.id)))
        return _grammatical(group.full_path for group in groups)


def _guesses(name: str, kind: Kind) -> Iterable[Known]:
    """What a path may be. A user's or a group's name alone is no project, and a job token sees nothing but its project."""
    if "/" not in name:
        yield Known("group", quoted(name))
        yield Known("user", quoted(name))
        return
    yield Known("project", quoted(name))
    if kind is not Kind.JOB:
        yield Known("group", quoted(name))
    for path in list(_above(name))[1:]:
        yield Known("below", quoted(path))


def _above(repository: str) -> Iterable[str]:
    """The paths that the project of a repository may have: its own, and what is above it; a project lies in something."""
    parts = repository.split("/")
    for length in range(len(parts), max(1, len(parts) - MOST_BELOW - 1), -1):
        yield "/".join(parts[:length])


def _is_open_to_job(name: str) -> bool:
    project = job_project()
    return _is_within(name, project) if project else "/" in name


def _is_within(path: str, name: str) -> bool:
    return not name or path == name or path.startswith(f"{name}/")


def _new(seen: set[str], paths: Iterable[str]) -> list[str]:
    """Those that did not come before: pages shift while they are read."""
    found = [path for path in dict.fromkeys(_grammatical(paths)) if path not in seen]
    seen.update(found)
    return found


def _grammatical(paths: Iterable[str]) -> list[str]:
    """Paths as the registry spells them: in lower case, and none that no reference could hold."""
    return [path for path in (path.lower() for path in paths) if is_repository(path)]


async def _together(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    """Make calls at once; the first one's error, in their order, where any failed."""
    results: list[object] = [None] * len(calls)
    errors: dict[int, RegfsError] = {}

    async def make(index: int, call: Callable[[], Awaitable[object]]) -> None:
        try:
            results[index] = await call()
        except RegfsError as error:
            errors[index] = error

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(make, index, call)
    if errors:
        raise errors[min(errors)]
    return results
