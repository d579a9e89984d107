"""Which files the kernel reads by itself: one way for each inode as long as it is open, and never what was changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.fuse.backing import Backings, Changed

NODE, OTHER = 5, 6


class Kernel:
    """Numbers files, as /dev/fuse does, unless it refuses."""

    def __init__(self, refusal: int = 0) -> None:
        self.refusal = refusal
        self.asked = 0
        self.held: set[int] = set()

    def ioctl(self, device: int, request: int, argument: bytes | bytearray, mutate: bool = True) -> int:
        assert device == 99
        if isinstance(argument, bytearray):
            self.asked += 1
            if self.refusal:
                raise OSError(self.refusal, os.strerror(self.refusal))
            self.held.add(self.asked)
            return self.asked
        self.held.remove(int.from_bytes(argument, "little"))
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr("fcntl.ioctl", made.ioctl)
    return made


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "content").write_bytes(b"x" * 100)
    opened = os.open(tmp_path / "content", os.O_RDWR)
    yield opened
    os.close(opened)


def test_every_open_of_an_inode_reads_the_same_file_until_the_last_is_closed(
    kernel: Kernel, descriptor: int
) -> None:
    backings = Backings(99)
    assert backings.opened(NODE, 1, descriptor) == 1
    assert backings.opened(NODE, 2, descriptor) == 1
    assert backings.opened(NODE, 3, -1) == 1, "removed to make room meanwhile: who has it open keeps it"
    assert backings.opened(OTHER, 4, descriptor) == 2
    for handle in (1, 2):
        backings.closed(handle)
    assert kernel.held == {1, 2}
    backings.closed(3)
    assert kernel.held == {2}
    assert backings.opened(NODE, 5, descriptor) == 3


def test_an_inode_that_was_opened_while_its_bytes_were_not_there_stays_as_it_is(
    kernel: Kernel, descriptor: int
) -> None:
    backings = Backings(99)
    assert backings.opened(NODE, 1, -1) == 0
    assert backings.opened(NODE, 2, descriptor) == 0
    backings.closed(1)
    assert backings.opened(NODE, 3, descriptor) == 0
    for handle in (2, 3):
        backings.closed(handle)
    assert backings.opened(NODE, 4, descriptor) == 1


def test_a_file_that_was_changed_is_opened_no_more_by_that_inode(kernel: Kernel, descriptor: int) -> None:
    backings = Backings(99)
    backings.opened(NODE, 1, descriptor)
    os.utime(descriptor, ns=(0, 5))
    with pytest.raises(Changed):
        backings.opened(NODE, 2, -1)
    assert backings.opened(OTHER, 3, descriptor) == 2
    backings.closed(2)  # it never was
    backings.closed(1)
    assert kernel.held == {2}


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ELOOP, errno.EOPNOTSUPP, errno.ENOTTY])
def test_a_kernel_that_refuses_once_is_asked_no_more(kernel: Kernel, descriptor: int, refusal: int) -> None:
    kernel.refusal = refusal
    backings = Backings(99)
    for handle in range(5):
        assert backings.opened(handle, handle, descriptor) == 0
        backings.closed(handle)
    assert kernel.asked == 1


def test_at_the_end_nothing_is_held(kernel: Kernel, descriptor: int) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the count alone is wanted
    backings = Backings(99)
    for handle in range(5):
        backings.opened(handle, handle, descriptor)
    backings.close()
    assert kernel.held == set()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - the count alone is wanted
