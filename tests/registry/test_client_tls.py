"""Schemes, certificates and proxies, over real TLS with an authority of the tests' own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio

from regfs.connection import Connection
from regfs.errors import (
    ConfigError,
    ConnectionFailed,
    DeadlineExceeded,
    Refused,
    RegfsError,
    TlsFailed,
    UnsafeTarget,
)
from regfs.ports import HttpPolicy
from regfs.registry.client import Client
from regfs.registry.tls import ca_context, default_context
from tests.registry.http_server import CLOSE, Asked, HttpServer, Raw, reply
from tests.support.tls import Certificate, CertificateAuthority

POLICY = HttpPolicy("regfs-test/1", call_deadline=8.0, retries=0)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


def serving(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def ok(_: Asked) -> Raw:
    return reply(200, b"{}")


def run(
    connection: Connection,
    body: Callable[[Client], Awaitable[None]],
    auth: httpx.Auth | None = None,
    policy: HttpPolicy = POLICY,
) -> None:
    async def main() -> None:
        client = Client(connection, policy, auth)
        try:
            with trio.fail_after(20):
                await body(client)
        finally:
            await client.aclose()

    trio.run(main)


async def check(client: Client) -> None:
    await client.check()


async def failure(action: Awaitable[object]) -> RegfsError:
    with pytest.raises(RegfsError) as caught:
        await action
    return caught.value


# ── certificates ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_own_ca_is_trusted(authority: CertificateAuthority, host: str) -> None:
    with HttpServer(ok, tls=serving(authority.issue())) as server:
        run(Connection("r", f"https://{host}:{server.port}", ca=authority.certificate), check)
        assert len(server.asked) == 1


def test_a_servers_own_certificate_serves_as_ca(authority: CertificateAuthority) -> None:
    certificate = authority.issue()
    with HttpServer(ok, tls=serving(certificate)) as server:
        run(Connection("r", f"https://localhost:{server.port}", ca=certificate.certificate), check)


def test_a_large_body_arrives_whole_over_tls(authority: CertificateAuthority) -> None:
    data = bytes(range(256)) * 40_000

    async def body(client: Client) -> None:
        async with client.stream("blob") as stream:
            assert b"".join([piece async for piece in stream]) == data

    with HttpServer(lambda _: reply(200, data), tls=serving(authority.issue())) as server:
        run(Connection("r", f"https://localhost:{server.port}", ca=authority.certificate), body)


def test_an_unknown_authority_is_named_with_the_certificate(authority: CertificateAuthority) -> None:
    async def body(client: Client) -> None:
        error = await failure(client.check())
        assert isinstance(error, TlsFailed)
        assert f"localhost:{server.port}" in str(error)
        assert "issued by 'regfs test CA', SHA-256 " in str(error)
        assert "certificate" in str(error)

    with HttpServer(ok, tls=serving(authority.issue())) as server:
        run(Connection("r", f"https://localhost:{server.port}"), body)
        assert server.asked == []


def test_an_expired_certificate_is_called_expired(authority: CertificateAuthority) -> None:
    async def body(client: Client) -> None:
        error = await failure(client.check())
        assert isinstance(error, TlsFailed)
        assert "expired" in str(error)

    with HttpServer(ok, tls=serving(authority.issue(expired=True))) as server:
        run(Connection("r", f"https://localhost:{server.port}", ca=authority.certificate), body)


def test_a_certificate_for_another_host_is_called_that(authority: CertificateAuthority) -> None:
    async def body(client: Client) -> None:
        error = await failure(client.check())
        assert isinstance(error, TlsFailed)
        assert "for 'r.example'" in str(error)
        assert "localhost" in str(error)

    with HttpServer(ok, tls=serving(authority.issue("r.example"))) as server:
        run(Connection("r", f"https://localhost:{server.port}", ca=authority.certificate), body)


def test_insecure_takes_any_certificate(authority: CertificateAuthority) -> None:
    with HttpServer(ok, tls=serving(authority.issue("r.example", expired=True))) as server:
        run(Connection("r", f"https://localhost:{server.port}", insecure=True), check)


@pytest.mark.parametrize("how", ["ca", "insecure"])
def test_a_hosts_own_policy_serves_no_other_host(authority: CertificateAuthority, how: str) -> None:
    async def body(client: Client) -> None:
        assert isinstance(await failure(client.request("GET", "blob", abroad=True)), TlsFailed)

    with HttpServer(ok, tls=serving(authority.issue())) as other:
        away = f"https://127.0.0.1:{other.port}/"
        with HttpServer(lambda _: reply(307, location=away), tls=serving(authority.issue())) as server:
            address = f"https://localhost:{server.port}"
            if how == "ca":
                run(Connection("r", address, ca=authority.certificate), body)
            else:
                run(Connection("r", address, insecure=True), body)
        assert other.asked == []


def test_the_environment_names_the_systems_authorities(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with HttpServer(ok, tls=serving(authority.issue())) as server:
        run(Connection("r", f"https://localhost:{server.port}"), check)


def test_authorities_that_cannot_be_read_are_a_mistake_in_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "not.pem").write_text("x")
    with pytest.raises(ConfigError, match=r"not\.pem"):
        ca_context(tmp_path / "not.pem")
    with pytest.raises(ConfigError, match=r"absent\.pem"):
        ca_context(tmp_path / "absent.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        default_context()


def test_a_ca_file_that_cannot_be_read_is_raised_by_the_request(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        assert isinstance(await failure(client.check()), ConfigError)

    run(Connection("r", "https://localhost:1", ca=tmp_path / "absent.pem"), body)


def test_plain_http_makes_no_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a TLS context was made")

    for name in ("default_context", "ca_context", "insecure_context"):
        monkeypatch.setattr(f"regfs.registry.tls.{name}", never)
    with HttpServer(ok) as server:
        run(Connection("r", f"localhost:{server.port}", insecure=True), check)


@pytest.fixture
def short_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain server may wait for the end of what it takes for a line: how long a test waits for it."""
    monkeypatch.setattr("regfs.registry.sending._TRIAL", 0.5)


# ── schemes ──────────────────────────────────────────────────────────────────────────────────────


def test_on_loopback_plain_http_costs_one_request() -> None:
    async def body(client: Client) -> None:
        await client.check()
        assert client.base == f"http://localhost:{server.port}/v2/"

    with HttpServer(ok) as server:
        run(Connection("r", f"localhost:{server.port}"), body)
        assert len(server.asked) == 1


def test_on_loopback_https_is_found_and_remembered(authority: CertificateAuthority) -> None:
    async def body(client: Client) -> None:
        await client.check()
        assert client.base == f"https://localhost:{server.port}/v2/"
        await client.request("DELETE", "a/manifests/v1")

    with HttpServer(ok, tls=serving(authority.issue())) as server:
        run(Connection("r", f"localhost:{server.port}", ca=authority.certificate), body)
        assert [asked.method for asked in server.asked] == ["GET", "DELETE"]


def test_on_loopback_https_with_a_bad_certificate_is_a_tls_error(authority: CertificateAuthority) -> None:
    async def body(client: Client) -> None:
        assert isinstance(await failure(client.check()), TlsFailed)
        assert isinstance(await failure(client.check()), TlsFailed)
        assert client.base.startswith("https:")

    with HttpServer(ok, tls=serving(authority.issue())) as server:
        run(Connection("r", f"localhost:{server.port}"), body)


@contextmanager
def accepting(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which one connection after the other is given to ``serve``. They are closed at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for connection in kept:
            connection.close()


@contextmanager
def go_like_server(context: ssl.SSLContext) -> Iterator[int]:
    """A TLS server that answers plain http with 400, as Go's and nginx do."""

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            if connection.recv(1, socket.MSG_PEEK) == b"\x16":
                with context.wrap_socket(connection, server_side=True) as secured:
                    while b"\r\n\r\n" in secured.recv(65536):
                        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            else:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
                )

    with accepting(serve) as port:
        yield port


def test_a_tls_server_that_answers_plain_http_with_400_is_found(authority: CertificateAuthority) -> None:
    async def body(client: Client) -> None:
        await client.check()
        await client.check()
        assert client.base.startswith("https:")

    with go_like_server(serving(authority.issue())) as port:
        run(Connection("r", f"localhost:{port}", ca=authority.certificate), body)


@pytest.mark.usefixtures("short_trial")
def test_a_400_of_a_plain_registry_stays_a_400() -> None:
    answers = [reply(400, b"bad"), reply(200, b"{}")]

    async def body(client: Client) -> None:
        reply_ = await client.request("GET", "x", expect=(400,))
        assert reply_.body == b"bad"
        await client.check()
        assert client.base.startswith("http:")

    with HttpServer(lambda _: answers.pop(0)) as server:
        run(Connection("r", f"localhost:{server.port}"), body)


@pytest.mark.usefixtures("short_trial")
def test_a_loopback_registry_that_breaks_off_is_reported_as_that() -> None:
    async def body(client: Client) -> None:
        assert isinstance(await failure(client.check()), ConnectionFailed)
        await client.check()
        assert client.base.startswith("http:")

    answers = [CLOSE, reply(200, b"{}")]
    with HttpServer(lambda _: answers.pop(0)) as server:
        run(Connection("r", f"localhost:{server.port}"), body)


@pytest.mark.usefixtures("short_trial")
def test_insecure_asks_by_https_first_and_then_by_plain_http(authority: CertificateAuthority) -> None:
    async def main(address: str) -> str:
        client = Client(Connection("r", address), POLICY, None, schemes=("https", "http"))
        await client.check()
        await client.aclose()
        return client.base

    with HttpServer(ok, tls=serving(authority.issue())) as server:
        insecure = Connection("r", f"localhost:{server.port}", insecure=True)

        async def secured() -> str:
            client = Client(insecure, POLICY, None, schemes=("https", "http"))
            await client.check()
            await client.aclose()
            return client.base

        assert trio.run(secured).startswith("https:")
    with HttpServer(ok) as server:
        assert trio.run(main, f"localhost:{server.port}").startswith("http:")


def test_a_delete_that_was_lost_over_https_is_not_sent_again_in_plain(
    authority: CertificateAuthority,
) -> None:
    async def body(client: Client) -> None:
        assert isinstance(await failure(client.request("DELETE", "a/manifests/v1")), ConnectionFailed)

    with HttpServer(lambda _: CLOSE, tls=serving(authority.issue())) as server:
        run(Connection("r", f"localhost:{server.port}", ca=authority.certificate), body)
        assert len(server.asked) == 1


def test_what_was_lost_over_https_is_not_tried_in_plain(authority: CertificateAuthority) -> None:
    async def main() -> None:
        connection = Connection("r", f"localhost:{server.port}", insecure=True)
        client = Client(connection, POLICY, None, schemes=("https", "http"))
        assert isinstance(await failure(client.request("DELETE", "a/manifests/v1")), ConnectionFailed)
        await client.aclose()

    with HttpServer(lambda _: CLOSE, tls=serving(authority.issue())) as server:
        trio.run(main)
        assert [asked.method for asked in server.asked] == ["DELETE"]
        assert server.connections == 1


def test_a_redirect_to_a_dead_host_says_nothing_about_the_scheme() -> None:
    async def body(client: Client) -> None:
        error = await failure(client.request("GET", "x", abroad=True))
        assert isinstance(error, ConnectionFailed)
        assert "localhost:1" in str(error)
        assert client.base.startswith("http:")

    with HttpServer(lambda _: reply(307, location="http://localhost:1/")) as server:
        run(Connection("r", f"127.0.0.1:{server.port}"), body)
        assert len(server.asked) == 1
        assert server.connections == 1


@pytest.mark.usefixtures("short_trial")
def test_a_plain_server_that_waits_for_more_of_a_handshake_is_left_soon() -> None:
    """It takes the beginning of a handshake for the beginning of a line, and waits for its end."""

    async def body(client: Client) -> None:
        assert (await client.request("GET", "x", expect=(400,))).status == 400
        assert client.base.startswith("http:")

    with waiting_server() as port:
        run(Connection("r", f"localhost:{port}"), body)


@contextmanager
def waiting_server() -> Iterator[int]:
    """Answers plain http with 400, and anything else not at all."""

    def serve(connection: socket.socket) -> None:
        if connection.recv(65536).startswith(b"GET"):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with accepting(serve) as port:
        yield port


def test_plain_http_that_was_not_allowed_is_refused_before_anything_is_sent() -> None:
    async def body(client: Client) -> None:
        error = await failure(client.check())
        assert isinstance(error, Refused)
        assert "--insecure" in str(error)

    run(Connection("r", "http://r.example"), body)


def test_an_https_registry_leads_to_no_plain_http(authority: CertificateAuthority) -> None:
    class Tokens(httpx.Auth):
        async def async_auth_flow(
            self, request: httpx.Request
        ) -> AsyncGenerator[httpx.Request, httpx.Response]:
            yield request
            yield httpx.Request("GET", f"http://localhost:{plain.port}/token", headers={"Authorization": "x"})

    async def body(client: Client) -> None:
        assert isinstance(await failure(client.check()), UnsafeTarget)
        assert plain.asked == []

    with HttpServer(ok) as plain, HttpServer(ok, tls=serving(authority.issue())) as server:
        run(Connection("r", f"https://localhost:{server.port}", ca=authority.certificate), body, Tokens())


def test_a_handshake_that_stalls_ends_at_the_deadline() -> None:
    async def body(client: Client) -> None:
        assert isinstance(await failure(client.check()), DeadlineExceeded)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://localhost:{silent.getsockname()[1]}"
        run(Connection("r", address), body, policy=HttpPolicy("a", call_deadline=0.3))


# ── proxies ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
def test_plain_http_goes_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        await client.check()

    with HttpServer(ok) as proxy:
        monkeypatch.setenv("http_proxy", f"http://bob:pw@{proxy.address}")
        run(Connection("r", "http://r.example:5000", insecure=True), body)
        assert proxy.asked[0].target == "http://r.example:5000/v2/"
        assert proxy.asked[0].headers["host"] == "r.example:5000"
        assert proxy.asked[0].headers["proxy-authorization"] == "Basic Ym9iOnB3"


@contextmanager
def tunnelling_proxy(port: int) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that answers CONNECT by joining the client to a loopback port, whatever host was named."""
    asked: list[bytes] = []
    ends: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        asked.append(client.recv(65536))
        upstream = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        ends.extend((client, upstream))
        for pair in ((client, upstream), (upstream, client)):
            threading.Thread(target=pump, args=pair, daemon=True).start()

    with accepting(serve) as at:
        try:
            yield f"http://127.0.0.1:{at}", asked
        finally:
            for end in ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


@pytest.mark.usefixtures("no_proxies")
def test_https_goes_through_a_tunnel_and_is_verified_behind_it(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        HttpServer(ok, tls=serving(authority.issue("r.example"))) as server,
        tunnelling_proxy(server.port) as (url, asked),
    ):
        monkeypatch.setenv("HTTPS_PROXY", url)
        run(Connection("r", "r.example", ca=authority.certificate), check)
        assert asked[0].startswith(b"CONNECT r.example:443 HTTP/1.1\r\n")

        async def body(client: Client) -> None:
            error = await failure(client.check())
            assert isinstance(error, TlsFailed)

        run(Connection("r", "other.example", ca=authority.certificate), body)


@pytest.mark.usefixtures("no_proxies")
def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        error = await failure(client.check())
        assert isinstance(error, ConnectionFailed)
        assert "proxy" in str(error)
        assert "pw" not in str(error)

    with HttpServer(lambda _: reply(403)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://bob:pw@{proxy.address}")
        run(Connection("r", "r.example"), body)


@pytest.mark.usefixtures("no_proxies")
def test_a_registry_behind_a_proxy_leads_to_no_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        assert isinstance(await failure(client.request("GET", "x")), UnsafeTarget)

    with HttpServer(lambda _: reply(307, location="http://10.0.0.1/")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        run(Connection("r", "http://8.8.8.8", insecure=True), body)
        assert len(proxy.asked) == 1


@pytest.mark.usefixtures("no_proxies")
def test_loopback_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with HttpServer(ok) as server:
        run(Connection("r", f"localhost:{server.port}"), check)


@pytest.mark.usefixtures("no_proxies")
def test_a_socks_proxy_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        error = await failure(client.check())
        assert isinstance(error, ConfigError)
        assert "httpx[socks]" in str(error)

    try:
        import socksio  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
        run(Connection("r", "r.example"), body)
