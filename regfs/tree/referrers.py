"""The folder ``referrers``: what refers to a manifest (signatures, SBOMs, attestations), each a link to its digest."""

from __future__ import annotations

from collections.abc import Sequence

from regfs.digest import Digest
from regfs.errors import NoSuchAttribute, NotFound
from regfs.manifest import Manifest
from regfs.tree.manifestfiles import ManifestChild
from regfs.tree.nodes import Folder, Link, Node
from regfs.tree.tagfolder import ManifestFolder


class ReferrersFolder(ManifestChild, Folder):
    """``.digests/sha256-HEX/referrers``. It is there for every manifest; what is in it is asked for when it is listed.

    Its links lead to ``.digests/sha256-HEX`` of each referrer, so that nothing recursive follows them.
    """

    __slots__ = ()
    kind = Folder.kind

    def __init__(self, parent: ManifestFolder, name: str, manifest: Manifest) -> None:
        super().__init__(parent, name, manifest.descriptor)

    @property
    def is_steady(self) -> bool:
        return False

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

    def attribute_names(self) -> list[str]:
        return []

    async def attribute(self, name: str) -> str:
        raise NoSuchAttribute(f"{self.path()} has no attribute user.{name}")


class ReferrerLink(Link):
    """A link to a referrer: it may be gone, or another, when the list is asked for anew."""

    __slots__ = ()

    def __init__(self, parent: ReferrersFolder, name: str, target: str, key: tuple[str, Digest]) -> None:
        super().__init__(parent, name, target, 0.0, key)

    @property
    def holds_for(self) -> float:
        assert isinstance(self.parent, ReferrersFolder)
        return self.parent.left
