"""The folder ``referrers``: what refers to a manifest (signatures, SBOMs, attestations), each a link to its digest."""

from __future__ import annotations

from collections.abc import Sequence

from regfs.digest import Digest
from regfs.errors import NotFound
from regfs.tree.manifestfiles import BareRoom
from regfs.tree.nodes import Link, Node


class ReferrersFolder(BareRoom):
    """``.digests/sha256-HEX/referrers``. It is there for every manifest; what is in it is asked for when it is listed.

    Its links lead to ``.digests/sha256-HEX`` of each referrer, so that nothing recursive follows them.
    """

    __slots__ = ()

    @property
    def left(self) -> float:
        """For how many seconds more what it holds may be shown."""
        return self.folder.registry.referrers.left(self.folder.repository, self.descriptor.digest)

    async def find(self, name: str) -> Node:
        if self.is_gone:
            raise NotFound(f"{self.path()}: the tag has been deleted")
        lists, repository = self.folder.registry.referrers, self.folder.repository
        return self._link(name, await lists.find(repository, self.descriptor.digest, name))

    async def entries(self) -> Sequence[Node]:
        if self.is_gone:
            return []
        lists, repository = self.folder.registry.referrers, self.folder.repository
        named = await lists.names(repository, self.descriptor.digest)
        return [self._link(name, digest) for name, digest in named.items()]

    def _link(self, name: str, digest: Digest) -> Node:
        # The folder's own place is `.digests/sha256-HEX/referrers`.
        target = f"../../{digest.file_name}"
        return self.child((name, digest), lambda: ReferrerLink(self, name, target, (name, digest)))


class ReferrerLink(Link):
    """A link to a referrer: it may be gone, or another, when the list is asked for anew."""

    __slots__ = ()

    def __init__(self, parent: ReferrersFolder, name: str, target: str, key: tuple[str, Digest]) -> None:
        super().__init__(parent, name, target, 0.0, key)

    @property
    def holds_for(self) -> float:
        assert isinstance(self.parent, ReferrersFolder)
        return self.parent.left
