"""``regfs warm``: fetch images ahead, so that reading them later asks no registry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from regfs.cli import output
from regfs.cli.du import human
from regfs.cli.edge import FAILED, OK, Advised, complain, printable, reason, say
from regfs.errors import NotFound, RegfsError, Unsupported

if TYPE_CHECKING:
    from regfs.cache.disk import DiskStore
    from regfs.cli.images import Image
    from regfs.cli.places import Place
    from regfs.cli.walk import Trees
    from regfs.digest import Digest
    from regfs.manifest import Descriptor, Manifest

JOBS: Final = 4
"""Blobs fetched at once, unless said otherwise: more gain nothing on one line, and registries count them."""

_MAX_JOBS: Final = 16
_MANIFESTS: Final = 8
_LOOKS: Final = 20
_PAUSE: Final = 0.1
_SHOWN: Final = 19
"""Characters of a digest that a line shows: ``sha256:`` and twelve digits."""


@click.command()
@click.option(
    "-j", "--jobs", type=click.IntRange(1, _MAX_JOBS), default=JOBS, help=f"Blobs at once ({JOBS})."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Say what was fetched as JSON.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def warm(paths: tuple[str, ...], jobs: int, quiet: bool, as_json: bool) -> int:
    """Fetch everything of each PATH into the cache: layers, configs, an index's platforms, and what `rootfs` needs to open.

    PATH is a tag or digest, a repository or a namespace, or a single file, in a mount or as REGISTRY/PATH. What is there is
    not fetched again, and what Ctrl-C broke off is taken up by the next call.
    """
    import sys

    from regfs.cli import walk
    from regfs.cli.session import load

    settings, _ = load()
    if settings.cache_size == 0:
        raise Advised("nothing would be kept: `cache_size` is 0", "Set it in the config.")
    limit, folder = settings.cache_size, settings.cache_folder
    shows_bar = not quiet and sys.stderr.isatty()

    async def fetch(trees: Trees) -> _Warming:
        from regfs.cache.disk import DiskStore

        warming = _Warming(trees, DiskStore(folder, limit), limit)
        progress = _Progress(shows_bar=shows_bar, quiet=quiet)
        for path in paths:
            await warming.plan(path)
        await warming.run(jobs, progress)
        return warming

    done = walk.run(fetch, ends_in_order=True)
    done.report(as_json)
    return FAILED if done.failures else OK


@dataclass(frozen=True, slots=True)
class Blob:
    """One thing to fetch: the file through which it is read, and how messages call it."""

    place: Place
    path: str
    shown: str
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Root:
    """An image's `rootfs`, which is to open at once later."""

    place: Place
    path: str
    reference: str
    manifest: Manifest


@dataclass(slots=True)
class _Warming:
    trees: Trees
    store: DiskStore
    limit: int
    work: dict[Digest, Blob] = field(default_factory=dict)
    roots: dict[Digest, Root] = field(default_factory=dict)
    there: dict[Digest, Blob] = field(default_factory=dict)
    fetched: list[Blob] = field(default_factory=list)
    failures: list[tuple[str, RegfsError]] = field(default_factory=list)

    async def run(self, jobs: int, progress: _Progress) -> None:
        """Fetch all that was planned, ``jobs`` blobs at once."""
        self.warn_of_limit()
        with progress.over(self.work):
            await self.fetch(jobs, progress)
        await self.check_kept()

    # ── what is to be fetched ──

    async def plan(self, path: str) -> None:
        """Find what an argument names; what fails is kept for the end."""
        from regfs.cli import images, places

        try:
            place, inside = await places.find(self.trees, path)
            image = await images.image_at(place, inside)
            if image is None:
                await self._plan_all([below async for below in images.images_below(place, inside)])
            elif not await place.is_folder(inside) and (blob := await _single(image, inside, path)):
                await self._add(blob)
            else:
                await self._plan_image(image)
        except RegfsError as error:
            self.failures.append((path, error))

    async def _plan_all(self, found: Sequence[Image]) -> None:
        """The manifests of several images, together."""
        import trio

        limiter = trio.CapacityLimiter(_MANIFESTS)

        async def one(image: Image) -> None:
            async with limiter:
                try:
                    await self._plan_image(image)
                except RegfsError as error:
                    self.failures.append((image.reference, error))

        async with trio.open_nursery() as nursery:
            for image in found:
                nursery.start_soon(one, image)

    async def _plan_image(self, image: Image) -> None:
        from regfs.cli import images

        contents = await images.contents(image)
        root = image.by_digest(contents.manifests[0].digest)
        for descriptor in contents.blobs():
            path = _in_layout(root, descriptor.digest)
            await self._add(Blob(image.place, path, image.reference, descriptor))
        for manifest in contents.manifests:
            if manifest.is_image:
                folder = image.by_digest(manifest.digest).folder
                self.roots[manifest.digest] = Root(image.place, f"{folder}/rootfs", image.reference, manifest)

    async def _add(self, blob: Blob) -> None:
        digest = blob.descriptor.digest
        if digest in self.work or digest in self.there:
            return
        if await self._is_there(blob):
            self.there[digest] = blob
        else:
            self.work[digest] = blob

    async def _is_there(self, blob: Blob) -> bool:
        """Whether it is kept, verified: by the mount's own word, or in the cache."""
        from regfs.cli.places import OnMount

        if isinstance(blob.place, OnMount):
            return await blob.place.attribute(blob.path, "user.oci.verified") == "1"
        found = await self.store.open(blob.descriptor.digest, blob.descriptor.size)
        if found is None:
            return False
        await found.aclose()
        return True

    def warn_of_limit(self) -> None:
        """Say so where all of it can't be kept."""
        size = _size([*self.work.values(), *self.there.values()])
        if size > self.limit:
            say(
                f"regfs: this is {human(size)}, and the cache keeps {human(self.limit)}: the first of it will go again"
            )
            say("  Set `cache_size` in the config.")

    # ── fetching ──

    async def fetch(self, jobs: int, progress: _Progress) -> None:
        """Fetch what is missing, ``jobs`` at once, and then have what `rootfs` needs made. What fails is kept for the end."""
        import trio

        limiter = trio.CapacityLimiter(jobs)

        async def one(blob: Blob) -> None:
            async with limiter:
                try:
                    async with aclosing(blob.place.pieces(blob.path)) as pieces:
                        async for piece in pieces:
                            progress.came(len(piece))
                    self.fetched.append(blob)
                    progress.done(blob)
                except RegfsError as error:
                    if _is_elsewhere(blob.descriptor) and isinstance(error, NotFound | Unsupported):
                        say(f"regfs: {_named(blob)}: it is kept elsewhere, not in the registry")
                    else:
                        self.failures.append((_named(blob), error))

        async with trio.open_nursery() as nursery:
            for blob in self.work.values():
                nursery.start_soon(one, blob)
        failed = {name for name, _ in self.failures}
        for root in self.roots.values():
            if not any(name.startswith(root.reference) for name in failed):
                await self._open_root(root)

    async def check_kept(self) -> None:
        """See that what was fetched is in the cache. What has just come may need a moment to be under its name."""
        import trio

        lacking = self.fetched
        for _ in range(_LOOKS):
            lacking = [blob for blob in lacking if not await self._is_there(blob)]
            if not lacking:
                return
            await trio.sleep(_PAUSE)
        error = Advised(
            f"{len(lacking)} of what was fetched ({human(_size(lacking))}) is not in the cache: there is no room for it",
            "Look at `regfs cache`, at `cache_size` in the config, and at the disk.",
        )
        self.failures.append((", ".join(dict.fromkeys(blob.shown for blob in lacking)), error))

    async def _open_root(self, root: Root) -> None:
        """Listing a root looks into all its layers, and what was found there is kept, a moment later."""
        try:
            await root.place.names(root.path)
        except (NotFound, Unsupported):
            return  # an attestation, or layers that are kept elsewhere: there is no tree to open
        except RegfsError as error:
            self.failures.append((f"{root.reference}: rootfs", error))
            return
        from regfs.cli.places import OnMount

        if not isinstance(root.place, OnMount):  # a mount's daemon lives on
            for layer in root.manifest.layers:
                await self._await_index(layer)

    async def _await_index(self, layer: Descriptor) -> None:
        import trio

        from regfs.image import indexfile

        for _ in range(_LOOKS):
            found = await self.store.open_derived(layer.digest, indexfile.NAME, indexfile.VERSION)
            if found is not None:
                await found.aclose()
                return
            await trio.sleep(_PAUSE)

    # ── the end ──

    def report(self, as_json: bool) -> None:
        """Say what was fetched and what was there, and what failed."""
        if as_json:
            output.as_json(self._as_dict())
        for name, error in self.failures:
            complain(error, name)
        if not as_json:
            fetched, there = _size(self.fetched), _size(self.there.values())
            output.line(
                f"fetched {len(self.fetched)} blobs ({human(fetched)}), {len(self.there)} were there ({human(there)})"
                + (f", {len(self.failures)} failed" if self.failures else "")
            )

    def _as_dict(self) -> dict[str, Any]:
        def counted(blobs: Iterable[Blob]) -> dict[str, int]:
            kept = list(blobs)
            return {"blobs": len(kept), "size": _size(kept)}

        return {
            "fetched": counted(self.fetched),
            "there": counted(self.there.values()),
            "failed": [{"path": name, "error": reason(error)} for name, error in self.failures],
        }


async def _single(image: Image, path: str, shown: str) -> Blob | None:
    """A file that shows a blob, by what it says of itself; None for one that belongs to the manifest."""
    from regfs.digest import Digest
    from regfs.manifest import Descriptor

    if path.rpartition("/")[2] in ("manifest.json", "digest"):
        return None
    digest = await image.place.attribute(path, "user.oci.digest")
    size = await image.place.attribute(path, "user.oci.size")
    if digest is None or size is None or not size.isdigit():
        return None
    descriptor = Descriptor("", Digest.parse(digest), int(size))
    return Blob(image.place, _in_layout(image, descriptor.digest), shown, descriptor)


def _in_layout(image: Image, digest: Digest) -> str:
    """The path of a blob in an image's layout: there each has the same name, whatever it is."""
    return f"{image.folder}/oci/blobs/{digest.algorithm}/{digest.hex}"


def _is_elsewhere(descriptor: Descriptor) -> bool:
    """Whether a layer need not be in the registry (OCI image-spec, "Non-Distributable Layers")."""
    return any(word in descriptor.media_type for word in ("foreign", "nondistributable"))


def _size(blobs: Iterable[Blob]) -> int:
    return sum(blob.descriptor.size for blob in blobs)


def _named(blob: Blob) -> str:
    return f"{blob.shown}: {str(blob.descriptor.digest)[:_SHOWN]}"


class _Progress:
    """A bar on a terminal; elsewhere a line for each blob; or nothing."""

    def __init__(self, *, shows_bar: bool, quiet: bool) -> None:
        self._shows_bar = shows_bar
        self._quiet = quiet
        self._came = 0
        self._bar: Any = None

    @contextmanager
    def over(self, work: dict[Digest, Blob]) -> Iterator[None]:
        """Show the progress of this much work."""
        if not self._shows_bar or not work:
            yield
            return
        import sys

        total = _size(work.values())
        self._bar = click.progressbar(
            length=max(total, 1),
            label=f"{len(work)} blobs",
            file=sys.stderr,
            item_show_func=lambda _: f"{human(self._came)} of {human(total)}",
        )
        with self._bar:
            yield

    def came(self, size: int) -> None:
        """Bytes have come."""
        self._came += size
        if self._bar is not None:
            self._bar.update(size, self._came)

    def done(self, blob: Blob) -> None:
        """A blob is complete."""
        if self._bar is None and not self._quiet:
            say(printable(f"{_named(blob)} {human(blob.descriptor.size)}"))
