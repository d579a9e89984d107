"""Signing in by OAuth against a strict authorization server over real sockets, and what hostile ones get."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio
from trio.testing import MockClock

from regfs.auth.oauth.grant import Grant, read_grant
from regfs.auth.oauth.method import OAuth
from regfs.auth.service import ServiceFlow
from regfs.cli.sources import OneCredential
from regfs.connection import Connection
from regfs.errors import BadReply, CredentialError, NotSignedIn, RegfsError, UnsafeTarget
from regfs.ports import Credential, CredentialKind, HttpPolicy, OAuthServer
from regfs.registry.exchange import HttpExchange
from regfs.registry.service import Service
from tests.support import oauth_server
from tests.support.oauth_server import Client

POLICY = HttpPolicy("regfs/test", call_deadline=10.0)
SECRET = "the client's secret: +/ü"


@pytest.fixture
def server() -> Iterator[oauth_server.OAuthServer]:
    with oauth_server.OAuthServer() as running:
        yield running


@dataclass
class Somebody:
    """A person who does at once what a test wants with the link that is shown."""

    act: Callable[[str, str], None] = lambda _url, _code: None
    lines: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, text: str) -> None:
        self.lines.append(text)

    def show_link(self, url: str, code: str = "") -> None:
        self.links.append((url, code))
        self.act(url, code)


def connection(**options: str) -> Connection:
    named = {"oauth_client_id": "regfs-app"} | options
    return Connection("reg", "127.0.0.1:5000", auth="oauth", options=tuple(named.items()))


def sign_in(
    here: Connection,
    person: Somebody,
    answers: Mapping[str, str] | None = None,
    known: OAuthServer | None = None,
) -> Grant:
    async def talk() -> Credential:
        with trio.fail_after(15):
            return await OAuth().sign_in(here, answers or {}, known, HttpExchange(here, POLICY), person)

    credential = trio.run(talk)
    assert credential.kind is CredentialKind.OAUTH_GRANT
    return read_grant(credential)


def by_device(server: oauth_server.OAuthServer, **options: str) -> Connection:
    return connection(
        oauth_device_endpoint=server.device_endpoint, oauth_token_endpoint=server.token_endpoint, **options
    )


def by_browser(server: oauth_server.OAuthServer, **options: str) -> Connection:
    return connection(
        oauth_authorization_endpoint=server.authorization_endpoint,
        oauth_token_endpoint=server.token_endpoint,
        **options,
    )


def browse(url: str) -> str:
    """What a browser does with a link: it follows redirects. The page it ends at."""
    with urllib.request.urlopen(url, timeout=10) as page:
        return page.read().decode()  # type: ignore[no-any-return]


# ── the device flow ──────────────────────────────────────────────────────────────────────────────


def test_a_device_is_signed_in_once_the_person_has_agreed_with_the_code_that_is_shown(
    server: oauth_server.OAuthServer,
) -> None:
    person = Somebody(lambda _url, code: server.decide(code))
    grant = sign_in(by_device(server, oauth_scopes="read write"), person)
    assert server.is_good(grant.access_token)
    assert (grant.token_endpoint, grant.scopes) == (server.token_endpoint, ("read", "write"))
    ((url, code),) = person.links
    assert url == f"{server.issuer}/device?user_code={code}"
    assert any(f"{server.issuer}/device " in line for line in person.lines)
    assert server.asked == [(oauth_server.DEVICE_GRANT, "ok")]


def test_the_interval_is_kept_while_the_person_takes_their_time(server: oauth_server.OAuthServer) -> None:
    server.policy.interval = 0.2
    server.policy.pending = 2
    sign_in(by_device(server), Somebody(lambda _url, code: server.decide(code)))
    assert [error for _, error in server.asked] == ["authorization_pending"] * 2 + ["ok"]


@pytest.mark.parametrize(
    ("decision", "words"), [("access_denied", "refused"), ("expired_token", "not used in time")]
)
def test_a_device_that_is_refused_or_runs_out_is_told_so(
    server: oauth_server.OAuthServer, decision: str, words: str
) -> None:
    with pytest.raises(NotSignedIn, match=words):
        sign_in(by_device(server), Somebody(lambda _url, code: server.decide(code, decision)))


@dataclass
class Script:
    """An exchange that answers what it was told to, in order, and remembers when it was asked."""

    replies: list[tuple[int, object] | RegfsError]
    moments: list[float] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.moments.append(trio.current_time())
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, RegfsError):
            raise reply
        content = reply[1] if isinstance(reply[1], bytes) else None
        return httpx.Response(
            reply[0], content=content, json=None if content is not None else reply[1], request=request
        )


DEVICE = {
    "device_code": "dc",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://as.example/device",
    "expires_in": 900,
}
TOKENS = {"access_token": "at", "refresh_token": "rt", "token_type": "bearer", "expires_in": 3600}
KNOWN = OAuthServer("https://as.example/token", "https://as.example/device")


def pending(code: str = "authorization_pending", **more: object) -> tuple[int, object]:
    return 400, {"error": code, **more}


def talk(script: Script, person: Somebody | None = None, known: OAuthServer = KNOWN) -> Grant:
    async def run() -> Credential:
        return await OAuth().sign_in(connection(), {}, known, script, person or Somebody())

    return read_grant(trio.run(run, clock=MockClock(autojump_threshold=0)))


def gaps(script: Script) -> list[float]:
    return [round(b - a, 3) for a, b in zip(script.moments, script.moments[1:], strict=False)]


def test_a_slow_down_adds_five_seconds_for_good_and_five_is_the_interval_that_is_not_said() -> None:
    script = Script([(200, DEVICE), pending(), pending("slow_down"), pending(), (200, TOKENS)])
    talk(script)
    assert gaps(script) == [5, 5, 10, 10]


def test_githubs_errors_come_with_the_status_200_and_its_slow_down_names_the_interval() -> None:
    replies = [(200, DEVICE), (200, {"error": "slow_down", "interval": 20}), (200, TOKENS)]
    script = Script(list(replies))
    assert talk(script).refresh_token == "rt"
    assert gaps(script) == [5, 20]


def test_polls_become_rarer_where_nothing_answers_and_end_with_the_code() -> None:
    from regfs.errors import ConnectionFailed

    lost = [ConnectionFailed("lost")] * 2
    script = Script([(200, DEVICE | {"interval": 2}), *lost, (200, TOKENS)])
    talk(script)
    assert gaps(script) == [2, 4, 8]
    with pytest.raises(NotSignedIn, match="not used in time"):
        talk(Script([(200, DEVICE | {"expires_in": 12}), *[pending()] * 9]))


@pytest.mark.parametrize(
    "change",
    [
        {"verification_uri": "http://as.example/device"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://as.example/\x1b[31m"},
        {"verification_uri": "https://you@as.example/"},
        {"verification_uri": ""},
        {"verification_uri_complete": "file:///etc/passwd"},
        {"user_code": "AB\x1b]0;x\x07"},
        {"user_code": "A" * 65},
        {"device_code": ""},
        {"expires_in": "soon"},
    ],
)
def test_nothing_is_shown_that_could_fool_a_person_or_steer_a_terminal(change: dict[str, object]) -> None:
    person = Somebody()
    with pytest.raises(BadReply):
        talk(Script([(200, DEVICE | change)]), person)
    assert person.links == []


@pytest.mark.parametrize(
    "reply",
    [
        (200, b"no json"),
        (200, b"[" * 60000),
        (200, []),
        (200, {"access_token": 7}),
        (200, {"access_token": "with a blank"}),
        (200, {"access_token": ""}),
        (200, {"access_token": "at", "token_type": "mac"}),
        (200, TOKENS | {"refresh_token": "line\nbreak"}),
        (302, {}),
        (404, {}),
    ],
)
def test_a_reply_that_holds_no_token_is_none(reply: tuple[int, object]) -> None:
    with pytest.raises(BadReply):
        talk(Script([(200, DEVICE), reply]))


def test_what_was_given_is_in_no_text_of_an_error_or_a_repr() -> None:
    script = Script([(200, DEVICE), pending("invalid_scope", error_description="no dc, no " + "x" * 50)])
    with pytest.raises(NotSignedIn) as caught:
        talk(script)
    assert "invalid_scope" in str(caught.value)
    assert "x" * 40 not in str(caught.value)
    grant = talk(Script([(200, DEVICE), (200, TOKENS | {"access_token": "at-secret"})]))
    assert "at-secret" not in repr(grant) + repr(grant.kept()) + repr(grant.usable(""))


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────


def in_background(act: Callable[[str], object]) -> Callable[[str, str], None]:
    import threading

    return lambda url, _code: threading.Thread(target=act, args=(url,), daemon=True).start()


def test_a_browser_that_comes_back_signs_in_by_pkce(server: oauth_server.OAuthServer) -> None:
    pages: list[str] = []
    grant = sign_in(by_browser(server), Somebody(in_background(lambda url: pages.append(browse(url)))))
    assert server.is_good(grant.access_token)
    assert server.asked == [("authorization_code", "ok")]


def test_the_link_holds_state_and_challenge_and_a_free_port_of_the_loopback_address(
    server: oauth_server.OAuthServer,
) -> None:
    person = Somebody(in_background(browse))
    sign_in(by_browser(server, oauth_scopes="a b"), person)
    query = {name: values[0] for name, values in parse_qs(urlsplit(person.links[0][0]).query).items()}
    redirect = urlsplit(query["redirect_uri"])
    assert (redirect.scheme, redirect.hostname, redirect.path) == ("http", "127.0.0.1", "/")
    assert (query["code_challenge_method"], query["scope"]) == ("S256", "a b")
    assert len(query["state"]) >= 32
    with pytest.raises(urllib.error.URLError):
        browse(query["redirect_uri"])  # closed, once the browser was there


def test_what_is_no_answer_to_this_sign_in_is_turned_away_and_the_right_one_still_counts(
    server: oauth_server.OAuthServer,
) -> None:
    statuses: list[int] = []

    def disturb(url: str) -> None:
        query = parse_qs(urlsplit(url).query)
        back, state = query["redirect_uri"][0], query["state"][0]
        port = urlsplit(back).port
        for target, headers in (
            (f"{back}?code=forged&state=another", {}),
            (f"{back}?code=forged", {}),
            (f"{back}favicon.ico", {}),
            (f"{back}other?code=forged&state={state}", {}),
            (f"{back}?code=forged&state={state}", {"Host": "evil.example"}),
            (f"{back}?code=forged&state={state}&iss=https://evil.example", {}),
            (f"{back}?state={state}", {}),
        ):
            try:
                urllib.request.urlopen(urllib.request.Request(target, headers=headers), timeout=10)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
        assert port
        browse(url)

    here = by_browser(server, oauth_issuer=server.issuer)
    assert server.is_good(sign_in(here, Somebody(in_background(disturb))).access_token)
    assert statuses == [400] * 7


def test_a_person_who_refuses_in_the_browser_is_believed(server: oauth_server.OAuthServer) -> None:
    def refuse(url: str) -> None:
        query = parse_qs(urlsplit(url).query)
        browse(f"{query['redirect_uri'][0]}?error=access_denied&state={query['state'][0]}")

    with pytest.raises(NotSignedIn, match="refused"):
        sign_in(by_browser(server), Somebody(in_background(refuse)))


# ── as a client, and what is discovered ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["client_secret_post", "client_secret_basic"])
def test_a_client_signs_in_with_its_secret_in_whichever_form_the_server_takes(form: str) -> None:
    client = Client(SECRET, frozenset({"client_credentials"}), frozenset({form}))
    with oauth_server.OAuthServer({"regfs-app": client}) as server:
        here = connection(oauth_token_endpoint=server.token_endpoint, oauth_flow="client")
        grant = sign_in(here, Somebody(), {"client_secret": SECRET})
    assert grant.by_client
    assert grant.basic is (form == "client_secret_basic")


@pytest.mark.parametrize("document", ["oauth-authorization-server", "openid-configuration"])
def test_endpoints_are_found_by_the_issuer(server: oauth_server.OAuthServer, document: str) -> None:
    server.policy.metadata = document
    person = Somebody(lambda _url, code: server.decide(code))
    assert server.is_good(sign_in(connection(oauth_issuer=server.issuer), person).access_token)


def test_the_document_of_another_issuer_is_not_believed(server: oauth_server.OAuthServer) -> None:
    server.policy.issuer = "https://evil.example"
    with pytest.raises(BadReply, match=r"evil\.example"):
        sign_in(connection(oauth_issuer=server.issuer), Somebody())
    assert server.asked == []


def test_no_endpoint_of_plain_http_is_taken_from_an_issuer_on_https() -> None:
    document = {"issuer": "https://as.example", "token_endpoint": "http://as.example/token"}
    with pytest.raises(UnsafeTarget):
        talk(Script([(200, document)]), known=OAuthServer(issuer="https://as.example"))


def test_an_issuer_with_a_path_is_asked_where_each_standard_says() -> None:
    script = Script([(404, {}), (404, {})])
    with pytest.raises(NotSignedIn):
        talk(script, known=OAuthServer(issuer="https://as.example/tenant/1"))
    assert [str(request.url) for request in script.requests] == [
        "https://as.example/.well-known/oauth-authorization-server/tenant/1",
        "https://as.example/tenant/1/.well-known/openid-configuration",
    ]


def test_another_issuer_than_the_providers_leaves_nothing_of_the_providers() -> None:
    script = Script([(404, {}), (404, {})])
    with pytest.raises(NotSignedIn):
        trio.run(
            OAuth().sign_in, connection(oauth_issuer="https://other.example"), {}, KNOWN, script, Somebody()
        )
    assert {request.url.host for request in script.requests} == {"other.example"}


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({"oauth_client_id": ""}, "--client-id"),
        ({}, "--token-endpoint"),
        ({"oauth_token_endpoint": "https://as.example/t"}, "--device-endpoint"),
        ({"oauth_token_endpoint": "https://as.example/t", "oauth_flow": "client"}, "--client-secret-stdin"),
        ({"oauth_flow": "guess"}, "device, browser, client"),
    ],
)
def test_what_is_missing_is_named_by_its_option(options: dict[str, str], lacking: str) -> None:
    with pytest.raises(CredentialError, match=lacking):
        trio.run(OAuth().sign_in, connection(**options), {}, None, Script([]), Somebody())


# ── by which rules it is sent ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("reg.example", "http://as.example/token"),
        ("reg.example", "http://reg.example/token"),
        ("127.0.0.1:5000", "http://192.0.2.1/token"),
    ],
)
def test_a_sign_in_is_never_sent_by_plain_http_over_a_network(address: str, url: str) -> None:
    here = Connection("reg", address, auth="oauth")
    with pytest.raises(UnsafeTarget, match="plain http"):
        trio.run(HttpExchange(here, POLICY), httpx.Request("POST", url, content=b"secret"))


def test_a_stranger_in_a_private_network_is_asked_nothing_unless_the_user_named_it(
    server: oauth_server.OAuthServer,
) -> None:
    request = httpx.Request("POST", server.token_endpoint, content=b"")
    stranger = Connection("reg", "192.0.2.7", auth="oauth")
    with pytest.raises(UnsafeTarget):
        trio.run(HttpExchange(stranger, POLICY), request)
    assert server.requests == []
    named = Connection("reg", "192.0.2.7", options=(("oauth_issuer", server.issuer),))
    assert trio.run(HttpExchange(named, POLICY), request).status_code == 400


# ── for who brings a Source of their own ─────────────────────────────────────────────────────────


def test_a_strangers_api_is_asked_with_access_tokens_that_are_renewed_once_for_all(
    server: oauth_server.OAuthServer,
) -> None:
    here = by_device(server)
    kept = OneCredential(sign_in(here, Somebody(lambda _url, code: server.decide(code))).kept("keyring"))
    server.end_access_tokens()

    async def test() -> None:
        keychain = OAuth().refined(here, kept, HttpExchange(here, POLICY))
        service = Service(here, server.issuer, POLICY, ServiceFlow(here, keychain, server.issuer))
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(service.request, "GET", "api")
        await service.aclose()

    trio.run(test)
    assert [result for grant, result in server.asked if grant == "refresh_token"] == ["ok"]
    assert kept.credential is not None
    assert read_grant(kept.credential).refresh_token == server.families[0].refresh
