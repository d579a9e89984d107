"""How a V2 registry is asked what refers to a manifest, and what of its answers is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    DigestMismatch,
    Forbidden,
    NotSignedIn,
    PagingLoop,
    RateLimited,
    RegfsError,
    ServerFailed,
    TooLarge,
    UnsafeTarget,
)
from regfs.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, parse_entries
from regfs.ports import HttpPolicy
from regfs.reference import fallback_tag
from regfs.registry import referrers as module
from regfs.registry.client import Client
from regfs.registry.journal import Journal
from regfs.registry.v2 import V2Source
from regfs.testing.behaviour import Behaviour, Paging
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Image, make_artifact, make_image, make_referrers_index

IMAGE = make_image("subject")
SBOM = make_artifact("application/spdx+json", subject=IMAGE.manifest)
SIGNATURE = make_artifact("application/vnd.cncf.notary.signature", subject=IMAGE.manifest)
OTHER_REPOSITORY = make_image("another subject")

Asked = tuple[list[Descriptor], int, RegfsError | None]


def ask(registry: FakeRegistry, *questions: tuple[str, Digest, str], pause: float = 0) -> list[Asked]:
    """Ask one Source each question in turn: what came, how much it dropped, and the error that ended it."""

    async def main() -> list[Asked]:
        policy = HttpPolicy("regfs-test/1", call_deadline=5.0, stall_deadline=5.0, retries=0)
        client = Client(Connection("r", f"http://{registry.address}"), policy, None)
        source = V2Source(registry.address, client, Journal(Path("/nonexistent/never-written")))
        answers = []
        try:
            with trio.fail_after(60):
                for question in questions:
                    answers.append(await _answer(source, *question))
                    await trio.sleep(pause)
                return answers
        finally:
            await source.aclose()

    return trio.run(main)


async def _answer(source: V2Source, repository: str, digest: Digest, artifact_type: str) -> Asked:
    found: list[Descriptor] = []
    dropped = 0
    try:
        async for page in source.referrers(repository, digest, artifact_type):
            found += page.referrers
            dropped += page.dropped
    except RegfsError as error:
        return found, dropped, error
    return found, dropped, None


def asked(registry: FakeRegistry, artifact_type: str = "") -> Asked:
    return ask(registry, ("team/app", IMAGE.digest, artifact_type))[0]


def digests(answer: Asked) -> list[Digest]:
    assert answer[2] is None
    return [d.digest for d in answer[0]]


def holding(registry: FakeRegistry, *referrers: Image, fallback: bool = False) -> None:
    registry.push("team/app", ["v1"], IMAGE)
    for one in referrers:
        registry.push("team/app", [], one)
    if fallback:
        registry.push("team/app", [fallback_tag(IMAGE.digest)], make_referrers_index(referrers))


def entry(number: int = 0, **changed: object) -> dict[str, object]:
    """A descriptor as JSON; a member that is None is left out."""
    plain: dict[str, object] = {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(str(number).encode())),
        "size": 2,
        "artifactType": "application/spdx+json",
    }
    return {key: value for key, value in (plain | changed).items() if value is not None}


def index(*entries: object, **more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}).encode()


# ── the API ──────────────────────────────────────────────────────────────────────────────────────


def test_a_registry_with_the_api_is_asked_once_and_nothing_else() -> None:
    with FakeRegistry() as registry:
        holding(registry, SBOM, SIGNATURE)
        assert digests(asked(registry)) == [SBOM.digest, SIGNATURE.digest]
        assert [r.kind for r in registry.requests] == ["referrers"]
        assert "artifactType" not in registry.requests[0].query
        assert registry.requests[0].headers["accept"] == OCI_INDEX


@pytest.mark.parametrize("filters", [True, False], ids=["the registry filters", "the registry does not"])
def test_one_type_is_asked_for_and_nothing_else_comes(filters: bool) -> None:
    with FakeRegistry(Behaviour(referrers_filter=filters)) as registry:
        holding(registry, SBOM, SIGNATURE)
        assert digests(asked(registry, "application/spdx+json")) == [SBOM.digest]
        assert registry.requests[0].query["artifactType"] == "application/spdx+json"


@pytest.mark.parametrize("paging", [Paging.RELATIVE, Paging.ABSOLUTE])
def test_all_pages_are_read_with_the_filter_kept(paging: Paging) -> None:
    many = [make_artifact("a/b", {f"{n}": b""}, subject=IMAGE.manifest) for n in range(25)]
    with FakeRegistry(Behaviour(page_size=10, referrers_paging=paging)) as registry:
        holding(registry, *many, SBOM)
        assert digests(asked(registry)) == [one.digest for one in (*many, SBOM)]
        assert registry.count("referrers") == 3
        registry.forget()
        assert digests(asked(registry, "a/b")) == [one.digest for one in many]
        assert [r.query["artifactType"] for r in registry.requests] == ["a/b"] * 3


def test_pages_that_lead_round_end_with_what_came() -> None:
    with FakeRegistry(Behaviour(page_size=1, referrers_paging=Paging.LOOP)) as registry:
        holding(registry, SBOM, SIGNATURE)
        found, _, error = asked(registry)
        assert [d.digest for d in found] == [SBOM.digest]
        assert isinstance(error, PagingLoop)
        assert registry.count("referrers") <= 3


def test_pages_that_bring_nothing_new_end() -> None:
    with FakeRegistry(Behaviour(page_size=1, referrers_paging=Paging.EMPTY)) as registry:
        holding(registry, SBOM)
        found, _, error = asked(registry)
        assert [d.digest for d in found] == [SBOM.digest]
        assert isinstance(error, PagingLoop)
        assert registry.count("referrers") < 20


def test_a_list_that_goes_on_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFERRERS", 1000)
    with FakeRegistry(Behaviour(page_size=100, referrers_paging=Paging.ENDLESS)) as registry:
        holding(registry, SBOM)
        found, _, error = asked(registry)
        assert len(found) == 1000
        assert isinstance(error, TooLarge)
        assert error.registry == registry.address


def test_a_link_to_another_host_is_not_followed() -> None:
    with FakeRegistry(Behaviour(page_size=1, referrers_paging=Paging.FOREIGN)) as registry:
        holding(registry, SBOM, SIGNATURE)
        found, _, error = asked(registry)
        assert [d.digest for d in found] == [SBOM.digest]
        assert isinstance(error, UnsafeTarget)
        assert registry.foreign == []


def test_a_link_that_quotes_the_colon_is_followed() -> None:
    with FakeRegistry() as registry:
        registry.plant_referrers(
            "team/app",
            IMAGE.digest,
            index(entry(1)),
            headers=[("Link", f'</v2/team/app/referrers/sha256%3A{IMAGE.digest.hex}?page=1>; rel="next"')],
        )
        found, _, error = asked(registry)
        assert [d.digest for d in found] == [Digest.of(b"1")]
        assert isinstance(error, PagingLoop)  # the planted page links to itself
        assert registry.count("referrers") == 2


# ── a registry without it ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [404, 405, 501, 303])
def test_where_there_is_no_api_the_fallback_tag_is_read_and_the_api_not_asked_again(status: int) -> None:
    with FakeRegistry(Behaviour(referrers_status=status)) as registry:
        holding(registry, SBOM, SIGNATURE, fallback=True)
        question = ("team/app", IMAGE.digest, "")
        answers = ask(registry, question, ("team/app", SBOM.digest, ""), question)
        assert digests(answers[0]) == digests(answers[2]) == [SBOM.digest, SIGNATURE.digest]
        assert digests(answers[1]) == []
        assert registry.count("referrers") == 1
        assert [r.reference for r in registry.manifest_requests()] == [
            fallback_tag(IMAGE.digest),
            fallback_tag(SBOM.digest),
            fallback_tag(IMAGE.digest),
        ]
        assert registry.foreign == []


def test_the_fallback_tags_index_is_filtered_too() -> None:
    with FakeRegistry(Behaviour(referrers_status=404)) as registry:
        holding(registry, SBOM, SIGNATURE, fallback=True)
        assert digests(asked(registry, "application/spdx+json")) == [SBOM.digest]


def test_a_page_for_people_is_no_api() -> None:
    with FakeRegistry() as registry:
        holding(registry, SBOM, fallback=True)
        registry.plant_referrers("team/app", IMAGE.digest, b"<html>", media_type="text/html")
        assert digests(asked(registry)) == [SBOM.digest]


def test_that_a_repository_is_unknown_says_nothing_of_the_registry() -> None:
    with FakeRegistry() as registry:
        holding(registry, SBOM)
        answers = ask(registry, ("team/absent", IMAGE.digest, ""), ("team/app", IMAGE.digest, ""))
        assert [digests(answer) for answer in answers] == [[], [SBOM.digest]]
        assert registry.count("referrers") == 2


def test_a_registry_that_has_the_api_is_not_taken_for_one_without_by_one_404() -> None:
    with FakeRegistry() as registry:
        holding(registry, SBOM)
        registry.plant_referrers("team/app", SBOM.digest, b"404 page not found", status=404)
        question = ("team/app", IMAGE.digest, "")
        answers = ask(registry, question, ("team/app", SBOM.digest, ""), question)
        assert digests(answers[2]) == [SBOM.digest]
        assert registry.count("referrers") == 3


def test_a_registry_may_be_given_the_api_while_a_mount_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 0.0)
    with FakeRegistry(Behaviour(referrers_status=404)) as registry:
        holding(registry)
        ask(registry, ("team/app", IMAGE.digest, ""), ("team/app", IMAGE.digest, ""), pause=0.01)
        assert registry.count("referrers") == 2


@pytest.mark.parametrize("what", ["an image", "no JSON", "a list"])
def test_what_is_no_index_under_the_fallback_tag_names_nothing(what: str) -> None:
    body = {"an image": IMAGE.manifest.raw, "no JSON": b"{", "a list": b"[]"}[what]
    with FakeRegistry(Behaviour(referrers_status=404)) as registry:
        registry.push("team/app", ["v1"], IMAGE)
        registry.plant("team/app", fallback_tag(IMAGE.digest), body)
        assert digests(asked(registry)) == []


def test_an_index_that_is_not_what_its_digest_says_is_not_believed() -> None:
    with FakeRegistry(Behaviour(referrers_status=404)) as registry:
        registry.push("team/app", ["v1"], IMAGE)
        headers = [("Docker-Content-Digest", str(IMAGE.digest))]
        tag = fallback_tag(IMAGE.digest)
        registry.plant("team/app", tag, index(entry()), media_type=OCI_INDEX, headers=headers)
        assert isinstance(asked(registry)[2], DigestMismatch)


# ── errors are no empty lists ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, NotSignedIn), (403, Forbidden), (429, RateLimited), (500, ServerFailed), (503, ServerFailed)],
)
@pytest.mark.parametrize("has_api", [True, False])
def test_a_refusal_or_failure_is_an_error(status: int, error: type[RegfsError], has_api: bool) -> None:
    with FakeRegistry(Behaviour(referrers_status=200 if has_api else 404)) as registry:
        holding(registry, SBOM, fallback=not has_api)
        registry.fail(status, "referrers" if has_api else "manifest")
        assert isinstance(asked(registry)[2], error)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"manifests": {}}', b'{"manifests":' + b"[" * 100_000])
def test_what_is_no_index_by_its_own_word_is_an_error(body: bytes) -> None:
    with FakeRegistry() as registry:
        registry.plant_referrers("team/app", IMAGE.digest, body)
        found, _, error = asked(registry)
        assert found == []
        assert isinstance(error, BadReply)
        assert error.registry == registry.address


def test_a_page_of_five_megabytes_is_not_read() -> None:
    with FakeRegistry() as registry:
        registry.plant_referrers("team/app", IMAGE.digest, b" " * (5 * 1024 * 1024))
        assert isinstance(asked(registry)[2], TooLarge)


# ── one entry is judged by itself ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "bad",
    [
        None, 1, "text", [], {},
        entry(digest=None), entry(digest="sha256:abc"), entry(digest="md5:" + "0" * 32), entry(digest=1),
        entry(digest="../../etc"), entry(size=None), entry(size=-1), entry(size="2"), entry(size=2**63),
        entry(size=1.5), entry(artifactType=5), entry(annotations=["a"]), entry(annotations={"a": 1}),
        entry(mediaType={}),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_used_costs_no_other(bad: object) -> None:
    with FakeRegistry() as registry:
        registry.plant_referrers("team/app", IMAGE.digest, index(entry(1), bad, entry(2)))
        found, dropped, error = asked(registry)
        assert ([d.digest for d in found], dropped, error) == ([Digest.of(b"1"), Digest.of(b"2")], 1, None)


def test_one_manifest_is_told_of_once_however_often_it_is_listed() -> None:
    with FakeRegistry() as registry:
        registry.plant_referrers("team/app", IMAGE.digest, index(entry(1), entry(1, size=7), entry(1)))
        found, dropped, _ = asked(registry)
        assert [(d.digest, d.size) for d in found] == [(Digest.of(b"1"), 2)]
        assert dropped == 0


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(JSON | st.fixed_dictionaries(dict(dict.fromkeys(entry(), JSON)))), st.integers(0, 3))
def test_any_json_is_an_index_or_a_bad_reply(entries: list[object], good: int) -> None:
    sound: list[Mapping[str, object]] = [entry(number) for number in range(good)]
    found, dropped = parse_entries(json.dumps({"manifests": [*entries, *sound]}).encode())
    assert len(found) + dropped == len(entries) + good
    assert len(found) >= good


@given(st.binary(max_size=40))
def test_any_bytes_are_an_index_or_a_bad_reply(raw: bytes) -> None:
    try:
        assert parse_entries(raw) == ([], 0)
    except BadReply:
        return


def test_an_index_of_too_many_entries_is_too_large() -> None:
    assert parse_entries(index(*[entry()] * 3), 3)[1] == 0
    with pytest.raises(TooLarge):
        parse_entries(index(*[entry()] * 4), 3)
