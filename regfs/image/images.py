"""Images as merged trees, each layer indexed when a question first needs it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import trio

from regfs.digest import Digest
from regfs.errors import DigestMismatch, IsADirectory, NotADirectory, NotFound, RegfsError, Unsupported
from regfs.image.early import Early, EarlyLayer
from regfs.image.limits import Limits
from regfs.image.members import Arrival, Layer, Layers, Member
from regfs.image.merge import LayerMissing, Merge, Place
from regfs.image.merge_layer import shown
from regfs.manifest import Descriptor, Manifest
from regfs.ports import EntryKind, RootEntries, RootEntry

T = TypeVar("T")

_LAYER: Final = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.v1\.tar|docker\.image\.rootfs\.diff\.tar)(?:[+.](?:gzip|zstd))?"
)
"""OCI image-spec media-types.md; Docker's image-spec v2 schema 2, and its zstd spelling as BuildKit writes it."""

_FOREIGN: Final = ("foreign", "nondistributable")

_ALONG: Final = 1024 * 1024
"""Bytes of layers that are fetched together with the one above them, unasked: less than a round trip costs."""

_LARGE: Final = 200
"""Names in a folder from which on it is merged in a thread: some two milliseconds' work."""

_READERS: Final = 4096
"""Of how many files the readers are kept: who searches a tree once does so again, and a reader takes longer to make than to ask."""

_LINES: Final = 50
"""Lines on one layer in ``.regfs/errors``, which keeps the last 200 of a mount."""


class LayeredImages:
    """`regfs.ports.Images` over opened layers. ``report`` is told what of an image is left out: image, line.

    ``raw_links``: symbolic links are shown as the image has them, wherever they lead.
    """

    def __init__(
        self,
        layers: Layers,
        *,
        limits: Limits | None = None,
        raw_links: bool = False,
        report: Callable[[str, str], None] = lambda _where, _line: None,
    ) -> None:
        self.layers = layers
        self.limits = limits or Limits()
        self.raw_links = raw_links
        self.report = report
        self._trees: WeakValueDictionary[tuple[str, Digest], ImageTree] = WeakValueDictionary()

    async def root(self, repository: str, image: Manifest) -> ImageTree:
        """See `regfs.ports.Images.root`."""
        if image.is_index or not (image.is_image or any(map(is_layer, image.layers))):
            raise Unsupported(f"{repository}@{image.digest} is no image: it has no root file tree")
        key = repository, image.digest
        tree = self._trees.get(key)
        if tree is None:
            tree = self._trees[key] = ImageTree(self, repository, image)
        return tree


def is_layer(descriptor: Descriptor) -> bool:
    """Whether a descriptor's media type is that of a layer which regfs can read."""
    return _LAYER.fullmatch(descriptor.media_type) is not None


def why_unreadable(descriptor: Descriptor) -> str:
    """Why a layer can't be read, by its media type; empty where it can."""
    if is_layer(descriptor):
        return ""
    name = shown(descriptor.media_type.encode()[:100])
    if any(word in descriptor.media_type for word in _FOREIGN):
        return f"its layer {descriptor.digest} is kept elsewhere, not in the registry ({name})"
    if "encrypted" in descriptor.media_type:
        return f"its layer {descriptor.digest} is encrypted ({name})"
    return f"its layer {descriptor.digest} is of a kind that regfs can't read ({name})"


class ImageTree:
    """`regfs.ports.RootTree` of one image. Layers count from the bottom, as in the manifest."""

    def __init__(self, images: LayeredImages, repository: str, image: Manifest) -> None:
        self._images = images
        self._repository = repository
        self._name = f"{repository}@{image.digest}"
        self._descriptors: Sequence[Descriptor] = image.layers
        self._layers: dict[int, Layer] = {}
        self._faults: list[tuple[int, str]] = []
        self._merge = Merge(
            len(image.layers),
            images.limits,
            raw_links=images.raw_links,
            on_fault=lambda layer, line: self._faults.append((layer, line)),
        )
        self._merging = trio.Lock()
        self._readers: dict[Hashable, MemberReader] = {}
        self._arriving: dict[int, EarlyLayer] = {}

    # ── what is asked ──

    async def find(self, path: bytes) -> RootEntry:
        """See `regfs.ports.RootTree.find`."""
        found = await self._answer(partial(self._merge.find, path))
        if found is None:
            raise NotFound(f"the image has no {shown(path)}")
        return found

    async def soon(self, path: bytes) -> RootEntry:
        """See `regfs.ports.RootTree.soon`."""
        found = await self._answer(partial(self._merge.find, path), soon=partial(self._early, path))
        if found is None:
            raise NotFound(f"the image has no {shown(path)}")
        return found

    def became(self, identity: Hashable) -> Hashable:
        """See `regfs.ports.RootTree.became`."""
        if not isinstance(identity, Early):
            return identity
        is_final = identity.has_member and identity.arrival.verified
        return Place(identity.layer, identity.number).identity if is_final else None

    async def entries(self, path: bytes) -> RootEntries:
        """See `regfs.ports.RootTree.entries`."""
        size = await self._answer(partial(self._merge.size, path), every=not path)
        if size is not None and size >= _LARGE:
            found = await self._answer_in_thread(partial(self._merge.entries, path))
        else:
            found = await self._answer(partial(self._merge.entries, path))
        if found is None:
            await self.find(path)
            raise NotADirectory(f"{shown(path)} is not a folder")
        return found

    async def open(self, entry: RootEntry) -> MemberReader:
        """See `regfs.ports.RootTree.open`."""
        if entry.kind is not EntryKind.FILE:
            raise IsADirectory(f"{shown(entry.path)} is no file: there is nothing to read")
        if isinstance(entry.identity, Early):
            entry.identity.arrival.check()
            return MemberReader(entry.identity.arrival, entry.identity.member)
        place = self._merge.place_of(entry)
        reader = MemberReader(await self._opened(place.layer), self._merge.member(place))
        if reader.verified:
            if len(self._readers) >= _READERS:
                self._readers.clear()
            self._readers[entry.identity] = reader
        return reader

    def opened_of_late(self, identity: Hashable) -> MemberReader | None:
        """See `regfs.ports.RootTree.opened_of_late`."""
        reader = self._readers.get(identity)
        return reader if reader is not None and reader.verified else None

    def again(self, path: bytes, identity: Hashable) -> RootEntry:
        """See `regfs.ports.RootTree.again`."""
        if isinstance(identity, Early):
            return identity.again(path)
        found = self._merge.again(path, identity)
        assert found is not None, "it was found before"
        return found

    def layer_of(self, entry: RootEntry) -> Digest | None:
        """See `regfs.ports.RootTree.layer_of`."""
        if isinstance(entry.identity, Early):
            return self._descriptors[entry.identity.layer].digest if entry.identity.has_member else None
        return None if entry.identity is None else self._descriptors[self._merge.place_of(entry).layer].digest

    # ── how it is answered ──

    async def _answer(
        self,
        question: Callable[[], T],
        *,
        every: bool = False,
        soon: Callable[[int], Awaitable[T | None]] | None = None,
    ) -> T:
        """Add what layers the answer needs; ``soon`` may have it before a layer can be added."""
        while True:
            try:
                return question()
            except LayerMissing as missing:
                early = None if soon is None else await soon(missing.layer)
                if early is not None:
                    return early
                await self._add(missing.layer, every=every)
            finally:
                self._tell()

    async def _answer_in_thread(self, question: Callable[[], T]) -> T:
        while True:
            try:
                async with self._merging:
                    return await trio.to_thread.run_sync(question)
            except LayerMissing as missing:
                await self._add(missing.layer)
            finally:
                self._tell()

    async def _early(self, path: bytes, layer: int) -> RootEntry | None:
        """What a layer that is still arriving has at a path, once it has it; None: it has to be added."""
        if not self._merge.leaves(path, layer):
            return None
        opened = await self._opened(layer)
        if opened.is_complete:
            return None
        arrival = opened.arrive()
        early = self._arriving.get(layer)
        if early is None or early.arrival is not arrival:
            early = self._arriving[layer] = EarlyLayer(
                arrival,
                layer,
                self._images.limits,
                lambda name: self._merge.leaves(name, layer),
                raw_links=self._images.raw_links,
            )
        return await self._beside(self._along(layer, every=False), partial(early.find, path))

    async def _add(self, layer: int, *, every: bool = False) -> None:
        """Add a layer, and first what it needs of those below it. Those that will be needed too are indexed meanwhile."""
        others = self._along(layer, every=every)
        members = await self._beside(others, partial(self._members, layer), to_the_end=True)
        while not self._merge.has(layer):
            try:
                async with self._merging:
                    if not self._merge.has(layer):
                        await trio.to_thread.run_sync(self._merge.add, layer, members)
                        self._arriving.pop(layer, None)
            except LayerMissing as missing:
                await self._add(missing.layer)
        self._tell()

    def _along(self, layer: int, *, every: bool) -> Sequence[int]:
        """The layers below that are asked for at the same time; ``every``: all that lack."""
        below = [other for other in range(layer - 1, -1, -1) if not self._merge.has(other)]
        if every:
            return below
        small: list[int] = []
        room = _ALONG
        for other in below:
            room -= self._descriptors[other].size
            if room < 0:
                break
            small.append(other)
        return small

    async def _beside(
        self, others: Sequence[int], work: Callable[[], Awaitable[T]], *, to_the_end: bool = False
    ) -> T:
        """Do that while other layers are indexed, and wait for these too, if it is to their end."""
        done: list[T] = []
        failure: RegfsError | None = None
        async with trio.open_nursery() as nursery:
            for other in others:
                nursery.start_soon(self._index_ahead, other)
            try:
                done.append(await work())
            except RegfsError as error:
                failure = error
            if failure is not None or not to_the_end:
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return done[0]

    async def _index_ahead(self, layer: int) -> None:
        with suppress(RegfsError):  # whoever needs it asks, and is told
            await self._members(layer)

    async def _members(self, layer: int) -> Sequence[Member]:
        opened = await self._opened(layer)
        members = await opened.members()
        self._faults += [(layer, line) for line in opened.faults if not self._merge.has(layer)]
        return members

    async def _opened(self, layer: int) -> Layer:
        descriptor = self._descriptors[layer]
        reason = why_unreadable(descriptor)
        if reason:
            raise Unsupported(f"{self._name}: {reason}; what the layers above it have can be read")
        if layer not in self._layers:
            self._layers[layer] = await self._images.layers.open(self._repository, descriptor)
        return self._layers[layer]

    def _tell(self) -> None:
        """Report what was left out; it may have been found in a thread."""
        faults, self._faults[:] = list(self._faults), []
        told: dict[int, int] = {}
        for layer, line in dict.fromkeys(faults):
            told[layer] = told.get(layer, 0) + 1
            if told[layer] <= _LINES:
                self._images.report(self._name, f"layer {self._descriptors[layer].digest}: {line}")


class MemberReader:
    """`regfs.ports.ContentReader` of one file of a layer."""

    def __init__(self, layer: Layer | Arrival, member: Member) -> None:
        self._layer = layer
        self._member = member

    @property
    def size(self) -> int:
        """In bytes."""
        return self._member.size

    @property
    def verified(self) -> bool:
        """Whether its layer was verified."""
        return self._layer.verified

    async def read(self, start: int, length: int) -> bytes:
        """See `regfs.ports.ContentReader.read`."""
        data = await self._layer.read(self._member, start, length)
        if len(data) < min(length, self._member.size - start):
            raise DigestMismatch(f"layer {self._layer.digest} has less of a file than its header says")
        return data

    async def aclose(self) -> None:
        """Nothing is held."""
