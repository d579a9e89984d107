"""Where a redirect may lead, and what goes with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import UnsafeTarget
from regfs.registry.redirects import Hop, Origin, may_leave, next_hop, resolve, shown

HEADERS = {
    "Authorization": "Basic c2VjcmV0",
    "Accept": "a/b",
    "Range": "bytes=0-1",
    "X-Ours": "1",
    "Cookie": "c",
}
HERE = "https://r.example/v2/app/blobs/sha256:00"


def hop(location: str, *, url: str = HERE, method: str = "GET", own: bool = True, status: int = 307) -> Hop:
    return next_hop(method, url, HEADERS, own, status, location)


def test_within_the_registry_everything_goes_along() -> None:
    assert hop("/v2/elsewhere") == Hop("GET", "https://r.example/v2/elsewhere", HEADERS, own=True)


@pytest.mark.parametrize(
    "location",
    [
        "https://cdn.example/x?sig=1",
        "https://r.example:8443/x",
        "//cdn.example/x",
        "https://r.example.evil.test/",
    ],
)
def test_elsewhere_only_what_http_needs_goes_along(location: str) -> None:
    target = hop(location)
    assert target.own is False
    assert dict(target.headers) == {"Accept": "a/b", "Range": "bytes=0-1"}


def test_a_detour_does_not_bring_the_credentials_back() -> None:
    back = hop("https://r.example/v2/x", url="https://cdn.example/y", own=False)
    assert back.own is False
    assert "Authorization" not in back.headers
    assert hop("/v2/further", own=False).own is False


def test_https_never_becomes_plain_http() -> None:
    with pytest.raises(UnsafeTarget, match="plain http"):
        hop("http://r.example/v2/x")


def test_plain_http_may_become_https_on_the_same_host() -> None:
    assert hop("https://r.example/x", url="http://r.example/x").own is True
    assert hop("https://r.example:444/x", url="http://r.example/x").own is False


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://r.example/",
        "https://user:pass@r.example/",
        "https://r.example:99999/",
        "https://[::1/",
        "https://r.example/a b",
        "https://r.example/\r\nX: y",
        "javascript:alert(1)",
        "https://r.example/" + "a" * 20_000,
    ],
)
def test_a_location_that_is_no_place_of_the_web_is_refused(location: str) -> None:
    with pytest.raises(UnsafeTarget):
        hop(location)


def test_303_asks_with_get_and_head_stays_head() -> None:
    assert hop("/x", method="HEAD", status=303).method == "HEAD"
    assert hop("/x", method="GET", status=303).method == "GET"


def test_a_relative_link_is_resolved_against_its_request() -> None:
    assert (
        resolve("https://r/p/v2/_catalog?n=5", "/p/v2/_catalog?last=a%2Fb&n=5")
        == "https://r/p/v2/_catalog?last=a%2Fb&n=5"
    )
    assert resolve("https://r/p/v2/_catalog?n=5", "?last=x") == "https://r/p/v2/_catalog?last=x"


def test_a_shown_url_has_no_query_and_no_password() -> None:
    assert shown("https://bob:pw@cdn.example/x?X-Amz-Signature=s#f") == "https://cdn.example/x"


@given(st.text(max_size=60))
def test_any_location_is_followed_safely_or_refused(location: str) -> None:
    try:
        target = hop(location)
    except UnsafeTarget:
        return
    there = Origin.of(target.url)
    assert there.scheme == "https"
    assert target.own == (there == Origin.of(HERE))
    assert target.own or "Authorization" not in target.headers


@given(st.text(max_size=60))
def test_any_url_is_shown_without_an_error(url: str) -> None:
    assert shown(url).isprintable()


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://eu-docker.pkg.dev/v2/", True),
        ("https://pkg.dev/v2/", False),
        ("https://pkg.dev.example.com/v2/", False),
        ("https://mirror.example.com/v2/", True),
        ("https://mirror.example.com:8443/v2/", True),
        ("https://a.mirror.example.com/v2/", False),
        ("https://other.example.com:5000/v2/", True),
        ("https://other.example.com/v2/", False),
    ],
)
def test_what_may_answer_in_a_registrys_place_is_named_by_host_port_or_domain(
    url: str, allowed: bool
) -> None:
    names = ("*.pkg.dev", "Mirror.example.com", "other.example.com:5000")
    assert may_leave(Origin.of(url), names) is allowed
