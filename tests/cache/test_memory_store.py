"""Content in memory stays within its bound, and what is in use stays longest."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.cache.memory import MemoryStore
from regfs.digest import Digest

CAPACITY = 20_000


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


def test_what_was_used_last_stays_and_what_was_not_goes() -> None:
    async def test() -> None:
        store = MemoryStore(CAPACITY)
        for number in range(4):
            await store.put(digest(number), bytes(4_000))
            await store.get(digest(0))
        await store.put(digest(4), bytes(4_000))
        assert await store.get(digest(0)) is not None
        assert await store.get(digest(1)) is None
        assert await store.get(digest(4)) is not None

    trio.run(test)


def test_one_large_content_does_not_push_out_all_others() -> None:
    async def test() -> None:
        store = MemoryStore(CAPACITY)
        await store.put(digest(1), bytes(1_000))
        await store.put(digest(2), bytes(CAPACITY))
        assert await store.get(digest(1)) is not None
        assert await store.get(digest(2)) is None

    trio.run(test)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12_000))))
def test_it_never_exceeds_its_bound_and_never_gives_other_bytes_than_it_was_given(
    puts: list[tuple[int, int]],
) -> None:
    async def test() -> None:
        store = MemoryStore(CAPACITY)
        given_last: dict[int, bytes] = {}
        for number, size in puts:
            given_last[number] = bytes([number]) * size
            await store.put(digest(number), given_last[number])
            assert store.size <= CAPACITY
        for number in range(10):
            found = await store.get(digest(number))
            assert found is None or set(found) <= {number}
        number, size = puts[-1] if puts else (0, CAPACITY)
        if size < CAPACITY // 4:
            assert await store.get(digest(number)) == given_last[number]

    trio.run(test)
