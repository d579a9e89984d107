"""Where the next page is, and when a listing ends: Link headers of any shape, and registries that send none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regfs.errors import BadReply, PagingLoop, UnsafeTarget
from regfs.registry import paging
from regfs.registry.paging import Link, Pages, next_query, parse_links, parse_names

BASE = "https://registry.example:5000/v2/"
ASKED = f"{BASE}team/app/tags/list?n=1000"

# ── the Link header ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("header", "links"),
    [
        ('</v2/_catalog?last=r03%2Fx&n=5>; rel="next"', [("/v2/_catalog?last=r03%2Fx&n=5", {"next"})]),
        ("<a>;rel=next", [("a", {"next"})]),
        ('<a> ; REL = "NEXT"', [("a", {"next"})]),
        ('<a>; rel="prev next"', [("a", {"prev", "next"})]),
        ('<a>; title="x, <b>; rel=next"; rel=prev', [("a", {"prev"})]),
        (r'<a>; title="\"; rel=next; \""; rel="last"', [("a", {"last"})]),
        ('<a>; rel="first", <b>; rel="next"', [("a", {"first"}), ("b", {"next"})]),
        ("<a,b>; rel=next,<c>", [("a,b", {"next"}), ("c", set())]),
        ('<a>; rel="next"; rel="prev"', [("a", {"next"})]),
        ("<a>; nofollow; rel=next", [("a", {"next"})]),
        (" , ,<a>;rel=next", [("a", {"next"})]),
        ("<>; rel=next", [("", {"next"})]),
        ("", []),
        ("a; rel=next", []),
        ("<a; rel=next", []),
    ],
)
def test_a_link_header_is_read_as_rfc_8288_says(header: str, links: list[tuple[str, set[str]]]) -> None:
    assert parse_links(header) == [Link(target, frozenset(relations)) for target, relations in links]


_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
_TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=6)
_TARGETS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="<>"), max_size=20)


def _quote(value: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'"{escaped}"'


@given(
    st.lists(
        st.tuples(_TARGETS, st.lists(_TOKENS, max_size=3), st.lists(st.tuples(_TOKENS, _VALUES), max_size=3)),
        max_size=4,
    )
)
def test_what_is_written_as_a_link_header_is_read_again(
    links: Sequence[tuple[str, list[str], list[tuple[str, str]]]],
) -> None:
    written = []
    for target, relations, others in links:
        parameters = [f"{name}={_quote(value)}" for name, value in others if name != "rel"]
        parameters.append(f"rel={_quote(' '.join(relations))}")
        written.append("; ".join([f"<{target}>", *parameters]))
    read = parse_links(", ".join(written))
    assert read == [Link(target, frozenset(relations)) for target, relations, _ in links]


@given(st.text())
@example("<" * 100)
@example('<a>;="')
@example('<a>;rel="\\')
def test_no_header_breaks_the_parser(header: str) -> None:
    for link in parse_links(header):
        assert link.target in header


def test_a_long_header_is_read_in_linear_time() -> None:
    assert len(parse_links("<a>;rel=next," * 50_000)) == 50_000
    assert parse_links('<a>;x="' + "\\" * 500_000) == [Link("a", frozenset())]


# ── where the next page is ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "target",
    [
        "?last=b",
        "list?last=b",
        "/v2/team/app/tags/list?last=b",
        "//registry.example:5000/v2/team/app/tags/list?last=b",
        f"{BASE}team/app/tags/list?last=b",
        "https://REGISTRY.example:5000/v2/team/app/tags/list?last=b",
        "http://registry.example:5000/v2/team/app/tags/list?last=b",
        "/hub/v2/app/tags/list?last=b",
        "?last=b#part",
    ],
)
def test_the_next_page_is_found_relative_to_what_was_asked(target: str) -> None:
    assert next_query(f'<{target}>; rel="next"', ASKED, BASE) == "last=b"


def test_a_registry_behind_a_proxy_that_ends_tls_writes_http_into_its_links() -> None:
    base = "https://registry.example/v2/"
    header = '<http://registry.example/v2/_catalog?last=b>; rel="next"'
    assert next_query(header, f"{base}_catalog?n=1000", base) == "last=b"


@pytest.mark.parametrize(
    "target",
    [
        "https://elsewhere.example/v2/team/app/tags/list?last=b",
        "//elsewhere.example:5000/v2/team/app/tags/list?last=b",
        "https://registry.example:5001/v2/team/app/tags/list?last=b",
        "https://registry.example/v2/team/app/tags/list?last=b",
        "https://user@registry.example:5000/v2/team/app/tags/list?last=b",
        "https://user:secret@registry.example:5000/v2/team/app/tags/list?last=b",
        "https://registry.example:5000@elsewhere.example/v2/team/app/tags/list?last=b",
        "ftp://registry.example:5000/v2/team/app/tags/list?last=b",
        "file:///etc/passwd",
        "javascript:list",
        "https://[::1/list",
        "https://registry.example:port/list",
        "/v2/team/app/manifests/v1?last=b",
        "/logout?last=b",
        "?last=" + "b" * 5000,
    ],
)
def test_no_link_leads_off_the_host_or_off_the_listing(target: str) -> None:
    with pytest.raises(UnsafeTarget):
        next_query(f'<{target}>; rel="next"', ASKED, BASE)


@given(_TARGETS)
def test_whatever_a_link_says_only_a_plain_query_comes_of_it(target: str) -> None:
    try:
        query = next_query(f"<{target}>; rel=next", ASKED, BASE)
    except UnsafeTarget:
        return
    assert query is not None
    assert re.fullmatch(r"[!-~]*", query)
    assert "#" not in query


def test_a_header_without_next_ends_the_listing() -> None:
    assert next_query('<?last=b>; rel="prev"', ASKED, BASE) is None
    assert next_query("", ASKED, BASE) is None


# ── names ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"name":"a","tags":["v1","v2"]}', ["v1", "v2"]),
        (b'{"name":"a","tags":null}', []),
        (b'{"name":"a","tags":[]}', []),
        (b'{"name":"a"}', []),
        (b"{}", []),
        (b'{"tags":["v1",null,"","v1"]}', ["v1", "v1"]),
        (b'{"child":[],"manifest":{"sha256:0":{"tag":["v1"]}},"name":"a","tags":["v1"]}', ["v1"]),
    ],
)
def test_a_page_of_tags_is_read(body: bytes, names: list[str]) -> None:
    assert parse_names(body, "tags") == names


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"tags"',
        b"<html>",
        b'{"tags":"v1"}',
        b'{"tags":{"v1":1}}',
        b'{"tags":[1]}',
        b'{"tags":[["v1"]]}',
        b'{"tags":["v1"',
        b'{"tags":["v1"]} {"tags":["v2"]}',
        b'{"errors":[{"code":"UNKNOWN"}]}',
        b'{"message":"try later"}',
        b'{"name":"a","errors":[]}',
        b'{"tags":["\xff"]}',
        b'{"other":' + b"[" * 100_000 + b"]" * 100_000 + b',"tags":[]}',
        b'{"tags":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_page_never_looks_like_an_empty_one(body: bytes) -> None:
    with pytest.raises(BadReply):
        parse_names(body, "tags")


def test_a_catalog_without_its_key_is_no_catalog() -> None:
    assert parse_names(b'{"repositories":["a/b"]}', "repositories") == ["a/b"]
    with pytest.raises(BadReply):
        parse_names(b'{"name":"a"}', "repositories")


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    try:
        names = parse_names(body, "tags")
    except BadReply:
        return
    assert all(isinstance(json.dumps(name), str) and name for name in names)


# ── the listing as a whole ───────────────────────────────────────────────────────────────────────

Server = Callable[[str], tuple[list[str], str]]
"""From a target to a page's names and its Link header."""


def listing(server: Server, size: int = 5, most: int = 200) -> tuple[list[str], list[str]]:
    """Walk a listing: all new names, and the targets that were asked for."""
    pages, names, asked = Pages("team/app/tags/list", size), list[str](), list[str]()
    while (target := pages.follow()) is not None:
        assert len(asked) < most, "the listing has no end"
        asked.append(target)
        page, link = server(target)
        names += pages.take(page, link, BASE + target, BASE)
    return names, asked


def test_pages_are_followed_by_their_links() -> None:
    replies = {
        "team/app/tags/list?n=5": (["a", "b"], '<?n=5&last=b>; rel="next"'),
        "team/app/tags/list?n=5&last=b": (["c"], ""),
    }
    assert listing(replies.__getitem__) == (["a", "b", "c"], list(replies))


def test_a_registry_that_pages_without_links_is_asked_on_until_nothing_new_comes() -> None:
    everything = [f"t{number:02}" for number in range(12)]

    def server(target: str) -> tuple[list[str], str]:
        last = target.partition("last=")[2]
        rest = [name for name in everything if name > last]
        return rest[:5], ""

    names, asked = listing(server)
    assert names == everything
    assert len(asked) == 3


def test_a_registry_that_sends_links_is_believed_when_it_sends_none() -> None:
    replies = {
        "team/app/tags/list?n=5": (["a", "b", "c", "d", "e"], "<?n=5&last=e>; rel=next"),
        "team/app/tags/list?n=5&last=e": (["f", "g", "h", "i", "j"], ""),
    }
    names, asked = listing(replies.__getitem__)
    assert names == list("abcdefghij")
    assert len(asked) == 2


def test_a_registry_that_starts_again_from_the_top_ends_the_listing() -> None:
    """The one page that was all there is happens to be as long as was asked for."""
    names, asked = listing(lambda _: (["a", "b", "c", "d", "e"], ""))
    assert names == ["a", "b", "c", "d", "e"]
    assert len(asked) == 2


def test_a_page_longer_than_was_asked_for_is_all_there_is() -> None:
    names, asked = listing(lambda _: ([f"t{number}" for number in range(50)], ""))
    assert len(names) == 50
    assert len(asked) == 1


def test_duplicates_are_given_once() -> None:
    replies = {
        "team/app/tags/list?n=5": (["a", "b", "a"], "<?last=b>; rel=next"),
        "team/app/tags/list?last=b": (["b", "c"], ""),
    }
    assert listing(replies.__getitem__)[0] == ["a", "b", "c"]


def test_one_empty_page_in_between_is_not_the_end() -> None:
    replies = {
        "team/app/tags/list?n=5": (["a"], "<?last=b>; rel=next"),
        "team/app/tags/list?last=b": ([], "<?last=c>; rel=next"),
        "team/app/tags/list?last=c": (["d"], ""),
    }
    assert listing(replies.__getitem__)[0] == ["a", "d"]


@pytest.mark.parametrize("link", ["<?n=5>; rel=next", "<>; rel=next", "<?last=a>; rel=next"])
def test_a_circle_of_pages_is_noticed(link: str) -> None:
    with pytest.raises(PagingLoop):
        listing(lambda _: (["a"], link), most=4)


def test_a_link_that_lost_its_query_is_noticed() -> None:
    with pytest.raises(PagingLoop):
        listing(lambda _: (["a"], "</v2/team/app/tags/list>; rel=next"), most=4)


def test_endless_pages_without_a_new_name_are_noticed() -> None:
    count = iter(range(1000))
    with pytest.raises(PagingLoop):
        listing(lambda _: (["a"], f"<?last={next(count)}>; rel=next"), most=paging.MAX_BARREN + 2)


def test_endless_pages_with_new_names_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_NAMES", 50)
    count = iter(range(1000))
    with pytest.raises(PagingLoop):
        listing(lambda _: ([f"t{next(count)}"], f"<?last={next(count)}>; rel=next"), most=60)
    monkeypatch.setattr(paging, "MAX_PAGES", 20)
    with pytest.raises(PagingLoop):
        listing(lambda _: ([f"t{next(count)}"], f"<?last={next(count)}>; rel=next"), most=25)


def test_a_bad_link_does_not_cost_the_names_that_came_with_it() -> None:
    pages = Pages("team/app/tags/list")
    assert pages.take(["a"], "<https://elsewhere.example/list>; rel=next", ASKED, BASE) == ["a"]
    with pytest.raises(UnsafeTarget):
        pages.follow()


@given(st.data())
def test_every_listing_ends(data: st.DataObject) -> None:
    """Whatever a registry answers, the pages end or are called a loop."""
    links = st.sampled_from(
        ["", "<?last=a>;rel=next", "<?last=b>;rel=next", "<?x>;rel=next", "<//else/list>;rel=next"]
    )
    names = st.lists(st.sampled_from("abcdefgh"), max_size=5)
    with suppress(PagingLoop, UnsafeTarget):
        listing(lambda _: (data.draw(names), data.draw(links)), most=20)
