"""The challenge flow, without a socket: what is sent, to whom, how often, and what comes of it."""

from __future__ import annotations

import httpx
import pytest
import trio

from regfs.auth.conversation import Proof
from regfs.auth.flows import BasicFlow, ChallengeFlow, Flow
from regfs.auth.tokencache import Token
from regfs.auth.tokens import Ask, Grant, basic_header
from regfs.errors import (
    BadReply,
    CredentialError,
    Forbidden,
    NotSignedIn,
    RateLimited,
    ServerFailed,
    UnsafeTarget,
)
from regfs.ports import Credential
from tests.auth.drive import (
    BASE,
    BOB,
    HOST,
    IDENTITY,
    NEW_BOB,
    REGISTRY_TOKEN,
    Answer,
    FixedKeychain,
    TokenRegistry,
    connection,
    run,
    send,
    sent,
)

AUTH = "auth.example"


def flow_for(*credentials: Credential | CredentialError | None) -> ChallengeFlow:
    return ChallengeFlow(connection(), FixedKeychain(credentials or (None,)))


def basic_registry(
    users: dict[str, str], seen: list[httpx.Request], challenge: str = 'Basic realm="r"'
) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(httpx.Request(request.method, request.url, headers=request.headers))
        header = request.headers.get("Authorization", "")
        good = [basic_header(Credential(user, password)) for user, password in users.items()]
        if header in good:
            return httpx.Response(200)
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    return answer


# ── Basic ──


def test_nothing_is_sent_before_the_registry_asks_and_then_it_is_sent_at_once() -> None:
    seen: list[httpx.Request] = []
    keychain = FixedKeychain((BOB,))
    flow = ChallengeFlow(connection(), keychain)

    async def test() -> None:
        answer = basic_registry({"bob": BOB.secret}, seen)
        for target in ("app/manifests/v1", "app/manifests/v2", "other/tags/list", ""):
            assert (await send(flow, answer, target)).status_code == 200

    run(test)
    assert [scheme for _, _, scheme in sent(seen)] == ["", "Basic", "Basic", "Basic", "Basic"]
    assert keychain.asked == 1


def test_a_registry_that_asks_for_nothing_gets_nothing_and_the_keychain_is_not_asked() -> None:
    keychain = FixedKeychain((BOB,))
    response = run(lambda: send(ChallengeFlow(connection(), keychain), lambda _: httpx.Response(200)))
    assert response.status_code == 200
    assert "Authorization" not in response.request.headers
    assert keychain.asked == 0


@pytest.mark.parametrize("kind", [ChallengeFlow, BasicFlow])
def test_a_wrong_password_says_so_and_is_not_sent_over_and_over(kind: type[Flow]) -> None:
    seen: list[httpx.Request] = []
    flow = kind(connection(), FixedKeychain((BOB,)))

    async def test() -> None:
        answer = basic_registry({"bob": "right"}, seen)
        for _ in range(50):
            with pytest.raises(NotSignedIn, match="wrong user name or password") as caught:
                await send(flow, answer)
            assert BOB.secret not in f"{caught.value!s}{caught.value!r}"
            assert caught.value.registry == HOST
        assert sum(scheme == "Basic" for _, _, scheme in sent(seen)) == 1
        await trio.sleep(31)
        with pytest.raises(NotSignedIn):
            await send(flow, answer)
        assert sum(scheme == "Basic" for _, _, scheme in sent(seen)) == 2

    run(test)


@pytest.mark.parametrize("kind", [ChallengeFlow, BasicFlow])
def test_a_password_changed_meanwhile_is_asked_for_anew(kind: type[Flow]) -> None:
    users = {"bob": BOB.secret}
    flow = kind(connection(), FixedKeychain((BOB, NEW_BOB)))

    async def test() -> None:
        answer = basic_registry(users, [])
        assert (await send(flow, answer)).status_code == 200
        users["bob"] = NEW_BOB.secret
        await trio.sleep(60)
        assert (await send(flow, answer)).status_code == 200

    run(test)


@pytest.mark.parametrize("kind", [ChallengeFlow, BasicFlow])
def test_a_new_sign_in_counts_at_once_even_after_a_refusal(kind: type[Flow]) -> None:
    flow = kind(connection(), FixedKeychain((BOB, NEW_BOB)))

    async def test() -> None:
        answer = basic_registry({"bob": NEW_BOB.secret}, [])
        with pytest.raises(NotSignedIn):
            await send(flow, answer)
        flow.forget()
        assert (await send(flow, answer)).status_code == 200

    run(test)


def test_the_basic_method_sends_unasked_and_needs_credentials() -> None:
    seen: list[httpx.Request] = []
    answer = basic_registry({"bob": BOB.secret}, seen)
    run(lambda: send(BasicFlow(connection(), FixedKeychain((BOB,))), answer))
    assert [scheme for _, _, scheme in sent(seen)] == ["Basic"]
    with pytest.raises(NotSignedIn, match="no credentials"):
        run(lambda: send(BasicFlow(connection(), FixedKeychain()), answer))
    with pytest.raises(NotSignedIn, match="identity token"):
        run(lambda: send(BasicFlow(connection(), FixedKeychain((IDENTITY,))), answer))


def test_without_credentials_the_registrys_own_401_is_the_answer_with_its_body() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401, headers={"WWW-Authenticate": "Basic"}, text="words")

    async def test() -> str:
        response = await send(flow_for(), answer)
        assert response.status_code == 401
        return (await response.aread()).decode()

    assert run(test) == "words"


def test_a_keychain_that_failed_is_told_of_only_where_a_sign_in_is_wanted() -> None:
    registry = TokenRegistry(anonymous=True)
    flow = flow_for(CredentialError("no usable keyring"))
    assert run(lambda: send(flow, registry)).status_code == 200
    with pytest.raises(NotSignedIn, match="no usable keyring"):
        run(lambda: send(flow_for(CredentialError("no usable keyring")), basic_registry({}, [])))


# ── where credentials go ──


@pytest.mark.parametrize(
    ("address", "url", "signed"),
    [
        ("reg.example", "https://reg.example/v2/", True),
        ("reg.example", "https://REG.example:443/v2/", True),
        ("reg.example", "https://reg.example:8443/v2/", False),
        ("reg.example", "https://cdn.reg.example/v2/", False),
        ("reg.example", "https://reg.example.evil/v2/", False),
        ("reg.example", "http://reg.example/v2/", False),
        ("reg.example:5000", "https://reg.example:5000/v2/", True),
        ("reg.example:5000", "https://reg.example/v2/", False),
        ("localhost:5000", "http://localhost:5000/v2/", True),
        ("[::1]:5000", "http://[::1]:5000/v2/", True),
        ("docker.io", "https://registry-1.docker.io/v2/", True),
        ("docker.io", "https://auth.docker.io/token", False),
    ],
)
def test_credentials_go_to_the_connections_own_origin_only(address: str, url: str, signed: bool) -> None:
    flow = BasicFlow(connection(address), FixedKeychain((BOB,)))
    response = run(lambda: send(flow, lambda _: httpx.Response(200), url))
    assert ("Authorization" in response.request.headers) is signed


def test_a_connection_that_allows_plain_http_is_signed_over_it() -> None:
    flow = BasicFlow(connection(insecure=True), FixedKeychain((BOB,)))
    response = run(lambda: send(flow, lambda _: httpx.Response(200), f"http://{HOST}/v2/"))
    assert "Authorization" in response.request.headers


def test_a_signed_request_that_is_sent_elsewhere_loses_its_signature_and_a_challenge_there_is_not_met() -> (
    None
):
    keychain = FixedKeychain((BOB,))
    flow = ChallengeFlow(connection(), keychain)

    async def test() -> None:
        request = httpx.Request("GET", "https://cdn.example/blob", headers={"Authorization": "Bearer x"})
        steps = flow.async_auth_flow(request)
        assert "Authorization" not in (await anext(steps)).headers
        with pytest.raises(StopAsyncIteration):
            await steps.asend(httpx.Response(401, headers={"WWW-Authenticate": "Basic"}))

    run(test)
    assert keychain.asked == 0


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example/token",
        "ftp://auth.example/",
        "file:///etc/passwd",
        "https://bob:x@auth.example/",
        "https://",
        "http://[::1",
    ],
)
def test_a_realm_that_must_not_be_used_is_refused_before_anything_goes_there(realm: str) -> None:
    registry = TokenRegistry(realm=realm)
    keychain = FixedKeychain((BOB,))
    with pytest.raises(UnsafeTarget) as caught:
        run(lambda: send(ChallengeFlow(connection(), keychain), registry))
    assert caught.value.registry == HOST
    assert len(registry.requests) == 1
    assert keychain.asked == 0


def test_a_relative_realm_is_the_registrys_own() -> None:
    tokens: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/service/token":
            tokens.append(str(request.url))
            return httpx.Response(200, json={"token": "t"})
        if request.headers.get("Authorization") == "Bearer t":
            return httpx.Response(200)
        return httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="/service/token?a=1"'})

    assert run(lambda: send(flow_for(BOB), answer)).status_code == 200
    (url,) = tokens
    assert url.startswith(f"https://{HOST}/service/token?a=1&")


# ── tokens ──


def test_a_token_is_got_with_get_and_basic_for_the_scope_that_the_401_named() -> None:
    registry = TokenRegistry()
    assert run(lambda: send(flow_for(BOB), registry)).status_code == 200
    assert sent(registry.requests) == [("GET", HOST, ""), ("GET", AUTH, "Basic"), ("GET", HOST, "Bearer")]
    parameters = registry.token_requests[0].url.params
    assert parameters.get_list("scope") == ["repository:app:pull"]
    assert (parameters["service"], parameters["account"]) == ("svc", "bob")
    assert registry.token_requests[0].headers["User-Agent"] == "regfs/test"


def test_one_401_serves_all_repositories_that_are_read() -> None:
    registry = TokenRegistry()
    flow = flow_for(BOB)

    async def test() -> None:
        for number in range(20):
            for tag in ("v1", "v2"):
                assert (await send(flow, registry, f"team/app{number}/manifests/{tag}")).status_code == 200

    run(test)
    assert registry.refusals == 1
    assert len(registry.token_requests) == flow.token_requests == 20


def test_what_is_no_read_is_never_guessed() -> None:
    registry = TokenRegistry()
    flow = flow_for(BOB)

    async def test() -> None:
        await send(flow, registry)
        for method in ("DELETE", "PUT"):
            assert (await send(flow, registry, "new/manifests/v1", method)).status_code == 200
        assert (await send(flow, registry, "_catalog")).status_code == 200

    run(test)
    assert registry.refusals == 4
    scopes = [request.url.params["scope"] for request in registry.token_requests]
    assert scopes == [
        "repository:app:pull",
        "repository:new:delete",
        "repository:new:pull,push",
        "registry:catalog:*",
    ]


def test_a_registry_that_names_other_scopes_is_not_guessed_at() -> None:
    asked: list[list[str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == AUTH:
            asked.append(request.url.params.get_list("scope"))
            return httpx.Response(200, json={"token": f"t-{asked[-1][0]}"})
        name = request.url.path.split("/")[2]
        if request.headers.get("Authorization") == f"Bearer t-a:{name}":
            return httpx.Response(200)
        header = f'Bearer realm="https://{AUTH}/token",scope="b:{name} a:{name}"'
        return httpx.Response(401, headers={"WWW-Authenticate": header})

    async def test() -> None:
        flow = flow_for(BOB)
        for name in ("one", "two"):
            assert (await send(flow, answer, f"{name}/manifests/v1")).status_code == 200

    run(test)
    assert asked == [["a:one", "b:one"], ["a:two", "b:two"]]


def test_a_guess_that_the_token_endpoint_refuses_gives_way_to_what_the_registry_says() -> None:
    registry = TokenRegistry()
    flow = flow_for(BOB)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == AUTH and "repository:public:pull" in request.url.params.get_list("scope"):
            registry.requests.append(request)
            return httpx.Response(403)
        if request.url.path == "/v2/public/manifests/v1":
            return httpx.Response(200)
        return registry(request)

    async def test() -> None:
        await send(flow, answer)
        assert (await send(flow, answer, "public/manifests/v1")).status_code == 200
        registry.requests.clear()

        def no(request: httpx.Request) -> httpx.Response:
            return httpx.Response(403) if request.url.host == AUTH else registry(request)

        with pytest.raises(Forbidden, match="does not grant that to bob"):
            await send(flow, no, "hidden/manifests/v1")

    run(test)


def test_an_anonymous_token_is_got_without_credentials() -> None:
    registry = TokenRegistry(anonymous=True)
    assert run(lambda: send(flow_for(), registry)).status_code == 200
    assert sent(registry.token_requests) == [("GET", AUTH, "")]


def test_a_token_is_renewed_before_it_ends_and_without_a_401() -> None:
    registry = TokenRegistry(lifetime=100)
    flow = flow_for(BOB)

    async def test() -> None:
        for _ in range(30):
            await send(flow, registry)
            await trio.sleep(10)

    run(test)
    assert registry.refusals == 1
    assert 3 <= len(registry.token_requests) <= 5


def test_a_token_that_is_being_renewed_serves_the_others_meanwhile() -> None:
    registry = TokenRegistry(lifetime=100)
    flow = flow_for(BOB)

    async def test() -> None:
        await send(flow, registry)
        await trio.sleep(79)
        await send(flow, registry)
        assert len(registry.token_requests) == 1
        await trio.sleep(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly, flow, registry)
            await trio.sleep(1)
            started = trio.current_time()
            await send(flow, registry)
            assert trio.current_time() == started
        assert len(registry.token_requests) == 2

    run(test)
    assert registry.refusals == 1


def test_a_token_without_a_lifetime_lives_a_minute() -> None:
    registry = TokenRegistry(lifetime=None)
    flow = flow_for(BOB)

    async def test() -> None:
        await send(flow, registry)
        await trio.sleep(45)
        await send(flow, registry)
        assert len(registry.token_requests) == 1
        await trio.sleep(15)
        await send(flow, registry)
        assert len(registry.token_requests) == 2

    run(test)


def test_a_token_that_ended_early_is_fetched_once_more_and_no_more() -> None:
    registry = TokenRegistry()
    flow = flow_for(BOB)

    async def test() -> None:
        await send(flow, registry)
        registry.valid.clear()
        assert (await send(flow, registry)).status_code == 200
        assert len(registry.token_requests) == 2

    run(test)


@pytest.mark.parametrize(
    ("status", "error"), [(401, "insufficient_scope"), (403, "insufficient_scope"), (401, "")]
)
@pytest.mark.parametrize("credential", [BOB, None])
def test_a_new_token_that_is_not_enough_ends_it(
    status: int, error: str, credential: Credential | None
) -> None:
    registry = TokenRegistry(anonymous=True)

    def answer(request: httpx.Request) -> httpx.Response:
        response = registry(request)
        if request.url.host == AUTH or "Authorization" not in request.headers:
            return response
        header = registry.registry(httpx.Request("GET", request.url)).headers["WWW-Authenticate"]
        return httpx.Response(status, headers={"WWW-Authenticate": f'{header},error="{error}"'})

    async def test() -> int:
        response = await send(flow_for(credential), answer, "_catalog")
        return response.status_code

    if credential is None:
        assert run(test) == status
    else:
        with pytest.raises(Forbidden, match="signed in as bob"):
            run(test)
    assert len(registry.token_requests) == 1
    assert len(registry.requests) == 3


def test_a_403_without_a_challenge_is_simply_the_answer() -> None:
    response = run(lambda: send(flow_for(BOB), lambda _: httpx.Response(403)))
    assert response.status_code == 403


def test_endless_new_challenges_come_to_an_end() -> None:
    count = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        if request.url.host == AUTH:
            return httpx.Response(200, json={"token": f"t{count}"})
        header = f'Bearer realm="https://{AUTH}/token",scope="repository:app{count}:pull"'
        return httpx.Response(401, headers={"WWW-Authenticate": header})

    assert run(lambda: send(flow_for(BOB), answer)).status_code == 401
    assert count < 12


def test_a_token_that_the_registry_calls_invalid_is_the_registrys_fault() -> None:
    registry = TokenRegistry()

    def answer(request: httpx.Request) -> httpx.Response:
        registry.valid.clear()
        response = registry(request)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] += ',error="invalid_token"'
        return response

    with pytest.raises(BadReply, match=r"does not take the token that auth\.example gave"):
        run(lambda: send(flow_for(BOB), answer))


# ── identity, refresh and registry tokens ──


def oauth(registry: TokenRegistry, secrets: set[str], reply: dict[str, object]) -> Answer:
    """A token endpoint of the POST form alone."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == HOST:
            return registry(request)
        registry.requests.append(request)
        form = httpx.QueryParams(request.content.decode())
        if request.method != "POST":
            return httpx.Response(405)
        given = form.get("refresh_token") or form.get("password") or ""
        if given not in secrets:
            return httpx.Response(400, json={"error": "invalid_grant", "error_description": f"no: {given}"})
        token = registry.granted(set(form["scope"].split())).json()["token"]
        return httpx.Response(200, json={"access_token": token, "expires_in": 300, **reply})

    return answer


def test_an_identity_token_is_posted() -> None:
    registry = TokenRegistry()
    response = run(lambda: send(flow_for(IDENTITY), oauth(registry, {IDENTITY.secret}, {})))
    assert response.status_code == 200
    assert sent(registry.token_requests) == [("POST", AUTH, "")]
    form = httpx.QueryParams(registry.token_requests[0].content.decode())
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", IDENTITY.secret)
    assert (form["scope"], form["service"]) == ("repository:app:pull", "svc")
    assert form["client_id"]


def test_an_identity_token_that_is_not_taken_any_more_says_so_without_being_shown() -> None:
    registry = TokenRegistry()
    with pytest.raises(NotSignedIn, match="the identity token is not taken any more") as caught:
        run(lambda: send(flow_for(IDENTITY), oauth(registry, set(), {})))
    assert IDENTITY.secret not in str(caught.value)
    assert "no: […]" in str(caught.value)


def test_a_token_endpoint_that_takes_no_identity_tokens_is_named() -> None:
    registry = TokenRegistry()
    with pytest.raises(NotSignedIn, match=r"auth\.example takes no identity tokens"):
        run(lambda: send(flow_for(IDENTITY), registry))


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(405),
        httpx.Response(404),
        httpx.Response(400),
        httpx.Response(401, headers={"WWW-Authenticate": "Bearer"}),
    ],
)
def test_a_password_goes_by_post_where_get_is_refused(refusal: httpx.Response) -> None:
    registry = TokenRegistry()
    post = oauth(registry, {BOB.secret}, {})

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == AUTH and request.method == "GET":
            return httpx.Response(refusal.status_code, headers=refusal.headers)
        return post(request)

    assert run(lambda: send(flow_for(BOB), answer)).status_code == 200
    (request,) = registry.token_requests
    form = httpx.QueryParams(request.content.decode())
    assert (form["grant_type"], form["username"], form["password"]) == ("password", "bob", BOB.secret)


def test_a_token_endpoint_that_takes_neither_form_refuses_basic_credentials() -> None:
    registry = TokenRegistry()

    def answer(request: httpx.Request) -> httpx.Response:
        return registry(request) if request.url.host == HOST else httpx.Response(405)

    with pytest.raises(NotSignedIn, match=r"the token endpoint auth\.example refuses basic credentials"):
        run(lambda: send(flow_for(BOB), answer))


def test_a_wrong_password_at_the_token_endpoint_has_the_endpoints_words() -> None:
    registry = TokenRegistry(users={"bob": "right"})
    with pytest.raises(
        NotSignedIn, match=r"wrong user name or password.*incorrect username or password"
    ) as caught:
        run(lambda: send(flow_for(BOB), registry))
    assert caught.value.registry == HOST
    assert len(registry.token_requests) == 1


def test_a_password_changed_meanwhile_is_asked_for_anew_at_the_token_endpoint() -> None:
    registry = TokenRegistry(lifetime=60)
    flow = flow_for(BOB, NEW_BOB)

    async def test() -> None:
        await send(flow, registry)
        registry.users["bob"] = NEW_BOB.secret
        await trio.sleep(100)
        assert (await send(flow, registry)).status_code == 200

    run(test)
    assert registry.refusals == 1


def test_a_refresh_token_in_the_reply_gets_the_next_token() -> None:
    registry = TokenRegistry(extra={"refresh_token": "kept"})
    post = oauth(registry, {"kept"}, {"refresh_token": "kept"})

    def answer(request: httpx.Request) -> httpx.Response:
        return post(request) if request.method == "POST" else registry(request)

    flow = flow_for(BOB)

    async def test() -> None:
        for name in ("one", "two", "three"):
            assert (await send(flow, answer, f"{name}/manifests/v1")).status_code == 200

    run(test)
    assert [request.method for request in registry.token_requests] == ["GET", "POST", "POST"]


def test_a_refresh_token_that_is_not_taken_is_tried_once_only() -> None:
    registry = TokenRegistry(extra={"refresh_token": "kept"})
    flow = flow_for(BOB)

    async def test() -> None:
        for name in ("one", "two", "three"):
            assert (await send(flow, registry, f"{name}/manifests/v1")).status_code == 200

    run(test)
    assert [request.method for request in registry.token_requests] == ["GET", "POST", "GET", "GET"]


def test_a_registry_token_is_sent_as_it_is() -> None:
    registry = TokenRegistry()
    registry.valid[REGISTRY_TOKEN.secret] = {"repository:app:pull"}
    flow = flow_for(REGISTRY_TOKEN)

    async def test() -> None:
        for _ in range(2):
            assert (await send(flow, registry)).status_code == 200

    run(test)
    assert sent(registry.requests) == [("GET", HOST, ""), ("GET", HOST, "Bearer"), ("GET", HOST, "Bearer")]


def test_a_token_is_no_password() -> None:
    with pytest.raises(NotSignedIn, match="wants a user name and a password"):
        run(lambda: send(flow_for(REGISTRY_TOKEN), basic_registry({}, [])))


# ── odd registries ──


def test_a_401_without_a_challenge_is_met_by_the_last_challenge_there_was() -> None:
    registry = TokenRegistry()

    def answer(request: httpx.Request) -> httpx.Response:
        response = registry(request)
        if request.url.path != "/v2/" and request.url.host == HOST:
            response.headers.pop("WWW-Authenticate", None)
        return response

    flow = flow_for(BOB)

    async def test() -> None:
        assert (await send(flow, answer)).status_code == 401
        assert (await send(flow, answer, "")).status_code == 200
        assert (await send(flow, answer)).status_code == 200

    run(test)


def test_harbors_basic_challenge_after_a_token_failed_does_not_hide_its_real_one() -> None:
    registry = TokenRegistry(anonymous=True)

    def answer(request: httpx.Request) -> httpx.Response:
        response = registry(request)
        if request.url.host == HOST and response.status_code == 401 and "Authorization" in request.headers:
            response.headers["WWW-Authenticate"] = 'Basic realm="harbor"'
        return response

    async def test() -> None:
        for credential in (BOB, None):
            flow = flow_for(credential)
            assert (await send(flow, answer)).status_code == 200
            registry.valid.clear()
            assert (await send(flow, answer)).status_code == 200

    run(test)
    assert "Basic" not in [scheme for _, host, scheme in sent(registry.requests) if host == HOST]


def test_a_catalog_that_wants_basic_does_not_make_the_rest_want_it() -> None:
    registry = TokenRegistry()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v2/_catalog":
            return registry(request)
        registry.requests.append(httpx.Request("GET", request.url, headers=request.headers))
        good = request.headers.get("Authorization", "").startswith("Basic ")
        return httpx.Response(200 if good else 401, headers={"WWW-Authenticate": 'Basic realm="harbor"'})

    flow = flow_for(BOB)

    async def test() -> None:
        for target in ("_catalog", "app/manifests/v1", "_catalog", "new/manifests/v1"):
            assert (await send(flow, answer, target)).status_code == 200

    run(test)
    assert [scheme for _, host, scheme in sent(registry.requests) if host == HOST] == [
        "",
        "Basic",
        "",
        "Bearer",
        "Basic",
        "Bearer",
    ]


# ── token endpoints that fail ──


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"token": 1}',
        b'{"token": "a\\nb"}',
        b'{"token": ""}',
        b"{}",
        b'{"token": "t", "expires_in": []}',
        b'{"token": "t", "refresh_token": 1}',
        b"[" * 60_000,
        b'{"token": "' + b"a" * 70_000 + b'"}',
    ],
)
def test_a_reply_that_is_no_token_reply_is_a_bad_reply(body: bytes) -> None:
    registry = TokenRegistry()

    def answer(request: httpx.Request) -> httpx.Response:
        return registry(request) if request.url.host == HOST else httpx.Response(200, content=body)

    with pytest.raises(BadReply) as caught:
        run(lambda: send(flow_for(BOB), answer))
    assert AUTH in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_token_endpoint_that_fails_for_a_moment_is_asked_again(status: int) -> None:
    registry = TokenRegistry()
    failures = 2

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal failures
        if request.url.host == AUTH and failures:
            failures -= 1
            return httpx.Response(status, headers={"Retry-After": "1"})
        return registry(request)

    assert run(lambda: send(flow_for(BOB), answer)).status_code == 200


@pytest.mark.parametrize(
    ("status", "kind"), [(503, ServerFailed), (429, RateLimited), (302, BadReply), (418, BadReply)]
)
def test_a_token_endpoint_that_goes_on_failing_is_named(status: int, kind: type[BadReply]) -> None:
    registry = TokenRegistry()
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += request.url.host == AUTH
        return (
            registry(request)
            if request.url.host == HOST
            else httpx.Response(status, headers={"Location": BASE})
        )

    with pytest.raises(kind, match=r"auth\.example"):
        run(lambda: send(flow_for(BOB), answer))
    assert asked <= 3


# ── many at once ──


def test_a_hundred_requests_fetch_one_token_and_ask_the_keychain_once() -> None:
    registry = TokenRegistry()
    keychain = FixedKeychain((BOB,), delay=1)
    flow = ChallengeFlow(connection(), keychain)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(send, flow, registry, f"app/manifests/v{number}")

    run(test)
    assert len(registry.token_requests) == 1
    assert keychain.asked == 1


@pytest.mark.parametrize("cancelled", [1, 50])
def test_a_token_whose_task_is_cancelled_is_fetched_by_one_who_waits(cancelled: int) -> None:
    registry = TokenRegistry()
    flow = flow_for(BOB)
    statuses: list[int] = []

    async def one(scope: trio.CancelScope) -> None:
        with scope:
            statuses.append((await send_slowly(flow, registry)).status_code)

    async def test() -> None:
        scopes = [trio.CancelScope() for _ in range(100)]
        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(one, scope)
                await trio.sleep(0.01)
            for scope in scopes[:cancelled]:
                scope.cancel()

    run(test)
    assert statuses == [200] * (100 - cancelled)
    assert len(registry.token_requests) == 2


async def send_slowly(flow: httpx.Auth, registry: TokenRegistry) -> httpx.Response:
    """As `send`, with a token endpoint that takes ten seconds."""
    steps = flow.async_auth_flow(httpx.Request("GET", f"{BASE}app/manifests/v1"))
    try:
        request = await anext(steps)
        while True:
            response = registry(request)
            if request.url.host == AUTH:
                await trio.sleep(10)
            try:
                request = await steps.asend(response)
            except StopAsyncIteration:
                return response
    finally:
        await steps.aclose()


def test_all_who_wait_for_a_token_that_is_refused_get_the_error_and_it_is_asked_for_once() -> None:
    registry = TokenRegistry(users={})
    flow = flow_for(BOB)
    errors: list[NotSignedIn] = []

    async def one() -> None:
        with pytest.raises(NotSignedIn) as caught:
            await send(flow, registry)
        errors.append(caught.value)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)

    run(test)
    assert len(errors) == len({id(error) for error in errors}) == 100
    assert len(registry.token_requests) == 1


def test_a_sign_in_while_a_token_is_under_way_does_not_leave_the_old_ones_token() -> None:
    registry = TokenRegistry(users={"bob": BOB.secret, "eve": "x"})
    flow = flow_for(BOB, Credential("eve", "x"))

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly, flow, registry)
            await trio.sleep(1)
            flow.forget()
        await send(flow, registry)

    run(test)
    assert [request.url.params["account"] for request in registry.token_requests] == ["bob", "eve"]


def test_a_flow_is_for_asynchronous_clients_only() -> None:
    with pytest.raises(TypeError):
        flow_for().sync_auth_flow(httpx.Request("GET", BASE))


def test_secrets_are_in_no_repr() -> None:
    ask = Ask("basic")
    for holder in (
        Credential("bob", "s3cret"),
        Grant("s3cret", refresh="s3cret"),
        Token("s3cret", 0, 0),
        Proof(ask, "s3cret", token="s3cret"),
    ):
        assert "s3cret" not in repr(holder)
