"""The client against Docker's own registry: found by itself, over TLS, signed in, killed and started again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from regfs.connection import Connection
from regfs.errors import BadReply, ConnectionFailed, NotFound, NotSignedIn, TlsFailed
from regfs.ports import HttpPolicy
from regfs.registry.client import Client
from tests.support.registry import DockerRegistry
from tests.support.tls import CertificateAuthority

Start = Callable[..., DockerRegistry]
POLICY = HttpPolicy("regfs-test/1", call_deadline=10.0, retries=2)


def test_it_is_found_by_plain_http_and_by_https(docker_registry: Start, tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")

    async def main() -> None:
        for connection, scheme in (
            (Connection("r", docker_registry().address), "http"),
            (Connection("r", docker_registry(prefix="/hub/").address), "http"),
            (Connection("r", secured.address, ca=authority.certificate), "https"),
            (Connection("r", secured.address, insecure=True), "https"),
        ):
            client = Client(connection, POLICY, None)
            await client.check()
            assert client.base.startswith(f"{scheme}://")
            with pytest.raises(NotFound, match="manifest unknown"):
                await client.request("GET", "team/app/manifests/v1")
            with pytest.raises(BadReply, match="DIGEST_INVALID"):
                await client.request("DELETE", "team/app/manifests/v1")
            assert client.counters()["retries"] == 0
            await client.aclose()
        client = Client(Connection("r", secured.address), POLICY, None)
        with pytest.raises(TlsFailed, match="issued by 'regfs test CA'"):
            await client.check()
        await client.aclose()

    secured = docker_registry(tls=authority.issue())
    trio.run(main)


def test_a_password_is_taken_and_a_wrong_one_is_not(docker_registry: Start) -> None:
    registry = docker_registry(htpasswd={"bob": "hunter2-right"})

    async def main() -> None:
        for password, accepted in (("hunter2-right", True), ("hunter2-wrong", False)):
            client = Client(Connection("r", registry.address), POLICY, httpx.BasicAuth("bob", password))
            if accepted:
                await client.check()
            else:
                with pytest.raises(NotSignedIn) as caught:
                    await client.check()
                assert "hunter2" not in f"{caught.value!r} {caught.value}"
                assert client.counters()["unauthorized"] == 1
            await client.aclose()

    trio.run(main)


def test_it_may_be_killed_and_started_again(docker_registry: Start) -> None:
    registry = docker_registry()

    async def main() -> None:
        client = Client(Connection("r", registry.address), POLICY, None)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client.check)
        await trio.to_thread.run_sync(registry.stop)
        with pytest.raises(ConnectionFailed):
            await client.check()
        await trio.to_thread.run_sync(registry.start)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client.check)
        await client.aclose()

    trio.run(main)
