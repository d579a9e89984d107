"""What every `Source` has to do, as tests: subclass `SourceContract` and say what your Source is.

    class TestMySource(SourceContract):
        capabilities = MyProvider.capabilities

        @pytest.fixture
        def harness(self) -> Iterator[Harness]:
            with my_server() as server:
                yield MyHarness(server)

Each test gets a harness of its own: an empty registry that the suite fills from outside, never through the Source.
For readable failures call ``pytest.register_assert_rewrite("regfs.testing.contract")`` in conftest.py, before the import.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import pytest
import trio

from regfs.digest import Digest
from regfs.manifest import Descriptor
from regfs.ports import Source
from regfs.testing.contract_capabilities import KINDS, CapabilityContract, use_capabilities
from regfs.testing.contract_tools import (
    Harness,
    blob_of,
    large_image,
    manifest_of,
    noise,
    not_found,
    requests_of,
    run,
    tags_of,
)
from regfs.testing.images import Family, Image, Pushable, make_image, make_index
from regfs.testing.steps import Steps, parsing_time

__all__ = ["KINDS", "Harness", "SourceContract"]

_ABSENT: Final = Digest("sha256", "1" * 64)


class SourceContract(CapabilityContract):
    """The suite. ``capabilities`` are those that the Source hands out here; ``families`` whose media types the registry
    takes; ``many`` how many tags make it page, if it does."""

    families: ClassVar[tuple[Family, ...]] = ("oci", "docker")
    many: ClassVar[int] = 250
    large: ClassVar[int] = 32 * 1024 * 1024
    """The size of a layer, in bytes, that shows whether reading it blocks the loop."""

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        """An empty registry. Every subclass has its own."""
        raise NotImplementedError("a contract's subclass provides `harness`")

    def test_it_has_a_name_and_answers_a_check(self, harness: Harness) -> None:
        async def body(source: Source) -> None:
            assert source.name
            assert "://" not in source.name
            await source.check()

        run(harness, body)

    def test_the_tags_are_those_that_were_pushed(self, harness: Harness) -> None:
        harness.push("team/app", ["v1", "latest", "1.0_rc-2", "V1"], make_image())
        harness.push("team/other", ["other"], make_image("other"))
        assert sorted(run(harness, tags_of("team/app"))) == ["1.0_rc-2", "V1", "latest", "v1"]

    def test_many_tags_come_once_each_and_come_to_an_end(self, harness: Harness) -> None:
        names = [f"v{number}" for number in range(self.many)]
        harness.push("team/app", names, make_image())
        assert sorted(run(harness, tags_of("team/app"))) == sorted(names)

    def test_a_listing_costs_no_request_a_tag(self, harness: Harness) -> None:
        few, more = ["v1", "v2", "v3"], [f"v{number}" for number in range(90)]
        harness.push("team/few", few, make_image())
        harness.push("team/more", more, make_image())

        async def body(source: Source) -> None:
            costs = []
            for repository in ("team/few", "team/few", "team/more"):  # the first look may sign in
                before = requests_of(harness, source)
                await tags_of(repository)(source)
                costs.append((requests_of(harness, source) or 0) - (before or 0))
            assert costs[2] <= costs[1] + len(more) // 5, f"{costs[2]} requests for {len(more)} tags"

        run(harness, body)

    def test_a_listing_may_be_left_early(self, harness: Harness) -> None:
        harness.push("team/app", [f"v{number}" for number in range(self.many)], make_image())

        async def body(source: Source) -> None:
            pages = source.tags("team/app")
            assert len((await anext(pages)).names) > 0
            close = getattr(pages, "aclose", None)
            if close is not None:
                await close()
            assert (await source.manifest("team/app", "v1")).raw == make_image().manifest.raw

        run(harness, body)

    def test_an_absent_repository_has_no_tags_to_list(self, harness: Harness) -> None:
        harness.push("team/app", ["v1"], make_image())
        for absent in ("team/absent", "absent", "team", "team/app/below"):
            with not_found():
                run(harness, tags_of(absent))

    def test_a_manifest_is_given_byte_by_byte_by_tag_and_by_digest(self, harness: Harness) -> None:
        pushed: dict[str, Pushable] = {}
        for family in self.families:
            pushed |= {f"i-{family}": make_image(family=family), f"x-{family}": make_index(family=family)}
        for tag, what in pushed.items():
            harness.push("team/app", [tag], what)

        async def body(source: Source) -> None:
            for tag, what in pushed.items():
                for reference in (tag, what.digest):
                    found = await source.manifest("team/app", reference)
                    assert found.raw == what.manifest.raw
                    assert found.media_type == what.manifest.media_type
                    assert found.claimed in (None, what.digest)

        run(harness, body)

    def test_the_members_of_an_index_are_there_by_digest(self, harness: Harness) -> None:
        index = make_index(attestations=True)
        harness.push("team/app", ["v1"], index)

        async def body(source: Source) -> None:
            for image in index.images:
                assert (await source.manifest("team/app", image.digest)).raw == image.manifest.raw

        run(harness, body)

    def test_absent_manifests_are_not_found(self, harness: Harness) -> None:
        harness.push("team/app", ["v1"], make_image())
        for repository, reference in (("team/app", "v2"), ("team/app", _ABSENT), ("team/absent", "v1")):
            with not_found():
                run(harness, manifest_of(repository, reference))

    def test_a_tag_that_moves_is_seen_at_its_new_place(self, harness: Harness) -> None:
        harness.push("team/app", ["v1"], make_image("old"))

        async def body(source: Source) -> None:
            assert (await source.manifest("team/app", "v1")).raw == make_image("old").manifest.raw
            await trio.to_thread.run_sync(harness.push, "team/app", ["v1", "v2"], make_image("new"))
            assert (await source.manifest("team/app", "v1")).raw == make_image("new").manifest.raw
            assert sorted(await tags_of("team/app")(source)) == ["v1", "v2"]

        run(harness, body)

    def test_a_blob_is_given_whole_and_in_ranges(self, harness: Harness) -> None:
        image = make_image(files={"big": bytes(range(256)) * 2048})
        harness.push("team/app", ["v1"], image)
        blob = image.layers[0]
        size = len(blob.raw)
        spans = ((0, None), (0, size), (0, 1), (7, 100), (size // 2, None), (size - 1, size))

        async def body(source: Source) -> None:
            for start, end in spans:
                found = await blob_of(source, "team/app", blob.descriptor, start, end)
                assert found == blob.raw[start:end], (start, end)

        run(harness, body)

    def test_a_blob_may_be_left_before_its_end(self, harness: Harness) -> None:
        image = make_image(files={"big": noise(1_000_000)})
        harness.push("team/app", ["v1"], image)
        blob = image.layers[0]

        async def body(source: Source) -> None:
            async with source.blob("team/app", blob.descriptor) as pieces:
                first = await anext(aiter(pieces))
                assert blob.raw.startswith(first)
            assert await blob_of(source, "team/app", blob.descriptor, 5, 9) == blob.raw[5:9]

        run(harness, body)

    def test_an_absent_blob_is_not_found_on_entering(self, harness: Harness) -> None:
        harness.push("team/app", ["v1"], make_image())
        absent = Descriptor("application/octet-stream", _ABSENT, 10)

        async def body(source: Source) -> None:
            with not_found():
                await source.blob("team/app", absent).__aenter__()

        run(harness, body)

    def test_the_loop_is_blocked_neither_by_files_nor_by_large_content(self, harness: Harness) -> None:
        """A task opens no file itself, and no step of it takes half the processor time of parsing the content as JSON."""
        image, steps = large_image(self.large), Steps()
        harness.push("team/app", ["v1", "v2", "v3"], image)
        run(harness, lambda source: self._use(source, image, "v2"))  # imports what is needed
        with steps.watching():
            run(harness, lambda source: self._use(source, image, "v3"), steps)
        assert steps.blocking == [], "for a thread: trio.to_thread.run_sync"
        assert steps.longest < parsing_time(self.large) / 2, "for a thread: trio.to_thread.run_sync"

    def test_calls_at_the_same_time_do_not_mix_up(self, harness: Harness) -> None:
        images = {f"v{number}": make_image(f"{number}") for number in range(20)}
        for tag, image in images.items():
            harness.push("team/app", [tag], image)
        found: dict[str, bytes] = {}

        async def body(source: Source) -> None:
            async def get(tag: str) -> None:
                found[tag] = (await source.manifest("team/app", tag)).raw

            async with trio.open_nursery() as nursery:
                for tag in images:
                    nursery.start_soon(get, tag)

        run(harness, body)
        assert found == {tag: image.manifest.raw for tag, image in images.items()}

    async def _use(self, source: Source, image: Image, tag: str) -> None:
        """Do all that can be done, and delete ``tag`` where that is declared."""
        await source.check()
        await tags_of("team/app")(source)
        for reference in (tag, image.digest):
            await source.manifest("team/app", reference)
        async with source.blob("team/app", image.layers[0].descriptor) as pieces:
            size = 0
            async for piece in pieces:
                size += len(piece)
        assert size == len(image.layers[0].raw)
        await use_capabilities(source, image, tag)
