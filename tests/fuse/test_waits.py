"""Waiting for the kernel's next request: at once where it is there, and asleep where it is not."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import pyfuse3
import pytest
import trio
import trio.testing

from regfs.fuse.session import _careful_waits


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def waits(stack: ExitStack, descriptor: int) -> Callable[[int], Awaitable[None]]:
    """What pyfuse3 waits by, for the time of a mount."""
    stack.enter_context(_careful_waits(descriptor))
    found: Callable[[int], Awaitable[None]] = vars(pyfuse3)["trio"].lowlevel.wait_readable
    return found


def test_a_request_that_is_there_is_taken_without_going_to_sleep(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"request")

    async def take() -> None:
        with ExitStack() as stack, trio.testing.assert_no_checkpoints():
            await waits(stack, reading)(reading)

    trio.run(take)


def test_while_no_request_comes_others_work(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    order: list[str] = []

    async def work() -> None:
        await trio.testing.wait_all_tasks_blocked()
        order.append("worked")
        os.write(writing, b"request")

    async def wait() -> None:
        with ExitStack() as stack, trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await waits(stack, reading)(reading)
                order.append("request")

    trio.run(wait)
    assert order == ["worked", "request"]


def test_pyfuse3_has_its_own_loop_again_after_the_mount(pipe: tuple[int, int]) -> None:
    with ExitStack() as stack:
        waits(stack, pipe[0])
    assert vars(pyfuse3)["trio"] is trio
