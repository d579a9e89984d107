"""What a reply means that is not what was asked for."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import (
    BadReply,
    Forbidden,
    NotARegistry,
    NotFound,
    NotSignedIn,
    RateLimited,
    Refused,
    RegfsError,
    ServerFailed,
    TooLarge,
    Unsupported,
)
from regfs.registry.replies import (
    MAX_WORDS,
    Reply,
    check_error,
    error_codes,
    error_for,
    excerpt,
    warnings_of,
)

HTML = b"<!DOCTYPE html><html><head><title>Sign in\n to Corp</title></head><body>page</body></html>"


def make(status: int, body: bytes = b"", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, httpx.Headers(named), body, "https://r.example/v2/x")


def spec(code: str, message: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {"any": [1]}}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, spec("UNAUTHORIZED"), NotSignedIn),
        (403, spec("DENIED"), Forbidden),
        (404, spec("MANIFEST_UNKNOWN"), NotFound),
        (404, HTML, NotFound),
        (405, spec("UNSUPPORTED"), Unsupported),
        (400, spec("UNSUPPORTED"), Unsupported),
        (400, spec("DENIED"), Forbidden),
        (400, spec("MANIFEST_INVALID"), BadReply),
        (409, b"", Refused),
        (413, b"", TooLarge),
        (429, b"slow down", RateLimited),
        (503, spec("TOOMANYREQUESTS"), RateLimited),
        (500, b"\x00\xff", ServerFailed),
        (599, b"", ServerFailed),
        (307, b"", BadReply),
        (418, b"", BadReply),
        (206, b"", BadReply),
    ],
)
def test_each_status_is_an_error_of_its_own(status: int, body: bytes, kind: type[RegfsError]) -> None:
    error = error_for(make(status, body), "r.example", "team/app:v1")
    assert type(error) is kind
    assert error.registry == "r.example"
    assert "team/app:v1" in error.message


def test_the_registrys_own_words_are_shown() -> None:
    error = error_for(make(404, spec("MANIFEST_UNKNOWN", "manifest unknown")), "r.example", "x")
    assert error.words == "MANIFEST_UNKNOWN: manifest unknown"


def test_of_a_page_for_people_the_title_is_shown() -> None:
    assert error_for(make(404, HTML, content_type="text/html"), "r", "x").words == "Sign in to Corp"


def test_how_long_to_wait_is_told_by_seconds_and_by_the_replys_own_clock() -> None:
    seconds = error_for(make(429, retry_after="17"), "r", "x")
    assert isinstance(seconds, RateLimited)
    assert seconds.retry_after == 17.0
    date = make(429, retry_after="Wed, 21 Oct 2026 07:28:30 GMT", date="Wed, 21 Oct 2026 07:28:00 GMT")
    error = error_for(date, "r", "x")
    assert isinstance(error, RateLimited)
    assert error.retry_after == 30.0


@pytest.mark.parametrize(
    "text",
    [
        "your header Authorization: Basic dXNlcjpodW50ZXIyaHVudGVyMg== is wrong",
        "Bearer abc.hunter2hunter2.def is expired",
        "got eyJhbGciOiJIUzI1NiJ9.hunter2hunter2hunter2.sig",
        'bad {"password": "hunter2hunter2"}',
        "see https://cdn.example/x?X-Amz-Signature=hunter2hunter2&y=1",
        "see https://bob:hunter2hunter2@cdn.example/",
        "refresh_token was hunter2; ?refresh_token=hunter2hunter2",
    ],
)
def test_an_echoed_secret_is_blotted_out(text: str) -> None:
    assert "hunter2hunter2" not in excerpt(text)
    assert "dXNlcjpodW50ZXIy" not in excerpt(text)


@given(st.text(max_size=600))
def test_words_are_one_short_printable_line(text: str) -> None:
    words = excerpt(text)
    assert len(words) <= MAX_WORDS
    assert words.isprintable()


@given(st.integers(100, 599), st.binary(max_size=300), st.text(max_size=20))
def test_any_reply_is_one_of_our_errors(status: int, body: bytes, content_type: str) -> None:
    reply = Reply(status, {"content-type": content_type}, body, "https://r/")
    assert isinstance(error_for(reply, "r", "x"), RegfsError)
    found = check_error(reply, "r")
    assert found is None or isinstance(found, RegfsError)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["errors", "code", "message"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_errors_of_any_shape_are_read_without_an_error(document: object) -> None:
    body = json.dumps({"errors": document}).encode()
    assert all(isinstance(code, str) for code in error_codes(body))


def test_a_deeply_nested_body_says_nothing() -> None:
    assert error_codes(b'{"errors":' + b"[" * 30_000) == ()


def test_several_codes_come_in_order() -> None:
    body = b'{"errors":[{"code":"B"},{"code":7},{"message":"m"},{"code":"A"},"x"]}'
    assert error_codes(body) == ("B", "A")


@pytest.mark.parametrize(
    "reply",
    [
        make(200, b"{}", content_type="application/json"),
        make(200, b"", docker_distribution_api_version="registry/2.0"),
        make(200, b"true"),
        make(200, b""),
    ],
)
def test_a_registry_is_known_by_its_answer(reply: Reply) -> None:
    assert check_error(reply, "r") is None


@pytest.mark.parametrize(
    "reply",
    [
        make(200, HTML, content_type="text/html; charset=utf-8"),
        make(200, HTML),
        make(200, b"It works!", content_type="text/plain"),
        make(404, b"404 page not found"),
        make(401, HTML, content_type="text/html"),
        make(302, b"", location="/login"),
    ],
)
def test_a_web_page_is_no_registry(reply: Reply) -> None:
    assert isinstance(check_error(reply, "r"), NotARegistry)


def test_a_challenge_shows_a_registry() -> None:
    assert isinstance(check_error(make(401, b"", www_authenticate="Basic"), "r"), NotSignedIn)


def test_warnings_are_read_once_each() -> None:
    values = ['299 - "quota \\"low\\"", 299 - "x"', '299 - "x"', '110 - "stale"', "299 nonsense"]
    assert warnings_of(values) == ['quota "low"', "x"]
