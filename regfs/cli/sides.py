"""The two images that `regfs diff` compares, and their files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regfs.cli.differences import Change, shared_below
from regfs.cli.edge import Advised
from regfs.errors import RegfsError, Unsupported
from regfs.manifest import Descriptor, Manifest
from regfs.ports import EntryKind, RootEntry

if TYPE_CHECKING:
    from regfs.cli.filediff import FileTree
    from regfs.cli.images import Image
    from regfs.cli.walk import Trees
    from regfs.image.layer import IndexedLayers
    from regfs.image.members import Member
    from regfs.tree.registry import Registry


@dataclass(frozen=True, slots=True)
class Side:
    """One image: of an index the one for a platform."""

    image: Image
    manifest: Manifest


async def file_changes(trees: Trees, old: Side, new: Side, *, times: bool) -> list[Change]:
    """What differs in the files of two images, or in the blobs of two artifacts. Raises what reading a layer raises."""
    if old.manifest.is_image != new.manifest.is_image:
        raise Advised(
            "an image and an artifact have no files to compare", "Say what to compare: --config, --layers."
        )
    if not old.manifest.is_image:
        return artifact_changes(old.manifest, new.manifest)
    shared = shared_below(old.manifest.layers, new.manifest.layers)
    if shared == len(old.manifest.layers) == len(new.manifest.layers):
        return []
    from regfs.cli.filediff import Comparison, Touched

    touched = Touched()
    # Both registries are opened before either's tree, and closed behind both.
    places = [await _where(trees, side) for side in (old, new)]
    async with _opened_tree(old, *places[0]) as a, _opened_tree(new, *places[1]) as b:
        for tree in (a, b):
            for layer in tree.layers[shared:]:
                touched.take(await tree.members(layer))
        return await Comparison(a.files, b.files, times=times).changes(touched)


@dataclass(frozen=True, slots=True)
class _Tree:
    """One image's merged tree, and its layers."""

    files: FileTree
    opened: IndexedLayers
    repository: str

    @property
    def layers(self) -> Sequence[Descriptor]:
        """From the bottom up."""
        return self.files.layers

    async def members(self, layer: Descriptor) -> Sequence[Member]:
        """What a layer names, in the order of its archive."""
        from regfs.image.images import why_unreadable

        reason = why_unreadable(layer)
        if reason:
            raise Unsupported(f"{self.repository}: {reason}")
        return await (await self.opened.open(self.repository, layer)).members()


@asynccontextmanager
async def _opened_tree(side: Side, registry: Registry, repository: str) -> AsyncIterator[_Tree]:
    """An image's tree, with links as the image has them; its layers come from the cache or the registry."""
    import trio

    from regfs.cli.edge import say
    from regfs.cli.filediff import FileTree
    from regfs.image.images import LayeredImages
    from regfs.image.layer import IndexedLayers

    opened = IndexedLayers(registry.blobs)
    errors: list[RegfsError] = []
    async with trio.open_nursery() as nursery:
        opened.start(nursery)
        images = LayeredImages(
            opened, raw_links=True, report=lambda where, line: say(f"regfs: {where}: {line}")
        )
        try:
            root = await images.root(repository, side.manifest)
            yield _Tree(FileTree(root, side.manifest.layers), opened, repository)
        except RegfsError as error:
            errors.append(error)  # raised below, bare: a nursery would wrap it
        nursery.cancel_scope.cancel()
    if errors:
        raise errors[0]


async def _where(trees: Trees, side: Side) -> tuple[Registry, str]:
    """The registry that holds an image, and its repository. What is in a mount is read beside the mount, by the same cache."""
    from regfs.cli.places import InTree
    from regfs.cli.references import Named

    name = Named(side.image.reference).repository
    place = side.image.place
    tree = place.tree if isinstance(place, InTree) else (await trees.locate(name))[0]
    registry = next(iter(tree.filesystem.registries.values()))
    return registry, name.removeprefix(registry.source.name).strip("/")


def artifact_changes(old: Manifest, new: Manifest) -> list[Change]:
    """The blobs that differ, by the names that `layers/` gives them."""
    from regfs.cli.filediff import Fact
    from regfs.tree.titles import artifact_names

    def facts(manifest: Manifest) -> dict[str, tuple[Descriptor, Fact]]:
        named = artifact_names(manifest.layers)
        return {
            name: (blob, Fact(RootEntry(name.encode(), EntryKind.FILE, 0o444, size=blob.size)))
            for name, blob in named.items()
        }

    before, after = facts(old), facts(new)
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        a, b = before.get(name), after.get(name)
        if a is None or b is None:
            found.append(Change(name, a and a[1], b and b[1]))
        elif a[0].digest != b[0].digest:
            size: Any = ("size",) if a[0].size != b[0].size else ()
            found.append(Change(name, a[1], b[1], (*size, "content")))
    return found
