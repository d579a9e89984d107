"""Folders whose names come from a registry: namespaces, repositories, tags, and what stands beside them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from regfs.digest import Digest
from regfs.errors import NotEmpty, NotFound, Refused, RegfsError
from regfs.ports import Answer
from regfs.reference import is_component, is_repository, is_tag, split_reference
from regfs.tree.beside import DIGESTS, TAGS, Beside, DigestsFolder, TagsFolder
from regfs.tree.knowledge import Role
from regfs.tree.nodes import Link, Node
from regfs.tree.order import Order
from regfs.tree.registry import Registry
from regfs.tree.tagfolder import TAG_NAMES, ManifestFolder, remove_tag_folder

REPOS = ".repos"

_PROBED = frozenset({"autorun.inf", "desktop.ini"})
"""Names that file managers look for everywhere: they are never asked of a registry."""


class NameFolder(ManifestFolder):
    """A name in a registry, which is provisional until something asks what it is: tag, repository or namespace.

    As a tag it is ``name`` in ``repository``; as a repository or namespace it is ``full``. The root has no name.
    """

    __slots__ = ("may_be_tag", "order")

    def __init__(
        self,
        parent: Node | None,
        name: str,
        registry: Registry,
        repository: str = "",
        *,
        may_be_tag: bool = True,
    ) -> None:
        super().__init__(parent, name, registry, repository, name, "..")  # type: ignore[arg-type]  # the root has no parent
        self.may_be_tag = may_be_tag and bool(repository)
        self.order: Order | None = None

    @property
    def full(self) -> str:
        """Its name as a repository or namespace."""
        return f"{self.repository}/{self.name}" if self.repository else self.name

    # ── what it is ──

    @property
    def role(self) -> Role | Answer:
        """What it is, as far as is known without asking."""
        if self.may_be_tag or not self.repository:
            return self.registry.known(self.repository, self.name)
        return self._known_apart()

    def _known_apart(self) -> Role | Answer:
        """What a nested repository is, whose name a tag bears too."""
        answers = (self.registry.repository_answer(self.full), self.registry.namespace_answer(self.full))
        if answers[0] is Answer.YES or self.registry.graves.lingers(self.full):
            return Role.REPOSITORY
        if answers[1] is Answer.YES:
            return Role.NAMESPACE
        return Answer.NO if answers == (Answer.NO, Answer.NO) else Answer.UNKNOWN

    async def settle(self) -> None:
        """Ask what this name is: tag, repository or namespace. Raises NotFound where it is none of them."""
        if self.may_be_tag or not self.repository:
            await self.registry.settle(self.repository, self.name)
        elif self._known_apart() in (Answer.NO, Answer.UNKNOWN):
            await self.registry.list_folder(self.full)

    @property
    def mode(self) -> int | None:
        """0111 where the registry lets nobody list what is here; else the mount's."""
        refused = self.registry.catalog.refusal(self.full) is not None
        return 0o111 if refused and self.registry.is_closed(self.full, self.role) else None

    @property
    def time_ns(self) -> int:
        """The tag's time, or when this mount began; in nanoseconds since 1970."""
        if self.may_be_tag and self.registry.tag_answer(self.repository, self.name) is Answer.YES:
            return super().time_ns
        return self.registry.born

    @property
    def open_time_ns(self) -> int | None:
        """The tag's time in passing; None of what is no tag."""
        return super().open_time_ns if self._is_known_tag else None

    @property
    def holds_for(self) -> float:
        """In seconds; 0 until it is known what the name is."""
        if not isinstance(self.role, Role):
            return 0.0
        if self.may_be_tag:
            return self.registry.entry_left(self.repository, self.name)
        return self.registry.folder_left(self.full)

    # ── what it holds ──

    async def find(self, name: str) -> Node:
        """What is in it: of a tag its files, else the next name, which is asked for once something needs to know. Raises NotFound."""
        if name in (DIGESTS, TAGS, REPOS):
            return self.beside(name)
        tag = self._tag_answer
        if tag is Answer.YES or self._is_tombstone:
            return await super().find(name)
        if tag is Answer.UNKNOWN and name in TAG_NAMES:
            try:
                return await self.shown(name)
            except NotFound:
                if self._is_known_tag:
                    raise
        return self._ordinary(name)

    @property
    def _is_tombstone(self) -> bool:
        return self.may_be_tag and self.registry.tombstone(self.repository, self.name) is not None

    @property
    def _tag_answer(self) -> Answer:
        return self.registry.tag_answer(self.repository, self.name) if self.may_be_tag else Answer.NO

    @property
    def _is_known_tag(self) -> bool:
        return self._tag_answer is Answer.YES

    def beside(self, name: str) -> Node:
        """One of the folders that stand beside the names: ``.digests``, ``.tags``, ``.repos``. Raises NotFound."""
        if not self.full:
            raise NotFound(f"the root of a registry has no {name}")
        kind = {DIGESTS: DigestsFolder, TAGS: TagsFolder, REPOS: ReposFolder}[name]
        return self.child(name, lambda: kind(self, name, self.registry, self.full))

    def _ordinary(self, name: str) -> Node:
        pasted = split_reference(name)
        if pasted is not None:
            return self._pasted(name, *pasted)
        child = f"{self.full}/{name}" if self.full else name
        grammatical = (is_component(name) and is_repository(child)) or (bool(self.full) and is_tag(name))
        if not grammatical or name in _PROBED:
            raise NotFound(f"{name[:80]!r} can be no repository or tag")
        if self.registry.known(self.full, name) is Answer.NO:
            raise NotFound(f"there is no repository, namespace or tag {child}")
        return self.named(name)

    def named(self, name: str) -> NameFolder:
        """The child of that name; whether there is one is for `settle` to say."""
        return self.child(name, lambda: NameFolder(self, name, self.registry, repository=self.full))

    def _pasted(self, name: str, repository: str, reference: str | Digest) -> Node:
        behind = f"{DIGESTS}/{reference.file_name}" if isinstance(reference, Digest) else reference
        return self.child(name, lambda: Link(self, name, f"{repository}/{behind}", 0.0))

    async def entries(self) -> Sequence[Node]:
        """Of a tag its files, else tags and nested repositories. Raises NotFound, and ListingRefused where it may not be listed."""
        if self._is_tombstone or self._is_known_tag:
            return await super().entries()
        try:
            listing = await self.registry.list_folder(self.full)
        except RegfsError:
            if self.may_be_tag and await self.registry.is_tag(self.repository, self.name):
                return await super().entries()
            # What may not be listed may still be known not to be there: ENOENT says more than EACCES.
            await self.settle()
            raise
        if self.may_be_tag and await self.registry.is_tag(self.repository, self.name):
            return await super().entries()
        shared = set(listing.nested).intersection(listing.tags) if listing.nested else set()
        names = listing.tags + [name for name in listing.nested if name not in shared]
        self.order = Order(names)
        if shared:
            names = [*names, REPOS]
        return Listed(self, names, frozenset(listing.nested))

    # ── removing ──

    async def unlink(self, name: str) -> None:
        """Of a tag's folder, see `ManifestFolder.unlink`; elsewhere Refused, or NotFound."""
        if self._is_tombstone or (self.may_be_tag and await self.registry.is_tag(self.repository, self.name)):
            return await super().unlink(name)
        node = await self.find(name)
        await node.settle()
        raise Refused(f"{name} is no file of the registry's: there is nothing to remove")

    async def rmdir(self, name: str) -> None:
        """End a tag's tombstone, or remove a repository that is empty. Raises NotEmpty, Refused, NotFound."""
        if self._is_tombstone or (self.may_be_tag and await self.registry.is_tag(self.repository, self.name)):
            return await super().rmdir(name)
        if name == REPOS:
            return await self._rmdir_repos()
        if name in (DIGESTS, TAGS):
            raise Refused(f"{name} is a view: there is nothing to remove")
        if self.registry.tombstone(self.full, name) is not None or await self.registry.is_tag(
            self.full, name
        ):
            return remove_tag_folder(self.registry, self.full, name)
        if not isinstance((self.children or {}).get(name), NameFolder | None):
            raise Refused(f"{name} is no folder of the registry's: there is nothing to remove")
        child = self.named(name)
        await child.settle()
        return await self.registry.remove_folder(child.full)

    async def _rmdir_repos(self) -> None:
        """``.repos`` may be listed, so recursive removers come to it: emptied, it goes without a trace."""
        await self.settle()
        listing = await self.registry.list_folder(self.full)
        if listing.nested:
            raise NotEmpty(f"{self.path()}/{REPOS} still holds {', '.join(listing.nested[:3])}")

    # ── extended attributes ──

    def attribute_names(self) -> list[str]:
        """A tag's, else ``regfs.reference``, and ``regfs.partial`` where a listing is known to lack something."""
        if self._is_known_tag:
            return super().attribute_names()
        return ["regfs.reference", *(["regfs.partial"] if self.full in self.registry.partial else [])]

    async def attribute(self, name: str) -> str:
        """One of them. Asks what the name is; of a tag's, where it leads. Raises NotFound, NoSuchAttribute."""
        if (
            name.startswith("oci.")
            and self.may_be_tag
            and await self.registry.is_tag(self.repository, self.name)
        ):
            return await super().attribute(name)
        if self.full:
            await self.settle()
        if self._is_known_tag and name != "regfs.partial":
            return await super().attribute(name)
        if name == "regfs.reference":
            return f"{self.registry.source.name}/{self.full}".rstrip("/")
        if name == "regfs.partial" and self.full in self.registry.partial:
            return "1"
        return await Node.attribute(self, name)


class Listed(Sequence[Node]):
    """A listing whose nodes are made as they are read: a folder may hold a hundred thousand names.

    What is the same for all its tags is found once for a stretch of them (`stretch`), not once an entry.
    """

    def __init__(self, folder: NameFolder, names: Sequence[str], nested: frozenset[str]) -> None:
        self._folder = folder
        self._full = folder.full
        self._names = names
        self._nested = nested

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> Node: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Node]: ...
    def __getitem__(self, place: int | slice) -> Node | Sequence[Node]:
        if isinstance(place, slice):
            return [self._node(name) for name in self._names[place]]
        return self._node(self._names[place])

    def _node(self, name: str) -> Node:
        folder = self._folder
        if name == REPOS:
            return folder.beside(name)
        children = folder.children
        known = children.get(name) if children is not None else None
        return known or folder.child(name, lambda: NameFolder(folder, name, folder.registry, self._full))

    def stretch(self) -> Callable[[Node], tuple[int, float] | None]:
        """A function that gives a tag's time and how long its name holds; None: the node itself must be asked."""
        registry = self._folder.registry
        holds_for = registry.listing_left(self._full)
        others = self._nested | {REPOS}
        if holds_for <= 0:
            return lambda _node: None
        time_of_all = registry.time_of_all(self._full)
        if time_of_all is not None:
            same = (time_of_all, holds_for)
            return lambda node: None if node.name in others else same
        times = registry.listed_times(self._full)

        def of(node: Node) -> tuple[int, float] | None:
            time_ns = None if node.name in others else times(node.name)
            return None if time_ns is None else (time_ns, holds_for)

        return of


class RegistryRoot(NameFolder):
    """A registry's own folder: its name and attributes never wait for the registry."""

    __slots__ = ()

    def __init__(self, parent: Node | None, name: str, registry: Registry) -> None:
        super().__init__(parent, name, registry)

    @property
    def full(self) -> str:
        """Empty: it is below no name."""
        return ""

    async def settle(self) -> None:
        """It is there, whatever the registry says."""

    @property
    def is_listed(self) -> bool:
        """True where what it lists, or that it may not be listed, is known without asking."""
        return self.registry.catalog.fresh() is not None or self.registry.catalog.refusal() is not None

    @property
    def mode(self) -> int | None:
        """0111 where nobody may list the registry and nothing below it is known; else the mount's."""
        refused = self.registry.catalog.refusal() is not None
        return 0o111 if refused and not self.registry.catalog.proven.children else None

    @property
    def role(self) -> Role | Answer:
        """Always a namespace."""
        return Role.NAMESPACE

    @property
    def holds_for(self) -> float:
        """1 s: a sign-out takes the folder away."""
        return 1.0


class ReposFolder(Beside):
    """``.repos``: the nested repositories alone, whatever tags bear their names."""

    __slots__ = ()

    async def find(self, name: str) -> Node:
        """A nested repository, asked for once something needs to know. Raises NotFound for what can be none."""
        if not is_component(name) or not is_repository(f"{self.repository}/{name}"):
            raise NotFound(f"{name[:80]!r} can be no repository")
        return self._folder(name)

    async def entries(self) -> Sequence[Node]:
        """The nested repositories. Raises what listing the repository does."""
        listing = await self.registry.list_folder(self.repository)
        return [self._folder(name) for name in listing.nested]

    async def rmdir(self, name: str) -> None:
        """Remove a nested repository that is empty. Raises NotEmpty, NotFound, Refused."""
        child = await self.find(name)
        await child.settle()
        listing = await self.registry.list_folder(f"{self.repository}/{name}")
        if listing.tags or listing.nested:
            raise NotEmpty(f"{self.repository}/{name} is not empty")
        await self.registry.remove_folder(f"{self.repository}/{name}")

    def _folder(self, name: str) -> Node:
        return self.child(
            name,
            lambda: NameFolder(self, name, self.registry, repository=self.repository, may_be_tag=False),
        )
