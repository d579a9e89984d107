"""What `ListsReferrers` has to do, as tests. `SourceContract` holds them; they are split off for size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, ClassVar

import trio

from regfs.digest import Digest
from regfs.manifest import Descriptor
from regfs.ports import ListsReferrers, Source
from regfs.reference import fallback_tag
from regfs.testing.contract_tools import Harness, about, run
from regfs.testing.images import Image, make_artifact, make_image, make_referrers_index

SBOM = "application/spdx+json"
SIGNATURE = "application/vnd.cncf.notary.signature"


async def referrers_of(lister: ListsReferrers, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
    """What refers to a manifest of ``team/app``, one that pages for ever a failure."""
    found: list[Descriptor] = []
    pages = 0
    async for page in lister.referrers("team/app", digest, artifact_type):
        found += page.referrers
        pages += 1
        assert pages < 1000, "the paging does not end"
    return found


class ReferrerContract:
    """The part of the suite that is about what refers to a manifest."""

    capabilities: ClassVar[Collection[type[Any]]] = ()
    keeps_referrers: ClassVar[bool] = True
    """Whether the registry keeps the list itself; else whoever pushes keeps it under the fallback tag."""
    many_referrers: ClassVar[int] = 120
    """How many manifests that refer to one make the registry page their list, if it does."""

    def refer(self, harness: Harness, subject: Image, referrers: Sequence[Image]) -> None:
        """Push what refers to a manifest, as a client does."""
        for one in referrers:
            harness.push("team/app", [f"about-{one.digest.hex[:12]}"], one)
        if not self.keeps_referrers:
            harness.push("team/app", [fallback_tag(subject.digest)], make_referrers_index(referrers))

    @about(ListsReferrers)
    def test_what_refers_to_a_manifest_is_listed_once_with_its_type_and_nothing_else(
        self, harness: Harness
    ) -> None:
        image, other = make_image("image"), make_image("other")
        sbom = make_artifact(SBOM, subject=image.manifest, annotations={"by": "us"})
        signature = make_artifact(SIGNATURE, subject=image.manifest)
        harness.push("team/app", ["v1"], image)
        harness.push("team/app", ["v2"], other)
        self.refer(harness, image, [sbom, signature])
        self.refer(harness, other, [make_artifact(SBOM, subject=other.manifest)])

        async def body(lister: ListsReferrers) -> None:
            found = await referrers_of(lister, image.digest)
            assert sorted(d.digest for d in found) == sorted((sbom.digest, signature.digest))
            told = next(d for d in found if d.digest == sbom.digest)
            assert (told.size, told.media_type) == (len(sbom.manifest.raw), sbom.manifest.media_type)
            assert told.artifact_type == SBOM
            assert told.annotations.get("by") == "us"

        self._with_lister(harness, body)

    @about(ListsReferrers)
    def test_referrers_of_one_type_are_asked_for_alone(self, harness: Harness) -> None:
        image = make_image("image")
        sbom = make_artifact(SBOM, subject=image.manifest)
        harness.push("team/app", ["v1"], image)
        self.refer(harness, image, [sbom, make_artifact(SIGNATURE, subject=image.manifest)])

        async def body(lister: ListsReferrers) -> None:
            assert [d.digest for d in await referrers_of(lister, image.digest, SBOM)] == [sbom.digest]
            assert await referrers_of(lister, image.digest, "application/absent") == []

        self._with_lister(harness, body)

    @about(ListsReferrers)
    def test_nothing_refers_to_most_manifests_nor_to_one_that_is_not_there(self, harness: Harness) -> None:
        image = make_image()
        harness.push("team/app", ["v1"], image)

        async def body(lister: ListsReferrers) -> None:
            assert await referrers_of(lister, image.digest) == []
            assert await referrers_of(lister, make_image("absent").digest) == []

        self._with_lister(harness, body)

    @about(ListsReferrers)
    def test_many_referrers_are_listed_to_the_end_and_a_reader_may_leave(self, harness: Harness) -> None:
        image = make_image()
        names = [f"{number}.json" for number in range(self.many_referrers)]
        many = [make_artifact(SBOM, {name: b"{}"}, subject=image.manifest) for name in names]
        harness.push("team/app", ["v1"], image)

        async def body(lister: ListsReferrers) -> None:
            await trio.to_thread.run_sync(self.refer, harness, image, many)
            found = await referrers_of(lister, image.digest)
            assert len(found) == len(many)
            assert {d.digest for d in found} == {one.digest for one in many}
            async for page in lister.referrers("team/app", image.digest):
                assert page.referrers
                break

        self._with_lister(harness, body)

    def _with_lister(self, harness: Harness, body: Callable[[ListsReferrers], Awaitable[None]]) -> None:
        """Run ``body`` on the capability."""

        async def inner(source: Source) -> None:
            lister = source.capability(ListsReferrers, "team/app")
            assert lister is not None, "ListsReferrers is declared, and not handed out"
            await body(lister)

        run(harness, inner)
