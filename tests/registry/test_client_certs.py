"""certs.d folders and client certificates: who trusts whom, what is shown to which host, and what a mistake is called."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from regfs.connection import Connection
from regfs.errors import ConfigError, ConnectionFailed, RegfsError, TlsFailed
from regfs.ports import HttpPolicy
from regfs.registry import host_certs
from regfs.registry.client import Client
from regfs.registry.service import Service
from regfs.testing.images import make_image
from tests.registry.http_server import HttpServer, reply
from tests.support.mounts import Home, mounted
from tests.support.registry import DockerRegistry
from tests.support.tls import Certificate, CertificateAuthority

POLICY = HttpPolicy("regfs-test/1", call_deadline=8.0, retries=0)
BLOB = f"app/blobs/sha256:{'0' * 64}"
Registries = Callable[..., DockerRegistry]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three places of certs.d, in their order, empty."""
    home = tmp_path / "somebody"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(host_certs, "SYSTEM_PLACES", (tmp_path / "etc-containers", tmp_path / "etc-docker"))
    return {
        "user": home / ".config/containers/certs.d",
        "containers": tmp_path / "etc-containers",
        "docker": tmp_path / "etc-docker",
    }


@pytest.fixture
def clients(tmp_path: Path) -> CertificateAuthority:
    """The authority of client certificates."""
    return CertificateAuthority(tmp_path / "clients", "regfs test clients")


def laid(place: Path, host: str, *, ca: Path | None = None, pair: Certificate | None = None) -> Path:
    folder = place / host
    folder.mkdir(parents=True)
    if ca:
        shutil.copy(ca, folder / "ca.crt")
    if pair:
        shutil.copy(pair.certificate, folder / "client.cert")
        shutil.copy(pair.key, folder / "client.key")
    return folder


@contextmanager
def serving(
    authority: CertificateAuthority, clients: CertificateAuthority | None = None, location: str = ""
) -> Iterator[HttpServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.issue()
    context.load_cert_chain(issued.certificate, issued.key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.certificate)
    answer = reply(307, location=location) if location else reply(200, b"{}")
    with HttpServer(lambda _: answer, tls=context) as server:
        yield server


def asked(connection: Connection, target: str = "") -> int | RegfsError:
    """The status of a GET, or what it raises."""

    async def main() -> int | RegfsError:
        client = Client(connection, POLICY, None)
        try:
            return (await client.request("GET", target, abroad=bool(target))).status
        except RegfsError as error:
            return error
        finally:
            await client.aclose()

    return trio.run(main)


def refused(answer: int | RegfsError) -> bool:
    """Whether a server did not take us: by its alert, or by a reset that overtakes it."""
    return isinstance(answer, TlsFailed | ConnectionFailed) and "client certificate" in str(answer)


def at(server: HttpServer, **fields: Path | bool) -> Connection:
    return Connection("r", f"https://localhost:{server.port}", **fields)  # type: ignore[arg-type]


# ── authorities ──


@pytest.mark.parametrize("place", ["user", "containers", "docker"])
def test_an_authority_in_any_of_the_three_places_is_trusted_for_its_host(
    place: str, folders: dict[str, Path], authority: CertificateAuthority
) -> None:
    with serving(authority) as server:
        assert isinstance(asked(at(server)), TlsFailed)
        laid(folders[place], f"localhost:{server.port}", ca=authority.certificate)
        assert asked(at(server)) == 200


def test_the_first_folder_that_exists_is_the_only_one(
    folders: dict[str, Path], authority: CertificateAuthority
) -> None:
    with serving(authority) as server:
        laid(folders["docker"], f"localhost:{server.port}", ca=authority.certificate)
        laid(folders["user"], f"localhost:{server.port}")
        assert isinstance(asked(at(server)), TlsFailed)


def test_the_port_counts_as_it_is_written(folders: dict[str, Path], authority: CertificateAuthority) -> None:
    with serving(authority) as server:
        laid(folders["user"], "localhost", ca=authority.certificate)
        laid(folders["user"], f"localhost:{server.port + 1}", ca=authority.certificate)
        assert isinstance(asked(at(server)), TlsFailed)
    assert host_certs.certificates_of("localhost").authorities
    assert not host_certs.certificates_of("localhost:443")


def test_each_host_that_a_connection_speaks_to_has_its_own_folder(
    folders: dict[str, Path], authority: CertificateAuthority, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path / "other", "another authority")
    with serving(other) as away, serving(authority, location=f"https://127.0.0.1:{away.port}/x") as server:
        laid(folders["user"], f"localhost:{server.port}", ca=authority.certificate)
        assert isinstance(asked(at(server), BLOB), TlsFailed)
        laid(folders["user"], f"127.0.0.1:{away.port}", ca=other.certificate)
        assert asked(at(server), BLOB) == 200


def test_a_host_called_like_a_way_up_leads_nowhere(folders: dict[str, Path]) -> None:
    folders["user"].mkdir(parents=True)
    (folders["user"].parent / "x.cert").write_text("no pair")
    for name in ("..", ".", "", "../containers"):
        assert not host_certs.certificates_of(name)


# ── client certificates ──


def test_a_pair_in_certs_d_is_shown_to_its_host(
    folders: dict[str, Path], authority: CertificateAuthority, clients: CertificateAuthority
) -> None:
    with serving(authority, clients) as server:
        folder = laid(folders["user"], f"localhost:{server.port}", ca=authority.certificate)
        assert refused(asked(at(server)))
        pair = clients.issue("me")
        shutil.copy(pair.certificate, folder / "me.cert")
        shutil.copy(pair.key, folder / "me.key")
        assert asked(at(server)) == 200


def test_a_connections_own_pair_is_shown_and_goes_before_the_folders(
    folders: dict[str, Path], authority: CertificateAuthority, clients: CertificateAuthority, tmp_path: Path
) -> None:
    mine, strangers = clients.issue("me"), CertificateAuthority(tmp_path / "strangers").issue("me")
    with serving(authority, clients) as server:
        laid(folders["user"], f"localhost:{server.port}", pair=strangers)
        connection = at(server, ca=authority.certificate)
        assert refused(asked(connection))
        connection = at(server, ca=authority.certificate, client_cert=mine.certificate, client_key=mine.key)
        assert asked(connection) == 200


def test_certificate_and_key_may_be_one_file(
    folders: dict[str, Path], authority: CertificateAuthority, clients: CertificateAuthority, tmp_path: Path
) -> None:
    mine, both = clients.issue("me"), tmp_path / "both.pem"
    both.write_bytes(mine.certificate.read_bytes() + mine.key.read_bytes())
    with serving(authority, clients) as server:
        assert asked(at(server, ca=authority.certificate, client_cert=both)) == 200


@pytest.mark.parametrize("how", ["connection", "folder"])
@pytest.mark.parametrize("where", ["127.0.0.1", "localhost"], ids=["another host", "another port"])
def test_a_client_certificate_goes_to_no_other_host_or_port(
    how: str,
    where: str,
    folders: dict[str, Path],
    authority: CertificateAuthority,
    clients: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    pair = clients.issue("me")
    with (
        serving(authority, clients) as away,
        serving(authority, clients, location=f"https://{where}:{away.port}/x") as server,
    ):
        connection = at(server, client_cert=pair.certificate, client_key=pair.key)
        if how == "folder":
            laid(folders["user"], f"localhost:{server.port}", pair=pair)
            connection = at(server)
        error = asked(connection, BLOB)
        assert refused(error)
        assert f"{where}:{away.port}" in str(error)
        assert away.asked == []
        assert [one.target for one in server.asked] == [f"/v2/{BLOB}"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_service_beside_the_registry_gets_no_client_certificate_of_it(
    host: str,
    folders: dict[str, Path],
    authority: CertificateAuthority,
    clients: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    pair = clients.issue("me")
    with serving(authority, clients) as api:
        connection = Connection(
            "r", "localhost:1", client_cert=pair.certificate, client_key=pair.key, allow_hosts=("127.0.0.1",)
        )
        service = Service(connection, f"https://{host}:{api.port}/api", POLICY, None)
        with pytest.raises((TlsFailed, ConnectionFailed), match="client certificate"):
            trio.run(service.request, "GET", "x")
        assert api.asked == []


# ── mistakes ──


def test_a_folder_that_cannot_be_used_is_named_with_its_file(
    folders: dict[str, Path], clients: CertificateAuthority, tmp_path: Path
) -> None:
    pair, other = clients.issue("me"), clients.issue("you")
    folder = laid(folders["user"], "localhost:1", pair=pair)
    connection = Connection("r", "https://localhost:1")

    def mistake() -> str:
        error = asked(connection)
        assert isinstance(error, ConfigError), error
        return str(error)

    shutil.copy(other.key, folder / "client.key")
    assert "client.key is not the key of the certificate" in mistake()
    (folder / "client.key").unlink()
    assert f"{folder}/client.cert has no key beside it" in mistake()
    (folder / "client.cert").rename(folder / "client.key")
    assert f"{folder}/client.key has no certificate beside it" in mistake()
    (folder / "client.key").unlink()
    (folder / "own.crt").write_text("nothing")
    assert f"{folder}/own.crt" in mistake()


def test_an_encrypted_key_is_said_and_asks_nobody(
    folders: dict[str, Path], clients: CertificateAuthority
) -> None:
    pair = clients.issue("me")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    connection = Connection("r", "https://localhost:1", client_cert=pair.certificate, client_key=pair.key)
    error = asked(connection)
    assert isinstance(error, ConfigError)
    assert f"{pair.key} is encrypted" in str(error)


def test_a_client_certificate_that_is_not_there_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    error = asked(Connection("r", "https://localhost:1", client_cert=tmp_path / "absent.pem"))
    assert isinstance(error, ConfigError)
    assert "absent.pem" in str(error)


# ── Docker's own registry ──


def test_docker_registry_with_clientcas_is_mounted_by_a_certs_d_folder(
    docker_registry: Registries, authority: CertificateAuthority, clients: CertificateAuthority, home: Home
) -> None:
    registry = docker_registry(tls=authority.issue(), client_ca=clients.certificate)
    registry.lay_image("team/app", make_image("app"), ["v1"])
    address = f"localhost:{registry.port}"
    assert home.regfs("ls", f"{address}/team/app").returncode != 0
    laid(
        home.path / ".config/containers/certs.d", address, ca=authority.certificate, pair=clients.issue("me")
    )
    pair = clients.issue("you")
    for options in ([], ["-o", f"client_cert={pair.certificate},client_key={pair.key}"]):
        with mounted(*options, address, home=home) as mount:
            assert mount.list("team/app") == ["v1"]
    with mounted(address, home=home) as mount:
        assert (mount.path / "team/app/v1/digest").read_text().startswith("sha256:")


def test_docker_registry_with_clientcas_is_signed_in_to_with_a_certificate_given_to_login(
    docker_registry: Registries, authority: CertificateAuthority, clients: CertificateAuthority, home: Home
) -> None:
    registry = docker_registry(tls=authority.issue(), client_ca=clients.certificate)
    registry.lay_image("team/app", make_image("app"), ["v1"])
    address, pair = f"localhost:{registry.port}", clients.issue("me")
    common = ["login", "--anonymous", "--ca", str(authority.certificate)]
    without = home.regfs(*common, address)
    assert without.returncode == 1
    assert "client certificate" in without.stderr
    home.regfs(
        *common, "--client-cert", str(pair.certificate), "--client-key", str(pair.key), address, check=True
    )
    assert home.regfs("ls", f"{address}/team/app", check=True).stdout == "v1\n"
