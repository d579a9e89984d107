"""The capability to delete tags, for one repository, of what deletes in all of a registry's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from regfs.digest import Digest
from regfs.ports import Answer, Deletion


class DeletesAnywhere(Protocol):
    """What can delete in every repository of a registry."""

    def can_delete(self, repository: str | None) -> Answer:
        """See `regfs.ports.DeletesTags.can_delete`; None: whether there is a repository where it can, as far as is known."""
        ...

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """See `regfs.ports.DeletesTags.delete_tag`."""
        ...


@dataclass(frozen=True, slots=True)
class TagDeletion:
    """`regfs.ports.DeletesTags` of one repository, or with None of no certain one."""

    deletes: DeletesAnywhere
    repository: str | None

    def can_delete(self) -> Answer:
        """See `regfs.ports.DeletesTags.can_delete`."""
        return self.deletes.can_delete(self.repository)

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """See `regfs.ports.DeletesTags.delete_tag`."""
        return await self.deletes.delete_tag(repository, tag, seen)
