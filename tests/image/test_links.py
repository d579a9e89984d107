"""Where an image's links lead: inside it, whatever they say, and where they say, if that is inside."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from regfs.image.links import clamped, contained

parts = st.sampled_from([b"a", b"b", b"..", b".", b""])
targets = st.builds(
    lambda start, middle: start + b"/".join(middle), st.sampled_from([b"", b"/"]), st.lists(parts, max_size=8)
).filter(bool)
depths = st.integers(0, 4)


def followed(target: bytes, depth: int) -> int:
    """How many folders deep the lowest point is on the way from a folder ``depth`` deep, where no name is a link."""
    lowest = here = 0 if target.startswith(b"/") else depth
    for part in target.split(b"/"):
        here += -1 if part == b".." else part not in (b"", b".")
        lowest = min(lowest, here)
    return lowest


def where(target: bytes, depth: int) -> list[bytes]:
    """Where it ends, from a folder ``depth`` deep, in a root of which one can't climb out."""
    start = b"" if target.startswith(b"/") else b"/".join([b"d"] * depth) + b"/"
    return contained(start + target)


@given(targets, depths)
def test_no_link_climbs_out_and_none_is_absolute(target: bytes, depth: int) -> None:
    found = clamped(target, depth)
    assert found
    assert not found.startswith(b"/")
    assert followed(found, depth) >= 0


@given(targets, depths)
def test_a_link_ends_where_it_would_end_in_a_root_of_its_own(target: bytes, depth: int) -> None:
    assert where(clamped(target, depth), depth) == where(target, depth)


@given(targets, depths)
def test_behind_its_beginning_no_shown_link_climbs_since_a_name_may_be_a_link_itself(
    target: bytes, depth: int
) -> None:
    found = clamped(target, depth).split(b"/")
    climbs = [place for place, part in enumerate(found) if part == b".."]
    names = [place for place, part in enumerate(found) if part not in (b"", b".", b"..")]
    assert not climbs or not names or max(climbs) < min(names)


@given(st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=4).map(b"/".join), depths)
def test_a_link_that_stays_inside_is_shown_as_it_is(target: bytes, depth: int) -> None:
    assert clamped(target, depth) == target
    assert clamped(b"../" * depth + target, depth) == b"../" * depth + target


def test_links_as_images_have_them() -> None:
    assert clamped(b"/usr/bin", 0) == b"usr/bin"
    assert clamped(b"/usr/bin/", 2) == b"../../usr/bin/"
    assert clamped(b"../../../../etc/passwd", 1) == b"../etc/passwd"
    assert clamped(b"/", 0) == b"."
    assert clamped(b"/", 1) == b".."
    assert clamped(b"/../../proc/self", 1) == b"../proc/self"


def test_following_clamped_links_on_a_real_filesystem_stays_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "deep/er").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    chain = {
        "home": b"/",
        "deep/up": b"home/../../..",
        "deep/er/far": b"../up/../../../etc",
        "out": b"deep/up/../..",
    }
    for name, target in chain.items():
        (root / name).symlink_to(clamped(target, name.count("/")).decode())
    for name in chain:
        assert (root / name).resolve().is_relative_to(root), name
