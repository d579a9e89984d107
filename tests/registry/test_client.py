"""What a caller of the client may rely on, against servers that misbehave byte by byte."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx
import pytest
import trio

from regfs.connection import Connection
from regfs.errors import (
    BadReply,
    ConnectionFailed,
    DeadlineExceeded,
    NotARegistry,
    NotFound,
    NotSignedIn,
    RateLimited,
    ReadOnly,
    RegfsError,
    ServerFailed,
    TooLarge,
    UnsafeTarget,
)
from regfs.ports import HttpPolicy
from regfs.registry.client import Client
from tests.registry.http_server import CLOSE, RESET, STALL, Asked, Handler, HttpServer, Raw, reply

AGENT = "regfs-test/1"


def policy(deadline: float = 5.0, stall: float = 5.0, retries: int = 0, most: int = 16) -> HttpPolicy:
    return HttpPolicy(AGENT, call_deadline=deadline, stall_deadline=stall, max_requests=most, retries=retries)


def run(
    handler: Handler,
    body: Callable[[Client, HttpServer], Awaitable[None]],
    rules: HttpPolicy | None = None,
    auth: httpx.Auth | None = None,
    *,
    read_only: bool = False,
) -> None:
    """Serve ``handler`` and run ``body`` with a client for it."""

    async def main() -> None:
        client = Client(
            Connection("r", f"http://{server.address}"), rules or policy(), auth, read_only=read_only
        )
        try:
            with trio.fail_after(20):
                await body(client, server)
        finally:
            await client.aclose()

    with HttpServer(handler) as server:
        trio.run(main)


async def failure(action: Awaitable[object]) -> RegfsError:
    with pytest.raises(RegfsError) as caught:
        await action
    return caught.value


# ── requests ─────────────────────────────────────────────────────────────────────────────────────


def test_a_request_says_who_asks_and_wants_no_encoding() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        answer = await client.request("GET", "team/app/tags/list?n=5", headers={"Accept": "a/b"})
        assert (answer.status, answer.body, answer.headers["X-one"]) == (200, b"hi", "1")
        assert answer.url == f"http://{server.address}/v2/team/app/tags/list?n=5"
        asked = server.asked[0]
        assert (asked.method, asked.target) == ("GET", "/v2/team/app/tags/list?n=5")
        assert asked.headers == {
            "host": server.address,
            "user-agent": AGENT,
            "accept": "a/b",
            "accept-encoding": "identity",
        }

    run(lambda _: reply(200, b"hi", x_one="1"), body)


def test_a_body_is_sent_with_its_length() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        answer = await client.request("PUT", "a/manifests/v1", content=b"{}", expect=(201,))
        assert answer.status == 201
        assert server.asked[0].body == b"{}"

    run(lambda _: reply(201), body)


def test_connections_are_kept() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        for _ in range(5):
            await client.request("GET", "")
        assert len({asked.client for asked in server.asked}) == 1

    run(lambda _: reply(200, b"{}"), body)


def test_cookies_are_not_kept() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        await client.request("GET", "")
        await client.request("GET", "")
        assert "cookie" not in server.asked[1].headers

    run(lambda _: reply(200, set_cookie="a=b; Path=/"), body)


def test_no_more_requests_at_once_than_the_policy_says() -> None:
    active = peak = 0

    def handler(_: Asked) -> Raw:
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        time.sleep(0.02)
        active -= 1
        return reply(200)

    async def body(client: Client, server: HttpServer) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(client.request, "GET", "")
        assert len(server.asked) == 12
        assert peak <= 3

    run(handler, body, policy(most=3))


# ── what a registry answers ──────────────────────────────────────────────────────────────────────


def test_an_unwelcome_status_is_the_error_it_means() -> None:
    text = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'

    async def body(client: Client, server: HttpServer) -> None:
        error = await failure(client.request("GET", "a/manifests/v1", what="a:v1"))
        assert isinstance(error, NotFound)
        assert error.words == "MANIFEST_UNKNOWN: manifest unknown"
        assert client.counters()["errors"] == 1
        await client.request("GET", "a/manifests/v1", expect=(404,))
        assert len({asked.client for asked in server.asked}) == 1, "an error's connection is kept"

    run(lambda _: reply(404, text), body)


def test_a_body_over_the_limit_is_refused_with_and_without_a_length() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 40
    )
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 40_000
    answers = [reply(200, b"x" * 20_000), Raw(chunked), Raw(endless, "close")]

    async def body(client: Client, server: HttpServer) -> None:
        for _ in range(3):
            assert isinstance(await failure(client.request("GET", "x", limit=10_000)), TooLarge)

    run(lambda _: answers.pop(0), body)


def test_a_body_of_exactly_the_limit_is_read() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        assert len((await client.request("GET", "x", limit=10_000)).body) == 10_000

    run(lambda _: reply(200, b"x" * 10_000), body)


def test_a_body_without_length_or_chunks_is_read_to_its_end() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        assert (await client.request("GET", "_catalog")).body == b'{"repositories":["a"]}'

    run(lambda _: Raw(b'HTTP/1.0 200 OK\r\n\r\n{"repositories":["a"]}', "close"), body)


def test_a_body_cut_short_is_an_error() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, ConnectionFailed)
        async with client.stream("x") as stream:
            with pytest.raises(ConnectionFailed):
                [piece async for piece in stream]
        assert client.counters()["errors"] == 2

    run(lambda _: Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "close"), body)


def test_an_encoding_that_was_not_asked_for_is_refused() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, BadReply)
        assert "gzip" in str(error)

    run(lambda _: reply(200, b"\x1f\x8b", content_encoding="gzip"), body)


def test_an_encoded_error_is_still_the_error() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), NotFound)

    run(lambda _: reply(404, b"\x1f\x8b\x00bomb", content_encoding="gzip"), body)


def test_what_is_no_http_is_an_error() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), ConnectionFailed)

    run(lambda _: Raw(b"SSH-2.0-OpenSSH_9.2\r\n", "close"), body)


def test_endless_headers_are_an_error() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), ConnectionFailed)

    run(lambda _: Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, "close"), body)


def test_an_answer_416_that_announces_a_body_and_sends_none_is_no_wait() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        started = trio.current_time()
        answer = await failure(client.request("GET", "x", headers={"Range": "bytes=9-"}))
        assert isinstance(answer, BadReply)
        assert trio.current_time() - started < 1.0

    run(lambda _: Raw(b"HTTP/1.1 416 Range\r\nContent-Length: 5000\r\n\r\n", "stall"), body)


def test_an_error_whose_body_never_ends_keeps_its_status() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, NotFound)
        assert error.words.startswith("gone")

    run(lambda _: Raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 900\r\n\r\ngone", "close"), body)


def test_a_body_after_the_reply_to_head_is_not_taken_for_the_next_reply() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nDocker-Content-Digest: sha256:0\r\n\r\n"
    bodies = [head + b"HTTP/1.1 200 forged\r\nContent-Length: 6\r\n\r\nforged", head + b'{"a": 1}\n', head]

    def handler(asked: Asked) -> Raw:
        return Raw(bodies[len(server_asked) % 3]) if asked.method == "HEAD" else reply(200, b"real")

    server_asked: list[int] = []

    async def body(client: Client, server: HttpServer) -> None:
        for _ in range(6):
            answer = await client.request("HEAD", "a/manifests/v1")
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "9")
            assert (await client.request("GET", "x")).body == b"real"
            server_asked.append(1)

    run(handler, body)


def test_warnings_are_kept_once_and_within_4096_bytes() -> None:
    texts = iter(["quota low", "quota low", *(f"{n:03d}" + "é" * 190 for n in range(40))])

    async def body(client: Client, server: HttpServer) -> None:
        for _ in range(42):
            await client.request("GET", "x")
        kept = client.warnings()
        assert kept[0] == "quota low"
        assert len(kept) == len(set(kept)) > 5
        assert sum(len(text.encode()) for text in kept) <= 4096

    def handler(_: Asked) -> Raw:
        text = f'299 - "{next(texts)}"'
        return Raw(f"HTTP/1.1 200 OK\r\nWarning: {text}\r\nContent-Length: 0\r\n\r\n".encode())

    run(handler, body)


def test_a_web_page_is_no_registry_and_a_registry_is_one() -> None:
    pages = [reply(200, b"<html>", content_type="text/html"), reply(404, b"no"), reply(200, b"{}")]

    async def body(client: Client, _: HttpServer) -> None:
        assert isinstance(await failure(client.check()), NotARegistry)
        assert isinstance(await failure(client.check()), NotARegistry)
        await client.check()

    run(lambda _: pages.pop(0), body)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        STALL,
        Raw(b"HTTP/1.1 200 OK\r\nContent-Le", "stall"),
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "stall"),
        Raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nx", "stall"),
    ],
    ids=["silent", "in the headers", "in the body", "in an error's body"],
)
def test_a_stalled_registry_ends_in_an_error_at_the_deadline(answer: Raw) -> None:
    async def body(client: Client, _: HttpServer) -> None:
        started = trio.current_time()
        error = await failure(client.request("GET", "x", what="the tags of a"))
        assert isinstance(error, DeadlineExceeded)
        assert "the tags of a" in str(error)
        assert 0.2 <= trio.current_time() - started < 1.5
        assert client.counters()["errors"] == 1

    run(lambda _: answer, body, policy(deadline=0.25, retries=3))


def test_a_stream_has_as_long_as_it_makes_progress() -> None:
    def slowly(_: Asked) -> Raw:
        time.sleep(0.1)
        return reply(206, b"x")

    async def body(client: Client, _: HttpServer) -> None:
        async with client.stream("blob") as stream:
            assert (stream.status, stream.headers["content-length"]) == (200, "9")
            pieces = aiter(stream)
            assert await anext(pieces) == b"first"
            assert isinstance(await failure(anext(pieces)), DeadlineExceeded)
        await client.request("GET", "x", expect=(206,))

    def handler(asked: Asked) -> Raw:
        stalled = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst", "stall")
        return stalled if asked.target.endswith("blob") else slowly(asked)

    run(handler, body, policy(stall=0.2))


def test_a_stream_outlives_the_deadline_of_a_call() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        taken = 0
        async with client.stream("blob") as stream:
            async for piece in stream:
                taken += len(piece)
                await trio.sleep(0.1)
        assert taken == 3_000_000

    run(lambda _: reply(200, b"x" * 3_000_000), body, policy(deadline=0.3))


def test_a_stream_left_early_frees_its_slot_and_connection() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        for _ in range(3):
            async with client.stream("blob") as stream:
                async for _piece in stream:
                    break
        assert len(server.asked) == 3

    run(lambda _: reply(200, b"x" * 3_000_000), body, policy(most=1))


def test_a_cancelled_caller_frees_its_slot() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        for target in ("stall", "stall"):
            with trio.move_on_after(0.1):
                await client.request("GET", target)
        with trio.move_on_after(0.1):
            async with client.stream("body") as stream:
                async for _ in stream:
                    pass
        assert (await client.request("GET", "x")).status == 200

    def handler(asked: Asked) -> Raw:
        if asked.target.endswith("stall"):
            return STALL
        if asked.target.endswith("body"):
            return Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "stall")
        return reply(200)

    run(handler, body, policy(most=1))


# ── retries ──────────────────────────────────────────────────────────────────────────────────────


def test_a_busy_registry_is_asked_again_until_it_answers() -> None:
    answers = [reply(503, retry_after="0"), reply(429, retry_after="0"), RESET, reply(200, b"ok")]

    async def body(client: Client, _: HttpServer) -> None:
        assert (await client.request("GET", "x")).body == b"ok"
        counters = client.counters()
        assert (counters["requests"], counters["retries"], counters["errors"]) == (4, 3, 0)

    run(lambda _: answers.pop(0), body, policy(retries=4))


def test_the_last_answer_is_what_is_raised() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, ServerFailed)
        assert len(server.asked) == 3

    run(lambda _: reply(502, retry_after="0"), body, policy(retries=2))


def test_a_stream_is_asked_for_again_until_it_begins() -> None:
    answers = [reply(503, retry_after="0"), reply(200, b"ok")]

    async def body(client: Client, _: HttpServer) -> None:
        async with client.stream("x") as stream:
            assert b"".join([piece async for piece in stream]) == b"ok"

    run(lambda _: answers.pop(0), body, policy(retries=1))


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        started = trio.current_time()
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, RateLimited)
        assert error.retry_after == 60.0
        assert trio.current_time() - started < 1.0
        assert len(server.asked) == 1

    run(lambda _: reply(429, retry_after="60"), body, policy(retries=4))


def test_a_retry_that_stalls_ends_at_the_deadline() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), DeadlineExceeded)
        assert len(server.asked) == 2

    answers = [reply(503, retry_after="0"), STALL]
    run(lambda _: answers.pop(0), body, policy(deadline=0.4, retries=4))


def test_a_caller_is_cancelled_in_a_retry_and_in_the_wait_before_one() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        for target in ("stall", "wait"):
            with trio.move_on_after(0.2) as scope:
                await client.request("GET", target)
            assert scope.cancelled_caught
        assert (await client.request("GET", "x")).status == 200

    def handler(asked: Asked) -> Raw:
        seen.append(asked.target)
        if asked.target.endswith("wait"):
            return reply(503, retry_after="3")
        if asked.target.endswith("stall"):
            return STALL if seen.count(asked.target) == 2 else reply(503, retry_after="0")
        return reply(200)

    seen: list[str] = []
    run(handler, body, policy(retries=4, most=1))


@pytest.mark.parametrize("answer", [reply(503, retry_after="0"), RESET, CLOSE])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_what_changes_a_registry_is_sent_once(method: str, answer: Raw) -> None:
    async def body(client: Client, server: HttpServer) -> None:
        error = await failure(client.request(method, "a/manifests/v1"))
        assert isinstance(error, ServerFailed | ConnectionFailed)
        assert len(server.asked) == 1

    run(lambda _: answer, body, policy(retries=4))


def test_a_caller_may_say_that_its_put_is_idempotent() -> None:
    answers = [reply(503, retry_after="0"), reply(201)]

    async def body(client: Client, _: HttpServer) -> None:
        await client.request("PUT", "a/manifests/sha256:0", content=b"x", expect=(201,), idempotent=True)

    run(lambda _: answers.pop(0), body, policy(retries=4))


def test_a_delete_waits_for_a_registry_that_is_starting() -> None:
    async def main() -> None:
        probe = HttpServer(lambda _: reply(202))
        probe.__enter__()
        probe.__exit__(None, None, None)
        client = Client(Connection("r", f"http://{probe.address}"), policy(retries=4), None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, probe.port)
            await client.request("DELETE", "a/manifests/v1", expect=(202,))
        assert client.counters()["retries"] >= 1
        await client.aclose()

    servers: list[HttpServer] = []

    async def start(port: int) -> None:
        await trio.sleep(0.05)
        servers.append(HttpServer(lambda _: reply(202), port=port).__enter__())

    trio.run(main)
    for server in servers:
        server.__exit__(None, None, None)


def test_a_registry_that_was_restarted_is_found_again() -> None:
    async def main(port: int, first: HttpServer) -> HttpServer:
        client = Client(Connection("r", f"http://127.0.0.1:{port}"), policy(retries=2), None)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client.request, "GET", "x")
        first.__exit__(None, None, None)
        assert isinstance(await failure(client.request("GET", "x")), ConnectionFailed)
        second = HttpServer(lambda _: reply(200, b"back"), port=port).__enter__()
        for _ in range(8):
            assert (await client.request("GET", "x")).body == b"back"
        await client.aclose()
        return second

    first = HttpServer(lambda _: reply(200)).__enter__()
    trio.run(main, first.port, first).__exit__(None, None, None)


def test_a_kept_connection_that_went_stale_costs_no_error_even_without_backoff() -> None:
    """The server closes just as the next request arrives: nothing tells the client before it has sent."""

    def handler(asked: Asked) -> Raw:
        seen.append(asked.client)
        return reply(200) if seen.count(asked.client) == 1 else CLOSE

    seen: list[int] = []

    async def body(client: Client, server: HttpServer) -> None:
        for _ in range(4):
            await client.request("GET", "x")
        assert client.counters()["retries"] == 3

    run(handler, body, policy(retries=1))


# ── read-only, sign-in ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "delete", "OPTIONS"])
def test_a_read_only_client_sends_nothing_that_changes_a_registry(method: str) -> None:
    async def body(client: Client, server: HttpServer) -> None:
        assert isinstance(await failure(client.request(method, "a/blobs/uploads/")), ReadOnly)
        own = f"http://{server.address}/v2/a/manifests/v1"
        assert isinstance(await failure(client.request(method, own)), ReadOnly)
        assert server.asked == []
        await client.request("GET", "x")
        await client.request("HEAD", "x")

    run(lambda _: reply(200), body, read_only=True)


class Tokens(httpx.Auth):
    """Answers a 401 by asking the token endpoint."""

    def __init__(self, method: str, path: str) -> None:
        self.method, self.path = method, path

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        response = yield request
        if response.status_code != 401:
            return
        token = yield httpx.Request(self.method, request.url.copy_with(raw_path=self.path.encode()))
        await token.aread()
        request.headers["Authorization"] = f"Bearer {token.json()['token']}"
        yield request


def token_server(asked: Asked) -> Raw:
    if asked.target.startswith(("/token", "/v2/token")):
        return reply(200, b'{"token":"t0"}')
    if asked.headers.get("authorization") == "Bearer t0":
        return reply(200, b"ok")
    return reply(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}', www_authenticate="Bearer")


@pytest.mark.parametrize(("method", "path"), [("GET", "/token"), ("POST", "/token"), ("POST", "/v2/token")])
def test_an_auth_flow_signs_in_even_read_only(method: str, path: str) -> None:
    async def body(client: Client, server: HttpServer) -> None:
        assert (await client.request("GET", "x")).body == b"ok"
        assert [asked.method for asked in server.asked] == ["GET", method, "GET"]
        assert server.asked[1].headers["user-agent"] == AGENT
        assert client.counters()["unauthorized"] == 1

    run(token_server, body, auth=Tokens(method, path), read_only=True)


def test_token_requests_are_counted_apart() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        await client.request("GET", "x")
        counters = client.counters()
        assert (counters["requests"], counters["token_requests"], counters["unauthorized"]) == (2, 1, 1)

    run(token_server, body, auth=Tokens("GET", "/token"))


def test_an_auth_flow_cannot_write_through_a_read_only_client() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), ReadOnly)
        assert [asked.method for asked in server.asked] == ["GET"]

    run(token_server, body, auth=Tokens("POST", "/v2/a/blobs/uploads/"), read_only=True)


def test_a_401_that_is_left_says_what_the_registry_said() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, NotSignedIn)
        assert error.words == "UNAUTHORIZED: no"

    run(token_server, body)


class Reader(httpx.Auth):
    """Reads a 401 and leaves it to the caller."""

    requires_response_body = True


class Skimmer(httpx.Auth):
    """Reads a 401 without keeping it."""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        response = yield request
        assert [piece async for piece in response.aiter_raw()]


@pytest.mark.parametrize(("auth", "words"), [(Reader(), "UNAUTHORIZED: no"), (Skimmer(), "")])
def test_a_401_that_an_auth_flow_has_read_is_still_raised(auth: httpx.Auth, words: str) -> None:
    async def body(client: Client, _: HttpServer) -> None:
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, NotSignedIn)
        assert error.words == words

    run(token_server, body, auth=auth)


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"x" * 3_000_000),
        Raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"8000\r\n" + b"x" * 32768 + b"\r\n") * 60
        ),
        reply(200, b"\x1f\x8b", content_encoding="gzip"),
    ],
)
def test_a_token_reply_is_limited_and_not_decoded(answer: Raw) -> None:
    async def body(client: Client, _: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), TooLarge | BadReply)

    run(
        lambda asked: answer if asked.target == "/token" else token_server(asked),
        body,
        auth=Tokens("GET", "/token"),
    )


def test_an_endless_401_does_not_fill_the_memory() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), TooLarge)

    run(lambda _: reply(401, b"x" * 5_000_000, www_authenticate="Bearer"), body, auth=Tokens("GET", "/token"))


# ── redirects ────────────────────────────────────────────────────────────────────────────────────


class Secret(httpx.Auth):
    def auth_flow(self, request: httpx.Request):  # type: ignore[no-untyped-def]
        request.headers["Authorization"] = "Bearer hunter2"
        yield request


def test_a_redirect_within_the_registry_takes_everything_along() -> None:
    def handler(asked: Asked) -> Raw:
        return reply(301, location="/v2/there?q=1") if asked.target == "/v2/here" else reply(200, b"ok")

    async def body(client: Client, server: HttpServer) -> None:
        answer = await client.request("GET", "here", headers={"X-Ours": "1"})
        assert (answer.body, answer.url) == (b"ok", f"http://{server.address}/v2/there?q=1")
        assert server.asked[1].headers["authorization"] == "Bearer hunter2"
        assert server.asked[1].headers["x-ours"] == "1"
        assert len({asked.client for asked in server.asked}) == 1
        assert client.counters()["redirects"] == 1
        assert client.counters()["requests"] == 1

    run(handler, body, auth=Secret())


def test_a_redirect_to_another_host_takes_no_credentials_along() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        headers = {"X-Ours": "1", "Range": "bytes=2-3", "Cookie": "a=b"}
        async with client.stream("a/blobs/x", headers=headers) as stream:
            assert b"".join([piece async for piece in stream]) == b"cd"
        assert server.asked[0].headers["authorization"] == "Bearer hunter2"
        assert other.asked[0].target == "/blob?X-Amz-Signature=s"
        assert other.asked[0].headers == {
            "host": f"localhost:{other.port}",
            "user-agent": AGENT,
            "accept-encoding": "identity",
            "range": "bytes=2-3",
        }

    with HttpServer(lambda _: reply(206, b"cd")) as other:
        location = f"http://localhost:{other.port}/blob?X-Amz-Signature=s"
        run(lambda _: reply(307, b"moved", location=location), body, auth=Secret())


def test_a_detour_over_another_host_brings_no_credentials_back() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        port.append(server.port)
        await client.request("GET", "start", abroad=True)
        assert [asked.target for asked in server.asked] == ["/v2/start", "/v2/private"]
        assert "authorization" not in server.asked[1].headers

    port: list[int] = []
    with HttpServer(lambda _: reply(302, location=f"http://127.0.0.1:{port[0]}/v2/private")) as other:
        away = f"http://localhost:{other.port}/"
        run(
            lambda asked: reply(302, location=away) if asked.target == "/v2/start" else reply(200),
            body,
            auth=Secret(),
        )


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "file:///etc/passwd",
        "http://user:pw@127.0.0.1/",
        "http://127.0.0.1:0x50/",
        "http://127.0.0.1:99999/",
    ],
)
def test_a_redirect_to_where_nothing_may_lead_is_refused(location: str) -> None:
    async def body(client: Client, server: HttpServer) -> None:
        error = await failure(client.request("GET", "x"))
        assert isinstance(error, UnsafeTarget | BadReply)
        assert len(server.asked) == 1

    run(lambda _: reply(302, location=location), body)


def test_redirects_end() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        assert isinstance(await failure(client.request("GET", "x")), BadReply)
        assert len(server.asked) == 6

    run(lambda asked: reply(302, location=asked.target + "x"), body)


def test_a_redirected_delete_is_not_followed() -> None:
    async def body(client: Client, server: HttpServer) -> None:
        error = await failure(client.request("DELETE", "a/manifests/v1"))
        assert isinstance(error, BadReply)
        assert len(server.asked) == 1

    run(lambda _: reply(307, location="/v2/elsewhere"), body)


def test_an_absolute_url_of_another_host_gets_no_credentials() -> None:
    async def body(client: Client, _: HttpServer) -> None:
        await client.request("GET", f"http://localhost:{other.port}/next", headers={"X-Ours": "1"})
        assert "authorization" not in other.asked[0].headers
        assert "x-ours" not in other.asked[0].headers

    with HttpServer(lambda _: reply(200)) as other:
        run(lambda _: reply(200), body, auth=Secret())
