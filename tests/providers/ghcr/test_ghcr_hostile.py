"""GitHub's API as it should not be: what comes out is an error of ours, soon, and the registry goes on beside it."""

from __future__ import annotations

import time

import pytest

from regfs.errors import (
    BadReply,
    ConnectionFailed,
    DeadlineExceeded,
    PagingLoop,
    RateLimited,
    RegfsError,
    ServerFailed,
    TooLarge,
    UnsafeTarget,
)
from regfs.ports import Source
from regfs.testing.faults import Fate
from regfs.testing.replies import Reply, json_reply
from tests.support.fake_github import FakeGitHub
from tests.support.ghcr_source import APP, Setting

PACKAGE = {"name": "app", "package_type": "container", "owner": {"login": "Octo-Org"}}


def link(url: str) -> tuple[str, str]:
    return "Link", f'<{url}>; rel="next"'


HOSTILE = {
    "a page for people": (Reply(200, [("Content-Type", "text/html")], b"<html>hello</html>"), BadReply),
    "an object": (json_reply({"packages": []}), BadReply),
    "numbers": (json_reply([{"name": 3}]), BadReply),
    "nothing": (Reply(200), BadReply),
    "nested": (Reply(200, [], b"[" * 100_000), BadReply),
    "huge": (Reply(200, [], b" " * 65536, 1024), TooLarge),
    "another host next": (json_reply([PACKAGE], 200, link("https://evil.example/packages")), UnsafeTarget),
    "itself next": (
        json_reply([PACKAGE], 200, link("?package_type=container&per_page=100")),
        PagingLoop,
    ),
    "a redirect elsewhere": (Reply(302, [("Location", "https://evil.example/")]), RegfsError),
    "broken": (Reply(500), ServerFailed),
    "too often": (Reply(429), RateLimited),
    "a wait for ever": (Reply(429, [("Retry-After", "9" * 40)]), RateLimited),
    "a reset that is none": (
        json_reply({"message": 5}, 403, ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "soon")),
        RateLimited,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_the_api_does_wrong_is_said_and_tags_are_listed_all_the_same(
    name: str, fake: FakeGitHub, setting: Setting
) -> None:
    fake.push(APP, ["v1"])
    fake.planted, error = HOSTILE[name]
    began = time.monotonic()
    with pytest.raises(error) as caught:
        setting.namespace("octo-org")
    assert "ghp_good" not in str(caught.value)

    async def tags(source: Source) -> list[str]:
        return [tag async for page in source.tags(APP) for tag in page.names]

    assert setting.run(tags) == ["v1"]
    assert time.monotonic() - began < 20
    assert len(fake.calls) < 12
    assert fake.registry.foreign == []


@pytest.mark.parametrize("fate", [Fate(reset=True), Fate(cut_at=3)], ids=["reset", "truncated"])
def test_a_connection_that_breaks_is_said(fate: Fate, fake: FakeGitHub, setting: Setting) -> None:
    fake.planted, fake.planted_fate = json_reply([PACKAGE]), fate
    with pytest.raises((ConnectionFailed, BadReply, DeadlineExceeded)):
        setting.namespace("octo-org")


def test_empty_pages_of_the_api_end_too(fake: FakeGitHub, setting: Setting) -> None:
    fake.endless = True
    fake.push(APP, ["v1"])
    with pytest.raises(PagingLoop):
        setting.namespace("octo-org")
    assert len(fake.calls) < 20


def test_a_rate_limit_that_comes_in_the_middle_of_a_deletion_puts_the_tag_back(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.push(APP, ["v1", "v2"])
    before = fake.tags(APP)
    put = fake.registry.store.put

    def limit(*arguments: object) -> None:
        put(*arguments)  # type: ignore[arg-type]
        fake.limited_until = time.time() + 1800

    fake.registry.store.put = limit  # type: ignore[method-assign, assignment]
    with pytest.raises(RateLimited):
        setting.delete("v1")
    assert fake.tags(APP) == before
    assert setting.entries() == []
