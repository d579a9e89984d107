"""What holds for a tag, its siblings and its manifest when one tag is deleted, whatever goes wrong at whatever step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    DeletionDisabled,
    Forbidden,
    Moved,
    NotFound,
    NotSignedIn,
    RateLimited,
    Refused,
    RegfsError,
    ServerFailed,
    Unsupported,
)
from regfs.manifest import OCI_INDEX, parse_manifest
from regfs.registry.deletion import Verdict, delete_tag, likely_siblings, recover, verdict
from regfs.registry.replies import Reply
from regfs.registry.steps import (
    DeleteManifest,
    ListTags,
    PutManifest,
    Record,
    Standing,
    Step,
)
from regfs.registry.throwaway import throw_away_index
from tests.registry.deletion_model import (
    Fault,
    Killed,
    Model,
    Way,
    drive,
    failing,
    manifest,
    reply,
    steps_of,
    wish,
)

ORIGINAL = manifest("the original")
PUSHED = manifest("pushed meanwhile")
SEEN = Digest.of(ORIGINAL)


def three_tags(way: Way = Way.BAD_REQUEST, **more: object) -> Model:
    model = Model(way, **more)  # type: ignore[arg-type]
    for tag in ("v1", "v1.0", "latest"):
        model.push(tag, ORIGINAL)
    model.push("other", manifest("another"))
    return model


def one_tag(way: Way) -> Model:
    model = Model(way)
    model.push("v1", ORIGINAL)
    model.push("other", manifest("another"))
    return model


def assert_siblings_live(model: Model) -> None:
    assert {tag: model.find(tag) for tag in ("v1.0", "latest")} == {"v1.0": SEEN, "latest": SEEN}
    assert model.find(SEEN) == SEEN
    assert model.find("other") == Digest.of(manifest("another"))


def writes(model: Model) -> list[Step]:
    return [step for step in model.done if isinstance(step, DeleteManifest | PutManifest)]


# ── which way ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("way", "named"),
    [
        (Way.UNTAGS, "the registry's tag deletion"),
        (Way.UNTAGS_AND_COLLECTS, "the registry's tag deletion"),
        (Way.TAKES_SIBLINGS, "the registry's tag deletion (it took latest, v1.0 too: put back)"),
        (Way.BAD_REQUEST, "a throw-away index"),
        (Way.NOT_ALLOWED, "a throw-away index"),
    ],
)
def test_a_tag_goes_alone_however_the_registry_deletes(way: Way, named: str) -> None:
    model = three_tags(way)
    assert drive(delete_tag(wish(SEEN)), model).way == named
    assert model.find("v1") is None
    assert_siblings_live(model)
    assert model.journal == {}


def test_the_real_manifest_is_never_deleted_by_its_digest() -> None:
    for way in Way:
        model = three_tags(way)
        with suppress(RegfsError):
            drive(delete_tag(wish(SEEN)), model)
        assert DeleteManifest("team/app", SEEN) not in model.done


def test_a_registry_that_deletes_tags_gets_no_throw_away() -> None:
    model = three_tags(Way.UNTAGS)
    drive(delete_tag(wish(SEEN)), model)
    assert writes(model) == [DeleteManifest("team/app", "v1")]


def test_the_throw_away_way_is_this_and_nothing_more() -> None:
    model = three_tags(Way.BAD_REQUEST)
    drive(delete_tag(wish(SEEN)), model)
    index = throw_away_index("a mark")
    assert writes(model) == [
        DeleteManifest("team/app", "v1"),
        DeleteManifest("team/app", Digest.of(b"made up"), "v1", probe=True),
        PutManifest("team/app", "v1", index, OCI_INDEX),
        DeleteManifest("team/app", Digest.of(index), "v1"),
    ]
    written = [number for number, step in enumerate(model.done) if isinstance(step, Record)]
    touched = [number for number, step in enumerate(model.done) if isinstance(step, PutManifest)]
    assert written[-1] < touched[0], "the journal is on disk before the tag is touched"


@pytest.mark.parametrize(
    ("way", "error"),
    [
        (Way.FORBIDDEN, Forbidden),
        (Way.NOT_FOUND, Refused),
        (Way.DENIED, Forbidden),
        (Way.PRETENDS, BadReply),
    ],
)
def test_a_refusal_opens_no_other_way(way: Way, error: type[RegfsError]) -> None:
    model = three_tags(way)
    with pytest.raises(error):
        drive(delete_tag(wish(SEEN)), model)
    assert writes(model) == [DeleteManifest("team/app", "v1")]
    assert model.find("v1") == SEEN
    assert model.journal == {}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.UNAUTHORIZED, NotSignedIn),
        (Fault.RATE_LIMITED, RateLimited),
        (Fault.SERVER_ERROR, ServerFailed),
    ],
)
def test_a_failing_tag_deletion_opens_no_other_way(fault: Fault, error: type[RegfsError]) -> None:
    model = three_tags(Way.BAD_REQUEST)
    plain = three_tags(Way.BAD_REQUEST)
    drive(delete_tag(wish(SEEN)), plain)
    first = next(number for number, step in enumerate(plain.done) if isinstance(step, DeleteManifest))
    with pytest.raises(error):
        drive(delete_tag(wish(SEEN)), model, at={first: failing(model, fault)})
    assert len(writes(model)) == 1
    assert model.find("v1") == SEEN
    assert model.journal == {}


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, "", Verdict.DONE),
        (202, "", Verdict.DONE),
        (204, "", Verdict.DONE),
        (400, "DIGEST_INVALID", Verdict.UNSUPPORTED),
        (400, "", Verdict.UNSUPPORTED),
        (405, "UNSUPPORTED", Verdict.UNSUPPORTED),
        (405, "", Verdict.UNSUPPORTED),
        (422, "UNSUPPORTED", Verdict.UNSUPPORTED),
        (400, "DENIED", Verdict.REFUSED),
        (405, "DENIED", Verdict.REFUSED),
        (400, "GOOGLE_MANIFEST_DANGLING_TAG", Verdict.REFUSED),
        (401, "UNSUPPORTED", Verdict.REFUSED),
        (403, "UNSUPPORTED", Verdict.REFUSED),
        (404, "UNSUPPORTED", Verdict.ABSENT),
        (404, "", Verdict.ABSENT),
        (409, "", Verdict.REFUSED),
        (429, "UNSUPPORTED", Verdict.REFUSED),
        (500, "UNSUPPORTED", Verdict.REFUSED),
        (501, "UNSUPPORTED", Verdict.REFUSED),
    ],
)
def test_what_an_answer_to_a_tags_deletion_means(status: int, code: str, expected: Verdict) -> None:
    assert verdict(reply(status, code)) is expected


def test_native_only_forbids_the_throw_away_and_names_the_setting() -> None:
    model = three_tags(Way.BAD_REQUEST)
    with pytest.raises(Refused, match="tag_delete") as caught:
        drive(delete_tag(wish(SEEN, native_only=True)), model)
    assert "DIGEST_INVALID" in str(caught.value)
    assert writes(model) == [DeleteManifest("team/app", "v1")]
    assert model.journal == {}


def test_deletion_that_is_switched_off_names_the_switch_and_touches_nothing() -> None:
    model = three_tags(Way.NOT_ALLOWED, deletes_digests=False)
    with pytest.raises(DeletionDisabled) as caught:
        drive(delete_tag(wish(SEEN)), model)
    assert "REGISTRY_STORAGE_DELETE_ENABLED" in caught.value.setting
    assert not [step for step in model.done if isinstance(step, PutManifest)]
    assert model.find("v1") == SEEN


def test_a_read_only_registry_is_named_as_such() -> None:
    model = three_tags(Way.NOT_ALLOWED)
    read_only = Reply(405, {"allow": "GET, HEAD"}, b"Method Not Allowed", "http://registry/v2/")

    def refuse(step: Step) -> object:
        return read_only if isinstance(step, DeleteManifest) else model.perform(step)

    with pytest.raises(DeletionDisabled, match="read-only") as caught:
        drive(delete_tag(wish(SEEN)), model, at=dict.fromkeys(range(20), refuse))
    assert caught.value.setting == "storage.maintenance.readonly.enabled"


def test_a_registry_that_takes_no_throw_away_keeps_the_tag() -> None:
    model = three_tags(Way.BAD_REQUEST, takes_indexes=False)
    with pytest.raises(Unsupported):
        drive(delete_tag(wish(SEEN)), model)
    assert model.find("v1") == SEEN
    assert model.journal == {}


def test_a_tag_that_is_not_there_is_not_found() -> None:
    for way in (Way.UNTAGS, Way.BAD_REQUEST):
        model = three_tags(way)
        with pytest.raises(NotFound):
            drive(delete_tag(wish(None, tag="v9")), model)
        assert writes(model) == []


def test_a_tag_that_moved_since_the_user_saw_it_is_left_alone() -> None:
    for way in (Way.UNTAGS, Way.BAD_REQUEST):
        model = three_tags(way)
        moved = model.push("v1", PUSHED)
        with pytest.raises(Moved):
            drive(delete_tag(wish(SEEN)), model)
        assert writes(model) == []
        assert model.find("v1") == moved


def test_siblings_that_nobody_had_looked_at_come_back_too() -> None:
    model = three_tags(Way.TAKES_SIBLINGS, looks_at=1)
    model.push("v1.0.1", ORIGINAL)
    assert "(it took latest, v1.0, v1.0.1 too: put back)" in drive(delete_tag(wish(SEEN)), model).way
    assert model.find("v1.0.1") == SEEN
    assert_siblings_live(model)


def test_known_siblings_come_back_even_where_the_others_cannot_be_listed() -> None:
    model = three_tags(Way.TAKES_SIBLINGS, looks_at=1)

    def unlisted(step: Step) -> object:
        if isinstance(step, ListTags):
            raise ServerFailed("down")
        return model.perform(step)

    with pytest.raises(BadReply, match="latest"):
        drive(delete_tag(wish(SEEN)), model, at=dict.fromkeys(range(40), unlisted))
    assert model.find("latest") == SEEN
    assert model.learnt == [Standing.TAKES_SIBLINGS]


def test_a_way_that_takes_siblings_is_learnt_and_not_used_again() -> None:
    model = three_tags(Way.TAKES_SIBLINGS)
    drive(delete_tag(wish(SEEN)), model)
    assert model.learnt == [Standing.TAKES_SIBLINGS]
    model.done.clear()
    drive(delete_tag(wish(SEEN, tag="v1.0", standing=Standing.TAKES_SIBLINGS)), model)
    assert DeleteManifest("team/app", "v1.0") not in model.done
    assert model.find("v1.0") is None
    assert model.find("latest") == SEEN


def test_a_manifest_that_outlives_its_last_tag_proves_the_way_safe() -> None:
    model = one_tag(Way.UNTAGS)
    drive(delete_tag(wish(SEEN)), model)
    assert model.learnt == [Standing.SAFE]
    model = one_tag(Way.UNTAGS_AND_COLLECTS)
    drive(delete_tag(wish(SEEN)), model)
    assert model.learnt == []


def test_a_safe_way_costs_one_look_and_one_deletion() -> None:
    model = three_tags(Way.UNTAGS)
    drive(delete_tag(wish(SEEN, standing=Standing.SAFE)), model)
    assert len(model.done) == 2


def test_the_throw_away_is_a_valid_index_unlike_any_other() -> None:
    index = throw_away_index("one")
    assert parse_manifest(index, OCI_INDEX, Digest.of(index)).is_index
    assert index != throw_away_index("two")


def test_likely_siblings_are_the_moving_tags_and_those_that_begin_alike() -> None:
    names = [f"build-{number}" for number in range(100)] + ["v1.2", "v1.2.3", "latest", "v1", "v2"]
    assert likely_siblings("v1.2", names, 4) == ["latest", "v1.2.3", "v1", "v2"]
    assert likely_siblings("v1", ["v1", "", "../x", f"sha256-{'a' * 64}"]) == []


# ── kills and faults at every step ───────────────────────────────────────────────────────────────

FLOWS: list[tuple[str, Callable[[], Model]]] = [
    ("throw-away", lambda: three_tags(Way.BAD_REQUEST)),
    ("takes siblings", lambda: three_tags(Way.TAKES_SIBLINGS)),
    ("untags", lambda: three_tags(Way.UNTAGS)),
]
KILLS = [
    pytest.param(model_of, number, after, id=f"{name}: step {number}{' done' if after else ''}")
    for name, model_of in FLOWS
    for number in steps_of(lambda: delete_tag(wish(SEEN)), model_of)
    for after in (False, True)
]


@pytest.mark.parametrize(("model_of", "number", "after"), KILLS)
def test_after_a_kill_at_any_step_the_tag_is_as_it_was_or_gone(
    model_of: Callable[[], Model], number: int, after: bool
) -> None:
    model = model_of()

    def kill(step: Step) -> object:
        if after:
            model.perform(step)
        raise Killed

    with pytest.raises(Killed):
        drive(delete_tag(wish(SEEN)), model, at={number: kill})
    lines = [drive(recover(entry), model) for entry in list(model.journal.values())]
    assert all("team/app:v1" in line for line in lines)
    assert model.find("v1") in (SEEN, None)
    assert_siblings_live(model)
    assert model.journal == {}


@pytest.mark.parametrize(("model_of", "number", "after"), KILLS)
def test_recovery_that_is_killed_itself_is_finished_by_the_next(
    model_of: Callable[[], Model], number: int, after: bool
) -> None:
    broken = 0
    while True:
        model = model_of()

        def kill(step: Step, model: Model = model) -> object:
            if after:
                model.perform(step)
            raise Killed

        with pytest.raises(Killed):
            drive(delete_tag(wish(SEEN)), model, at={number: kill})
        interrupted = False
        for entry in list(model.journal.values()):
            try:
                drive(recover(entry), model, at={broken: kill})
            except Killed:
                interrupted = True
        for entry in list(model.journal.values()):
            drive(recover(entry), model)
        assert model.find("v1") in (SEEN, None)
        assert_siblings_live(model)
        assert model.journal == {}
        if not interrupted:
            return
        broken += 1


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize(("model_of", "number", "after"), KILLS[::2])
def test_after_a_fault_at_any_step_the_tag_is_as_it_was_or_gone(
    model_of: Callable[[], Model], number: int, after: bool, fault: Fault
) -> None:
    model = model_of()
    try:
        drive(delete_tag(wish(SEEN)), model, at={number: failing(model, fault)})
    except RegfsError:
        # Where it could not be looked at, it is left to recovery.
        for entry in list(model.journal.values()):
            drive(recover(entry), model)
    assert model.find("v1") in (SEEN, None)
    assert_siblings_live(model)
    assert model.journal == {}


@given(data=st.data())
def test_whatever_goes_wrong_nothing_but_the_named_tag_is_lost(data: st.DataObject) -> None:
    """Faults and pushes at any steps, a kill at one: after recovery the tag is as it was, gone, or what was pushed."""
    way = data.draw(st.sampled_from(list(Way)))
    model = three_tags(way, deletes_digests=data.draw(st.booleans()), takes_indexes=data.draw(st.booleans()))
    numbers = st.integers(0, 18)
    faults = data.draw(st.dictionaries(numbers, st.sampled_from(list(Fault)), max_size=4))
    pushes = data.draw(st.sets(numbers, max_size=1))
    at: dict[int, Callable[[Step], object]] = {
        number: failing(model, fault) for number, fault in faults.items()
    }

    def kill(_: Step) -> object:
        raise Killed

    if (killed := data.draw(st.none() | numbers)) is not None:
        at[killed] = kill

    def between(number: int) -> None:
        covering = isinstance(model.done[-1] if model.done else None, PutManifest)
        if number in pushes and not covering:
            model.push("v1", PUSHED)

    try:
        drive(delete_tag(wish(SEEN)), model, at=at, between=between)
        gone = True
    except (RegfsError, Killed):
        gone = False
    for entry in list(model.journal.values()):
        drive(recover(entry), model)
    assert model.find("v1") in ({None} if gone and not pushes else {SEEN, Digest.of(PUSHED), None})
    assert_siblings_live(model)
    assert model.journal == {}


def test_a_push_while_the_throw_away_lies_there_wins() -> None:
    model = three_tags(Way.BAD_REQUEST)

    def between(_: int) -> None:
        if model.done and isinstance(model.done[-1], PutManifest):
            model.push("v1", PUSHED)

    with pytest.raises(Moved):
        drive(delete_tag(wish(SEEN)), model, between=between)
    assert model.find("v1") == Digest.of(PUSHED)
    assert_siblings_live(model)
    assert model.journal == {}


@pytest.mark.parametrize("seen", [SEEN, None])
def test_a_push_right_before_the_throw_away_wins(seen: Digest | None) -> None:
    model = three_tags(Way.BAD_REQUEST)

    def between(_: int) -> None:
        if model.done and isinstance(model.done[-1], Record) and model.done[-1].entry.throw_away:
            model.push("v1", PUSHED)

    with pytest.raises(Moved):
        drive(delete_tag(wish(seen)), model, between=between)
    assert model.find("v1") == Digest.of(PUSHED)
    assert not [step for step in model.done if isinstance(step, PutManifest)]
    assert model.journal == {}


def killed_at_the_throw_away() -> Model:
    """A registry and a journal after a daemon that was killed once its throw-away was in the tag's place."""
    model = three_tags(Way.BAD_REQUEST)

    def kill(step: Step) -> object:
        if isinstance(step, PutManifest):
            model.perform(step)
            raise Killed
        return model.perform(step)

    with pytest.raises(Killed):
        drive(delete_tag(wish(SEEN)), model, at=dict.fromkeys(range(20), kill))
    return model


def test_recovery_leaves_what_was_pushed_since() -> None:
    model = killed_at_the_throw_away()
    model.push("v1", PUSHED)
    (entry,) = model.journal.values()
    assert "what somebody else put there" in drive(recover(entry), model)
    assert model.find("v1") == Digest.of(PUSHED)


def test_recovery_that_meets_a_registry_which_is_down_can_be_repeated() -> None:
    model = killed_at_the_throw_away()
    (entry,) = model.journal.values()
    down = failing(model, Fault.LOST_REQUEST)
    with pytest.raises(RegfsError):
        drive(recover(entry), model, at=dict.fromkeys(range(20), down))
    assert model.journal
    drive(recover(entry), model)
    assert model.find("v1") is None
    assert model.journal == {}


def test_an_original_that_cannot_be_put_back_is_said_and_kept() -> None:
    model = three_tags(Way.BAD_REQUEST)
    seen: list[Step] = []

    def fail_after_cover(step: Step) -> object:
        if isinstance(step, DeleteManifest | PutManifest) and any(isinstance(s, PutManifest) for s in seen):
            raise ServerFailed("down")
        seen.append(step)
        return model.perform(step)

    with pytest.raises(BadReply, match="left with a throw-away"):
        drive(delete_tag(wish(SEEN)), model, at=dict.fromkeys(range(20), fail_after_cover))
    (entry,) = model.journal.values()
    assert entry.raw == ORIGINAL
    drive(recover(entry), model)
    assert model.find("v1") is None
