"""What a registry in memory can do beyond the required: the capabilities that `MemorySource` hands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from regfs.digest import Digest
from regfs.errors import DeletionDisabled, ListingRefused, Moved, NotFound, Refused, RegfsError
from regfs.manifest import Descriptor, parse_manifest
from regfs.ports import Answer, Cost, Deletion, NamespacePage, ReferrerPage

if TYPE_CHECKING:
    from regfs.testing.memory import MemorySource


class _Capability:
    def __init__(self, source: MemorySource) -> None:
        self._source = source


class ListsInMemory(_Capability):
    """All repositories, in the order in which they were pushed."""

    async def repositories(self) -> AsyncIterator[Sequence[str]]:
        """See `regfs.ports.ListsRepositories.repositories`."""
        source, start = self._source, 0
        while True:
            async with source._call("repositories"):
                if source.abilities.listing_refused:
                    raise ListingRefused("the registry does not list its repositories", registry=source.name)
                names = list(source._repositories)
                page = names[start : start + source.abilities.repositories_per_page]
                start += len(page)
            yield page
            if start >= len(names):
                return


class ListsNamespacesInMemory(_Capability):
    """Namespace by namespace: each name on the way to a repository is one."""

    async def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        """See `regfs.ports.ListsNamespaces.namespace`."""
        source, start = self._source, 0
        while True:
            async with source._call("namespace", name):
                namespaces, repositories = self._within(name)
                size = source.abilities.repositories_per_page
                page = (namespaces + repositories)[start : start + size]
                split = max(0, len(namespaces) - start)
                partial = source.partial.get(name, "")
                start += len(page)
                more = start < len(namespaces) + len(repositories)
            yield NamespacePage(page[:split], page[split:], partial)
            if not more:
                return

    def _within(self, namespace: str) -> tuple[list[str], list[str]]:
        """What leads on directly below a namespace, and the repositories directly in it."""
        source, prefix = self._source, f"{namespace}/" if namespace else ""
        told = [name for name in source._repositories if name not in source.secret]
        below = [name for name in told if name.startswith(prefix)]
        leading = dict.fromkeys(
            prefix + name[len(prefix) :].partition("/")[0]
            for name in (*below, *(f"{empty}/" for empty in source.empty_namespaces))
            if name.startswith(prefix) and "/" in name[len(prefix) :]
        )
        if not below and namespace and namespace not in source.empty_namespaces:
            raise NotFound(f"there is no namespace {namespace}", registry=source.name)
        repositories = [name for name in below if "/" not in name[len(prefix) :]]
        if namespace in told:
            repositories.insert(0, namespace)
        return list(leading), repositories


class ListsReferrersInMemory(_Capability):
    """All manifests of the repository whose ``subject`` is the one that is asked about."""

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        """See `regfs.ports.ListsReferrers.referrers`."""
        source, start = self._source, 0
        while True:
            async with source._call("referrers", repository, str(digest)):
                found = self._found(repository, digest, artifact_type)
                page = found[start : start + source.abilities.referrers_per_page]
                start += len(page)
            yield ReferrerPage(page)
            if start >= len(found):
                return

    def _found(self, repository: str, subject: Digest, artifact_type: str) -> list[Descriptor]:
        home = self._source._repositories.get(repository)
        found = []
        for digest, held in home.manifests.items() if home is not None else ():
            try:
                manifest = parse_manifest(held.raw, held.media_type, digest)
            except RegfsError:
                continue
            if manifest.subject is not None and manifest.subject.digest == subject:
                found.append(manifest.as_referrer())
        return [one for one in found if artifact_type in ("", one.artifact_type)]


class ResolvesInMemory(_Capability):
    """HEAD."""

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """See `regfs.ports.ResolvesTags.resolve`."""
        async with self._source._call("resolve", repository, tag):
            digest = self._source._resolve(repository, tag)
            found = self._source._home(repository).manifests[digest]
            return Descriptor(found.media_type, digest, len(found.raw))


class RangesInMemory(_Capability):
    """As `Abilities.honours_ranges` says."""

    def honours_ranges(self) -> Answer:
        """See `regfs.ports.HonoursRanges.honours_ranges`."""
        return self._source.abilities.honours_ranges or Answer.UNKNOWN


class DeletesInMemory(_Capability):
    """One tag."""

    def can_delete(self) -> Answer:
        """See `regfs.ports.DeletesTags.can_delete`."""
        return self._source.abilities.deletes_tags or Answer.NO

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """See `regfs.ports.DeletesTags.delete_tag`."""
        source = self._source
        async with source._call("delete_tag", repository, tag):
            if self.can_delete() is Answer.NO:
                raise DeletionDisabled(
                    "deletion is switched off", setting="abilities.deletes_tags", registry=source.name
                )
            tags = source._home(repository).tags
            if tag not in tags:
                raise NotFound(f"there is no tag {tag} in {repository}", registry=source.name)
            if seen is not None and tags[tag] != seen:
                raise Moved(f"{repository}:{tag} is {tags[tag]} by now", registry=source.name)
            del tags[tag]
            return Deletion("the memory's own tag deletion")


class DeletesRepositoriesInMemory(_Capability):
    """A repository without tags."""

    async def delete_repository(self, repository: str) -> None:
        """See `regfs.ports.DeletesRepositories.delete_repository`."""
        async with self._source._call("delete_repository", repository):
            if self._source._home(repository).tags:
                raise Refused(f"{repository} has tags", registry=self._source.name)
            del self._source._repositories[repository]


class RecoversInMemory(_Capability):
    """What is in `MemorySource.leftovers`."""

    async def recover(self) -> Sequence[str]:
        """See `regfs.ports.Recovers.recover`."""
        async with self._source._call("recover"):
            found, self._source.leftovers = self._source.leftovers, []
            return found


class MeteredInMemory(_Capability):
    """A quota of a hundred manifests."""

    def quota(self) -> Mapping[str, int]:
        """See `regfs.ports.Metered.quota`."""
        return {"limit": 100, "remaining": max(0, 100 - self._source.count("manifest")), "window": 21600}


class DatesInMemory(_Capability):
    """As `Abilities.dates` says."""

    @property
    def cost(self) -> Cost:
        """See `regfs.ports.DatesTags.cost`."""
        return self._source.abilities.dates or Cost.ABSENT


class CountsInMemory(_Capability):
    """The calls, by method."""

    def counters(self) -> Mapping[str, int]:
        """See `regfs.ports.Counts.counters`."""
        return {"requests": len(self._source.calls), **Counter(call.method for call in self._source.calls)}
