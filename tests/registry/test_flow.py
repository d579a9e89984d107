"""Large bodies: whole and in order at any pace, and never held back for what may come later."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.connection import Connection
from regfs.errors import ConnectionFailed, DeadlineExceeded, RegfsError
from regfs.ports import HttpPolicy
from regfs.registry.client import Client
from regfs.registry.flow import FLOWS_FROM, PIECE, flow
from tests.registry.http_server import Asked, HttpServer, Raw, reply
from tests.support.tls import CertificateAuthority

SIZE = FLOWS_FROM + 3 * PIECE + 17
BODY = (bytes(range(251)) * (SIZE // 251 + 1))[:SIZE]


def announced(data: bytes, size: int = SIZE, then: str = "keep") -> Raw:
    return Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + data, then)


def run(
    server: HttpServer,
    body: Callable[[Client], Awaitable[None]],
    stall: float = 5.0,
    connection: Connection | None = None,
) -> None:
    async def main() -> None:
        rules = HttpPolicy("regfs-test/1", call_deadline=5.0, stall_deadline=stall, retries=0)
        client = Client(connection or Connection("r", f"http://{server.address}"), rules, None)
        try:
            with trio.fail_after(20):
                await body(client)
        finally:
            await client.aclose()

    trio.run(main)


async def taken(client: Client, into: bytearray) -> None:
    async with client.stream("blob") as stream:
        async for piece in stream:
            into += piece


# ── through the client ───────────────────────────────────────────────────────────────────────────


def test_a_large_body_is_given_whole_and_counted() -> None:
    async def body(client: Client) -> None:
        data = bytearray()
        await taken(client, data)
        assert data == BODY
        assert client.counters()["bytes"] == SIZE

    with HttpServer(lambda _: reply(200, BODY)) as server:
        run(server, body)


def test_it_comes_in_few_pieces_none_of_which_crosses_a_mebibyte() -> None:
    async def body(client: Client) -> None:
        ends, count = 0, 0
        async with client.stream("blob") as stream:
            async for piece in stream:
                assert ends // PIECE == (ends + len(piece) - 1) // PIECE
                ends += len(piece)
                count += 1
                await trio.sleep(0.02)  # meanwhile more comes than one piece
        assert count <= 2 * (SIZE // PIECE + 1)

    with HttpServer(lambda _: reply(200, BODY)) as server:
        run(server, body)


def test_behind_a_large_body_the_next_request_is_answered() -> None:
    async def body(client: Client) -> None:
        for _ in range(2):
            data = bytearray()
            await taken(client, data)
            assert data == BODY
            assert (await client.request("GET", "small")).body == b"{}"

    with HttpServer(lambda asked: reply(200, BODY if asked.target.endswith("blob") else b"{}")) as server:
        run(server, body)


def test_nothing_behind_its_announced_end_is_given() -> None:
    async def body(client: Client) -> None:
        data = bytearray()
        await taken(client, data)
        assert data == BODY
        assert (await client.request("GET", "small")).body == b"{}"

    def handler(asked: Asked) -> Raw:
        return (
            announced(BODY + b"HTTP/1.1 200 OK\r\n") if asked.target.endswith("blob") else reply(200, b"{}")
        )

    with HttpServer(handler) as server:
        run(server, body)


@pytest.mark.parametrize("then", ["close", "reset"])
def test_what_ends_early_is_a_lost_connection_and_names_the_registry(then: str) -> None:
    async def body(client: Client) -> None:
        data = bytearray()
        with pytest.raises(ConnectionFailed) as caught:
            await taken(client, data)
        assert server.address in (caught.value.registry, str(caught.value.message).split()[0])
        assert BODY.startswith(bytes(data))

    with HttpServer(lambda _: announced(BODY[: SIZE - 1000], then=then)) as server:
        run(server, body)


def test_what_came_is_given_at_once_though_no_more_comes() -> None:
    async def body(client: Client) -> None:
        data = bytearray()
        with pytest.raises(DeadlineExceeded):
            await taken(client, data)
        assert data == BODY[: FLOWS_FROM + 1000]

    with HttpServer(lambda _: announced(BODY[: FLOWS_FROM + 1000], then="stall")) as server:
        run(server, body, stall=0.3)


def test_a_reply_to_head_has_no_body_however_large_it_says_it_is() -> None:
    async def body(client: Client) -> None:
        answer = await client.request("HEAD", "blob")
        assert (answer.body, answer.headers["content-length"]) == (b"", str(SIZE))

    with HttpServer(lambda _: announced(b"")) as server:
        run(server, body)


def test_a_large_body_in_chunks_is_given_whole() -> None:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in (BODY[at : at + 100_000] for at in range(0, SIZE, 100_000))
    )

    async def body(client: Client) -> None:
        data = bytearray()
        await taken(client, data)
        assert data == BODY

    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with HttpServer(lambda _: Raw(head + chunks + b"0\r\n\r\n")) as server:
        run(server, body)


def test_by_tls_a_large_body_is_given_whole(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    certificate = authority.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    async def body(client: Client) -> None:
        data = bytearray()
        await taken(client, data)
        assert data == BODY
        assert (await client.request("GET", "small")).body == BODY[:2]

    def handler(asked: Asked) -> Raw:
        return reply(200, BODY if asked.target.endswith("blob") else BODY[:2])

    with HttpServer(handler, tls=context) as server:
        connection = Connection("r", f"https://localhost:{server.port}", ca=authority.certificate)
        run(server, body, connection=connection)


# ── by itself ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def sending(*steps: bytes | float) -> Iterator[socket.socket]:
    """The other end of a connection that sends bytes, and rests for seconds, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()

    def send() -> None:
        with theirs:
            for step in steps:
                if isinstance(step, bytes):
                    theirs.sendall(step)
                else:
                    time.sleep(step)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join()


def pieces_of(ours: socket.socket, start: int, size: int) -> list[tuple[float, bytes]]:
    """What flows, and when it came."""

    async def main() -> list[tuple[float, bytes]]:
        connection = trio.socket.from_stdlib_socket(ours)
        begun = trio.current_time()
        return [(trio.current_time() - begun, piece) async for piece in flow(connection, start, size)]

    return trio.run(main)


def test_a_trickle_is_passed_on_as_it_comes() -> None:
    with sending(b"a", 0.2, b"b", 0.2, b"c", 0.6) as ours:
        found = pieces_of(ours, 0, 3)
    assert [piece for _, piece in found] == [b"a", b"b", b"c"]
    assert found[-1][0] < 0.9


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.integers(1, PIECE // 2), min_size=1, max_size=12),
    taken=st.integers(0, 2 * PIECE),
    rests=st.booleans(),
)
def test_in_whatever_pieces_it_is_sent_it_is_the_same_bytes(
    parts: list[int], taken: int, rests: bool
) -> None:
    sent = [bytes([number + 1]) * count for number, count in enumerate(parts)]
    steps = [step for part in sent for step in ((part, 0.003) if rests else (part,))]
    with sending(*steps) as ours:
        found = pieces_of(ours, taken, taken + sum(parts))
    assert b"".join(piece for _, piece in found) == b"".join(sent)


def test_a_connection_that_is_closed_here_is_an_error_of_the_registrys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(client: Client) -> None:
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await trio.sleep(0.2)
                await client.aclose()

            nursery.start_soon(close)
            with pytest.raises(RegfsError):
                await taken(client, bytearray())

    with HttpServer(lambda _: announced(BODY[:FLOWS_FROM], then="stall")) as server:
        run(server, body)
