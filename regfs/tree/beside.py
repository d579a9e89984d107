"""The folders that stand in a repository's by name only: its manifests by digest, and its tags alone."""

from __future__ import annotations

from collections.abc import Sequence

from regfs.digest import Digest
from regfs.errors import NotFound, Refused, Unsupported
from regfs.ports import Answer
from regfs.reference import is_tag
from regfs.tree.nodes import Folder, Node
from regfs.tree.registry import Registry
from regfs.tree.tagfolder import ManifestFolder, remove_tag_folder

DIGESTS = ".digests"
TAGS = ".tags"


class Beside(Folder):
    """A folder that stands in a repository's by name only: it is there where the repository is."""

    __slots__ = ("registry", "repository")

    def __init__(self, parent: Node, name: str, registry: Registry, repository: str) -> None:
        super().__init__(parent, name)
        self.registry = registry
        self.repository = repository

    async def settle(self) -> None:
        """Ask what the folder that it stands in asks. Raises NotFound where that is no repository."""
        assert self.parent is not None
        await self.parent.settle()

    @property
    def time_ns(self) -> int:
        """When this mount began, in nanoseconds since 1970: no registry says when a repository was made."""
        return self.registry.born

    async def unlink(self, name: str) -> None:
        """Nothing is removed here. Raises Refused, or NotFound where there is no such name."""
        await (await self.find(name)).settle()
        raise Refused(f"{name} cannot be removed here")


class DigestsFolder(Beside):
    """``.digests``: any manifest of the repository by its digest."""

    __slots__ = ()

    async def find(self, name: str) -> Node:
        """The folder of a digest (``sha256-HEX``), asked for once something in it is. Raises NotFound for what is no digest."""
        try:
            digest = Digest.from_file_name(name)
        except (ValueError, Unsupported):
            raise NotFound(f"{name[:80]!r} is no digest: sha256-HEX") from None
        return self._folder(digest)

    async def entries(self) -> Sequence[Node]:
        """The digests that this mount has met: no registry lists them all."""
        await self.settle()
        return [self._folder(digest) for digest in self.registry.contents.known_digests(self.repository)]

    def _folder(self, digest: Digest) -> Node:
        name = digest.file_name
        return self.child(
            name, lambda: ManifestFolder(self, name, self.registry, self.repository, digest, "../..")
        )


class TagsFolder(Beside):
    """``.tags``: the tags alone, whatever else bears their names."""

    __slots__ = ()

    async def find(self, name: str) -> Node:
        """The folder of a tag, also of one that was deleted a moment ago. Raises NotFound where it is known that there is none."""
        if not is_tag(name):
            raise NotFound(f"{name[:80]!r} can be no tag")
        buried = self.registry.tombstone(self.repository, name) is not None
        if not buried and self.registry.tag_answer(self.repository, name) is Answer.NO:
            raise NotFound(f"there is no tag {self.repository}:{name}")
        return self._folder(name)

    async def entries(self) -> Sequence[Node]:
        """All tags of the repository. Raises what listing it does."""
        listing = await self.registry.list_folder(self.repository)
        return [self._folder(tag) for tag in listing.tags]

    async def rmdir(self, name: str) -> None:
        """End the tombstone of a tag. Raises NotEmpty for a tag that is there, NotFound for one that is not."""
        await (await self.find(name)).settle()
        remove_tag_folder(self.registry, self.repository, name)

    def _folder(self, tag: str) -> Node:
        return self.child(
            tag, lambda: ManifestFolder(self, tag, self.registry, self.repository, tag, "../..")
        )
