"""Tokens: what is asked for, how long a token lives, and what the words for a failure hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.auth.needs import MAX_REMEMBERED, Kind, Lessons, Need
from regfs.auth.origin import Origin
from regfs.auth.tokencache import MAX_TOKENS, Token, TokenCache
from regfs.auth.tokens import Ask, Grant, TokenReply, token_steps
from regfs.auth.words import words_of
from regfs.connection import Connection
from regfs.errors import BadReply, RegfsError
from regfs.ports import Credential
from tests.auth.drive import BOB, run

ASK = Ask("bearer", "https://auth.example/token?a=1&b=x%20y", "svc", ("a:b:pull", "c:d:pull"))
NOW = 1_800_000_000.0


def grant(body: object, headers: dict[str, str] | None = None, now: float | None = NOW) -> Grant:
    steps = token_steps(ASK, None, now=now)
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(TokenReply(200, httpx.Headers(headers or {}), json.dumps(body).encode()))
    found = end.value.value
    assert isinstance(found, Grant)
    return found


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_what_the_realm_says_already_is_kept_and_each_scope_is_its_own_parameter() -> None:
    request = next(token_steps(ASK, BOB))
    assert request.url.params.multi_items() == [
        ("a", "1"), ("b", "x y"), ("client_id", "regfs"), ("service", "svc"),
        ("scope", "a:b:pull"), ("scope", "c:d:pull"), ("account", "bob"),
    ]  # fmt: skip


def test_a_password_is_in_no_url() -> None:
    assert BOB.secret not in str(next(token_steps(ASK, BOB)).url)


@pytest.mark.parametrize(
    ("reply", "date", "lifetime"),
    [
        ({}, None, 60),
        ({"expires_in": 300}, None, 300),
        ({"expires_in": 5}, None, 5),
        ({"expires_in": 0}, None, 60),
        ({"expires_in": -5}, None, 60),
        ({"expires_in": None}, None, 60),
        ({"expires_in": 299.5}, None, 299.5),
        ({"expires_in": 1e300}, None, 86400),
        ({"expires_in": 300, "issued_at": at(NOW - 100).isoformat()}, None, 200),
        (
            {"expires_in": 300, "issued_at": at(NOW - 100).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")},
            None,
            200.123456,
        ),
        ({"expires_in": 300, "issued_at": at(NOW + 3600).isoformat()}, None, 300),
        ({"expires_in": 300, "issued_at": at(NOW - 3600).isoformat()}, None, 300),
        ({"expires_in": 300, "issued_at": at(NOW - 3600).isoformat()}, NOW - 3590, 290),
        ({"expires_in": 300, "issued_at": "0001-01-01T00:00:00Z"}, None, 300),
        ({"expires_in": 300, "issued_at": "yesterday"}, None, 300),
    ],
)
def test_how_long_a_token_lives(reply: dict[str, object], date: float | None, lifetime: float) -> None:
    headers = {} if date is None else {"Date": format_datetime(at(date), usegmt=True)}
    assert grant({"token": "t", **reply}, headers).lifetime == pytest.approx(lifetime)


def test_either_name_of_the_token_will_do() -> None:
    assert grant({"access_token": "a"}).token == "a"
    assert grant({"token": "t", "access_token": "t"}).token == "t"
    assert grant({"token": "t", "refresh_token": "r"}).refresh == "r"


def outcome(credential: Credential | None, status: int, body: bytes) -> Grant | RegfsError:
    """What comes of asking where every reply is the same."""
    steps = token_steps(ASK, credential, now=NOW)
    next(steps)
    try:
        while True:
            steps.send(TokenReply(status, httpx.Headers(), body))
    except StopIteration as end:
        found: Grant = end.value
        return found
    except RegfsError as error:
        return error


@given(st.binary(max_size=200), st.integers(100, 599))
def test_any_reply_ends_in_a_grant_or_an_error_of_ours(body: bytes, status: int) -> None:
    assert BOB.secret not in str(outcome(BOB, status, body))


@given(
    st.dictionaries(
        st.sampled_from(["token", "access_token", "expires_in", "issued_at", "refresh_token"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.lists(st.text()),
    )
)
def test_any_json_ends_in_a_grant_that_can_be_sent_or_a_bad_reply(body: dict[str, object]) -> None:
    found = outcome(None, 200, json.dumps(body).encode())
    if isinstance(found, Grant):
        assert 0 < found.lifetime <= 86400
        assert found.token.isascii()
        assert not set(found.token) & set("\r\n \t")
    else:
        assert isinstance(found, BadReply)


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"code": "UNAUTHORIZED", "message": "no"}]},
        {"details": "no"},
        {"error": "invalid_grant", "error_description": "no"},
        {"message": "no"},
    ],
)
def test_a_servers_own_words_in_each_shape(body: object) -> None:
    assert words_of(json.dumps(body).encode()) == "no"


OTHER_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="xyz"), max_size=20)


@given(st.text("xyz", min_size=1, max_size=20), OTHER_TEXT, OTHER_TEXT)
def test_words_never_hold_the_secret(secret: str, before: str, after: str) -> None:
    body = json.dumps({"message": f"{before}{secret}{after}"}).encode()
    words = words_of(body, Credential("bob", secret))
    assert len(words) <= 201
    assert words.isprintable()
    assert secret not in words


def test_words_are_no_place_for_tokens() -> None:
    token = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoxfQ.c2ln"
    assert words_of(json.dumps({"message": f"bad token {token}!"}).encode()) == "bad token […]!"


# ── what requests need ──


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/v2/", Need(Kind.PING)),
        ("GET", "/v2/_catalog", Need(Kind.CATALOG)),
        ("GET", "/v2/a/b/manifests/v1", Need(Kind.PULL, "a/b")),
        ("HEAD", "/v2/a/manifests/sha256:00", Need(Kind.PULL, "a")),
        ("GET", "/v2/a/tags/list", Need(Kind.PULL, "a")),
        ("GET", "/v2/a/blobs/sha256:00", Need(Kind.PULL, "a")),
        ("GET", "/v2/a/referrers/sha256:00", Need(Kind.PULL, "a")),
        ("GET", "/v2/a/manifests/b/manifests/v1", Need(Kind.PULL, "a/manifests/b")),
        ("DELETE", "/v2/a/manifests/v1", Need(Kind.DELETE, "a")),
        ("PUT", "/v2/a/manifests/v1", Need(Kind.PUSH, "a")),
        ("POST", "/v2/a/blobs/uploads/", Need(Kind.PUSH, "a")),
        ("PATCH", "/v2/a/blobs/uploads/123", Need(Kind.PUSH, "a")),
        ("GET", "/v2/_zot/ext/mgmt", Need(Kind.OTHER)),
        ("GET", "/token", Need(Kind.OTHER)),
    ],
)
def test_what_a_request_needs(method: str, path: str, need: Need) -> None:
    assert Need.of(method, path, "/v2/") == need


def test_a_prefix_before_the_api_is_no_part_of_a_repository() -> None:
    origin = Origin(Connection(name="x", address="reg.example/hub/docker"))
    assert Need.of("GET", "/hub/docker/v2/a/tags/list", origin.base) == Need(Kind.PULL, "a")


@given(st.text())
def test_any_path_needs_something(path: str) -> None:
    Need.of("GET", path, "/v2/")
    Need.of("GET", f"/v2/{path}", "/v2/")


def test_what_is_remembered_has_limits() -> None:
    lessons = Lessons()
    for number in range(MAX_REMEMBERED + 100):
        lessons.learn(
            Need(Kind.DELETE, f"r{number}"),
            Ask("bearer", "https://a/t", "", (f"repository:r{number}:delete",)),
        )
    assert lessons.known(Need(Kind.DELETE, "r0")) is None
    assert lessons.known(Need(Kind.DELETE, f"r{MAX_REMEMBERED + 99}")) is not None

    async def tokens() -> None:
        cache = TokenCache()
        for number in range(MAX_TOKENS + 10):
            key = (0, Ask("bearer", "https://a/t", "", (str(number),)))
            flight, mine = cache.board(key)
            assert mine
            now = trio.current_time()
            cache.land(key, flight, Token("t", now + 60, now + 60))
        assert cache.get((0, Ask("bearer", "https://a/t", "", ("0",)))) is None
        assert cache.get(key) is not None

    run(tokens)
