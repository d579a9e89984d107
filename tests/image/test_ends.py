"""How an archive may end: writers differ in the zeros that they put behind the last member."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from regfs.image.archive_limits import ArchiveLimits
from regfs.image.limits import Limits
from regfs.image.members import Member
from regfs.image.tarwalk import TarWalk

BLOCK = 512


def archive(sizes: list[int]) -> tuple[bytes, int]:
    """An archive of files of those sizes, without anything behind the last one's content; and where that ends."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"f{number}")
            info.size = size
            tar.addfile(info, io.BytesIO(b"x" * size))
        end = tar.offset - (-sizes[-1] % BLOCK)
    return out.getvalue(), end


def walked(data: bytes, piece: int) -> tuple[list[bytes], list[str]]:
    members: list[Member] = []
    faults: list[str] = []
    walk = TarWalk(Limits(), ArchiveLimits(), members.append, faults.append)
    for at in range(0, len(data), piece):
        walk.give(data[at : at + piece])
    walk.finish()
    return [member.path for member in members], faults


@given(
    st.lists(st.integers(0, 1100), min_size=1, max_size=4),
    st.integers(1, 1600),
    st.integers(0, BLOCK - 1),
    st.integers(0, 2),
)
def test_zeros_that_lack_behind_the_last_member_are_no_fault(
    sizes: list[int], piece: int, padding: int, blocks: int
) -> None:
    whole, end = archive(sizes)
    lacking = -sizes[-1] % BLOCK
    behind = lacking + blocks * BLOCK if blocks else min(padding, lacking)
    names = [f"f{number}".encode() for number in range(len(sizes))]
    assert walked(whole[: end + behind], piece) == (names, [])


@given(st.integers(1, 1100), st.integers(1, 1600), st.data())
def test_content_that_lacks_is_told(size: int, piece: int, data: st.DataObject) -> None:
    whole, end = archive([3, size])
    lacking = data.draw(st.integers(1, size))
    names, faults = walked(whole[: end - lacking], piece)
    assert names == [b"f0"]
    assert len(faults) == 1
