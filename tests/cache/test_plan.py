"""What is removed to make room, and which parts of a content are there: both decided without a disk."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from regfs.cache.plan import BLOCK, Group, cost, excess, victims
from regfs.cache.spans import Spans

GROUPS = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 50)), max_size=30).map(
    lambda pairs: [Group(f"g{n}", size, used) for n, (size, used) in enumerate(pairs)]
)


@given(GROUPS, st.integers(0, 20_000), st.data())
def test_what_was_used_least_recently_goes_first_and_what_is_held_never(
    groups: list[Group], free: int, data: st.DataObject
) -> None:
    held = data.draw(st.sets(st.sampled_from([g.name for g in groups]))) if groups else set()
    chosen = victims(groups, free, held)
    by_name = {group.name: group for group in groups}
    assert not held.intersection(chosen)
    spared = [g for g in groups if g.name not in held and g.name not in chosen]
    if chosen and spared:
        assert max(by_name[name].used for name in chosen) <= min(group.used for group in spared)


@given(GROUPS, st.integers(0, 20_000))
def test_enough_goes_where_there_is_enough_and_not_one_more_than_needed(
    groups: list[Group], free: int
) -> None:
    chosen = [next(g for g in groups if g.name == name) for name in victims(groups, free)]
    freed = sum(group.size for group in chosen)
    assert freed >= min(free, sum(group.size for group in groups))
    if chosen:
        assert freed - chosen[-1].size < free


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_nothing_goes_while_there_is_room_and_then_enough(used: int, wanted: int, limit: int) -> None:
    over = excess(used, wanted, limit)
    assert 0 <= over <= used
    if used + wanted <= limit:
        assert over == 0
    elif wanted <= limit:
        assert used - over + wanted <= limit


@given(st.integers(0, 10**12))
def test_even_an_empty_file_takes_room(allocated: int) -> None:
    assert cost(allocated) >= max(allocated, BLOCK)
    assert cost(allocated) % BLOCK == 0


CHANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 60)), max_size=40)


@given(CHANGES, st.integers(0, 70), st.integers(0, 70))
def test_spans_say_what_a_plain_set_of_offsets_would(
    changes: list[tuple[bool, int, int]], start: int, end: int
) -> None:
    spans, plain = Spans(), set[int]()
    for adds, low, high in changes:
        if adds:
            spans.add(low, high)
            plain |= set(range(low, high))
        else:
            spans.remove(low, high)
            plain -= set(range(low, high))
    assert {n for low, high in spans for n in range(low, high)} == plain
    ranges = list(spans)
    assert all(a[1] < b[0] for a, b in pairwise(ranges))
    assert spans.covers(start, end) == plain.issuperset(range(start, end))
    reached = start
    while reached in plain:
        reached += 1
    assert spans.end_of(start) == reached
