"""What stands on a tag only while it is deleted is never shown as the tag's content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import pytest

from regfs.errors import HalfDeleted
from regfs.manifest import OCI_INDEX
from regfs.ports import Recovers
from regfs.registry.throwaway import throw_away_index
from regfs.testing.images import Content, make_image
from regfs.testing.memory import Abilities, MemorySource
from tests.tree.kernel import mounted, run

C = TypeVar("C")


def cover(source: MemorySource) -> None:
    """Leave app:v1 as a daemon leaves it that is killed in the middle of its deletion."""
    source.push("app", ["v1", "v2"], make_image("original"))
    source.push_manifest("app", ["v1"], Content(OCI_INDEX, throw_away_index("a mark")))


@pytest.mark.parametrize("metered", [False, True])
def test_a_tag_whose_deletion_was_broken_off_says_so_and_nothing_else(metered: bool) -> None:
    async def test() -> None:
        source = MemorySource(abilities=Abilities(metered=metered))
        cover(source)
        async with mounted(source) as kernel:
            for question in (lambda: kernel.cat("app/v1/manifest.json"), lambda: kernel.ls("app/v1")):
                with pytest.raises(HalfDeleted):
                    await question()
                assert "broken off" in kernel.filesystem.errors.lines()[-1]
                assert "--rw" in kernel.filesystem.errors.lines()[-1]
            assert await kernel.ls("app") == ["v1", "v2"]
            source.push("app", "v1", make_image("anew"))
            assert await kernel.cat("app/v1/manifest.json") == make_image("anew").manifest.raw

    run(test)


class _Undoing(MemorySource):
    """A registry that puts the original back when it is asked to recover."""

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        return cast(C, self) if kind is Recovers else super().capability(kind, repository)

    async def recover(self) -> Sequence[str]:
        self.push("app", "v1", make_image("original"))
        return ["app:v1: undid a broken-off deletion"]


def test_who_reads_before_recovery_is_through_makes_it_go_through() -> None:
    async def test() -> None:
        source = _Undoing()
        cover(source)
        async with mounted(source, writable=True) as kernel:
            assert await kernel.cat("app/v1/manifest.json") == make_image("original").manifest.raw

    run(test)
