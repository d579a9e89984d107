"""The WWW-Authenticate parser: whatever registries write is read, and nothing makes it raise."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regfs.auth.challenges import Challenge, first_supported, parse_challenges

TOKEN = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,12}", fullmatch=True)
LOWER = TOKEN.map(str.lower)
TOKEN68 = st.from_regex(r"[A-Za-z0-9\-._~+/]{1,20}={0,2}", fullmatch=True)
VALUE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)
CHALLENGES = st.builds(
    Challenge,
    LOWER,
    st.dictionaries(LOWER, VALUE, max_size=4),
) | st.builds(Challenge, LOWER, st.just({}), TOKEN68)


def spelled(challenge: Challenge, *, upper: bool, bare: bool, gap: str) -> str:
    """One of the ways in which RFC 9110 lets a challenge be written."""
    if challenge.token68:
        return f"{challenge.scheme} {challenge.token68}"
    parts = [_parameter(name, value, bare, gap) for name, value in challenge.parameters.items()]
    text = f"{challenge.scheme} {f'{gap},{gap}'.join(parts)}" if parts else challenge.scheme
    return text if not upper else re.sub(r"^\S+", lambda word: word[0].upper(), text)


def _parameter(name: str, value: str, bare: bool, gap: str) -> str:
    if bare and re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", value):
        return f"{name}{gap}={gap}{value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}{gap}={gap}"{escaped}"'


@given(
    st.lists(CHALLENGES, max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", " ", "\t", "  "]),
    st.sampled_from([",", ", ", " ,, ,"]),
)
def test_challenges_written_in_any_lawful_way_are_read_as_they_were_meant(
    challenges: list[Challenge], upper: bool, bare: bool, gap: str, comma: str
) -> None:
    text = comma.join(spelled(challenge, upper=upper, bare=bare, gap=gap) for challenge in challenges)
    assert parse_challenges([text]) == challenges


@given(st.lists(CHALLENGES, max_size=4))
def test_several_headers_are_read_like_one(challenges: list[Challenge]) -> None:
    lines = [spelled(challenge, upper=False, bare=False, gap="") for challenge in challenges]
    assert parse_challenges(lines) == challenges


@given(st.lists(st.text() | st.text(alphabet='ab=",\\ \t/'), max_size=3))
@example(['Bearer realm="'])
@example(['"\\'])
@example(["=", ",", "a=", '=""'])
def test_no_text_makes_it_raise(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower() != ""
    first_supported(parse_challenges(headers))


@pytest.mark.parametrize(
    "text", ['"' * 60_000, "a " * 30_000, "a" * 60_000, "\\" * 60_000, 'a="' * 20_000, "=," * 30_000]
)
def test_a_long_header_takes_no_long_time(text: str) -> None:
    started = time.process_time()
    parse_challenges([text])
    assert time.process_time() - started < 0.5


def test_dockers_own_challenge() -> None:
    header = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
    (challenge,) = parse_challenges([header])
    assert (challenge.scheme, challenge.realm) == ("bearer", "https://auth.docker.io/token")
    assert challenge.service == "registry.docker.io"
    assert challenge.scopes == ("repository:a/b:pull,push",)


def test_several_scopes_come_out_in_one_order_whatever_order_they_came_in() -> None:
    one, other = parse_challenges(
        ['Bearer scope="b:x:pull a:y:pull", Bearer scope="a:y:pull  b:x:pull a:y:pull"']
    )
    assert one.scopes == other.scopes == ("a:y:pull", "b:x:pull")


@pytest.mark.parametrize(
    ("headers", "scheme", "realm"),
    [
        (
            ['Bearer realm="https://codeberg.example/v2/token",service="x",Basic realm="y"'],
            "bearer",
            "https://codeberg.example/v2/token",
        ),
        (["Basic", 'Bearer realm="https://gitea.example/v2/token"'], "basic", ""),
        (['BASIC realm="Registry Realm"'], "basic", "Registry Realm"),
        (['Basic realm="harbor"'], "basic", "harbor"),
        (
            ['Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"'],
            "basic",
            "https://1.dkr.ecr.eu-west-1.amazonaws.com/",
        ),
        (["Negotiate", "Negotiate oRQwEqADCgEB==, Basic realm=corp"], "basic", "corp"),
        (["Bearer", 'Basic realm="a"'], "basic", "a"),
        (["bearer REALM=https://t.example/token, Service=s"], "bearer", "https://t.example/token"),
        (['Digest realm="a, Basic realm=b", nonce="x", Basic realm="c"'], "basic", "c"),
        (['Bearer realm="https://t.example/a\\"b"'], "bearer", 'https://t.example/a"b'),
        (['Bearer realm="/service/token'], "bearer", "/service/token"),
    ],
)
def test_the_first_challenge_that_can_be_met_is_chosen(headers: list[str], scheme: str, realm: str) -> None:
    chosen = first_supported(parse_challenges(headers))
    assert chosen is not None
    assert (chosen.scheme, chosen.realm) == (scheme, realm)


@pytest.mark.parametrize("headers", [[], [""], ["Negotiate"], ["Bearer"], ["realm=x"], ["Digest qop=auth"]])
def test_nothing_is_chosen_where_nothing_can_be_met(headers: list[str]) -> None:
    assert first_supported(parse_challenges(headers)) is None
