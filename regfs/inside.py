"""What shows the inside of images, put together when the first image is looked into: a mount's start has no use for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import trio

from regfs.manifest import Manifest
from regfs.ports import Blobs, Images, RootTree

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from regfs.image.images import LayeredImages


class LateImages:
    """`Images` of one registry. ``report`` takes a place and what is wrong there, for ``.regfs/errors``.

    ``limits``: numbers by their names in `Limits` and `ArchiveLimits`.
    """

    def __init__(
        self,
        blobs: Blobs,
        nursery: trio.Nursery,
        *,
        raw_links: bool,
        limits: Mapping[str, int],
        report: Callable[[str, str], None],
    ) -> None:
        self._blobs = blobs
        self._nursery = nursery
        self._raw_links = raw_links
        self._limits = limits
        self._report = report
        self._images: Images | None = None
        self._making = trio.Lock()

    async def root(self, repository: str, image: Manifest) -> RootTree:
        """See `regfs.ports.Images.root`."""
        if self._images is None:
            async with self._making:
                if self._images is None:
                    self._images = await self._make()
        return await self._images.root(repository, image)

    async def _make(self) -> LayeredImages:
        await trio.to_thread.run_sync(_import)
        from regfs.image.archive_limits import ArchiveLimits
        from regfs.image.images import LayeredImages
        from regfs.image.layer import IndexedLayers
        from regfs.image.limits import Limits

        limits = Limits(**_of(Limits, self._limits))
        layers = IndexedLayers(self._blobs, limits, ArchiveLimits(**_of(ArchiveLimits, self._limits)))
        layers.start(self._nursery)
        return LayeredImages(layers, limits=limits, raw_links=self._raw_links, report=self._report)


def _of(kind: type[DataclassInstance], limits: Mapping[str, int]) -> dict[str, int]:
    """Those of the limits that are fields of ``kind``."""
    return {limit.name: limits[limit.name] for limit in fields(kind) if limit.name in limits}


def _import() -> None:
    """In a thread: it takes several milliseconds."""
    import regfs.image.images
    import regfs.image.layer  # noqa: F401 - the import is what is wanted
