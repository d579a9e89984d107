"""TLS gives at once all that is there, waits for more only in the midst of a large body, and loses nothing to what follows."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from regfs.connection import Connection
from regfs.errors import ConnectionFailed
from regfs.registry import records
from regfs.registry.client import Client
from regfs.registry.records import READ_SIZE, Records, Wide
from regfs.registry.tls import ca_context
from tests.registry.http_server import HttpServer, Raw
from tests.registry.test_flow import BODY, SIZE, announced, run, taken
from tests.support.tls import CertificateAuthority

RECORD = 16 * 1024


class Pair:
    """Both ends of a TLS connection, and the bytes between them in the test's hands."""

    def __init__(self, folder: Path) -> None:
        authority = CertificateAuthority(folder / "ca")
        certificate = authority.issue("localhost")
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(certificate.certificate, certificate.key)
        self.to_client, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ca_context(authority.certificate)
        self.client = context.wrap_bio(self.to_client, self.to_server, server_hostname="localhost")
        self.server = serving.wrap_bio(self.to_server, self.to_client, server_side=True)
        for end in (self.client, self.server, self.client):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
        self.server.do_handshake()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def send(pair: Pair, data: bytes) -> None:
    for at in range(0, len(data), RECORD):
        pair.server.write(data[at : at + RECORD])


def test_a_registrys_contexts_read_so(pair: Pair) -> None:
    assert isinstance(pair.client, Records)


def test_all_records_that_are_there_come_at_once(pair: Pair) -> None:
    send(pair, BODY[: 5 * RECORD + 100])
    assert pair.client.read(1 << 20) == BODY[: 5 * RECORD + 100]
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.read(1 << 20)


def test_no_more_comes_than_was_asked_for(pair: Pair) -> None:
    send(pair, BODY[: 5 * RECORD])
    assert pair.client.read(3 * RECORD + 5) == BODY[: 3 * RECORD + 5]
    assert pair.client.read(10) == BODY[3 * RECORD + 5 : 3 * RECORD + 15]
    assert pair.client.read(1 << 20) == BODY[3 * RECORD + 15 : 5 * RECORD]


def test_half_a_record_waits_for_its_rest_and_holds_up_none_before_it(pair: Pair) -> None:
    send(pair, BODY[: 2 * RECORD])
    sent = pair.to_client.read()
    pair.to_client.write(sent[:-100])
    assert pair.client.read(1 << 20) == BODY[:RECORD]
    pair.to_client.write(sent[-100:])
    assert pair.client.read(1 << 20) == BODY[RECORD : 2 * RECORD]


def test_what_stands_before_a_damaged_record_is_given_and_the_damage_told_after_it(pair: Pair) -> None:
    send(pair, BODY[: 3 * RECORD])
    sent = bytearray(pair.to_client.read())
    sent[-50] ^= 1
    pair.to_client.write(sent)
    assert pair.client.read(1 << 20) == BODY[: 2 * RECORD]
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        pair.client.read(1 << 20)


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_the_end_is_told_after_the_last_bytes(pair: Pair, is_cut_off: bool) -> None:
    send(pair, BODY[: 2 * RECORD])
    if is_cut_off:
        pair.to_client.write_eof()
    else:
        with pytest.raises(ssl.SSLWantReadError):
            pair.server.unwrap()
    assert pair.client.read(1 << 20) == BODY[: 2 * RECORD]
    assert pair.client.read(1 << 20) == b""


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_large_body_that_breaks_off_is_an_error_and_no_wrong_byte(tmp_path: Path, then: str) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    certificate = authority.issue("localhost")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate.certificate, certificate.key)

    async def body(client: Client) -> None:
        data = bytearray()
        with pytest.raises(ConnectionFailed):
            await taken(client, data)
        assert BODY.startswith(bytes(data))
        assert then == "reset" or len(data) == SIZE - 1000

    def handler(_: object) -> Raw:
        return announced(BODY[: SIZE - 1000], then=then)

    with HttpServer(handler, tls=serving) as server:
        run(
            server,
            body,
            connection=Connection("r", f"https://localhost:{server.port}", ca=authority.certificate),
        )


# ── from the socket ──────────────────────────────────────────────────────────────────────────────


def over_a_socket(test: Callable[[Wide, trio.SocketStream], Awaitable[None]]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        async with (
            trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as other,
            Wide(trio.SocketStream(trio.socket.from_stdlib_socket(ours))) as wide,
        ):
            with trio.fail_after(5):
                await test(wide, other)

    trio.run(main)


async def receive(wide: Wide, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await wide.receive_some()
    return bytes(data)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many bytes was waited."""
    found: list[int] = []

    async def until_there(connection: trio.socket.SocketType, count: int) -> None:
        found.append(count)

    monkeypatch.setattr(records, "until_there", until_there)
    return found


def test_in_the_midst_of_a_large_body_more_is_waited_for_than_the_next_packet(waits: list[int]) -> None:
    async def test(wide: Wide, other: trio.SocketStream) -> None:
        body = BODY[: 3 << 20]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.send_all, body)
            assert await receive(wide, len(body)) == body
        assert waits
        assert set(waits) == {READ_SIZE}

    over_a_socket(test)


def test_a_small_body_and_the_next_reply_are_waited_for_no_longer(waits: list[int]) -> None:
    async def test(wide: Wide, other: trio.SocketStream) -> None:
        await other.send_all(BODY[:100_000])
        await receive(wide, 100_000)
        assert not waits
        body = BODY[: 3 << 20]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.send_all, body)
            await receive(wide, len(body))
        waits.clear()
        await wide.send_all(b"another request")
        await other.send_all(b"its reply")
        assert await wide.receive_some() == b"its reply"
        assert not waits

    over_a_socket(test)


def test_what_is_there_is_given_though_no_more_comes() -> None:
    async def test(wide: Wide, other: trio.SocketStream) -> None:
        body = BODY[: 3 << 20]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.send_all, body)
            await receive(wide, len(body))

        async def later() -> None:
            await trio.sleep(0.05)
            await other.send_all(b"x" * 1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            assert await wide.receive_some() == b"x" * 1000

    over_a_socket(test)
