"""When a request is sent again: the pure decision."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.registry.retry import RETRIED, Outcome, Rules, decide, is_idempotent, retry_after

RULES = Rules(retries=4, deadline=30.0, idempotent=True)
NOW = 1_700_000_000.0

outcomes = st.builds(
    Outcome,
    status=st.none() | st.integers(100, 599),
    sent=st.booleans(),
    headers=st.dictionaries(
        st.just("retry-after"), st.text(max_size=20) | st.integers(0, 10**12).map(str), max_size=1
    ),
)


def wait(attempt: int, outcome: Outcome, rules: Rules = RULES, elapsed: float = 0.0) -> float | None:
    return decide(attempt, outcome, rules, elapsed=elapsed, now=NOW, jitter=0.5)


@pytest.mark.parametrize("status", sorted(RETRIED))
def test_a_busy_registry_is_asked_again(status: int) -> None:
    assert wait(1, Outcome(status)) is not None


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 409, 413, 416, 501, 505])
def test_a_clear_answer_is_not_asked_for_again(status: int) -> None:
    assert wait(1, Outcome(status)) is None


def test_waits_double_and_stay_bounded() -> None:
    waits = [wait(n, Outcome(503), Rules(40, 1e9, True)) for n in range(1, 30)]
    assert waits[:4] == [0.1875, 0.375, 0.75, 1.5]
    assert max(w for w in waits if w is not None) <= 5.0


def test_a_lost_connection_is_replaced_at_once_and_only_once() -> None:
    lost = Outcome(sent=True)
    assert wait(1, lost) == 0.0
    later = wait(2, lost)
    assert later is not None
    assert later > 0.0


def test_a_refused_connection_waits_even_the_first_time() -> None:
    first = wait(1, Outcome(sent=False))
    assert first is not None
    assert first > 0.0


def test_a_delete_is_sent_again_only_where_surely_nothing_was_done() -> None:
    once = Rules(4, 30.0, idempotent=is_idempotent("DELETE"))
    assert wait(1, Outcome(sent=False), once) is not None
    assert wait(1, Outcome(sent=True), once) is None
    assert wait(1, Outcome(503), once) is None
    assert wait(1, Outcome(429), once) is not None


@pytest.mark.parametrize(
    ("method", "may"), [("GET", True), ("head", True), ("PUT", False), ("DELETE", False)]
)
def test_which_methods_are_idempotent(method: str, may: bool) -> None:
    assert is_idempotent(method) is may


def test_retry_after_is_obeyed_in_seconds_and_as_a_date() -> None:
    assert wait(1, Outcome(429, headers={"retry-after": "7"})) == 7.0
    assert wait(1, Outcome(503, headers={"retry-after": formatdate(NOW + 9, usegmt=True)})) == 9.0


def test_docker_hubs_timestamp_is_read() -> None:
    assert retry_after({"x-retry-after": str(int(NOW) + 12)}, NOW) == 12.0


def test_a_date_in_the_past_means_now() -> None:
    assert retry_after({"retry-after": formatdate(NOW - 60, usegmt=True)}, NOW) == 0.0


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "٣", "1.2.3", "nan", "inf", "Wed, 99 Foo 2020"])
def test_a_retry_after_that_is_none_is_ignored(text: str) -> None:
    assert retry_after({"retry-after": text}, NOW) is None


def test_no_wait_reaches_the_deadline() -> None:
    assert wait(1, Outcome(429, headers={"retry-after": "30"})) is None
    assert wait(1, Outcome(429, headers={"retry-after": "10"}), elapsed=21.0) is None
    assert wait(1, Outcome(429, headers={"retry-after": "8"}), elapsed=21.0) == 8.0


@given(st.integers(1, 50), outcomes, st.booleans(), st.floats(0, 100), st.floats(0, 1))
def test_every_wait_is_within_the_rules(
    attempt: int, outcome: Outcome, idempotent: bool, elapsed: float, jitter: float
) -> None:
    rules = Rules(retries=6, deadline=30.0, idempotent=idempotent)
    seconds = decide(attempt, outcome, rules, elapsed=elapsed, now=NOW, jitter=jitter)
    if seconds is None:
        return
    assert seconds >= 0.0
    assert elapsed + seconds < 30.0
    assert attempt <= 6
    assert idempotent or not outcome.sent


@given(st.text(max_size=80), st.floats(0, 4e9))
def test_any_retry_after_is_read_without_an_error(text: str, now: float) -> None:
    seconds = retry_after({"retry-after": text}, now)
    assert seconds is None or seconds >= 0.0
