"""The generic provider, and what a plugin makes of it by the documentation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import trio

from regfs import plugins
from regfs.connection import Connection
from regfs.errors import BadReply, CredentialError
from regfs.ports import Credential, DeletesTags, HttpPolicy, ListsRepositories, Source, Tools
from regfs.providers.generic import GenericProvider
from regfs.testing.behaviour import Behaviour
from regfs.testing.fake import FakeRegistry
from tests.providers.documented import example, example_text


def opened(provider: GenericProvider, address: str, folder: Path, **policy: bool) -> Source:
    tools = Tools(None, HttpPolicy("regfs-tests", **policy), None, folder)  # type: ignore[arg-type]
    (source,) = trio.run(provider.registries, Connection("r", address), tools).values()
    return source


def test_opening_a_connection_asks_the_registry_nothing(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        source = opened(GenericProvider(), registry.address, tmp_path / "state")
        assert source.name == registry.address
        assert registry.records == []
        assert not (tmp_path / "state").exists()


def test_a_prefix_in_the_address_stands_before_v2(tmp_path: Path) -> None:
    with FakeRegistry(Behaviour(prefix="/deep/prefix")) as registry:
        pushed = registry.push("team/app", ["v1"])
        address = registry.authority + "/deep/prefix"
        _, normal = plugins.normalised(f"http://{address}/")
        assert normal == address
        source = opened(GenericProvider(), normal, tmp_path)

        async def read() -> bytes:
            try:
                return (await source.manifest("team/app", "v1")).raw
            finally:
                await source.aclose()

        assert trio.run(read) == pushed.manifest.raw
        assert source.name == address


def test_a_read_only_mounts_source_refuses_to_delete_and_sends_nothing(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", ["v1"])
        source = opened(GenericProvider(), registry.address, tmp_path, read_only=True)

        async def try_it() -> None:
            deletes = source.capability(DeletesTags, "team/app")
            if deletes is not None:
                with pytest.raises(Exception, match="read-only"):
                    await deletes.delete_tag("team/app", "v1", None)
            await source.aclose()

        trio.run(try_it)
        assert registry.writes() == []
        assert list(registry.content()["team/app"]) == ["v1"]


@pytest.mark.parametrize("name", ["forge", "shelf", "key"])
def test_an_example_is_short(name: str) -> None:
    code = [line for line in example_text(name).splitlines() if line.strip()]
    assert len(code) < 40


class _Forge(BaseHTTPRequestHandler):
    body = json.dumps({"projects": ["team/app", "solo"]}).encode()

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v2/_forge/projects" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_request(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def forge() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forge)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def listed(source: Source) -> list[str]:
    async def gather() -> list[str]:
        lists = source.capability(ListsRepositories)
        assert lists is not None
        try:
            return [name async for page in lists.repositories() for name in page]
        finally:
            await source.aclose()

    return trio.run(gather)


def test_the_forge_of_the_documentation_lists_by_its_own_api(
    forge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = example("forge").ForgeProvider()
    assert listed(opened(provider, forge, tmp_path)) == ["team/app", "solo"]
    monkeypatch.setattr(_Forge, "body", b'{"projects": 3}')
    with pytest.raises(BadReply):
        listed(opened(provider, forge, tmp_path))


def test_the_forge_of_the_documentation_is_sure_of_its_hosts_and_takes_another_only_when_it_is_named() -> (
    None
):
    provider = example("forge").ForgeProvider()
    for mine in ("forge.example", "https://EU.forge.example/team/app", "eu.forge.example:8443"):
        assert provider.claim(mine).confidence == 100
    for other in ("forge.example.org", "notforge.example", "localhost:5000"):
        anybodys = GenericProvider().claim(other)
        assert anybodys is not None
        assert provider.claim(other).confidence < anybodys.confidence
    assert provider.claim("oci:/x") is None


def test_the_key_of_the_documentation_signs_requests_with_what_the_keychain_has() -> None:
    method = example("key").ForgeKey()
    credential = method.credential({"key": "the-key"})
    assert method.for_docker(credential) is None
    with pytest.raises(CredentialError):
        method.credential({})

    class Keychain:
        held: Credential | None = None

        async def get(self, connection: Connection) -> Credential | None:
            return self.held

    keychain = Keychain()

    async def signed() -> httpx.Headers:
        flow = method.flow(Connection("r", "forge.example"), keychain)
        request = httpx.Request("GET", "https://forge.example/v2/")
        assert await anext(flow.async_auth_flow(request)) is request
        return httpx.Headers(request.headers)

    assert "x-forge-key" not in trio.run(signed)
    keychain.held = credential
    assert trio.run(signed)["x-forge-key"] == "the-key"
