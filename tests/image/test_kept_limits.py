"""Limits that are others than those which an index was made within: what is shown is what they allow now."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest

from regfs.image.archive_limits import ArchiveLimits
from regfs.image.bounds import as_text, still_holds
from regfs.image.limits import Limits
from tests.image.hands import MIB, MemoryBlobs, gzipped, layer, run
from tests.image.test_hostile import END, good, header, pax, record

BOTH = (Limits(), ArchiveLimits())
Both = tuple[Limits, ArchiveLimits]


def within(**changed: int) -> Both:
    """The limits that a mount has unless it is told otherwise, but for these."""
    limits, archive = BOTH
    own = {field.name for field in fields(limits)}
    return (
        replace(limits, **{name: limit for name, limit in changed.items() if name in own}),
        replace(archive, **{name: limit for name, limit in changed.items() if name not in own}),
    )


async def looked_at(blob: bytes, blobs: MemoryBlobs, both: Both) -> tuple[list[bytes], Sequence[str], bool]:
    """The members' paths, what was left out, and whether the layer itself was read for that."""
    before = blobs.opened
    async with layer(blob, blobs, *both) as opened:
        paths = [member.path for member in await opened.members()]
        faults = tuple(opened.faults)
        if blobs.opened > before:
            await blobs.kept_more()
    return paths, faults, blobs.opened > before


def archive(*members: bytes) -> bytes:
    return gzipped(good() + b"".join(members) + END)


XATTR = pax(record(b"SCHILY.xattr.user.note", b"x" * 300)) + header(b"bearer")
LONG = pax(record(b"path", b"long/" * 60 + b"name")) + header()
LARGE = header(b"large", b"%011o\0" % (3 * MIB)) + random.Random(1).randbytes(3 * MIB)
EMPTY = header(b"large", b"%011o\0" % (3 * MIB)) + bytes(3 * MIB)

CASES = [
    pytest.param(archive(XATTR), {"xattr": 100}, b"bearer", id="xattr"),
    pytest.param(archive(XATTR), {"xattrs": 100}, b"bearer", id="xattrs"),
    pytest.param(archive(LONG), {"header": 100}, b"long/" * 60 + b"name", id="header"),
    pytest.param(archive(LONG), {"path": 100}, b"long/" * 60 + b"name", id="path"),
    pytest.param(archive(LARGE, header(b"last")), {"unpacked": MIB}, b"last", id="unpacked"),
    pytest.param(archive(EMPTY, header(b"last")), {"ratio": 2, "ratio_free": MIB}, b"last", id="ratio"),
    pytest.param(archive(pax(record(b"comment", b"a")) * 8 + header(b"last")), {"extended": 4}, b"last", id="extended"),
]  # fmt: skip


@pytest.mark.parametrize(("blob", "lower", "path"), CASES)
def test_a_limit_that_was_lowered_leaves_out_what_an_index_has(
    blob: bytes, lower: dict[str, int], path: bytes
) -> None:
    async def test() -> None:
        blobs = MemoryBlobs(blob)
        assert path in (await looked_at(blob, blobs, BOTH))[0]
        paths, faults, _ = await looked_at(blob, blobs, within(**lower))
        if "path" not in lower:  # which the merge sees to
            assert path not in paths
            assert len(faults) == 1
        again = await looked_at(blob, blobs, within(**lower))
        assert again == (paths, faults, False), "it is made anew once"

    run(test)


@pytest.mark.parametrize(("blob", "lower", "path"), CASES)
def test_a_limit_that_was_raised_lets_in_what_an_index_lacks(
    blob: bytes, lower: dict[str, int], path: bytes
) -> None:
    async def test() -> None:
        blobs = MemoryBlobs(blob)
        paths, faults, _ = await looked_at(blob, blobs, within(**lower))
        assert path not in paths
        assert faults
        paths, faults, _ = await looked_at(blob, blobs, BOTH)
        assert path in paths
        assert faults == ()

    run(test)


def test_an_index_that_lacks_nothing_holds_when_limits_are_raised() -> None:
    async def test() -> None:
        blob = archive(XATTR)
        blobs = MemoryBlobs(blob)
        await looked_at(blob, blobs, within(xattr=400, unpacked=MIB))
        paths, faults, was_read = await looked_at(blob, blobs, BOTH)
        assert (b"bearer" in paths, faults, was_read) == (True, (), False)

    run(test)


def test_what_the_merge_sees_to_reads_no_layer_anew() -> None:
    async def test() -> None:
        blob = archive(LONG)
        blobs = MemoryBlobs(blob)
        await looked_at(blob, blobs, BOTH)
        for lower in ({"members": 1}, {"path": 100}, {"name": 2}, {"depth": 3}, {"size": 0}):
            assert not (await looked_at(blob, blobs, within(**lower)))[2]

    run(test)


def test_two_mounts_with_limits_of_their_own_do_not_make_it_anew_by_turns() -> None:
    async def test() -> None:
        blob = archive(XATTR)
        blobs = MemoryBlobs(blob)
        await looked_at(blob, blobs, BOTH)
        reads = [(await looked_at(blob, blobs, both))[2] for both in (within(xattr=400), BOTH) * 3]
        assert reads == [True, False, False, False, False, False]

    run(test)


# ── the rule ──


def text(**changed: int) -> str:
    return as_text(*within(**changed))


@pytest.mark.parametrize("lacks", [True, False])
def test_the_same_limits_hold_and_unknown_ones_do_not(lacks: bool) -> None:
    assert still_holds(text(), text(), lacks=lacks)
    for other in ("", "Limits()", text().replace("members", "people"), f"{text()} more=1"):
        assert not still_holds(other, text(), lacks=lacks)


@pytest.mark.parametrize("name", [field.name for kind in BOTH for field in fields(kind)])
def test_each_limit_has_its_say(name: str) -> None:
    now = next(getattr(kind, name) for kind in BOTH if hasattr(kind, name))
    higher, lower = text(**{name: now + 1}), text(**{name: now - 1})
    assert still_holds(lower, text(), lacks=False)
    assert still_holds(lower, text(), lacks=True) == (name in ("name", "depth"))
    seen_later = name in ("members", "path", "name", "depth", "size")
    assert still_holds(higher, text(), lacks=False) == seen_later
    assert still_holds(higher, text(), lacks=True) == seen_later
